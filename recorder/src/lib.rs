//! The recorder: the [`EventSink`] that writes a bundle.
//!
//! Contract: `note` hands the entry to one writer thread through a bounded queue; it never
//! touches the disk, blocks while the queue is full and loses nothing. What reaches the disk
//! was redacted first. A failed write is remembered, nothing is written after it, and
//! [`Recorder::finish`] returns it.
//! Not modelled: several bundles of one run.
#![forbid(unsafe_code)]

pub use faultbox_bundle_format::redact::{self, Redactor};

use faultbox_bundle_format::canonical::{self, Policy};
use faultbox_bundle_format::{Body, BundleWriter, Entry, Header, WriteError};
use faultbox_engine::event_sink::EventSink;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Entries that may wait for the disk. Beyond it the run slows down.
const QUEUE: usize = 8192;
/// What was taken is written at the latest when nothing came for this long, so that a killed
/// run leaves what led to its end.
const IDLE: Duration = Duration::from_millis(250);

/// What a recorder must know before the run.
#[derive(Debug, Clone, Default)]
pub struct RecorderOptions {
    /// (name, value) of `secret(...)`.
    pub secrets: Vec<(String, String)>,
    /// Environment variables of the services: values that look like credentials are replaced
    /// wherever they stand.
    pub env: Vec<(String, String)>,
}

/// Why a recording failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecorderError {
    /// The bundle could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There is no randomness for the bundle's identity.
    #[error("no randomness for the bundle's id: {0}")]
    Randomness(String),
    /// The writer's thread is gone.
    #[error("the bundle's writer ended unexpectedly")]
    Gone,
    /// [`Recorder::finish`] was called before.
    #[error("the recording has ended already")]
    Finished,
}

enum Message {
    Entry(Box<Entry>),
    Finish,
}

type Written = Result<PathBuf, RecorderError>;

/// Writes a bundle as the run goes.
pub struct Recorder {
    queue: SyncSender<Message>,
    thread: Mutex<Option<JoinHandle<Written>>>,
    redactor: Arc<Redactor>,
}

impl Recorder {
    /// Begins a bundle that will be at `path`.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, options: RecorderOptions) -> Result<Arc<Self>, RecorderError> {
        let header = Header::new(random()?, random()?);
        let env = options.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let redactor = Redactor::new(header.salt).with_secrets(&options.secrets).with_env(env);
        let redactor = Arc::new(redactor);
        let writer = BundleWriter::create(path, header)?;
        let (queue, incoming) = sync_channel(QUEUE);
        let task = Task { writer, redactor: redactor.clone(), unix_ns: 0, cells: BTreeMap::new() };
        let spawned = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || task.run(&incoming));
        let thread = spawned.map_err(|e| {
            RecorderError::Write(WriteError::Io { path: path.display().to_string(), message: e.to_string() })
        })?;
        Ok(Arc::new(Recorder { queue, thread: Mutex::new(Some(thread)), redactor }))
    }

    /// What replaces credentials in this bundle: the same messages become the same tokens.
    pub fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// Writes what is left and gives the bundle its name. What is noted later is not kept.
    ///
    /// # Errors
    /// The first write that failed.
    pub fn finish(&self) -> Written {
        let thread = self.thread.lock().unwrap_or_else(|p| p.into_inner()).take();
        let thread = thread.ok_or(RecorderError::Finished)?;
        // A writer that is gone says why when it is joined.
        let _ = self.queue.send(Message::Finish);
        thread.join().map_err(|_| RecorderError::Gone)?
    }
}

impl EventSink for Recorder {
    fn note(&self, entry: Entry) {
        // The writer takes entries until the end, also after a failure; it is gone only after
        // `finish`.
        let _ = self.queue.send(Message::Entry(Box::new(entry)));
    }
}

/// The writer's thread.
struct Task {
    writer: BundleWriter,
    redactor: Arc<Redactor>,
    unix_ns: u64,
    /// Entries of cells without a verdict, for the digest.
    cells: BTreeMap<u32, Vec<Entry>>,
}

impl Task {
    fn run(mut self, incoming: &Receiver<Message>) -> Written {
        let mut failed: Option<WriteError> = None;
        let mut pending = false;
        loop {
            let message = incoming.recv_timeout(if pending { IDLE } else { Duration::from_secs(3600) });
            let done = match message {
                Ok(Message::Entry(entry)) if failed.is_none() => {
                    pending = true;
                    self.take(*entry)
                }
                Ok(Message::Entry(_)) => Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    pending = false;
                    if failed.is_none() { self.writer.flush() } else { Ok(()) }
                }
                Ok(Message::Finish) => {
                    return match failed {
                        None => Ok(self.writer.finish()?),
                        Some(error) => Err(error.into()),
                    };
                }
                // Dropped without `finish`: what was taken is kept, under the temporary name.
                Err(RecvTimeoutError::Disconnected) => {
                    let flushed = if failed.is_none() { self.writer.flush() } else { Ok(()) };
                    return Err(failed.or(flushed.err()).map_or(RecorderError::Gone, RecorderError::Write));
                }
            };
            if let Err(error) = done {
                failed.get_or_insert(error);
            }
        }
    }

    fn take(&mut self, entry: Entry) -> Result<(), WriteError> {
        let mut entry = self.redactor.entry(entry);
        if let Body::RunStarted(started) = &entry.body {
            self.unix_ns = started.unix_ns;
        }
        self.digest(&mut entry);
        self.writer.append(&entry)
    }

    /// The digest in a verdict is that of the cell as it is written: without credentials.
    fn digest(&mut self, entry: &mut Entry) {
        if entry.cell == 0 {
            return;
        }
        if let Body::Verdict(verdict) = &mut entry.body {
            let entries = self.cells.remove(&entry.cell).unwrap_or_default();
            let unix_ns = self.unix_ns;
            let canonical = canonical::of_cell_with(&entries, Some(verdict), unix_ns, Policy::Default);
            verdict.digest = canonical.digest;
            // Marks the cell as ended: what comes later is not kept for it.
            self.cells.insert(entry.cell, Vec::new());
        } else if !matches!(entry.body, Body::Output(_)) {
            let ended = self.cells.get(&entry.cell).is_some_and(Vec::is_empty);
            if !ended {
                self.cells.entry(entry.cell).or_default().push(entry.clone());
            }
        }
    }
}

fn random() -> Result<[u8; 16], RecorderError> {
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(|e| RecorderError::Randomness(e.to_string()))?;
    Ok(bytes)
}
