//! The stack of a spec without its tests, for as long as somebody wants it.
//!
//! Contract: what runs is what a cell without faults would run, seeded, behind the same proxies. Every
//! interface is to be had from this host at two addresses of loopback, through its proxy and past it.
//! Whatever was started has ended when [`up`] returns, but for what a run shares ([`Live::stop`]).
//! Not modelled: a broker that names its own address names the one that services know, except through
//! the proxy.

use super::live::Live;
use super::{
    CellContext, Local, Process, RunContext, SetupError, exit_words, hold, note_start, set_up, stop,
};
use crate::environment::Environment;
use crate::event_sink::MemorySink;
use crate::plan::{Cell, Plan, RequireFire};
use faultbox_bundle_format::{Body, Phase};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// How often what was noted meanwhile is forgotten.
const FORGETS: Duration = Duration::from_secs(5);

/// A service that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// What runs: `stand-in mysql`, `image ...`, a path.
    pub program: String,
    /// Its process, as the host numbers it; none where it runs inside this one or elsewhere.
    pub pid: Option<u32>,
    /// Its container.
    pub container: Option<String>,
    /// Whether it is a local executable, which a debugger can be attached to.
    pub local: bool,
    /// Where it is to be had.
    pub interfaces: Vec<Reachable>,
}

/// An interface, as this host reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachable {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: &'static str,
    /// Through the proxy.
    pub proxied: SocketAddr,
    /// Past the proxy.
    pub direct: SocketAddr,
}

/// Why a stack that stood does not stand any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The user wanted it so.
    Interrupted,
    /// A local executable ended by itself, or what it runs on was lost.
    Unasked(String),
}

/// A plan with nothing to test: no rule of any cell is ever to act.
pub fn only_the_stack(mut plan: Plan) -> Plan {
    let name = "up".to_owned();
    plan.cells = vec![Cell {
        number: 0,
        scenario: name.clone(),
        name,
        assumption: None,
        expectation: String::new(),
        timeout: Duration::ZERO,
        require_faults_fire: RequireFire::No,
        location: String::new(),
    }];
    plan
}

/// Brings the stack up, tells what stands, and takes it down when the run is interrupted.
///
/// # Errors
/// Why it could not be brought up.
pub async fn up(
    run: &Arc<RunContext>,
    plan: &Arc<Plan>,
    live: &Arc<Live>,
    tell: impl FnOnce(&[Standing]),
) -> Result<Ended, SetupError> {
    let environment: Arc<dyn Environment> = live.clone();
    let memory = Arc::new(MemorySink::default());
    let cell = CellContext::new(run, plan, 0, environment.clone(), &memory);
    note_start(&cell);
    let mut locals = Vec::new();
    let ended = match set_up(&cell, &environment, &mut locals).await {
        Ok(()) => match standing(&cell, live, &locals) {
            Ok(standing) => {
                tell(&standing);
                Ok(while_it_stands(&cell, &environment, &locals, &memory).await)
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    cell.journal.enter(Phase::Tail);
    stop(&cell, locals, environment.grace()).await;
    environment.settle(&cell).await;
    cell.switchboard.close();
    ended
}

async fn while_it_stands(
    cell: &Arc<CellContext>,
    environment: &Arc<dyn Environment>,
    locals: &[Local],
    memory: &MemorySink,
) -> Ended {
    let exits = locals.iter().map(|local| {
        Box::pin(async move {
            let exit = local.running().exited().await;
            format!("{} ended unasked ({})", local.service, exit_words(exit))
        })
    });
    let exits: Vec<_> = exits.collect();
    let any = async {
        match exits.is_empty() {
            true => std::future::pending().await,
            false => futures_util::future::select_all(exits).await.0,
        }
    };
    let forgets = async {
        loop {
            tokio::time::sleep(FORGETS).await;
            // Nobody judges it, and a stack may stand for days.
            memory.drain();
        }
    };
    tokio::select! {
        () = cell.run.interrupted.cancelled() => Ended::Interrupted,
        why = any => Ended::Unasked(why),
        why = environment.lost() => Ended::Unasked(why),
        () = forgets => Ended::Interrupted,
    }
}

/// Opens the addresses of every interface.
fn standing(cell: &Arc<CellContext>, live: &Live, locals: &[Local]) -> Result<Vec<Standing>, SetupError> {
    let mut started = BTreeMap::new();
    for entry in cell.memory.entries() {
        if let Body::ServiceStarted(service) = entry.body {
            started.insert(service.service.clone(), service);
        }
    }
    let executables = hold::services(cell);
    let mut standing = Vec::new();
    for service in &cell.plan.topology.services {
        let mut interfaces = Vec::new();
        for interface in &service.interfaces {
            let full = format!("{}.{}", service.name, interface.name);
            let opened = opened(cell, live, &full);
            let (proxied, direct) = opened.map_err(|error| SetupError::Host {
                service: service.name.clone(),
                why: format!("no address for {}: {error}", interface.name),
            })?;
            let (name, protocol) = (interface.name.clone(), interface.protocol.name());
            interfaces.push(Reachable { name, protocol, proxied, direct });
        }
        let started = started.get(&service.name);
        let contained = locals.iter().find(|local| local.service == service.name);
        let own = contained.and_then(|local| match &local.process {
            Process::Contained(container) => Some(container.name().to_owned()),
            Process::Local(_) => None,
        });
        standing.push(Standing {
            name: service.name.clone(),
            program: started.map_or_else(|| service.kind.words(), |started| started.program.clone()),
            pid: started.map(|started| started.pid).filter(|pid| *pid != 0),
            container: own.or_else(|| live.container_of(&service.name)),
            local: executables.iter().any(|held| held.name == service.name),
            interfaces,
        });
    }
    Ok(standing)
}

fn opened(
    cell: &Arc<CellContext>,
    live: &Live,
    interface: &str,
) -> std::io::Result<(SocketAddr, SocketAddr)> {
    let proxied = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let direct = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addresses = (proxied.local_addr()?, direct.local_addr()?);
    let way = cell.switchboard.local(interface).or_else(|| live.way(interface));
    cell.switchboard.listen_outside(cell, interface, proxied)?;
    cell.switchboard.forward(direct, way.ok_or(std::io::ErrorKind::NotFound)?)?;
    Ok(addresses)
}
