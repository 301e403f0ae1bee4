//! The recorded environment: the services under test run, every other interface is served
//! from the tape by its protocol's own server side.

use crate::tape::Tape;
use faultbox_bundle_format::{Phase, Syscall};
use faultbox_engine::environment::Environment;
use faultbox_engine::link::{BoxFuture, Link, Stream};
use faultbox_engine::mock::MockCell;
use faultbox_engine::protocol::{Protocol, ProtocolError};
use faultbox_engine::runner::{CellContext, SetupError};
use faultbox_engine::topology::ServiceKind;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub struct RecordedEnvironment {
    tape: Arc<Tape>,
    suts: BTreeSet<String>,
}

impl RecordedEnvironment {
    /// An environment over a tape for the services under test.
    pub fn new(tape: Arc<Tape>, suts: BTreeSet<String>) -> Arc<Self> {
        Arc::new(RecordedEnvironment { tape, suts })
    }
}

impl Environment for RecordedEnvironment {
    fn runs(&self, service: &str) -> bool {
        self.suts.contains(service)
    }

    fn prepare<'a>(&'a self, cell: &'a Arc<CellContext>) -> BoxFuture<'a, Result<(), SetupError>> {
        // Seeds are not run again: what they led to stands in the recorded answers. Issuers
        // make their keys now, as they did in the recording, and not when a scenario signs.
        let (plan, key) = (cell.plan.clone(), cell.run_key);
        Box::pin(async move {
            let keys = tokio::task::spawn_blocking(move || {
                for service in &plan.topology.services {
                    if let ServiceKind::Mock(mock) = &service.kind {
                        mock.responder(&MockCell::new(&key, &service.name, plan.program.clone()));
                    }
                }
            });
            keys.await
                .map_err(|error| SetupError::Start { service: "a mock".to_owned(), why: error.to_string() })
        })
    }

    fn carry(
        &self,
        cell: &Arc<CellContext>,
        protocol: &'static dyn Protocol,
        client: Stream,
        link: Arc<Link>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>> {
        if cell.journal.phase() == Phase::Scenario && self.tape.is_down(&link.source, &link.interface) {
            return Box::pin(std::future::ready(Err(ProtocolError::Cut)));
        }
        let connected = self.tape.connected(&link.interface);
        let responder = connected.responder(cell.journal.clone());
        Box::pin(async move {
            tokio::select! {
                biased;
                served = protocol.serve(client, link, responder) => served,
                () = connected.cut() => Err(ProtocolError::Cut),
            }
        })
    }

    fn syscall_pause(&self, call: &Syscall, pause: Duration) -> Duration {
        self.tape.syscall_pause(call, pause)
    }

    fn step_ends(&self) -> Duration {
        self.tape.step_ends()
    }

    /// None: what a service puts in order at its end has nowhere to go, and is not compared.
    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    fn settle<'a>(&'a self, _cell: &'a Arc<CellContext>) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}
