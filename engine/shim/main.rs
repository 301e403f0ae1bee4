//! The shim: the first program of every container that Faultbox starts. Static, so that it runs
//! in any image; embedded in the engine, so that there is nothing to find at run time.
//!
//! It connects to the control socket that is mounted beside it, makes listeners for the
//! service's upstreams, forks a *helper*, installs the syscall filter, hands its listener over
//! and becomes the image's own program, with its arguments, user, working directory and process
//! id. The helper stays: it hands out sockets of the container's network, which is how proxies and
//! health checks get in, whatever the network is.
//!
//! Contract:
//! - The handoff cannot wait for itself: the thread that sends the listener was started before
//!   the filter and is not under it.
//! - A step that fails is reported with its name and errno, and nothing is executed.
//! - The helper keeps a duplicate of the filter's listener (calls wait rather than fail with
//!   ENOSYS when Faultbox is killed) and ends every process as soon as its control socket closes.
//! - Unless it was told to keep the container: then it lets every trapped call pass and waits for
//!   the next Faultbox to connect, which takes over with the listener and new sockets.
//!
//! Not modelled: programs that gain privileges by a set-uid bit under a filter (`no_new_privs`).

mod sys;
mod wire;

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::mpsc;
use wire::{Command, Orders};

/// A step that failed.
type StepResult<T> = Result<T, (String, io::Error)>;

trait Step<T> {
    fn step(self, name: impl FnOnce() -> String) -> StepResult<T>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, name: impl FnOnce() -> String) -> StepResult<T> {
        self.map_err(|error| (name(), error))
    }
}

fn main() {
    let socket = format!("{}/control", wire::FOLDER);
    let control = match sys::connect_to(&socket) {
        Ok(control) => control,
        Err(error) => {
            eprintln!("faultbox shim: {socket}: {error}");
            sys::exit_now(126);
        }
    };
    let mut control = Some(control);
    if let (Err((step, error)), Some(control)) = (run(&mut control), &control) {
        report(control.as_fd(), &step, &error);
    }
    sys::exit_now(126);
}

fn report(to: BorrowedFd<'_>, step: &str, error: &io::Error) {
    // When even this fails, the other side sees the end of the channel.
    let _ = sys::send(to, &wire::failed(step, error.raw_os_error().unwrap_or(0)), &[]);
}

/// As [`report`], to the helper; returns when it has passed the word on. (The end of the container's
/// first process, which we are, is the helper's too.)
fn report_to_helper(handoff: BorrowedFd<'_>, step: &str, error: &io::Error) {
    report(handoff, step, error);
    // It closes its end then.
    while let Ok(Some(_)) = sys::receive(handoff) {}
}

/// Takes the control socket where it is the helper's from then on.
fn run(control: &mut Option<OwnedFd>) -> StepResult<()> {
    let closed = || ("find the control socket".to_owned(), io::Error::from_raw_os_error(9));
    let orders = obey_orders(control.as_ref().ok_or_else(closed)?.as_fd())?;
    let image = image()?;
    let (ours, theirs) = sys::channel().step(|| "make the handoff".to_owned())?;
    if sys::fork_once().step(|| "fork".to_owned())? {
        drop(theirs);
        sys::detach();
        Helper::new(control.take().ok_or_else(closed)?, ours).run();
        sys::exit_now(0);
    }
    drop(ours);
    sys::default_sigpipe();
    sys::close_others_at_exec();
    if orders.filter.is_empty() {
        let error = image.1.execute();
        report_to_helper(theirs.as_fd(), &format!("execute {}", image.0), &error);
        sys::exit_now(127);
    }
    execute_filtered(orders, image, theirs)
}

/// Reads the orders and hands over the listeners that they want.
fn obey_orders(control: BorrowedFd<'_>) -> StepResult<Orders> {
    let orders = sys::receive(control).step(|| "read the orders".to_owned())?;
    let orders = orders.as_deref().and_then(Orders::parse);
    let orders =
        orders.ok_or_else(|| ("understand the orders".to_owned(), io::Error::from_raw_os_error(71)))?;
    for some in listeners(&orders)?.chunks(sys::DESCRIPTORS_MAX) {
        let raw: Vec<RawFd> = some.iter().map(AsRawFd::as_raw_fd).collect();
        sys::send(control, wire::LISTENERS, &raw).step(|| "hand the listeners over".to_owned())?;
    }
    Ok(orders)
}

