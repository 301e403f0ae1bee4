//! Declared ports without a network namespace: the supervisor performs the service's `bind` on
//! a port that the kernel chose.
//!
//! Contract: only binds to a declared port are touched; the wildcard address becomes loopback,
//! so that nothing is reachable from outside the host. A second bind to the same declared port
//! (the other address family, another worker) goes to the same chosen port.
//!
//! Not modelled: the service sees the chosen port in `getsockname`, and reaches itself only
//! through it.

use super::SyscallTarget;
use super::sys::{self, Notification, Notifier, Response};
use super::target::{decode_address, read_address};
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, bind, getsockname, getsockopt, sockopt};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;

/// Where the declared ports of one service really are.
#[derive(Debug, Default)]
pub(super) struct Remap {
    declared: BTreeSet<u16>,
    bound: Mutex<BTreeMap<u16, SocketAddr>>,
}

impl Remap {
    /// For these declared ports; none leaves every bind alone.
    pub(super) fn of(declared: impl IntoIterator<Item = u16>) -> Self {
        Remap { declared: declared.into_iter().collect(), bound: Mutex::default() }
    }

    /// Whether there is a declared port.
    pub(super) fn any(&self) -> bool {
        !self.declared.is_empty()
    }

    /// Whether this port is bound elsewhere.
    pub(super) fn covers(&self, port: u16) -> bool {
        self.declared.contains(&port)
    }

    /// Where the port is bound, if it is yet.
    pub(super) fn bound(&self, port: u16) -> Option<SocketAddr> {
        self.bound.lock().unwrap_or_else(|p| p.into_inner()).get(&port).copied()
    }

    /// Performs a trapped bind; `None` when it is none of ours.
    pub(super) fn bind(&self, notifier: &Notifier, notification: &Notification) -> Option<Response> {
        let [fd, at, length, ..] = notification.args;
        let bytes = read_address(notification.tid, at, length)?;
        let SyscallTarget::Peer(wanted) = decode_address(&bytes) else { return None };
        if !self.covers(wanted.port()) {
            return None;
        }
        let v6 = bytes.first_chunk().map(|b| i32::from(u16::from_ne_bytes(*b))) == Some(libc::AF_INET6);
        // A descriptor is the low half of its register.
        let socket = process_of(notification.tid)
            .ok_or(Errno::ESRCH)
            .and_then(|process| sys::take_descriptor(process, fd as u32 as i32));
        if !notifier.valid(notification.id) {
            // Its thread is gone; what was read may be another's.
            return None;
        }
        let done = socket.and_then(|socket| self.perform(&socket, wanted, v6));
        Some(done.map_or_else(|errno| Response::Errno(errno as i32), |()| Response::Success))
    }

    fn perform(&self, socket: &OwnedFd, wanted: SocketAddr, v6: bool) -> nix::Result<()> {
        let only_v6 = v6 && getsockopt(socket, sockopt::Ipv6V6Only).unwrap_or(false);
        let ip = inside(wanted.ip(), v6, only_v6);
        let mut bound = self.bound.lock().unwrap_or_else(|p| p.into_inner());
        let port = bound.get(&wanted.port()).map_or(0, SocketAddr::port);
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, port)))?;
        let port = local_port(socket)?;
        bound.entry(wanted.port()).or_insert(SocketAddr::new(ip.to_canonical(), port));
        Ok(())
    }
}

/// The address to bind instead of `wanted`: what the socket's family can have, and loopback
/// where it would be every address.
fn inside(wanted: IpAddr, v6: bool, only_v6: bool) -> IpAddr {
    match (wanted, v6) {
        (ip, false) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (ip, true) if ip.is_unspecified() && only_v6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (ip, true) if ip.is_unspecified() => IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()),
        (IpAddr::V4(ip), true) => IpAddr::V6(ip.to_ipv6_mapped()),
        (ip, _) => ip,
    }
}

fn local_port(socket: &OwnedFd) -> nix::Result<u16> {
    let name: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = name.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::port);
    v4.or_else(|| name.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::port)).ok_or(Errno::EAFNOSUPPORT)
}

/// The process that a thread belongs to.
pub(super) fn process_of(tid: u32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wildcard_becomes_loopback_of_the_sockets_family() {
        let any4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        assert_eq!(inside(any4, false, false).to_string(), "127.0.0.1");
        assert_eq!(inside(any6, true, true).to_string(), "::1");
        assert_eq!(inside(any6, true, false).to_string(), "::ffff:127.0.0.1");
        assert_eq!(inside(IpAddr::V4(Ipv4Addr::LOCALHOST), true, false).to_string(), "::ffff:127.0.0.1");
        assert_eq!(inside(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), false, false).to_string(), "127.0.0.2");
    }

    #[test]
    fn a_thread_knows_its_process() {
        assert_eq!(process_of(nix::unistd::gettid().as_raw() as u32), Some(std::process::id() as i32));
    }
}
