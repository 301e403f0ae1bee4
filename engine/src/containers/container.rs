//! One service in a container, from its creation to its removal.
//!
//! Contract: [`Container::start`] returns when the image's own program runs, under the filter
//! that the spec needs, or fails and leaves nothing behind.

use super::door::{Door, knock};
use super::engine::{Engine, ImageFacts};
use super::kept::Slot;
use super::{
    ContainerError, LABEL, LABEL_DEFINITION, LABEL_IMAGE, LABEL_OWNER, LABEL_SERVICE, LABEL_SLOT, LABEL_SPEC,
    context,
};
use crate::determinism::Mediation;
use crate::link::BoxFuture;
use crate::supervisor::{self, Adopt, Control, Exit, Output, OutputStream, Running, SIGTERM, SyscallPolicy};
use crate::topology::{Service, Topology};
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long a container may take from its start to its shim's word.
const HANDOFF: Duration = Duration::from_secs(60);

/// How long the shim of a kept container may take to hand over.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// Numbers the containers of this process: a name is never used twice.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// What to start, and how.
pub struct StartContainer<'a> {
    /// The service.
    pub service: &'a Service,
    /// All services: their names resolve inside.
    pub topology: &'a Topology,
    /// Its image.
    pub image: ImageFacts,
    /// Addresses on which listeners are made inside its network, for its upstreams.
    pub listen: Vec<SocketAddr>,
    /// Syscall families to trap.
    pub families: BTreeSet<String>,
    /// Its clock and randomness.
    pub mediation: Mediation,
    /// A folder of its own on this machine; must be reachable for the engine, and need not
    /// exist.
    pub dir: PathBuf,
    /// Where it may be kept: then `dir` is the slot's, and this is the spec that it is for.
    pub slot: Option<(&'a Slot, &'a str)>,
}

impl StartContainer<'_> {
    /// A hash of everything that makes two containers equal that are to be kept: also of what is
    /// mounted, of what `seed` does (in words), and of the shim.
    pub fn definition(&self, seed: &str) -> String {
        let mut parts = fingerprint(self);
        for volume in &self.service.volumes {
            let source = Path::new(volume.split(':').next().unwrap_or_default());
            let content = context::digest(source).map_or_else(|error| error.to_string(), |h| h.to_string());
            parts.push_str(&content);
        }
        let names: Vec<&str> = self.topology.services.iter().map(|s| s.name.as_str()).collect();
        let (name, reset) = (&self.service.name, self.service.reset);
        parts.push_str(&format!("{name} {names:?} {reset:?} {seed} {}", blake3::hash(supervisor::SHIM)));
        short_hash(&parts)
    }
}

/// A service in a container. Removed by [`Container::remove`]; when it is only dropped, its shim
/// ends its processes and the next run removes what is left.
pub struct Container {
    engine: Arc<Engine>,
    id: String,
    name: String,
    running: Running,
    /// Where its shim will be told to wait for the next run, if it may be kept and was not before.
    door: Option<Control>,
}

impl Container {
    /// Creates and starts a container.
    ///
    /// # Errors
    /// When the engine refuses, or the handoff fails; nothing is left behind then.
    pub async fn start(
        engine: &Arc<Engine>,
        start: StartContainer<'_>,
        policy: Arc<dyn SyscallPolicy>,
    ) -> Result<Container, ContainerError> {
        let service = &start.service.name;
        let door = Door::open(&start.dir)?;
        let body = definition(&start, engine.owner())?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("faultbox-{}-{number}-{service}", std::process::id());
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let created = engine.docker.create_container(Some(options), body).await;
        let id = created.map_err(ContainerError::engine(format!("create the container of {service}")))?.id;
        let kept_door = match start.slot {
            Some(_) => Some(door.again().map_err(ContainerError::io("the shim's socket"))?),
            None => None,
        };
        match run(engine, &start, &id, door, policy).await {
            Ok(running) => Ok(Container { engine: engine.clone(), id, name, running, door: kept_door }),
            Err(error) => {
                // The first error is the one that matters.
                let _ = engine.remove(&id).await;
                Err(error)
            }
        }
    }

