//! The container engine and the images of a spec: found, pulled, built and compared with
//! `faultbox.lock` before the first cell.

use super::run::{Host, traps};
use crate::exit_code;
use crate::terminal::{Progress, notice, say};
use faultbox_engine::containers::lock::{self, Drift, Lock};
use faultbox_engine::containers::{ContainerError, Engine, ImageFacts, Keeping};
use faultbox_engine::plan::Plan;
use faultbox_engine::spec::{self, LoadOptions};
use faultbox_engine::topology::{Service, ServiceKind};
use std::path::{Path, PathBuf};

/// A fact of a recording: what the container of a service was, its image's id first.
pub const CONTAINER: &str = "container ";

/// The services that run in containers; with stand-ins for images, only those under test.
pub fn contained(plan: &Plan, embedded: bool) -> Vec<&Service> {
    let runs =
        |service: &&Service| service.is_contained() && (!embedded || plan.topology.is_sut(&service.name));
    plan.topology.services.iter().filter(runs).collect()
}

/// Names what the host lacks.
fn lacks(lines: &[String]) -> u8 {
    lines.iter().for_each(|line| notice(&format!("faultbox: {line}")));
    exit_code::HOST
}

/// Connects to the container engine that these services need, and removes what runs that were
/// killed left.
///
/// # Errors
/// The exit code, where no engine answers.
pub async fn connect(host: &mut Host, services: &[&Service]) -> Result<(), u8> {
    let engine = Engine::connect().await.map_err(|error| {
        let line = |service: &&Service| {
            format!("{}: {} needs a container engine", service.name, service.kind.words())
        };
        lacks(&services.iter().map(line).chain([error.to_string()]).collect::<Vec<_>>())
    })?;
    let swept = engine.sweep().await.map_err(|error| lacks(&[error.to_string()]))?;
    let slots = Keeping::folder(&std::env::temp_dir());
    engine.sweep_slots(&slots).await.map_err(|error| lacks(&[error.to_string()]))?;
    for removed in swept {
        notice(&format!(
            "notice: removed {} ({}, {}), left by a run that was killed",
            removed.name, removed.service, removed.image
        ));
    }
    engine.watch();
    host.engine = Some(engine);
    Ok(())
}

/// Finds the container engine and the images of these services; names what is missing before the
/// first cell. An image that the host has already for a service is left as it is.
///
/// # Errors
/// The exit code, where no engine answers or an image is not to be had.
pub async fn ready(host: &mut Host, services: &[&Service]) -> Result<(), u8> {
    if services.is_empty() {
        return Ok(());
    }
    if host.engine.is_none() {
        connect(host, services).await?;
    }
    let Some(engine) = host.engine.clone() else { return Err(exit_code::HOST) };
    let progress = Progress::new();
    let mut lacking = Vec::new();
    for service in services {
        if host.images.contains_key(&service.name) {
            continue;
        }
        let found = image(&engine, service, &progress).await;
        progress.clear();
        match found {
            Ok(facts) => {
                if let Some(really) = &facts.really {
                    let (name, image) = (&service.name, &facts.name);
                    notice(&format!("notice: {name}: {image} on this machine is really {really}"));
                }
                host.images.insert(service.name.clone(), facts);
            }
            Err(error @ (ContainerError::Pull { .. } | ContainerError::Build { .. })) => {
                lacking.push(format!("{}: {error}", service.name));
            }
            Err(error) => return Err(lacks(&[error.to_string()])),
        }
    }
    if lacking.is_empty() { Ok(()) } else { Err(lacks(&lacking)) }
}

/// Says which containers' syscalls cannot be faulted by this user, and what that would take.
pub async fn tell_of_closed(host: &Host, plan: &Plan, services: &[&Service]) {
    let faulted = services.iter().filter(|service| traps(plan, service));
    let faulted: Vec<&str> = faulted.map(|service| service.name.as_str()).collect();
    let Some(engine) = host.engine.as_ref().filter(|_| !faulted.is_empty()) else { return };
    if let Err(lack) = engine.look_into().await {
        let of = faulted.join(", ");
        notice(&format!(
            "notice: a cell that faults syscalls of the container of {of} ends in an error: {lack}"
        ));
    }
}

