//! The live environment: mocks inside this process, images in containers beside it, or stand-ins
//! in their place.
//!
//! Contract: a stand-in or reused container is started once a run (after what it depends on),
//! seeded, and put back to its seeded state before every later cell; where that cannot be done, and
//! without `reuse`, it is started cold. One that ended during a cell (of an injected fault, most
//! of the time) is told of and starts cold for the next. Mocks live as long as a cell.
//! Not modelled: an image with neither engine nor stand-in is an error that says so.

use super::policy::{self, CellPolicy};
use super::switchboard::lock;
use super::{CellContext, RunContext, SetupError, health};
use crate::containers::keep::{self, Kept, PutBack};
use crate::containers::{Container, Engine, StartContainer};
use crate::environment::Environment;
use crate::fault::Assumption;
use crate::link::{BoxFuture, Dial, InterfaceOptions, Link, Responder, Stream};
use crate::protocol::{Protocol, ProtocolError};
use crate::standin::process::Control;
use crate::supervisor::{self, Exit, Launch, Running};
use crate::topology::{Reset, Service, ServiceKind};
use faultbox_bundle_format::{Body, Named, ServiceStarted};
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Images for which there is a stand-in, by the last part of their name.
const STAND_INS: &[(&str, &str)] = &[
    ("mysql", "mysql"),
    ("mariadb", "mysql"),
    ("percona", "mysql"),
    ("redis", "redis"),
    ("valkey", "redis"),
    ("kafka", "kafka"),
    ("cp-kafka", "kafka"),
    ("redpanda", "kafka"),
];

/// The kind of stand-in for an image (`apache/kafka:3.7.0`), if there is one.
pub fn stand_in_for(image: &str) -> Option<&'static str> {
    let name = image.rsplit('/').next()?;
    let name = name.split([':', '@']).next()?;
    STAND_INS.iter().find(|(image, _)| *image == name).map(|(_, kind)| *kind)
}

/// What runs in an image's place.
enum Process {
    StandIn(Running, Control),
    Container(Container, Kept),
}

/// A service that outlives a cell.
struct Hosted {
    process: Process,
    policy: Arc<CellPolicy>,
    output: super::OutputLog,
    /// What it asks for, inside its network.
    upstreams: Vec<(String, std::net::TcpListener)>,
}

impl Hosted {
    fn running(&self) -> &Running {
        match &self.process {
            Process::StandIn(running, _) => running,
            Process::Container(container, _) => container.running(),
        }
    }

    fn has_ended(&self) -> bool {
        self.running().exit().is_some() || self.running().is_gone()
    }

    async fn end(self) {
        match self.process {
            Process::StandIn(running, _) => drop(running.stop(super::GRACE).await),
            // What the engine does not remove now, the end of the run or the next one does.
            Process::Container(container, _) => drop(container.remove().await),
        }
        self.output.drained().await;
    }
}

/// Everything that runs besides the local executables.
pub struct Live {
    run: Arc<RunContext>,
    hosted: Mutex<BTreeMap<String, Hosted>>,
    ways: Mutex<BTreeMap<String, Arc<dyn Dial>>>,
    notices: Mutex<Vec<String>>,
}

impl Live {
    /// A live environment for a run.
    pub fn new(run: Arc<RunContext>) -> Arc<Self> {
        Arc::new(Live { run, hosted: Mutex::default(), ways: Mutex::default(), notices: Mutex::default() })
    }

    /// Ends every stand-in and every container of this run.
    pub async fn stop(&self) {
        let hosted = std::mem::take(&mut *lock(&self.hosted));
        futures_util::future::join_all(hosted.into_values().map(Hosted::end)).await;
        if let Some(engine) = &self.run.engine {
            // Those that an interruption left half started.
            if let Err(error) = engine.remove_own().await {
                self.notice(format!(
                    "containers of this run are left: {error}; `faultbox clean` removes them"
                ));
            }
        }
    }

