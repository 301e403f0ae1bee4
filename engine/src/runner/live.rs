//! The live environment: mocks inside this process, images in containers beside it, or stand-ins
//! in their place.
//!
//! Contract: a stand-in or reused container is started once a run (after what it depends on),
//! seeded, and put back to its seeded state before every later cell; where that cannot be done, and
//! without `reuse`, it is started cold. A reused container that an earlier run has kept is taken over
//! instead of started, and at the end of the run it is kept where that was asked for. One that ended during a cell (of an injected fault, most
//! of the time) is told of and starts cold for the next. Mocks live as long as a cell.
//! Not modelled: an image with neither engine nor stand-in is an error that says so.

use super::contained::{self, Contained};
use super::policy::CellPolicy;
use super::switchboard::lock;
use super::{CellContext, RunContext, SetupError, health, seed_words};
use crate::containers::keep::{self, Kept, PutBack};
use crate::containers::{Container, Keeping, Slot};
use crate::determinism::Mediation;
use crate::environment::Environment;
use crate::link::{BoxFuture, Dial, InterfaceOptions, Link, Responder, Stream};
use crate::protocol::{Protocol, ProtocolError};
use crate::standin::process::Control;
use crate::supervisor::{self, Launch, Running};
use crate::topology::{Remote, Reset, Service, ServiceKind};
use faultbox_bundle_format::{Body, ServiceStarted};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;

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
    /// Where its container may be kept after the run.
    slot: Option<Slot>,
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
        self.process.end().await;
        self.output.drained().await;
        if let Some(slot) = self.slot {
            slot.discard();
        }
    }
}

impl Process {
    async fn end(self) {
        match self {
            Process::StandIn(running, _) => drop(running.stop(super::GRACE).await),
            // What the engine does not remove now, the end of the run or the next one does.
            Process::Container(container, _) => drop(container.remove().await),
        }
    }
}

/// Everything that runs besides the local executables.
pub struct Live {
    run: Arc<RunContext>,
    hosted: Mutex<BTreeMap<String, Hosted>>,
    ways: Mutex<BTreeMap<String, Arc<dyn Dial>>>,
    notices: Mutex<Vec<String>>,
    /// What has died and is being removed, by service.
    burials: Mutex<BTreeMap<String, JoinHandle<()>>>,
    /// Remote services that this run has seeded.
    seeded: Mutex<BTreeSet<String>>,
}

impl Live {
    /// A live environment for a run.
    pub fn new(run: Arc<RunContext>) -> Arc<Self> {
        Arc::new(Live {
            run,
            hosted: Mutex::default(),
            ways: Mutex::default(),
            notices: Mutex::default(),
            burials: Mutex::default(),
            seeded: Mutex::default(),
        })
    }

    /// Ends every stand-in and every container of this run, but for containers that are to be kept:
    /// those are left to the next run, unless this one was interrupted.
    pub async fn stop(&self) {
        let hosted = std::mem::take(&mut *lock(&self.hosted));
        let ended = hosted.into_iter().map(|(name, hosted)| self.part_with(name, hosted));
        futures_util::future::join_all(ended).await;
        let burials = std::mem::take(&mut *lock(&self.burials));
        futures_util::future::join_all(burials.into_values()).await;
        if let Some(engine) = self.run.engine.as_ref().filter(|engine| engine.is_lost().is_none()) {
            // Those that an interruption left half started.
            if let Err(error) = engine.remove_own().await {
                self.notice(format!(
                    "containers of this run are left: {error}; `faultbox clean` removes them"
                ));
            }
        }
    }

