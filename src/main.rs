//! The `faultbox` command: parse, wire, report, exit code.

mod baseline;
mod ci;
mod cli;
mod commands;
mod exit_code;
mod export;
mod flaky;
mod host;
mod init;
mod markdown;
mod report;
mod screen;
mod stable;
mod story;
mod terminal;

use clap::Parser;
use std::process::ExitCode;

/// Entries are made on the threads that are recorded and end on the recorder's, which the C library's
/// allocator makes both pay for (`make bench`).
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The launcher must stay single-threaded until it has unshared: no runtime before it.
    match cli::Cli::parse().command {
        cli::Command::Launch => faultbox_engine::supervisor::launcher_main(),
        cli::Command::StandIn(args) => ExitCode::from(commands::standin::run(args)),
        cli::Command::Test(args) => ExitCode::from(commands::test::run(args)),
        cli::Command::Replay(args) => ExitCode::from(commands::replay::run(args)),
        cli::Command::Report { bundle, output } => ExitCode::from(commands::report::run(&bundle, output)),
        cli::Command::Export(args) => ExitCode::from(commands::export::run(&args)),
        cli::Command::Init(args) => ExitCode::from(commands::init::run(&args)),
        cli::Command::GitSetup => ExitCode::from(commands::git_setup::run()),
        cli::Command::Completions { shell } => ExitCode::from(commands::shell::completions(shell)),
        cli::Command::Man { folder } => ExitCode::from(commands::shell::man(&folder)),
        cli::Command::Help { name } => ExitCode::from(commands::shell::help(name.as_deref())),
        cli::Command::Learn(args) => ExitCode::from(commands::learn::run(args)),
        cli::Command::Up(args) => ExitCode::from(commands::up::run(args)),
        cli::Command::Diff { a, b, format } => ExitCode::from(commands::diff::run(&a, &b, format)),
        cli::Command::Verify { bundle } => ExitCode::from(commands::verify::run(&bundle)),
        cli::Command::Recover { bundle, output } => ExitCode::from(commands::recover::run(&bundle, output)),
        cli::Command::Doctor { format } => ExitCode::from(commands::doctor::run(format)),
        cli::Command::Lock { spec, root } => ExitCode::from(commands::images::lock(&spec, root.as_deref())),
        cli::Command::Clean => ExitCode::from(commands::clean::run()),
        cli::Command::Inspect(args) => ExitCode::from(commands::inspect::run(args)),
    }
}