    /// What happened that people should know, since this was asked last.
    pub fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.notices))
    }

    fn notice(&self, text: String) {
        lock(&self.notices).push(text);
    }

    async fn prepare_service(&self, cell: &Arc<CellContext>, service: &Service) -> Result<(), SetupError> {
        match &service.kind {
            ServiceKind::Mock(mock) => {
                let responder = match cell.mocks.get(&service.name) {
                    Some(of_cell) => mock.responder(of_cell),
                    None => return Ok(()),
                };
                for interface in &service.interfaces {
                    let name = format!("{}.{}", service.name, interface.name);
                    let options = InterfaceOptions { descriptors: mock.descriptors(), ..Default::default() };
                    let link = Link::unobserved(&name, interface.protocol.name(), &interface.addr, options);
                    let way = MockDial { protocol: interface.protocol, link, responder: responder.clone() };
                    lock(&self.ways).insert(name, Arc::new(way));
                }
                let started = ServiceStarted {
                    service: service.name.clone(),
                    pid: 0,
                    program: format!("mock {}", mock.kind()),
                    digest: None,
                    args: Vec::new(),
                    env: Vec::new(),
                    isolated: false,
                };
                cell.journal.note(&service.name, "lifecycle", None, Body::ServiceStarted(started));
                Ok(())
            }
            ServiceKind::Image(image) => {
                let hosted = self.host(cell, service, image).await?;
                hosted.policy.enter(cell);
                for (interface, listener) in &hosted.upstreams {
                    let listening = listener.try_clone().and_then(|listener| {
                        cell.switchboard.listen(cell, &service.name, interface, listener)
                    });
                    listening.map_err(|error| SetupError::Start {
                        service: service.name.clone(),
                        why: format!("{interface}: {error}"),
                    })?;
                }
                lock(&self.hosted).insert(service.name.clone(), hosted);
                Ok(())
            }
            ServiceKind::Build(_) | ServiceKind::Remote(_) => Err(SetupError::NoEngine {
                service: service.name.clone(),
                image: "build= and remote= services".to_owned(),
            }),
            ServiceKind::Binary { .. } => Ok(()),
        }
    }

    /// The service in its seeded state: the one that runs already, or a new one.
    async fn host(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
        image: &str,
    ) -> Result<Hosted, SetupError> {
        let known = lock(&self.hosted).remove(&service.name);
        if let Some(hosted) = known {
            if !hosted.has_ended() {
                match self.put_back(cell, service, &hosted).await {
                    Ok(PutBack::Done) => return Ok(hosted),
                    Ok(PutBack::Cold(why)) => {
                        let text = format!("{}: {why}: it starts anew for every cell", service.name);
                        self.notice(text);
                    }
                    Err(error) => {
                        hosted.end().await;
                        return Err(error);
                    }
                }
            }
            hosted.end().await;
        }
        if self.run.embedded {
            let none = || SetupError::NoEngine { service: service.name.clone(), image: image.to_owned() };
            return self.start_stand_in(cell, service, stand_in_for(image).ok_or_else(none)?).await;
        }
        let none = || SetupError::NoEngine { service: service.name.clone(), image: image.to_owned() };
        let engine = self.run.engine.as_ref().ok_or_else(none)?;
        self.start_container(cell, service, image, engine).await
    }

    async fn put_back(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
        hosted: &Hosted,
    ) -> Result<PutBack, SetupError> {
        let failed = |why: String| SetupError::Reset { service: service.name.clone(), why };
        let done = |()| PutBack::Done;
        match (service.reset, &hosted.process) {
            (Reset::Leave, _) => Ok(PutBack::Done),
            (Reset::Callable, _) => cell.call_reset(&service.name).await.map(done).map_err(failed),
            (Reset::Default, Process::StandIn(_, control)) => {
                control.restore().await.map(done).map_err(|error| failed(error.to_string()))
            }
            (Reset::Default, Process::Container(container, kept)) => {
                let running = container.running();
                kept.put_back(service, &|port| running.dial(port)).await.map_err(failed)
            }
        }
    }

    fn note_started(&self, cell: &CellContext, service: &Service, program: String, running: &Running) {
        let env = service.env.iter();
        let started = ServiceStarted {
            service: service.name.clone(),
            pid: running.pid,
            program,
            digest: None,
            args: service.args.clone(),
            env: env.map(|(name, value)| Named { name: name.clone(), value: value.clone() }).collect(),
            isolated: self.run.isolation == supervisor::Isolation::Namespace,
        };
        cell.journal.note(&service.name, "lifecycle", None, Body::ServiceStarted(started));
    }

    async fn start_container(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
        image: &str,
        engine: &Arc<Engine>,
    ) -> Result<Hosted, SetupError> {
        let failed = |why: String| SetupError::Start { service: service.name.clone(), why };
        // The command has pulled what was absent.
        let image = engine.image(image, &|_| {}).await.map_err(|error| failed(error.to_string()))?;
        let topology = &cell.plan.topology;
        let assumptions: Vec<&Assumption> =
            cell.plan.cells.iter().filter_map(|c| c.assumption.as_deref()).collect();
        // Paths inside are named as the container names them.
        let policy = CellPolicy::new(&service.name, supervisor::SHIM_FOLDER.into());
        let asked = super::upstreams(topology, service);
        let start = StartContainer {
            service,
            topology,
            image: image.clone(),
            listen: asked.iter().map(|(_, addr)| *addr).collect(),
            families: policy::families(topology, &assumptions, service),
            dir: self.run.dir.join(format!("{}.door", service.name)),
        };
        let container = Container::start(engine, start, policy.clone()).await;
        let mut container = container.map_err(|error| failed(error.to_string()))?;
        self.note_started(cell, service, format!("image {}", image.describe()), container.running());
        let running = container.running_mut();
        let mut output = super::OutputLog::follow(&service.name, running.output(), cell.run_journal.clone());
        let listeners = std::mem::take(&mut running.listeners);
        let upstreams = asked.into_iter().map(|(name, _)| name).zip(listeners).collect();
        let exec = |command: Vec<String>| container.exec(command);
        if let Err(error) = self.make_ready(cell, service, container.running(), &mut output, &exec).await {
            // The first error is the one that matters.
            let _ = container.remove().await;
            return Err(error);
        }
        let ways = |port| container.running().dial(port);
        let kept = match (service.reuse, service.reset) {
            (true, Reset::Default) => Kept::remember(service, &ways).await.map_err(failed)?,
            _ => Kept::Unknown("it is not reused".to_owned()),
        };
        Ok(Hosted { process: Process::Container(container, kept), policy, output, upstreams })
    }

    /// Waits until the service is ready, and seeds it.
    async fn make_ready(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
        running: &Running,
        output: &mut super::OutputLog,
        exec: health::Exec<'_>,
    ) -> Result<(), SetupError> {
        for interface in &service.interfaces {
            let name = format!("{}.{}", service.name, interface.name);
            lock(&self.ways).insert(name, running.dial(interface.port));
        }
        let failed = |why: String| SetupError::Start { service: service.name.clone(), why };
        let (way, log) = (|port| running.dial(port), || output.tail());
        let ready = tokio::select! {
            ready = health::wait_ready(service, &way, &log, exec) => ready.map_err(|error| (error, output.tail())),
            exit = running.exited() => {
                let ended = failed(format!("it ended at once ({})", super::exit_words(exit)));
                Err((ended, output.whole_tail().await))
            }
        };
        ready.map_err(|(error, tail)| error.with_log(&tail))?;
        cell.journal.note(&service.name, "lifecycle", None, Body::ServiceReady(service.name.clone()));
        if service.has_seed {
            let seeded = cell.call_seed(&service.name).await;
            seeded.map_err(|why| SetupError::Seed { service: service.name.clone(), why })?;
        }
        Ok(())
    }

    async fn start_stand_in(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
        kind: &str,
    ) -> Result<Hosted, SetupError> {
        let failed = |why: String| SetupError::Start { service: service.name.clone(), why };
        let interface = service.interfaces.first().ok_or_else(|| failed("it has no interface".to_owned()))?;
        let data = self.run.dir.join(&service.name);
        std::fs::create_dir_all(&data).map_err(|error| failed(error.to_string()))?;
        let control = self.run.dir.join(format!("{}.sock", service.name));
        let assumptions: Vec<&Assumption> =
            cell.plan.cells.iter().filter_map(|c| c.assumption.as_deref()).collect();
        let policy = CellPolicy::new(&service.name, data.clone());
        let words = [
            "__standin",
            kind,
            "--port",
            &interface.port.to_string(),
            "--data",
            &data.display().to_string(),
            "--control",
            &control.display().to_string(),
        ];
        let launch = Launch {
            service: service.name.clone(),
            launcher: self.run.launcher.clone(),
            program: self.run.launcher.clone(),
            args: words.map(str::to_owned).to_vec(),
            env: service.env.clone(),
            cwd: data,
            isolation: self.run.isolation,
            names: cell.plan.topology.names(),
            listen: Vec::new(),
            declared_ports: vec![interface.port],
            families: policy::families(&cell.plan.topology, &assumptions, service),
        };
        let mut running = supervisor::launch(launch, policy.clone())
            .await
            .map_err(|error| SetupError::of_launch(&service.name, &error))?;
        self.note_started(cell, service, format!("stand-in {kind}"), &running);
        let mut output = super::OutputLog::follow(&service.name, running.output(), cell.run_journal.clone());
        self.make_ready(cell, service, &running, &mut output, &|command| health::exec_here(command)).await?;
        let control = Control::new(control);
        control.snapshot().await.map_err(|error| failed(error.to_string()))?;
        Ok(Hosted { process: Process::StandIn(running, control), policy, output, upstreams: Vec::new() })
    }

    /// What becomes of a service at the end of a cell: kept, or ended.
    async fn retire(&self, cell: &CellContext, name: &str, hosted: Hosted) -> Option<Hosted> {
        if hosted.has_ended() {
            let fault = hosted.policy.last_failure();
            // Its end may be told a moment after its way in has closed.
            let exit = tokio::time::timeout(super::GRACE, hosted.running().exited()).await;
            let exit = exit.unwrap_or(Exit::Unknown);
            super::note_exited(cell, name, exit, false);
            let exit = super::exit_words(exit);
            self.notice(match fault {
                Some(fault) => format!("{name}: aborted ({exit}) after an injected {fault}; it starts anew"),
                None => format!("{name}: ended unasked ({exit}); it starts anew"),
            });
            hosted.end().await;
            let _ = std::fs::remove_dir_all(self.run.dir.join(name));
            return None;
        }
        if hosted.running().trouble().is_some() {
            // That was this cell's; the next one gets a supervisor that knows nothing of it.
            hosted.end().await;
            let _ = std::fs::remove_dir_all(self.run.dir.join(name));
            return None;
        }
        let kept = cell.plan.topology.service(name).is_none_or(|service| service.reuse);
        if kept || matches!(hosted.process, Process::StandIn(..)) {
            return Some(hosted);
        }
        hosted.end().await;
        None
    }
}

