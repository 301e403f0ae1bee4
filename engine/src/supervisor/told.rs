//! What the supervisor is told of a service, and what it tells.

use crate::determinism::Mediation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// The helper was lost; nothing is known.
    Unknown,
}

/// Where a chunk of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A chunk of output, as it was read; cut anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where it came from.
    pub stream: OutputStream,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A family that cannot be trapped.
    #[error("no syscall family '{0}'")]
    UnknownFamily(String),
    /// The launcher did not start, or the channel to it broke.
    #[error("the launcher of '{service}' failed: {message}")]
    Launcher {
        /// The service.
        service: String,
        /// What happened.
        message: String,
    },
    /// A step on the way to the service's own code failed.
    #[error("service '{service}' could not be started: {step}: {source}")]
    Step {
        /// The service.
        service: String,
        /// What was tried (`execute /srv/api`, `enter a network namespace`).
        step: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What a container's shim is told.
#[derive(Debug, Clone)]
pub struct Adopt {
    /// The service's name, for the policy and for messages.
    pub service: String,
    /// Addresses on which listeners are made inside its network, for its upstreams.
    pub listen: Vec<SocketAddr>,
    /// Syscall families (or single syscalls) to trap.
    pub families: BTreeSet<String>,
    /// Its clock and randomness. With neither that nor families it has no filter.
    pub mediation: Mediation,
    /// Whether it may be left to another process ([`Running::leave`]).
    pub keepable: bool,
}
