//! In the place of the supervisor where that is not Linux: nothing is launched.
//!
//! Contract: what would run a service fails with one line that says so. There is no [`Running`], which the type says.

use super::{Account, Adopt, Exit, Feature, HostFacts, Lack, Launch, LaunchError, Output, SyscallPolicy};
use crate::link::{BoxFuture, Dial};
use crate::virtual_time::Elsewhere;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Whether services can be launched on this system at all.
///
/// # Errors
/// Why not.
pub fn launches() -> Result<(), &'static str> {
    Err(WHY)
}

const WHY: &str = "services run on Linux only; a bundle can be read and judged here (replay --depth judge)";

/// No clock is ours here.
pub const MEDIATES: bool = false;

/// There is no shim for this system.
pub const SHIM: &[u8] = b"";

/// A connection to a shim, of which there is none.
#[derive(Debug)]
pub struct Control(Infallible);

/// A running service, of which there is none.
#[derive(Debug)]
pub struct Running {
    /// Its process id on the host.
    pub pid: u32,
    /// The listeners inside its network.
    pub listeners: Vec<TcpListener>,
    never: Infallible,
}

/// Fails: nothing is launched here.
///
/// # Errors
/// Always.
pub async fn launch(launch: Launch, _: Arc<dyn SyscallPolicy>) -> Result<Running, LaunchError> {
    Err(LaunchError::Launcher { service: launch.service, message: WHY.to_owned() })
}

/// Never called: nobody has a [`Control`].
///
/// # Errors
/// None.
pub async fn adopt(
    _: Adopt,
    shim: Control,
    _: Arc<dyn SyscallPolicy>,
    _: mpsc::UnboundedReceiver<Output>,
    _: BoxFuture<'static, Exit>,
) -> Result<Running, LaunchError> {
    match shim.0 {}
}

/// A host that has none of what services need.
pub fn probe_host(_: &Path) -> HostFacts {
    let lack = Lack { why: WHY.to_owned(), enable: "use a machine with Linux".to_owned() };
    let features = Feature::ALL.into_iter().map(|feature| (feature, Err(lack.clone()))).collect();
    let mut facts = HostFacts::new(Account::default(), features);
    facts.kernel = std::env::consts::OS.to_owned();
    facts
}

/// Fails.
pub fn launcher_main() -> ExitCode {
    eprintln!("launcher: {WHY}");
    ExitCode::FAILURE
}

/// Whether a process can be looked into: none.
pub fn may_look_into(_: u32) -> bool {
    false
}

/// How many columns a terminal has: not known.
pub fn columns<T>(_: &T) -> Option<u16> {
    None
}

/// Does nothing.
pub fn step_back() {}

/// Tells of the threads of this process: nothing is known of them.
pub fn this_process() -> Elsewhere {
    Box::new(|_| None)
}

impl Running {
    /// Opens connections to a port of the service.
    pub fn dial(&self, _: u16) -> Arc<dyn Dial> {
        match self.never {}
    }

    /// Where a declared port is bound.
    pub fn bound(&self, _: u16) -> Option<SocketAddr> {
        match self.never {}
    }

    /// The service's output.
    pub fn output(&mut self) -> Option<mpsc::UnboundedReceiver<Output>> {
        match self.never {}
    }

    /// Waits until it ends.
    pub async fn exited(&self) -> Exit {
        match self.never {}
    }

    /// Waits so long until it ends.
    pub async fn exited_within(&self, _: Duration) -> Exit {
        match self.never {}
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        match self.never {}
    }

    /// What went wrong with the supervision itself.
    pub fn trouble(&self) -> Option<String> {
        match self.never {}
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        match self.never {}
    }

    /// Nobody is held up by a fault any more.
    pub(crate) fn calm(&self) {
        match self.never {}
    }

    /// Leaves a container's service to whoever connects next.
    ///
    /// # Errors
    /// None.
    pub async fn leave(self, _: Option<Control>) -> io::Result<()> {
        match self.never {}
    }

    /// Sends a signal.
    pub fn signal(&self, _: i32) {
        match self.never {}
    }

    /// Ends it.
    pub async fn stop(&self, _: Duration) -> Exit {
        match self.never {}
    }
}