impl Environment for Live {
    fn runs(&self, _service: &str) -> bool {
        true
    }

    fn prepare<'a>(&'a self, cell: &'a Arc<CellContext>) -> BoxFuture<'a, Result<(), SetupError>> {
        Box::pin(async move {
            // Containers take their time: those that wait for nothing come up side by side.
            let apart = |service: &&Service| {
                !self.run.embedded
                    && matches!(service.kind, ServiceKind::Image(_))
                    && service.depends_on.is_empty()
            };
            let order = cell.plan.topology.start_order();
            let (apart, rest): (Vec<&Service>, Vec<&Service>) = order.into_iter().partition(apart);
            let apart = apart.into_iter().map(|service| self.prepare_service(cell, service));
            for prepared in futures_util::future::join_all(apart).await {
                prepared?;
            }
            for service in rest {
                self.prepare_service(cell, service).await?;
            }
            Ok(())
        })
    }

    fn steady<'a>(&'a self, cell: &'a Arc<CellContext>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(assumption) = &cell.plan.cells[cell.index].assumption else { return };
            for part in assumption.flatten() {
                let Some(target) = part.target.as_ref().map(|target| &target.service) else { continue };
                let own_disk = part.syscalls.iter().any(|rule| !rule.inbound);
                let Some(service) = cell.plan.topology.service(target).filter(|_| own_disk) else { continue };
                let ways: BTreeMap<u16, Arc<dyn Dial>> = match lock(&self.hosted).get(target) {
                    Some(Hosted { process: Process::Container(container, _), .. }) => service
                        .interfaces
                        .iter()
                        .map(|i| (i.port, container.running().dial(i.port)))
                        .collect(),
                    _ => continue,
                };
                let way = |port: u16| ways.get(&port).cloned().unwrap_or_else(|| Arc::new(NoWay) as _);
                if let Err(why) = keep::settle(service, &way).await {
                    self.notice(format!("{target}: could not be made to write out what is pending: {why}"));
                }
            }
        })
    }

    fn carry(
        &self,
        _cell: &Arc<CellContext>,
        protocol: &'static dyn Protocol,
        client: Stream,
        link: Arc<Link>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>> {
        match lock(&self.ways).get(&link.interface).cloned() {
            Some(way) => {
                let way = Told { way, link: link.clone() };
                protocol.proxy(client, Arc::new(way), link)
            }
            None => Box::pin(std::future::ready(Err(ProtocolError::Cut))),
        }
    }

    fn trouble(&self) -> Option<String> {
        let hosted = lock(&self.hosted);
        hosted.iter().find_map(|(name, hosted)| Some(format!("{name}: {}", hosted.running().trouble()?)))
    }

    fn settle<'a>(&'a self, cell: &'a Arc<CellContext>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let hosted = std::mem::take(&mut *lock(&self.hosted));
            for (name, hosted) in hosted {
                if let Some(hosted) = self.retire(cell, &name, hosted).await {
                    lock(&self.hosted).insert(name, hosted);
                }
            }
        })
    }
}

