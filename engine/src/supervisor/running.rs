//! A launched service: its output, its end, the way in.
//!
//! Contract: one thread (the *attendant*) reads what the helper reports; everything else asks
//! the helper through the control socket. When that socket ends, nothing of the service is left
//! (or the helper was killed, and then the attendant kills the service's group). The helper of a
//! container's service is the shim's; then ids and ends of processes are the container's
//! owner's business ([`adopt`]).

use super::channel::{Channel, Command, Config, Report};
use super::features::{Feature, refuse};
use super::mediate::Mediator;
use super::notify::{Gate, Hands, Supervisor, Traps};
use super::remap::Remap;
use super::sys::Notifier;
use super::timed::Holder;
use super::told::{Adopt, Exit, LaunchError, Output, OutputStream};
use super::{Isolation, Launch, SyscallPolicy, filter, launcher, target};
use crate::determinism::Mediation;
use crate::link::{BoxFuture, Dial, Stream};
use crate::virtual_time::Time;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::any::Any;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream, unix::pipe};
use tokio::sync::{mpsc, oneshot, watch};

/// How long a killed process may take to be gone.
const UNKILLABLE: Duration = Duration::from_secs(10);

/// A running service. Dropping it kills the service and all that it started.
#[derive(Debug)]
pub struct Running {
    /// Its process id on the host.
    pub pid: u32,
    /// The listeners inside its network, in the order of [`Launch::listen`]; non-blocking.
    pub listeners: Vec<TcpListener>,
    output: Option<mpsc::UnboundedReceiver<Output>>,
    attended: Attended,
}

