//! Which syscalls can be trapped, in which families, and where in their arguments the target
//! stands; and the names of errnos.
//!
//! Contract: pure tables. A name that is not here cannot be trapped.
//!
//! Not modelled: `fallocate`, `copy_file_range` and `sendfile` are families of their own
//! (`fallocate`, `copy`), not part of `write`: failing them is another fault.

/// Where a call's target stands among its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A descriptor.
    Fd(usize),
    /// A path; whether a symbolic link at its end is followed.
    Path(usize, bool),
    /// A directory's descriptor and a path.
    PathAt(usize, usize, bool),
    /// A socket address and its length.
    Address(usize, usize),
    /// A descriptor (first argument) and perhaps a socket address and its length.
    Send(usize, usize),
    /// None.
    Nothing,
}

/// A syscall that can be trapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// Its name.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: u32,
    /// Where its target stands.
    pub shape: Shape,
}

macro_rules! calls {
    ($($(#[$attr:meta])* $name:literal $number:ident $shape:expr;)*) => {
        // Numbers are small and positive: the cast loses nothing.
        &[$($(#[$attr])* Call { name: $name, number: libc::$number as u32, shape: $shape },)*]
    };
}

use Shape::{Address, Fd, Nothing, Path, PathAt, Send};

/// All of them.
pub(super) const CALLS: &[Call] = calls! {
    "write" SYS_write Fd(0);
    "writev" SYS_writev Fd(0);
    "pwrite64" SYS_pwrite64 Fd(0);
    "pwritev" SYS_pwritev Fd(0);
    "pwritev2" SYS_pwritev2 Fd(0);
    "read" SYS_read Fd(0);
    "readv" SYS_readv Fd(0);
    "pread64" SYS_pread64 Fd(0);
    "preadv" SYS_preadv Fd(0);
    "preadv2" SYS_preadv2 Fd(0);
    #[cfg(target_arch = "x86_64")] "open" SYS_open Path(0, true);
    #[cfg(target_arch = "x86_64")] "creat" SYS_creat Path(0, true);
    "openat" SYS_openat PathAt(0, 1, true);
    "openat2" SYS_openat2 PathAt(0, 1, true);
    "close" SYS_close Fd(0);
    "fsync" SYS_fsync Fd(0);
    "fdatasync" SYS_fdatasync Fd(0);
    "sync_file_range" SYS_sync_file_range Fd(0);
    "syncfs" SYS_syncfs Fd(0);
    "fallocate" SYS_fallocate Fd(0);
    "ftruncate" SYS_ftruncate Fd(0);
    "truncate" SYS_truncate Path(0, true);
    "copy_file_range" SYS_copy_file_range Fd(2);
    "sendfile" SYS_sendfile Fd(0);
    "socket" SYS_socket Nothing;
    "connect" SYS_connect Address(1, 2);
    "bind" SYS_bind Address(1, 2);
    "listen" SYS_listen Fd(0);
    "accept" SYS_accept Fd(0);
    "accept4" SYS_accept4 Fd(0);
    "sendto" SYS_sendto Send(4, 5);
    "sendmsg" SYS_sendmsg Fd(0);
    "sendmmsg" SYS_sendmmsg Fd(0);
    "recvfrom" SYS_recvfrom Fd(0);
    "recvmsg" SYS_recvmsg Fd(0);
    "recvmmsg" SYS_recvmmsg Fd(0);
    #[cfg(target_arch = "x86_64")] "rename" SYS_rename Path(1, false);
    "renameat" SYS_renameat PathAt(2, 3, false);
    "renameat2" SYS_renameat2 PathAt(2, 3, false);
    #[cfg(target_arch = "x86_64")] "unlink" SYS_unlink Path(0, false);
    "unlinkat" SYS_unlinkat PathAt(0, 1, false);
    #[cfg(target_arch = "x86_64")] "rmdir" SYS_rmdir Path(0, false);
    #[cfg(target_arch = "x86_64")] "mkdir" SYS_mkdir Path(0, false);
    "mkdirat" SYS_mkdirat PathAt(0, 1, false);
    #[cfg(target_arch = "x86_64")] "link" SYS_link Path(1, false);
    "linkat" SYS_linkat PathAt(2, 3, false);
    #[cfg(target_arch = "x86_64")] "symlink" SYS_symlink Path(1, false);
    "symlinkat" SYS_symlinkat PathAt(1, 2, false);
    #[cfg(target_arch = "x86_64")] "stat" SYS_stat Path(0, true);
    #[cfg(target_arch = "x86_64")] "lstat" SYS_lstat Path(0, false);
    "fstat" SYS_fstat Fd(0);
    "newfstatat" SYS_newfstatat PathAt(0, 1, true);
    "statx" SYS_statx PathAt(0, 1, true);
    #[cfg(target_arch = "x86_64")] "access" SYS_access Path(0, true);
    "faccessat" SYS_faccessat PathAt(0, 1, true);
    "faccessat2" SYS_faccessat2 PathAt(0, 1, true);
    #[cfg(target_arch = "x86_64")] "chmod" SYS_chmod Path(0, true);
    "fchmod" SYS_fchmod Fd(0);
    "fchmodat" SYS_fchmodat PathAt(0, 1, true);
    #[cfg(target_arch = "x86_64")] "chown" SYS_chown Path(0, true);
    "fchown" SYS_fchown Fd(0);
    "fchownat" SYS_fchownat PathAt(0, 1, true);
    "getdents64" SYS_getdents64 Fd(0);
    "flock" SYS_flock Fd(0);
};

/// The families: a name that specs use, and the syscalls that it stands for (those that this
/// architecture lacks included).
const FAMILIES: &[(&str, &[&str])] = &[
    ("write", &["write", "writev", "pwrite64", "pwritev", "pwritev2"]),
    ("read", &["read", "readv", "pread64", "preadv", "preadv2"]),
    ("open", &["open", "creat", "openat", "openat2"]),
    ("close", &["close"]),
    ("fsync", &["fsync", "fdatasync", "sync_file_range", "syncfs"]),
    ("fallocate", &["fallocate"]),
    ("truncate", &["truncate", "ftruncate"]),
    ("copy", &["copy_file_range", "sendfile"]),
    ("socket", &["socket"]),
    ("connect", &["connect"]),
    ("bind", &["bind"]),
    ("listen", &["listen"]),
    ("accept", &["accept", "accept4"]),
    ("send", &["sendto", "sendmsg", "sendmmsg"]),
    ("recv", &["recvfrom", "recvmsg", "recvmmsg"]),
    ("rename", &["rename", "renameat", "renameat2"]),
    ("unlink", &["unlink", "unlinkat", "rmdir"]),
    ("mkdir", &["mkdir", "mkdirat"]),
    ("link", &["link", "linkat", "symlink", "symlinkat"]),
    ("stat", &["stat", "lstat", "fstat", "newfstatat", "statx"]),
    ("access", &["access", "faccessat", "faccessat2"]),
    ("chmod", &["chmod", "fchmod", "fchmodat"]),
    ("chown", &["chown", "fchown", "fchownat"]),
    ("readdir", &["getdents64"]),
    ("flock", &["flock"]),
];

/// The families that can be trapped, each with its syscalls.
pub fn families() -> &'static [(&'static str, &'static [&'static str])] {
    FAMILIES
}

/// The syscalls that a family's name stands for; the name of a single syscall (`fdatasync`)
/// stands for itself. `None`: no such family or syscall.
pub fn family_calls(name: &str) -> Option<&'static [&'static str]> {
    if let Some((_, calls)) = FAMILIES.iter().find(|(family, _)| *family == name) {
        return Some(calls);
    }
    let members = FAMILIES.iter().flat_map(|(_, calls)| calls.windows(1));
    members.into_iter().find(|call| call.first() == Some(&name))
}

/// The call's families, the widest first, its own name last.
pub(super) fn families_of(call: &'static str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> =
        FAMILIES.iter().filter(|(_, calls)| calls.contains(&call)).map(|(family, _)| *family).collect();
    if !names.contains(&call) {
        names.push(call);
    }
    names
}

/// A call by name, where this architecture has it.
pub(super) fn call(name: &str) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.name == name)
}

