//! Locks by name (`GET_LOCK`): what tools that migrate a database hold against each other.
//!
//! Contract: a name belongs to one session until it has released it as often as it took it, or
//! is gone. Waiting for one ends with the limit.
//! Not modelled: deadlocks between them.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest that a lock is waited for, where the client would wait for ever.
const LONGEST: Duration = Duration::from_secs(3600);

/// All names that are taken: by whom, and how often.
#[derive(Debug, Default)]
pub struct NamedLocks {
    taken: Mutex<BTreeMap<String, (u64, u32)>>,
    freed: Condvar,
}

impl NamedLocks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (u64, u32)>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name; waits up to `seconds` for it (for ever, if negative). Whether it was had.
    pub fn take(&self, name: &str, owner: u64, seconds: f64) -> bool {
        let name = name.to_lowercase();
        let limit = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST);
        let others = |taken: &mut BTreeMap<String, (u64, u32)>| {
            taken.get(&name).is_some_and(|(holder, _)| *holder != owner)
        };
        let waited = self.freed.wait_timeout_while(self.lock(), limit, others);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if others(&mut taken) {
            return false;
        }
        taken.entry(name.clone()).or_insert((owner, 0)).1 += 1;
        true
    }

    /// Gives a name back once: whether it was the owner's; `None` where nobody has it.
    pub fn release(&self, name: &str, owner: u64) -> Option<bool> {
        let (name, mut taken) = (name.to_lowercase(), self.lock());
        let (holder, times) = taken.get_mut(&name)?;
        if *holder != owner {
            return Some(false);
        }
        *times -= 1;
        if *times == 0 {
            taken.remove(&name);
            self.freed.notify_all();
        }
        Some(true)
    }

    /// Gives everything of a session back; how many locks it was.
    pub fn release_all(&self, owner: u64) -> u32 {
        let (mut taken, mut count) = (self.lock(), 0);
        taken.retain(|_, (holder, times)| {
            let own = *holder == owner;
            count += if own { *times } else { 0 };
            !own
        });
        self.freed.notify_all();
        count
    }

    /// Who has a name.
    pub fn holder(&self, name: &str) -> Option<u64> {
        self.lock().get(&name.to_lowercase()).map(|(holder, _)| *holder)
    }
}
