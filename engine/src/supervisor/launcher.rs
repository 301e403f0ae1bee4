//! The hidden subcommand `__launch`: enters the service's network, forks the service, and stays
//! as its helper. The control socket is its standard input.
//!
//! Contract:
//! - It has one thread, except in the process that becomes the service, just before that
//!   executes.
//! - The service gets `/dev/null` as standard input, its parent's standard output and error, a
//!   session of its own, default signals, and no other descriptor.
//! - The handoff of the filter's listener cannot wait for itself: the thread that sends it was
//!   started before the filter and is not under it.
//! - The helper is the subreaper of all that the service starts, keeps a duplicate of the
//!   filter's listener (so that trapped calls wait rather than fail with ENOSYS when Faultbox is
//!   killed), and kills all of it when the control socket ends.

use super::channel::{Channel, Command, Config, Report};
use super::told::Exit;
use super::{filter, names, network, pids, probe, sys};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, getpid, getppid, setsid};
use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::sync::{Arc, OnceLock, mpsc};

/// A step that failed: what was tried, and what the system said.
pub(super) type StepResult<T> = Result<T, (String, Errno)>;

/// Names the step that an error belongs to.
pub(super) trait Step<T> {
    /// Adds the name.
    fn step(self, name: impl FnOnce() -> String) -> StepResult<T>;
}

impl<T> Step<T> for nix::Result<T> {
    fn step(self, name: impl FnOnce() -> String) -> StepResult<T> {
        self.map_err(|errno| (name(), errno))
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, name: impl FnOnce() -> String) -> StepResult<T> {
        self.map_err(|error| (name(), error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)))
    }
}

/// Runs the hidden subcommand `__launch`. Call it before anything starts a thread; its standard
/// input is the control socket.
pub fn launcher_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err((step, errno)) => {
            eprintln!("launcher: {step}: {}", errno.desc());
            ExitCode::FAILURE
        }
    }
}

fn run() -> StepResult<()> {
    let socket =
        std::io::stdin().as_fd().try_clone_to_owned().step(|| "take the control socket".to_owned())?;
    let control = Channel::over(socket);
    // With capabilities on the executable its `/proc` files would be root's, and no user namespace
    // could be mapped. (Nobody else may look into us then either.)
    let _ = prctl::set_dumpable(true);
    let null =
        File::options().read(true).write(true).open("/dev/null").step(|| "open /dev/null".to_owned())?;
    dup2_stdin(&null).step(|| "set standard input".to_owned())?;
    // Out of the terminal's reach: an interrupt there is for Faultbox, which then stops us. It
    // fails only for a group's leader, which is out of reach already.
    let _ = setsid();
    let first = control.receive::<Command>().step(|| "read the first command".to_owned())?;
    let result = match first {
        Some((Command::Launch, files)) => serve(&control, files, &null),
        Some((Command::Probe, _)) => {
            let probed = probe::try_everything();
            control.send(&Report::Probed(probed), &[]).step(|| "answer".to_owned())
        }
        Some(_) => Err(("understand the first command".to_owned(), Errno::EPROTO)),
        None => Ok(()),
    };
    if let Err((step, errno)) = &result {
        let failed = Report::Failed { step: step.clone(), errno: *errno as i32 };
        return control.send(&failed, &[]).step(|| step.clone());
    }
    Ok(())
}

