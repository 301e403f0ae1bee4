//! `Environment`: where a cell's interfaces lead. Live ([`crate::runner::live`]), or recorded
//! (the replayer).
//!
//! Contract: the runner owns the order of a cell (design.md section 4), starts the processes
//! that the environment says are to run, and asks it where every other connection leads; it
//! does not know which implementer it has.

use crate::link::{BoxFuture, Link, Stream};
use crate::protocol::{Protocol, ProtocolError};
use crate::runner::{CellContext, SetupError};
use faultbox_bundle_format::Syscall;
use std::sync::Arc;
use std::time::Duration;

/// Where the connections of a cell lead.
pub trait Environment: Send + Sync {
    /// Whether the runner starts this local executable (else the environment stands for it).
    fn runs(&self, service: &str) -> bool;

    /// Brings up, resets and seeds what the cell needs besides the local executables.
    fn prepare<'a>(&'a self, cell: &'a Arc<CellContext>) -> BoxFuture<'a, Result<(), SetupError>>;

    /// The cell's faults become active next: what is pending on disks may be written out first.
    fn steady<'a>(&'a self, _cell: &'a Arc<CellContext>) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Carries one connection of `link.source` to `link.interface` to its end.
    fn carry(
        &self,
        cell: &Arc<CellContext>,
        protocol: &'static dyn Protocol,
        client: Stream,
        link: Arc<Link>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>>;

    /// What went wrong with the supervision of what the environment runs: then the cell says
    /// nothing about the service under test.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Why nothing can be run any more, once that is so; until then it is waited for.
    fn lost(&self) -> BoxFuture<'_, String> {
        Box::pin(std::future::pending())
    }

    /// How much of the delay of a service's syscall is to be waited for, once it comes to it.
    fn syscall_pause(&self, _call: &Syscall, pause: Duration) -> Duration {
        pause
    }

    /// A step has ended; how much longer it would have taken if the environment had waited for all
    /// that it knows to take time.
    fn step_ends(&self) -> Duration {
        Duration::ZERO
    }

    /// How long the local executables may take to end once they are asked to; then they are killed.
    fn grace(&self) -> Duration;

    /// The scenario is over and the local executables have ended.
    fn settle<'a>(&'a self, cell: &'a Arc<CellContext>) -> BoxFuture<'a, ()>;
}
