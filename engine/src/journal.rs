//! `Journal`: one cell's way to the sink. Gives entries their number, time, phase and place
//! in their stream.
//!
//! Contract: cheap to share; `note` never fails. Phases only move forward.

use crate::clock::RunClock;
use crate::event_sink::EventSink;
use crate::noted::{self, Room};
use crate::virtual_time::Time;
use faultbox_bundle_format::{Body, Entry, Name, Phase};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Counts the entries of a whole run.
#[derive(Debug, Default)]
pub struct Sequence(AtomicU64);

/// How many entries each stream has, and where those to come have room.
#[derive(Default)]
struct Ordinals {
    next: BTreeMap<String, u64>,
    /// Where a stream's name is put together.
    name: String,
    room: Room,
}

impl Ordinals {
    fn next(&mut self, said: &impl Said) -> u64 {
        self.name.clear();
        said.stream(&mut self.name);
        match self.next.get_mut(&self.name) {
            Some(next) => std::mem::replace(next, *next + 1),
            None => {
                self.next.insert(self.name.clone(), 1);
                0
            }
        }
    }
}

/// What is noted: it belongs to a stream now, and becomes an entry when somebody reads it.
pub trait Said: Send + 'static {
    /// Appends the name of its stream.
    fn stream(&self, name: &mut String);

    /// The entry at this place.
    fn entry(self, place: Place) -> Entry;

    /// Whether there are many of its kind, none of which is so large that it should go before the others.
    fn is_common(&self) -> bool {
        true
    }
}

/// Said in words already.
struct Words {
    actor: Name,
    stream: String,
    cause: Option<u64>,
    body: Body,
}

impl Said for Words {
    fn stream(&self, name: &mut String) {
        name.push_str(&self.stream);
    }

    fn entry(self, place: Place) -> Entry {
        place.entry(self.actor, self.stream, self.cause, self.body)
    }

    fn is_common(&self) -> bool {
        matches!(self.body, Body::Decision(_) | Body::Syscall(_))
    }
}

/// The place of an entry in the journal.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    seq: u64,
    at_ns: u64,
    cell: u32,
    phase: Phase,
    ordinal: u64,
}

impl Place {
    /// When it was noted, in nanoseconds since the run began.
    pub fn at_ns(&self) -> u64 {
        self.at_ns
    }

    /// The entry that says this, here.
    pub fn entry(self, actor: Name, stream: String, cause: Option<u64>, body: Body) -> Entry {
        let Place { seq, at_ns, cell, phase, ordinal } = self;
        Entry { seq, at_ns, cell, phase, actor, stream, ordinal, cause, body }
    }
}

/// Where one cell's actors note what happened.
pub struct Journal {
    sink: Arc<dyn EventSink>,
    clock: RunClock,
    sequence: Arc<Sequence>,
    cell: u32,
    name: String,
    phase: AtomicU8,
    ordinals: Mutex<Ordinals>,
}

impl Journal {
    /// A journal for cell number `cell` (index plus one; 0 and an empty name for the run).
    pub fn new(
        sink: Arc<dyn EventSink>,
        clock: RunClock,
        sequence: Arc<Sequence>,
        cell: u32,
        name: &str,
    ) -> Self {
        let phase = if cell == 0 { Phase::Run } else { Phase::Start };
        Journal {
            sink,
            clock,
            sequence,
            cell,
            name: name.to_owned(),
            phase: AtomicU8::new(phase as u8),
            ordinals: Mutex::default(),
        }
    }

    /// A journal that forgets (mocks behind proxies, unit tests).
    pub fn null(time: &Time) -> Arc<Self> {
        Arc::new(Journal::new(
            Arc::new(crate::event_sink::NullSink),
            RunClock::start_in(time.clone()),
            Arc::default(),
            0,
            "",
        ))
    }

    /// The cell's name.
    pub fn cell_name(&self) -> &str {
        &self.name
    }

    /// The run's clock.
    pub fn clock(&self) -> &RunClock {
        &self.clock
    }

    /// The number that the next entry will get.
    pub fn position(&self) -> u64 {
        self.sequence.0.load(Ordering::SeqCst)
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            x if x == Phase::Run as u8 => Phase::Run,
            x if x == Phase::Start as u8 => Phase::Start,
            x if x == Phase::Scenario as u8 => Phase::Scenario,
            _ => Phase::Tail,
        }
    }

    /// Enters a later phase and notes it.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
        self.note("faultbox", "phase", None, Body::PhaseBegan);
    }

    /// Notes what happened now, in the phase now. Returns the entry's number.
    pub fn note(&self, actor: &str, stream: &str, cause: Option<u64>, body: Body) -> u64 {
        self.note_in(self.phase(), actor, stream, cause, body)
    }

    /// Notes something that belongs to the phase in which it began.
    pub fn note_in(&self, phase: Phase, actor: &str, stream: &str, cause: Option<u64>, body: Body) -> u64 {
        let (actor, stream) = (actor.into(), stream.to_owned());
        self.note_later(phase, Words { actor, stream, cause, body })
    }

    /// As [`Journal::note_in`]: the entry gets its place now, and its words when they are first read.
    pub fn note_later(&self, phase: Phase, said: impl Said) -> u64 {
        // Numbers are given under the lock, so that the order in a stream is the order of numbers.
        let mut ordinals = self.ordinals.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let ordinal = ordinals.next(&said);
        let seq = self.sequence.0.fetch_add(1, Ordering::SeqCst);
        let place = Place { seq, at_ns: self.clock.now_ns(), cell: self.cell, phase, ordinal };
        let common = said.is_common();
        let words = move || said.entry(place);
        self.sink.take(if common { ordinals.room.later(words) } else { noted::later(words) });
        seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_sink::MemorySink;
    use std::sync::atomic::AtomicBool;

    struct Slow(Arc<AtomicBool>);

    impl Said for Slow {
        fn stream(&self, name: &mut String) {
            name.push_str("slow");
        }

        fn entry(self, place: Place) -> Entry {
            self.0.store(true, Ordering::SeqCst);
            place.entry("api".into(), "slow".to_owned(), None, Body::PhaseBegan)
        }
    }

    #[test]
    fn an_entry_has_its_place_before_it_has_words() {
        let memory = Arc::new(MemorySink::default());
        let journal = Journal::new(memory.clone(), RunClock::start(), Arc::default(), 1, "cell");
        let read = Arc::new(AtomicBool::new(false));
        journal.note_later(Phase::Start, Slow(read.clone()));
        journal.enter(Phase::Scenario);
        journal.note("api", "slow", None, Body::PhaseBegan);
        assert!(!read.load(Ordering::SeqCst), "nobody has read it");
        let entries = memory.entries();
        let places: Vec<_> = entries.iter().map(|e| (e.seq, e.phase, e.stream.as_str(), e.ordinal)).collect();
        assert_eq!(
            places,
            [(0, Phase::Start, "slow", 0), (1, Phase::Scenario, "phase", 0), (2, Phase::Scenario, "slow", 1)]
        );
        assert!(entries.is_sorted_by_key(|entry| entry.at_ns));
        assert_eq!(memory.drain(), entries, "read twice it says the same");
    }
}
