//! All `unsafe` of the engine: what neither `std` nor `nix` offers safely.
//!
//! Contract: every function here is safe to call with any arguments; descriptors come and go
//! as owned values.

use super::features::{Feature, refuse};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Lets other threads go before the calling one, which still gets about a tenth of a busy core.
pub fn step_back() {
    // SAFETY: takes no pointers; 0 is the calling thread. Where it is refused nothing changes.
    unsafe { libc::setpriority(libc::PRIO_PROCESS as _, 0, 10) };
}

/// How many columns a terminal has (`TIOCGWINSZ`, ioctl_tty(2)); `None` where it is none or does not say.
pub fn columns(terminal: &impl AsFd) -> Option<u16> {
    let terminal = terminal.as_fd();
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is borrowed for as long as the call takes; the kernel fills in the struct that it knows.
    let told = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (told == 0 && size.ws_col > 0).then_some(size.ws_col)
}

/// One instruction of a filter program, as the kernel wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub code: u16,
    pub if_true: u8,
    pub if_false: u8,
    pub operand: u32,
}

impl Instruction {
    /// From the eight bytes of a `struct sock_filter`.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let &[c0, c1, if_true, if_false, k0, k1, k2, k3] = bytes else { return None };
        let (code, operand) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes([k0, k1, k2, k3]));
        Some(Instruction { code, if_true, if_false, operand })
    }
}

/// A trapped call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Notification {
    /// The kernel's name for it.
    pub id: u64,
    /// The thread that waits.
    pub tid: u32,
    /// The syscall's number.
    pub number: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What a trapped call gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    /// It is made.
    Continue,
    /// It succeeded with 0, without being made.
    Success,
    /// It returned this, without being made.
    Value(i64),
    /// It failed with this errno, without being made.
    Errno(i32),
}

/// Descriptors that can come with one message.
const MAX_DESCRIPTORS: usize = 128;

/// Receives one message and its descriptors; 0 bytes mean the end of the channel.
pub(super) fn receive_with_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel made these descriptors for this message just now; nobody else
            // in this process knows them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes, descriptors))
}

/// Which side of a fork this is.
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's id.
    Parent(i32),
}

/// Forks a process of one thread. (A child of several could find any lock taken.)
pub(super) fn fork() -> nix::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|_| Errno::ENOSYS)?.count();
    if threads != 1 {
        return Err(Errno::EDEADLK);
    }
    // SAFETY: there is no other thread whose locks or half-changed state the child could inherit.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::last()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends this process at once, without running exit handlers.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Collects one child that has ended. `Ok(None)`: there are children and none has ended (only
/// when not blocking); `Err(ECHILD)`: there are none.
pub(super) fn reap(block: bool) -> nix::Result<Option<(i32, i32)>> {
    let mut status = 0;
    let options = if block { 0 } else { libc::WNOHANG };
    // SAFETY: `status` is a valid place for an int for the length of the call.
    match unsafe { libc::waitpid(-1, &mut status, options) } {
        -1 => Err(Errno::last()),
        0 => Ok(None),
        pid => Ok(Some((pid, status))),
    }
}

/// Gives SIGPIPE its default meaning back (Rust's runtime ignores it, and exec would keep that).
pub(super) fn default_sigpipe() {
    // SAFETY: setting a default disposition installs no handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Marks all descriptors from 3 on as closing at exec. Fails on kernels before 5.11.
pub(super) fn close_others_at_exec() -> nix::Result<()> {
    const CLOEXEC: libc::c_uint = 1 << 2;
    // SAFETY: the call takes three integers and closes nothing by itself.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, CLOEXEC) };
    Errno::result(result).map(drop)
}

/// Reads standard input to its end in a process that has nothing else to do, collects children that lose their parents
/// until there are none, and ends. No other descriptor from 3 on is held open meanwhile (on kernels from 5.9 on).
pub(super) fn be_init() -> ! {
    // SAFETY: to ignore a signal installs no handler of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    // SAFETY: the call takes three integers. Nothing in this process uses one of these descriptors again, nor drops
    // its owner: this function does not return, and what called it is left as it is.
    unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, 0 as libc::c_uint) };
    while matches!(nix::unistd::read(std::io::stdin(), &mut [0]), Ok(1..) | Err(Errno::EINTR)) {}
    while matches!(reap(true), Ok(_) | Err(Errno::EINTR)) {}
    exit_now(0)
}

