//! The container engine: where it is, which images it has, what of ours it holds.
//!
//! Contract: talks to one endpoint, named in every error. Removes only what carries our label, and
//! of that only what belongs to a run that has ended, unless it is told to remove everything.

use super::access::{endpoint, way_in};
use super::{ContainerError, LABEL, LABEL_IMAGE, LABEL_OWNER, LABEL_REALLY, LABEL_SERVICE, words};
use bollard::Docker;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long an engine may take to begin its answer. (Starting a container under load is slow.)
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a removed container may take to be gone.
const GONE: Duration = Duration::from_secs(20);

/// A container engine that answers.
pub struct Engine {
    pub(super) docker: Docker,
    endpoint: String,
    version: String,
    owner: String,
}

/// What is known of an image that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageFacts {
    /// The name in the spec.
    pub name: String,
    /// The digest of its configuration: `sha256:...`.
    pub id: String,
    /// The digest under which its registry has it, where it came from one.
    pub repo_digest: Option<String>,
    /// What it really is, where it carries another's name.
    pub really: Option<String>,
    pub(super) entrypoint: Vec<String>,
    pub(super) command: Vec<String>,
}

impl ImageFacts {
    /// The digest's bytes.
    pub fn digest(&self) -> Option<[u8; 32]> {
        let hex = self.id.strip_prefix("sha256:")?;
        let byte = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
        bytes?.try_into().ok().filter(|_| hex.len() == 64)
    }

    /// One line for people and for the bundle.
    pub fn describe(&self) -> String {
        let digest = self.repo_digest.as_ref().unwrap_or(&self.id);
        let really = self.really.as_ref().map(|really| format!(" (really {really})")).unwrap_or_default();
        format!("{} {digest}{really}", self.name)
    }
}

/// A container that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its name.
    pub name: String,
    /// The service that it was.
    pub service: String,
    /// Its image.
    pub image: String,
}

impl Engine {
    /// Connects to the engine that `DOCKER_HOST` names, else to Docker's usual socket.
    ///
    /// # Errors
    /// When nothing answers there.
    pub async fn connect() -> Result<Arc<Engine>, ContainerError> {
        let endpoint = endpoint();
        // What the system says about the socket is plainer than what the client makes of it.
        way_in(&endpoint).await.map_err(|lack| ContainerError::NoEngine {
            endpoint: endpoint.clone(),
            why: lack.why,
            enable: lack.enable,
        })?;
        let none = |error: bollard::errors::Error| ContainerError::NoEngine {
            endpoint: endpoint.clone(),
            why: words(&error),
            enable: super::access::start(),
        };
        let docker = Docker::connect_with_host(&endpoint).map_err(none)?.with_timeout(PATIENCE);
        let docker = docker.negotiate_version().await.map_err(none)?;
        let version = docker.version().await.map_err(none)?.version.unwrap_or_default();
        Ok(Arc::new(Engine { docker, endpoint, version, owner: owner() }))
    }

    /// `20.10.24 at unix:///var/run/docker.sock`.
    pub fn describe(&self) -> String {
        format!("{} at {}", self.version, self.endpoint)
    }

    /// Whether this user can look into the processes of its containers.
    ///
    /// # Errors
    /// What it would take.
    pub async fn look_into(&self) -> Result<(), crate::supervisor::Lack> {
        super::access::look_into(&self.endpoint).await
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// What is known of an image; pulls it when it is absent, and says how that goes.
    ///
    /// # Errors
    /// When it is neither there nor to be had.
    pub async fn image(
        &self,
        name: &str,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<ImageFacts, ContainerError> {
        if let Some(facts) = self.local_image(name).await? {
            return Ok(facts);
        }
        self.pull(name, progress).await?;
        let missing = || ContainerError::Engine {
            what: format!("find the image {name}"),
            why: "it is not there although it was pulled".to_owned(),
        };
        self.local_image(name).await?.ok_or_else(missing)
    }

    /// What is known of an image that is on this machine.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn local_image(&self, name: &str) -> Result<Option<ImageFacts>, ContainerError> {
        let inspected = match self.docker.inspect_image(name).await {
            Ok(inspected) => inspected,
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(ContainerError::engine(format!("look at the image {name}"))(error)),
        };
        let config = inspected.config.unwrap_or_default();
        let really = config.labels.as_ref().and_then(|labels| labels.get(LABEL_REALLY)).cloned();
        Ok(Some(ImageFacts {
            name: name.to_owned(),
            id: inspected.id.unwrap_or_default(),
            repo_digest: inspected.repo_digests.and_then(|digests| digests.into_iter().next()),
            really,
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
        }))
    }

    async fn pull(&self, name: &str, progress: &(dyn Fn(&str) + Send + Sync)) -> Result<(), ContainerError> {
        let (repository, tag) = split_tag(name);
        let options = CreateImageOptionsBuilder::new().from_image(repository).tag(tag).build();
        let pulled = pulled(self.docker.create_image(Some(options), None, None), name, progress).await;
        pulled.map_err(|why| ContainerError::Pull {
            image: name.to_owned(),
            registry: registry(name).to_owned(),
            why,
        })
    }

    /// Removes the containers of runs that have ended without doing so themselves.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn sweep(&self) -> Result<Vec<Removed>, ContainerError> {
        self.remove_where(|owner, running| abandoned(owner, &self.owner, running)).await
    }

