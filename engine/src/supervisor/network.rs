//! A network namespace of a service's own: entered by its launcher, with loopback only.
//!
//! Contract: as root a network namespace alone; else together with a user namespace in which
//! the user keeps their own ids. Every port is free there, those below 1024 too.

use super::features::{Feature, refuse};
use super::launcher::{Step, StepResult};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{getegid, geteuid};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

/// Moves this process (of one thread) into a new network namespace with loopback up.
pub(super) fn enter() -> StepResult<()> {
    refuse(Feature::NetworkNamespace).step(|| "enter a network namespace".to_owned())?;
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(Errno::EPERM) => enter_user_namespace(CloneFlags::CLONE_NEWNET)?,
        Err(errno) => return Err(("enter a network namespace".to_owned(), errno)),
    }
    super::sys::loopback_up().step(|| "bring loopback up in the network namespace".to_owned())?;
    super::sys::loopback_second_address().step(|| "give loopback a second address".to_owned())?;
    // A convenience: where `/proc` is read-only, low ports stay root's.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    Ok(())
}

/// Moves this process (of one thread) into a new user namespace, and into `more` with it.
pub(super) fn enter_user_namespace(more: CloneFlags) -> StepResult<()> {
    let (user, group) = (geteuid(), getegid());
    let network = if more.contains(CloneFlags::CLONE_NEWNET) { "user and network" } else { "user" };
    refuse(Feature::UserNamespace)
        .and_then(|()| unshare(CloneFlags::CLONE_NEWUSER | more))
        .step(|| format!("enter a {network} namespace"))?;
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text)
            .step(|| format!("write {file} of the user namespace"))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{user} {user} 1"))?;
    write("gid_map", format!("{group} {group} 1"))
}

/// Listeners at these addresses, non-blocking.
pub(super) fn listen(addresses: &[SocketAddr]) -> StepResult<Vec<TcpListener>> {
    let one = |address: &SocketAddr| -> std::io::Result<TcpListener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    addresses.iter().map(|address| one(address).step(|| format!("listen on {address}"))).collect()
}

/// A new TCP socket in this process's network.
pub(super) fn tcp_socket(v6: bool) -> nix::Result<OwnedFd> {
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}
