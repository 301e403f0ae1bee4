//! In the place of `mediate` where the vDSO is not known: nothing is mediated, and a service that asks for
//! it does not start.

use super::SyscallPolicy;
use super::filter::Trap;
use super::sys::{Notification, Notifier, Response};
use crate::determinism::Mediation;
use std::sync::{Arc, Mutex};

/// Whether this is an architecture whose vDSO is known here.
pub const MEDIATES: bool = false;

pub(super) struct Mediator;

impl Mediator {
    pub(super) fn new(
        _: &str,
        _: Mediation,
        _: Option<u32>,
        _: Arc<Mutex<Option<String>>>,
        _: Arc<dyn SyscallPolicy>,
    ) -> Arc<Self> {
        Arc::new(Mediator)
    }

    pub(super) fn answer(&self, _: &Notifier, _: &Notification) -> Option<Response> {
        None
    }
}

pub(super) fn traps(_: &Mediation) -> Vec<Trap> {
    Vec::new()
}
