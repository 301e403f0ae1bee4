//! Answers the notifications of one service: one blocking thread.
//!
//! Contract: every trapped call is answered, in arrival order, but for delays, which wait on
//! the runtime's timers without holding up the next call. A caller that is gone meanwhile is no
//! error. A policy that panics lets the call pass and is told of ([`Supervisor::trouble`]).

use super::calls::{self, Call};
use super::filter::Trap;
use super::host::kernel_at_least;
use super::mediate::{self, Mediator};
use super::remap::{Remap, process_of};
use super::sys::{self, Notification, Notifier, Response, Wait};
use super::timed::{self, Holder};
use super::transfer::Transfer;
use super::{Kind, SyscallAct, SyscallCall, SyscallDecision, SyscallPolicy, SyscallTarget, target};
use crate::determinism::Mediation;
use nix::errno::Errno;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// A syscall that the filter traps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trapped {
    call: Call,
    families: Vec<&'static str>,
    /// Whether the policy is asked (else it is trapped for the declared ports only).
    asked: bool,
}

/// What the filter traps, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Traps(Vec<Option<Trapped>>);

impl Traps {
    /// The plan for these families; `Err` names one that does not exist.
    pub(super) fn of<'a>(
        families: impl IntoIterator<Item = &'a String>,
        remaps: bool,
    ) -> Result<Self, String> {
        let mut traps = Traps::default();
        for family in families {
            let names = calls::family_calls(family).ok_or_else(|| family.clone())?;
            names.iter().filter_map(|name| calls::call(name)).for_each(|call| traps.add(call, true));
        }
        if let Some(call) = calls::call("bind").filter(|_| remaps) {
            traps.add(call, false);
        }
        Ok(traps)
    }

    fn add(&mut self, call: Call, asked: bool) {
        let index = call.number as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        if let Some(place @ None) = self.0.get_mut(index) {
            *place = Some(Trapped { call, families: calls::families_of(call.name), asked });
        }
    }

    fn get(&self, number: u32) -> Option<&Trapped> {
        self.0.get(number as usize)?.as_ref()
    }

    /// What the filter has to trap, for these and for the service's clock and randomness.
    pub(super) fn all(&self, mediation: &Mediation) -> Vec<Trap> {
        let mut all: Vec<Trap> =
            self.0.iter().flatten().map(|trapped| Trap::always(trapped.call.number)).collect();
        let mut more = mediate::traps(mediation);
        if mediation.time.is_some() {
            more.extend(timed::traps());
        }
        more.retain(|trap| !all.contains(trap));
        all.extend(more);
        all
    }
}

/// Where a service's calls can be given back: whoever waits for them next finds none that was taken
/// and not answered.
#[derive(Debug, Default)]
pub(super) struct Gate {
    released: Mutex<bool>,
    /// Calls that are held up.
    held: watch::Sender<usize>,
}

impl Gate {
    /// From now on no call is taken; returns when none is held up any more.
    pub(super) async fn release(&self) {
        *self.released.lock().unwrap_or_else(|p| p.into_inner()) = true;
        // The sender lives in what we hold.
        let _ = self.held.subscribe().wait_for(|held| *held == 0).await;
    }
}

/// Answers the notifications of one service.
pub(super) struct Supervisor {
    pub hands: Arc<Hands>,
    pub traps: Arc<Traps>,
    pub policy: Arc<dyn SyscallPolicy>,
    pub runtime: tokio::runtime::Handle,
    /// The mount namespaces that show the host's files under the host's names.
    pub homes: Vec<PathBuf>,
    /// Turns true when the service is being stopped: nothing is held up any more.
    pub calm: watch::Receiver<bool>,
    /// Whether somebody else may answer later.
    pub keepable: bool,
    pub gate: Arc<Gate>,
}

impl Supervisor {
    /// Serves until nobody is left under the filter.
    pub(super) fn run(self) {
        self.serve_all();
        if let Some(holder) = &self.hands.holder {
            holder.end();
        }
    }

    fn serve_all(&self) {
        // Older kernels have no such mode; calls then take a little longer.
        let _ = self.hands.notifier.sync_wake_up();
        // Before 6.11 a blocking receive sleeps on when its last target has ended, and one that
        // sleeps would take a call after the gate has closed.
        let wait_first = self.keepable || !kernel_at_least(6, 11);
        let mut changes = self.policy.changes();
        loop {
            if let Some(holder) = &self.hands.holder {
                match holder.wait() {
                    Ok(Wait::Over) => return,
                    Ok(Wait::Ready) => {}
                    Ok(Wait::TimedOut) | Err(_) => continue,
                }
            } else if wait_first {
                match self.hands.notifier.wait(-1) {
                    Ok(Wait::Over) => return,
                    Ok(Wait::Ready) => {}
                    Ok(Wait::TimedOut) | Err(_) => continue,
                }
            }
            let released = self.gate.released.lock().unwrap_or_else(|p| p.into_inner());
            if *released {
                return;
            }
            // A receive that may sleep must not hold the gate.
            let _open_until_answered = self.keepable.then_some(released);
            match self.hands.notifier.receive() {
                Ok(notification) => self.serve(&notification, changes.as_mut()),
                Err(Errno::EINTR) => {}
                // One vanished notification, or the end.
                Err(Errno::ENOENT) => {
                    if self.hands.notifier.wait(0) == Ok(Wait::Over) {
                        return;
                    }
                }
                Err(errno) => return self.hands.note(format!("supervision ended: {}", errno.desc())),
            }
        }
    }

