//! What this host permits, found out by trying.

use std::path::Path;

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

/// Finds out what this host permits, by having `launcher` really try.
pub fn probe_host(launcher: &Path) -> HostFacts {
    let _ = launcher;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let not_yet = || Err("not tried".to_owned());
    HostFacts {
        namespaces: not_yet(),
        seccomp_notify: not_yet(),
        wait_killable: false,
        sync_wake_up: false,
        read_memory: not_yet(),
        take_descriptor: not_yet(),
        kernel: kernel.trim().to_owned(),
    }
}