    async fn part_with(&self, name: String, hosted: Hosted) {
        let lost = || self.run.engine.as_ref().is_some_and(|engine| engine.is_lost().is_some());
        let cut_short = self.run.interrupted.is_cancelled() || lost();
        match hosted {
            Hosted { process: Process::Container(container, kept), output, slot: Some(slot), .. }
                if !cut_short && container.running().exit().is_none() && !container.running().is_gone() =>
            {
                let called = container.name().to_owned();
                if let Kept::Unknown(why) = &kept {
                    self.notice(format!("{name}: its container is not kept: {why}"));
                    drop(container.remove().await);
                    return slot.discard();
                }
                let left = match slot.keep(kept) {
                    Ok(()) => container.leave().await.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                match left {
                    Ok(()) => self.notice(format!(
                        "{name}: its container {called} is kept for the next run; `faultbox clean` removes it"
                    )),
                    Err(why) => {
                        slot.discard();
                        self.notice(format!("{name}: its container could not be kept: {why}"));
                    }
                }
                drop(output);
            }
            hosted => hosted.end().await,
        }
    }

    /// How an interface of a service that this environment runs is reached, past all proxies.
    pub fn way(&self, interface: &str) -> Option<Arc<dyn Dial>> {
        lock(&self.ways).get(interface).cloned()
    }

    /// The container that a service runs in.
    pub fn container_of(&self, service: &str) -> Option<String> {
        match lock(&self.hosted).get(service).map(|hosted| &hosted.process) {
            Some(Process::Container(container, _)) => Some(container.name().to_owned()),
            _ => None,
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
                    let (protocol, time) = (interface.protocol.name(), cell.time());
                    let link = Link::unobserved(&name, protocol, &interface.addr, options, time);
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
            // The runner starts services under test itself.
            _ if cell.faults.is_sut(&service.name) => Ok(()),
            ServiceKind::Image(_) | ServiceKind::Build { .. } => {
                let hosted = self.host(cell, service).await?;
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
            ServiceKind::Remote(remote) => self.reach(cell, service, remote).await,
            ServiceKind::Binary { .. } => Ok(()),
        }
    }

    /// A server somewhere else, ready; seeded when it is met first. Only the spec's own `reset` puts it
    /// back: what else is in there is not ours.
    async fn reach(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
        remote: &Remote,
    ) -> Result<(), SetupError> {
        let way = |port: u16| Arc::new(RemoteDial(remote.address_of(port))) as Arc<dyn Dial>;
        for interface in &service.interfaces {
            lock(&self.ways).insert(format!("{}.{}", service.name, interface.name), way(interface.port));
        }
        health::wait_ready(service, &way, &Vec::new, &health::exec_here, cell.time()).await?;
        let started = ServiceStarted {
            service: service.name.clone(),
            pid: 0,
            program: service.kind.words(),
            digest: None,
            args: Vec::new(),
            env: Vec::new(),
            isolated: false,
        };
        cell.journal.note(&service.name, "lifecycle", None, Body::ServiceStarted(started));
        cell.journal.note(&service.name, "lifecycle", None, Body::ServiceReady(service.name.clone()));
        if lock(&self.seeded).insert(service.name.clone()) {
            if service.has_seed {
                let failed = |why: String| SetupError::Seed { service: service.name.clone(), why };
                cell.call_seed(&service.name).await.map_err(failed)?;
            }
        } else if service.reset == Reset::Callable {
            let failed = |why: String| SetupError::Reset { service: service.name.clone(), why };
            cell.call_reset(&service.name).await.map_err(failed)?;
        }
        Ok(())
    }

    /// The service in its seeded state: the one that runs already, or a new one.
    async fn host(&self, cell: &Arc<CellContext>, service: &Service) -> Result<Hosted, SetupError> {
        let burial = lock(&self.burials).remove(&service.name);
        if let Some(burial) = burial {
            // It ends in any case.
            let _ = burial.await;
        }
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
        match (&service.kind, self.run.embedded) {
            (ServiceKind::Image(image), true) => {
                let none = || SetupError::NoEngine { service: service.name.clone(), image: image.clone() };
                self.start_stand_in(cell, service, stand_in_for(image).ok_or_else(none)?).await
            }
            _ => self.start_container(cell, service).await,
        }
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

    /// The slot in which a reused service's container is or will be kept, where it may be.
    async fn slot(&self, cell: &Arc<CellContext>, service: &Service) -> Result<Option<Slot>, SetupError> {
        let failed = |why: String| SetupError::Start { service: service.name.clone(), why };
        let may = |keeping: &&Keeping| service.reuse && (keeping.keep || keeping.root.is_dir());
        let Some(keeping) = self.run.keeping.as_ref().filter(may) else { return Ok(None) };
        let (plan, name) = (cell.plan.clone(), service.name.clone());
        let seed = tokio::task::spawn_blocking(move || match plan.topology.service(&name) {
            Some(service) if service.has_seed => seed_words::of(&plan, &name),
            _ => String::new(),
        });
        let seed = seed.await.map_err(|error| failed(error.to_string()))?;
        let image = contained::image_of(cell, service)?;
        let definition = contained::definition(cell, service, image).0.definition(&seed);
        if let (true, Some(engine)) = (keeping.keep, &self.run.engine) {
            let outdated = engine.remove_outdated(&keeping.spec, &service.name, &definition).await;
            for removed in outdated.map_err(|error| failed(error.to_string()))? {
                self.notice(format!(
                    "{}: its definition has changed: the kept container {} was removed",
                    service.name, removed.name
                ));
            }
        }
        let slot = Slot::take(keeping, &definition).map_err(|error| failed(error.to_string()))?;
        if slot.is_none() && keeping.keep {
            self.notice(format!(
                "{}: another run uses its kept container; this run's own is not kept",
                service.name
            ));
        }
        Ok(slot)
    }

    async fn start_container(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
    ) -> Result<Hosted, SetupError> {
        let slot = self.slot(cell, service).await?;
        if let Some(taken) = &slot
            && let Some(kept) = taken.reclaim()
        {
            match self.take_over(cell, service, taken, kept).await {
                Ok(Some(hosted)) => return Ok(Hosted { slot, ..hosted }),
                Ok(None) => {}
                Err(why) => self.notice(format!(
                    "{}: the kept container could not be used ({why}); it was removed and another starts",
                    service.name
                )),
            }
        }
        // A run that keeps nothing leaves no slot behind.
        let keeps = self.run.keeping.as_ref().is_some_and(|keeping| keeping.keep);
        self.start_cold(cell, service, slot.filter(|_| keeps)).await
    }

    /// The container that an earlier run has kept, back in its seeded state; `None` when there is none.
    async fn take_over(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
        slot: &Slot,
        kept: Kept,
    ) -> Result<Option<Hosted>, String> {
        let taken = contained::take_over(cell, service, slot, cell.run_journal.clone());
        let Some(taken) = taken.await.map_err(|error| error.to_string())? else { return Ok(None) };
        let Contained { container, policy, mut output, upstreams } = taken;
        let exec = |command: Vec<String>| container.exec(command);
        self.let_in(service, container.running());
        let ready =
            super::await_ready(service, container.running(), &mut output, &exec, (&[], true), cell.time())
                .await;
        let process = Process::Container(container, kept);
        let hosted = Hosted { process, policy, output, upstreams, slot: None };
        let back = match ready {
            Ok(()) => self.put_back(cell, service, &hosted).await,
            Err(error) => Err(error),
        };
        let why = match back {
            Ok(PutBack::Done) => {
                if let Process::Container(container, _) = &hosted.process {
                    self.notice(format!("{}: uses the kept container {}", service.name, container.name()));
                }
                cell.journal.note(&service.name, "lifecycle", None, Body::ServiceReady(service.name.clone()));
                return Ok(Some(hosted));
            }
            Ok(PutBack::Cold(why)) => why,
            Err(error) => error.to_string(),
        };
        hosted.end().await;
        Err(why)
    }

    async fn start_cold(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
        slot: Option<Slot>,
    ) -> Result<Hosted, SetupError> {
        let failed = |why: String| SetupError::Start { service: service.name.clone(), why };
        let started = contained::start(cell, service, slot.as_ref(), cell.run_journal.clone()).await?;
        let Contained { container, policy, mut output, upstreams } = started;
        let exec = |command: Vec<String>| container.exec(command);
        if let Err(error) = self.make_ready(cell, service, container.running(), &mut output, &exec).await {
            // The first error is the one that matters.
            let _ = container.remove().await;
            return Err(error);
        }
        let ways = |port| container.running().dial(port);
        let kept = match (service.reuse, service.reset) {
            (true, Reset::Default) => Kept::remember(service, &ways).await.map_err(failed)?,
            // Its own callable puts it back, or nothing does.
            (true, _) => Kept::Known(Vec::new()),
            (false, _) => Kept::Unknown("it is not reused".to_owned()),
        };
        Ok(Hosted { process: Process::Container(container, kept), policy, output, upstreams, slot })
    }

    /// Lets others in.
    fn let_in(&self, service: &Service, running: &Running) {
        for interface in &service.interfaces {
            let name = format!("{}.{}", service.name, interface.name);
            lock(&self.ways).insert(name, running.dial(interface.port));
        }
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
        self.let_in(service, running);
        super::await_ready(service, running, output, exec, (&[], true), cell.time()).await?;
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
            families: contained::families(cell, service),
            // It serves many cells, each with a wall clock of its own.
            mediation: Mediation { time: cell.held_time(), ..Mediation::default() },
        };
        let mut running = supervisor::launch(launch, policy.clone())
            .await
            .map_err(|error| SetupError::of_launch(&service.name, &error))?;
        let isolated = self.run.isolation == supervisor::Isolation::Namespace;
        contained::note_started(cell, service, format!("stand-in {kind}"), &running, isolated);
        let mut output = super::OutputLog::follow(&service.name, running.output(), cell.run_journal.clone());
        self.make_ready(cell, service, &running, &mut output, &|command| health::exec_here(command)).await?;
        let control = Control::new(control);
        control.snapshot().await.map_err(|error| failed(error.to_string()))?;
        Ok(Hosted {
            process: Process::StandIn(running, control),
            policy,
            output,
            upstreams: Vec::new(),
            slot: None,
        })
    }

    async fn prepare_all(&self, cell: &Arc<CellContext>) -> Result<(), SetupError> {
        // Containers take their time: those that wait for nothing come up side by side.
        let apart = |service: &&Service| {
            !self.run.embedded && service.is_contained() && service.depends_on.is_empty()
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
    }

    /// Removes what has died. The cell need not wait for that; the service's next start does.
    async fn bury(&self, name: &str, hosted: Hosted) {
        let Hosted { process, output, slot, .. } = hosted;
        output.drained().await;
        if let Some(slot) = slot {
            slot.discard();
        }
        let folder = self.run.dir.join(name);
        let burial = tokio::spawn(async move {
            process.end().await;
            // Not there for every kind of service.
            let _ = std::fs::remove_dir_all(folder);
        });
        lock(&self.burials).insert(name.to_owned(), burial);
    }

    /// What becomes of a service at the end of a cell: kept, or ended.
    async fn retire(&self, cell: &CellContext, name: &str, hosted: Hosted) -> Option<Hosted> {
        if hosted.has_ended() {
            let fault = hosted.policy.last_failure();
            // Its end may be told a moment after its way in has closed.
            let exit = hosted.running().exited_within(super::GRACE).await;
            super::note_exited(cell, name, exit, false);
            let exit = super::exit_words(exit);
            self.notice(match fault {
                Some(fault) => format!("{name}: aborted ({exit}) after an injected {fault}; it starts anew"),
                None => format!("{name}: ended unasked ({exit}); it starts anew"),
            });
            self.bury(name, hosted).await;
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
            let prepared = self.prepare_all(cell).await;
            match (&prepared, &self.run.engine) {
                // What fails because the engine went away is not told as its own failure.
                (Err(_), Some(engine)) => match engine.check().await {
                    Some(why) => Err(SetupError::Lost(why)),
                    None => prepared,
                },
                _ => prepared,
            }
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
        match self.way(&link.interface) {
            Some(way) => {
                let way = Told { way, link: link.clone() };
                protocol.proxy(client, Arc::new(way), link)
            }
            None => Box::pin(std::future::ready(Err(ProtocolError::Cut))),
        }
    }

    fn lost(&self) -> BoxFuture<'_, String> {
        match &self.run.engine {
            Some(engine) => Box::pin(engine.lost()),
            None => Box::pin(std::future::pending()),
        }
    }

    fn trouble(&self) -> Option<String> {
        let hosted = lock(&self.hosted);
        hosted.iter().find_map(|(name, hosted)| Some(format!("{name}: {}", hosted.running().trouble()?)))
    }

    fn grace(&self) -> std::time::Duration {
        super::GRACE
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

/// A server somewhere else, its name looked up for each connection.
struct RemoteDial(String);

impl Dial for RemoteDial {
    fn dial(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.0));
            let stream = tokio::net::TcpStream::connect(&self.0).await.map_err(named)?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Stream)
        })
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