/// What the attendant, the ways in and the owner of a service share.
#[derive(Debug)]
struct Shared {
    control: Channel,
    isolation: Isolation,
    remap: Arc<Remap>,
    trouble: Arc<Mutex<Option<String>>>,
    /// Who asked for a socket, in the order of asking.
    waiting: Mutex<VecDeque<oneshot::Sender<io::Result<OwnedFd>>>>,
    exit: watch::Sender<Option<Exit>>,
    empty: watch::Sender<bool>,
    gone: watch::Sender<bool>,
    calm: watch::Sender<bool>,
    gate: Arc<Gate>,
    /// What it waits by.
    time: Time,
    /// Its processes end after their calls have: they count until all of it is gone.
    holder: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

/// Ends the service with itself.
#[derive(Debug)]
struct Attended(Arc<Shared>);

impl Drop for Attended {
    fn drop(&mut self) {
        self.0.control.finish();
    }
}

impl Attended {
    /// Waits until nothing of the service is left.
    async fn gone(&self) {
        // The sender lives in what we hold.
        let _ = self.0.gone.subscribe().wait_for(|gone| *gone).await;
    }
}

struct Started {
    pid: i32,
    listeners: Vec<TcpListener>,
}

/// Launches a service and returns once its own code runs.
///
/// # Errors
/// When it cannot be started; nothing is left behind then.
pub async fn launch(launch: Launch, policy: Arc<dyn SyscallPolicy>) -> Result<Running, LaunchError> {
    let service = launch.service.clone();
    let time = launch.mediation.time.clone().map_or_else(Time::default, Time::skipping);
    // Until its first program runs, nothing of it is known to whoever skips time.
    let _busy = time.busy();
    let broken = |what: &str, why: &dyn std::fmt::Display| LaunchError::Launcher {
        service: service.clone(),
        message: format!("{what}: {why}"),
    };
    let remap = match launch.isolation {
        Isolation::Namespace => Remap::default(),
        Isolation::Shared => Remap::of(launch.declared_ports.iter().copied()),
    };
    let traps = Traps::of(&launch.families, remap.any()).map_err(LaunchError::UnknownFamily)?;
    let config = config(&launch, &traps).map_err(|error| broken("write its configuration", &error))?;
    let (control, theirs) = Channel::pair().map_err(|errno| broken("make its channel", &errno))?;
    let mut child = std::process::Command::new(&launch.launcher)
        .arg("__launch")
        .stdin(Stdio::from(theirs.into_fd()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| broken(&format!("start {}", launch.launcher.display()), &error))?;
    let pipes = (child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
    let attended = Attended(Arc::new(Shared::new(control, launch.isolation, remap, time.clone())));
    let (tell, started) = oneshot::channel();
    let attendant = Attendant {
        shared: attended.0.clone(),
        service: service.clone(),
        policy,
        mediation: launch.mediation,
        traps: Arc::new(traps),
        runtime: tokio::runtime::Handle::current(),
        started: Some(tell),
        listeners: Vec::new(),
        pid: None,
        helper: Some(child.id()),
        keepable: false,
    };
    let name = format!("helper of {service}");
    std::thread::Builder::new()
        .name(name)
        .spawn(move || attendant.run(Some(child)))
        .map_err(|error| broken("start its attendant", &error))?;
    let output = collect(pipes).map_err(|error| broken("read its output", &error))?;
    // A launcher that is gone already answers nothing: `started` says so.
    let _ = attended.0.control.send(&Command::Launch, &[config.as_fd()]);
    begun(service, attended, started, output).await
}

/// Takes on a service whose first program is a shim that has connected: tells it what to do, and
/// returns once the image's own code runs. `end` is how the container ended, when it has.
///
/// # Errors
/// When the handoff fails; whoever made the container removes it.
pub async fn adopt(
    adopt: Adopt,
    shim: OwnedFd,
    policy: Arc<dyn SyscallPolicy>,
    output: mpsc::UnboundedReceiver<Output>,
    end: BoxFuture<'static, Exit>,
) -> Result<Running, LaunchError> {
    let service = adopt.service.clone();
    let broken = |what: &str, why: &dyn std::fmt::Display| LaunchError::Launcher {
        service: service.clone(),
        message: format!("{what}: {why}"),
    };
    let traps = Traps::of(&adopt.families, false).map_err(LaunchError::UnknownFamily)?;
    let trapped = traps.all(&adopt.mediation);
    let filter = match trapped.is_empty() {
        true => Ok(Vec::new()),
        false => refuse(Feature::Notify).and_then(|()| filter::program(&trapped)),
    };
    let filter = filter.map_err(|errno| broken("write the filter", &errno))?;
    let control = Channel::over(shim);
    let orders = orders(&adopt.listen, &filter);
    control.send_text(&orders).map_err(|errno| broken("tell the shim what to do", &errno))?;
    let attended =
        Attended(Arc::new(Shared::new(control, Isolation::Namespace, Remap::default(), Time::default())));
    let (tell, started) = oneshot::channel();
    let attendant = Attendant {
        shared: attended.0.clone(),
        service: service.clone(),
        policy,
        mediation: adopt.mediation,
        traps: Arc::new(traps),
        runtime: tokio::runtime::Handle::current(),
        started: Some(tell),
        listeners: Vec::new(),
        pid: None,
        helper: None,
        keepable: adopt.keepable,
    };
    std::thread::Builder::new()
        .name(format!("shim of {service}"))
        .spawn(move || attendant.run(None))
        .map_err(|error| broken("start its attendant", &error))?;
    let shared = attended.0.clone();
    tokio::spawn(async move {
        let exit = end.await;
        shared.exit.send_replace(Some(exit));
    });
    begun(service, attended, started, output).await
}

/// The shim's first message.
fn orders(listen: &[SocketAddr], filter: &[super::sys::Instruction]) -> String {
    let mut text = String::from("orders 1\n");
    if refuse(Feature::WaitKillable).is_err() {
        text.push_str("without wait_killable\n");
    }
    for address in listen {
        text.push_str(&format!("listen {address}\n"));
    }
    for i in filter {
        text.push_str(&format!("filter {} {} {} {}\n", i.code, i.if_true, i.if_false, i.operand));
    }
    text
}

async fn begun(
    service: String,
    attended: Attended,
    started: oneshot::Receiver<Result<Started, LaunchError>>,
    mut output: mpsc::UnboundedReceiver<Output>,
) -> Result<Running, LaunchError> {
    match started.await {
        Ok(Ok(started)) => Ok(Running {
            pid: started.pid.cast_unsigned(),
            listeners: started.listeners,
            output: Some(output),
            attended,
        }),
        Ok(Err(error)) => {
            attended.0.control.finish();
            attended.gone().await;
            Err(error)
        }
        Err(_) => {
            attended.gone().await;
            let mut said = Vec::new();
            while let Some(chunk) = output.recv().await {
                said.extend(chunk.bytes);
            }
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            let why = if said.is_empty() { "it ended without a word".to_owned() } else { said };
            Err(LaunchError::Launcher { service, message: format!("it did not launch: {why}") })
        }
    }
}

fn config(launch: &Launch, traps: &Traps) -> io::Result<OwnedFd> {
    let config = Config {
        program: launch.program.clone().into(),
        args: launch.args.clone(),
        env: launch.env.clone(),
        cwd: launch.cwd.clone().into(),
        isolated: launch.isolation == Isolation::Namespace,
        names: launch.names.clone(),
        listen: launch.listen.clone(),
        trap: traps.all(&launch.mediation),
        pids: launch.mediation.pids,
    };
    let mut file = File::from(memfd_create("faultbox-launch", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&serde_json::to_vec(&config)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads both pipes to their ends, whether or not somebody takes what was read: the service
/// never waits for us.
fn collect(pipes: (Option<OwnedFd>, Option<OwnedFd>)) -> io::Result<mpsc::UnboundedReceiver<Output>> {
    let (send, receive) = mpsc::unbounded_channel();
    for (stream, pipe) in [(OutputStream::Stdout, pipes.0), (OutputStream::Stderr, pipes.1)] {
        let Some(pipe) = pipe else { continue };
        let mut pipe = pipe::Receiver::from_owned_fd(pipe)?;
        let send = send.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            // An error of a pipe is its end.
            while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
                let bytes = buffer.get(..read).unwrap_or_default().to_vec();
                let _ = send.send(Output { stream, bytes });
            }
        });
    }
    Ok(receive)
}

/// Reads what the helper reports.
struct Attendant {
    shared: Arc<Shared>,
    service: String,
    policy: Arc<dyn SyscallPolicy>,
    mediation: Mediation,
    traps: Arc<Traps>,
    runtime: tokio::runtime::Handle,
    started: Option<oneshot::Sender<Result<Started, LaunchError>>>,
    listeners: Vec<TcpListener>,
    pid: Option<i32>,
    /// The helper's process on this host, where it is one of ours.
    helper: Option<u32>,
    keepable: bool,
}

impl Attendant {
    fn run(mut self, child: Option<Child>) {
        while let Ok(Some((report, descriptors))) = self.shared.control.receive::<Report>() {
            self.attend(report, descriptors);
        }
        // A container's processes are not ours: their ids mean something else here.
        if let Some(mut child) = child {
            if self.shared.exit.borrow().is_none() {
                if let Some(pid) = self.pid.filter(|pid| *pid > 1) {
                    // The helper did not live to see the service's end, so it was killed. The
                    // kernel has killed the service with it; this is for the rest of its group.
                    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
                }
                self.shared.exit.send_replace(Some(Exit::Unknown));
            }
            // A helper whose socket has ended is ending.
            let _ = child.wait();
        }
        self.shared.empty.send_replace(true);
        self.shared.gone.send_replace(true);
        // After `gone`: who asks from now on sees that there will be no answer.
        self.shared.waiting.lock().unwrap_or_else(|p| p.into_inner()).clear();
    }

    fn attend(&mut self, report: Report, mut descriptors: Vec<OwnedFd>) {
        match report {
            Report::Listeners => self.listeners.extend(descriptors.drain(..).map(TcpListener::from)),
            Report::Filter => {
                if let Some(listener) = descriptors.pop() {
                    self.supervise(listener);
                }
            }
            Report::Started(pid) => {
                self.pid = Some(pid);
                let listeners = std::mem::take(&mut self.listeners);
                self.tell(Ok(Started { pid, listeners }));
            }
            Report::Failed { step, errno } => {
                let source = io::Error::from_raw_os_error(errno);
                self.tell(Err(LaunchError::Step { service: self.service.clone(), step, source }));
            }
            Report::Socket(result) => {
                let mut waiting = self.shared.waiting.lock().unwrap_or_else(|p| p.into_inner());
                let Some(asked) = waiting.pop_front() else { return };
                let missing = || io::Error::from(io::ErrorKind::NotConnected);
                // Who asked may have given up; the socket is then closed again.
                let _ = asked.send(match result {
                    Ok(()) => descriptors.pop().ok_or_else(missing),
                    Err(errno) => Err(io::Error::from_raw_os_error(errno)),
                });
            }
            Report::Exited(exit) => {
                self.shared.exit.send_replace(Some(exit));
            }
            Report::Empty => {
                self.shared.empty.send_replace(true);
            }
            // Answers to questions that an attendant does not ask.
            Report::TrialFilter { .. } | Report::Probed(_) => {}
        }
    }

    fn tell(&mut self, result: Result<Started, LaunchError>) {
        if let Some(started) = self.started.take() {
            // Whoever launched may have given up; then the service is ended.
            let _ = started.send(result);
        }
    }

    fn supervise(&self, listener: OwnedFd) {
        let notifier = Arc::new(Notifier::new(listener));
        let mediator = (!self.mediation.is_none()).then(|| {
            let (mediation, trouble) = (self.mediation.clone(), self.shared.trouble.clone());
            Mediator::new(&self.service, mediation, self.helper, trouble, self.policy.clone())
        });
        let holder = self.mediation.time.as_ref().zip(mediator.clone()).and_then(|(time, mediator)| {
            let holder = Holder::new(&self.service, time.clone(), notifier.clone(), mediator);
            let cannot =
                |errno: Errno| time.give_up(&self.service, &format!("its calls cannot be held: {errno}"));
            holder.map_err(cannot).ok()
        });
        if let Some(holder) = holder.clone() {
            *self.shared.holder.lock().unwrap_or_else(|p| p.into_inner()) = Some(holder);
        }
        let supervisor = Supervisor {
            hands: Arc::new(Hands {
                service: self.service.clone(),
                notifier,
                remap: self.shared.remap.clone(),
                mediator,
                holder,
                trouble: self.shared.trouble.clone(),
            }),
            traps: self.traps.clone(),
            policy: self.policy.clone(),
            // A local service differs in its names of services only (`names`); one with process ids of its own in
            // its `/proc`, too.
            homes: self
                .helper
                .into_iter()
                .flat_map(|helper| launcher::children(helper.cast_signed()))
                .map(i32::cast_unsigned)
                .chain([Some(std::process::id()), self.helper].into_iter().flatten())
                .filter_map(target::mounts)
                .collect(),
            runtime: self.runtime.clone(),
            calm: self.shared.calm.subscribe(),
            keepable: self.keepable,
            gate: self.shared.gate.clone(),
        };
        let name = format!("syscalls of {}", self.service);
        let spawned = std::thread::Builder::new().name(name).spawn(move || supervisor.run());
        match spawned {
            // When the helper is gone, the control socket tells.
            Ok(_) => drop(self.shared.control.send(&Command::Go, &[])),
            Err(_) => self.shared.control.finish(),
        }
    }
}

impl Running {
    /// Opens connections to the port that the service declared, as seen inside its network.
    pub fn dial(&self, port: u16) -> Arc<dyn Dial> {
        Arc::new(PortDial { shared: self.attended.0.clone(), port })
    }

    /// Where a declared port is really bound on the host, once it is ([`Isolation::Shared`]
    /// only).
    pub fn bound(&self, port: u16) -> Option<SocketAddr> {
        self.attended.0.remap.bound(port)
    }

    /// The service's output until it and its children have closed it; nothing is lost, and each
    /// stream is in order. `None` when it was taken before.
    pub fn output(&mut self) -> Option<mpsc::UnboundedReceiver<Output>> {
        self.output.take()
    }

    /// Waits until the service's first process ends (its children may live on).
    pub async fn exited(&self) -> Exit {
        let mut exit = self.attended.0.exit.subscribe();
        exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown)
    }

    /// As [`Running::exited`], where that can only be a moment: after so long its end was not seen.
    pub async fn exited_within(&self, limit: Duration) -> Exit {
        let _busy = self.attended.0.time.busy();
        tokio::time::timeout(limit, self.exited()).await.unwrap_or(Exit::Unknown)
    }

    /// How the service's first process ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.attended.0.exit.borrow()
    }

    /// What went wrong with the supervision itself; a cell in which that is so is our error.
    pub fn trouble(&self) -> Option<String> {
        self.attended.0.trouble.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// Whether the way in is closed: the service and its helper have ended, or are about to.
    pub fn is_gone(&self) -> bool {
        *self.attended.0.gone.borrow()
    }

    /// Nobody is held up by a fault any more: what stops the service from outside comes next.
    pub(crate) fn calm(&self) {
        self.attended.0.calm.send_replace(true);
    }

    /// Leaves a container's service to whoever connects to its shim next; until then its shim lets
    /// every call pass. The first time, `door` is the socket on which it will be awaited. The
    /// service is not ours from then on, and is not ended with this.
    ///
    /// # Errors
    /// When the shim is gone.
    pub async fn leave(self, door: Option<OwnedFd>) -> io::Result<()> {
        self.calm();
        self.attended.0.gate.release().await;
        let door = door.as_ref().map(AsFd::as_fd);
        Ok(self.attended.0.control.send(&Command::Keep, door.as_slice())?)
    }

    /// Sends a signal to every process of the service.
    pub fn signal(&self, signal: i32) {
        // Without a helper there is no process to send it to.
        let _ = self.attended.0.control.send(&Command::Signal(signal), &[]);
    }

    /// Asks all processes of the service to end (SIGTERM), kills after `grace` what is left,
    /// and returns when nothing is. What cannot be killed (another user's, or one that the kernel
    /// holds) is given up after ten seconds more and is our [`Running::trouble`].
    pub async fn stop(&self, grace: Duration) -> Exit {
        let shared = &self.attended.0;
        // Nobody who is held up by a fault could end in an orderly way.
        shared.calm.send_replace(true);
        let mut empty = shared.empty.subscribe();
        self.signal(libc::SIGTERM);
        // In vain: then it is killed.
        let _ = shared.time.timeout(grace, empty.wait_for(|empty| *empty)).await;
        let _busy = shared.time.busy();
        let _ = shared.control.send(&Command::End, &[]);
        if tokio::time::timeout(UNKILLABLE, self.attended.gone()).await.is_err() {
            let mut trouble = shared.trouble.lock().unwrap_or_else(|p| p.into_inner());
            trouble.get_or_insert_with(|| "a process of it could not be killed".to_owned());
            return self.exit().unwrap_or(Exit::Unknown);
        }
        self.exited().await
    }
}

impl Shared {
    fn new(control: Channel, isolation: Isolation, remap: Remap, time: Time) -> Self {
        Shared {
            control,
            isolation,
            remap: Arc::new(remap),
            trouble: Arc::default(),
            waiting: Mutex::default(),
            exit: watch::channel(None).0,
            empty: watch::channel(false).0,
            gone: watch::channel(false).0,
            calm: watch::channel(false).0,
            gate: Arc::default(),
            time,
            holder: Mutex::default(),
        }
    }

    /// A socket made inside the service's network.
    async fn socket(&self, v6: bool) -> io::Result<OwnedFd> {
        let (send, receive) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(|p| p.into_inner());
            self.control.send(&Command::Socket { v6 }, &[])?;
            waiting.push_back(send);
            if *self.gone.borrow() {
                waiting.clear();
            }
        }
        receive.await.map_err(|_| io::Error::from(Errno::ECONNREFUSED))?
    }

    async fn connect_inside(&self, ip: IpAddr, port: u16) -> io::Result<TcpStream> {
        let socket = non_blocking(self.socket(ip.is_ipv6()).await?)?;
        socket.connect(SocketAddr::new(ip, port)).await
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        match self.isolation {
            Isolation::Namespace => {
                let refused = match self.connect_inside(IpAddr::V4(Ipv4Addr::LOCALHOST), port).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
                    done => return done,
                };
                // Some listen on `localhost`, which is ::1 for them.
                let other = self.connect_inside(IpAddr::V6(Ipv6Addr::LOCALHOST), port).await;
                other.map_err(|_| refused)
            }
            Isolation::Shared => {
                let unbound = || io::Error::from(Errno::ECONNREFUSED);
                let address = match self.remap.covers(port) {
                    true => self.remap.bound(port).ok_or_else(unbound)?,
                    false => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                };
                TcpStream::connect(address).await
            }
        }
    }
}