macro_rules! errnos {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name),)*] };
}

/// Where two names have one number, the usual one comes first.
const ERRNOS: &[(&str, i32)] = errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN EWOULDBLOCK ENOMEM
    EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY
    ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK
    ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENOSTR ENODATA ETIME ENOSR EREMOTE ENOLINK EPROTO
    EMULTIHOP EBADMSG EOVERFLOW EILSEQ EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
    ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP ENOTSUP EPFNOSUPPORT EAFNOSUPPORT
    EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS
    EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH
    EALREADY EINPROGRESS ESTALE EUCLEAN EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY
    EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON
};

/// The number of an errno (`EIO`).
pub fn errno_by_name(name: &str) -> Option<i32> {
    ERRNOS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of an errno, `errno?` for one that has none here.
pub fn errno_name(number: i32) -> &'static str {
    ERRNOS.iter().find(|(_, known)| *known == number).map_or("errno?", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_in_a_family_and_every_family_has_a_call_here() {
        for call in CALLS {
            assert!(FAMILIES.iter().any(|(_, calls)| calls.contains(&call.name)), "{}", call.name);
        }
        for (family, calls) in families() {
            assert!(calls.iter().any(|name| call(name).is_some()), "{family}");
        }
    }

    #[test]
    fn a_call_stands_for_itself_and_knows_its_families() {
        assert_eq!(family_calls("fdatasync"), Some(&["fdatasync"][..]));
        assert_eq!(family_calls("write").map(<[_]>::len), Some(5));
        assert_eq!(family_calls("wriet"), None);
        assert_eq!(families_of("pwrite64"), ["write", "pwrite64"]);
        assert_eq!(families_of("connect"), ["connect"]);
    }

    #[test]
    fn errnos_have_names() {
        assert_eq!(errno_by_name("ENOSPC"), Some(28));
        assert_eq!(errno_name(111), "ECONNREFUSED");
        assert_eq!(errno_name(11), "EAGAIN");
        assert_eq!(errno_by_name("ENOPE"), None);
        for (name, number) in ERRNOS {
            assert_eq!(errno_by_name(name), Some(*number));
        }
    }
}
