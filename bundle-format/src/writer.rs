//! The writer: entries to chunks, payloads to the store, frames to the disk.
//!
//! Contract: the file grows by whole frames only; it bears a temporary name until
//! [`BundleWriter::finish`] has written index and footer; after a failed write every
//! further one is refused, so a torn file never looks whole.
//! Entries are held as they were taken, shared or owned, until their chunk is written.
//! Not modelled: several writers of one file.

use crate::check;
use crate::container::{Behind, Container, Content, Listed, Piece};
use crate::error::WriteError;
use crate::event::{Body, Entry, Payload};
use crate::frame::{self, Kind};
use crate::index::{CellSummary, ChunkRef, FrameRef, summarise};
use crate::limits;
use crate::version::{HEADER_LEN, Header};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How chunks are made. `make bench` prints the curve behind the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// zstd level of a chunk that is full: the run is noting much, and waits for its writer.
    pub level: i32,
    /// zstd level of all other frames: there is time.
    pub level_unhurried: i32,
    /// A chunk is written once its entries are estimated at this many bytes.
    pub chunk: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { level: 3, level_unhurried: 12, chunk: limits::CHUNK_TARGET }
    }
}

struct OpenChunk<E> {
    entries: Vec<E>,
    estimate: usize,
}

impl<E> Default for OpenChunk<E> {
    fn default() -> Self {
        OpenChunk { entries: Vec::new(), estimate: 0 }
    }
}

/// Writes one bundle. What it takes is an [`Entry`], or something that shares one.
pub struct BundleWriter<E = Entry> {
    out: Out<E>,
    partial: PathBuf,
    tuning: Tuning,
    open: BTreeMap<u32, OpenChunk<E>>,
    blobs: BTreeMap<[u8; 32], ()>,
    cells: BTreeMap<u32, CellSummary>,
    poisoned: bool,
}

/// Where frames are made and written.
enum Out<E> {
    Here(Box<Container>),
    Behind(Behind<E>),
    /// Nowhere any more: a write failed.
    Ended,
}

impl BundleWriter {
    /// Begins a bundle that will be at `path` once it is finished; until then it is beside
    /// it, with `.partial` after its name.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, header: Header) -> Result<Self, WriteError> {
        Self::create_with(path, header, Tuning::default())
    }
}

