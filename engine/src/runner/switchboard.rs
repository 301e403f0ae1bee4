//! The switchboard: every connection of a cell, from an asker to an interface.
//!
//! Contract: connections of services arrive at listeners in their own network, connections
//! of the test driver inside this process. Each gets a [`Link`] and is carried by the
//! environment. Where an active rule refuses an interface, connections are reset on arrival,
//! and open ones when the rule becomes active.

use super::CellContext;
use crate::environment::Environment;
use crate::link::{BoxFuture, Dial, InterfaceOptions, Link, Stream};
use crate::os;
use crate::protocol::{Protocol, ProtocolError};
use crate::topology::ServiceKind;
use faultbox_bundle_format::split_interface;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Bytes that a pipe inside this process holds.
const PIPE_BYTES: usize = 256 * 1024;

struct Open {
    interface: String,
    source: String,
    reset: CancellationToken,
    closed: CancellationToken,
}

/// A connection's place among those of its cell, for as long as it is open.
struct Registered {
    cell: Arc<CellContext>,
    id: u64,
    reset: CancellationToken,
    closed: CancellationToken,
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.cell.switchboard.open).remove(&self.id);
        self.closed.cancel();
    }
}

/// All connections of one cell.
pub struct Switchboard {
    environment: Arc<dyn Environment>,
    links: Mutex<BTreeMap<(String, String), Arc<Link>>>,
    open: Mutex<BTreeMap<u64, Open>>,
    next: std::sync::atomic::AtomicU64,
    /// Ways to the services that the runner itself started.
    local: Mutex<BTreeMap<String, Arc<dyn Dial>>>,
    doors: Mutex<Vec<Arc<Door>>>,
    closing: CancellationToken,
}

/// Where connections arrive, and what is done with one; false where none is wanted any more.
struct Door {
    /// The same socket as the one that is waited on.
    listener: std::net::TcpListener,
    carry: Box<dyn Fn(TcpStream) -> bool + Send + Sync>,
    /// Held from before a connection is taken until it has its place among the open ones.
    taking: Mutex<()>,
}

impl Door {
    /// Takes the connections that are there already.
    fn empty(&self) {
        let _taking = lock(&self.taking);
        while let Ok((stream, _)) = self.listener.accept() {
            // One that cannot be used is closed with this.
            let usable = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if usable.is_ok_and(|stream| !(self.carry)(stream)) {
                return;
            }
        }
    }
}

impl Switchboard {
    /// A switchboard for one cell.
    pub fn new(environment: Arc<dyn Environment>) -> Self {
        Switchboard {
            environment,
            links: Mutex::default(),
            open: Mutex::default(),
            next: Default::default(),
            local: Mutex::default(),
            doors: Mutex::default(),
            closing: CancellationToken::new(),
        }
    }

    /// Where the connections lead that do not lead to what the runner started.
    pub fn environment(&self) -> &dyn Environment {
        &*self.environment
    }

    /// Says how an interface of a service that the runner started is reached.
    pub fn register_local(&self, interface: &str, dial: Arc<dyn Dial>) {
        lock(&self.local).insert(interface.to_owned(), dial);
    }

    /// How an interface of a service that the runner started is reached, past all proxies.
    pub fn local(&self, interface: &str) -> Option<Arc<dyn Dial>> {
        lock(&self.local).get(interface).cloned()
    }

    /// The link of an asker to an interface.
    pub fn link(&self, cell: &Arc<CellContext>, source: &str, interface: &str) -> Option<Arc<Link>> {
        let key = (source.to_owned(), interface.to_owned());
        if let Some(link) = lock(&self.links).get(&key) {
            return Some(link.clone());
        }
        let link = new_link(cell, source, interface, None)?;
        Some(lock(&self.links).entry(key).or_insert(link).clone())
    }

