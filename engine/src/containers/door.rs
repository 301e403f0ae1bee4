//! Where a container's shim and its supervisor meet: a folder that is mounted into the container.

use super::ContainerError;
use crate::os;
use crate::supervisor::SHIM;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// The folder that is mounted into a container: the shim, and the socket on which it is awaited.
pub(super) struct Door {
    listener: OwnedFd,
}

impl Door {
    /// Makes the folder, and listens.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) fn open(dir: &Path) -> Result<Door, ContainerError> {
        let failed = |source: io::Error| ContainerError::io(dir.display().to_string())(source);
        std::fs::create_dir_all(dir).map_err(failed)?;
        // Whatever user the image runs as has to get through. The folder above is ours alone.
        os::set_mode(dir, 0o755).map_err(failed)?;
        let shim = dir.join("shim");
        // One that a container before this one used: it may be executed still, and is read-only.
        let _ = std::fs::remove_file(&shim);
        std::fs::write(&shim, SHIM).and_then(|()| os::set_mode(&shim, 0o555)).map_err(failed)?;
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
        os::set_mode(&path, 0o666).map_err(failed)?;
        Ok(Door { listener })
    }

    /// Another hold on the socket, for who may wait on it later.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub(super) fn again(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone()
    }

    /// The shim's connection.
    ///
    /// # Errors
    /// When the socket fails.
    pub(super) async fn answer(self) -> io::Result<OwnedFd> {
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

/// A connection to the shim of a kept container.
///
/// # Errors
/// When nobody waits there.
pub(super) fn knock(control: &Path) -> io::Result<OwnedFd> {
    let shim = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(shim.as_raw_fd(), &UnixAddr::new(control)?)?;
    Ok(shim)
}
