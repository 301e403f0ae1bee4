//! The exit codes of design.md section 9.

/// Everything as expected; replay: exact.
pub const OK: u8 = 0;
/// A cell failed; replay: the verdict was not reproduced; diff: they differ.
pub const FAILED: u8 = 1;
/// Usage, or the spec does not load.
pub const USAGE: u8 = 2;
/// No cell failed but one is inconclusive; replay: verdict reproduced, something diverged.
pub const INCONCLUSIVE: u8 = 3;
/// The host lacks something, or a service did not start.
pub const HOST: u8 = 4;
/// The bundle could not be written, or is unreadable.
pub const BUNDLE: u8 = 5;
/// `recover`: something is missing.
pub const LOSSY: u8 = INCONCLUSIVE;
