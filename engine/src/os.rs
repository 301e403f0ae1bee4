//! What differs between the systems that this program itself runs on, but for processes ([`crate::supervisor`]).
//!
//! Contract: the same meaning everywhere. Where a system has no such thing, what is said of each function holds.
//! Services run on Linux only; elsewhere bundles are read and cells are judged.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// What tells one content of a file from another without reading it: device, number, length in bytes, and when it was
/// written and changed (seconds, nanoseconds since the epoch).
pub type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};

    pub use tokio::net::{UnixListener, UnixStream};

    /// The stamp of a file.
    pub fn stamp(meta: &Metadata) -> Stamp {
        let (modified, changed) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        (meta.dev(), meta.ino(), meta.size(), modified, changed)
    }

    /// Its permissions, as chmod(2) has them.
    pub fn mode(meta: &Metadata) -> u32 {
        meta.permissions().mode() & 0o7777
    }

    /// Gives a file or folder these permissions.
    ///
    /// # Errors
    /// When it is another's, or gone.
    pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }

    /// Whether this is a file that may be executed.
    pub fn is_executable(path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    }

    /// Makes a folder that only this user gets into.
    ///
    /// # Errors
    /// When there is one already, or it cannot be made.
    pub fn create_private_dir(path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().mode(0o700).create(path)
    }

    /// Whether this is a folder that nobody but its owner gets into, and, where that is Linux, this user's own.
    pub fn is_ours_alone(meta: &Metadata) -> bool {
        #[cfg(target_os = "linux")]
        let own = meta.uid() == user();
        #[cfg(not(target_os = "linux"))]
        let own = true;
        meta.is_dir() && own && mode(meta) & 0o077 == 0
    }

    /// Opens a file for writing, empty, that only this user may read.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create_private_file(path: &Path) -> io::Result<File> {
        File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
    }

    /// The bytes of a path.
    pub fn bytes_of(path: &Path) -> std::borrow::Cow<'_, [u8]> {
        std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).into()
    }
}

#[cfg(not(unix))]
mod other {
    use super::*;
    use std::convert::Infallible;
    use std::time::{SystemTime, UNIX_EPOCH};
    use tokio::io::DuplexStream;

    /// A socket with a path, of which there is none here.
    pub struct UnixListener(Infallible);

    impl UnixListener {
        /// Fails.
        ///
        /// # Errors
        /// Always.
        pub fn bind(_: &Path) -> io::Result<UnixListener> {
            Err(io::ErrorKind::Unsupported.into())
        }

        /// Never called.
        ///
        /// # Errors
        /// None.
        pub async fn accept(&self) -> io::Result<(DuplexStream, ())> {
            match self.0 {}
        }
    }

    /// A connection to such a socket, of which there is none here.
    pub struct UnixStream;

    impl UnixStream {
        /// Fails.
        ///
        /// # Errors
        /// Always.
        pub async fn connect(_: &Path) -> io::Result<DuplexStream> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// The stamp of a file; without a device and a number.
    pub fn stamp(meta: &Metadata) -> Stamp {
        let since = |time: io::Result<SystemTime>| {
            let since = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            (since.as_secs().cast_signed(), i64::from(since.subsec_nanos()))
        };
        (0, 0, meta.len(), since(meta.modified()), since(meta.created()))
    }

    /// What a file or a folder usually has elsewhere: there are no permissions here.
    pub fn mode(meta: &Metadata) -> u32 {
        if meta.is_dir() { 0o755 } else { 0o644 }
    }

    /// Does nothing: there are no such permissions here.
    ///
    /// # Errors
    /// None.
    pub fn set_mode(_: &Path, _: u32) -> io::Result<()> {
        Ok(())
    }

    /// Whether this is a file.
    pub fn is_executable(path: &Path) -> bool {
        path.is_file()
    }

    /// Makes a folder; the one for temporary files is the user's own here.
    ///
    /// # Errors
    /// When there is one already, or it cannot be made.
    pub fn create_private_dir(path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    /// Whether this is a folder.
    pub fn is_ours_alone(meta: &Metadata) -> bool {
        meta.is_dir()
    }

    /// Opens a file for writing, empty.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create_private_file(path: &Path) -> io::Result<File> {
        File::create(path)
    }

    /// The path as text.
    pub fn bytes_of(path: &Path) -> std::borrow::Cow<'_, [u8]> {
        path.to_string_lossy().into_owned().into_bytes().into()
    }
}

#[cfg(not(unix))]
pub use other::*;
#[cfg(unix)]
pub use unix::*;

/// The user's number; 0 where that is not Linux.
pub fn user() -> u32 {
    #[cfg(target_os = "linux")]
    let user = nix::unistd::geteuid().as_raw();
    #[cfg(not(target_os = "linux"))]
    let user = 0;
    user
}

/// A second hold on a connection, by which its close can be made a reset.
#[cfg(target_os = "linux")]
pub struct Hold(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Hold {
    /// Holds a connection open; `None` where no descriptor is left.
    pub fn on(stream: &tokio::net::TcpStream) -> Option<Hold> {
        std::os::fd::AsFd::as_fd(stream).try_clone_to_owned().ok().map(Hold)
    }

    /// Its close, from now on, is a reset (RFC 9293 section 3.10.4: ABORT).
    pub fn reset_on_close(&self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // A socket that is already gone needs no reset.
        let _ = nix::sys::socket::setsockopt(&self.0, nix::sys::socket::sockopt::Linger, &linger);
    }
}

/// Nothing: connections are cut for services, which run on Linux.
#[cfg(not(target_os = "linux"))]
pub struct Hold;

#[cfg(not(target_os = "linux"))]
impl Hold {
    /// `None`.
    pub fn on(_: &tokio::net::TcpStream) -> Option<Hold> {
        None
    }

    /// Does nothing.
    pub fn reset_on_close(&self) {}
}
