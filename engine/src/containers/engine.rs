//! The container engine: where it is, which images it has, what of ours it holds.
//!
//! Contract: talks to one endpoint, named in every error. Removes only what carries our label, and
//! of that only what belongs to a run that has ended, unless it is told to remove everything.

use super::access::{endpoint, way_in};
use super::{
    ContainerError, LABEL, LABEL_DEFINITION, LABEL_IMAGE, LABEL_OWNER, LABEL_REALLY, LABEL_SERVICE,
    LABEL_SLOT, LABEL_SPEC, kept, words,
};
use bollard::Docker;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

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
    /// Ids of kept containers that this process has taken over.
    taken: Mutex<Vec<String>>,
    /// Why it does not answer any more, once that is so.
    lost: watch::Sender<Option<String>>,
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
    /// All digests by which it is known.
    pub(super) digests: Vec<String>,
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

    /// What pins it: the digest in its registry, else (of an image that was made here) its id.
    pub fn pin(&self) -> &str {
        self.repo_digest.as_ref().unwrap_or(&self.id)
    }

    /// All that is needed to find the image again: its id, its digest in a registry, its name.
    pub fn identity(&self) -> String {
        format!("{} {} {}", self.id, self.repo_digest.as_deref().unwrap_or("-"), self.name)
    }

    /// Whether a pin means this image.
    pub fn is(&self, pin: &str) -> bool {
        self.id == pin || self.digests.iter().any(|digest| digest == pin)
    }

    /// One line for people and for the bundle.
    pub fn describe(&self) -> String {
        let digest = self.pin();
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
    /// Whether it was kept on purpose.
    pub kept: bool,
}

/// A container of ours.
struct Found {
    id: String,
    name: String,
    image: String,
    running: bool,
    labels: BTreeMap<String, String>,
}

