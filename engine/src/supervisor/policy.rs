//! What decides about trapped syscalls: the seam between the supervisor and the rules.
//!
//! Contract: [`SyscallPolicy::decide`] is called once for each trapped call that
//! [`SyscallPolicy::wants`], on the service's supervising thread, and must not block.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// A trapped syscall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallCall<'a> {
    /// The service whose process made it.
    pub service: &'a str,
    /// The thread that waits for it (an id on the host).
    pub pid: u32,
    /// Its name (`pwrite64`).
    pub name: &'static str,
    /// The families that it belongs to, its own name last (`write`, `pwrite64`).
    pub families: &'a [&'static str],
    /// What it is about.
    pub target: SyscallTarget,
}

/// What a syscall is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyscallTarget {
    /// A file by its absolute path, symbolic links resolved. For `rename` and `link` the new
    /// name.
    File {
        /// The path.
        path: PathBuf,
        /// Whether it is a regular file (or does not exist yet), not a directory or device.
        regular: bool,
    },
    /// An internet address: a peer for `connect` and `sendto`, one's own for `bind`.
    Peer(SocketAddr),
    /// A unix socket's address; abstract names begin with `@`.
    UnixPeer(PathBuf),
    /// An open descriptor that is no file: `socket`, `pipe`, `anon_inode`, or `closed`.
    Fd {
        /// Its kind.
        kind: String,
    },
    /// Nothing in particular, or it could not be read.
    None,
}

/// What a service was given that is not the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// By which call, or `AT_RANDOM`.
    pub call: &'static str,
    /// Which bytes of its randomness, where they are of the one stream.
    pub from: Option<u64>,
    /// How many.
    pub bytes: u64,
}

/// What a service got from the host, where that is watched: what may differ between two runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// The wall clock, by this call.
    Time(&'static str),
    /// Randomness, by this call.
    Randomness(&'static str),
    /// A connection to this peer.
    Peer(SocketAddr),
}

/// What becomes of a syscall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyscallDecision {
    /// It is made.
    Continue,
    /// It fails with this errno.
    Errno(i32),
    /// It is made after a pause.
    Delay(Duration),
}

/// Decides about trapped syscalls.
pub trait SyscallPolicy: Send + Sync {
    /// Decides about one call.
    fn decide(&self, call: &SyscallCall<'_>) -> SyscallDecision;

    /// Whether any rule could act on such a call now. `false` lets it pass at once, without
    /// finding out what it is about.
    fn wants(&self, name: &'static str, families: &[&'static str]) -> bool {
        let _ = (name, families);
        true
    }

    /// The service was given randomness that is not the host's.
    fn given(&self, given: &Given) {
        let _ = given;
    }

    /// The service, which is watched, asked the host.
    fn asked(&self, asked: Asked) {
        let _ = asked;
    }

    /// Changes when the active faults do; that ends every pending delay.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// Lets every call pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl SyscallPolicy for Quiet {
    fn decide(&self, _: &SyscallCall<'_>) -> SyscallDecision {
        SyscallDecision::Continue
    }
    fn wants(&self, _: &'static str, _: &[&'static str]) -> bool {
        false
    }
}