fn listeners(orders: &Orders) -> StepResult<Vec<std::net::TcpListener>> {
    let listen = |address| {
        std::net::TcpListener::bind(address).step(|| format!("listen on {address} inside the container"))
    };
    orders.listen.iter().map(listen).collect()
}

/// The program that the container's arguments name, looked up as `execvp` does.
fn image() -> StepResult<(String, sys::Image)> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let nothing = || ("find a program: the image names none".to_owned(), io::Error::from_raw_os_error(22));
    let program = args.first().cloned().ok_or_else(nothing)?;
    let name = program.to_string_lossy().into_owned();
    let candidates = if name.contains('/') {
        vec![program]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        std::env::split_paths(&path)
            .map(|folder| Path::new(&folder).join(&program).into_os_string())
            .collect()
    };
    let c = |text: OsString| {
        CString::new(text.into_vec())
            .map_err(|_| ("use a zero byte in arguments".to_owned(), io::Error::from_raw_os_error(22)))
    };
    let paths = candidates.into_iter().map(c).collect::<StepResult<_>>()?;
    let args = args.into_iter().map(c).collect::<StepResult<_>>()?;
    let env = std::env::vars_os().map(|(name, value)| {
        let mut pair = name;
        pair.push("=");
        pair.push(value);
        c(pair)
    });
    Ok((name, sys::Image::new(paths, args, env.collect::<StepResult<_>>()?)))
}

/// Executes under a filter: the unfiltered thread hands the listener over and waits for the
/// go-ahead, this one executes, and if that fails the other reports it.
fn execute_filtered(orders: Orders, (name, image): (String, sys::Image), handoff: OwnedFd) -> ! {
    let (to_sender, from_filter) = mpsc::channel::<StepResult<RawFd>>();
    let (to_us, go_ahead) = mpsc::channel::<()>();
    let sender = std::thread::Builder::new().spawn(move || {
        let fail = |(step, error): (String, io::Error)| -> ! {
            report_to_helper(handoff.as_fd(), &step, &error);
            sys::exit_now(127)
        };
        match from_filter.recv() {
            Ok(Ok(listener)) => {
                if let Err(error) = sys::send(handoff.as_fd(), wire::FILTER, &[listener]) {
                    fail(("hand the filter's listener over".to_owned(), error));
                }
            }
            Ok(Err(step)) => fail(step),
            Err(_) => sys::exit_now(127),
        }
        let go = sys::receive(handoff.as_fd()).ok().flatten().as_deref().and_then(Command::parse);
        if go != Some(Command::Go) || to_us.send(()).is_err() {
            sys::exit_now(127);
        }
        // Ends with this thread when the exec succeeds.
        match from_filter.recv() {
            Ok(Err(step)) => fail(step),
            _ => sys::exit_now(127),
        }
    });
    if sender.is_err() {
        sys::exit_now(127);
    }
    let installed = sys::install_filter(&orders.filter, !orders.restartable).step(|| "install the syscall filter".to_owned());
    let sent = to_sender.send(installed.as_ref().map(AsRawFd::as_raw_fd).map_err(|(step, error)| {
        (step.clone(), io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(0)))
    }));
    if sent.is_ok() && go_ahead.recv().is_ok() {
        let error = image.execute();
        let _ = to_sender.send(Err((format!("execute {name}"), error)));
    }
    // The other thread ends this process; no `close` is made under the filter.
    std::mem::forget(installed);
    loop {
        std::thread::park();
    }
}

struct Helper {
    /// The Faultbox that is connected, if one is.
    control: Option<OwnedFd>,
    handoff: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    /// Where the next Faultbox connects, once we were told to wait for it.
    door: Option<OwnedFd>,
    /// Whether the end of the connection is not the end.
    kept: bool,
    /// Whether nobody else answers trapped calls: then we let them pass.
    resting: bool,
}

impl Helper {
    fn new(control: OwnedFd, handoff: OwnedFd) -> Self {
        Helper {
            control: Some(control),
            handoff: Some(handoff),
            listener: None,
            door: None,
            kept: false,
            resting: false,
        }
    }

