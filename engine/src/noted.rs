//! Entries between the moment in which they are noted and the bundle.
//!
//! Contract: an entry's place is fixed, its words are made when they are first read, on whatever thread. Entries are
//! shared, not copied. Those that come in numbers share their memory by [`MANY`], so that noting one asks
//! the allocator for nothing as a rule; the memory goes when the last of them is let go.
//! Not modelled: who reads them.

use faultbox_bundle_format::Entry;
use std::any::Any;
use std::sync::{Arc, LazyLock, OnceLock};

/// Entries that share their memory.
const MANY: usize = 16;

/// An entry whose place in the journal is fixed. Its words are made when they are first read.
#[derive(Clone)]
pub struct Noted {
    among: Arc<dyn Among>,
    at: usize,
}

impl Noted {
    /// The entry.
    pub fn entry(&self) -> &Entry {
        self.among.entry(self.at)
    }
}

/// An entry that `words` makes, on whatever thread, from what it holds.
pub fn later(words: impl FnOnce() -> Entry + Send + 'static) -> Noted {
    Noted { among: Arc::new(LazyLock::new(words)), at: 0 }
}

/// Entries by their place in the memory that they share.
trait Among: Send + Sync {
    fn entry(&self, at: usize) -> &Entry;
}

impl<W: FnOnce() -> Entry + Send> Among for LazyLock<Entry, W> {
    fn entry(&self, _: usize) -> &Entry {
        self
    }
}

/// One place: empty, what makes the words, or the words.
type Slot<W> = OnceLock<LazyLock<Entry, W>>;

struct Slots<W>([Slot<W>; MANY]);

impl<W: FnOnce() -> Entry + Send> Among for Slots<W> {
    fn entry(&self, at: usize) -> &Entry {
        self.0[at].get().expect("it is filled before it is shared")
    }
}

/// Where entries get their memory, each kind of them its own.
#[derive(Default)]
pub(crate) struct Room(Vec<Begun>);

/// Memory that has places left.
struct Begun {
    slots: Arc<dyn Any + Send + Sync>,
    used: usize,
}

impl Room {
    /// As [`later`].
    pub fn later<W: FnOnce() -> Entry + Send + 'static>(&mut self, words: W) -> Noted {
        let begun = self.0.iter_mut().find(|begun| begun.slots.is::<Slots<W>>()).and_then(|begun| {
            begun.used += 1;
            Some((begun.slots.clone().downcast::<Slots<W>>().ok()?, begun.used - 1))
        });
        let (slots, at) = begun.unwrap_or_else(|| {
            let slots = Arc::new(Slots::<W>([const { OnceLock::new() }; MANY]));
            self.0.push(Begun { slots: slots.clone(), used: 1 });
            (slots, 0)
        });
        // Nobody else has been given this place.
        let _ = slots.0[at].set(LazyLock::new(words));
        if at + 1 == MANY {
            self.0.retain(|begun| begun.used < MANY);
        }
        Noted { among: slots, at }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: whatever order they are read and let go in, each says its own, once, and nothing is kept for ever.

    use super::*;
    use faultbox_bundle_format::{Body, Phase};
    use std::sync::Weak;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn entry(seq: u64, at_ns: u64) -> Entry {
        Entry {
            seq,
            at_ns,
            cell: 1,
            phase: Phase::Scenario,
            actor: "api".into(),
            stream: String::new(),
            ordinal: 0,
            cause: None,
            body: Body::PhaseBegan,
        }
    }

    /// An entry of this kind: each is made by a function of its own.
    fn put<const KIND: u64>(room: &mut Room, seq: u64, made: &Arc<AtomicU64>) -> Noted {
        let made = made.clone();
        room.later(move || {
            made.fetch_add(1, Ordering::SeqCst);
            entry(seq, KIND)
        })
    }

    #[test]
    fn each_is_read_once_and_says_its_own() {
        let (mut room, made) = (Room::default(), Arc::new(AtomicU64::new(0)));
        let count = 5 * MANY as u64 / 2;
        let noted: Vec<Noted> =
            (0..count).flat_map(|n| [put::<1>(&mut room, n, &made), put::<2>(&mut room, n, &made)]).collect();
        assert_eq!(made.load(Ordering::SeqCst), 0, "nobody has read them");
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for (n, noted) in noted.iter().enumerate().rev() {
                        assert_eq!(
                            (noted.entry().seq, noted.entry().at_ns),
                            (n as u64 / 2, 1 + n as u64 % 2)
                        );
                    }
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 2 * count);
    }

    #[test]
    fn the_memory_goes_with_the_last_of_them() {
        let (mut room, made) = (Room::default(), Arc::new(AtomicU64::new(0)));
        let mut noted: Vec<Noted> = (0..MANY as u64).map(|n| put::<1>(&mut room, n, &made)).collect();
        let memory: Weak<dyn Among> = Arc::downgrade(&noted[0].among);
        assert!(noted.iter().all(|noted| std::ptr::addr_eq(Arc::as_ptr(&noted.among), memory.as_ptr())));
        assert!(room.0.is_empty(), "the room keeps none that is full");
        let last = noted.pop();
        drop(noted);
        assert!(memory.upgrade().is_some());
        drop(last);
        assert!(memory.upgrade().is_none());
        assert_eq!(Arc::strong_count(&made), 1, "what was never read is let go too");
    }
}
