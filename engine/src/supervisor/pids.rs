//! Process ids of a service's own: a PID namespace, in which the service is the second process.
//!
//! Contract: the first process of the namespace is one of ours, which does nothing but wait for those who lose their
//! parent, so that the service is an ordinary process: what it does not handle ends it. It ends when told to
//! and nobody is left, or with its launcher; the kernel then ends all that is left. The launcher stays
//! outside. A service sees a `/proc` of these ids.
//!
//! Source: pid_namespaces(7).

use super::features::{Feature, refuse};
use super::launcher::{Step, StepResult};
use super::{network, sys};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2};
use std::fs::File;
use std::os::fd::OwnedFd;

/// Keeps the namespace's first process; let go of it when the service has ended.
pub(super) struct Init(#[expect(dead_code, reason = "its end is what is told")] OwnedFd);

/// Makes what this process (of one thread) starts from now on belong to a new PID namespace. `null` is
/// `/dev/null`.
pub(super) fn enter(null: &File) -> StepResult<Init> {
    match unshare(CloneFlags::CLONE_NEWPID) {
        Ok(()) => {}
        Err(Errno::EPERM) => network::enter_user_namespace(CloneFlags::CLONE_NEWPID)?,
        Err(errno) => return Err(("enter a process id namespace".to_owned(), errno)),
    }
    let (told, init) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step(|| "make a pipe".to_owned())?;
    match sys::fork().step(|| "fork the first process of a process id namespace".to_owned())? {
        sys::Fork::Child => {
            drop(init);
            be_first(&told, null)
        }
        sys::Fork::Parent(_) => Ok(Init(init)),
    }
}

/// The first process: has nothing of the launcher's but the end that it is told by.
fn be_first(told: &OwnedFd, null: &File) -> ! {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let _ = prctl::set_name(c"faultbox-init");
    // What others wait for the end of must not be held open here.
    match dup2_stdin(told).and_then(|()| dup2_stdout(null)).and_then(|()| dup2_stderr(null)) {
        Ok(()) => sys::be_init(),
        Err(_) => sys::exit_now(1),
    }
}

/// Gives this process, which is in such a namespace, a `/proc` that shows it.
pub(super) fn show() -> StepResult<()> {
    let nothing: Option<&str> = None;
    refuse(Feature::MountNamespace)
        .and_then(|()| unshare(CloneFlags::CLONE_NEWNS))
        .and_then(|()| mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SLAVE, nothing))
        .step(|| "enter a mount namespace for its /proc".to_owned())?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, nothing)
        .step(|| "mount a /proc of its own process ids".to_owned())
}