    /// Takes over the container that waits in a slot; `None` when there is none any more.
    ///
    /// # Errors
    /// When the engine fails or the shim does not hand over; the container is removed then.
    pub async fn take_over(
        engine: &Arc<Engine>,
        start: &StartContainer<'_>,
        slot: &Slot,
        policy: Arc<dyn SyscallPolicy>,
    ) -> Result<Option<Container>, ContainerError> {
        let Some((id, name)) = engine.waiting_in(slot).await? else { return Ok(None) };
        let taken = async {
            let shim = knock(&slot.control()).map_err(ContainerError::io("the shim's socket"))?;
            let (output, end) = (attach(engine, &id).await?, told_end(engine, &id).await);
            supervise(engine, start, &id, shim, policy, output, end).await
        };
        let late = || ContainerError::Engine {
            what: format!("take over the container {name}"),
            why: format!("its shim did not answer within {}s", TAKE_OVER.as_secs()),
        };
        match tokio::time::timeout(TAKE_OVER, taken).await.unwrap_or_else(|_| Err(late())) {
            Ok(running) => Ok(Some(Container { engine: engine.clone(), id, name, running, door: None })),
            Err(error) => {
                // The first error is the one that matters.
                let _ = engine.remove(&id).await;
                Err(error)
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leaves it to the next run.
    ///
    /// # Errors
    /// When its shim is gone.
    pub async fn leave(self) -> Result<(), ContainerError> {
        self.running.leave(self.door).await.map_err(ContainerError::io("the shim's socket"))
    }

    /// The service: ways in, output, end.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// As [`Container::running`], to take its output.
    pub fn running_mut(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Runs a command inside; `Err` says how it failed.
    pub fn exec(&self, command: Vec<String>) -> BoxFuture<'static, Result<(), String>> {
        let (engine, id) = (self.engine.clone(), self.id.clone());
        Box::pin(async move { exec(&engine, &id, &command).await })
    }

    /// Asks its processes to end, kills after `grace` what is left, and removes it.
    ///
    /// # Errors
    /// When the engine cannot.
    pub async fn stop(self, grace: Duration) -> Result<Exit, ContainerError> {
        self.running.calm();
        // The kernel keeps a signal from the first process of a container unless that handles it.
        if handles_sigterm(self.running.pid) {
            self.running.signal(SIGTERM);
            // In vain: then it is killed.
            let _ = tokio::time::timeout(grace, self.running.exited()).await;
        }
        self.remove().await
    }

    /// Kills it (its state is not kept, so there is nothing to end in order) and removes it.
    ///
    /// # Errors
    /// When the engine cannot.
    pub async fn remove(self) -> Result<Exit, ContainerError> {
        // Nobody is held up by a fault any more.
        self.running.calm();
        let before = self.running.exit();
        self.engine.remove(&self.id).await?;
        Ok(match before {
            Some(exit) => exit,
            None => self.running.exited().await,
        })
    }
}

/// Whether a process has a handler for SIGTERM.
fn handles_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
    let caught = status.unwrap_or_default();
    let caught = caught.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (SIGTERM - 1)) != 0)
}

