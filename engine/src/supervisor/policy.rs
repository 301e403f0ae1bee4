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
    /// How many bytes it asks to move, where a part of them could be moved instead, or to
    /// reserve; where [`Interest::bytes`] asks for it.
    pub bytes: Option<u64>,
    /// The names of its executable and of its thread, where [`Interest::process`] asks for them.
    pub process: Vec<String>,
}

/// What a descriptor or a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, or one that does not exist yet.
    File,
    /// A directory.
    Dir,
    /// A socket.
    Socket,
    /// A pipe, with or without a name.
    Pipe,
    /// A terminal.
    Tty,
    /// Another device.
    Device,
    /// Memory by `memfd_create`.
    Memfd,
    /// An epoll instance.
    Epoll,
    /// An event counter.
    Eventfd,
    /// A timer.
    Timerfd,
    /// Signals as data.
    Signalfd,
    /// A watch over files.
    Inotify,
    /// Something else that has no name.
    Other,
    /// No open descriptor.
    Closed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 14] = [
        Kind::File,
        Kind::Dir,
        Kind::Socket,
        Kind::Pipe,
        Kind::Tty,
        Kind::Device,
        Kind::Memfd,
        Kind::Epoll,
        Kind::Eventfd,
        Kind::Timerfd,
        Kind::Signalfd,
        Kind::Inotify,
        Kind::Other,
        Kind::Closed,
    ];

    /// Its name in specs.
    pub fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Dir => "dir",
            Kind::Socket => "socket",
            Kind::Pipe => "pipe",
            Kind::Tty => "tty",
            Kind::Device => "device",
            Kind::Memfd => "memfd",
            Kind::Epoll => "epoll",
            Kind::Eventfd => "eventfd",
            Kind::Timerfd => "timerfd",
            Kind::Signalfd => "signalfd",
            Kind::Inotify => "inotify",
            Kind::Other => "other",
            Kind::Closed => "closed",
        }
    }
}

/// What a syscall is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyscallTarget {
    /// A file by its absolute path, symbolic links resolved. For `rename` and `link` the new
    /// name.
    File {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: Kind,
    },
    /// An internet address: a peer for `connect`, `sendto` and `sendmsg`, one's own for `bind`.
    Peer(SocketAddr),
    /// A unix socket's address; abstract names begin with `@`.
    UnixPeer(PathBuf),
    /// A descriptor that is no file.
    Fd {
        /// What it is.
        kind: Kind,
        /// Whom a socket is connected to ([`SyscallTarget::Peer`] or
        /// [`SyscallTarget::UnixPeer`]), where [`Interest::peer`] asks for it.
        peer: Option<Box<SyscallTarget>>,
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
pub enum SyscallAct {
    /// It is made.
    Continue,
    /// It fails with this errno.
    Errno(i32),
    /// It moves at most so many bytes.
    AtMost(u64),
    /// Its process gets this signal; it fails with EINTR where that is survived.
    Kill(i32),
}

/// What becomes of a syscall, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyscallDecision {
    /// After this pause.
    pub pause: Duration,
    /// That.
    pub act: SyscallAct,
}

impl SyscallDecision {
    /// It is made.
    pub const CONTINUE: SyscallDecision =
        SyscallDecision { pause: Duration::ZERO, act: SyscallAct::Continue };
}

impl From<SyscallAct> for SyscallDecision {
    fn from(act: SyscallAct) -> Self {
        SyscallDecision { act, ..SyscallDecision::CONTINUE }
    }
}

/// What a policy wants to know of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interest {
    /// Whom a socket is connected to.
    pub peer: bool,
    /// Who makes it.
    pub process: bool,
    /// How many bytes it asks for.
    pub bytes: bool,
}

/// Decides about trapped syscalls.
pub trait SyscallPolicy: Send + Sync {
    /// Decides about one call.
    fn decide(&self, call: &SyscallCall<'_>) -> SyscallDecision;

    /// What any rule that could act on such a call now looks at. `None` lets it pass at once,
    /// without finding out what it is about.
    fn wants(&self, name: &'static str, families: &[&'static str]) -> Option<Interest> {
        let _ = (name, families);
        Some(Interest { peer: true, process: true, bytes: true })
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
        SyscallDecision::CONTINUE
    }
    fn wants(&self, _: &'static str, _: &[&'static str]) -> Option<Interest> {
        None
    }
}
