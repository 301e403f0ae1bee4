//! What the host permits, tried by a launcher that ends afterwards.
//!
//! Contract: each thing is really done: calls are trapped, an argument read, a socket taken, a
//! descriptor put in, one call answered and one let pass; a user namespace is entered; a network
//! namespace is entered and a connection made in it; a name is resolved from an `/etc/hosts` of
//! its own.

use super::channel::{Channel, Probed, Report};
use super::features::{Feature, Refused, refuse};
use super::launcher::{Step, StepResult};
use super::sys::{self, Notifier, Response, Wait};
use super::{filter, names, network, target};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

/// An answer that the kernel itself would not give to a connect on loopback.
const TELL_TALE: i32 = libc::ENOTUNIQ;
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9);
const TOO_LONG_MS: i32 = 5000;

/// Tries everything. Leaves this process in a network namespace of its own.
pub(super) fn try_everything() -> Probed {
    let mut found = Found(Vec::new());
    if let Err(failed) = try_seccomp(&mut found) {
        found.set(Feature::Notify, Err(failed));
    }
    found.set(Feature::UserNamespace, apart(|| network::enter_user_namespace(CloneFlags::empty())));
    let network = network::enter().and_then(|()| try_network());
    found.set(Feature::NetworkNamespace, network.clone());
    found.set(Feature::MountNamespace, network.and_then(|()| try_names()));
    Probed(Feature::ALL.iter().map(|feature| (*feature, found.get(*feature))).collect())
}

/// What came of each attempt; the first that was said counts.
struct Found(Vec<(Feature, Result<(), Refused>)>);

impl Found {
    fn set(&mut self, feature: Feature, result: StepResult<()>) {
        let result = result.map_err(|(step, errno)| {
            let errno_words = if errno == Errno::UnknownErrno { "" } else { errno.desc() };
            let colon = if errno_words.is_empty() { "" } else { ": " };
            Refused { why: format!("{step}{colon}{errno_words}"), errno: errno as i32 }
        });
        self.0.push((feature, result));
    }

    fn get(&self, feature: Feature) -> Result<(), Refused> {
        let said = self.0.iter().find(|(of, _)| *of == feature);
        let untried = || {
            // What comes after the trap was not reached: its reason is the trap's.
            let trap = self.0.iter().find(|(of, result)| *of == Feature::Notify && result.is_err());
            let why = trap.and_then(|(_, result)| result.clone().err());
            Err(why.unwrap_or(Refused { why: "no call was trapped".to_owned(), errno: 0 }))
        };
        said.map_or_else(untried, |(_, result)| result.clone())
    }
}

/// Tries in a process of its own what would change this one.
fn apart(attempt: impl FnOnce() -> StepResult<()>) -> StepResult<()> {
    let (ours, theirs) = Channel::pair().step(|| "make a channel".to_owned())?;
    match sys::fork().step(|| "fork".to_owned())? {
        sys::Fork::Child => {
            drop(ours);
            if let Err((step, errno)) = attempt() {
                let _ = theirs.send(&Report::Failed { step, errno: errno as i32 }, &[]);
            }
            sys::exit_now(0)
        }
        sys::Fork::Parent(_) => {
            drop(theirs);
            let said = ours.receive::<Report>().step(|| "hear of an attempt".to_owned())?;
            sys::reap(true).step(|| "wait for an attempt".to_owned())?;
            match said {
                Some((Report::Failed { step, errno }, _)) => Err((step, Errno::from_raw(errno))),
                _ => Ok(()),
            }
        }
    }
}

fn try_network() -> StepResult<()> {
    let listener = TcpListener::bind("127.0.0.1:80").or_else(|_| TcpListener::bind("127.0.0.1:8080"));
    let listener = listener.step(|| "listen in the network namespace".to_owned())?;
    let address = listener.local_addr().step(|| "listen in the network namespace".to_owned())?;
    TcpStream::connect(address).step(|| "connect in the network namespace".to_owned()).map(drop)
}

fn try_names() -> StepResult<()> {
    const NAME: &str = "a-name-of-faultbox";
    names::enter(&[NAME.to_owned()])?;
    let hosts = std::fs::read_to_string(names::HOSTS).step(|| format!("read {}", names::HOSTS))?;
    let held = hosts.lines().any(|line| line.split_whitespace().any(|word| word == NAME));
    if held { Ok(()) } else { Err((format!("have a {} of its own", names::HOSTS), Errno::EPROTO)) }
}

