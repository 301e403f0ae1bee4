//! Stand-ins: processes of this same binary that speak a real server's wire protocol.
//!
//! Contract: each kind is one file here that opens a [`StandIn`] over a data directory; the
//! accept loop and the control socket are shared ([`process`], a hidden subcommand). They are
//! processes so that syscall faults bite.

pub mod kafka;
pub mod mysql;
pub mod process;
pub mod redis;

use crate::link::{BoxFuture, Stream};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// What a stand-in is started with.
#[derive(Debug, Clone)]
pub struct StandInOptions {
    /// Where it keeps its data; exists and is empty at a cold start.
    pub data: PathBuf,
    /// Where it listens, in a network of its own where there is one.
    pub listen: SocketAddr,
    /// The service's environment (`MYSQL_ROOT_PASSWORD`, ...).
    pub env: BTreeMap<String, String>,
}

/// A server of ours.
pub trait StandIn: Send + Sync {
    /// Serves one connection to its end.
    fn serve(&self, stream: Stream, connection: u64) -> BoxFuture<'static, ()>;

    /// Remembers the present state as the one that `restore` goes back to.
    ///
    /// # Errors
    /// When the state cannot be written.
    fn snapshot(&self) -> std::io::Result<()>;

    /// Goes back to the remembered state (empty if there is none): tables and counters, keys,
    /// topics and groups. Called while no client is connected.
    ///
    /// # Errors
    /// When the state cannot be read back.
    fn restore(&self) -> std::io::Result<()>;
}

/// Opens a stand-in of a kind (`mysql`, `redis`, `kafka`).
pub type Open = fn(StandInOptions) -> std::io::Result<Arc<dyn StandIn>>;
