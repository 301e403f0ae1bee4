//! A launched service: its output, its end, the way in.

use super::{Launch, SyscallPolicy};
use crate::link::{BoxFuture, Dial, Stream};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// The helper was lost; nothing is known.
    Unknown,
}

/// Where a chunk of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A chunk of output, as it was read; cut anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where it came from.
    pub stream: OutputStream,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A family that cannot be trapped.
    #[error("no syscall family '{0}'")]
    UnknownFamily(String),
    /// The launcher did not start, or the channel to it broke.
    #[error("the launcher of '{service}' failed: {message}")]
    Launcher {
        /// The service.
        service: String,
        /// What happened.
        message: String,
    },
    /// A step on the way to the service's own code failed.
    #[error("service '{service}' could not be started: {step}: {source}")]
    Step {
        /// The service.
        service: String,
        /// What was tried (`execute /srv/api`, `enter a network namespace`).
        step: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running service. Dropping it kills the service and all that it started.
pub struct Running {
    /// Its process id on the host.
    pub pid: u32,
    /// The listeners inside its network, in the order of [`Launch::listen`]; non-blocking.
    pub listeners: Vec<TcpListener>,
    output: Option<mpsc::UnboundedReceiver<Output>>,
    exit: watch::Receiver<Option<Exit>>,
}

/// Launches a service and returns once its own code runs.
///
/// # Errors
/// When it cannot be started; nothing is left behind then.
pub async fn launch(launch: Launch, policy: Arc<dyn SyscallPolicy>) -> Result<Running, LaunchError> {
    let _ = policy;
    Err(LaunchError::Launcher { service: launch.service, message: "not built in yet".to_owned() })
}

impl Running {
    /// Opens connections to the port that the service declared, as seen inside its network.
    pub fn dial(&self, port: u16) -> Arc<dyn Dial> {
        Arc::new(PortDial { port })
    }

    /// Where a declared port is really bound on the host ([`super::Isolation::Shared`] only).
    pub fn bound(&self, port: u16) -> Option<SocketAddr> {
        let _ = port;
        None
    }

    /// The service's output until it and its children have closed it; nothing is lost, and each
    /// stream is in order. `None` when it was taken before.
    pub fn output(&mut self) -> Option<mpsc::UnboundedReceiver<Output>> {
        self.output.take()
    }

    /// Waits until the service's first process ends (its children may live on).
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown)
    }

    /// Asks all processes of the service to end (SIGTERM), kills after `grace` what is left,
    /// and returns when nothing is.
    pub async fn stop(&self, grace: Duration) -> Exit {
        let _ = grace;
        self.exited().await
    }
}

struct PortDial {
    port: u16,
}

impl Dial for PortDial {
    fn dial(&self) -> BoxFuture<'_, std::io::Result<Stream>> {
        Box::pin(async move {
            Err(std::io::Error::new(std::io::ErrorKind::NotConnected, format!("port {}", self.port)))
        })
    }
}