    fn serve(&self, notification: &Notification, changes: Option<&mut watch::Receiver<u64>>) {
        let trapped = self.traps.get(notification.number);
        let Some(trapped) = trapped.filter(|trapped| trapped.asked) else {
            return self.hands.pass(trapped.map(|trapped| &trapped.call), notification);
        };
        // From here on: a change after the decision ends its delay.
        let changes = changes.map(|changes| {
            changes.borrow_and_update();
            &*changes
        });
        let decision = catch_unwind(AssertUnwindSafe(|| self.decide(trapped, notification)));
        match decision {
            // Its caller is gone: there is nobody to answer.
            Ok(None) => {}
            Ok(Some(SyscallDecision { pause, act }))
                if pause > Duration::ZERO || matches!(act, SyscallAct::AtMost(_)) =>
            {
                self.later(*notification, trapped.call, pause, act, changes.cloned());
            }
            Ok(Some(SyscallDecision { act, .. })) => {
                self.hands.act(act, &trapped.call, notification, &|| false)
            }
            Err(_) => {
                let what =
                    format!("the policy panicked on a {} of '{}'", trapped.call.name, self.hands.service);
                self.hands.note(what);
                self.hands.pass(Some(&trapped.call), notification);
            }
        }
    }

    /// What the policy says; `None` when the caller is gone.
    fn decide(&self, trapped: &Trapped, notification: &Notification) -> Option<SyscallDecision> {
        let Some(interest) = self.policy.wants(trapped.call.name, &trapped.families) else {
            return Some(SyscallDecision::CONTINUE);
        };
        if target::is_forbidden(notification.tid) {
            // Whatever the rules say, nobody could tell what the call is about.
            self.hands.note(format!(
                "the syscalls of '{}' cannot be looked at: its process is another user's; \
                 `faultbox doctor` says what it takes",
                self.hands.service
            ));
            return Some(SyscallDecision::CONTINUE);
        }
        let mut target = target::resolve(&trapped.call, notification, &self.homes);
        if let SyscallTarget::Fd { kind: Kind::Socket, peer } = &mut target
            && interest.peer
        {
            *peer = target::peer(&trapped.call, notification).map(Box::new);
        }
        let bytes = match trapped.call.name {
            _ if !interest.bytes => None,
            "fallocate" => Some(notification.args[3]),
            _ => Transfer::of(&trapped.call, notification).map(|transfer| transfer.total()),
        };
        let process = if interest.process { target::names(notification.tid) } else { Vec::new() };
        if !self.hands.notifier.valid(notification.id) {
            return None;
        }
        Some(self.policy.decide(&SyscallCall {
            service: &self.hands.service,
            pid: notification.tid,
            name: trapped.call.name,
            families: &trapped.families,
            target,
            bytes,
            process,
        }))
    }

    /// Acts later: after the pause, when the faults change, or when the service is being stopped.
    /// What may wait does so on a thread of its own.
    fn later(
        &self,
        notification: Notification,
        call: Call,
        pause: Duration,
        act: SyscallAct,
        changes: Option<watch::Receiver<u64>>,
    ) {
        let (hands, mut calm, gate) = (self.hands.clone(), self.calm.clone(), self.gate.clone());
        let release = Held::by(gate);
        let time = hands.holder.as_ref().map(|holder| holder.time()).unwrap_or_default();
        let delayed = hands.holder.as_ref().map(|holder| holder.delay(notification.tid));
        let name = format!("syscalls of {}", hands.service);
        self.runtime.spawn(async move {
            let changed = async {
                match changes {
                    // A sender that is gone ends the delay too: the cell is over.
                    Some(mut changes) => drop(changes.changed().await),
                    None => std::future::pending().await,
                }
            };
            let now = pause == Duration::ZERO;
            // Whether the pause was waited for; else it was ended together with the fault.
            let waited = now
                || tokio::select! {
                    () = time.sleep(pause) => true,
                    () = changed => false,
                    _ = calm.wait_for(|calm| *calm) => false,
                };
            let act = if waited { act } else { SyscallAct::Continue };
            drop(delayed);
            let stop = calm.clone();
            let done = move |hands: &Hands| {
                hands.act(act, &call, &notification, &|| *stop.borrow());
                drop(release);
            };
            if !matches!(act, SyscallAct::AtMost(_)) {
                return done(&hands);
            }
            let theirs = hands.clone();
            let thread = std::thread::Builder::new().name(name).spawn(move || done(&theirs));
            if thread.is_err() {
                hands.note("a thread for a part of a call could not be started".to_owned());
                hands.pass(Some(&call), &notification);
            }
        });
    }
}

