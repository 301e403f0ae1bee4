//! What a service's `seed` does, in words: two seeds that do the same have equal words.
//!
//! Contract: nothing is performed. A seed that looks at its answers may take another way than it
//! would; where it fails for that, its words are those of the whole spec tree, so that any change
//! counts as another seed.

use crate::mock::{MockError, SignRequest};
use crate::plan::{Driver, Plan};
use crate::step::{StepCall, StepResponse};
use faultbox_bundle_format::Entry;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Notes steps and says that each went well.
#[derive(Default)]
struct Listener(Mutex<Vec<String>>);

impl Listener {
    fn note(&self, text: String) {
        self.0.lock().unwrap_or_else(|p| p.into_inner()).push(text);
    }
}

impl Driver for Listener {
    fn step(&self, call: StepCall) -> StepResponse {
        self.note(format!("{}.{} {} {:?}", call.service, call.interface, call.verb, call.arguments));
        StepResponse { ok: true, ..StepResponse::default() }
    }

    fn sign(&self, mock: &str, request: SignRequest) -> Result<String, MockError> {
        self.note(format!("{mock} {request:?}"));
        Ok(String::new())
    }

    fn assertion(&self, _held: bool, _message: &str, _location: &str) {}

    fn now_unix_s(&self) -> u64 {
        0
    }

    fn print(&self, _text: &str) {}

    fn entries(&self) -> Vec<Entry> {
        Vec::new()
    }

    fn recover(&self, _within: Duration, _attempt: &mut dyn FnMut() -> bool) -> bool {
        false
    }
}

/// The words of a service's seed; blocks as a seed does.
pub(super) fn of(plan: &Plan, service: &str) -> String {
    let listener = Arc::new(Listener::default());
    let ended = plan.program.seed(service, listener.clone());
    let mut words = listener.0.lock().unwrap_or_else(|p| p.into_inner()).join("\n");
    if let Err(why) = ended {
        words.push_str(&why);
        for file in &plan.files {
            words.push_str(blake3::hash(&file.content).to_hex().as_str());
        }
    }
    words
}