    /// Accepts connections of `source` to `interface` until the cell ends.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn listen(
        &self,
        cell: &Arc<CellContext>,
        source: &str,
        interface: &str,
        listener: std::net::TcpListener,
    ) -> io::Result<()> {
        let link = self.link(cell, source, interface).ok_or(io::ErrorKind::NotFound)?;
        self.carry_all(cell, link, listener)
    }

    /// Accepts connections of this host to `interface`, as the test driver's are, until the cell ends.
    /// What the interface says of its own address is the listener's.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn listen_outside(
        &self,
        cell: &Arc<CellContext>,
        interface: &str,
        listener: std::net::TcpListener,
    ) -> io::Result<()> {
        let advertised = listener.local_addr()?.to_string();
        let link = new_link(cell, crate::runner::TEST, interface, Some(&advertised));
        self.carry_all(cell, link.ok_or(io::ErrorKind::NotFound)?, listener)
    }

    fn carry_all(
        &self,
        cell: &Arc<CellContext>,
        link: Arc<Link>,
        listener: std::net::TcpListener,
    ) -> io::Result<()> {
        let protocol = cell.protocol(&link.interface).ok_or(io::ErrorKind::NotFound)?;
        let cell = Arc::downgrade(cell);
        self.accept(listener, move |stream| {
            let Some(cell) = Weak::upgrade(&cell) else { return false };
            let registered = cell.switchboard.register(&cell, &link);
            tokio::spawn(carry_tcp(registered, protocol, stream, link.clone()));
            true
        })
    }

    /// Passes connections on, past all proxies, until the cell ends.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn forward(&self, listener: std::net::TcpListener, to: Arc<dyn Dial>) -> io::Result<()> {
        let closing = self.closing.clone();
        self.accept(listener, move |mut stream| {
            let (to, closing) = (to.clone(), closing.clone());
            tokio::spawn(async move {
                let passed = async {
                    let mut server = to.dial().await?;
                    tokio::io::copy_bidirectional(&mut stream, &mut server).await
                };
                // How a connection ends is between its two ends.
                tokio::select! {
                    _ = passed => {}
                    () = closing.cancelled() => {}
                }
            });
            true
        })
    }

    /// Hands connections on until the cell ends, or nobody wants any more.
    fn accept(
        &self,
        listener: std::net::TcpListener,
        carry: impl Fn(TcpStream) -> bool + Send + Sync + 'static,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let (same, carry) = (listener.try_clone()?, Box::new(carry));
        let door = Arc::new(Door { listener: same, carry, taking: Mutex::default() });
        lock(&self.doors).push(door.clone());
        let listener = TcpListener::from_std(listener)?;
        let closing = self.closing.clone();
        tokio::spawn(async move {
            loop {
                let taken = std::future::poll_fn(|context| {
                    let _taking = lock(&door.taking);
                    let accepted = std::task::ready!(listener.poll_accept(context));
                    Poll::Ready(accepted.map_or(true, |(stream, _)| (door.carry)(stream)))
                });
                let wanted = tokio::select! {
                    wanted = taken => wanted,
                    () = closing.cancelled() => return,
                };
                if !wanted {
                    return;
                }
            }
        });
        Ok(())
    }

    /// A way for the test driver to an interface.
    pub fn dial_as_test(
        &self,
        cell: &Arc<CellContext>,
        interface: &str,
    ) -> Option<(Arc<dyn Dial>, Arc<Link>)> {
        let link = self.link(cell, crate::runner::TEST, interface)?;
        let protocol = cell.protocol(interface)?;
        let dial = InProcess { cell: Arc::downgrade(cell), protocol, link: link.clone() };
        Some((Arc::new(dial), link))
    }

    /// Resets connections that match: those that are open and those that have only arrived. When this is done, their
    /// sockets are closed: who looks at one finds out before it asks anything.
    pub async fn reset(&self, which: impl FnMut(&str, &str) -> bool) {
        let doors = lock(&self.doors).clone();
        doors.iter().for_each(|door| door.empty());
        for closed in self.begin_reset(which) {
            closed.cancelled().await;
        }
    }

    fn begin_reset(&self, mut which: impl FnMut(&str, &str) -> bool) -> Vec<CancellationToken> {
        let open = lock(&self.open);
        let matching = open.values().filter(|open| which(&open.interface, &open.source));
        matching.inspect(|open| open.reset.cancel()).map(|open| open.closed.clone()).collect()
    }

    /// Ends every connection and every listener of the cell.
    pub fn close(&self) {
        self.closing.cancel();
        lock(&self.doors).clear();
        self.begin_reset(|_, _| true);
    }

    fn register(&self, cell: &Arc<CellContext>, link: &Link) -> Registered {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let [reset, closed] = std::array::from_fn(|_| CancellationToken::new());
        let open = Open {
            interface: link.interface.to_string(),
            source: link.source.to_string(),
            reset: reset.clone(),
            closed: closed.clone(),
        };
        lock(&self.open).insert(id, open);
        Registered { cell: cell.clone(), id, reset, closed }
    }

    fn route(
        &self,
        cell: &Arc<CellContext>,
        protocol: &'static dyn Protocol,
        client: Stream,
        link: Arc<Link>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>> {
        match self.local(&link.interface) {
            Some(dial) => protocol.proxy(client, dial, link),
            None => self.environment.carry(cell, protocol, client, link),
        }
    }
}

