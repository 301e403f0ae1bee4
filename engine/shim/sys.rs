//! All `unsafe` of the shim: the C library, declared here so that it needs no other crate.
//!
//! Contract: every function is safe to call with any arguments; descriptors come and go as owned
//! values; what fails says its errno.

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int;
    fn connect(fd: c_int, address: *const c_void, len: c_uint) -> c_int;
    fn accept4(fd: c_int, address: *mut c_void, len: *mut c_uint, flags: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize;
    fn recvmsg(fd: c_int, message: *mut Message, flags: c_int) -> isize;
    fn poll(fds: *mut Poll, count: usize, timeout: c_int) -> c_int;
    fn fork() -> c_int;
    fn setsid() -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn execve(path: *const c_char, args: *const *const c_char, env: *const *const c_char) -> c_int;
    fn _exit(code: c_int) -> !;
}

#[cfg(target_arch = "x86_64")]
const SYS_SECCOMP: c_long = 317;
#[cfg(target_arch = "aarch64")]
const SYS_SECCOMP: c_long = 277;
const SYS_CLOSE_RANGE: c_long = 436;

const AF_UNIX: c_int = 1;
const AF_INET: c_int = 2;
const AF_INET6: c_int = 10;
const SOCK_STREAM: c_int = 1;
const SOCK_SEQPACKET: c_int = 5;
const SOCK_CLOEXEC: c_int = 0o2000000;
const MSG_NOSIGNAL: c_int = 0x4000;
const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
const EINTR: i32 = 4;
const EINVAL: i32 = 22;

#[repr(C)]
struct Part {
    base: *mut c_void,
    len: usize,
}

#[repr(C)]
struct Message {
    name: *const c_void,
    name_len: c_uint,
    parts: *const Part,
    part_count: usize,
    control: *mut c_void,
    control_len: usize,
    flags: c_int,
}

/// Room for descriptors that go with a message, as the kernel lays it out.
#[repr(C, align(8))]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    fds: [c_int; DESCRIPTORS_MAX],
}

const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;
/// Bytes before the descriptors.
const CONTROL_HEAD: usize = 16;

#[repr(C)]
struct Poll {
    fd: c_int,
    events: i16,
    returned: i16,
}

#[repr(C)]
struct Filter {
    code: u16,
    yes: u8,
    no: u8,
    operand: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Filter,
}

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the kernel made this descriptor just now; nobody else in this process knows it.
    checked(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Connects to the control socket, which keeps the bounds of messages.
pub fn connect_to(path: &str) -> io::Result<OwnedFd> {
    let mut address = [0_u8; 110];
    address[..2].copy_from_slice(&(AF_UNIX as u16).to_ne_bytes());
    let place = address.get_mut(2..2 + path.len()).filter(|place| place.len() < 108);
    place.ok_or_else(|| io::Error::from_raw_os_error(EINVAL))?.copy_from_slice(path.as_bytes());
    // SAFETY: three integers.
    let socket = owned(unsafe { socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) })?;
    // SAFETY: `address` is 110 valid bytes for the length of the call.
    checked(unsafe { connect(socket.as_raw_fd(), address.as_ptr().cast(), 110) })?;
    Ok(socket)
}

/// The next connection to a control socket.
pub fn accept_on(door: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let none = std::ptr::null_mut();
    // SAFETY: no address is asked for.
    owned(unsafe { accept4(door.as_raw_fd(), none, none.cast(), SOCK_CLOEXEC) })
}

/// Two ends of a channel, both closing at exec.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [-1; 2];
    // SAFETY: `pair` is room for two descriptors.
    checked(unsafe { socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.as_mut_ptr()) })?;
    Ok((owned(pair[0])?, owned(pair[1])?))
}

/// A new TCP socket of this network.
pub fn tcp_socket(v6: bool) -> io::Result<OwnedFd> {
    // SAFETY: three integers.
    owned(unsafe { socket(if v6 { AF_INET6 } else { AF_INET }, SOCK_STREAM | SOCK_CLOEXEC, 0) })
}

/// Descriptors that can go with one message.
pub const DESCRIPTORS_MAX: usize = 64;

