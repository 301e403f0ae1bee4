//! `EventSink`: where every actor says what happened. The recorder implements it.
//!
//! Contract: `take` does not lose entries and keeps their order per caller. It may block
//! when a queue is full; it does no disk I/O on the caller's thread, and does not put entries
//! into words there: what an exchange said is put into words by whoever reads it first.

use crate::noted::{Noted, later};
use faultbox_bundle_format::Entry;
use std::sync::{Arc, Mutex};

/// Receives the journal's entries.
pub trait EventSink: Send + Sync {
    /// Takes one entry, which others may hold as well.
    fn take(&self, noted: Noted);

    /// Takes an entry that is in words already.
    fn note(&self, entry: Entry) {
        self.take(later(move || entry));
    }
}

/// Forgets everything (mocks behind proxies, `--no-bundle`).
#[derive(Debug, Default)]
pub struct NullSink;

impl EventSink for NullSink {
    fn take(&self, _noted: Noted) {}
}

/// Keeps everything in memory (comparison of a replay, tests).
#[derive(Default)]
pub struct MemorySink {
    noted: Mutex<Vec<Noted>>,
}

impl MemorySink {
    /// A copy of what was noted so far, in order.
    pub fn entries(&self) -> Vec<Entry> {
        let noted = self.noted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        words(noted)
    }

    /// Takes what was noted so far out of the sink.
    pub fn drain(&self) -> Vec<Entry> {
        words(std::mem::take(&mut *self.noted.lock().unwrap_or_else(|poisoned| poisoned.into_inner())))
    }
}

fn words(noted: Vec<Noted>) -> Vec<Entry> {
    noted.into_iter().map(|noted| noted.entry().clone()).collect()
}

impl EventSink for MemorySink {
    fn take(&self, noted: Noted) {
        self.noted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(noted);
    }
}

/// Passes every entry to two sinks.
pub struct Tee(pub Arc<dyn EventSink>, pub Arc<dyn EventSink>);

impl EventSink for Tee {
    fn take(&self, noted: Noted) {
        self.0.take(noted.clone());
        self.1.take(noted);
    }
}