impl Found {
    fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    fn slot(&self) -> Option<PathBuf> {
        Some(PathBuf::from(self.label(LABEL_SLOT))).filter(|slot| !slot.as_os_str().is_empty())
    }
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
        let lost = watch::channel(None).0;
        Ok(Arc::new(Engine { docker, endpoint, version, owner: owner(), taken: Mutex::default(), lost }))
    }

    /// Watches the engine from now on, so that [`Engine::lost`] tells when it goes away.
    pub fn watch(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        let docker = self.docker.clone();
        tokio::spawn(async move {
            let ours = [("label".to_owned(), vec![LABEL.to_owned()])].into_iter().collect();
            loop {
                // Nothing that it says is of interest, only that it ends.
                let mut events =
                    pin!(docker.events(Some(EventsOptionsBuilder::new().filters(&ours).build())));
                while let Some(Ok(_)) = events.next().await {}
                let Some(engine) = engine.upgrade() else { return };
                if engine.check().await.is_some() {
                    return;
                }
            }
        });
    }

    /// Asks whether the engine is still there; why not, where it is not.
    pub async fn check(&self) -> Option<String> {
        if let Err(error) = self.docker.ping().await {
            let why = format!(
                "the container engine at {} went away in the middle of the run ({})",
                self.endpoint,
                words(&error)
            );
            self.lost.send_replace(Some(why));
        }
        self.is_lost()
    }

    /// Why the engine does not answer any more, once that is so; waits for it.
    pub async fn lost(&self) -> String {
        let mut lost = self.lost.subscribe();
        // The sender lives in what we hold; what it shows must not be held across the wait.
        while lost.borrow_and_update().is_none() && lost.changed().await.is_ok() {}
        self.is_lost().unwrap_or_default()
    }

    /// As [`Engine::lost`], without waiting.
    pub fn is_lost(&self) -> Option<String> {
        self.lost.borrow().clone()
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
        let digests = inspected.repo_digests.unwrap_or_default();
        Ok(Some(ImageFacts {
            name: name.to_owned(),
            id: inspected.id.unwrap_or_default(),
            repo_digest: digests.first().cloned(),
            digests,
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
        self.remove_where(|found| match found.slot() {
            Some(slot) if kept::is_kept(&slot) && found.running => false,
            slot => slot
                .and_then(|slot| kept::is_free(&slot))
                .unwrap_or_else(|| abandoned(found.label(LABEL_OWNER), &self.owner, found.running)),
        })
        .await
    }

    /// Removes the slots below `root` that no container is in and no process holds.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn sweep_slots(&self, root: &Path) -> Result<(), ContainerError> {
        let Ok(entries) = std::fs::read_dir(root) else { return Ok(()) };
        let slots: Vec<PathBuf> = self.ours().await?.iter().filter_map(Found::slot).collect();
        let empty = entries.flatten().map(|entry| entry.path()).filter(|slot| !slots.contains(slot));
        empty.filter(|slot| kept::is_free(slot) == Some(true)).for_each(|slot| kept::remove(&slot));
        Ok(())
    }

    /// Removes the containers that this process made or took over, and has not kept.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn remove_own(&self) -> Result<Vec<Removed>, ContainerError> {
        let taken = self.taken.lock().unwrap_or_else(|p| p.into_inner()).clone();
        self.remove_where(|found| {
            let ours = found.label(LABEL_OWNER) == self.owner || taken.contains(&found.id);
            ours && !found.slot().is_some_and(|slot| kept::is_kept(&slot))
        })
        .await
    }

    /// Removes every container of ours, those of other runs that are alive included.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn clean(&self) -> Result<Vec<Removed>, ContainerError> {
        self.remove_where(|_| true).await
    }

    /// Removes kept containers of a service of a spec that have another definition than this one
    /// and are not in use.
    ///
    /// # Errors
    /// When the engine fails.
    pub async fn remove_outdated(
        &self,
        spec: &str,
        service: &str,
        definition: &str,
    ) -> Result<Vec<Removed>, ContainerError> {
        self.remove_where(|found| {
            let same = found.label(LABEL_SPEC) == spec && found.label(LABEL_SERVICE) == service;
            let free = || {
                found.slot().is_some_and(|slot| kept::is_kept(&slot) && kept::is_free(&slot) == Some(true))
            };
            same && found.label(LABEL_DEFINITION) != definition && free()
        })
        .await
    }

    /// The container that waits in a slot: its id and name.
    pub(super) async fn waiting_in(
        &self,
        slot: &kept::Slot,
    ) -> Result<Option<(String, String)>, ContainerError> {
        let found = self.ours().await?.into_iter().find(|found| {
            found.running
                && found.label(LABEL_DEFINITION) == slot.definition
                && found.slot().as_deref() == Some(slot.dir())
        });
        if let Some(found) = &found {
            self.taken.lock().unwrap_or_else(|p| p.into_inner()).push(found.id.clone());
        }
        Ok(found.map(|found| (found.id, found.name)))
    }

    async fn remove_where(&self, which: impl Fn(&Found) -> bool) -> Result<Vec<Removed>, ContainerError> {
        let mut removed = Vec::new();
        for found in self.ours().await?.into_iter().filter(which) {
            let kept = found.slot().is_some_and(|slot| kept::is_kept(&slot) && found.running);
            self.remove(&found.id).await?;
            if let Some(slot) = found.slot() {
                kept::remove(&slot);
            }
            let label = |name: &str| found.label(name).to_owned();
            let (service, named) = (label(LABEL_SERVICE), label(LABEL_IMAGE));
            // Those of earlier versions do not say it.
            let image = if named.is_empty() { found.image } else { named };
            removed.push(Removed { name: found.name, service, image, kept });
        }
        Ok(removed)
    }

    /// Everything that carries our label.
    async fn ours(&self) -> Result<Vec<Found>, ContainerError> {
        let filters = [("label".to_owned(), vec![LABEL.to_owned()])].into_iter().collect();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = self.docker.list_containers(Some(options)).await;
        let listed = listed.map_err(ContainerError::engine("list containers"))?;
        let found = listed.into_iter().filter_map(|container| {
            let id = container.id?;
            let name = container.names.and_then(|names| names.into_iter().next()).unwrap_or(id.clone());
            Some(Found {
                id,
                name: name.trim_start_matches('/').to_owned(),
                image: container.image.unwrap_or_default(),
                running: container.state.is_some_and(|state| state.to_string() == "running"),
                labels: container.labels.unwrap_or_default().into_iter().collect(),
            })
        });
        Ok(found.collect())
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
