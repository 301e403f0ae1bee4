//! The shell around every stand-in: accept loop, control socket, and the client of the latter.
//!
//! Contract: a stand-in process serves its protocol on one TCP port and takes orders on one unix
//! socket: `ping`, `address`, `snapshot`, `restore`, `stop`, a line each, answered `ok`,
//! `ok <what>` or `error: why`. While `restore` runs no client is connected: open connections are
//! cut first (they belong to a cell that has ended) and new ones wait until it is done.
//! Not modelled: TLS, and more than one port.

use super::{Open, StandIn, StandInOptions};
use crate::os::{UnixListener, UnixStream};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, RwLock, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Every kind of stand-in and what opens it. One line each.
pub static KINDS: &[(&str, Open)] =
    &[("mysql", super::mysql::open), ("redis", super::redis::open), ("kafka", super::kafka::open)];

/// How long a connection may take to notice that it was cut before its task is ended.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Opens a stand-in of a kind.
///
/// # Errors
/// When the kind is unknown or its data cannot be opened.
pub fn open(kind: &str, options: StandInOptions) -> io::Result<Arc<dyn StandIn>> {
    match KINDS.iter().find(|(name, _)| *name == kind) {
        Some((_, open)) => open(options),
        None => Err(io::Error::new(io::ErrorKind::Unsupported, format!("there is no stand-in for {kind}"))),
    }
}

/// Runs a stand-in until it is told to stop: the body of the hidden subcommand.
///
/// # Errors
/// When the kind is unknown, its data cannot be opened, or an address cannot be bound.
pub async fn run(kind: &str, options: StandInOptions, control: PathBuf) -> io::Result<()> {
    let clients = TcpListener::bind(options.listen).await?;
    let standin = open(kind, options)?;
    serve(standin, clients, &control).await
}

/// As [`run`], over a stand-in that is open and a listener that is bound.
///
/// # Errors
/// When the control socket cannot be bound or the listeners fail.
pub async fn serve(standin: Arc<dyn StandIn>, clients: TcpListener, control: &Path) -> io::Result<()> {
    // A socket left behind by a process that was killed.
    match std::fs::remove_file(control) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let orders = UnixListener::bind(control)?;
    let address = clients.local_addr()?;
    let (stop, mut stopped) = mpsc::channel(1);
    let shell =
        Arc::new(Shell { standin, address, gate: RwLock::default(), connections: Mutex::default(), stop });
    let accept = accept(shell.clone(), clients);
    let obey = obey(shell.clone(), orders);
    let ended = tokio::select! {
        ended = accept => ended,
        ended = obey => ended,
        _ = stopped.recv() => Ok(()),
    };
    shell.cut().await;
    // The path is ours; that it may be gone already is fine.
    let _ = std::fs::remove_file(control);
    ended
}

struct Shell {
    standin: Arc<dyn StandIn>,
    address: SocketAddr,
    /// Held for reading while a connection is taken on, for writing while none may be.
    gate: RwLock<()>,
    connections: Mutex<Connections>,
    stop: mpsc::Sender<()>,
}

#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    cut: CancellationToken,
}

impl Shell {
    /// Cuts every connection and waits until its task has ended.
    async fn cut(&self) {
        let mut connections = self.connections.lock().await;
        connections.cut.cancel();
        let drained = async { while connections.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CUT_GRACE, drained).await.is_err() {
            connections.tasks.shutdown().await;
        }
        connections.cut = CancellationToken::new();
    }

    async fn obey(&self, order: &str) -> io::Result<String> {
        let standin = self.standin.clone();
        let done = match order {
            "ping" => Ok(Ok(())),
            "address" => return Ok(format!("ok {}", self.address)),
            "snapshot" => tokio::task::spawn_blocking(move || standin.snapshot()).await,
            "restore" => {
                let _closed = self.gate.write().await;
                self.cut().await;
                tokio::task::spawn_blocking(move || standin.restore()).await
            }
            "stop" => {
                // A second order finds the channel full: the first is on its way.
                let _ = self.stop.try_send(());
                Ok(Ok(()))
            }
            other => Ok(Err(io::Error::other(format!("there is no order {other:?}")))),
        };
        done.unwrap_or_else(|panicked| Err(io::Error::other(panicked.to_string()))).map(|()| "ok".to_owned())
    }
}

