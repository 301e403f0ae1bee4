//! Who may write: the storage takes one writer at a time, MySQL takes many.
//!
//! Contract: what an open transaction has written or locked belongs to it until its end, a table
//! at a time and with the tables that foreign keys tie to it; who wants it waits, up to a limit,
//! or is told of a deadlock. Who wants other tables waits a moment for the writer to end, and
//! then passes it if its client is not in the middle of a statement: the one that is passed is
//! parked ([`Park`]), and goes on where it was with its next statement.
//! Not modelled: locks of rows, gaps and single reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How long a writer that does nothing is waited for before it is passed: most transactions are
/// over by then, and no tables are held apart.
const PATIENCE: Duration = Duration::from_millis(100);

/// The number under which the stand-in itself enters.
const OWN: u64 = u64::MAX;

/// Takes its changes out of the storage, to put them back later.
pub trait Park: Send {
    /// Parks; called only when no statement runs.
    fn park(&mut self);
}

/// What a transaction holds or wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locks {
    /// Every table there is.
    pub all: bool,
    /// Tables.
    pub tables: BTreeSet<String>,
    /// Whether the tables that foreign keys tie to these are among them.
    pub related: bool,
}

impl Locks {
    /// Everything.
    pub fn all() -> Locks {
        Locks { all: true, ..Locks::default() }
    }

    fn meet(&self, other: &Locks) -> bool {
        self.all || other.all || !self.tables.is_disjoint(&other.tables)
    }
}

/// Why someone may not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Others write: the wish must name related tables.
    Unrelated,
    /// The time is over.
    Late,
    /// Each waits for the other.
    Deadlock,
}

struct Open {
    held: Locks,
    waits_for: BTreeSet<u64>,
    /// No statement of it runs.
    idle: bool,
    passed: bool,
    who: Weak<Mutex<dyn Park>>,
}

#[derive(Default)]
struct State {
    /// Whose changes are in the storage's transaction.
    active: Option<u64>,
    open: BTreeMap<u64, Open>,
}

/// Lets writers in.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// An open transaction's place, until it is dropped.
pub struct Permit {
    gate: Arc<Gate>,
    id: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.open.remove(&self.id);
        state.release(self.id);
        self.gate.changed.notify_all();
    }
}

impl State {
    fn release(&mut self, id: u64) {
        if self.active == Some(id) {
            self.active = None;
        }
    }

    fn blockers(&self, id: u64, wanted: &Locks) -> BTreeSet<u64> {
        let others = self.open.iter().filter(|(other, _)| **other != id);
        others.filter(|(_, open)| open.held.meet(wanted)).map(|(other, _)| *other).collect()
    }

    /// Whether a writer can go on now; `patient` ones do not pass anybody for the first time.
    fn lets(&self, id: u64, wanted: &Locks, patient: bool) -> bool {
        let free = match self.active.filter(|active| *active != id) {
            None => true,
            Some(active) => self.open.get(&active).is_none_or(|o| o.idle && (o.passed || !patient)),
        };
        free && self.blockers(id, wanted).is_empty()
    }

    /// Notes whom a writer waits for; whether one of those waits for it.
    fn deadlocked(&mut self, id: u64, wanted: &Locks) -> bool {
        let blockers = self.blockers(id, wanted);
        let Some(own) = self.open.get_mut(&id) else { return false };
        own.waits_for.clone_from(&blockers);
        let (mut seen, mut next) = (BTreeSet::new(), Vec::from_iter(blockers));
        while let Some(other) = next.pop() {
            if other == id {
                return true;
            }
            if seen.insert(other) {
                next.extend(self.open.get(&other).into_iter().flat_map(|o| &o.waits_for));
            }
        }
        false
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody holds what a writer wants.
    pub fn lets(&self, id: u64, wanted: &Locks) -> bool {
        self.lock().blockers(id, wanted).is_empty()
    }

    /// Waits for the right to write: at most `limit`. `held` is the place of a transaction that is
    /// open already; it must be parked, or be what the storage has.
    ///
    /// # Errors
    /// When it is not given.
    pub fn enter(
        self: &Arc<Self>,
        id: u64,
        who: &Weak<Mutex<dyn Park>>,
        wanted: &Locks,
        limit: Duration,
        held: &mut Option<Permit>,
    ) -> Result<(), Refused> {
        // Whom is passed may be dropped here: only after the state is let go.
        let mut parked = Vec::new();
        let mut state = self.lock();
        let others = state.open.keys().any(|other| *other != id);
        if others && !wanted.all && !wanted.related {
            return Err(Refused::Unrelated);
        }
        let mut patient = !state.open.get(&id).is_some_and(|own| own.passed);
        loop {
            let limit = if patient { limit.min(PATIENCE) } else { limit };
            let mut deadlock = false;
            let waits = |state: &mut State| {
                deadlock = state.deadlocked(id, wanted);
                !deadlock && !state.lets(id, wanted, patient)
            };
            let waited = self.changed.wait_timeout_while(state, limit, waits);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if deadlock {
                return Err(Refused::Deadlock);
            }
            match state.active.filter(|active| *active != id) {
                _ if timeout.timed_out() && !state.lets(id, wanted, patient) => {
                    if !std::mem::take(&mut patient) {
                        return Err(Refused::Late);
                    }
                    continue;
                }
                None => break,
                Some(other) => {
                    let Some(open) = state.open.get_mut(&other) else { break };
                    let Some(session) = open.who.upgrade() else { break };
                    // Where it cannot be locked its next statement begins just now.
                    let taken = session.try_lock().map(|mut session| session.park()).is_ok();
                    open.passed |= taken;
                    open.idle = taken;
                    parked.push(session);
                    if taken {
                        break;
                    }
                }
            }
        }
        state.active = Some(id);
        let fresh = || Open {
            held: Locks::default(),
            waits_for: BTreeSet::new(),
            idle: false,
            passed: false,
            who: who.clone(),
        };
        let open = state.open.entry(id).or_insert_with(fresh);
        open.waits_for.clear();
        open.held.all |= wanted.all;
        open.held.tables.extend(wanted.tables.iter().cloned());
        held.get_or_insert_with(|| Permit { gate: self.clone(), id });
        Ok(())
    }

    /// Everything, for the stand-in itself.
    pub fn close(self: &Arc<Self>, limit: Duration) -> Option<Permit> {
        let mut permit = None;
        let nobody: Weak<Mutex<dyn Park>> = Weak::<Mutex<Nobody>>::new();
        self.enter(OWN, &nobody, &Locks::all(), limit, &mut permit).ok()?;
        permit
    }

    /// A writer has parked itself: the storage is free for others.
    pub fn left(&self, id: u64) {
        self.lock().release(id);
        self.changed.notify_all();
    }

    /// A statement of a session begins or has ended.
    pub fn idles(&self, id: u64, idle: bool) {
        if let Some(open) = self.lock().open.get_mut(&id) {
            open.idle = idle;
        }
        if idle {
            self.changed.notify_all();
        }
    }
}

struct Nobody;

impl Park for Nobody {
    fn park(&mut self) {}
}