/// For the runtime, whoever made it: a blocking one would now and then hold a worker in `recv`.
fn non_blocking(socket: OwnedFd) -> io::Result<TcpSocket> {
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(TcpSocket::from_std_stream(stream))
}

struct PortDial {
    shared: Arc<Shared>,
    port: u16,
}

impl Dial for PortDial {
    fn dial(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let stream = self.shared.connect(self.port).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Stream)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::Trap;
    use super::super::wire;
    use super::*;

    #[test]
    fn a_socket_that_blocks_is_made_not_to() {
        let made = super::super::network::tcp_socket(false).unwrap();
        let socket = non_blocking(made).unwrap();
        let flags = nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert!(nix::fcntl::OFlag::from_bits_retain(flags).contains(nix::fcntl::OFlag::O_NONBLOCK));
    }

    #[test]
    fn a_shim_understands_its_orders() {
        let listen: Vec<SocketAddr> = vec!["127.0.0.1:3306".parse().unwrap(), "[::1]:80".parse().unwrap()];
        let filter = filter::program(&[1, 18, 296].map(Trap::always)).unwrap();
        assert_eq!(wire::FOLDER, super::super::SHIM_FOLDER);
        let understood = wire::Orders::parse(&orders(&listen, &filter)).unwrap();
        assert_eq!(understood.listen, listen);
        let numbers: Vec<_> = filter.iter().map(|i| (i.code, i.if_true, i.if_false, i.operand)).collect();
        assert_eq!(understood.filter, numbers);
        assert_eq!(wire::Orders::parse(&orders(&[], &[])), Some(wire::Orders::default()));
        assert!(wire::Orders::parse("orders 1\nwithout wait_killable\n").unwrap().restartable);
        for text in [
            "",
            "orders 2\n",
            "orders 1\nwithout x\n",
            "orders 1\nfilter 1 2 3\n",
            "orders 1\nlisten here\n",
            "orders 1\nx\n",
        ] {
            assert_eq!(wire::Orders::parse(text), None, "{text}");
        }
    }
}
