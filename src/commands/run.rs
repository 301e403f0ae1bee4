//! What `test` and `replay` share: loading with overrides, the host, a run's context.

use crate::terminal::notice;
use crate::{exit_code, host};
use faultbox_bundle_format::redact::Redactor;
use faultbox_engine::addresses::AddressBook;
use faultbox_engine::clock::RunClock;
use faultbox_engine::containers::{Engine, ImageFacts};
use faultbox_engine::event_sink::EventSink;
use faultbox_engine::oracle::Oracle;
use faultbox_engine::plan::Plan;
use faultbox_engine::runner::{Digests, RunContext};
use faultbox_engine::supervisor::{HostFacts, Isolation, probe_host};
use std::path::PathBuf;
use std::sync::Arc;

/// `SERVICE:KEY=VALUE` flags.
///
/// # Errors
/// The flag that is not of that form, in words.
pub fn env_overrides(flags: &[String]) -> Result<Vec<(String, String, String)>, String> {
    let parse = |flag: &String| {
        let (service, rest) = flag.split_once(':')?;
        let (key, value) = rest.split_once('=')?;
        Some((service.to_owned(), key.to_owned(), value.to_owned()))
    };
    flags
        .iter()
        .map(|flag| parse(flag).ok_or_else(|| format!("--env {flag}: want SERVICE:KEY=VALUE")))
        .collect()
}

/// `SERVICE=PATH` flags.
///
/// # Errors
/// The flag that is not of that form, in words.
pub fn path_overrides(name: &str, flags: &[String]) -> Result<Vec<(String, PathBuf)>, String> {
    let parse = |flag: &String| {
        let (service, path) = flag.split_once('=')?;
        Some((service.to_owned(), std::path::absolute(path).ok()?))
    };
    flags
        .iter()
        .map(|flag| parse(flag).ok_or_else(|| format!("--{name} {flag}: want SERVICE=PATH")))
        .collect()
}

/// The host as a run finds it.
pub struct Host {
    /// This executable.
    pub launcher: PathBuf,
    /// What the kernel permits.
    pub facts: HostFacts,
    /// What follows for services.
    pub isolation: Isolation,
    /// The container engine, where one is used.
    pub engine: Option<Arc<Engine>>,
    /// The images that are used.
    pub images: Vec<ImageFacts>,
    /// Digests of executables: a replay has a context for each cell.
    digests: Arc<Digests>,
}

impl Host {
    /// Looks at the host and names what is missing before the first cell.
    ///
    /// # Errors
    /// The exit code, where nothing can run.
    pub fn probe() -> Result<Self, u8> {
        let launcher = std::env::current_exe().map_err(|error| {
            notice(&format!("faultbox: its own executable cannot be found: {error}"));
            exit_code::HOST
        })?;
        let facts = probe_host(&launcher);
        if let Err(why) = &facts.namespaces {
            notice(&format!(
                "notice: services share this host's loopback (no network namespaces: {why}); \
                 to enable: run as root or set kernel.unprivileged_userns_clone=1 / \
                 kernel.apparmor_restrict_unprivileged_userns=0"
            ));
        }
        let isolation = if facts.namespaces.is_ok() { Isolation::Namespace } else { Isolation::Shared };
        Ok(Host { launcher, facts, isolation, engine: None, images: Vec::new(), digests: Arc::default() })
    }

    /// Addresses that fit the isolation.
    pub fn addresses(&self) -> AddressBook {
        match self.isolation {
            Isolation::Namespace => AddressBook::isolated(),
            Isolation::Shared => AddressBook::shared(),
        }
    }

    /// A context for a run.
    pub fn context(
        &self,
        seed: u64,
        redactor: Redactor,
        sink: Arc<dyn EventSink>,
        oracle: Arc<dyn Oracle>,
        dir: &host::RunDir,
        embedded: bool,
        addresses: Arc<AddressBook>,
    ) -> Arc<RunContext> {
        Arc::new(RunContext {
            clock: RunClock::start(),
            seed,
            sequence: Arc::default(),
            redactor,
            sink,
            oracle,
            isolation: self.isolation,
            launcher: self.launcher.clone(),
            dir: dir.path().to_owned(),
            embedded,
            engine: self.engine.clone(),
            addresses,
            digests: self.digests.clone(),
            interrupted: host::interruption(),
        })
    }
}

/// The secrets that a spec names: `secret(...)` and credentials in environments.
pub fn secrets(plan: &Plan) -> Vec<(String, String)> {
    let mut secrets = plan.secrets.clone();
    for service in &plan.topology.services {
        let env = service.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        secrets.extend(Redactor::secrets_of_env(env));
    }
    secrets
}

/// The runtime that everything runs on.
///
/// # Errors
/// The exit code, where the host gives no threads.
pub fn runtime() -> Result<tokio::runtime::Runtime, u8> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| {
        notice(&format!("faultbox: no runtime: {error}"));
        exit_code::HOST
    })
}
