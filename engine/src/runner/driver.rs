//! The test driver: what a scenario, a seed or a reset can do to the world of its cell.

use super::{CellContext, TEST};
use crate::mock::{MockError, SignRequest};
use crate::plan::Driver;
use crate::step::{StepCall, StepResponse};
use crate::topology::ServiceKind;
use faultbox_bundle_format::{Assertion, Body, Payload, Signed, StepEnded, StepStarted, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// What is kept back of a cell's time for the end of the cell.
const KEPT_BACK: Duration = Duration::from_secs(1);

/// The driver of one cell. Blocks; never call it on a thread of the runtime.
pub struct CellDriver {
    cell: Arc<CellContext>,
    handle: Handle,
    deadline: Instant,
    steps: AtomicU32,
}

impl CellDriver {
    /// A driver whose steps end before `deadline`.
    pub fn new(cell: Arc<CellContext>, deadline: Instant) -> Self {
        CellDriver { cell, handle: Handle::current(), deadline, steps: AtomicU32::new(0) }
    }

    async fn perform(&self, call: &StepCall) -> StepResponse {
        let interface = format!("{}.{}", call.service, call.interface);
        let way = self.cell.switchboard.dial_as_test(&self.cell, &interface);
        let (Some((dial, link)), Some(protocol)) = (way, self.cell.protocol(&interface)) else {
            return StepResponse::no_answer(format!("no interface {interface}"));
        };
        let began = Instant::now();
        let left = self.deadline.saturating_duration_since(began).saturating_sub(KEPT_BACK);
        let timeout = call.timeout.unwrap_or(left).min(left);
        let mut response = match tokio::time::timeout(timeout, protocol.step(dial, link, call)).await {
            Ok(response) => response,
            Err(_) => StepResponse {
                timed_out: true,
                ..StepResponse::no_answer(format!("no answer within {}ms", timeout.as_millis()))
            },
        };
        response.duration = began.elapsed();
        response
    }
}

impl Driver for CellDriver {
    fn step(&self, call: StepCall) -> StepResponse {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        let arguments = Value::Map(call.arguments.clone());
        let started = self.cell.journal.note(
            TEST,
            "steps",
            None,
            Body::StepStarted(StepStarted {
                step,
                interface: format!("{}.{}", call.service, call.interface),
                verb: call.verb.clone(),
                arguments: Payload::of(&arguments),
                location: call.location.clone(),
            }),
        );
        let response = self.handle.block_on(self.perform(&call));
        let ended = StepEnded { step, response: Payload::of(&response.to_value()) };
        self.cell.journal.note(TEST, "steps", Some(started), Body::StepEnded(ended));
        response
    }

    fn sign(&self, mock: &str, request: SignRequest) -> Result<String, MockError> {
        let claims = Payload::of(&request.claims);
        let token = sign(&self.cell.plan, &self.cell.run_key, mock, &request)?;
        let signed = Signed { service: mock.to_owned(), claims };
        self.cell.journal.note(TEST, "steps", None, Body::Signed(signed));
        Ok(token)
    }

    fn assertion(&self, held: bool, message: &str, location: &str) {
        let assertion = Assertion { held, message: message.to_owned(), location: location.to_owned() };
        self.cell.journal.note(TEST, "steps", None, Body::Assertion(assertion));
    }

    fn now_unix_s(&self) -> u64 {
        let clock = self.cell.journal.clock();
        (clock.unix_ns() + clock.now_ns()) / 1_000_000_000
    }

    fn print(&self, text: &str) {
        let output = faultbox_bundle_format::Output {
            service: TEST.to_owned(),
            stderr: false,
            bytes: format!("{text}\n").into_bytes(),
        };
        self.cell.journal.note(TEST, "print", None, Body::Output(output));
    }
}

/// Signs with a mock's key: the run's key below the mock's name.
///
/// # Errors
/// When there is no such mock, or it cannot sign the claims.
pub fn sign(
    plan: &crate::plan::Plan,
    run_key: &crate::prng::Key,
    mock: &str,
    request: &SignRequest,
) -> Result<String, MockError> {
    match plan.topology.service(mock).map(|service| &service.kind) {
        Some(ServiceKind::Mock(declared)) => declared.sign(run_key.below(mock), request),
        _ => Err(MockError(format!("{mock} is not a mock"))),
    }
}
