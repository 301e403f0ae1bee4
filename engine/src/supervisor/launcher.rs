//! The hidden subcommand `__launch`.

use std::process::ExitCode;

/// Runs the hidden subcommand `__launch`. Call it before anything starts a thread.
pub fn launcher_main() -> ExitCode {
    ExitCode::from(70)
}