    fn run(&mut self) {
        loop {
            // A negative descriptor has nothing to say.
            let raw = |fd: &Option<OwnedFd>| fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            let door = if self.control.is_none() { raw(&self.door) } else { -1 };
            let listener = if self.resting { raw(&self.listener) } else { -1 };
            let ready = sys::wait(&[raw(&self.control), raw(&self.handoff), door, listener], -1);
            let is_ready = |which: usize| ready.get(which) == Some(&true);
            if let (true, Some(listener)) = (is_ready(3), &self.listener) {
                sys::pass_one(listener.as_fd());
            }
            if is_ready(1) {
                self.hand_over();
            }
            if is_ready(2) {
                self.welcome();
            }
            if is_ready(0) && !self.obey() {
                if !self.kept {
                    return self.end();
                }
                self.control = None;
                self.resting = true;
            }
        }
    }

    /// Says something to the Faultbox that is connected. When it cannot be sent, the next receive
    /// tells why.
    fn say(&self, text: &str, with: &[RawFd]) {
        if let Some(control) = &self.control {
            let _ = sys::send(control.as_fd(), text, with);
        }
    }

    /// The image's program-to-be says something, or has been executed.
    fn hand_over(&mut self) {
        let Some(handoff) = &self.handoff else { return };
        match sys::receive_with(handoff.as_fd()) {
            Ok(Some((text, Some(listener)))) if text == wire::FILTER => {
                self.say(wire::FILTER, &[listener.as_raw_fd()]);
                self.listener = Some(listener);
            }
            Ok(Some((text, _))) => {
                self.say(&text, &[]);
                self.handoff = None;
            }
            Ok(None) | Err(_) => {
                self.say(wire::STARTED, &[]);
                self.handoff = None;
            }
        }
    }

    /// Another Faultbox takes over: it gets what the first one got. One that says nothing sensible
    /// is not heard, and the next one may come.
    fn welcome(&mut self) {
        let Some(Ok(control)) = self.door.as_ref().map(|door| sys::accept_on(door.as_fd())) else { return };
        if let Err((step, error)) = obey_orders(control.as_fd()) {
            return report(control.as_fd(), &step, &error);
        }
        self.control = Some(control);
        match &self.listener {
            // Trapped calls pass until it answers them.
            Some(listener) => self.say(wire::FILTER, &[listener.as_raw_fd()]),
            None => self.taken_over(),
        }
    }

    fn taken_over(&mut self) {
        (self.kept, self.resting) = (false, false);
        self.say(wire::STARTED, &[]);
    }

    /// Carries out a command; `false` means the end.
    fn obey(&mut self) -> bool {
        let received = self.control.as_ref().map(|control| sys::receive_with(control.as_fd()));
        let Some(Ok(Some((text, with)))) = received else { return false };
        match Command::parse(&text) {
            Some(Command::Go) => match &self.handoff {
                // When this cannot be sent, there is nothing left that could go.
                Some(handoff) => drop(sys::send(handoff.as_fd(), "\"Go\"", &[])),
                None if self.resting => self.taken_over(),
                None => {}
            },
            Some(Command::Socket { v6 }) => match sys::tcp_socket(v6) {
                Ok(socket) => self.say(wire::SOCKET, &[socket.as_raw_fd()]),
                Err(error) => self.say(&wire::no_socket(error.raw_os_error().unwrap_or(0)), &[]),
            },
            Some(Command::Signal(number)) => sys::signal_all(number),
            Some(Command::Keep) => {
                self.door = with.or(self.door.take());
                (self.kept, self.resting) = (self.door.is_some(), true);
            }
            Some(Command::End) => return false,
            None => {}
        }
        true
    }

    /// Nobody is there to answer trapped calls: the container has no purpose any more. The first
    /// process cannot be killed from in here; when its calls fail (or it heeds SIGTERM), it ends.
    fn end(&mut self) {
        const SIGTERM: i32 = 15;
        const SIGKILL: i32 = 9;
        sys::signal_all(SIGTERM);
        sys::wait(&[], 500);
        sys::signal_all(SIGKILL);
    }
}
