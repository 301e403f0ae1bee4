//! What the syscall supervisor is told: a cell's rules, by stable key.
//!
//! Contract: pure over (call, active rules). A call that no rule looks at is not journaled.

use super::switchboard::lock;
use super::{CellContext, RANDOMNESS_BY, TIME_BY};
use crate::fault::{Assumption, SyscallAction};
use crate::supervisor::{Asked, Given, SyscallCall, SyscallDecision, SyscallPolicy, SyscallTarget};
use crate::topology::{Service, Topology};
use faultbox_bundle_format::{Body, Named, Syscall};
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
    fn wants(&self, _name: &'static str, families: &[&'static str]) -> bool {
        lock(&self.cell).upgrade().is_some_and(|cell| cell.faults.looks_at(families))
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
        let Some(cell) = lock(&self.cell).upgrade() else { return SyscallDecision::Continue };
        let mut path = None;
        let mut peer = None;
        let mut regular = false;
        let target = match &call.target {
            SyscallTarget::File { path: file, regular: is_regular } => {
                regular = *is_regular;
                let name = file.strip_prefix(&self.root).unwrap_or(file).display().to_string();
                path = Some(name.clone());
                name
            }
            SyscallTarget::Peer(addr) => {
                let interface = cell.plan.topology.interface_at(&addr.to_string());
                peer =
                    interface.as_ref().and_then(|i| i.split_once('.')).map(|(service, _)| service.to_owned());
                interface.map_or_else(|| addr.to_string(), |interface| format!("@{interface}"))
            }
            SyscallTarget::UnixPeer(path) => path.display().to_string(),
            SyscallTarget::Fd { kind } => kind.to_string(),
            SyscallTarget::None => String::new(),
        };
        let family = call.families.first().copied().unwrap_or(call.name);
        let key = format!("{family} {target}");
        let acting = cell.faults.consult_syscall(
            &self.service,
            call.families,
            peer.as_deref(),
            path.as_deref(),
            regular,
            &key,
        );
        let Some((action, hit)) = acting else { return SyscallDecision::Continue };
        let (words, decision) = match action {
            SyscallAction::Deny(errno) => {
                *lock(&self.last) = Some(format!("{} on {target}", crate::supervisor::errno_name(errno)));
                (format!("deny {}", crate::supervisor::errno_name(errno)), SyscallDecision::Errno(errno))
            }
            SyscallAction::Delay(pause) => {
                (format!("delay {}ms", pause.as_millis()), SyscallDecision::Delay(pause))
            }
        };
        let entry = Syscall {
            service: self.service.clone(),
            name: call.name.to_owned(),
            family: family.to_owned(),
            target,
            action: words,
            rule: Some(hit),
            on_sut: cell.faults.is_sut(&self.service),
        };
        let stream = format!("{}!{key}", self.service);
        cell.journal.note(&self.service, &stream, None, Body::Syscall(entry));
        decision
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
