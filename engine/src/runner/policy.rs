//! What the syscall supervisor is told: a cell's rules, by stable key.
//!
//! Contract: pure over (call, active rules). A call that no rule looks at is not journaled.

use super::switchboard::lock;
use super::{CellContext, RANDOMNESS_BY, TIME_BY};
use crate::fault::{Assumption, SyscallAction, SyscallAsk};
use crate::supervisor::{
    Asked, Given, Interest, Kind, SyscallAct, SyscallCall, SyscallDecision, SyscallPolicy, SyscallTarget,
    errno_name, signal_name,
};
use crate::topology::{Service, Topology};
use faultbox_bundle_format::{Body, Named, Syscall, split_interface};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

/// The policy of one process, which may outlive a cell.
#[derive(Default)]
pub struct CellPolicy {
    service: String,
    /// Paths are named relative to this folder.
    root: PathBuf,
    cell: Mutex<Weak<CellContext>>,
    last: Mutex<Option<String>>,
}

impl CellPolicy {
    /// A policy that lets everything pass until a cell is set.
    pub fn new(service: &str, root: PathBuf) -> Arc<Self> {
        // The supervisor reports canonical paths.
        let root = root.canonicalize().unwrap_or(root);
        Arc::new(CellPolicy { service: service.to_owned(), root, ..CellPolicy::default() })
    }

    /// The last failure that was injected since the cell was entered: `EIO on /data/log`.
    pub fn last_failure(&self) -> Option<String> {
        lock(&self.last).clone()
    }

    /// From now on this cell's rules count.
    pub fn enter(&self, cell: &Arc<CellContext>) {
        *lock(&self.last) = None;
        *lock(&self.cell) = Arc::downgrade(cell);
    }
}

impl SyscallPolicy for CellPolicy {
    fn wants(&self, _name: &'static str, families: &[&'static str]) -> Option<Interest> {
        lock(&self.cell).upgrade()?.faults.looks_at(families)
    }

    fn changes(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        lock(&self.cell).upgrade().map(|cell| cell.faults.changes())
    }

    fn given(&self, given: &Given) {
        let Some(cell) = lock(&self.cell).upgrade() else { return };
        let from = given.from.map(|from| format!(" from {from}")).unwrap_or_default();
        let value = format!("{}: {} bytes{from}", given.call, given.bytes);
        let fact = Named { name: format!("randomness of {}", self.service), value };
        cell.journal.note(&self.service, "randomness", None, Body::HostFact(fact));
    }

    fn asked(&self, asked: Asked) {
        const NAMES: u16 = 53;
        let Some(cell) = lock(&self.cell).upgrade() else { return };
        let what = match asked {
            Asked::Time(call) => format!("{TIME_BY}{call}"),
            Asked::Randomness(call) => format!("{RANDOMNESS_BY}{call}"),
            // What is declared goes through a proxy.
            Asked::Peer(peer) if cell.plan.topology.interface_at(&peer.to_string()).is_some() => return,
            Asked::Peer(peer) if peer.port() == NAMES => format!("names from {peer}"),
            Asked::Peer(peer) => format!("undeclared {peer}"),
        };
        *lock(&cell.asked).entry((self.service.clone(), what)).or_default() += 1;
    }

    fn decide(&self, call: &SyscallCall<'_>) -> SyscallDecision {
        let Some(cell) = lock(&self.cell).upgrade() else { return SyscallDecision::CONTINUE };
        let about = self.about(&cell, &call.target);
        let family = call.families.first().copied().unwrap_or(call.name);
        let key = format!("{family} {}", about.words);
        let acting = cell.faults.consult_syscall(&SyscallAsk {
            service: &self.service,
            families: call.families,
            peer: about.peers.first().map(String::as_str).filter(|_| about.declared),
            peers: &about.peers,
            path: about.path.as_deref(),
            kind: about.kind,
            bytes: call.bytes,
            process: &call.process,
            key: &key,
        });
        let mut decision = SyscallDecision::CONTINUE;
        for (action, hit) in acting {
            let failure = match action {
                SyscallAction::Deny(errno) => {
                    decision.act = SyscallAct::Errno(errno);
                    Some(errno_name(errno).to_owned())
                }
                SyscallAction::Kill(signal) => {
                    decision.act = SyscallAct::Kill(signal);
                    Some(signal_name(signal).to_owned())
                }
                SyscallAction::Partial(bytes) => {
                    decision.act = SyscallAct::AtMost(bytes);
                    None
                }
                SyscallAction::Delay(_) | SyscallAction::EnospcAfter(_) => None,
            };
            if let Some(failure) = failure {
                *lock(&self.last) = Some(format!("{failure} on {}", about.words));
            }
            let entry = Syscall {
                service: self.service.clone(),
                name: call.name.to_owned(),
                family: family.to_owned(),
                target: about.words.clone(),
                action: words(action),
                rule: Some(hit),
                on_sut: cell.faults.is_sut(&self.service),
            };
            if let SyscallAction::Delay(pause) = action {
                decision.pause += cell.switchboard.environment().syscall_pause(&entry, pause);
            }
            let stream = format!("{}!{key}", self.service);
            cell.journal.note(&self.service, &stream, None, Body::Syscall(entry));
        }
        decision
    }
}

