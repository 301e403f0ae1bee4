//! The recorder: the `EventSink` that writes a bundle.
//!
//! Contract: noting an entry costs the actor a bounded queue's send; one writer thread
//! redacts, encodes and writes. A full queue slows the run down rather than losing an entry.
//! The first failed write ends writing; [`Recorder::finish`] reports it and the file keeps
//! its temporary name.
//! Not modelled: any protocol.
#![forbid(unsafe_code)]

use faultbox_bundle_format::redact::Redactor;
use faultbox_bundle_format::{BundleWriter, Entry, Header, WriteError};
use faultbox_engine::event_sink::EventSink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;

/// Entries that wait for the writer at most.
const QUEUE: usize = 4096;

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The host gave no randomness for the bundle's id.
    #[error("no randomness: {0}")]
    Random(#[source] std::io::Error),
    /// The writer thread could not be started.
    #[error("no thread: {0}")]
    Thread(#[source] std::io::Error),
    /// A write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The recorder was finished before.
    #[error("the bundle is finished already")]
    Finished,
    /// The writer thread ended in a panic.
    #[error("the writer stopped unexpectedly")]
    Writer,
}

/// Writes a bundle.
pub struct Recorder {
    queue: Mutex<Option<SyncSender<Entry>>>,
    writer: Mutex<Option<JoinHandle<Result<PathBuf, WriteError>>>>,
}

impl Recorder {
    /// Begins a bundle at `path`. `salt` makes the tokens of secrets; `redactor` is made of it.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, header: Header, redactor: Redactor) -> Result<Self, RecordError> {
        let writer = BundleWriter::create(path, header)?;
        let (queue, entries) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("recorder".to_owned());
        let writer = thread.spawn(move || write(writer, &entries, &redactor)).map_err(RecordError::Thread)?;
        Ok(Recorder { queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)) })
    }

    /// Writes what is queued, closes the bundle and gives it its name.
    ///
    /// # Errors
    /// The first write that failed.
    pub fn finish(&self) -> Result<PathBuf, RecordError> {
        drop(lock(&self.queue).take());
        let writer = lock(&self.writer).take().ok_or(RecordError::Finished)?;
        writer.join().map_err(|_| RecordError::Writer)?.map_err(RecordError::Write)
    }
}

impl EventSink for Recorder {
    fn note(&self, entry: Entry) {
        let queue = lock(&self.queue).clone();
        if let Some(queue) = queue {
            // A writer that failed has hung up; `finish` says why.
            let _ = queue.send(entry);
        }
    }
}

/// A header for a new bundle, its id and salt from the host's entropy.
///
/// # Errors
/// When the host's random device cannot be read.
pub fn new_header() -> Result<Header, RecordError> {
    let half = || faultbox_engine::prng::fresh_bytes().map_err(RecordError::Random);
    Ok(Header::new(half()?, half()?))
}

fn write(mut writer: BundleWriter, entries: &Receiver<Entry>, redactor: &Redactor) -> Result<PathBuf, WriteError> {
    while let Ok(mut entry) = entries.recv() {
        redactor.entry(&mut entry);
        writer.append(&entry)?;
    }
    writer.finish()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