fn serve(control: &Channel, files: Vec<OwnedFd>, null: &File) -> StepResult<()> {
    let config = read_config(files)?;
    if config.isolated {
        network::enter()?;
        // Where that is refused, the probe has said so before the first cell; addresses work.
        let _ = names::enter(&config.names);
    }
    for some in network::listen(&config.listen)?.chunks(64) {
        let descriptors: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
        control.send(&Report::Listeners, &descriptors).step(|| "hand the listeners over".to_owned())?;
    }
    let init = match config.pids {
        true => Some(pids::enter(null)?),
        false => None,
    };
    prctl::set_child_subreaper(true).step(|| "become the subreaper".to_owned())?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().step(|| "block SIGCHLD".to_owned())?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals, flags).step(|| "receive signals".to_owned())?;
    let (handoff, theirs) = Channel::pair().step(|| "make the handoff".to_owned())?;
    let helper = getpid();
    match sys::fork().step(|| "fork".to_owned())? {
        sys::Fork::Child => {
            drop(handoff);
            become_service(config, helper, theirs)
        }
        sys::Fork::Parent(pid) => {
            drop(theirs);
            drop(config);
            // The service's output ends when the service's processes have ended, not we.
            dup2_stdout(null).and_then(|()| dup2_stderr(null)).step(|| "let go of the output".to_owned())?;
            let handoff = Some(handoff);
            let mut helper = Helper { control, handoff, listener: None, service: pid, init, ended: false };
            helper.run(&signals);
            Ok(())
        }
    }
}

fn read_config(files: Vec<OwnedFd>) -> StepResult<Config> {
    let file =
        files.into_iter().next().ok_or_else(|| ("receive the configuration".to_owned(), Errno::EPROTO))?;
    let mut text = Vec::new();
    File::from(file).read_to_end(&mut text).step(|| "read the configuration".to_owned())?;
    serde_json::from_slice(&text).map_err(|_| ("understand the configuration".to_owned(), Errno::EPROTO))
}

/// In the forked process: becomes the service, or reports why not and ends.
fn become_service(config: Config, helper: Pid, handoff: Channel) -> ! {
    let failed = |(step, errno): (String, Errno)| {
        // When even this fails, the helper sees the end of the handoff and of this process.
        let _ = handoff.send(&Report::Failed { step, errno: errno as i32 }, &[]);
        sys::exit_now(127)
    };
    match prepare(config, helper) {
        Err(step) => failed(step),
        Ok(image) if image.trap.is_empty() => match image.execute() {
            Err(step) => failed(step),
            Ok(never) => match never {},
        },
        Ok(image) => execute_filtered(image, handoff),
    }
}

/// A program ready to be executed: nothing is left to allocate or look up.
struct Image {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    trap: Vec<filter::Trap>,
}

impl Image {
    fn execute(&self) -> StepResult<Infallible> {
        execve(&self.path, &self.args, &self.env).step(|| format!("execute {}", self.path.to_string_lossy()))
    }
}

fn prepare(config: Config, helper: Pid) -> StepResult<Image> {
    setsid().step(|| "make a session".to_owned())?;
    prctl::set_pdeathsig(Signal::SIGKILL).step(|| "tie it to its helper".to_owned())?;
    // With ids of its own, its helper has none among them; it then ends with the first of them.
    if !config.pids && getppid() != helper {
        // The helper died before the tie: nobody waits for this service.
        sys::exit_now(127);
    }
    if config.pids {
        pids::show()?;
        if config.trap.is_empty() {
            // As under a filter, where a thread takes the next id: what the service starts has the same ids.
            let _ = std::thread::Builder::new().spawn(|| ()).map(std::thread::JoinHandle::join);
        }
    }
    sys::default_sigpipe();
    SigSet::empty().thread_set_mask().step(|| "unblock signals".to_owned())?;
    let cwd = OsStr::new(&config.cwd);
    chdir(cwd).step(|| format!("enter the folder {}", cwd.to_string_lossy()))?;
    // Older kernels lack it; whatever we open closes at exec anyway.
    let _ = sys::close_others_at_exec();
    let c = |text: OsString| CString::new(text.into_vec()).map_err(|_| Errno::EINVAL);
    let image = || -> nix::Result<Image> {
        let path = c(config.program)?;
        let mut args = vec![path.clone()];
        for arg in config.args {
            args.push(c(arg.into())?);
        }
        let mut env = Vec::new();
        for (name, value) in config.env {
            env.push(c(format!("{name}={value}").into())?);
        }
        Ok(Image { path, args, env, trap: config.trap })
    };
    image().step(|| "use a zero byte in its path, arguments or environment".to_owned())
}

