//! Containers: the services that a spec declares by `image=`.
//!
//! In reading order: [`Engine`] is the container engine (whatever answers at `DOCKER_HOST`, else
//! Docker's usual socket): images, labels, what earlier runs left; [`Container`] is one service:
//! created with the [shim](crate::supervisor::SHIM) as its first program, it is
//! supervised from then on as a local service is; `keep` puts a reused service back to its state
//! just after `seed`, [`Slot`] is where a container that outlives its run is found again; `build`
//! makes images from folders, [`lock`] pins them; `access` tells what this user may do with the engine.
//!
//! Contract:
//! - The way into a container, and the listeners for what it asks for, are sockets that the shim
//!   makes inside: proxies and health checks reach it whatever its network is. Without pinned
//!   `ports` that network is loopback only: nothing goes out unseen, and no port of the host is taken.
//! - Everything of ours carries the label `faultbox`; nothing else is ever touched. A container
//!   ends with the run that made it; what a killed run left is removed by the next one, and a run
//!   that is alive is left alone. A container that was kept on purpose waits for the next run.
//! - A handoff that fails is an error with its reason, never a container without its filter.
//! - An image is what its local digest says; it is pulled only when it is absent.
//!
//! Not modelled: engines on another machine or in a virtual machine (the shim's socket
//! must be reachable), `cwd` in containers.

mod access;
mod build;
mod container;
mod context;
#[cfg(target_os = "linux")]
mod door;
#[cfg(not(target_os = "linux"))]
#[path = "doorless.rs"]
mod door;
mod engine;
pub mod keep;
mod kept;
pub mod lock;

pub use access::{EngineFacts, survey};
pub use container::{Container, StartContainer};
pub use engine::{Engine, ImageFacts, Removed};
pub use kept::{Keeping, Slot};

/// The label of everything of ours; its value is the version.
pub const LABEL: &str = "faultbox";
/// Who made it: host, process and its start, as `engine` writes and reads it.
const LABEL_OWNER: &str = "faultbox.owner";
/// The service's name.
const LABEL_SERVICE: &str = "faultbox.service";
/// The image's name in the spec. (Containers are made from its id.)
const LABEL_IMAGE: &str = "faultbox.image";
/// A hash of the service's definition.
const LABEL_DEFINITION: &str = "faultbox.definition";
/// The slot of a container that can be kept: a folder on this machine.
const LABEL_SLOT: &str = "faultbox.slot";
/// The spec of a container that can be kept.
const LABEL_SPEC: &str = "faultbox.spec";
/// On images: what an image that carries another's name really is.
const LABEL_REALLY: &str = "faultbox.really";

/// Why a container engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Nothing answers.
    #[error(
        "no container engine answers at {endpoint} ({why}); to enable: {enable}; or set DOCKER_HOST, or run stand-ins with --embedded"
    )]
    NoEngine {
        /// Where one was looked for.
        endpoint: String,
        /// What the attempt said.
        why: String,
        /// The command that would help.
        enable: String,
    },
    /// The engine said no.
    #[error("the container engine could not {what}: {why}")]
    Engine {
        /// What was asked.
        what: String,
        /// What it said.
        why: String,
    },
    /// The image is not there and could not be pulled.
    #[error(
        "the image {image} is not on this machine and could not be pulled from {registry}: {why}; `docker pull {image}` says more, `docker load` brings it from a file, --embedded runs stand-ins"
    )]
    Pull {
        /// The image.
        image: String,
        /// Its registry.
        registry: String,
        /// What the engine said.
        why: String,
    },
    /// A `build=` that failed.
    #[error("build of {service} from {folder} failed: {why}")]
    Build {
        /// The service.
        service: String,
        /// Its folder, as the spec writes it.
        folder: String,
        /// What the engine said, then the last lines of the build.
        why: String,
    },
    /// A declaration that containers cannot carry out.
    #[error("{0}")]
    Declaration(String),
    /// A file or socket of ours.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The shim did not hand over.
    #[error(transparent)]
    Handoff(#[from] crate::supervisor::LaunchError),
}

impl ContainerError {
    fn engine(what: impl Into<String>) -> impl FnOnce(bollard::errors::Error) -> Self {
        let what = what.into();
        move |error| ContainerError::Engine { what, why: words(&error) }
    }

    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| ContainerError::Io { what, source }
    }
}

/// An engine's error in one line.
fn words(error: &bollard::errors::Error) -> String {
    use bollard::errors::Error;
    let text = match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