async fn image(
    engine: &Engine,
    service: &Service,
    progress: &Progress,
) -> Result<ImageFacts, ContainerError> {
    let tell = |text: &str| progress.tell(text);
    match &service.kind {
        ServiceKind::Build { written, folder } => engine.build(&service.name, written, folder, &tell).await,
        ServiceKind::Image(image) => engine.image(image, &tell).await,
        other => Err(ContainerError::Declaration(format!("{} runs in no container", other.words()))),
    }
}

/// The lock file beside a spec, and the spec's name in it.
fn place(spec: &Path) -> (PathBuf, String) {
    let name = spec.file_name().unwrap_or_default().to_string_lossy().into_owned();
    (spec.with_file_name(lock::FILE), name)
}

/// Reads a lock file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Lock>, u8> {
    let unreadable = |why: String| {
        notice(&format!("faultbox: {}: {why}", path.display()));
        exit_code::USAGE
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Lock::parse(&text).map(Some).map_err(unreadable),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// Compares the images with the spec's pins: where they part is an error if `locked`, else a notice.
///
/// # Errors
/// The exit code: where an image is another, what the host lacks; where the spec and its pins name
/// different images, or there are no pins, usage.
pub fn compare(spec: &Path, images: &[&ImageFacts], locked: bool) -> Result<(), u8> {
    let (path, name) = place(spec);
    let again = format!("faultbox lock {}", spec.display());
    let lock = read(&path)?;
    let Some(pins) = lock.as_ref().and_then(|lock| lock.pins(&name)) else {
        if !locked {
            return Ok(());
        }
        let path = path.display();
        notice(&format!("faultbox: --locked: {path} pins nothing for {name}; `{again}` writes it"));
        return Err(exit_code::USAGE);
    };
    let drifts = lock::drifts(pins, images.iter().copied());
    if !locked {
        for drift in drifts {
            notice(&format!("notice: {drift}; --locked makes this an error, `{again}` accepts it"));
        }
        return Ok(());
    }
    let mut code = None;
    for drift in &drifts {
        notice(&format!("faultbox: {drift}; {}", remedy(drift, &again)));
        let own = if matches!(drift, Drift::Changed { .. }) { exit_code::HOST } else { exit_code::USAGE };
        code = Some(code.unwrap_or(own).max(own));
    }
    code.map_or(Ok(()), Err)
}

fn remedy(drift: &Drift, again: &str) -> String {
    match drift {
        Drift::Changed { image, locked, .. } if locked.contains('@') => format!(
            "`docker pull {locked} && docker tag {locked} {image}` brings the locked one, `{again}` accepts this one"
        ),
        Drift::Changed { image, .. } if image.starts_with("build ") => {
            format!("its folder or what it is built on has changed; `{again}` accepts it")
        }
        Drift::Changed { .. } => {
            format!(
                "the locked one has no registry: `docker load` brings it from a file; `{again}` accepts this one"
            )
        }
        Drift::Unpinned(_) | Drift::Unused(_) => format!("`{again}` writes it anew"),
    }
}

/// `faultbox lock`: pins the images of a spec.
pub fn lock(spec: &Path, root: Option<&Path>) -> u8 {
    match try_lock(spec, root) {
        Ok(code) | Err(code) => code,
    }
}

fn try_lock(path: &Path, root: Option<&Path>) -> Result<u8, u8> {
    let mut host = Host::probe()?;
    let addresses = host.addresses();
    let options = LoadOptions { root, ..LoadOptions::new(&addresses) };
    let plan = spec::load(path, &options).map_err(|errors| {
        notice(errors.to_string().trim_end());
        exit_code::USAGE
    })?;
    let services = contained(&plan, false);
    let runtime = super::run::runtime()?;
    let found = runtime.block_on(ready(&mut host, &services));
    runtime.shutdown_background();
    found?;
    let (file, name) = place(path);
    let mut lock = read(&file)?.unwrap_or_default();
    lock.pin(&name, host.images.values());
    std::fs::write(&file, lock.text()).map_err(|error| {
        notice(&format!("faultbox: {}: {error}", file.display()));
        exit_code::HOST
    })?;
    let pins = lock.pins(&name).into_iter().flatten();
    pins.for_each(|(image, pin)| say(&format!("{image} {pin}")));
    say(&format!("{} pinned in {}", lock.pins(&name).map_or(0, |pins| pins.len()), file.display()));
    Ok(exit_code::OK)
}