/// Executes under a filter. Three parts on two threads: the unfiltered one sends the listener
/// and waits for the go-ahead, this one executes, and if that fails the other reports it, since
/// this one might be trapped in the attempt.
fn execute_filtered(image: Image, handoff: Channel) -> ! {
    // Looked at, not waited for: to wake somebody is a call that the filter may trap.
    let filter = Arc::new(OnceLock::<StepResult<Arc<OwnedFd>>>::new());
    let installed = filter.clone();
    // Of one place, so that nothing is allocated under the filter, which may trap that.
    let (to_sender, from_us) = mpsc::sync_channel::<(String, Errno)>(1);
    let (to_us, go_ahead) = mpsc::channel::<()>();
    let sender = std::thread::Builder::new().spawn(move || {
        let report = |(step, errno): (String, Errno)| {
            let _ = handoff.send(&Report::Failed { step, errno: errno as i32 }, &[]);
            sys::exit_now(127)
        };
        let listener = loop {
            match installed.get() {
                None => std::thread::yield_now(),
                Some(Ok(listener)) => break listener.clone(),
                Some(Err(step)) => report(step.clone()),
            }
        };
        let sent = handoff.send(&Report::Filter, &[listener.as_fd()]);
        if let Err(step) = sent.step(|| "hand the filter's listener over".to_owned()) {
            report(step);
        }
        if !matches!(handoff.receive::<Command>(), Ok(Some((Command::Go, _)))) || to_us.send(()).is_err() {
            sys::exit_now(127);
        }
        // Ends with this thread when the exec succeeds.
        match from_us.recv() {
            Ok(step) => report(step),
            Err(_) => sys::exit_now(127),
        }
    });
    if sender.is_err() {
        sys::exit_now(127);
    }
    let listener = prctl::set_no_new_privs()
        .and_then(|()| filter::install(&image.trap))
        .map(|(listener, _)| Arc::new(listener))
        .step(|| "install the syscall filter".to_owned());
    // Kept here so that no `close` is made under the filter.
    let kept = listener.clone();
    if filter.set(listener).is_ok() && go_ahead.recv().is_ok() {
        let Err(step) = image.execute();
        let _ = to_sender.send(step);
    }
    // The other thread ends this process.
    std::mem::forget(kept);
    loop {
        std::thread::park();
    }
}

struct Helper<'a> {
    control: &'a Channel,
    handoff: Option<Channel>,
    listener: Option<OwnedFd>,
    service: i32,
    /// Where it has process ids of its own.
    init: Option<pids::Init>,
    ended: bool,
}