/// Brings the loopback interface of this network namespace up.
pub(super) fn loopback_up() -> nix::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero `ifreq` is a valid value (an empty name, zero flags).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    // SAFETY: SIOCGIFFLAGS reads the name and writes the flags of the `ifreq` it is given.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request) })?;
    // SAFETY: the kernel has just filled in the flags, so this is the active field.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the name and flags of the `ifreq` it is given.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) }).map(drop)
}

/// Gives loopback a second address, 127.0.0.2. Where a host has no other than 127.0.0.1, glibc's
/// `getaddrinfo` with `AI_ADDRCONFIG` (librdkafka and others ask so) resolves nothing, not even numbers.
pub(super) fn loopback_second_address() -> nix::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero `ifreq` is a valid value (an empty name, an empty address).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo:1") {
        *place = *byte as libc::c_char;
    }
    // A `sockaddr_in` in a `sockaddr`: two bytes of port, four of address.
    let mut address = libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: [0; 14] };
    for (place, byte) in address.sa_data.iter_mut().skip(2).zip([127u8, 0, 0, 2]) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_addr = address;
    // SAFETY: SIOCSIFADDR reads the name and address of the `ifreq` it is given.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR as _, &request) }).map(drop)
}

/// Puts a filter program on this thread (and all that it starts) and returns the listener of its
/// notifications, and whether trapped calls wait on when signals arrive (asked for by `killable`,
/// where the kernel can).
pub(super) fn install_filter(program: &[Instruction], killable: bool) -> nix::Result<(OwnedFd, bool)> {
    let mut instructions: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.if_true, jf: i.if_false, k: i.operand })
        .collect();
    let len = u16::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog { len, filter: instructions.as_mut_ptr() };
    let always = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let mut last = Errno::EINVAL;
    let flags = [libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0];
    for killable in flags.into_iter().skip(usize::from(!killable)) {
        // SAFETY: `program` points at `len` instructions that live until after the call; the
        // kernel copies and checks them.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, always | killable, &program)
        };
        match Errno::result(result) {
            Ok(fd) => {
                // SAFETY: the kernel returned a new descriptor that only we know.
                let listener = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
                return Ok((listener, killable != 0));
            }
            Err(errno) => last = errno,
        }
        if last != Errno::EINVAL {
            break;
        }
    }
    Err(last)
}

mod raw {
    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, libc::seccomp_notif_resp);
    nix::ioctl_write_ptr!(id_valid, b'!', 2, u64);
    nix::ioctl_write_ptr!(add_descriptor, b'!', 3, libc::seccomp_notif_addfd);
    // The flags are passed by value, although the number says pointer.
    nix::ioctl_write_int_bad!(set_flags, nix::request_code_write!(b'!', 4, size_of::<u64>()));
}

/// What waiting for a trapped call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// There is one.
    Ready,
    /// There is none yet.
    TimedOut,
    /// Nobody is left under the filter.
    Over,
}

/// The supervisor's end of a filter.
#[derive(Debug)]
pub(super) struct Notifier {
    listener: OwnedFd,
}

impl Notifier {
    pub(super) fn new(listener: OwnedFd) -> Self {
        Notifier { listener }
    }

    /// Its descriptor: readable while a call waits to be received.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Asks for the fast wake-up: caller and supervisor take turns on one CPU.
    pub(super) fn sync_wake_up(&self) -> nix::Result<()> {
        const SYNC_WAKE_UP: libc::c_int = 1;
        refuse(Feature::SyncWakeUp)?;
        // SAFETY: takes an integer; a listener of another kind answers EINVAL or ENOTTY.
        unsafe { raw::set_flags(self.listener.as_raw_fd(), SYNC_WAKE_UP) }.map(drop)
    }

    /// Waits for a trapped call. `ENOENT`: one has vanished (its caller was killed), or there is
    /// nobody left under the filter.
    pub(super) fn receive(&self) -> nix::Result<Notification> {
        // SAFETY: an all-zero notification is a valid value, and what the kernel asks for.
        let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills in exactly the struct whose size is part of the number.
        unsafe { raw::receive(self.listener.as_raw_fd(), &mut notif) }?;
        Ok(Notification {
            id: notif.id,
            tid: notif.pid,
            number: notif.data.nr.cast_unsigned(),
            args: notif.data.args,
        })
    }

