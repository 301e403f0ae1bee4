//! The engine: everything that runs a cell, live or replayed.
//!
//! In reading order:
//! - [`topology`], [`plan`]: what a spec comes to; [`spec`] makes it from Starlark;
//! - [`journal`], [`noted`], [`event_sink`], [`oracle`], [`environment`]: the seams;
//! - [`fault`]: rules and which of them act now; [`link`]: where protocols meet them;
//! - [`protocol`]: one folder a wire protocol; [`mock`], [`standin`]: servers of our own;
//! - [`os`]: what differs between systems;
//! - [`determinism`]: whose clock and dice a service has; [`virtual_time`]: time that is skipped;
//! - [`diagnosis`]: what of all this works on a host;
//! - [`runner`]: one cell from start to verdict; [`runner::live`] is the live environment;
//! - [`supervisor`]: processes, namespaces and syscalls; [`containers`]: services by `image=`.

pub mod addresses;
pub mod clock;
pub mod containers;
pub mod determinism;
pub mod diagnosis;
pub mod environment;
pub mod event_sink;
pub mod fault;
pub mod journal;
pub mod link;
pub mod mock;
pub mod noted;
pub mod oracle;
pub mod os;
pub mod plan;
pub mod prng;
pub mod protocol;
pub mod runner;
pub mod spec;
pub mod standin;
pub mod step;
pub mod supervisor;
pub mod topology;
pub mod virtual_time;
