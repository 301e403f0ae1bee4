//! What the host permits, tried by a launcher that ends afterwards.
//!
//! Contract: each thing is really done: a call is trapped, its argument read, its socket taken,
//! its answer checked; a namespace is entered and a connection made in it.

use super::channel::{Channel, Probed, Report};
use super::launcher::{Step, StepResult};
use super::sys::{self, Notifier, Response, Wait};
use super::{filter, network, target};
use nix::errno::Errno;
use nix::sys::prctl;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

/// An answer that the kernel itself would not give to a connect on loopback.
const TELL_TALE: i32 = libc::ENOTUNIQ;
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9);
const TOO_LONG_MS: i32 = 5000;

/// Tries everything. Leaves this process in a network namespace of its own.
pub(super) fn try_everything() -> Probed {
    let mut probed = Probed {
        namespaces: Ok(()),
        seccomp_notify: Ok(()),
        wait_killable: false,
        sync_wake_up: false,
        read_memory: Err("no call was trapped".to_owned()),
        take_descriptor: Err("no call was trapped".to_owned()),
    };
    if let Err((step, errno)) = try_seccomp(&mut probed) {
        let hint = match errno {
            Errno::EINVAL | Errno::ENOSYS => "; needs Linux 5.5 with CONFIG_SECCOMP_FILTER",
            Errno::EBUSY => "; another supervisor's filter is on this process already",
            Errno::EPERM | Errno::EACCES => {
                "; inside a container, its seccomp profile must permit seccomp(2)"
            }
            _ => "",
        };
        probed.seccomp_notify = Err(format!("{step}: {}{hint}", errno.desc()));
    }
    if let Err((step, errno)) = try_namespace() {
        probed.namespaces = Err(format!("{step}: {}{}", errno.desc(), namespace_hint()));
    }
    probed
}

fn try_namespace() -> StepResult<()> {
    network::enter()?;
    let listener = TcpListener::bind("127.0.0.1:80").or_else(|_| TcpListener::bind("127.0.0.1:8080"));
    let listener = listener.step(|| "listen in the network namespace".to_owned())?;
    let address = listener.local_addr().step(|| "listen in the network namespace".to_owned())?;
    TcpStream::connect(address).step(|| "connect in the network namespace".to_owned()).map(drop)
}

fn namespace_hint() -> &'static str {
    let sysctl = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    if sysctl("kernel/apparmor_restrict_unprivileged_userns").trim() == "1" {
        "; AppArmor restricts user namespaces here: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else if sysctl("kernel/unprivileged_userns_clone").trim() == "0" {
        "; user namespaces are switched off here: sysctl kernel.unprivileged_userns_clone=1"
    } else if sysctl("user/max_user_namespaces").trim() == "0" {
        "; user namespaces are switched off here: sysctl user.max_user_namespaces=10000"
    } else {
        "; inside a container: --cap-add SYS_ADMIN, or a seccomp profile that permits unshare(2)"
    }
}

fn try_seccomp(probed: &mut Probed) -> StepResult<()> {
    let (ours, theirs) = Channel::pair().step(|| "make a channel".to_owned())?;
    match sys::fork().step(|| "fork".to_owned())? {
        sys::Fork::Child => {
            drop(ours);
            sys::exit_now(if be_trapped(&theirs) == Some(TELL_TALE) { 0 } else { 1 })
        }
        sys::Fork::Parent(_) => {
            drop(theirs);
            let answered = answer_one(&ours, probed);
            // Ends the child, should it still wait: without listener its call returns.
            drop(ours);
            let ended = sys::reap(true).step(|| "wait for the trapped process".to_owned())?;
            answered?;
            match ended {
                Some((_, 0)) => Ok(()),
                _ => Err(("answer a trapped call".to_owned(), Errno::EPROTO)),
            }
        }
    }
}

/// In the child: puts a filter on itself, sends its listener, and makes a trapped call. Only
/// `connect` is trapped, so sending is not.
fn be_trapped(channel: &Channel) -> Option<i32> {
    let connect = super::calls::call("connect")?.number;
    let installed =
        prctl::set_no_new_privs().and_then(|()| sys::install_filter(&filter::program(&[connect])?));
    let (listener, killable) = match installed {
        Ok(installed) => installed,
        Err(errno) => {
            let failed = Report::Failed { step: "install a syscall filter".to_owned(), errno: errno as i32 };
            channel.send(&failed, &[]).ok()?;
            return None;
        }
    };
    channel.send(&Report::TrialFilter { killable }, &[listener.as_fd()]).ok()?;
    drop(listener);
    TcpStream::connect(SocketAddr::from(ADDRESS)).err()?.raw_os_error()
}

/// Answers the child's call.
fn answer_one(channel: &Channel, probed: &mut Probed) -> StepResult<()> {
    let receive = || "receive a filter's listener".to_owned();
    let (report, descriptors) =
        channel.receive::<Report>().step(receive)?.ok_or_else(|| (receive(), Errno::ECHILD))?;
    let listener = match (report, descriptors.into_iter().next()) {
        (Report::TrialFilter { killable }, Some(listener)) => {
            probed.wait_killable = killable;
            listener
        }
        (Report::Failed { step, errno }, _) => return Err((step, Errno::from_raw(errno))),
        _ => return Err((receive(), Errno::EPROTO)),
    };
    let notifier = Notifier::new(listener);
    probed.sync_wake_up = notifier.sync_wake_up().is_ok();
    let receive = || "receive a trapped call".to_owned();
    if notifier.wait(TOO_LONG_MS).step(receive)? != Wait::Ready {
        return Err((receive(), Errno::ETIMEDOUT));
    }
    let call = notifier.receive().step(receive)?;
    let [fd, address, length, ..] = call.args;
    let read = target::read_address(call.tid, address, length).map(|bytes| target::decode_address(&bytes));
    probed.read_memory = match read {
        Some(super::SyscallTarget::Peer(peer)) if peer == SocketAddr::from(ADDRESS) => Ok(()),
        Some(other) => Err(format!("read something else from a service's memory: {other:?}")),
        None => Err(format!("cannot read a service's memory{}", ptrace_hint())),
    };
    let taken = sys::take_descriptor(call.tid.cast_signed(), fd as u32 as i32);
    probed.take_descriptor = taken
        .map(drop)
        .map_err(|errno| format!("cannot take a service's descriptor: {}{}", errno.desc(), ptrace_hint()));
    notifier.respond(call.id, Response::Errno(TELL_TALE));
    Ok(())
}

fn ptrace_hint() -> &'static str {
    match std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default().trim() {
        "2" | "3" => "; sysctl kernel.yama.ptrace_scope=1 permits it",
        _ => "",
    }
}
