//! The addresses that a spec sees as `.addr`: known when it is loaded, parseable, stable.
//!
//! Contract: where services have a network of their own, an interface is reached at
//! `127.0.0.1:<declared port>` (the next free number where two interfaces declare the same
//! port); nothing is bound. Where they share the host's, a port that the kernel chose is
//! bound at once and held until it is taken.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// An address, and the listener that holds it where the network is shared.
type Assigned = (SocketAddr, Option<TcpListener>);

/// Hands out addresses. Clones share what was handed out.
#[derive(Debug, Clone)]
pub struct AddressBook {
    shared: bool,
    inner: Arc<Mutex<BTreeMap<String, Assigned>>>,
}

impl AddressBook {
    /// For services in networks of their own (and for `--dry-run`).
    pub fn isolated() -> Self {
        AddressBook { shared: false, inner: Arc::default() }
    }

    /// For services that share the host's loopback.
    pub fn shared() -> Self {
        AddressBook { shared: true, inner: Arc::default() }
    }

    /// The address for `service.interface`, declared at `port`.
    ///
    /// # Errors
    /// When the host has no port left.
    pub fn assign(&self, interface: &str, port: u16) -> std::io::Result<SocketAddr> {
        let mut inner = self.inner.lock().unwrap_or_else(|p| p.into_inner());
        if let Some((addr, _)) = inner.get(interface) {
            return Ok(*addr);
        }
        let (addr, listener) = if self.shared {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            (listener.local_addr()?, Some(listener))
        } else {
            let taken = |port: u16| inner.values().any(|(addr, _)| addr.port() == port);
            let free = (port.max(1)..=u16::MAX).find(|port| !taken(*port));
            let free = free.ok_or(std::io::ErrorKind::AddrInUse)?;
            (SocketAddr::from((Ipv4Addr::LOCALHOST, free)), None)
        };
        inner.insert(interface.to_owned(), (addr, listener));
        Ok(addr)
    }

    /// The address of `service.interface`, if it was assigned.
    pub fn get(&self, interface: &str) -> Option<SocketAddr> {
        self.inner.lock().unwrap_or_else(|p| p.into_inner()).get(interface).map(|(addr, _)| *addr)
    }

    /// A handle on the held listener (shared networks only); the book keeps its own.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn listener(&self, interface: &str) -> std::io::Result<Option<TcpListener>> {
        let inner = self.inner.lock().unwrap_or_else(|p| p.into_inner());
        inner.get(interface).and_then(|(_, l)| l.as_ref()).map(TcpListener::try_clone).transpose()
    }
}