    /// Waits until there is something to receive, at most `timeout_ms` (-1: for ever).
    pub(super) fn wait(&self, timeout_ms: i32) -> nix::Result<Wait> {
        let mut poll = libc::pollfd { fd: self.listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is one valid `pollfd` for the length of the call.
        Errno::result(unsafe { libc::poll(&mut poll, 1, timeout_ms) })?;
        Ok(match poll.revents {
            0 => Wait::TimedOut,
            events if events & libc::POLLIN != 0 => Wait::Ready,
            _ => Wait::Over,
        })
    }

    /// Whether the call still waits: what was read about its thread really was about it.
    pub(super) fn valid(&self, id: u64) -> bool {
        // SAFETY: `id` is a valid u64 for the length of the call.
        unsafe { raw::id_valid(self.listener.as_raw_fd(), &id) }.is_ok()
    }

    /// Puts a descriptor into the process of a trapped call, which closes it when it executes; says
    /// which number it has there.
    pub(super) fn add_descriptor(&self, id: u64, descriptor: BorrowedFd<'_>) -> nix::Result<i32> {
        let request = libc::seccomp_notif_addfd {
            id,
            flags: 0,
            srcfd: descriptor.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: libc::O_CLOEXEC.cast_unsigned(),
        };
        // SAFETY: the kernel reads exactly the struct whose size is part of the number.
        unsafe { raw::add_descriptor(self.listener.as_raw_fd(), &request) }
    }

    /// Answers a trapped call. That its caller is gone meanwhile is no error.
    pub(super) fn respond(&self, id: u64, response: Response) {
        let _ = self.try_respond(id, response);
    }

    /// Answers a trapped call; says what the kernel does.
    pub(super) fn try_respond(&self, id: u64, response: Response) -> nix::Result<()> {
        let (val, error, flags) = match response {
            Response::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Response::Success => (0, 0, 0),
            Response::Value(value) => (value, 0, 0),
            Response::Errno(errno) => (0, -errno, 0),
        };
        let mut answer = libc::seccomp_notif_resp { id, val, error, flags };
        loop {
            // SAFETY: the kernel reads exactly the struct whose size is part of the number.
            match unsafe { raw::send(self.listener.as_raw_fd(), &mut answer) } {
                Err(Errno::EINTR) => {}
                sent => return sent.map(drop),
            }
        }
    }
}

/// A handle of a process, which stays that one's.
pub(super) fn open_process(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: two integers; the kernel returns a new descriptor or an error.
    let pidfd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the descriptor is new and only we know it.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd as RawFd) })
}

/// Sends a signal to the process of a handle.
pub(super) fn signal_process(process: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: integers and a null pointer, which stands for what kill(2) would say.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_info, 0) };
    Errno::result(result).map(drop)
}

/// A duplicate of descriptor `fd` of the process `pid`.
pub(super) fn take_descriptor(pid: i32, fd: i32) -> nix::Result<OwnedFd> {
    refuse(Feature::TakeDescriptor)?;
    take_from(open_process(pid)?.as_fd(), fd)
}

/// A duplicate of descriptor `fd` of the process of a handle.
pub(super) fn take_from(process: BorrowedFd<'_>, fd: i32) -> nix::Result<OwnedFd> {
    // SAFETY: three integers; the kernel returns a new descriptor or an error.
    let taken = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })?;
    // SAFETY: the descriptor is new and only we know it.
    Ok(unsafe { OwnedFd::from_raw_fd(taken as RawFd) })
}

/// The state of a TCP socket (include/net/tcp_states.h) and how many of its packets are not acknowledged yet.
pub(super) fn tcp_state(socket: BorrowedFd<'_>) -> nix::Result<(u8, u32)> {
    // SAFETY: an all-zero `tcp_info` is a valid value: integers only.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which are those of `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut len,
        )
    };
    Errno::result(result)?;
    Ok((info.tcpi_state, info.tcpi_unacked))
}

/// Makes a TCP socket acknowledge at once what it has received (`TCP_QUICKACK`).
pub(super) fn acknowledge(socket: BorrowedFd<'_>) {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // A socket of another kind refuses and stays as it is.
    // SAFETY: the kernel reads `len` bytes, which are those of `on`.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_QUICKACK,
            (&raw const on).cast(),
            len,
        )
    };
}

/// Sets a timer with a descriptor: it comes once, after so long, or does not where that is zero.
pub(super) fn set_timer(timer: BorrowedFd<'_>, wait: std::time::Duration) -> nix::Result<()> {
    let time = |of: std::time::Duration| *nix::sys::time::TimeSpec::from_duration(of).as_ref();
    let new = libc::itimerspec { it_interval: time(std::time::Duration::ZERO), it_value: time(wait) };
    // SAFETY: `new` is a valid `itimerspec` for the length of the call; nobody asks for the old one.
    let result = unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &new, std::ptr::null_mut()) };
    Errno::result(result).map(drop)
}