/// A link of an asker to an interface, which says of itself that it is at `advertised`, or where the
/// services of the cell find it.
fn new_link(
    cell: &CellContext,
    source: &str,
    interface: &str,
    advertised: Option<&str>,
) -> Option<Arc<Link>> {
    let (service, name) = split_interface(interface);
    let service = cell.plan.topology.service(service)?;
    let declared = service.interfaces.iter().find(|i| i.name == name)?;
    let descriptors = match &service.kind {
        ServiceKind::Mock(mock) => mock.descriptors(),
        _ => None,
    };
    let options = InterfaceOptions { descriptors, env: service.env.iter().cloned().collect() };
    Some(Link::new(
        interface,
        declared.protocol.name(),
        source,
        advertised.unwrap_or(&declared.addr),
        Arc::new(options),
        cell.journal.clone(),
        Some(cell.faults.clone()),
        cell.open.clone(),
    ))
}

/// Carries one TCP connection; ends it with a reset where a rule says so.
async fn carry_tcp(
    registered: Registered,
    protocol: &'static dyn Protocol,
    stream: TcpStream,
    link: Arc<Link>,
) {
    // The last to go: what is closed is closed.
    let registered = registered;
    let cell = registered.cell.clone();
    let _ = stream.set_nodelay(true);
    let refused = cell.faults.refuses(&link.interface, &link.source);
    if refused {
        cell.faults.note_refusal(&link.interface, &link.source);
    }
    let (service, _) = split_interface(&link.interface);
    // The call was let pass before the rule was there, and the connection has come only now.
    let late = &*link.source != crate::runner::TEST && cell.faults.denies_every_connect(service);
    if refused || late {
        if let Some(hold) = os::Hold::on(&stream) {
            hold.reset_on_close();
        }
        drop(stream);
        return;
    }
    // The hold keeps the socket open until it is known how it has to end.
    let hold = os::Hold::on(&stream);
    let carried = cell.switchboard.route(&cell, protocol, Box::new(stream), link);
    let cut = tokio::select! {
        // Nothing of what it asks is heard then.
        biased;
        () = registered.reset.cancelled() => true,
        ended = carried => matches!(ended, Err(ProtocolError::Cut)),
    };
    if let (true, Some(hold)) = (cut, &hold) {
        hold.reset_on_close();
    }
}

struct InProcess {
    cell: Weak<CellContext>,
    protocol: &'static dyn Protocol,
    link: Arc<Link>,
}

impl Dial for InProcess {
    fn dial(&self) -> BoxFuture<'_, io::Result<Stream>> {
        let made = self.cell.upgrade().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)).and_then(
            |cell| {
                if cell.faults.refuses(&self.link.interface, &self.link.source) {
                    cell.faults.note_refusal(&self.link.interface, &self.link.source);
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                let registered = cell.switchboard.register(&cell, &self.link);
                let (protocol, link) = (self.protocol, self.link.clone());
                tokio::spawn(async move {
                    let carried = cell.switchboard.route(&cell, protocol, Box::new(theirs), link);
                    tokio::select! {
                        _ = carried => {}
                        () = registered.reset.cancelled() => {}
                    }
                });
                Ok(Box::new(ours) as Stream)
            },
        );
        Box::pin(std::future::ready(made))
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_door_is_emptied_of_what_arrived_before_anybody_looked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let theirs = taken.clone();
        let carry = Box::new(move |stream: TcpStream| {
            lock(&theirs).push(stream.peer_addr().unwrap());
            true
        });
        let door = Door { listener, carry, taking: Mutex::default() };
        door.empty();
        assert!(lock(&taken).is_empty());
        let clients = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
        door.empty();
        assert_eq!(*lock(&taken), clients.map(|client| client.local_addr().unwrap()));
    }
}