async fn exec(engine: &Engine, id: &str, command: &[String]) -> Result<(), String> {
    use bollard::exec::{CreateExecOptions, StartExecResults};
    let said = |error: bollard::errors::Error| super::words(&error);
    let options = CreateExecOptions {
        cmd: Some(command.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    };
    let created = engine.docker.create_exec(id, options).await.map_err(said)?;
    let started = engine.docker.start_exec(&created.id, None).await.map_err(said)?;
    let mut last = String::new();
    if let StartExecResults::Attached { mut output, .. } = started {
        while let Some(Ok(line)) = output.next().await {
            last = line.to_string().trim().to_owned();
        }
    }
    match engine.docker.inspect_exec(&created.id).await.map_err(said)?.exit_code {
        Some(0) => Ok(()),
        code => Err(format!("exit code {}: {last}", code.unwrap_or(-1))),
    }
}

async fn run(
    engine: &Engine,
    start: &StartContainer<'_>,
    id: &str,
    door: Door,
    policy: Arc<dyn SyscallPolicy>,
) -> Result<Running, ContainerError> {
    let service = &start.service.name;
    let output = attach(engine, id).await?;
    let mut end = told_end(engine, id).await;
    let begun = engine.docker.start_container(id, None).await;
    begun.map_err(ContainerError::engine(format!("start the container of {service}")))?;
    let refused =
        |why: String| ContainerError::Engine { what: format!("start {service} under the shim"), why };
    let shim = tokio::select! {
        shim = door.answer() => shim.map_err(ContainerError::io("the shim's socket"))?,
        // The guard must not live on into the branch.
        () = async { drop(end.wait_for(Option::is_some).await) } => {
            return Err(refused(format!("it ended before the shim could speak: {}", tail(output).await)));
        }
        () = tokio::time::sleep(HANDOFF) => return Err(refused("the shim did not connect".to_owned())),
    };
    supervise(engine, start, id, shim, policy, output, end).await
}

/// Is told how the container ends, once it does.
async fn told_end(engine: &Engine, id: &str) -> watch::Receiver<Option<Exit>> {
    let (ended, end) = watch::channel(None);
    let awaited = wait(engine, id);
    tokio::spawn(async move {
        // Nobody waits any more: then it does not matter.
        let _ = ended.send(Some(awaited.await));
    });
    // So that the wait is under way before there is anything to wait for.
    tokio::task::yield_now().await;
    end
}

/// The supervision of a container whose shim has connected.
async fn supervise(
    engine: &Engine,
    start: &StartContainer<'_>,
    id: &str,
    shim: Control,
    policy: Arc<dyn SyscallPolicy>,
    output: mpsc::UnboundedReceiver<Output>,
    mut over: watch::Receiver<Option<Exit>>,
) -> Result<Running, ContainerError> {
    let adopt = Adopt {
        service: start.service.name.clone(),
        listen: start.listen.clone(),
        families: start.families.clone(),
        mediation: start.mediation.clone(),
        keepable: start.slot.is_some(),
    };
    let end: BoxFuture<'static, Exit> = Box::pin(async move {
        let exit = over.wait_for(Option::is_some).await;
        exit.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown)
    });
    let mut running = supervisor::adopt(adopt, shim, policy, output, end).await?;
    let inspected = engine.docker.inspect_container(id, None).await;
    let pid = inspected.ok().and_then(|facts| facts.state).and_then(|state| state.pid);
    running.pid = pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
    Ok(running)
}

/// Everything that was printed, in one line.
async fn tail(mut output: mpsc::UnboundedReceiver<Output>) -> String {
    let mut said = Vec::new();
    while let Ok(Some(chunk)) = tokio::time::timeout(Duration::from_secs(2), output.recv()).await {
        said.extend(chunk.bytes);
    }
    let text = String::from_utf8_lossy(&said);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The container's output from its first byte on.
async fn attach(engine: &Engine, id: &str) -> Result<mpsc::UnboundedReceiver<Output>, ContainerError> {
    let options = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
    let attached = engine.docker.attach_container(id, Some(options)).await;
    let mut attached = attached.map_err(ContainerError::engine("read a container's output"))?;
    let (send, receive) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // Kept: closing it would tell the container that its input has ended.
        let _input = attached.input;
        while let Some(Ok(chunk)) = attached.output.next().await {
            let stream = match &chunk {
                LogOutput::StdErr { .. } => OutputStream::Stderr,
                _ => OutputStream::Stdout,
            };
            let _ = send.send(Output { stream, bytes: chunk.into_bytes().to_vec() });
        }
    });
    Ok(receive)
}

/// How the container ends.
fn wait(engine: &Engine, id: &str) -> impl Future<Output = Exit> + Send + 'static {
    let options = WaitContainerOptionsBuilder::new().condition("next-exit").build();
    let (docker, id) = (engine.docker.clone(), id.to_owned());
    async move {
        let mut answers = Box::pin(docker.wait_container(&id, Some(options)));
        match answers.next().await {
            Some(Ok(answer)) => exit(answer.status_code),
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => exit(code),
            _ => Exit::Unknown,
        }
    }
}