/// A call's target as rules and the journal see it.
#[derive(Default)]
struct About {
    /// For the stable key: never a port that another run would not have.
    words: String,
    path: Option<String>,
    kind: Option<Kind>,
    /// The peer's service and interface where it is declared, and its address.
    peers: Vec<String>,
    declared: bool,
}

impl CellPolicy {
    fn about(&self, cell: &CellContext, target: &SyscallTarget) -> About {
        match target {
            SyscallTarget::File { path, kind } => {
                let name = path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
                About { words: name.clone(), path: Some(name), kind: Some(*kind), ..About::default() }
            }
            SyscallTarget::Peer(address) => {
                let shown = vec![address.to_string(), address.ip().to_string()];
                match cell.plan.topology.interface_at(&address.to_string()) {
                    Some(interface) => {
                        let (service, _) = split_interface(&interface);
                        let mut peers = vec![service.to_owned(), interface.clone()];
                        peers.extend(shown);
                        let words = format!("@{interface}");
                        About { words, peers, declared: true, kind: Some(Kind::Socket), ..About::default() }
                    }
                    None => About {
                        words: address.to_string(),
                        peers: shown,
                        kind: Some(Kind::Socket),
                        ..About::default()
                    },
                }
            }
            SyscallTarget::UnixPeer(path) => {
                let words = path.display().to_string();
                let peers = vec![words.clone()];
                About { words, peers, kind: Some(Kind::Socket), ..About::default() }
            }
            SyscallTarget::Fd { kind, peer } => {
                let connected = peer.as_ref().map(|peer| self.about(cell, peer)).unwrap_or_default();
                // The port of one who connected to the service is another in every run.
                let words = match connected.declared {
                    true => connected.words,
                    false => kind.name().to_owned(),
                };
                About { words, kind: Some(*kind), peers: connected.peers, ..About::default() }
            }
            SyscallTarget::None => About::default(),
        }
    }
}

/// What was done, for the journal.
fn words(action: SyscallAction) -> String {
    match action {
        SyscallAction::Deny(errno) => format!("deny {}", errno_name(errno)),
        SyscallAction::Delay(pause) => format!("delay {}ms", pause.as_millis()),
        SyscallAction::Partial(bytes) => format!("partial {bytes}"),
        SyscallAction::EnospcAfter(bytes) => format!("enospc_after {bytes}"),
        SyscallAction::Kill(signal) => format!("kill {}", signal_name(signal)),
    }
}

/// The syscall families that the whole spec could ever fault on a service.
pub fn families(topology: &Topology, assumptions: &[&Assumption], service: &Service) -> BTreeSet<String> {
    let mut families = BTreeSet::new();
    if !service.seccomp {
        return families;
    }
    for assumption in assumptions.iter().flat_map(|a| a.flatten()) {
        let Some(target) = &assumption.target else { continue };
        for rule in &assumption.syscalls {
            let asks = || topology.asks(&service.name, &target.service);
            if if rule.inbound { asks() } else { target.service == service.name } {
                families.insert(rule.family.clone());
            }
        }
    }
    families
}
