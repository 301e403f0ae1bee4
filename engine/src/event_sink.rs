//! `EventSink`: where every actor says what happened. The recorder implements it.
//!
//! Contract: `note` does not lose entries and keeps their order per caller. It may block
//! when a queue is full; it does no disk I/O on the caller's thread.

use faultbox_bundle_format::Entry;
use std::sync::{Arc, Mutex};

/// Receives the journal's entries.
pub trait EventSink: Send + Sync {
    /// Takes one entry.
    fn note(&self, entry: Entry);
}

/// Forgets everything (mocks behind proxies, `--no-bundle`).
#[derive(Debug, Default)]
pub struct NullSink;

impl EventSink for NullSink {
    fn note(&self, _entry: Entry) {}
}

/// Keeps everything in memory (comparison of a replay, tests).
#[derive(Debug, Default)]
pub struct MemorySink {
    entries: Mutex<Vec<Entry>>,
}

impl MemorySink {
    /// A copy of what was noted so far, in order.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Takes what was noted so far out of the sink.
    pub fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

impl EventSink for MemorySink {
    fn note(&self, entry: Entry) {
        self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(entry);
    }
}

/// Passes every entry to two sinks.
pub struct Tee(pub Arc<dyn EventSink>, pub Arc<dyn EventSink>);

impl EventSink for Tee {
    fn note(&self, entry: Entry) {
        self.0.note(entry.clone());
        self.1.note(entry);
    }
}
