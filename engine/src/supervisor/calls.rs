//! Which syscalls can be trapped, in which families, and where in their arguments the target
//! stands.
//!
//! Contract: pure tables. Numbers are libseccomp's (`numbers`), for x86_64 and aarch64. A call
//! that is in no family can be named by itself; a name that is not here cannot be trapped.
//!
//! Not here: calls that a program cannot do without (`exit`, `rt_sigreturn`, ...), `futex` (also
//! what hands the filter's listener over), and io_uring, which every filter refuses. Not
//! modelled: `fallocate`, `copy_file_range` and `sendfile` are families of their own
//! (`fallocate`, `copy`), not part of `write`: failing them is another fault.

use super::numbers::NUMBERS;

/// Where a call's target stands among its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A descriptor.
    Fd(usize),
    /// A descriptor, where the flags (the argument before it) do not say that there is none.
    Mapped(usize),
    /// A path; whether a symbolic link at its end is followed.
    Path(usize, bool),
    /// A directory's descriptor and a path; whether a symbolic link at its end is followed.
    PathAt(usize, usize, bool),
    /// The same; the flag, in that argument, changes whether it is followed.
    PathFlag(usize, usize, bool, usize, i32),
    /// A socket address and its length.
    Address(usize, usize),
    /// A descriptor (first argument) and perhaps a socket address and its length.
    Send(usize, usize),
    /// A descriptor (first argument) and a message's header, perhaps with a socket address.
    Message(usize),
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

use Shape::{Address, Fd, Mapped, Message, Path, PathAt, PathFlag, Send};

/// `AT_SYMLINK_NOFOLLOW` (fcntl.h).
const NOFOLLOW: i32 = 0x100;

/// `O_NOFOLLOW`, another number on each architecture (asm/fcntl.h).
const OPEN_NOFOLLOW: i32 = if cfg!(target_arch = "aarch64") { 0o100_000 } else { 0o400_000 };

/// Calls of which a part can be made.
pub(super) const PARTIAL: &[&str] = &[
    "write", "writev", "pwrite64", "pwritev", "pwritev2", "read", "readv", "pread64", "preadv", "preadv2",
    "recvfrom", "recvmsg", "sendto", "sendmsg",
];

/// Calls of one shape. Those that are not here have no target.
const SHAPES: &[(Shape, &[&str])] = &[
    (
        Fd(0),
        &[
            "write",
            "writev",
            "pwrite64",
            "pwritev",
            "pwritev2",
            "read",
            "readv",
            "pread64",
            "preadv",
            "preadv2",
            "close",
            "fsync",
            "fdatasync",
            "sync_file_range",
            "syncfs",
            "fallocate",
            "ftruncate",
            "sendfile",
            "lseek",
            "listen",
            "accept",
            "accept4",
            "sendmmsg",
            "recvfrom",
            "recvmsg",
            "recvmmsg",
            "shutdown",
            "getsockopt",
            "setsockopt",
            "getsockname",
            "getpeername",
            "fstat",
            "fstatfs",
            "fchmod",
            "fchown",
            "fchdir",
            "getdents",
            "getdents64",
            "flock",
            "fcntl",
            "ioctl",
            "dup",
            "dup2",
            "dup3",
            "epoll_wait",
            "epoll_pwait",
            "epoll_pwait2",
            "inotify_rm_watch",
            "timerfd_settime",
            "timerfd_gettime",
            "fgetxattr",
            "fsetxattr",
            "flistxattr",
            "fremovexattr",
            "vmsplice",
            "readahead",
            "fadvise64",
        ],
    ),
    (Fd(1), &["tee"]),
    (Fd(2), &["copy_file_range", "splice", "epoll_ctl"]),
    (Mapped(4), &["mmap"]),
    (Send(4, 5), &["sendto"]),
    (Message(1), &["sendmsg"]),
    (Address(1, 2), &["connect", "bind"]),
    (
        Path(0, true),
        &[
            "open",
            "creat",
            "truncate",
            "stat",
            "statfs",
            "access",
            "chmod",
            "chown",
            "chdir",
            "chroot",
            "utime",
            "utimes",
            "execve",
            "getxattr",
            "setxattr",
            "listxattr",
            "removexattr",
            "uselib",
            "swapon",
            "swapoff",
            "umount2",
        ],
    ),
    (
        Path(0, false),
        &[
            "unlink",
            "rmdir",
            "mkdir",
            "mknod",
            "lstat",
            "lchown",
            "readlink",
            "lgetxattr",
            "lsetxattr",
            "llistxattr",
            "lremovexattr",
        ],
    ),
    (Path(1, false), &["rename", "link", "symlink"]),
    (Path(1, true), &["inotify_add_watch", "mount", "pivot_root"]),
    (PathAt(0, 1, true), &["openat2", "faccessat", "fchmodat", "futimesat", "name_to_handle_at"]),
    (PathAt(0, 1, false), &["unlinkat", "mkdirat", "mknodat", "readlinkat"]),
    (PathAt(1, 2, false), &["symlinkat"]),
    (PathAt(2, 3, false), &["renameat", "renameat2", "linkat"]),
    (PathFlag(0, 1, true, 2, OPEN_NOFOLLOW), &["openat"]),
    (PathFlag(0, 1, true, 2, NOFOLLOW), &["statx"]),
    (PathFlag(0, 1, true, 3, NOFOLLOW), &["newfstatat", "faccessat2", "fchmodat2", "utimensat"]),
    (PathFlag(0, 1, true, 4, NOFOLLOW), &["fchownat", "execveat"]),
];

