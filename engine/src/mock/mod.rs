//! Mocks: servers inside Faultbox whose answers the spec declares. They stand behind proxies
//! like any other service.

pub mod grpc;
pub mod jwt;

use crate::link::Responder;
use crate::plan::Program;
use crate::prng::Key;
use crate::step::{StepCall, StepResponse};
use faultbox_bundle_format::Value;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A declared mock. Made by the spec, instantiated once per cell.
pub trait Mock: Send + Sync + std::fmt::Debug {
    /// What it is, for people and the journal: `jwt`, `grpc`.
    fn kind(&self) -> &'static str;

    /// Whoever answers on its interface in a cell.
    fn responder(&self, cell: &MockCell) -> Arc<dyn Responder>;

    /// Encoded `FileDescriptorSet` of its interface, where it has one.
    fn descriptors(&self) -> Option<Arc<Vec<u8>>> {
        None
    }

    /// Signs a token (issuers only).
    ///
    /// # Errors
    /// When this mock signs nothing or the claims cannot be signed.
    fn sign(&self, _cell: &MockCell, _request: &SignRequest) -> Result<String, MockError> {
        Err(MockError(format!("a {} mock signs no tokens", self.kind())))
    }

    /// Makes another key (issuers only) and gives its id; `keep` says whether those before it
    /// are still published.
    ///
    /// # Errors
    /// When this mock has no keys, or none can be made.
    fn rotate(&self, _cell: &MockCell, _keep: bool) -> Result<String, MockError> {
        Err(MockError(format!("a {} mock has no keys", self.kind())))
    }

    /// The key set that every cell of a run with this key begins with, as JSON text (issuers
    /// only).
    fn jwks(&self, _key: Key) -> Option<String> {
        None
    }
}

/// The verb of the step that rotates an issuer's key.
pub const ROTATE: &str = "rotate";

/// Performs a [`ROTATE`] step.
pub fn rotate(mock: &dyn Mock, cell: &MockCell, call: &StepCall) -> StepResponse {
    let keep = call.arguments.iter().any(|(name, value)| name == "keep" && *value == Value::Bool(true));
    match mock.rotate(cell, keep) {
        Ok(id) => StepResponse { ok: true, data: Value::Text(id), ..StepResponse::default() },
        Err(error) => StepResponse::no_answer(error.0),
    }
}

/// What a mock has of its cell.
#[derive(Clone)]
pub struct MockCell {
    /// The run's key below the mock's name.
    pub key: Key,
    /// Which keys an issuer has made.
    pub rotation: Arc<Mutex<Rotation>>,
    /// Runs functions of the spec.
    pub program: Arc<dyn Program>,
}

impl MockCell {
    /// What a mock of this name has at the beginning of a cell.
    pub fn new(run_key: &Key, mock: &str, program: Arc<dyn Program>) -> Self {
        MockCell { key: run_key.below(mock), rotation: Arc::default(), program }
    }

    /// The keys as they are now.
    pub fn rotation(&self) -> MutexGuard<'_, Rotation> {
        self.rotation.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// An issuer signs with its newest key and publishes `oldest..=newest`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    /// How often the key was changed.
    pub newest: u32,
    /// The first key that is still published.
    pub oldest: u32,
}

/// What a scenario wants signed.
#[derive(Debug, Clone, PartialEq)]
pub struct SignRequest {
    /// Claims as the spec gave them (a map).
    pub claims: Value,
    /// Extra header fields (a map, or null).
    pub headers: Value,
    /// Lifetime from now; `None` gives the fixed `iat` and `exp` of language.md.
    pub expires_in: Option<Duration>,
    /// Wall clock, seconds since the Unix epoch, for `expires_in`.
    pub now_unix_s: u64,
}

/// Why a mock could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MockError(pub String);
