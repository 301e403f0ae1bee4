//! What this host permits, found out by trying.
//!
//! Contract: asks a launcher to try ([`super::launcher_main`]); what a launcher that does not
//! answer would have said is an error that says so.

use super::channel::{Channel, Command, Probed, Report};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::path::Path;
use std::process::Stdio;

/// What this host permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Whether a service can have a network namespace of its own; else why not, and what would
    /// enable it.
    pub namespaces: Result<(), String>,
    /// Whether syscalls can be trapped; else why not.
    pub seccomp_notify: Result<(), String>,
    /// Whether a trapped call waits on when a signal arrives (Linux 5.19; else Go programs
    /// repeat trapped calls).
    pub wait_killable: bool,
    /// Whether the fast wake-up works (Linux 6.6).
    pub sync_wake_up: bool,
    /// Whether an address can be read from a service's memory; else why not.
    pub read_memory: Result<(), String>,
    /// Whether the supervisor can act on a service's sockets (needed for declared ports where
    /// there are no namespaces); else why not.
    pub take_descriptor: Result<(), String>,
    /// The kernel's release.
    pub kernel: String,
}

/// Finds out what this host permits, by having `launcher` really try. Blocks for some
/// milliseconds.
pub fn probe_host(launcher: &Path) -> HostFacts {
    let probed = ask(launcher).unwrap_or_else(|why| Probed {
        namespaces: Err(why.clone()),
        seccomp_notify: Err(why.clone()),
        wait_killable: false,
        sync_wake_up: false,
        read_memory: Err(why.clone()),
        take_descriptor: Err(why),
    });
    HostFacts {
        namespaces: probed.namespaces,
        seccomp_notify: probed.seccomp_notify,
        wait_killable: probed.wait_killable,
        sync_wake_up: probed.sync_wake_up,
        read_memory: probed.read_memory,
        take_descriptor: probed.take_descriptor,
        kernel: kernel_release(),
    }
}

fn ask(launcher: &Path) -> Result<Probed, String> {
    let told = |what: &str, why: &dyn std::fmt::Display| format!("{what} {}: {why}", launcher.display());
    let (control, theirs) = Channel::pair().map_err(|errno| told("cannot make a channel to", &errno))?;
    setsockopt(&control, sockopt::ReceiveTimeout, &TimeVal::seconds(20))
        .map_err(|errno| told("cannot make a channel to", &errno))?;
    let mut child = std::process::Command::new(launcher)
        .arg("__launch")
        .stdin(Stdio::from(theirs.into_fd()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| told("cannot start", &error))?;
    let answer = control
        .send(&Command::Probe, &[])
        .and_then(|()| control.receive::<Report>())
        .map_err(|errno| told("no answer from", &errno.desc()));
    // It has answered, or will not; either way nothing of it is needed any more.
    let _ = child.kill();
    let _ = child.wait();
    match answer? {
        Some((Report::Probed(probed), _)) => Ok(probed),
        other => Err(told("no answer from", &format!("{:?}", other.map(|(report, _)| report)))),
    }
}

/// The kernel's release (`6.18.44`).
fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Whether the kernel is at least this version.
pub(super) fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = kernel_release();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}
