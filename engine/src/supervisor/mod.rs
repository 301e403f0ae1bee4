//! Processes under supervision: launching, network namespaces, syscalls.
//!
//! In reading order: [`launch`] starts `<launcher> __launch` with a control socket
//! (`channel`); that process ([`launcher_main`], `launcher`) enters a network namespace,
//! creates the listeners for the service's upstreams there, forks the service and stays as
//! its *helper*; `filter` is the program that traps the planned syscalls (`calls`), `notify`
//! answers them by a [`SyscallPolicy`] about the target that `target` resolved; `mediate` answers what
//! a service asks about time and randomness, `vdso` makes it ask; `timed` holds what waits, `stillness` tells
//! whether anything does not; `features`
//! and `host` tell what this machine permits, and how to simulate a smaller one. All `unsafe` is in `sys`.
//! On other systems than Linux nothing is launched: `elsewhere` stands in the place of it.
//!
//! A container's service has no launcher: the shim (`engine/shim`) is its first program, and
//! [`adopt`] takes it on from there.
//!
//! Contract:
//! - A service never outlives whoever launched it: the helper kills every descendant (it is
//!   their subreaper, whatever sessions and groups they made) as soon as its control socket
//!   closes, and the service dies with the helper.
//! - A service without trapped families has no filter and runs at native speed.
//! - Children and threads are under the same filter as the service itself.
//! - A pause, and a part of a call that has to wait (`transfer`), hold up nobody but their caller.
//! - Works as root and as an ordinary user.
//!
//! Not modelled: 32-bit and x32 syscalls (never trapped), a result other than an errno. A rule about `read` or
//! `write` cannot be decided in the filter program (it sees numbers, not kinds of files), so
//! trapped families cost a round trip also on sockets. Where the kernel is older than 5.19, a
//! signal restarts a trapped call, which is then decided anew.

#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "nothing is trapped there"))]
mod calls;
#[cfg(target_os = "linux")]
mod channel;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod errno;
mod facts;
mod features;
#[cfg(target_os = "linux")]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing is mediated there"))]
mod filter;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod launcher;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod mediate;
#[cfg(all(target_os = "linux", not(target_arch = "x86_64")))]
#[path = "unmediated.rs"]
mod mediate;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod notify;
mod numbers;
#[cfg(target_os = "linux")]
mod pids;
mod policy;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod remap;
#[cfg(target_os = "linux")]
mod running;
mod signals;
#[cfg(target_os = "linux")]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing is mediated there"))]
mod stillness;
#[cfg(target_os = "linux")]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing is mediated there"))]
mod sys;
#[cfg(target_os = "linux")]
mod target;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod timed;
#[cfg(all(target_os = "linux", not(target_arch = "x86_64")))]
#[path = "untimed.rs"]
mod timed;
mod told;
#[cfg(target_os = "linux")]
mod transfer;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vdso;
#[cfg(test)]
#[path = "../../shim/wire.rs"]
mod wire;

pub use calls::{
    families, family_calls, family_names, has_descriptor, has_path, has_peer, moves_bytes, takes_space,
};
#[cfg(not(target_os = "linux"))]
pub use elsewhere::{
    Control, MEDIATES, Running, SHIM, adopt, columns, launch, launcher_main, launches, may_look_into,
    probe_host, step_back, this_process,
};
pub use errno::{ENOSPC, errno_by_name, errno_name};
pub use facts::{Account, HostFacts};
pub use features::{Feature, Lack, Refused, SETTINGS, WITHOUT, explain, parse_without, without};
pub use policy::{
    Asked, Given, Interest, Kind, Quiet, SyscallAct, SyscallCall, SyscallDecision, SyscallPolicy,
    SyscallTarget,
};
pub use signals::{SIGTERM, signal_by_name, signal_name, signal_names};
pub use told::{Adopt, Exit, LaunchError, Output, OutputStream};
#[cfg(target_os = "linux")]
pub use {
    host::probe_host,
    launcher::launcher_main,
    mediate::MEDIATES,
    running::{Running, adopt, launch},
    std::os::fd::OwnedFd as Control,
    stillness::this_process,
    sys::{columns, step_back},
    target::may_look_into,
};

use crate::determinism::Mediation;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Whether services can be launched on this system at all.
///
/// # Errors
/// Why not.
#[cfg(target_os = "linux")]
pub fn launches() -> Result<(), &'static str> {
    Ok(())
}

/// The shim: a static program, the first of every container.
#[cfg(target_os = "linux")]
pub const SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim"));

/// Where the shim and its control socket (`shim`, `control`) are mounted in every container.
pub const SHIM_FOLDER: &str = "/.faultbox";

/// Whether a service has a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A network namespace with loopback only.
    Namespace,
    /// The host's network; declared ports are bound elsewhere on its behalf.
    Shared,
}

/// What to launch, and how.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The service's name, for the policy and for messages.
    pub service: String,
    /// The executable whose hidden subcommand `__launch` is [`launcher_main`].
    pub launcher: PathBuf,
    /// The service's executable; a relative path is relative to `cwd`.
    pub program: PathBuf,
    /// Its arguments, without its name.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Its network.
    pub isolation: Isolation,
    /// Names that lead to loopback inside its network, where the host permits that.
    pub names: Vec<String>,
    /// Addresses on which listeners are made inside its network, for its upstreams.
    pub listen: Vec<SocketAddr>,
    /// Ports that it binds itself. With [`Isolation::Shared`] each is bound on a port that the
    /// kernel chose.
    pub declared_ports: Vec<u16>,
    /// Syscall families (or single syscalls) to trap.
    pub families: BTreeSet<String>,
    /// Its clock and randomness. With neither that nor families it has no filter.
    pub mediation: Mediation,
}