impl Helper<'_> {
    /// Serves until the control socket ends, then kills what is left.
    fn run(&mut self, signals: &SignalFd) {
        loop {
            let (control, handoff, child) = self.wait(signals);
            // Before the children: an exec that succeeded is told before the exit that follows.
            if handoff {
                self.hand_over();
            }
            if child {
                while matches!(signals.read_signal(), Ok(Some(_))) {}
                self.reap();
            }
            if control && !self.obey() {
                return self.kill_all();
            }
        }
    }

    fn wait(&self, signals: &SignalFd) -> (bool, bool, bool) {
        let handoff = self.handoff.as_ref().map_or(signals.as_fd(), AsFd::as_fd);
        let mut fds =
            [self.control.as_fd(), handoff, signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let _ = poll(&mut fds, PollTimeout::NONE);
        let [control, handoff, child] = fds.map(|fd| fd.any().unwrap_or(false));
        (control, handoff && self.handoff.is_some(), child)
    }

    /// Tells Faultbox; when it is gone, the control socket says so too.
    fn tell(&self, report: &Report, with: &[BorrowedFd<'_>]) {
        let _ = self.control.send(report, with);
    }

    /// The service-to-be says something, or has executed.
    fn hand_over(&mut self) {
        let Some(handoff) = &self.handoff else { return };
        match handoff.receive::<Report>() {
            Ok(Some((Report::Filter, descriptors))) => {
                let Some(listener) = descriptors.into_iter().next() else { return };
                self.tell(&Report::Filter, &[listener.as_fd()]);
                self.listener = Some(listener);
            }
            Ok(Some((report, _))) => {
                self.tell(&report, &[]);
                self.handoff = None;
            }
            Ok(None) | Err(_) => {
                self.handoff = None;
                self.tell(&Report::Started(self.service), &[]);
            }
        }
    }

    /// Collects children that have ended.
    fn reap(&mut self) {
        loop {
            match sys::reap(false) {
                Ok(Some((pid, status))) => self.collected(pid, status),
                Err(Errno::EINTR) => {}
                Ok(None) => return,
                Err(_) => {
                    // Once: there is no child left, so no signal comes again.
                    if self.ended {
                        self.tell(&Report::Empty, &[]);
                    }
                    return;
                }
            }
        }
    }

    fn collected(&mut self, pid: i32, status: i32) {
        if pid != self.service || self.ended {
            return;
        }
        while self.handoff.is_some() {
            self.hand_over();
        }
        self.ended = true;
        self.init = None;
        let status = ExitStatus::from_raw(status);
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        };
        self.tell(&Report::Exited(exit), &[]);
    }

    /// Carries out a command; `false` means the end.
    fn obey(&mut self) -> bool {
        match self.control.receive::<Command>() {
            Ok(Some((Command::Go, _))) => {
                if let Some(handoff) = &self.handoff {
                    let _ = handoff.send(&Command::Go, &[]);
                }
            }
            Ok(Some((Command::Socket { v6 }, _))) => match network::tcp_socket(v6) {
                Ok(socket) => self.tell(&Report::Socket(Ok(())), &[socket.as_fd()]),
                Err(errno) => self.tell(&Report::Socket(Err(errno as i32)), &[]),
            },
            Ok(Some((Command::Signal(signal), _))) => {
                for pid in descendants(getpid().as_raw()) {
                    send_signal(pid, signal);
                }
            }
            Ok(Some((Command::Launch | Command::Probe | Command::Keep, _))) => {}
            Ok(Some((Command::End, _)) | None) | Err(_) => return false,
        }
        true
    }

    /// Kills whatever the service started and waits until nothing is left. Who loses its parent
    /// becomes our child, so it is found in the next round.
    fn kill_all(&mut self) {
        loop {
            for pid in descendants(getpid().as_raw()) {
                send_signal(pid, libc::SIGKILL);
            }
            match sys::reap(true) {
                Ok(Some((pid, status))) => self.collected(pid, status),
                Ok(None) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        self.tell(&Report::Empty, &[]);
    }
}

/// Sends a signal to a process that has not been waited for, so that its id is still its own.
fn send_signal(pid: i32, signal: i32) {
    if let Ok(signal) = Signal::try_from(signal) {
        // It may have become a zombie meanwhile.
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
    }
}

/// The processes that `pid` started, and those that they started, parents first.
fn descendants(pid: i32) -> Vec<i32> {
    let mut found: Vec<i32> = Vec::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        for child in children(pid) {
            if !found.contains(&child) {
                found.push(child);
                next.push(child);
            }
        }
    }
    found
}

/// The processes whose parent it is.
pub(super) fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(list.split_whitespace().filter_map(|id| id.parse::<i32>().ok())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return children_by_search(pid),
            Err(_) => {}
        }
    }
    found
}

/// For kernels that do not list a thread's children.
fn children_by_search(pid: i32) -> Vec<i32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| parent(*id) == Some(pid)).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets can hold anything, brackets included.
    let after = stat.iter().rposition(|b| *b == b')')?;
    let rest = OsStr::from_bytes(stat.get(after + 1..)?).to_str()?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_and_children_are_found() {
        let us = std::process::id() as i32;
        assert_eq!(parent(us), Some(getppid().as_raw()));
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let id = child.id() as i32;
        assert!(descendants(us).contains(&id));
        assert!(children_by_search(us).contains(&id));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children_by_search(us).contains(&id));
    }
}
