//! `Environment`: where a cell's interfaces lead. Live, or recorded (the replayer).
//!
//! Contract: the runner owns the order of a cell (design.md section 4) and asks the
//! environment for each part; it does not know which implementer it has.

use crate::link::{BoxFuture, Link, Stream};
use crate::protocol::{Protocol, ProtocolError};
use std::sync::Arc;

/// Where the connections to one interface lead.
pub trait Environment: Send + Sync {
    /// Carries one connection of `link.source` to `link.interface`.
    fn carry(
        &self,
        protocol: &'static dyn Protocol,
        client: Stream,
        link: Arc<Link>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>>;

    /// Whether this environment starts the service itself (else it stands for it).
    fn runs(&self, service: &str) -> bool;
}