fn try_seccomp(found: &mut Found) -> StepResult<()> {
    let (ours, theirs) = Channel::pair().step(|| "make a channel".to_owned())?;
    match sys::fork().step(|| "fork".to_owned())? {
        sys::Fork::Child => {
            drop(ours);
            sys::exit_now(if be_trapped(&theirs) == Some(TELL_TALE) { 0 } else { 1 })
        }
        sys::Fork::Parent(_) => {
            drop(theirs);
            let answered = answer_calls(&ours, found);
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

/// In the child: puts a filter on itself, sends its listener, and makes two trapped calls: one to be
/// answered, one to be let pass. Only `connect` is trapped, so sending is not.
fn be_trapped(channel: &Channel) -> Option<i32> {
    let connect = super::calls::call("connect")?.number;
    let installed =
        prctl::set_no_new_privs().and_then(|()| filter::install(&[filter::Trap::always(connect)]));
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
    let connect = || TcpStream::connect(SocketAddr::from(ADDRESS)).err().and_then(|e| e.raw_os_error());
    let answer = connect();
    connect();
    answer
}

/// Answers the child's calls.
fn answer_calls(channel: &Channel, found: &mut Found) -> StepResult<()> {
    let receive = || "receive a filter's listener".to_owned();
    let (report, descriptors) =
        channel.receive::<Report>().step(receive)?.ok_or_else(|| (receive(), Errno::ECHILD))?;
    let (listener, killable) = match (report, descriptors.into_iter().next()) {
        (Report::TrialFilter { killable }, Some(listener)) => (listener, killable),
        (Report::Failed { step, errno }, _) => return Err((step, Errno::from_raw(errno))),
        _ => return Err((receive(), Errno::EPROTO)),
    };
    let notifier = Notifier::new(listener);
    let flag = "install a filter whose calls wait on when a signal arrives".to_owned();
    found.set(Feature::WaitKillable, if killable { Ok(()) } else { Err((flag, Errno::EINVAL)) });
    let awake = notifier.sync_wake_up().step(|| "ask for the synchronous wake-up".to_owned());
    found.set(Feature::SyncWakeUp, awake);
    let call = next_call(&notifier)?;
    look_into(&call, found);
    let put = refuse(Feature::AddDescriptor)
        .and_then(|()| notifier.add_descriptor(call.id, channel.as_fd()).map(drop));
    found.set(Feature::AddDescriptor, put.step(|| "put a descriptor into a trapped process".to_owned()));
    notifier.respond(call.id, Response::Errno(TELL_TALE));
    let call = next_call(&notifier)?;
    let passed = refuse(Feature::Continue).and_then(|()| notifier.try_respond(call.id, Response::Continue));
    found.set(Feature::Continue, passed.step(|| "let a trapped call pass".to_owned()));
    if passed.is_err() {
        // Else the child would wait for ever.
        notifier.respond(call.id, Response::Errno(TELL_TALE));
    }
    found.set(Feature::Notify, Ok(()));
    Ok(())
}

fn next_call(notifier: &Notifier) -> StepResult<sys::Notification> {
    let receive = || "receive a trapped call".to_owned();
    if notifier.wait(TOO_LONG_MS).step(receive)? != Wait::Ready {
        return Err((receive(), Errno::ETIMEDOUT));
    }
    notifier.receive().step(receive)
}

/// Reads the call's address, and takes its socket.
fn look_into(call: &sys::Notification, found: &mut Found) {
    let [fd, address, length, ..] = call.args;
    let read = target::read_address(call.tid, address, length).map(|bytes| target::decode_address(&bytes));
    let read = match read {
        Some(super::SyscallTarget::Peer(peer)) if peer == SocketAddr::from(ADDRESS) => Ok(()),
        Some(other) => {
            Err((format!("read a service's memory: something else is there: {other:?}"), Errno::EPROTO))
        }
        None => Err(("read a service's memory".to_owned(), Errno::EPERM)),
    };
    found.set(Feature::ReadMemory, read);
    let taken = sys::take_descriptor(call.tid.cast_signed(), fd as u32 as i32);
    found.set(Feature::TakeDescriptor, taken.map(drop).step(|| "take a service's descriptor".to_owned()));
}