    /// Removes the containers that this process made.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn remove_own(&self) -> Result<Vec<Removed>, ContainerError> {
        self.remove_where(|owner, _| owner == self.owner).await
    }

    /// Removes every container of ours, those of other runs that are alive included.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn clean(&self) -> Result<Vec<Removed>, ContainerError> {
        self.remove_where(|_, _| true).await
    }

    async fn remove_where(&self, which: impl Fn(&str, bool) -> bool) -> Result<Vec<Removed>, ContainerError> {
        let filters = [("label".to_owned(), vec![LABEL.to_owned()])].into_iter().collect();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = self.docker.list_containers(Some(options)).await;
        let mut removed = Vec::new();
        for container in listed.map_err(ContainerError::engine("list containers"))? {
            let labels = container.labels.unwrap_or_default();
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            let running = container.state.is_some_and(|state| state.to_string() == "running");
            let Some(id) = container.id.filter(|_| which(&label(LABEL_OWNER), running)) else { continue };
            self.remove(&id).await?;
            let name = container.names.and_then(|names| names.into_iter().next()).unwrap_or(id);
            removed.push(Removed {
                name: name.trim_start_matches('/').to_owned(),
                service: label(LABEL_SERVICE),
                image: label(LABEL_IMAGE),
            });
        }
        Ok(removed)
    }

    /// Kills and removes a container with its anonymous volumes, and waits until it is gone.
    pub(super) async fn remove(&self, id: &str) -> Result<(), ContainerError> {
        use bollard::errors::Error::DockerResponseServerError;
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            // 409: it ended by itself and is being removed.
            Ok(()) | Err(DockerResponseServerError { status_code: 404 | 409, .. }) => {}
            Err(error) => return Err(ContainerError::engine("remove a container")(error)),
        }
        let gone = async {
            while self.docker.inspect_container(id, None).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(GONE, gone).await.map_err(|_| ContainerError::Engine {
            what: "remove a container".to_owned(),
            why: format!("{id} is still there after {}s", GONE.as_secs()),
        })
    }
}

/// Follows a pull to its end; `Err` is what the engine said.
async fn pulled(
    stream: impl Stream<Item = Result<bollard::models::CreateImageInfo, bollard::errors::Error>>,
    name: &str,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), String> {
    let mut layers: std::collections::BTreeMap<String, (i64, i64)> = Default::default();
    let mut stream = pin!(stream);
    while let Some(info) = stream.next().await {
        let info = info.map_err(|error| words(&error))?;
        let detail = info.progress_detail.unwrap_or_default();
        if let (Some(id), Some(current), Some(total)) = (info.id, detail.current, detail.total) {
            layers.insert(id, (current, total));
        }
        let sum = |part: fn(&(i64, i64)) -> i64| layers.values().map(part).sum::<i64>() as f64 / 1e6;
        let (current, total) = (sum(|layer| layer.0), sum(|layer| layer.1));
        match total > 0.0 {
            true => progress(&format!("pulling {name}: {current:.1} of {total:.1} MB")),
            false => progress(&format!("pulling {name}: {}", info.status.unwrap_or_default())),
        }
    }
    Ok(())
}

