//! One service in a container, from its creation to its removal.
//!
//! Contract: [`Container::start`] returns when the image's own program runs, under the filter
//! that the spec needs, or fails and leaves nothing behind.

use super::engine::{Engine, ImageFacts};
use super::{ContainerError, LABEL, LABEL_DEFINITION, LABEL_IMAGE, LABEL_OWNER, LABEL_SERVICE};
use crate::link::BoxFuture;
use crate::supervisor::{self, Adopt, Exit, Output, OutputStream, Running, SyscallPolicy};
use crate::topology::{Service, Topology};
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a container may take from its start to its shim's word.
const HANDOFF: Duration = Duration::from_secs(60);

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
    /// A folder of its own on this machine; must be reachable for the engine, and need not
    /// exist.
    pub dir: PathBuf,
}

/// A service in a container. Removed by [`Container::remove`]; when it is only dropped, its shim
/// ends its processes and the next run removes what is left.
pub struct Container {
    engine: Arc<Engine>,
    id: String,
    running: Running,
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
        match run(engine, &start, &id, door, policy).await {
            Ok(running) => Ok(Container { engine: engine.clone(), id, running }),
            Err(error) => {
                // The first error is the one that matters.
                let _ = engine.remove(&id).await;
                Err(error)
            }
        }
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

/// The folder that is mounted into a container: the shim, and the socket on which it is awaited.
struct Door {
    listener: OwnedFd,
}

impl Door {
    fn open(dir: &Path) -> Result<Door, ContainerError> {
        let failed = |source: std::io::Error| ContainerError::io(dir.display().to_string())(source);
        std::fs::create_dir_all(dir).map_err(failed)?;
        // Whatever user the image runs as has to get through. The folder above is ours alone.
        let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        open(dir, 0o755).map_err(failed)?;
        let shim = dir.join("shim");
        // One that a container before this one used: it is read-only, also for us unless we are root.
        let _ = std::fs::remove_file(&shim);
        std::fs::write(&shim, supervisor::SHIM).and_then(|()| open(&shim, 0o555)).map_err(failed)?;
        let path = dir.join("control");
        // One that a container before this one used.
        let _ = std::fs::remove_file(&path);
        let listener = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        );
        let listener = listener.and_then(|listener| {
            bind(listener.as_raw_fd(), &UnixAddr::new(&path)?)?;
            listen(&listener, Backlog::new(1)?)?;
            Ok(listener)
        });
        let listener = listener.map_err(|errno| failed(errno.into()))?;
        open(&path, 0o666).map_err(failed)?;
        Ok(Door { listener })
    }

    /// The shim's connection.
    async fn answer(self) -> std::io::Result<OwnedFd> {
        // A listener is readable when somebody has connected; the runtime's own Unix listener
        // takes any kind of socket.
        let listener = std::os::unix::net::UnixListener::from(self.listener);
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (stream, _) = listener.accept().await?;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream.into())
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
    let (ended, end) = tokio::sync::watch::channel(None);
    let awaited = wait(engine, id);
    tokio::spawn(async move {
        // Nobody waits any more: then it does not matter.
        let _ = ended.send(Some(awaited.await));
    });
    // So that the wait is under way before there is anything to wait for.
    tokio::task::yield_now().await;
    let begun = engine.docker.start_container(id, None).await;
    begun.map_err(ContainerError::engine(format!("start the container of {service}")))?;
    let mut over = end.clone();
    let refused =
        |why: String| ContainerError::Engine { what: format!("start {service} under the shim"), why };
    let shim = tokio::select! {
        shim = door.answer() => shim.map_err(ContainerError::io("the shim's socket"))?,
        // The guard must not live on into the branch.
        () = async { drop(over.wait_for(Option::is_some).await) } => {
            return Err(refused(format!("it ended before the shim could speak: {}", tail(output).await)));
        }
        () = tokio::time::sleep(HANDOFF) => return Err(refused("the shim did not connect".to_owned())),
    };
    let adopt =
        Adopt { service: service.clone(), listen: start.listen.clone(), families: start.families.clone() };
    let mut over = end;
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
    let hash = fingerprint(start);
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let labels = [
        label(LABEL, env!("CARGO_PKG_VERSION")),
        label(LABEL_OWNER, owner),
        label(LABEL_SERVICE, &service.name),
        label(LABEL_DEFINITION, &hash),
        label(LABEL_IMAGE, &start.image.name),
    ];
    Ok(ContainerCreateBody {
        hostname: Some(service.name.clone()),
        image: Some(start.image.id.clone()),
        entrypoint: Some(vec![format!("{}/shim", supervisor::SHIM_FOLDER)]),
        cmd: Some(command),
        env: Some(service.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels.into_iter().collect()),
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

/// A hash of all that makes two containers of a service equal.
fn fingerprint(start: &StartContainer<'_>) -> String {
    let service = start.service;
    let parts = format!(
        "{} {:?} {:?} {:?} {:?} {:?} {:?}",
        start.image.id,
        service.env,
        service.args,
        service.volumes,
        service.ports,
        start.families,
        start.listen
    );
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
        StartContainer { service, topology, image, listen, families, dir: "/run/x".into() }
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
        service.env.push(("B".to_owned(), "2".to_owned()));
        assert_ne!(first, fingerprint(&start(&service, &topology)));
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