/// A container's status as a shell would say it: signals are 128 and more.
fn exit(status: i64) -> Exit {
    match i32::try_from(status) {
        Ok(status @ 129..=192) => Exit::Signal(status - 128),
        Ok(status) => Exit::Code(status),
        Err(_) => Exit::Unknown,
    }
}

/// What the engine is asked to create.
fn definition(start: &StartContainer<'_>, owner: &str) -> Result<ContainerCreateBody, ContainerError> {
    let service = start.service;
    if service.cwd.is_some() {
        let message = format!("{}: `cwd` is for local executables; an image has its own", service.name);
        return Err(ContainerError::Declaration(message));
    }
    let mut binds = vec![format!("{}:{}:ro", start.dir.display(), supervisor::SHIM_FOLDER)];
    for volume in &service.volumes {
        let source = volume.split(':').next().unwrap_or_default();
        if !Path::new(source).exists() {
            let message = format!("{}: the volume's source {source} does not exist", service.name);
            return Err(ContainerError::Declaration(message));
        }
        binds.push(volume.clone());
    }
    let mut command = start.image.entrypoint.clone();
    command.extend(if service.args.is_empty() { start.image.command.clone() } else { service.args.clone() });
    let bindings = |(interface, host_port): &(String, u16)| {
        let declared = service.interfaces.iter().find(|i| i.name == *interface)?;
        let binding =
            PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(host_port.to_string()) };
        Some((format!("{}/tcp", declared.port), Some(vec![binding])))
    };
    let network = if service.ports.is_empty() { "none" } else { "bridge" };
    let exposed = service.ports.iter().filter_map(|port| bindings(port).map(|(port, _)| port)).collect();
    let hash = match start.slot {
        Some((slot, _)) => slot.definition.clone(),
        None => short_hash(&fingerprint(start)),
    };
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let labels = [
        label(LABEL, env!("CARGO_PKG_VERSION")),
        label(LABEL_OWNER, owner),
        label(LABEL_SERVICE, &service.name),
        label(LABEL_IMAGE, &start.image.name),
        label(LABEL_DEFINITION, &hash),
    ];
    let kept = start
        .slot
        .map(|(slot, spec)| [label(LABEL_SLOT, &slot.dir().display().to_string()), label(LABEL_SPEC, spec)]);
    Ok(ContainerCreateBody {
        hostname: Some(service.name.clone()),
        image: Some(start.image.id.clone()),
        entrypoint: Some(vec![format!("{}/shim", supervisor::SHIM_FOLDER)]),
        cmd: Some(command),
        env: Some(service.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels.into_iter().chain(kept.into_iter().flatten()).collect()),
        exposed_ports: Some(exposed),
        host_config: Some(HostConfig {
            binds: Some(binds),
            network_mode: Some(network.to_owned()),
            port_bindings: Some(service.ports.iter().filter_map(bindings).collect()),
            extra_hosts: Some(
                start.topology.services.iter().map(|s| format!("{}:127.0.0.1", s.name)).collect(),
            ),
            auto_remove: Some(true),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

/// All that makes two containers of a service equal when they are created.
fn fingerprint(start: &StartContainer<'_>) -> String {
    let service = start.service;
    format!(
        "{} {:?} {:?} {:?} {:?} {:?} {:?}",
        start.image.id,
        service.env,
        service.args,
        service.volumes,
        service.ports,
        start.families,
        start.listen
    )
}

fn short_hash(parts: &str) -> String {
    blake3::hash(parts.as_bytes()).to_hex().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Interface, Reset, ServiceKind};

    fn service() -> Service {
        Service {
            name: "db".to_owned(),
            kind: ServiceKind::Image("mysql:8".to_owned()),
            interfaces: vec![Interface {
                name: "main".to_owned(),
                protocol: crate::protocol::by_name("mysql").unwrap(),
                port: 3306,
                addr: "127.0.0.1:3306".to_owned(),
            }],
            env: vec![("A".to_owned(), "1".to_owned())],
            args: Vec::new(),
            depends_on: Vec::new(),
            healthcheck: None,
            has_seed: false,
            reset: Reset::Default,
            reuse: true,
            volumes: Vec::new(),
            ports: Vec::new(),
            cwd: None,
            seccomp: true,
            determinism: crate::topology::Determinism::default(),
            location: String::new(),
        }
    }

    fn start<'a>(service: &'a Service, topology: &'a Topology) -> StartContainer<'a> {
        let image = ImageFacts {
            name: "mysql:8".to_owned(),
            id: "sha256:ab".to_owned(),
            entrypoint: vec!["entry".to_owned()],
            command: vec!["mysqld".to_owned(), "--x".to_owned()],
            ..ImageFacts::default()
        };
        let (listen, families) = (Vec::new(), BTreeSet::new());
        let mediation = Mediation::default();
        StartContainer {
            service,
            topology,
            image,
            listen,
            families,
            mediation,
            dir: "/run/x".into(),
            slot: None,
        }
    }

    #[test]
    fn the_shim_comes_first_and_the_image_keeps_its_own() {
        let (mut service, topology) = (service(), Topology::default());
        let body = definition(&start(&service, &topology), "me").unwrap();
        assert_eq!(body.entrypoint.unwrap(), ["/.faultbox/shim"]);
        assert_eq!(body.cmd.unwrap(), ["entry", "mysqld", "--x"]);
        assert_eq!((body.user, body.working_dir), (None, None));
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(host.binds.unwrap(), ["/run/x:/.faultbox:ro"]);
        assert_eq!(host.security_opt, None);
        assert!(body.labels.unwrap().contains_key(LABEL));

        service.args = vec!["--verbose".to_owned()];
        service.ports = vec![("main".to_owned(), 13306)];
        let body = definition(&start(&service, &topology), "me").unwrap();
        assert_eq!(body.cmd.unwrap(), ["entry", "--verbose"]);
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("bridge"));
        let bound = host.port_bindings.unwrap().remove("3306/tcp").unwrap().unwrap().remove(0);
        assert_eq!(
            (bound.host_ip.as_deref(), bound.host_port.as_deref()),
            (Some("127.0.0.1"), Some("13306"))
        );
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        let (mut service, topology) = (service(), Topology::default());
        service.volumes = vec!["/no/such/folder/here:/data".to_owned()];
        let error = definition(&start(&service, &topology), "me").unwrap_err().to_string();
        assert!(error.contains("/no/such/folder/here"), "{error}");
        service.volumes.clear();
        service.cwd = Some("/x".into());
        assert!(definition(&start(&service, &topology), "me").unwrap_err().to_string().contains("cwd"));
    }

    #[test]
    fn equal_definitions_have_equal_hashes() {
        let (mut service, topology) = (service(), Topology::default());
        let first = fingerprint(&start(&service, &topology));
        assert_eq!(first, fingerprint(&start(&service, &topology)));
        let kept = start(&service, &topology).definition("seeds");
        assert_eq!(kept, start(&service, &topology).definition("seeds"));
        assert_ne!(kept, start(&service, &topology).definition("seeds more"));
        service.env.push(("B".to_owned(), "2".to_owned()));
        assert_ne!(first, fingerprint(&start(&service, &topology)));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("my.cnf"), "a").unwrap();
        service.volumes = vec![format!("{}:/etc/my.cnf:ro", dir.path().join("my.cnf").display())];
        let kept = start(&service, &topology).definition("seeds");
        std::fs::write(dir.path().join("my.cnf"), "b").unwrap();
        assert_ne!(kept, start(&service, &topology).definition("seeds"), "what is mounted counts");
    }

    #[test]
    fn statuses_are_codes_or_signals() {
        assert_eq!(exit(0), Exit::Code(0));
        assert_eq!(exit(127), Exit::Code(127));
        assert_eq!(exit(134), Exit::Signal(6));
        assert_eq!(exit(255), Exit::Code(255));
        assert_eq!(exit(-1), Exit::Code(-1));
    }
}