/// A call that is held up, until this is dropped.
struct Held(Arc<Gate>);

impl Held {
    fn by(gate: Arc<Gate>) -> Self {
        gate.held.send_modify(|held| *held += 1);
        Held(gate)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held -= 1);
    }
}

/// What answers one service's calls.
pub(super) struct Hands {
    pub service: String,
    pub notifier: Arc<Notifier>,
    pub remap: Arc<Remap>,
    /// Answers what the service asks about time and randomness, where those are not the host's.
    pub mediator: Option<Arc<Mediator>>,
    /// Holds the calls that wait, where time is skipped.
    pub holder: Option<Arc<Holder>>,
    /// What went wrong with the supervision itself.
    pub trouble: Arc<Mutex<Option<String>>>,
}

impl Hands {
    fn note(&self, trouble: String) {
        self.trouble.lock().unwrap_or_else(|p| p.into_inner()).get_or_insert(trouble);
    }

    /// Does to the call what was decided.
    fn act(&self, act: SyscallAct, call: &Call, notification: &Notification, stopped: &dyn Fn() -> bool) {
        let response = match act {
            SyscallAct::Continue => return self.pass(Some(call), notification),
            SyscallAct::Errno(errno) => Response::Errno(errno),
            SyscallAct::AtMost(most) => {
                let Some(transfer) = Transfer::of(call, notification) else {
                    return self.pass(Some(call), notification);
                };
                match transfer.at_most(most, &self.notifier, notification, stopped) {
                    Ok(Response::Continue) => return self.pass(Some(call), notification),
                    Ok(response) => response,
                    Err(errno) => {
                        let why = errno.desc();
                        self.note(format!(
                            "a part of a {} of '{}' cannot be made: {why}",
                            call.name, self.service
                        ));
                        return self.pass(Some(call), notification);
                    }
                }
            }
            SyscallAct::Kill(signal) => match self.kill(signal, notification) {
                // One that survives it is told that it was interrupted.
                Ok(()) => Response::Errno(libc::EINTR),
                Err(errno) => {
                    self.note(format!("'{}' cannot be sent signal {signal}: {}", self.service, errno.desc()));
                    return self.pass(Some(call), notification);
                }
            },
        };
        self.notifier.respond(notification.id, response);
    }

    fn kill(&self, signal: i32, notification: &Notification) -> nix::Result<()> {
        let process = process_of(notification.tid).ok_or(Errno::ESRCH).and_then(sys::open_process);
        // A caller that is gone needs no signal, and its number may be another's.
        if !self.notifier.valid(notification.id) {
            return Ok(());
        }
        sys::signal_process(process?.as_fd(), signal)
    }

    /// Lets the call be made, or answers it where it is about time, randomness or a declared port.
    fn pass(&self, call: Option<&Call>, notification: &Notification) {
        if self.holder.as_ref().is_some_and(|holder| holder.take(notification)) {
            return;
        }
        let mediated = self.mediator.as_ref().and_then(|m| m.answer(&self.notifier, notification));
        let bind = || {
            call.filter(|call| call.name == "bind")
                .and_then(|_| self.remap.bind(&self.notifier, notification))
        };
        let made = mediated.or_else(bind);
        self.notifier.respond(notification.id, made.unwrap_or(Response::Continue));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_covers_families_and_single_calls_and_names_what_is_unknown() {
        let families = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let traps = Traps::of(&families(&["write", "fdatasync"]), false).unwrap();
        assert_eq!(traps.all(&Mediation::default()).len(), 6);
        let write = traps.get(libc::SYS_pwrite64 as u32).unwrap();
        assert_eq!(
            (write.call.name, &write.families[..], write.asked),
            ("pwrite64", &["write", "pwrite64"][..], true)
        );
        assert_eq!(traps.get(libc::SYS_fsync as u32), None);
        assert_eq!(Traps::of(&families(&["write", "wriet"]), false), Err("wriet".to_owned()));
        let bind = libc::SYS_bind as u32;
        assert!(!Traps::of(&families(&[]), true).unwrap().get(bind).unwrap().asked);
        assert!(Traps::of(&families(&["bind"]), true).unwrap().get(bind).unwrap().asked);
        assert_eq!(Traps::of(&families(&[]), false).unwrap().all(&Mediation::default()), []);
    }
}
