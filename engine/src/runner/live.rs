//! The live environment: mocks inside this process, stand-ins for images beside it.
//!
//! Contract: stand-ins are started once a run (in order of `depends_on`), seeded, and put
//! back to their seeded state before every later cell. Mocks live as long as a cell.
//! Not modelled: containers; an image without a stand-in is an error that says so.

use super::policy::{self, CellPolicy};
use super::switchboard::lock;
use super::{CellContext, RunContext, SetupError, health};
use crate::environment::Environment;
use crate::fault::Assumption;
use crate::link::{BoxFuture, Dial, InterfaceOptions, Link, Responder, Stream};
use crate::protocol::{Protocol, ProtocolError};
use crate::standin::process::Control;
use crate::supervisor::{self, Launch, Running};
use crate::topology::{Reset, Service, ServiceKind};
use faultbox_bundle_format::{Body, Named, ServiceStarted};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

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

struct StandIn {
    running: Running,
    control: Control,
    policy: Arc<CellPolicy>,
    output: super::OutputLog,
}

/// Everything that runs besides the local executables.
pub struct Live {
    run: Arc<RunContext>,
    stand_ins: tokio::sync::Mutex<BTreeMap<String, StandIn>>,
    ways: Mutex<BTreeMap<String, Arc<dyn Dial>>>,
}

impl Live {
    /// A live environment for a run.
    pub fn new(run: Arc<RunContext>) -> Arc<Self> {
        Arc::new(Live { run, stand_ins: tokio::sync::Mutex::default(), ways: Mutex::default() })
    }

    /// Ends every stand-in.
    pub async fn stop(&self) {
        for (_, stand_in) in std::mem::take(&mut *self.stand_ins.lock().await) {
            stand_in.running.stop(super::GRACE).await;
        }
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
                let kind = stand_in_for(image).filter(|_| self.run.embedded);
                let Some(kind) = kind else {
                    return Err(SetupError::NoEngine { service: service.name.clone(), image: image.clone() });
                };
                let mut stand_ins = self.stand_ins.lock().await;
                if let Some(stand_in) = stand_ins.get(&service.name) {
                    stand_in.policy.enter(cell);
                    return self.put_back(cell, service, stand_in).await;
                }
                let stand_in = self.start(cell, service, kind).await?;
                stand_ins.insert(service.name.clone(), stand_in);
                Ok(())
            }
            ServiceKind::Build(_) | ServiceKind::Remote(_) => Err(SetupError::NoEngine {
                service: service.name.clone(),
                image: "build= and remote= services".to_owned(),
            }),
            ServiceKind::Binary { .. } => Ok(()),
        }
    }

    async fn put_back(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
        stand_in: &StandIn,
    ) -> Result<(), SetupError> {
        let failed = |why: String| SetupError::Reset { service: service.name.clone(), why };
        match service.reset {
            Reset::Leave => Ok(()),
            Reset::Default => stand_in.control.restore().await.map_err(|error| failed(error.to_string())),
            Reset::Callable => cell.call_reset(&service.name).await.map_err(failed),
        }
    }

    async fn start(
        &self,
        cell: &Arc<CellContext>,
        service: &Service,
        kind: &str,
    ) -> Result<StandIn, SetupError> {
        let failed = |why: String| SetupError::Start { service: service.name.clone(), why };
        let interface = service.interfaces.first().ok_or_else(|| failed("it has no interface".to_owned()))?;
        let data = self.run.dir.join(&service.name);
        std::fs::create_dir_all(&data).map_err(|error| failed(error.to_string()))?;
        let control = self.run.dir.join(format!("{}.sock", service.name));
        let assumptions: Vec<&Assumption> =
            cell.plan.cells.iter().filter_map(|c| c.assumption.as_deref()).collect();
        let policy = CellPolicy::new(&service.name, data.clone());
        let launch = Launch {
            service: service.name.clone(),
            launcher: self.run.launcher.clone(),
            program: self.run.launcher.clone(),
            args: vec![
                "__standin".to_owned(),
                kind.to_owned(),
                "--port".to_owned(),
                interface.port.to_string(),
                "--data".to_owned(),
                data.display().to_string(),
                "--control".to_owned(),
                control.display().to_string(),
            ],
            env: service.env.clone(),
            cwd: data,
            isolation: self.run.isolation,
            listen: Vec::new(),
            declared_ports: vec![interface.port],
            families: policy::families(&cell.plan.topology, &assumptions, service),
        };
        let started = ServiceStarted {
            service: service.name.clone(),
            pid: 0,
            program: format!("stand-in {kind}"),
            digest: None,
            args: Vec::new(),
            env: launch
                .env
                .iter()
                .map(|(name, value)| Named { name: name.clone(), value: value.clone() })
                .collect(),
            isolated: self.run.isolation == supervisor::Isolation::Namespace,
        };
        let mut running =
            supervisor::launch(launch, policy.clone()).await.map_err(|error| failed(error.to_string()))?;
        cell.journal.note(&service.name, "lifecycle", None, Body::ServiceStarted(started));
        let output = super::OutputLog::follow(&service.name, running.output(), cell.run_journal.clone());
        for interface in &service.interfaces {
            let name = format!("{}.{}", service.name, interface.name);
            lock(&self.ways).insert(name, running.dial(interface.port));
        }
        let (way, log) = (|port| running.dial(port), || output.tail());
        let ready = tokio::select! {
            ready = health::wait_ready(service, &way, &log) => ready,
            exit = running.exited() => Err(failed(format!("it ended at once ({})", super::exit_words(exit)))),
        };
        ready.map_err(|error| error.with_log(&output.tail()))?;
        cell.journal.note(&service.name, "lifecycle", None, Body::ServiceReady(service.name.clone()));
        if service.has_seed {
            let seeded = cell.call_seed(&service.name).await;
            seeded.map_err(|why| SetupError::Seed { service: service.name.clone(), why })?;
        }
        let control = Control::new(control);
        control.snapshot().await.map_err(|error| failed(error.to_string()))?;
        policy.enter(cell);
        Ok(StandIn { running, control, policy, output })
    }
}

impl Environment for Live {
    fn runs(&self, _service: &str) -> bool {
        true
    }

    fn prepare<'a>(&'a self, cell: &'a Arc<CellContext>) -> BoxFuture<'a, Result<(), SetupError>> {
        Box::pin(async move {
            for service in cell.plan.topology.start_order() {
                self.prepare_service(cell, service).await?;
            }
            Ok(())
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
            Some(way) => protocol.proxy(client, way, link),
            None => Box::pin(std::future::ready(Err(ProtocolError::Cut))),
        }
    }

    fn settle<'a>(&'a self, _cell: &'a Arc<CellContext>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // A stand-in that died of an injected fault starts cold for the next cell.
            let mut stand_ins = self.stand_ins.lock().await;
            let dead: BTreeSet<String> = stand_ins
                .iter()
                .filter(|(_, s)| s.running.exit().is_some())
                .map(|(name, _)| name.clone())
                .collect();
            for name in dead {
                if let Some(stand_in) = stand_ins.remove(&name) {
                    drop(stand_in.output);
                    stand_in.running.stop(super::GRACE).await;
                }
                let _ = std::fs::remove_dir_all(self.run.dir.join(&name));
            }
        })
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
