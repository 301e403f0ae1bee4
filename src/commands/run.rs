//! What `test` and `replay` share: loading with overrides, the host, a run's context.

use crate::terminal::notice;
use crate::{exit_code, host};
use faultbox_bundle_format::redact::Redactor;
use faultbox_engine::addresses::AddressBook;
use faultbox_engine::clock::RunClock;
use faultbox_engine::containers::{Engine, ImageFacts, Keeping};
use faultbox_engine::diagnosis::{self, Missing, cannot_hold};
use faultbox_engine::event_sink::EventSink;
use faultbox_engine::oracle::Oracle;
use faultbox_engine::plan::Plan;
use faultbox_engine::runner::hold::Hold;
use faultbox_engine::runner::{Digests, RunContext, policy};
use faultbox_engine::supervisor::{
    Feature, HostFacts, Isolation, launches, probe_host, this_process, without,
};
use faultbox_engine::topology::{Service, ServiceKind};
use faultbox_engine::virtual_time::VirtualTime;
use std::collections::BTreeMap;
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

/// `SERVICE=VALUE` flags.
///
/// # Errors
/// The flag that is not of that form, in words.
pub fn overrides(name: &str, flags: &[String]) -> Result<Vec<(String, String)>, String> {
    let parse = |flag: &String| {
        let (service, value) = flag.split_once('=').filter(|(_, value)| !value.is_empty())?;
        Some((service.to_owned(), value.to_owned()))
    };
    flags
        .iter()
        .map(|flag| parse(flag).ok_or_else(|| format!("--{name} {flag}: want SERVICE=PATH")))
        .collect()
}

/// `SERVICE=PATH` flags.
///
/// # Errors
/// The flag that is not of that form, in words.
pub fn path_overrides(name: &str, flags: &[String]) -> Result<Vec<(String, PathBuf)>, String> {
    let path = |(service, path): (String, String)| match std::path::absolute(&path) {
        Ok(absolute) => Ok((service, absolute)),
        Err(error) => Err(format!("--{name} {service}={path}: {error}")),
    };
    overrides(name, flags)?.into_iter().map(path).collect()
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
    /// The images that are used, by service.
    pub images: BTreeMap<String, ImageFacts>,
    /// How containers are kept after the run, where they may be.
    pub keeping: Option<Keeping>,
    /// Who makes cells wait before their steps, if anybody does.
    pub hold: Option<Arc<dyn Hold>>,
    /// Digests of executables: a replay has a context for each cell.
    digests: Arc<Digests>,
}

impl Host {
    /// Looks at the host and names what is missing before the first cell.
    ///
    /// # Errors
    /// The exit code, where nothing can run.
    pub fn probe() -> Result<Self, u8> {
        let (launcher, facts) = look()?;
        let isolation = match facts.has(Feature::NetworkNamespace) {
            Ok(()) => Isolation::Namespace,
            Err(_) => Isolation::Shared,
        };
        let (images, digests) = (BTreeMap::new(), Arc::default());
        Ok(Host { launcher, facts, isolation, engine: None, images, keeping: None, hold: None, digests })
    }

    /// Says in which mode the services that `runs` chooses run (images as stand-ins where `embedded`),
    /// and names what the kernel lacks for them, before the first cell.
    ///
    /// # Errors
    /// The exit code, where they cannot run.
    pub fn check_kernel(
        &self,
        plan: &Plan,
        embedded: bool,
        runs: impl Fn(&Service) -> bool,
    ) -> Result<(), u8> {
        let services: Vec<&Service> = plan.topology.services.iter().filter(|s| runs(s)).collect();
        let faulted: Vec<&str> =
            services.iter().filter(|s| traps(plan, s)).map(|s| s.name.as_str()).collect();
        let local =
            services.iter().any(|s| !s.is_contained() || (embedded && !plan.topology.is_sut(&s.name)));
        let mut lacking = Vec::new();
        if local {
            let line =
                |missing: &Missing| format!("faultbox: no local service can be started: {}", words(missing));
            lacking.extend(diagnosis::cannot_start(&self.facts).iter().map(line));
        }
        if !faulted.is_empty() {
            let of = faulted.join(", ");
            let line = |missing: &Missing| {
                format!(
                    "faultbox: the spec has syscall faults (trapped in {of}), which need {}",
                    words(missing)
                )
            };
            lacking.extend(diagnosis::cannot_trap(&self.facts).iter().map(line));
        }
        if !lacking.is_empty() {
            lacking.iter().for_each(|line| notice(line));
            return Err(exit_code::HOST);
        }
        if let (true, Err(lack)) = (local, self.facts.has(Feature::NetworkNamespace)) {
            notice(&format!("notice: services share this host's loopback (no network namespaces: {lack})"));
        } else if let (true, Err(lack)) = (local, self.facts.has(Feature::MountNamespace)) {
            notice(&format!("notice: names of services do not resolve in their networks ({lack})"));
        }
        if !faulted.is_empty() {
            for missing in diagnosis::traps_slowly(&self.facts) {
                notice(&format!("notice: syscall faults work without {}", words(&missing)));
            }
        }
        Ok(())
    }

    /// Addresses that fit the isolation.
    pub fn addresses(&self) -> AddressBook {
        match self.isolation {
            Isolation::Namespace => AddressBook::isolated(),
            Isolation::Shared => AddressBook::shared(),
        }
    }

    /// A time that is skipped, where these services let it be.
    pub fn virtual_time<'a>(&self, services: impl Iterator<Item = &'a Service>) -> Arc<VirtualTime> {
        let time = VirtualTime::new(this_process());
        let lacking = cannot_hold(&self.facts).into_iter().next();
        for service in services {
            match &lacking {
                _ if service.is_contained() => time.give_up(&service.name, "it runs in a container"),
                _ if matches!(service.kind, ServiceKind::Remote(_)) => {
                    time.give_up(&service.name, "it runs elsewhere");
                }
                Some(missing) => time.give_up(&service.name, &format!("that needs {}", words(missing))),
                None => {}
            }
        }
        time
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
    ) -> RunContext {
        RunContext {
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
            keeping: self.keeping.clone(),
            images: self.images.clone(),
            addresses,
            digests: self.digests.clone(),
            interrupted: host::interruption(),
            hold: self.hold.clone(),
        }
    }
}

/// This executable, and what the host permits.
///
/// # Errors
/// The exit code, where no service runs on this system, the executable is not to be found, or a simulation is not understood.
pub fn look() -> Result<(PathBuf, HostFacts), u8> {
    if let Err(why) = without() {
        notice(&format!("faultbox: {why}"));
        return Err(exit_code::USAGE);
    }
    launches().map_err(|why| {
        notice(&format!("faultbox: {why}"));
        exit_code::HOST
    })?;
    let launcher = std::env::current_exe().map_err(|error| {
        notice(&format!("faultbox: its own executable cannot be found: {error}"));
        exit_code::HOST
    })?;
    let facts = probe_host(&launcher);
    Ok((launcher, facts))
}

/// Whether a service's syscalls are trapped because some cell could fault them.
pub fn traps(plan: &Plan, service: &Service) -> bool {
    let assumptions: Vec<_> = plan.cells.iter().filter_map(|cell| cell.assumption.as_deref()).collect();
    !policy::families(&plan.topology, &assumptions, service).is_empty()
}

/// `WHAT: WHY; so SO; to enable: COMMAND`.
pub fn words(missing: &Missing) -> String {
    let Missing { what, so, lack } = missing;
    format!("{what}: {}, so {so}; to enable: {}", lack.why, lack.enable)
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