async fn accept(shell: Arc<Shell>, clients: TcpListener) -> io::Result<()> {
    let mut number = 0;
    loop {
        let stream = match clients.accept().await {
            Ok((stream, _)) => stream,
            // The client was gone before it was taken on: its own business.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        // Only a matter of latency; a socket that refuses it is on its way out.
        let _ = stream.set_nodelay(true);
        number += 1;
        let _open = shell.gate.read().await;
        let mut connections = shell.connections.lock().await;
        while connections.tasks.try_join_next().is_some() {}
        let cut = Box::pin(connections.cut.clone().cancelled_owned());
        let stream = Cuttable { inner: stream, cut, is_cut: false };
        connections.tasks.spawn(shell.standin.serve(Box::new(stream), number));
    }
}

async fn obey(shell: Arc<Shell>, orders: UnixListener) -> io::Result<()> {
    let mut clients = JoinSet::new();
    loop {
        let (stream, _) = orders.accept().await?;
        let shell = shell.clone();
        while clients.try_join_next().is_some() {}
        clients.spawn(async move {
            let (reader, mut writer) = tokio::io::split(stream);
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let answer = shell.obey(line.trim()).await;
                let answer = answer.unwrap_or_else(|error| format!("error: {error}").replace('\n', " "));
                if writer.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A client's stream that fails once its shell says so, so that whoever serves it ends.
struct Cuttable {
    inner: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: bool,
}

impl Cuttable {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.is_cut = self.is_cut || self.cut.as_mut().poll(context).is_ready();
        if self.is_cut { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// The other end of a stand-in's control socket. Each order opens a connection of its own.
#[derive(Debug, Clone)]
pub struct Control {
    socket: PathBuf,
}

impl Control {
    /// Controls the stand-in whose control socket is at `socket`. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Control { socket: socket.into() }
    }

    /// Whether the stand-in serves.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn ping(&self) -> io::Result<()> {
        self.order("ping").await.map(drop)
    }

    /// Returns once the stand-in serves. The caller bounds the wait.
    pub async fn ready(&self) {
        while self.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Where the stand-in listens (of interest where it was given port 0).
    ///
    /// # Errors
    /// When it cannot be reached or answers something else.
    pub async fn address(&self) -> io::Result<SocketAddr> {
        let answer = self.order("address").await?;
        answer.parse().map_err(|_| io::Error::other(format!("the stand-in listens at {answer:?}")))
    }

    /// Remembers the present state as the one that [`Control::restore`] goes back to.
    ///
    /// # Errors
    /// When the stand-in cannot be reached or cannot write its state.
    pub async fn snapshot(&self) -> io::Result<()> {
        self.order("snapshot").await.map(drop)
    }

    /// Cuts all clients and goes back to the remembered state.
    ///
    /// # Errors
    /// When the stand-in cannot be reached or cannot read its state back.
    pub async fn restore(&self) -> io::Result<()> {
        self.order("restore").await.map(drop)
    }

    /// Asks the stand-in's process to end.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn stop(&self) -> io::Result<()> {
        self.order("stop").await.map(drop)
    }

    async fn order(&self, order: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(format!("{order}\n").as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        match line.trim_end() {
            "" => Err(io::ErrorKind::UnexpectedEof.into()),
            answer => match answer.strip_prefix("ok") {
                Some(what) => Ok(what.trim().to_owned()),
                None => Err(io::Error::other(answer.trim_start_matches("error: ").to_owned())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{BoxFuture, Stream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::AsyncReadExt;

    /// Echoes; counts who is connected; a restore with a client connected is an error.
    #[derive(Default)]
    struct Echo(Arc<AtomicUsize>);

    impl StandIn for Echo {
        fn serve(&self, mut stream: Stream, _: u64) -> BoxFuture<'static, ()> {
            let open = self.0.clone();
            open.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                let mut buffer = [0; 64];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..n]).await.is_err() {
                        break;
                    }
                }
                open.fetch_sub(1, Ordering::SeqCst);
            })
        }
        fn snapshot(&self) -> io::Result<()> {
            Err(io::Error::other("the disk\nis full"))
        }
        fn restore(&self) -> io::Result<()> {
            match self.0.load(Ordering::SeqCst) {
                0 => Ok(()),
                n => Err(io::Error::other(format!("{n} clients are connected"))),
            }
        }
    }

    #[tokio::test]
    async fn orders_are_obeyed_and_restore_cuts_clients_first() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        std::fs::write(&socket, "left behind").unwrap();
        let clients = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = clients.local_addr().unwrap();
        let path = socket.clone();
        let server = tokio::spawn(async move { serve(Arc::new(Echo::default()), clients, &path).await });
        let control = Control::new(&socket);
        control.ready().await;
        assert_eq!(control.address().await.unwrap(), address);

        let mut client = TcpStream::connect(address).await.unwrap();
        let mut back = [0; 2];
        client.write_all(b"hi").await.unwrap();
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(control.snapshot().await.unwrap_err().to_string(), "the disk is full");
        control.restore().await.unwrap();
        assert!(!matches!(client.read(&mut back).await, Ok(1..)), "the old client was cut");

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"ho").await.unwrap();
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ho");
        assert!(control.order("dance").await.unwrap_err().to_string().contains("dance"));
        control.stop().await.unwrap();
        server.await.unwrap().unwrap();
        assert!(control.ping().await.is_err());
    }

    #[tokio::test]
    async fn an_unknown_kind_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let options = StandInOptions {
            data: folder.path().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            env: Default::default(),
        };
        let error = run("oracle", options, folder.path().join("control")).await.unwrap_err();
        assert!(error.to_string().contains("oracle"));
    }

    #[tokio::test]
    async fn a_kind_runs_until_it_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        let options = StandInOptions {
            data: folder.path().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            env: Default::default(),
        };
        let path = socket.clone();
        let server = tokio::spawn(async move { run("redis", options, path).await });
        let control = Control::new(&socket);
        control.ready().await;
        let mut client = TcpStream::connect(control.address().await.unwrap()).await.unwrap();
        client.write_all(b"PING\r\n").await.unwrap();
        let mut pong = [0; 7];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"+PONG\r\n");
        control.stop().await.unwrap();
        server.await.unwrap().unwrap();
        assert!(!socket.exists());
    }
}