/// The calls that write to files.
const WRITES: &[&str] = &["write", "writev", "pwrite64", "pwritev", "pwritev2"];

/// The families: a name that specs use, and the syscalls that it stands for (those that this
/// architecture lacks included).
const FAMILIES: &[(&str, &[&str])] = &[
    ("write", WRITES),
    ("read", &["read", "readv", "pread64", "preadv", "preadv2"]),
    ("open", &["open", "creat", "openat", "openat2", "open_by_handle_at"]),
    ("close", &["close", "close_range"]),
    ("fsync", &["fsync", "fdatasync", "sync_file_range", "syncfs"]),
    ("seek", &["lseek"]),
    ("fallocate", &["fallocate"]),
    ("truncate", &["truncate", "ftruncate"]),
    ("copy", &["copy_file_range", "sendfile", "splice", "tee", "vmsplice"]),
    ("readahead", &["readahead", "fadvise64"]),
    ("rename", &["rename", "renameat", "renameat2"]),
    ("unlink", &["unlink", "unlinkat", "rmdir"]),
    ("mkdir", &["mkdir", "mkdirat"]),
    ("mknod", &["mknod", "mknodat"]),
    ("link", &["link", "linkat", "symlink", "symlinkat"]),
    ("readlink", &["readlink", "readlinkat"]),
    ("stat", &["stat", "lstat", "fstat", "newfstatat", "statx"]),
    ("statfs", &["statfs", "fstatfs"]),
    ("access", &["access", "faccessat", "faccessat2"]),
    ("chmod", &["chmod", "fchmod", "fchmodat", "fchmodat2"]),
    ("chown", &["chown", "fchown", "fchownat", "lchown"]),
    ("utime", &["utime", "utimes", "futimesat", "utimensat"]),
    (
        "xattr",
        &[
            "getxattr",
            "lgetxattr",
            "fgetxattr",
            "setxattr",
            "lsetxattr",
            "fsetxattr",
            "listxattr",
            "llistxattr",
            "flistxattr",
            "removexattr",
            "lremovexattr",
            "fremovexattr",
        ],
    ),
    ("readdir", &["getdents64", "getdents"]),
    ("chdir", &["chdir", "fchdir", "getcwd"]),
    ("chroot", &["chroot", "pivot_root"]),
    ("mount", &["mount", "umount2"]),
    ("flock", &["flock"]),
    ("fcntl", &["fcntl"]),
    ("ioctl", &["ioctl"]),
    ("dup", &["dup", "dup2", "dup3"]),
    ("pipe", &["pipe", "pipe2"]),
    ("socket", &["socket"]),
    ("socketpair", &["socketpair"]),
    ("connect", &["connect"]),
    ("bind", &["bind"]),
    ("listen", &["listen"]),
    ("accept", &["accept", "accept4"]),
    ("send", &["sendto", "sendmsg", "sendmmsg"]),
    ("recv", &["recvfrom", "recvmsg", "recvmmsg"]),
    ("shutdown", &["shutdown"]),
    ("sockopt", &["getsockopt", "setsockopt"]),
    ("sockname", &["getsockname", "getpeername"]),
    ("poll", &["poll", "ppoll", "select", "pselect6"]),
    ("epoll", &["epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2"]),
    ("inotify", &["inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch"]),
    ("eventfd", &["eventfd", "eventfd2"]),
    ("timerfd", &["timerfd_create", "timerfd_settime", "timerfd_gettime"]),
    ("signalfd", &["signalfd", "signalfd4"]),
    ("memfd", &["memfd_create", "memfd_secret"]),
    ("aio", &["io_setup", "io_submit", "io_getevents", "io_pgetevents", "io_cancel", "io_destroy"]),
    ("memory", &["mmap", "munmap", "mremap", "mprotect", "brk"]),
    ("mlock", &["mlock", "mlock2", "mlockall", "munlock", "munlockall"]),
    ("fork", &["fork", "vfork", "clone", "clone3"]),
    ("exec", &["execve", "execveat"]),
    ("wait", &["wait4", "waitid"]),
    ("kill", &["kill", "tkill", "tgkill", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo"]),
    ("sleep", &["nanosleep", "clock_nanosleep"]),
    ("random", &["getrandom"]),
    ("rlimit", &["getrlimit", "setrlimit", "prlimit64"]),
    ("shm", &["shmget", "shmat", "shmctl", "shmdt"]),
    ("semaphore", &["semget", "semop", "semtimedop", "semctl"]),
    (
        "queue",
        &["msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_timedsend", "mq_timedreceive", "mq_unlink"],
    ),
];

/// Calls that cannot be trapped: programs cannot do without them, the supervision needs them at
/// the start, or every filter refuses them.
const NEVER: &[&str] = &[
    "exit",
    "exit_group",
    "rt_sigreturn",
    "restart_syscall",
    "futex",
    "seccomp",
    "arch_prctl",
    "set_tid_address",
    "sched_getaffinity",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
];

/// The families that can be trapped, each with its syscalls.
pub fn families() -> &'static [(&'static str, &'static [&'static str])] {
    FAMILIES
}

