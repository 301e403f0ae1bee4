//! A part of a read or write: the call is made here, with a smaller count, on a duplicate of the
//! caller's descriptor (`pidfd_getfd`), and answered with what it came to.
//!
//! A filter cannot change a call's arguments, so a short count can only be had this way. File
//! offsets, `O_APPEND` and a socket's state are those of the open file, which both descriptors
//! share.
//!
//! Contract: a call that fails here has moved nothing and is then made by its caller, who sees its
//! own error (and SIGPIPE). One that would block waits here, on a thread of its own, until it can
//! go on, its caller is gone or the service is being stopped; the socket's own timeout holds. A
//! buffer that is read and the answer belong together: the caller is asked for again in between.
//!
//! Not modelled: `sendmmsg` and `recvmmsg`, messages with control data or an address, datagrams,
//! `RWF_` flags (all of these are no transfers: no rule about bytes looks at them); limits of the
//! caller's own (`RLIMIT_FSIZE`); more than [`MOST`] at once; `O_DIRECT`, where the part has to be
//! whole blocks or the whole call is made. A write to a pipe is at most `PIPE_BUF` long.

use super::calls::{Call, PARTIAL};
use super::remap::process_of;
use super::sys::{self, Notification, Notifier, Response};
use super::target::{read_memory, write_memory};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, send, sockopt};
use nix::sys::time::TimeValLike;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt};

/// What is moved at once at most.
pub(super) const MOST: u64 = 16 << 20;

/// How long a caller that is gone may be waited for.
const TICK_MS: u16 = 50;

/// What a call asks to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transfer {
    /// From the descriptor to the caller.
    reads: bool,
    fd: i32,
    /// Places in the caller's memory and their lengths.
    parts: Vec<(u64, u64)>,
    /// Where in the file; `None` is where the file stands.
    offset: Option<u64>,
    /// Of a socket's call.
    flags: Option<MsgFlags>,
    /// Where the message's own flags stand, for `recvmsg`.
    told: Option<u64>,
}

impl Transfer {
    /// What this call asks to move; `None` where no part of it can be moved.
    pub(super) fn of(call: &Call, notification: &Notification) -> Option<Self> {
        if !PARTIAL.contains(&call.name) {
            return None;
        }
        let [fd, at, len, fourth, fifth, sixth] = notification.args;
        let tid = notification.tid;
        let plain = |parts| Transfer {
            reads: call.name.starts_with("read")
                || call.name.starts_with("pread")
                || call.name.starts_with("recv"),
            fd: fd as u32 as i32,
            parts,
            offset: None,
            flags: None,
            told: None,
        };
        let flags = |bits: u64| Some(MsgFlags::from_bits_retain(bits as u32 as i32));
        Some(match call.name {
            "write" | "read" => plain(vec![(at, len)]),
            "pwrite64" | "pread64" => Transfer { offset: Some(fourth), ..plain(vec![(at, len)]) },
            "writev" | "readv" => plain(vector(tid, at, len)?),
            "pwritev" | "preadv" => Transfer { offset: Some(fourth), ..plain(vector(tid, at, len)?) },
            "pwritev2" | "preadv2" if sixth == 0 => {
                Transfer { offset: Some(fourth).filter(|at| *at != u64::MAX), ..plain(vector(tid, at, len)?) }
            }
            "sendto" | "recvfrom" if fifth == 0 => {
                Transfer { flags: flags(fourth), ..plain(vec![(at, len)]) }
            }
            "sendmsg" | "recvmsg" => {
                // `struct msghdr`: name and its length, parts and their count, control and its
                // length, flags.
                let mut header = [0; 56];
                (read_memory(tid, at, &mut header)? == header.len()).then_some(())?;
                let word = |n: usize| Some(u64::from_ne_bytes(*header.get(n * 8..)?.first_chunk()?));
                let bare = word(0)? == 0 && (word(4)? == 0 || word(5)? == 0);
                bare.then_some(())?;
                let told = (call.name == "recvmsg").then_some(at + 48);
                Transfer { flags: flags(len), told, ..plain(vector(tid, word(2)?, word(3)?)?) }
            }
            _ => return None,
        })
    }

