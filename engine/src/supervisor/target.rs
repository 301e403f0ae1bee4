//! What a trapped syscall is about: descriptors, paths and addresses of another process.
//!
//! Contract: reads `/proc` and the caller's memory; the caller of this module asks afterwards
//! whether the notification still holds, since a thread's id may have gone to another thread
//! meanwhile. What cannot be read is [`SyscallTarget::None`], never a guess.
//!
//! Not modelled: what `openat2` says about links (one at the end of a path is followed), the
//! messages after the first of `sendmmsg`.

use super::calls::{Call, Shape};
use super::features::{Feature, refuse};
use super::policy::{Kind, SyscallTarget};
use super::remap::process_of;
use super::sys::{self, Notification};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const LONGEST_PATH: usize = 4096;
const LONGEST_ADDRESS: usize = 128;

/// What the call is about.
///
/// `homes` are the mount namespaces (as `/proc` links to them) that show the host's files under the
/// host's names.
pub(super) fn resolve(call: &Call, notification: &Notification, homes: &[PathBuf]) -> SyscallTarget {
    let tid = notification.tid;
    let arg = |index: usize| notification.args.get(index).copied().unwrap_or(0);
    // A descriptor is the low half of its register.
    let fd = |index: usize| arg(index) as u32 as i32;
    match call.shape {
        Shape::Fd(at) => descriptor(tid, fd(at)),
        // Memory that is nobody's file.
        Shape::Mapped(at) if arg(at - 1) as i32 & libc::MAP_ANONYMOUS != 0 => SyscallTarget::None,
        Shape::Mapped(at) => descriptor(tid, fd(at)),
        Shape::Path(at, follow) => path(tid, libc::AT_FDCWD, arg(at), follow, homes),
        Shape::PathAt(dir, at, follow) => path(tid, fd(dir), arg(at), follow, homes),
        Shape::PathFlag(dir, at, follow, flags, flag) => {
            path(tid, fd(dir), arg(at), follow != (fd(flags) & flag != 0), homes)
        }
        Shape::Address(at, len) => address(tid, arg(at), arg(len)),
        Shape::Send(at, _) if arg(at) == 0 => descriptor(tid, fd(0)),
        Shape::Send(at, len) => address(tid, arg(at), arg(len)),
        Shape::Message(at) => message(tid, fd(0), arg(at)),
        Shape::Nothing => SyscallTarget::None,
    }
}

/// Whether this process may look at the thread: its descriptors and memory. (Another user's, or
/// one with more privileges, it may not.) A thread that is gone is not forbidden.
pub(super) fn is_forbidden(tid: u32) -> bool {
    let denied = |error: std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    // The right to trace it opens its links and memory; its descriptors stand in a folder that
    // is its user's alone.
    fs::read_link(format!("/proc/{tid}/cwd")).is_err_and(denied)
        || fs::symlink_metadata(format!("/proc/{tid}/fd/0")).is_err_and(denied)
        || refuse(Feature::ReadMemory).is_err()
}

/// Whether this process may look at another one: its descriptors and memory.
pub fn may_look_into(pid: u32) -> bool {
    !is_forbidden(pid)
}

/// What descriptor `fd` of the thread is.
fn descriptor(tid: u32, fd: i32) -> SyscallTarget {
    let unnamed = |kind| SyscallTarget::Fd { kind, peer: None };
    let link = format!("/proc/{tid}/fd/{fd}");
    let Ok(path) = fs::read_link(&link) else { return unnamed(Kind::Closed) };
    let bytes = path.as_os_str().as_bytes();
    if bytes.starts_with(b"/memfd:") {
        return unnamed(Kind::Memfd);
    }
    if !bytes.starts_with(b"/") {
        return unnamed(unnamed_kind(bytes));
    }
    // Follows the descriptor, not the name.
    let Ok(meta) = fs::metadata(&link) else { return SyscallTarget::None };
    let path = match bytes.strip_suffix(b" (deleted)") {
        Some(name) if meta.nlink() == 0 => PathBuf::from(OsStr::from_bytes(name)),
        _ => path,
    };
    SyscallTarget::File { path, kind: kind(&meta) }
}

