//! The test driver: what a scenario, a seed or a reset can do to the world of its cell.

use super::{CellContext, PROVES_NOTHING, TEST, hold};
use crate::determinism;
use crate::mock::{self, Mock, MockError, ROTATE, SignRequest};
use crate::plan::{Driver, Plan};
use crate::step::{StepCall, StepResponse};
use crate::topology::ServiceKind;
use faultbox_bundle_format::{
    Assertion, Body, Entry, Named, Payload, Phase, Signed, StepEnded, StepStarted, Value,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::runtime::Handle;

/// What is kept back of a cell's time for the end of the cell.
const KEPT_BACK: Duration = Duration::from_secs(1);

/// The pause between two attempts to see whether a service has recovered.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

/// The driver of one cell. Blocks; never call it on a thread of the runtime.
pub struct CellDriver {
    cell: Arc<CellContext>,
    handle: Handle,
    deadline: Mutex<Duration>,
    steps: AtomicU32,
}

impl CellDriver {
    /// A driver whose steps end before `deadline`, by the time of the run.
    pub fn new(cell: Arc<CellContext>, deadline: Duration) -> Self {
        CellDriver {
            cell,
            handle: Handle::current(),
            deadline: Mutex::new(deadline),
            steps: AtomicU32::new(0),
        }
    }

    fn deadline(&self) -> MutexGuard<'_, Duration> {
        self.deadline.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn perform(&self, call: &StepCall) -> StepResponse {
        if call.verb == ROTATE
            && let Some(mock) = mock_of(&self.cell.plan, &call.service)
        {
            return self.rotate(mock, call).await;
        }
        let interface = format!("{}.{}", call.service, call.interface);
        let way = self.cell.switchboard.dial_as_test(&self.cell, &interface);
        let (Some((dial, link)), Some(protocol)) = (way, self.cell.protocol(&interface)) else {
            return StepResponse::no_answer(format!("no interface {interface}"));
        };
        let time = self.cell.time();
        let began = time.now();
        let left = self.deadline().saturating_sub(began).saturating_sub(KEPT_BACK);
        let timeout = call.timeout.unwrap_or(left).min(left);
        let mut response = match time.timeout(timeout, protocol.step(dial, link, call)).await {
            Ok(response) => response,
            Err(_) => StepResponse {
                timed_out: true,
                ..StepResponse::no_answer(format!("no answer within {}ms", timeout.as_millis()))
            },
        };
        response.duration =
            time.now().saturating_sub(began) + self.cell.switchboard.environment().step_ends();
        response
    }

    async fn rotate(&self, mock: Arc<dyn Mock>, call: &StepCall) -> StepResponse {
        let Some(cell) = self.cell.mocks.get(&call.service).cloned() else {
            return StepResponse::no_answer(format!("{} is not a mock", call.service));
        };
        let call = call.clone();
        // Making an RSA key takes long enough to hold up a worker thread.
        let made = tokio::task::spawn_blocking(move || mock::rotate(&*mock, &cell, &call)).await;
        made.unwrap_or_else(|panic| StepResponse::no_answer(panic.to_string()))
    }
}

impl Driver for CellDriver {
    fn step(&self, call: StepCall) -> StepResponse {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        if let Some(hold) = &self.cell.run.hold {
            hold.before_step(step, &call, &hold::services(&self.cell));
        }
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
        // What comes before a scenario (a seed) is not made in a replay.
        if self.cell.journal.phase() == Phase::Scenario {
            self.cell.wall.advance(determinism::STEP);
        }
        let response = self.handle.block_on(self.perform(&call));
        let ended = StepEnded { step, response: Payload::of(&response.to_value()) };
        self.cell.journal.note(TEST, "steps", Some(started), Body::StepEnded(ended));
        response
    }

    fn sign(&self, mock: &str, request: SignRequest) -> Result<String, MockError> {
        let claims = Payload::of(&request.claims);
        let no_mock = || MockError(format!("{mock} is not a mock"));
        let declared = mock_of(&self.cell.plan, mock).ok_or_else(no_mock)?;
        let token = declared.sign(self.cell.mocks.get(mock).ok_or_else(no_mock)?, &request)?;
        let signed = Signed { service: mock.to_owned(), claims };
        self.cell.journal.note(TEST, "steps", None, Body::Signed(signed));
        Ok(token)
    }

    fn assertion(&self, held: bool, message: &str, location: &str) {
        let assertion = Assertion { held, message: message.to_owned(), location: location.to_owned() };
        self.cell.journal.note(TEST, "steps", None, Body::Assertion(assertion));
    }

    fn proves_nothing(&self, why: &str) {
        let fact = Named { name: PROVES_NOTHING.to_owned(), value: why.to_owned() };
        self.cell.journal.note(TEST, "steps", None, Body::HostFact(fact));
    }

    fn now_unix_s(&self) -> u64 {
        self.cell.unix_ns() / 1_000_000_000
    }

    fn print(&self, text: &str) {
        let output = faultbox_bundle_format::Output {
            service: TEST.to_owned(),
            stderr: false,
            bytes: format!("{text}\n").into_bytes(),
        };
        self.cell.journal.note(TEST, "print", None, Body::Output(output));
    }

    fn entries(&self) -> Vec<Entry> {
        self.handle.block_on(self.cell.quiesce());
        self.cell.memory.entries()
    }

    fn recover(&self, within: Duration, attempt: &mut dyn FnMut() -> bool) -> bool {
        self.handle.block_on(self.cell.end_faults());
        let time = self.cell.time();
        let deadline = (time.now() + within).min(self.deadline().saturating_sub(KEPT_BACK));
        // A step that is waiting when the time is over has not recovered.
        *self.deadline() = deadline + KEPT_BACK;
        loop {
            if attempt() {
                return true;
            }
            if time.now() + BETWEEN_ATTEMPTS >= deadline {
                return false;
            }
            self.handle.block_on(time.sleep(BETWEEN_ATTEMPTS));
        }
    }
}

fn mock_of(plan: &Plan, name: &str) -> Option<Arc<dyn Mock>> {
    match plan.topology.service(name).map(|service| &service.kind) {
        Some(ServiceKind::Mock(declared)) => Some(declared.clone()),
        _ => None,
    }
}