/// The syscalls that a family's name stands for; the name of a single syscall (`fdatasync`)
/// stands for itself. `None`: no such family or syscall, or none that can be trapped.
pub fn family_calls(name: &str) -> Option<Vec<&'static str>> {
    if let Some((_, calls)) = FAMILIES.iter().find(|(family, _)| *family == name) {
        return Some(calls.to_vec());
    }
    let (known, ..) = NUMBERS.iter().find(|(known, ..)| *known == name)?;
    (!NEVER.contains(known)).then(|| vec![*known])
}

/// Every name that can stand before a syscall fault: the families, then the single calls.
pub fn family_names() -> impl Iterator<Item = &'static str> {
    let calls = NUMBERS.iter().map(|(name, ..)| *name).filter(|name| !NEVER.contains(name));
    FAMILIES.iter().map(|(family, _)| *family).chain(calls)
}

/// Whether the family has a call that a part can be made of.
pub fn moves_bytes(family: &str) -> bool {
    family_calls(family).is_some_and(|calls| calls.iter().any(|call| PARTIAL.contains(call)))
}

/// Whether the family's calls take space on a disk.
pub fn takes_space(family: &str) -> bool {
    let takes = |call: &&str| *call == "fallocate" || WRITES.contains(call);
    family_calls(family).is_some_and(|calls| calls.iter().all(takes))
}

/// Whether a call of the family has a descriptor.
pub fn has_descriptor(family: &str) -> bool {
    let has = |call: &&str| matches!(shape_of(call), Fd(_) | Mapped(_) | Send(..) | Message(_));
    family_calls(family).is_some_and(|calls| calls.iter().any(has))
}

/// Whether a call of the family can have a peer.
pub fn has_peer(family: &str) -> bool {
    family == "connect" || has_descriptor(family)
}