/// Sends one message with descriptors.
pub fn send(to: BorrowedFd<'_>, text: &str, with: &[RawFd]) -> io::Result<()> {
    let len = CONTROL_HEAD + 4 * with.len();
    let mut control = Control { len, level: SOL_SOCKET, kind: SCM_RIGHTS, fds: [0; DESCRIPTORS_MAX] };
    let place = control.fds.get_mut(..with.len()).ok_or_else(|| io::Error::from_raw_os_error(EINVAL))?;
    place.copy_from_slice(with);
    // The kernel only reads through these.
    let part = Part { base: text.as_ptr().cast_mut().cast(), len: text.len() };
    let none = with.is_empty();
    let message = Message {
        name: std::ptr::null(),
        name_len: 0,
        parts: &part,
        part_count: 1,
        control: if none { std::ptr::null_mut() } else { (&raw mut control).cast() },
        control_len: if none { 0 } else { len.next_multiple_of(8) },
        flags: 0,
    };
    loop {
        // SAFETY: `message` points at a part and a control block that live until after the call.
        match unsafe { sendmsg(to.as_raw_fd(), &message, MSG_NOSIGNAL) } {
            0.. => return Ok(()),
            _ if errno() == EINTR => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

/// Receives one message; `None` when the other end is gone.
pub fn receive(from: BorrowedFd<'_>) -> io::Result<Option<String>> {
    Ok(receive_with(from)?.map(|(text, _)| text))
}

/// Receives one message and the descriptor that may come with it.
pub fn receive_with(from: BorrowedFd<'_>) -> io::Result<Option<(String, Option<OwnedFd>)>> {
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut control = Control { len: 0, level: 0, kind: 0, fds: [-1; DESCRIPTORS_MAX] };
    let part = Part { base: buffer.as_mut_ptr().cast(), len: buffer.len() };
    let mut message = Message {
        name: std::ptr::null(),
        name_len: 0,
        parts: &part,
        part_count: 1,
        control: (&raw mut control).cast(),
        control_len: (CONTROL_HEAD + 4).next_multiple_of(8),
        flags: 0,
    };
    let len = loop {
        // SAFETY: `message` points at a part and a control block that are writable and live until
        // after the call.
        match unsafe { recvmsg(from.as_raw_fd(), &raw mut message, MSG_CMSG_CLOEXEC) } {
            0 => return Ok(None),
            len @ 1.. => break len as usize,
            _ if errno() == EINTR => {}
            _ => return Err(io::Error::last_os_error()),
        }
    };
    buffer.truncate(len);
    let came = message.control_len > 0 && (control.level, control.kind) == (SOL_SOCKET, SCM_RIGHTS);
    // SAFETY: the kernel made this descriptor for this message just now.
    let with =
        (came && control.len == CONTROL_HEAD + 4).then(|| unsafe { OwnedFd::from_raw_fd(control.fds[0]) });
    Ok(Some((String::from_utf8_lossy(&buffer).into_owned(), with)))
}

/// Waits until one of these has something to say, at most `timeout_ms` (-1: for ever).
pub fn wait(fds: &[RawFd], timeout_ms: i32) -> Vec<bool> {
    let mut polls: Vec<Poll> = fds.iter().map(|fd| Poll { fd: *fd, events: 1, returned: 0 }).collect();
    // SAFETY: `polls` is that many valid entries. An error leaves them at zero: nothing to say.
    unsafe { poll(polls.as_mut_ptr(), polls.len(), timeout_ms) };
    polls.iter().map(|poll| poll.returned != 0).collect()
}

/// Forks this process, which has one thread. `true` in the child.
pub fn fork_once() -> io::Result<bool> {
    // SAFETY: called before any thread is started, so the child inherits no lock that is taken.
    checked(unsafe { fork() }).map(|pid| pid == 0)
}

/// Leaves the session, the terminal's signals and the standard streams of the service.
pub fn detach() {
    const SIGNALS: [c_int; 6] = [1, 2, 3, 13, 15, 17];
    const IGNORE: usize = 1;
    // SAFETY: integers only; ignoring a signal installs no handler of ours. The child of a fork
    // leads no group, so it may make a session.
    unsafe {
        setsid();
        for number in SIGNALS {
            signal(number, IGNORE);
        }
    }
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        for stream in 0..3 {
            // SAFETY: two integers; the standard streams are nobody's owned value here.
            unsafe { dup2(null.as_raw_fd(), stream) };
        }
    }
    let _ = std::env::set_current_dir("/");
}

/// Sends a signal to every process but the first, then to the first.
pub fn signal_all(number: i32) {
    // SAFETY: integers only.
    unsafe {
        kill(-1, number);
        kill(1, number);
    }
}

/// Gives SIGPIPE its default meaning back (Rust's runtime ignores it, and exec would keep that).
pub fn default_sigpipe() {
    // SAFETY: setting a default disposition installs no handler of ours.
    unsafe { signal(13, 0) };
}

/// Marks all descriptors from 3 on as closing at exec. Fails on kernels before 5.11.
pub fn close_others_at_exec() {
    const CLOEXEC: c_uint = 1 << 2;
    // SAFETY: three integers; closes nothing by itself.
    unsafe { syscall(SYS_CLOSE_RANGE, 3 as c_uint, c_uint::MAX, CLOEXEC) };
}

/// Puts the filter on this thread and all that it starts; returns its listener.
pub fn install_filter(program: &[(u16, u8, u8, u32)], killable: bool) -> io::Result<OwnedFd> {
    const NO_NEW_PRIVS: c_int = 38;
    const SET_MODE_FILTER: c_uint = 1;
    const SPEC_ALLOW: c_long = 1 << 2;
    const NEW_LISTENER: c_long = 1 << 3;
    const WAIT_KILLABLE_RECV: c_long = 1 << 5;
    let filter: Vec<Filter> = program
        .iter()
        .map(|(code, yes, no, operand)| Filter { code: *code, yes: *yes, no: *no, operand: *operand })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(EINVAL))?;
    let program = Program { len, filter: filter.as_ptr() };
    // SAFETY: integers only.
    checked(unsafe { prctl(NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    let mut last = io::Error::from_raw_os_error(EINVAL);
    for killable in [WAIT_KILLABLE_RECV, 0].into_iter().skip(usize::from(!killable)) {
        let flags = SPEC_ALLOW | NEW_LISTENER | killable;
        // SAFETY: `program` points at `len` instructions that live until after the call; the
        // kernel copies and checks them.
        let result = unsafe { syscall(SYS_SECCOMP, SET_MODE_FILTER, flags, &raw const program) };
        match owned(result as c_int) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
        if last.raw_os_error() != Some(EINVAL) {
            break;
        }
    }
    Err(last)
}

/// Lets one trapped call pass; `false` when there was none.
pub fn pass_one(listener: BorrowedFd<'_>) -> bool {
    // `struct seccomp_notif` and `struct seccomp_notif_resp`, as the kernel lays them out.
    #[repr(C)]
    struct Notification {
        id: u64,
        rest: [u64; 9],
    }
    #[repr(C)]
    struct Response {
        id: u64,
        value: i64,
        error: i32,
        flags: u32,
    }
    const RECEIVE: c_ulong = 0xc050_2100;
    const SEND: c_ulong = 0xc018_2101;
    const CONTINUE: u32 = 1;
    let mut notification = Notification { id: 0, rest: [0; 9] };
    // SAFETY: the kernel writes 80 bytes, which is the size of `notification`.
    if unsafe { ioctl(listener.as_raw_fd(), RECEIVE, &raw mut notification) } < 0 {
        return false;
    }
    let response = Response { id: notification.id, value: 0, error: 0, flags: CONTINUE };
    // SAFETY: the kernel reads 24 bytes, which is the size of `response`. A caller that has gone
    // meanwhile needs no answer.
    unsafe { ioctl(listener.as_raw_fd(), SEND, &raw const response) };
    true
}

/// What is to be executed: nothing is left to allocate or look up.
pub struct Image {
    paths: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead into the strings beside them, which nobody changes.
unsafe impl Send for Image {}

impl Image {
    /// The first of `paths` that can be executed is.
    pub fn new(paths: Vec<CString>, args: Vec<CString>, env: Vec<CString>) -> Self {
        let mut pointers: Vec<*const c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
        pointers.push(std::ptr::null());
        pointers.extend(env.iter().map(|value| value.as_ptr()));
        pointers.push(std::ptr::null());
        Image { paths, args, env, pointers }
    }

    /// Executes. Returns what the system said of the last candidate that is there.
    pub fn execute(&self) -> io::Error {
        const ENOENT: i32 = 2;
        let env = self.args.len() + 1;
        debug_assert!(self.pointers.len() == env + self.env.len() + 1);
        let mut said = io::Error::from_raw_os_error(ENOENT);
        for path in &self.paths {
            // SAFETY: two arrays of pointers to strings, each with a null at its end.
            unsafe { execve(path.as_ptr(), self.pointers.as_ptr(), self.pointers.as_ptr().add(env)) };
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(ENOENT) {
                said = error;
            }
        }
        said
    }
}

/// Ends this process at once.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { _exit(code) }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
