//! What this user may do with the container engine: reach it, and look into its processes.
//!
//! Contract: the engine is really asked, and the process that answers at its socket is really looked
//! at: it is of the same user as the containers' processes are, so what is refused there is
//! refused in them. (A container whose processes are of this very user can be looked into all the same.)
//!
//! Not modelled: what answers at a `tcp://` address is not known; then the first process of this
//! host stands for it.

use super::{ContainerError, Engine};
use crate::supervisor::{Lack, may_look_into};
use std::io::ErrorKind;
use std::path::Path;

/// Where Docker listens unless `DOCKER_HOST` says otherwise.
const USUAL: &str = "unix:///var/run/docker.sock";

/// What was found out about the container engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFacts {
    /// Where it was looked for.
    pub endpoint: String,
    /// Its version, or why it does not answer.
    pub version: Result<String, Lack>,
    /// Whether the processes of its containers can be looked into.
    pub look_into: Result<(), Lack>,
}

/// Looks at the container engine.
pub async fn survey() -> EngineFacts {
    let endpoint = endpoint();
    match Engine::connect().await {
        Ok(engine) => {
            let look_into = engine.look_into().await;
            EngineFacts { endpoint, version: Ok(engine.version().to_owned()), look_into }
        }
        Err(error) => {
            let lack = match error {
                ContainerError::NoEngine { why, enable, .. } => Lack { why, enable },
                other => Lack { why: other.to_string(), enable: start() },
            };
            EngineFacts { endpoint, version: Err(lack.clone()), look_into: Err(lack) }
        }
    }
}

/// Whether this user can look into the processes of containers; else why not.
///
/// # Errors
/// What it would take.
pub(super) async fn look_into(endpoint: &str) -> Result<(), Lack> {
    const FIRST: i32 = 1;
    let answering = match socket(endpoint) {
        Some(path) => knock(path).await.ok().flatten(),
        None => None,
    };
    match may_look_into(answering.filter(|pid| *pid > 0).unwrap_or(FIRST).cast_unsigned()) {
        true => Ok(()),
        false => Err(Lack {
            why: "the kernel lets this user look into no process of another's".to_owned(),
            enable: "sudo setcap cap_sys_ptrace,cap_dac_read_search+ep \"$(command -v faultbox)\", or sudo faultbox ..."
                .to_owned(),
        }),
    }
}

/// `DOCKER_HOST`, else Docker's usual socket.
pub(super) fn endpoint() -> String {
    let told = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    told.unwrap_or_else(|| USUAL.to_owned())
}

fn socket(endpoint: &str) -> Option<&Path> {
    endpoint.strip_prefix("unix://").map(Path::new)
}

/// Whether there is a way to the engine's socket.
///
/// # Errors
/// Why not, and what would help.
pub(super) async fn way_in(endpoint: &str) -> Result<(), Lack> {
    let Some(path) = socket(endpoint) else { return Ok(()) };
    match knock(path).await {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(&error, group_of(path).as_deref())),
    }
}

/// The process that answers at a socket, where the system says it.
#[cfg(unix)]
async fn knock(path: &Path) -> std::io::Result<Option<i32>> {
    let stream = tokio::net::UnixStream::connect(path).await?;
    Ok(stream.peer_cred().ok().and_then(|peer| peer.pid()))
}

#[cfg(not(unix))]
async fn knock(_: &Path) -> std::io::Result<Option<i32>> {
    Err(ErrorKind::Unsupported.into())
}

/// What a refused connection comes to, at a socket that belongs to this group.
fn refused(error: &std::io::Error, group: Option<&str>) -> Lack {
    let (why, enable) = match (error.kind(), group) {
        (ErrorKind::PermissionDenied, Some(group)) if group != "root" => (
            format!("this user may not talk to it: its socket is for root and the group {group}"),
            format!("sudo usermod -aG {group} \"$USER\", then log in anew"),
        ),
        (ErrorKind::PermissionDenied, _) => {
            ("this user may not talk to it: its socket is root's".to_owned(), "sudo faultbox ...".to_owned())
        }
        (ErrorKind::NotFound, _) => ("there is no such socket".to_owned(), start()),
        (ErrorKind::ConnectionRefused, _) => ("nobody listens at its socket".to_owned(), start()),
        _ => (error.to_string(), start()),
    };
    Lack { why, enable }
}

/// How an engine is started.
pub(super) fn start() -> String {
    "sudo systemctl start docker (Debian, Ubuntu: sudo apt-get install docker.io first)".to_owned()
}

#[cfg(target_os = "linux")]
fn group_of(path: &Path) -> Option<String> {
    use nix::unistd::{Gid, Group};
    use std::os::unix::fs::MetadataExt;
    let group = std::fs::metadata(path).ok()?.gid();
    Group::from_gid(Gid::from_raw(group)).ok().flatten().map(|group| group.name)
}

#[cfg(not(target_os = "linux"))]
fn group_of(_: &Path) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_socket_names_its_group() {
        let denied = std::io::Error::from(ErrorKind::PermissionDenied);
        let lack = refused(&denied, Some("docker"));
        assert_eq!(lack.enable, "sudo usermod -aG docker \"$USER\", then log in anew");
        assert!(lack.why.contains("the group docker"), "{lack}");
        for group in [Some("root"), None] {
            assert_eq!(refused(&denied, group).enable, "sudo faultbox ...");
        }
        for kind in [ErrorKind::NotFound, ErrorKind::ConnectionRefused, ErrorKind::TimedOut] {
            assert!(refused(&kind.into(), Some("docker")).enable.contains("start docker"));
        }
    }

    #[tokio::test]
    async fn our_own_socket_is_answered_by_a_process_that_we_may_look_into() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let endpoint = format!("unix://{}", path.display());
        assert!(way_in(&endpoint).await.unwrap_err().why.contains("no such socket"));
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert_eq!(way_in(&endpoint).await, Ok(()));
        assert_eq!(look_into(&endpoint).await, Ok(()));
        drop(listener);
        assert!(way_in(&endpoint).await.unwrap_err().why.contains("nobody listens"));
    }
}
