//! `Hold`: a cell that waits before a step, for a debugger or a look at what runs.
//!
//! Contract: everything of the cell goes on running and answering meanwhile; only the scenario waits,
//! and the cell's time does not run out. Nothing is said here: who implements it does.

use super::CellContext;
use crate::step::StepCall;
use faultbox_bundle_format::Body;

/// A process of the cell that somebody may want to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldService {
    /// The service.
    pub name: String,
    /// Its process, as the host numbers it.
    pub pid: u32,
}

/// Asked before each step of a scenario.
pub trait Hold: Send + Sync {
    /// The step numbered so is about to be taken; the cell goes on when this returns. Called on a
    /// thread that may block.
    fn before_step(&self, number: u32, call: &StepCall, services: &[HeldService]);
}

/// The local executables that run in a cell.
pub(super) fn services(cell: &CellContext) -> Vec<HeldService> {
    let mut services: Vec<HeldService> = Vec::new();
    for entry in cell.memory.entries() {
        if let Body::ServiceStarted(started) = entry.body
            && started.digest.is_some()
            && started.pid != 0
        {
            services.retain(|service| service.name != started.service);
            services.push(HeldService { name: started.service, pid: started.pid });
        }
    }
    services
}
