//! Answers the notifications of one service: one blocking thread.
//!
//! Contract: every trapped call is answered, in arrival order, but for delays, which wait on
//! the runtime's timers without holding up the next call. A caller that is gone meanwhile is no
//! error. A policy that panics lets the call pass and is told of ([`Supervisor::trouble`]).

use super::calls::{self, Call};
use super::filter::Trap;
use super::host::kernel_at_least;
use super::mediate::{self, Mediator};
use super::remap::Remap;
use super::sys::{Notification, Notifier, Response, Wait};
use super::{SyscallCall, SyscallDecision, SyscallPolicy, target};
use crate::determinism::Mediation;
use nix::errno::Errno;
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
        all.extend(
            mediate::traps(mediation).into_iter().filter(|trap| !all.contains(trap)).collect::<Vec<_>>(),
        );
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
    pub service: String,
    pub notifier: Arc<Notifier>,
    pub traps: Arc<Traps>,
    pub policy: Arc<dyn SyscallPolicy>,
    /// Answers what the service asks about time and randomness, where those are not the host's.
    pub mediator: Option<Arc<Mediator>>,
    pub remap: Arc<Remap>,
    pub runtime: tokio::runtime::Handle,
    /// The mount namespaces that show the host's files under the host's names.
    pub homes: Vec<PathBuf>,
    /// Turns true when the service is being stopped: nothing is held up any more.
    pub calm: watch::Receiver<bool>,
    /// What went wrong with the supervision itself.
    pub trouble: Arc<Mutex<Option<String>>>,
    /// Whether somebody else may answer later.
    pub keepable: bool,
    pub gate: Arc<Gate>,
}

impl Supervisor {
    /// Serves until nobody is left under the filter.
    pub(super) fn run(self) {
        // Older kernels have no such mode; calls then take a little longer.
        let _ = self.notifier.sync_wake_up();
        // Before 6.11 a blocking receive sleeps on when its last target has ended, and one that
        // sleeps would take a call after the gate has closed.
        let wait_first = self.keepable || !kernel_at_least(6, 11);
        let mut changes = self.policy.changes();
        loop {
            if wait_first {
                match self.notifier.wait(-1) {
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
            match self.notifier.receive() {
                Ok(notification) => self.serve(&notification, changes.as_mut()),
                Err(Errno::EINTR) => {}
                // One vanished notification, or the end.
                Err(Errno::ENOENT) => {
                    if self.notifier.wait(0) == Ok(Wait::Over) {
                        return;
                    }
                }
                Err(errno) => return self.note(format!("supervision ended: {}", errno.desc())),
            }
        }
    }

    fn note(&self, trouble: String) {
        self.trouble.lock().unwrap_or_else(|p| p.into_inner()).get_or_insert(trouble);
    }

    fn serve(&self, notification: &Notification, changes: Option<&mut watch::Receiver<u64>>) {
        let mediated = self.mediator.as_ref().and_then(|m| m.answer(&self.notifier, notification));
        if let Some(response) = mediated {
            return self.notifier.respond(notification.id, response);
        }
        let Some(trapped) = self.traps.get(notification.number) else {
            return self.notifier.respond(notification.id, Response::Continue);
        };
        // From here on: a change after the decision ends its delay.
        let changes = changes.map(|changes| {
            changes.borrow_and_update();
            &*changes
        });
        let decision = match trapped.asked {
            true => catch_unwind(AssertUnwindSafe(|| self.decide(trapped, notification))),
            false => Ok(Some(SyscallDecision::Continue)),
        };
        let id = notification.id;
        match decision {
            // Its caller is gone: there is nobody to answer.
            Ok(None) => {}
            Ok(Some(SyscallDecision::Errno(errno))) => self.notifier.respond(id, Response::Errno(errno)),
            Ok(Some(SyscallDecision::Delay(duration))) => {
                self.delay(*notification, trapped.call, duration, changes.cloned());
            }
            Ok(Some(SyscallDecision::Continue)) => {
                pass(&self.notifier, &self.remap, &trapped.call, notification)
            }
            Err(_) => {
                self.note(format!("the policy panicked on a {} of '{}'", trapped.call.name, self.service));
                pass(&self.notifier, &self.remap, &trapped.call, notification);
            }
        }
    }

    /// What the policy says; `None` when the caller is gone.
    fn decide(&self, trapped: &Trapped, notification: &Notification) -> Option<SyscallDecision> {
        if !self.policy.wants(trapped.call.name, &trapped.families) {
            return Some(SyscallDecision::Continue);
        }
        if target::is_forbidden(notification.tid) {
            // Whatever the rules say, nobody could tell what the call is about.
            self.note(format!(
                "the syscalls of '{}' cannot be looked at: its process is another user's; \
                 `faultbox doctor` says what it takes",
                self.service
            ));
            return Some(SyscallDecision::Continue);
        }
        let target = target::resolve(&trapped.call, notification, &self.homes);
        if !self.notifier.valid(notification.id) {
            return None;
        }
        Some(self.policy.decide(&SyscallCall {
            service: &self.service,
            pid: notification.tid,
            name: trapped.call.name,
            families: &trapped.families,
            target,
        }))
    }

    /// Lets the call pass later: after the pause, when the faults change, or when the service is
    /// being stopped.
    fn delay(
        &self,
        notification: Notification,
        call: Call,
        pause: Duration,
        changes: Option<watch::Receiver<u64>>,
    ) {
        let (notifier, remap, mut calm) = (self.notifier.clone(), self.remap.clone(), self.calm.clone());
        let gate = self.gate.clone();
        gate.held.send_modify(|held| *held += 1);
        self.runtime.spawn(async move {
            let changed = async {
                match changes {
                    // A sender that is gone ends the delay too: the cell is over.
                    Some(mut changes) => drop(changes.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = changed => {}
                _ = calm.wait_for(|calm| *calm) => {}
            }
            pass(&notifier, &remap, &call, &notification);
            gate.held.send_modify(|held| *held -= 1);
        });
    }
}

/// Lets the call be made, or makes it where it is a bind to a declared port.
fn pass(notifier: &Notifier, remap: &Remap, call: &Call, notification: &Notification) {
    let made = if call.name == "bind" { remap.bind(notifier, notification) } else { None };
    notifier.respond(notification.id, made.unwrap_or(Response::Continue));
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