    /// How many bytes.
    pub(super) fn total(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (_, len)| sum.saturating_add(*len))
    }

    /// Moves at most so many bytes; says what the call gets.
    ///
    /// # Errors
    /// When the supervision cannot do it on this host.
    pub(super) fn at_most(
        &self,
        most: u64,
        notifier: &Notifier,
        notification: &Notification,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Response, Errno> {
        let taken = process_of(notification.tid).ok_or(Errno::ESRCH);
        let file = match taken.and_then(|process| sys::take_descriptor(process, self.fd)) {
            Ok(file) => File::from(file),
            // It is gone, or has no such descriptor: its own error says so.
            Err(Errno::ESRCH | Errno::EBADF) => return Ok(Response::Continue),
            Err(errno) => return Err(errno),
        };
        let mut left = most.min(MOST);
        let mut parts = Vec::new();
        for (at, len) in &self.parts {
            let len = left.min(*len);
            left -= len;
            parts.push((*at, usize::try_from(len).unwrap_or(usize::MAX)));
        }
        let total = parts.iter().map(|(_, len)| len).sum();
        let mut bytes = vec![0; total];
        if !self.reads && !gather(notification.tid, &parts, &mut bytes) {
            return Ok(Response::Continue);
        }
        let still = || notifier.valid(notification.id) && !stopped();
        if !still() {
            return Ok(Response::Continue);
        }
        let moved = match self.make(&file, &mut bytes, &still) {
            Ok(moved) => moved,
            Err(Errno::EAGAIN) => return Ok(Response::Errno(libc::EAGAIN)),
            Err(_) => return Ok(Response::Continue),
        };
        if self.reads {
            let read = bytes.get(..moved).unwrap_or(&bytes);
            if !notifier.valid(notification.id) || !scatter(notification.tid, &parts, read) {
                return Ok(Response::Errno(libc::EFAULT));
            }
            if let Some(told) = self.told {
                write_memory(notification.tid, told, &[0; 4]);
            }
        }
        Ok(Response::Value(i64::try_from(moved).unwrap_or(i64::MAX)))
    }

    fn make(&self, mut file: &File, bytes: &mut [u8], still: &dyn Fn() -> bool) -> Result<usize, Errno> {
        let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        let kind = file.metadata().map_err(errno)?.file_type();
        if let Some(offset) = self.offset {
            let made = if self.reads { file.read_at(bytes, offset) } else { file.write_at(bytes, offset) };
            return made.map_err(errno);
        }
        if kind.is_socket() {
            return self.through_socket(file, bytes, still);
        }
        if kind.is_fifo() {
            wait(file, self.reads, None, still)?;
            let most = if self.reads { bytes.len() } else { bytes.len().min(libc::PIPE_BUF) };
            let bytes = bytes.get_mut(..most).unwrap_or_default();
            return if self.reads { file.read(bytes) } else { file.write(bytes) }.map_err(errno);
        }
        if self.reads { file.read(bytes) } else { file.write(bytes) }.map_err(errno)
    }

    fn through_socket(
        &self,
        file: &File,
        bytes: &mut [u8],
        still: &dyn Fn() -> bool,
    ) -> Result<usize, Errno> {
        if getsockopt(file, sockopt::SockType)? != SockType::Stream {
            return Err(Errno::EOPNOTSUPP);
        }
        let timeout = match self.reads {
            true => getsockopt(file, sockopt::ReceiveTimeout)?,
            false => getsockopt(file, sockopt::SendTimeout)?,
        };
        let mut left_ms = Some(timeout.num_milliseconds()).filter(|ms| *ms > 0);
        let asked = self.flags.unwrap_or(MsgFlags::empty());
        let flags = (asked | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) & !MsgFlags::MSG_WAITALL;
        let waits = !asked.contains(MsgFlags::MSG_DONTWAIT);
        loop {
            let made = match self.reads {
                true => recv(file.as_raw_fd(), bytes, flags),
                false => send(file.as_raw_fd(), bytes, flags),
            };
            match made {
                Err(Errno::EAGAIN) if waits => left_ms = wait(file, self.reads, left_ms, still)?,
                made => return made,
            }
        }
    }
}

/// Waits until the call could go on; says what is left of the time. `EAGAIN`: it is not to wait, or
/// not any longer. `EINTR`: nobody waits for it any more.
fn wait(
    file: &File,
    reads: bool,
    mut left_ms: Option<i64>,
    still: &dyn Fn() -> bool,
) -> Result<Option<i64>, Errno> {
    let status = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    let events = if reads { PollFlags::POLLIN } else { PollFlags::POLLOUT };
    loop {
        let waits = !status.contains(OFlag::O_NONBLOCK);
        let tick = if waits { TICK_MS } else { 0 };
        let mut polled = [PollFd::new(file.as_fd(), events)];
        match poll(&mut polled, PollTimeout::from(tick)) {
            Ok(0) if !waits => return Err(Errno::EAGAIN),
            Ok(0) => {
                left_ms = left_ms.map(|left| left - i64::from(tick));
                if left_ms.is_some_and(|left| left <= 0) {
                    return Err(Errno::EAGAIN);
                }
            }
            Ok(_) => return Ok(left_ms),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if !still() {
            return Err(Errno::EINTR);
        }
    }
}

/// The places and lengths that a `struct iovec` array in the thread's memory holds.
fn vector(tid: u32, at: u64, count: u64) -> Option<Vec<(u64, u64)>> {
    const MOST_PARTS: u64 = 1024;
    let count = usize::try_from(count).ok().filter(|_| count <= MOST_PARTS)?;
    let mut bytes = vec![0; count * 16];
    (read_memory(tid, at, &mut bytes)? == bytes.len()).then_some(())?;
    let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u64::from_ne_bytes(*word));
    bytes.chunks_exact(16).map(|part| Some((word(part)?, word(part.get(8..)?)?))).collect()
}

fn gather(tid: u32, parts: &[(u64, usize)], mut into: &mut [u8]) -> bool {
    for (at, len) in parts {
        let Some((part, rest)) = into.split_at_mut_checked(*len) else { return false };
        if !part.is_empty() && read_memory(tid, *at, part) != Some(*len) {
            return false;
        }
        into = rest;
    }
    true
}

fn scatter(tid: u32, parts: &[(u64, usize)], mut from: &[u8]) -> bool {
    for (at, len) in parts {
        let (part, rest) = from.split_at((*len).min(from.len()));
        if !part.is_empty() && !write_memory(tid, *at, part) {
            return false;
        }
        from = rest;
    }
    true
}