impl<E: AsRef<Entry> + From<Entry>> BundleWriter<E> {
    /// As [`BundleWriter::create`], for entries of this kind and with chunks made so.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create_with(path: &Path, header: Header, tuning: Tuning) -> Result<Self, WriteError> {
        let container = Container::create(path, header, tuning)?;
        Ok(BundleWriter {
            partial: container.partial_path().to_owned(),
            out: Out::Here(Box::new(container)),
            tuning,
            open: BTreeMap::new(),
            blobs: BTreeMap::new(),
            cells: BTreeMap::new(),
            poisoned: false,
        })
    }

    /// Compresses and writes in a thread of its own from now on: whoever gives entries waits for neither,
    /// and learns of a failed write when giving a later one, at the latest at the end.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn in_background(mut self) -> Result<Self, WriteError>
    where
        E: Send + 'static,
    {
        if let Out::Here(container) = self.out {
            self.out = Out::Behind(Behind::of(*container)?);
        }
        Ok(self)
    }

    /// Where the bundle is until it is finished.
    pub fn partial_path(&self) -> &Path {
        &self.partial
    }

    /// As [`BundleWriter::take`], of a copy.
    ///
    /// # Errors
    /// As [`BundleWriter::take`].
    pub fn append(&mut self, entry: &Entry) -> Result<(), WriteError> {
        self.take(E::from(entry.clone()))
    }

    /// Takes one entry. Large payloads go to the store; a verdict ends its cell: what was
    /// taken of the cell is then on the disk.
    ///
    /// # Errors
    /// When a write fails or the entry is beyond the format's limits.
    pub fn take(&mut self, held: E) -> Result<(), WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let large = check::payloads(&held.as_ref().body).any(is_large);
        let held = match large {
            true => E::from(self.with_payloads_stored(held.as_ref().clone())?),
            false => held,
        };
        let entry = held.as_ref();
        let size = check::estimate(entry);
        if size > limits::ENTRY_MAX {
            let (size, limit) = (size as u64, limits::ENTRY_MAX as u64);
            return Err(self.poison(WriteError::TooLarge { what: "an entry", size, limit }));
        }
        let cell = entry.cell;
        summarise(&mut self.cells, entry);
        let ends = matches!(entry.body, Body::Verdict(_));
        let chunk = self.open.entry(cell).or_default();
        chunk.estimate += size;
        chunk.entries.push(held);
        let full = chunk.estimate >= self.tuning.chunk || chunk.entries.len() >= limits::CHUNK_ENTRIES_MAX;
        match ends || full {
            true => self.flush_cell(cell, !ends, ends),
            false => Ok(()),
        }
    }

    fn with_payloads_stored(&mut self, mut entry: Entry) -> Result<Entry, WriteError> {
        for payload in check::payloads_mut(&mut entry.body).filter(|payload| is_large(payload)) {
            if let Payload::Inline(bytes) = payload {
                let len = bytes.len() as u64;
                *payload = Payload::Blob { hash: self.put_blob(bytes)?, len };
            }
        }
        Ok(entry)
    }

    /// Stores a payload once and returns its BLAKE3.
    ///
    /// # Errors
    /// When a write fails or the payload is beyond the format's limits.
    pub fn put_blob(&mut self, bytes: &[u8]) -> Result<[u8; 32], WriteError> {
        if bytes.len() > limits::BLOB_MAX {
            let (size, limit) = (bytes.len() as u64, limits::BLOB_MAX as u64);
            return Err(self.poison(WriteError::TooLarge { what: "a payload", size, limit }));
        }
        let hash = *blake3::hash(bytes).as_bytes();
        if self.blobs.insert(hash, ()).is_none() {
            let content = Content::Bytes([&hash[..], bytes].concat());
            let listed = Listed::Blob(hash);
            self.put(Piece { kind: Kind::Blob, cell: 0, content, listed, hurried: false, durable: false })?;
        }
        Ok(hash)
    }

    /// Keeps a frame of a kind that this version does not know.
    pub(crate) fn put_unknown(&mut self, frame: &frame::Frame) -> Result<(), WriteError> {
        let content = Content::Bytes(frame.content.clone());
        let (kind, cell) = (frame.head.kind, frame.head.cell);
        let listed = Listed::Unknown;
        self.put(Piece { kind, cell, content, listed, hurried: false, durable: false }).map(drop)
    }

    /// Writes what is held back in memory, so that a crash loses nothing that was taken
    /// before (the system's own cache aside, and what is on its way in the background).
    ///
    /// # Errors
    /// When a write fails.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        let cells: Vec<u32> = self.open.keys().copied().collect();
        cells.into_iter().try_for_each(|cell| self.flush_cell(cell, false, false))
    }

    /// Writes index and footer, makes the file durable and gives it its name.
    ///
    /// # Errors
    /// When a write fails; the file then keeps its temporary name.
    pub fn finish(mut self) -> Result<PathBuf, WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        self.flush()?;
        let container = match std::mem::replace(&mut self.out, Out::Ended) {
            Out::Here(container) => *container,
            Out::Behind(behind) => behind.end()?,
            Out::Ended => return Err(WriteError::Poisoned),
        };
        container.finish(self.cells.into_values().collect())
    }

    /// Writes the entries of a cell that are held back. `hurried`: more of them come at once; `last`: none do.
    fn flush_cell(&mut self, cell: u32, hurried: bool, last: bool) -> Result<(), WriteError> {
        let Some(open) = self.open.get_mut(&cell).filter(|open| !open.entries.is_empty()) else {
            return Ok(());
        };
        open.estimate = 0;
        let entries = std::mem::take(&mut open.entries);
        // Its place is not known yet.
        let nowhere = FrameRef { offset: 0, total: 0, kind: Kind::Chunk.number(), cell };
        let listed = Listed::Chunk(chunk_ref(nowhere, &entries));
        let content = Content::Entries(entries);
        let spare = self.put(Piece { kind: Kind::Chunk, cell, content, listed, hurried, durable: last })?;
        if last {
            self.open.remove(&cell);
        } else if let Some(open) = self.open.get_mut(&cell) {
            open.entries = spare;
        }
        Ok(())
    }

    /// Writes a frame; room for entries, if it held some.
    fn put(&mut self, piece: Piece<E>) -> Result<Vec<E>, WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let put = match &mut self.out {
            Out::Here(container) => container.put(&piece).map(|()| match piece.content {
                Content::Entries(mut entries) => {
                    entries.clear();
                    entries
                }
                Content::Bytes(_) => Vec::new(),
            }),
            Out::Behind(behind) => match piece.kind {
                Kind::Chunk => behind.put(piece).map(|()| behind.spare()),
                _ => behind.put(piece).map(|()| Vec::new()),
            },
            Out::Ended => Err(WriteError::Poisoned),
        };
        put.map_err(|error| {
            // A thread that has ended knows why.
            let error = match std::mem::replace(&mut self.out, Out::Ended) {
                Out::Behind(behind) => behind.end().err().unwrap_or(error),
                _ => error,
            };
            self.poison(error)
        })
    }

    fn poison(&mut self, error: WriteError) -> WriteError {
        self.poisoned = true;
        error
    }
}

fn is_large(payload: &Payload) -> bool {
    payload.bytes().is_some_and(|bytes| bytes.len() > limits::INLINE_MAX)
}

/// What an index says about a chunk of these entries.
pub(crate) fn chunk_ref<E: AsRef<Entry>>(frame: FrameRef, entries: &[E]) -> ChunkRef {
    let seqs = || entries.iter().map(|e| e.as_ref().seq);
    let times = || entries.iter().map(|e| e.as_ref().at_ns);
    ChunkRef {
        frame,
        entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        first_seq: seqs().min().unwrap_or_default(),
        last_seq: seqs().max().unwrap_or_default(),
        first_ns: times().min().unwrap_or_default(),
        last_ns: times().max().unwrap_or_default(),
    }
}

// A header is the first thing in a file and frames follow at once.
const _: () = assert!(HEADER_LEN == 64);
