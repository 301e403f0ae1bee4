//! Mocks: servers inside Faultbox whose answers the spec declares. They stand behind proxies
//! like any other service.

pub mod grpc;
pub mod jwt;

use crate::link::Responder;
use faultbox_bundle_format::Value;
use std::sync::Arc;
use std::time::Duration;

/// A declared mock. Made by the spec, instantiated once per cell.
pub trait Mock: Send + Sync + std::fmt::Debug {
    /// What it is, for people and the journal: `jwt`, `grpc`.
    fn kind(&self) -> &'static str;

    /// Whoever answers on its interface, in a cell with this key.
    fn responder(&self, key: crate::prng::Key) -> Arc<dyn Responder>;

    /// Encoded `FileDescriptorSet` of its interface, where it has one.
    fn descriptors(&self) -> Option<Arc<Vec<u8>>> {
        None
    }

    /// Signs a token (issuers only). The key is the run's key below the mock's name.
    ///
    /// # Errors
    /// When this mock signs nothing or the claims cannot be signed.
    fn sign(&self, _key: crate::prng::Key, _request: &SignRequest) -> Result<String, MockError> {
        Err(MockError(format!("a {} mock signs no tokens", self.kind())))
    }
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