/// Name and tag (or digest) of an image; without one, `latest`, never all.
fn split_tag(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    let name_at = image.rfind('/').map_or(0, |slash| slash + 1);
    match image.get(name_at..).and_then(|name| name.rfind(':')) {
        Some(colon) => (&image[..name_at + colon], &image[name_at + colon + 1..]),
        None => (image, "latest"),
    }
}

/// The registry that an image's name means.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// Host (its boot and namespace of process ids), process and its start.
fn owner() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let pid = std::process::id();
    let started = started(pid).unwrap_or_default();
    format!("{} {} {pid} {started}", boot.trim(), space.display())
}

/// When a process started, in the kernel's ticks; `None` when there is none.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name in brackets can hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Whether an owner has ended. One that cannot be looked at from here counts as alive while its
/// container runs.
fn abandoned(owner: &str, ours: &str, running: bool) -> bool {
    let parts = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (theirs, ours) = (parts(owner), parts(ours));
    let ([boot, space, pid, start], [our_boot, our_space, ..]) = (&theirs[..], &ours[..]) else {
        return !running;
    };
    if (boot, space) != (our_boot, our_space) {
        return !running;
    }
    let alive = pid.parse().ok().and_then(started);
    alive.is_none() || alive != start.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_names_tags_and_registries() {
        assert_eq!(split_tag("redis:7-alpine"), ("redis", "7-alpine"));
        assert_eq!(split_tag("redis"), ("redis", "latest"));
        assert_eq!(split_tag("localhost:5000/team/api"), ("localhost:5000/team/api", "latest"));
        assert_eq!(split_tag("localhost:5000/api:1"), ("localhost:5000/api", "1"));
        assert_eq!(split_tag("apache/kafka@sha256:ab"), ("apache/kafka", "sha256:ab"));
        assert_eq!(registry("apache/kafka:3.7.0"), "docker.io");
        assert_eq!(registry("mysql:8"), "docker.io");
        assert_eq!(registry("ghcr.io/x/y"), "ghcr.io");
        assert_eq!(registry("localhost/x"), "localhost");
    }

    #[test]
    fn a_digest_is_32_bytes() {
        let facts = |id: &str| ImageFacts { id: id.to_owned(), ..ImageFacts::default() };
        assert_eq!(facts(&format!("sha256:{}", "0a".repeat(32))).digest(), Some([10; 32]));
        for id in ["", "sha256:", "sha256:zz", &format!("sha256:{}", "0a".repeat(33))] {
            assert_eq!(facts(id).digest(), None, "{id}");
        }
    }

    #[test]
    fn who_is_alive_is_left_alone() {
        let ours = owner();
        assert!(!abandoned(&ours, &ours, true));
        let parts: Vec<&str> = ours.split(' ').collect();
        let [boot, space, pid, start] = parts[..] else { panic!("{ours}") };
        // The number went to another process.
        assert!(abandoned(&format!("{boot} {space} {pid} 1"), &ours, true));
        assert!(abandoned(&format!("{boot} {space} 4194303 {start}"), &ours, true));
        // Not to be seen from here: only what has ended goes.
        for elsewhere in
            [format!("x {space} {pid} {start}"), format!("{boot} x {pid} {start}"), String::new()]
        {
            assert!(!abandoned(&elsewhere, &ours, true));
            assert!(abandoned(&elsewhere, &ours, false));
        }
    }

    #[tokio::test]
    async fn a_pull_says_how_it_goes_and_why_it_failed() {
        use bollard::models::{CreateImageInfo, ProgressDetail};
        let layer = |id: &str, current, total| CreateImageInfo {
            id: Some(id.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        };
        let said = std::sync::Mutex::new(Vec::new());
        let note = |text: &str| said.lock().unwrap().push(text.to_owned());
        let failed = bollard::errors::Error::DockerStreamError { error: "manifest\nunknown".to_owned() };
        let steps =
            vec![Ok(layer("a", 1_000_000, 4_000_000)), Ok(layer("b", 500_000, 1_000_000)), Err(failed)];
        let ended = pulled(futures_util::stream::iter(steps), "redis:7", &note).await;
        assert_eq!(ended, Err("manifest unknown".to_owned()));
        let said = said.lock().unwrap();
        assert_eq!(*said, ["pulling redis:7: 1.0 of 4.0 MB", "pulling redis:7: 1.5 of 5.0 MB"]);
    }
}