/// Whether a call of the family can have a path: its own or its descriptor's.
pub fn has_path(family: &str) -> bool {
    let has = |call: &&str| !matches!(shape_of(call), Shape::Nothing | Address(..));
    family_calls(family).is_some_and(|calls| calls.iter().any(has))
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
pub(super) fn call(name: &str) -> Option<Call> {
    let (name, x86_64, aarch64) = *NUMBERS.iter().find(|(known, ..)| *known == name)?;
    let number = if cfg!(target_arch = "aarch64") { aarch64 } else { x86_64 };
    let number = u32::try_from(number).ok().filter(|_| !NEVER.contains(&name))?;
    Some(Call { name, number, shape: shape_of(name) })
}

/// Where a call's target stands.
pub(super) fn shape_of(name: &str) -> Shape {
    SHAPES.iter().find(|(_, calls)| calls.contains(&name)).map_or(Shape::Nothing, |(shape, _)| *shape)
}

/// Every call that can be trapped here.
#[cfg(test)]
pub(super) fn all() -> Vec<Call> {
    NUMBERS.iter().filter_map(|(name, ..)| call(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use libseccomp::{ScmpArch, ScmpSyscall};
    use std::collections::BTreeMap;

    #[test]
    fn every_name_is_a_call_and_every_family_has_one_here() {
        let known = |name: &&str| NUMBERS.iter().any(|(known, ..)| known == name);
        for (family, calls) in families() {
            assert!(calls.iter().all(known), "{family}");
            assert!(calls.iter().any(|name| call(name).is_some()), "{family}");
        }
        assert!(NEVER.iter().all(known));
        let shaped: Vec<&&str> = SHAPES.iter().flat_map(|(_, calls)| *calls).collect();
        for name in &shaped {
            assert!(known(name), "{name}");
            assert_eq!(shaped.iter().filter(|other| other == &name).count(), 1, "{name}");
        }
    }

    #[test]
    fn a_call_stands_for_itself_and_knows_its_families() {
        assert_eq!(family_calls("fdatasync"), Some(vec!["fdatasync"]));
        assert_eq!(family_calls("getpid"), Some(vec!["getpid"]));
        assert_eq!(family_calls("write").map(|calls| calls.len()), Some(5));
        assert_eq!(family_calls("wriet"), None);
        assert_eq!(family_calls("exit_group"), None);
        assert_eq!(family_calls("io_uring_setup"), None);
        assert_eq!(families_of("pwrite64"), ["write", "pwrite64"]);
        assert_eq!(families_of("connect"), ["connect"]);
        assert_eq!(families_of("mmap"), ["memory", "mmap"]);
    }

    /// What libseccomp says now.
    fn generated() -> String {
        let mut numbers: BTreeMap<String, [i32; 2]> = BTreeMap::new();
        for (column, arch) in [ScmpArch::X8664, ScmpArch::Aarch64].into_iter().enumerate() {
            for number in 0..600 {
                if let Ok(name) = ScmpSyscall::from(number).get_name_by_arch(arch) {
                    numbers.entry(name).or_insert([-1; 2])[column] = number;
                }
            }
        }
        let rows = numbers.iter().map(|(name, [x, a])| format!("    (\"{name}\", {x}, {a}),\n"));
        rows.collect()
    }

    #[test]
    fn syscall_numbers_are_libseccomps() {
        let committed = include_str!("numbers.rs");
        let (head, rest) = committed.split_once("] = &[\n").unwrap();
        let rows = rest.strip_suffix("];\n").unwrap();
        let now = generated();
        if rows == now {
            return;
        }
        // An older or newer libseccomp knows fewer or more; what both know must agree.
        let written = std::env::temp_dir().join("faultbox-syscall-numbers.rs");
        std::fs::write(&written, format!("{head}] = &[\n{now}];\n")).unwrap();
        let theirs: BTreeMap<&str, Vec<&str>> = now.lines().map(row).collect();
        for (name, ours) in rows.lines().map(row) {
            for (ours, theirs) in ours.iter().zip(theirs.get(name).into_iter().flatten()) {
                let agree = ours == theirs || *ours == "-1" || *theirs == "-1";
                assert!(agree, "{name}: {ours} here, {theirs} in {}", written.display());
            }
        }
        println!("this libseccomp knows fewer or more calls: {}", written.display());
    }

    fn row(line: &str) -> (&str, Vec<&str>) {
        let mut words = line.trim_matches([' ', '(', ')', ',']).split(", ");
        (words.next().unwrap(), words.collect())
    }

    /// The families, as the page for users lists them.
    #[test]
    fn the_documentation_lists_every_family() {
        let page = include_str!("../../../docs/syscalls.md");
        for (family, calls) in families() {
            let calls: Vec<String> = calls.iter().map(|call| format!("`{call}`")).collect();
            let row = format!("| `{family}` | {} |", calls.join(", "));
            assert!(page.contains(&row), "docs/syscalls.md lacks: {row}");
        }
    }
}