/// A way whose failures are told to the link: no connection, or one that the server ended before
/// anybody had said anything (a server that is dying still has its port).
struct Told {
    way: Arc<dyn Dial>,
    link: Arc<Link>,
}

impl Dial for Told {
    fn dial(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            match self.way.dial().await {
                Ok(inner) => Ok(Box::new(ToldStream { inner, silent: Some(self.link.clone()) }) as Stream),
                Err(error) => {
                    self.link.unreachable(&error.to_string());
                    Err(error)
                }
            }
        })
    }
}

struct ToldStream {
    inner: Stream,
    /// The link, until something was said.
    silent: Option<Arc<Link>>,
}

impl AsyncRead for ToldStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Poll::Ready(result) = &read {
            let ended = result.is_err() || (room > 0 && buffer.remaining() == room);
            if let Some(link) = self.silent.take().filter(|_| ended) {
                link.unreachable("the server closed the connection");
            }
        }
        read
    }
}

impl AsyncWrite for ToldStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.silent = None;
        Pin::new(&mut self.inner).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.silent = None;
        Pin::new(&mut self.inner).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Our side ends first: whatever the server does then is no failure.
        self.silent = None;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// A port that nobody declared.
struct NoWay;

impl Dial for NoWay {
    fn dial(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::NotConnected.into())))
    }
}

struct MockDial {
    protocol: &'static dyn Protocol,
    link: Arc<Link>,
    responder: Arc<dyn Responder>,
}

impl Dial for MockDial {
    fn dial(&self) -> BoxFuture<'_, io::Result<Stream>> {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        tokio::spawn(self.protocol.serve(Box::new(theirs), self.link.clone(), self.responder.clone()));
        Box::pin(std::future::ready(Ok(Box::new(ours) as Stream)))
    }
}
