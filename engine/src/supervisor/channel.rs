//! The control socket between Faultbox, the helper and the service-to-be: whole messages with
//! descriptors.
//!
//! Contract: a message arrives whole or not at all; the end of the other side is `None`.

use super::features::{Feature, Refused};
use super::filter::Trap;
use super::sys;
use super::told::Exit;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, sendmsg, shutdown, socketpair,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::ffi::OsString;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// What Faultbox says to the launcher, later the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Command {
    /// Launch a service; its [`Config`] is in the file that comes with it.
    Launch,
    /// Find out what the host permits.
    Probe,
    /// Notifications are being answered: execute.
    Go,
    /// A new TCP socket, please.
    Socket {
        /// IPv6 instead of IPv4.
        v6: bool,
    },
    /// Send this signal to every process of the service.
    Signal(i32),
    /// Kill every process of the service and end.
    End,
    /// The end of this channel is not the end of the service (a container's shim only). The first
    /// time, the socket on which the next channel will arrive comes with this.
    Keep,
}

/// What the launcher, later the helper, says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The listeners, or some more of them.
    Listeners,
    /// The filter's listener.
    Filter,
    /// The listener of a filter that was made for a trial, and whether its calls wait on when a
    /// signal arrives.
    TrialFilter {
        /// They do.
        killable: bool,
    },
    /// The service's own code runs.
    Started(i32),
    /// It will not.
    Failed {
        /// What was tried.
        step: String,
        /// What the system said.
        errno: i32,
    },
    /// The socket that was asked for, or why there is none.
    Socket(Result<(), i32>),
    /// The service's first process ended.
    Exited(Exit),
    /// No process of the service is left.
    Empty,
    /// What the host permits.
    Probed(Probed),
}

/// What a launcher found out about the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Probed(pub Vec<(Feature, Result<(), Refused>)>);

/// What to launch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Config {
    pub program: OsString,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: OsString,
    pub isolated: bool,
    /// Names that lead to loopback, where it is isolated.
    pub names: Vec<String>,
    pub listen: Vec<SocketAddr>,
    /// The syscalls to trap.
    pub trap: Vec<Trap>,
    /// Process ids of its own.
    pub pids: bool,
}

/// Longest message: reports and commands are short, configurations travel as files.
const MAX_MESSAGE: usize = 8 * 1024;

/// One end of a control socket.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    /// Two ends, both closing at exec.
    pub(super) fn pair() -> nix::Result<(Channel, Channel)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Channel(a), Channel(b)))
    }

    /// A channel over an inherited socket.
    pub(super) fn over(socket: OwnedFd) -> Channel {
        Channel(socket)
    }

    /// The socket.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends one message.
    pub(super) fn send<T: Serialize>(&self, message: &T, with: &[BorrowedFd<'_>]) -> nix::Result<()> {
        let bytes = serde_json::to_vec(message).map_err(|_| Errno::EINVAL)?;
        self.send_bytes(&bytes, with)
    }

    /// Sends one message that is text (to a shim, which knows no JSON).
    pub(super) fn send_text(&self, text: &str) -> nix::Result<()> {
        self.send_bytes(text.as_bytes(), &[])
    }

    fn send_bytes(&self, bytes: &[u8], with: &[BorrowedFd<'_>]) -> nix::Result<()> {
        let raw: Vec<RawFd> = with.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let parts = [IoSlice::new(bytes)];
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Receives one message with its descriptors; `None` when the other end is gone.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> nix::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            match sys::receive_with_descriptors(self.0.as_fd(), &mut buffer) {
                Ok((0, _)) | Err(Errno::ECONNRESET) => return Ok(None),
                Ok((len, descriptors)) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    let message = serde_json::from_slice(bytes).map_err(|_| Errno::EBADMSG)?;
                    return Ok(Some((message, descriptors)));
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Lets the other end see the end of the channel; what it still sends can be received.
    pub(super) fn finish(&self) {
        // Already closed by the other side: nothing to tell it.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire;
    use super::{Command, Report};

    fn json<T: serde::Serialize>(message: &T) -> String {
        serde_json::to_string(message).unwrap()
    }

    #[test]
    fn the_shim_speaks_as_a_helper_does() {
        let report = |text: &str| format!("{:?}", serde_json::from_str::<Report>(text).unwrap());
        assert_eq!(report(wire::LISTENERS), "Listeners");
        assert_eq!(report(wire::FILTER), "Filter");
        assert_eq!(report(wire::STARTED), "Started(0)");
        assert_eq!(report(wire::SOCKET), "Socket(Ok(()))");
        assert_eq!(report(&wire::no_socket(24)), "Socket(Err(24))");
        let failed = wire::failed("execute \"a\\b\"\n\u{1}", 2);
        assert_eq!(report(&failed), "Failed { step: \"execute \\\"a\\\\b\\\"  \", errno: 2 }");
    }

    #[test]
    fn the_shim_understands_commands() {
        let parsed = |command: &Command| wire::Command::parse(&json(command));
        assert_eq!(parsed(&Command::Go), Some(wire::Command::Go));
        assert_eq!(parsed(&Command::End), Some(wire::Command::End));
        assert_eq!(parsed(&Command::Keep), Some(wire::Command::Keep));
        assert_eq!(parsed(&Command::Socket { v6: true }), Some(wire::Command::Socket { v6: true }));
        assert_eq!(parsed(&Command::Socket { v6: false }), Some(wire::Command::Socket { v6: false }));
        assert_eq!(parsed(&Command::Signal(15)), Some(wire::Command::Signal(15)));
        assert_eq!(parsed(&Command::Launch), None);
    }
}
