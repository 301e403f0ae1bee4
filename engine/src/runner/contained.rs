//! A service in a container, as a cell (the service under test) or a run (what it depends on)
//! starts it.
//!
//! Contract: returns a container whose own program runs; readiness and seeds are the caller's.

use super::policy::CellPolicy;
use super::{CellContext, OutputLog, SetupError};
use crate::containers::{Container, ContainerError, Engine, ImageFacts, Slot, StartContainer};
use crate::fault::Assumption;
use crate::journal::Journal;
use crate::supervisor::{self, Running};
use crate::topology::Service;
use faultbox_bundle_format::{Body, Named, ServiceStarted};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// A container that has been started.
pub(super) struct Contained {
    pub container: Container,
    pub policy: Arc<CellPolicy>,
    pub output: OutputLog,
    /// What it asks for, inside its network.
    pub upstreams: Vec<(String, std::net::TcpListener)>,
}

/// The image of a service, which the command has found before the first cell.
pub(super) fn image_of<'a>(cell: &'a CellContext, service: &Service) -> Result<&'a ImageFacts, SetupError> {
    cell.run
        .images
        .get(&service.name)
        .ok_or_else(|| SetupError::NoEngine { service: service.name.clone(), image: service.kind.words() })
}

/// The syscall families that any cell of the plan could fault on a service.
pub(super) fn families(cell: &CellContext, service: &Service) -> BTreeSet<String> {
    let assumptions: Vec<&Assumption> =
        cell.plan.cells.iter().filter_map(|c| c.assumption.as_deref()).collect();
    super::policy::families(&cell.plan.topology, &assumptions, service)
}

/// What is to be started, and the interfaces that it asks.
pub(super) fn definition<'a>(
    cell: &'a CellContext,
    service: &'a Service,
    image: &ImageFacts,
) -> (StartContainer<'a>, Vec<(String, SocketAddr)>) {
    let asked = super::upstreams(&cell.plan.topology, service);
    let start = StartContainer {
        service,
        topology: &cell.plan.topology,
        image: image.clone(),
        listen: asked.iter().map(|(_, addr)| *addr).collect(),
        families: families(cell, service),
        mediation: cell.mediation(service),
        dir: cell.run.dir.join(format!("{}.door", service.name)),
        slot: None,
    };
    (start, asked)
}

/// Starts a service's container, in a slot where it may be kept; what it prints goes to `journal`.
pub(super) async fn start(
    cell: &CellContext,
    service: &Service,
    slot: Option<&Slot>,
    journal: Arc<Journal>,
) -> Result<Contained, SetupError> {
    let (image, engine) = (image_of(cell, service)?, engine_of(cell, service)?);
    let policy = policy(service);
    let (mut start, asked) = definition(cell, service, image);
    if let (Some(slot), Some(keeping)) = (slot, &cell.run.keeping) {
        start.dir = slot.dir().to_owned();
        start.slot = Some((slot, &keeping.spec));
    }
    let container = Container::start(engine, start, policy.clone()).await;
    let container = container.map_err(|error| failed(service, &error))?;
    Ok(contain(cell, service, image, container, policy, asked, journal))
}

/// Takes over the container that waits in a slot; `None` when there is none any more.
pub(super) async fn take_over(
    cell: &CellContext,
    service: &Service,
    slot: &Slot,
    journal: Arc<Journal>,
) -> Result<Option<Contained>, SetupError> {
    let (image, engine) = (image_of(cell, service)?, engine_of(cell, service)?);
    let policy = policy(service);
    let (mut start, asked) = definition(cell, service, image);
    start.slot = Some((slot, ""));
    let taken = Container::take_over(engine, &start, slot, policy.clone()).await;
    let taken = taken.map_err(|error| failed(service, &error))?;
    Ok(taken.map(|container| contain(cell, service, image, container, policy, asked, journal)))
}

fn failed(service: &Service, error: &ContainerError) -> SetupError {
    SetupError::Start { service: service.name.clone(), why: error.to_string() }
}

fn engine_of<'a>(cell: &'a CellContext, service: &Service) -> Result<&'a Arc<Engine>, SetupError> {
    cell.run
        .engine
        .as_ref()
        .ok_or_else(|| SetupError::NoEngine { service: service.name.clone(), image: service.kind.words() })
}

/// Paths inside are named as the container names them.
fn policy(service: &Service) -> Arc<CellPolicy> {
    CellPolicy::new(&service.name, supervisor::SHIM_FOLDER.into())
}

/// What everybody needs to know of a container that runs.
fn contain(
    cell: &CellContext,
    service: &Service,
    image: &ImageFacts,
    mut container: Container,
    policy: Arc<CellPolicy>,
    asked: Vec<(String, SocketAddr)>,
    journal: Arc<Journal>,
) -> Contained {
    note_started(cell, service, format!("image {}", image.describe()), container.running(), true);
    let running = container.running_mut();
    let output = OutputLog::follow(&service.name, running.output(), journal);
    let listeners = std::mem::take(&mut running.listeners);
    let upstreams = asked.into_iter().map(|(name, _)| name).zip(listeners).collect();
    Contained { container, policy, output, upstreams }
}

/// Notes that a process of ours stands for an image.
pub(super) fn note_started(
    cell: &CellContext,
    service: &Service,
    program: String,
    running: &Running,
    isolated: bool,
) {
    let env = service.env.iter();
    let started = ServiceStarted {
        service: service.name.clone(),
        pid: running.pid,
        program,
        digest: None,
        args: service.args.clone(),
        env: env.map(|(name, value)| Named { name: name.clone(), value: value.clone() }).collect(),
        isolated,
    };
    cell.journal.note(&service.name, "lifecycle", None, Body::ServiceStarted(started));
}
