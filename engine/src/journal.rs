//! `Journal`: one cell's way to the sink. Gives entries their number, time, phase and place
//! in their stream.
//!
//! Contract: cheap to share; `note` never fails. Phases only move forward.

use crate::clock::RunClock;
use crate::event_sink::EventSink;
use faultbox_bundle_format::{Body, Entry, Phase};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Counts the entries of a whole run.
#[derive(Debug, Default)]
pub struct Sequence(AtomicU64);

/// Where one cell's actors note what happened.
pub struct Journal {
    sink: Arc<dyn EventSink>,
    clock: RunClock,
    sequence: Arc<Sequence>,
    cell: u32,
    name: String,
    phase: AtomicU8,
    ordinals: Mutex<BTreeMap<String, u64>>,
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
            ordinals: Mutex::new(BTreeMap::new()),
        }
    }

    /// A journal that forgets (mocks behind proxies, unit tests).
    pub fn null() -> Arc<Self> {
        Arc::new(Journal::new(
            Arc::new(crate::event_sink::NullSink),
            RunClock::start(),
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
        // Numbers are given under the lock, so that the order in a stream is the order of numbers.
        let mut ordinals = self.ordinals.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let ordinal = match ordinals.get_mut(stream) {
            Some(next) => std::mem::replace(next, *next + 1),
            None => {
                ordinals.insert(stream.to_owned(), 1);
                0
            }
        };
        let seq = self.sequence.0.fetch_add(1, Ordering::SeqCst);
        self.sink.note(Entry {
            seq,
            at_ns: self.clock.now_ns(),
            cell: self.cell,
            phase,
            actor: actor.to_owned(),
            stream: stream.to_owned(),
            ordinal,
            cause,
            body,
        });
        seq
    }
}