/// What a descriptor without a path is, by what its link says.
fn unnamed_kind(link: &[u8]) -> Kind {
    let text = String::from_utf8_lossy(link);
    match text.split_once(':') {
        Some(("socket", _)) => Kind::Socket,
        Some(("pipe", _)) => Kind::Pipe,
        Some(("anon_inode", what)) => match what.trim_matches(['[', ']']) {
            "eventpoll" => Kind::Epoll,
            "eventfd" => Kind::Eventfd,
            "timerfd" => Kind::Timerfd,
            "signalfd" => Kind::Signalfd,
            "inotify" => Kind::Inotify,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

fn kind(meta: &fs::Metadata) -> Kind {
    let file = meta.file_type();
    match () {
        () if file.is_file() => Kind::File,
        () if file.is_dir() => Kind::Dir,
        () if file.is_fifo() => Kind::Pipe,
        () if file.is_socket() => Kind::Socket,
        // TTY_MAJOR, TTYAUX_MAJOR, and those of pseudo-terminals (Documentation/admin-guide/devices.txt).
        () if file.is_char_device() && matches!(nix::sys::stat::major(meta.rdev()), 4 | 5 | 136..=143) => {
            Kind::Tty
        }
        () => Kind::Device,
    }
}

/// Whom the socket that the call is about is connected to.
pub(super) fn peer(call: &Call, notification: &Notification) -> Option<SyscallTarget> {
    use nix::sys::socket::{SockaddrStorage, getpeername};
    let at = if let Shape::Fd(at) = call.shape { at } else { 0 };
    let fd = *notification.args.get(at)? as u32 as i32;
    let socket = sys::take_descriptor(process_of(notification.tid)?, fd).ok()?;
    let peer: SockaddrStorage = getpeername(socket.as_raw_fd()).ok()?;
    if let Some(unix) = peer.as_unix_addr() {
        return match (unix.path(), unix.as_abstract()) {
            (Some(path), _) => Some(SyscallTarget::UnixPeer(path.to_owned())),
            (None, Some(name)) => Some(decode_address(&[&[1, 0, 0], name].concat())),
            (None, None) => None,
        };
    }
    let v4 = peer.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    let v6 = peer.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().to_canonical(), v6.port()));
    v4.or(v6).map(SyscallTarget::Peer)
}

/// The names of the executable and of the thread.
pub(super) fn names(tid: u32) -> Vec<String> {
    let program = fs::read_link(format!("/proc/{tid}/exe")).ok();
    let program = program.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let thread = fs::read_to_string(format!("/proc/{tid}/comm")).ok();
    program.into_iter().chain(thread.map(|name| name.trim_end_matches('\n').to_owned())).collect()
}

/// The file that a path in the thread's memory names.
fn path(tid: u32, dir: i32, at: u64, follow: bool, homes: &[PathBuf]) -> SyscallTarget {
    let Some(name) = read_string(tid, at) else { return SyscallTarget::None };
    if name.is_empty() {
        // AT_EMPTY_PATH: the descriptor itself.
        return descriptor(tid, dir);
    }
    let name = Path::new(OsStr::from_bytes(&name)).to_owned();
    let base = if name.is_absolute() {
        Ok(PathBuf::from("/"))
    } else if dir == libc::AT_FDCWD {
        fs::read_link(format!("/proc/{tid}/cwd"))
    } else {
        fs::read_link(format!("/proc/{tid}/fd/{dir}"))
    };
    let Ok(base) = base else { return SyscallTarget::None };
    let root = fs::read_link(format!("/proc/{tid}/root")).ok().filter(|root| root != Path::new("/"));
    // What `/proc` says of a folder is as seen from outside a root that the thread has changed.
    let base = match root.as_ref().and_then(|root| base.strip_prefix(root).ok()) {
        Some(inside) => Path::new("/").join(inside),
        None => base,
    };
    let joined = own_proc(tid, &base.join(name));
    if root.is_some() || elsewhere(tid, homes) {
        return in_its_own_tree(tid, &joined, follow);
    }
    let path = canonical(&joined, follow);
    let kind = fs::metadata(&path).map_or(Kind::File, |meta| kind(&meta));
    SyscallTarget::File { path, kind }
}

/// `/proc/self` is another folder for the thread than for us.
fn own_proc(tid: u32, path: &Path) -> PathBuf {
    let rest = path.strip_prefix("/proc/self").or_else(|_| path.strip_prefix("/proc/thread-self"));
    rest.map_or_else(|_| path.to_owned(), |rest| PathBuf::from(format!("/proc/{tid}")).join(rest))
}

/// Whether the thread has other mounts than the host: it is in a container.
fn elsewhere(tid: u32, homes: &[PathBuf]) -> bool {
    mounts(tid).is_some_and(|its| !homes.contains(&its))
}

/// The mount namespace of a process.
pub(super) fn mounts(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

/// A path of the thread's own mounts or root, without symbolic links and dots: named as its mounts name
/// it, and as seen from outside where it has only changed its root.
fn in_its_own_tree(tid: u32, path: &Path, follow: bool) -> SyscallTarget {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    let Ok(root) = File::open(format!("/proc/{tid}/root")) else { return SyscallTarget::None };
    let resolve = |path: &Path, follow: bool| {
        let link = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC | link);
        let file = File::from(openat2(&root, path, how.resolve(ResolveFlag::RESOLVE_IN_ROOT)).ok()?);
        let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        Some((name, kind(&file.metadata().ok()?)))
    };
    if let Some((path, kind)) = resolve(path, follow) {
        return SyscallTarget::File { path, kind };
    }
    // What does not exist keeps its name in its folder.
    let (parent, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    let parent = resolve(parent, true).map_or_else(|| parent.to_owned(), |(parent, _)| parent);
    SyscallTarget::File { path: parent.join(name), kind: Kind::File }
}

/// The path without symbolic links and dots. What does not exist keeps its name in its folder.
fn canonical(path: &Path, follow: bool) -> PathBuf {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    };
    let Ok(parent) = fs::canonicalize(parent) else { return path.to_owned() };
    let named = parent.join(name);
    if follow && fs::symlink_metadata(&named).is_ok_and(|meta| meta.is_symlink()) {
        return fs::canonicalize(&named).unwrap_or(named);
    }
    named
}

/// The peer that a message's header names, or the socket.
fn message(tid: u32, fd: i32, at: u64) -> SyscallTarget {
    // `struct msghdr` begins with the name and its length.
    let mut header = [0; 12];
    if read_memory(tid, at, &mut header) != Some(header.len()) {
        return SyscallTarget::None;
    }
    let [n0, n1, n2, n3, n4, n5, n6, n7, l0, l1, l2, l3] = header;
    match u64::from_ne_bytes([n0, n1, n2, n3, n4, n5, n6, n7]) {
        0 => descriptor(tid, fd),
        name => address(tid, name, u64::from(u32::from_ne_bytes([l0, l1, l2, l3]))),
    }
}

/// The socket address in the thread's memory.
fn address(tid: u32, at: u64, len: u64) -> SyscallTarget {
    match read_address(tid, at, len) {
        Some(bytes) => match decode_address(&bytes) {
            SyscallTarget::UnixPeer(path)
                if path.is_relative() && !path.as_os_str().as_bytes().starts_with(b"@") =>
            {
                let cwd = fs::read_link(format!("/proc/{tid}/cwd")).unwrap_or_default();
                SyscallTarget::UnixPeer(canonical(&cwd.join(path), false))
            }
            target => target,
        },
        None => SyscallTarget::None,
    }
}

/// The bytes of a socket address in the thread's memory.
pub(super) fn read_address(tid: u32, at: u64, len: u64) -> Option<Vec<u8>> {
    // The length is an int: the low half of its register.
    let len = usize::try_from(len as u32).ok()?;
    let mut bytes = vec![0; len.min(LONGEST_ADDRESS)];
    let read = read_memory(tid, at, &mut bytes)?;
    (read == bytes.len()).then_some(bytes)
}

/// A socket address as the kernel lays it out.
pub(super) fn decode_address(bytes: &[u8]) -> SyscallTarget {
    let family = bytes.first_chunk().map(|b| i32::from(u16::from_ne_bytes(*b)));
    let port = || bytes.get(2..)?.first_chunk().map(|b| u16::from_be_bytes(*b));
    let ip = match family {
        Some(libc::AF_INET) => {
            bytes.get(4..).and_then(|b| b.first_chunk::<4>()).map(|b| IpAddr::V4(Ipv4Addr::from(*b)))
        }
        Some(libc::AF_INET6) => {
            bytes.get(8..).and_then(|b| b.first_chunk::<16>()).map(|b| Ipv6Addr::from(*b).to_canonical())
        }
        Some(libc::AF_UNIX) => {
            let name = bytes.get(2..).unwrap_or_default();
            return match name.split_first() {
                None => SyscallTarget::None,
                Some((0, name)) => {
                    let mut shown = b"@".to_vec();
                    shown.extend_from_slice(name);
                    SyscallTarget::UnixPeer(PathBuf::from(OsStr::from_bytes(&shown)))
                }
                Some(_) => {
                    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                    SyscallTarget::UnixPeer(PathBuf::from(OsStr::from_bytes(name.get(..end).unwrap_or(name))))
                }
            };
        }
        _ => None,
    };
    match (ip, port()) {
        (Some(ip), Some(port)) => SyscallTarget::Peer(SocketAddr::new(ip, port)),
        _ => SyscallTarget::None,
    }
}

/// A string that ends with a zero byte.
pub(super) fn read_string(tid: u32, at: u64) -> Option<Vec<u8>> {
    const PAGE: u64 = 4096;
    let mut text = Vec::new();
    while text.len() < LONGEST_PATH {
        let from = at.checked_add(u64::try_from(text.len()).ok()?)?;
        // Never across the end of a page: the next one need not be there.
        let here = usize::try_from(PAGE - from % PAGE).ok()?;
        let mut part = vec![0; here.min(256)];
        let read = read_memory(tid, from, &mut part)?;
        let part = part.get(..read).filter(|part| !part.is_empty())?;
        if let Some(end) = part.iter().position(|b| *b == 0) {
            text.extend_from_slice(part.get(..end)?);
            return Some(text);
        }
        text.extend_from_slice(part);
    }
    None
}

/// Reads the thread's memory.
pub(super) fn read_memory(tid: u32, at: u64, into: &mut [u8]) -> Option<usize> {
    refuse(Feature::ReadMemory).ok()?;
    let base = usize::try_from(at).ok()?;
    let pid = Pid::from_raw(i32::try_from(tid).ok()?);
    let remote = [RemoteIoVec { base, len: into.len() }];
    if let Ok(read) = process_vm_readv(pid, &mut [IoSliceMut::new(into)], &remote) {
        return Some(read);
    }
    // Some hosts forbid the call but not the file.
    File::open(format!("/proc/{tid}/mem")).and_then(|memory| memory.read_at(into, at)).ok()
}

/// Writes into the thread's memory.
pub(super) fn write_memory(tid: u32, at: u64, bytes: &[u8]) -> bool {
    let memory = File::options().write(true).open(format!("/proc/{tid}/mem"));
    memory.and_then(|memory| memory.write_all_at(bytes, at)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_family() {
        let v4 = [2, 0, 0x1F, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut v6 = vec![10, 0, 0x1F, 0x90, 0, 0, 0, 0];
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend([0; 4]);
        let mut mapped = vec![10, 0, 0, 80, 0, 0, 0, 0];
        mapped.extend(Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped().octets());
        let peer = |text: &str| SyscallTarget::Peer(text.parse().unwrap());
        assert_eq!(decode_address(&v4), peer("127.0.0.1:8080"));
        assert_eq!(decode_address(&v6), peer("[::1]:8080"));
        assert_eq!(decode_address(&mapped), peer("10.1.2.3:80"));
        assert_eq!(decode_address(b"\x01\0/run/x.sock\0junk"), SyscallTarget::UnixPeer("/run/x.sock".into()));
        assert_eq!(decode_address(b"\x01\0\0name"), SyscallTarget::UnixPeer("@name".into()));
        for cut in 0..v4.len().min(8) {
            assert_eq!(decode_address(&v4[..cut]), SyscallTarget::None);
        }
        for cut in 0..24 {
            assert_eq!(decode_address(&v6[..cut]), SyscallTarget::None);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..140)) {
            // The families that matter come up often.
            for family in [1_u8, 2, 10] {
                let mut bytes = bytes.clone();
                bytes.iter_mut().zip([family, 0]).for_each(|(place, byte)| *place = byte);
                decode_address(&bytes);
            }
            decode_address(&bytes);
        }
    }

    #[test]
    fn our_own_descriptors_and_paths() {
        let us = std::process::id();
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        let file = dir.join("data");
        let open = File::create(&file).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&open);
        assert_eq!(descriptor(us, fd), SyscallTarget::File { path: file.clone(), kind: Kind::File });
        fs::remove_file(&file).unwrap();
        assert_eq!(descriptor(us, fd), SyscallTarget::File { path: file.clone(), kind: Kind::File });
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        assert_eq!(descriptor(us, fd), SyscallTarget::Fd { kind: Kind::Socket, peer: None });
        assert_eq!(descriptor(us, -1), SyscallTarget::Fd { kind: Kind::Closed, peer: None });

        std::os::unix::fs::symlink(&dir, dir.join("loop")).unwrap();
        let name = std::ffi::CString::new(format!("{}/loop/./loop/new", dir.display())).unwrap();
        let at = name.as_ptr() as u64;
        let homes = [mounts(us).unwrap()];
        assert_eq!(
            path(us, libc::AT_FDCWD, at, true, &homes),
            SyscallTarget::File { path: dir.join("new"), kind: Kind::File }
        );
        assert_eq!(path(us, libc::AT_FDCWD, 8, true, &homes), SyscallTarget::None);
    }

    #[test]
    fn a_long_string_is_read_whole() {
        let us = std::process::id();
        let text = std::ffi::CString::new(vec![b'x'; 4000]).unwrap();
        assert_eq!(read_string(us, text.as_ptr() as u64), Some(vec![b'x'; 4000]));
        let endless = std::ffi::CString::new(vec![b'x'; 9000]).unwrap();
        assert_eq!(read_string(us, endless.as_ptr() as u64), None);
    }
}
