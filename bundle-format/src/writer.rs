//! The writer: entries to chunks, payloads to the store, frames to the disk.
//!
//! Contract: the file grows by whole frames only; it bears a temporary name until
//! [`BundleWriter::finish`] has written index and footer; after a failed write every
//! further one is refused, so a torn file never looks whole.
//! Not modelled: several writers of one file.

use crate::check;
use crate::error::WriteError;
use crate::event::{Body, Entry, Payload};
use crate::frame::{self, Kind};
use crate::index::{BlobRef, CellSummary, ChunkRef, Footer, FrameRef, Index};
use crate::limits;
use crate::version::{HEADER_LEN, Header};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// zstd level of chunks: above it the time grows faster than the file shrinks.
const LEVEL: i32 = 3;

#[derive(Default)]
struct OpenChunk {
    entries: Vec<Entry>,
    estimate: usize,
}

/// Writes one bundle.
pub struct BundleWriter {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    offset: u64,
    hasher: blake3::Hasher,
    open: BTreeMap<u32, OpenChunk>,
    blobs: BTreeMap<[u8; 32], ()>,
    cells: BTreeMap<u32, CellSummary>,
    index: Index,
    entries: u64,
    poisoned: bool,
}

impl BundleWriter {
    /// Begins a bundle that will be at `path` once it is finished; until then it is beside
    /// it, with `.partial` after its name.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, header: Header) -> Result<Self, WriteError> {
        let (file, partial) = create_partial(path)?;
        let mut writer = BundleWriter {
            file,
            partial,
            path: path.to_owned(),
            offset: 0,
            hasher: blake3::Hasher::new(),
            open: BTreeMap::new(),
            blobs: BTreeMap::new(),
            cells: BTreeMap::new(),
            index: Index::default(),
            entries: 0,
            poisoned: false,
        };
        writer.write(&header.encode())?;
        Ok(writer)
    }

    /// Where the bundle is until it is finished.
    pub fn partial_path(&self) -> &Path {
        &self.partial
    }

    /// Takes one entry. Large payloads go to the store; a verdict ends its cell: what was
    /// taken of the cell is then on the disk.
    ///
    /// # Errors
    /// When a write fails or the entry is beyond the format's limits.
    pub fn append(&mut self, entry: &Entry) -> Result<(), WriteError> {
        self.take(entry.clone())
    }

    /// As [`BundleWriter::append`], without a copy.
    ///
    /// # Errors
    /// As [`BundleWriter::append`].
    pub fn take(&mut self, mut entry: Entry) -> Result<(), WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        for payload in check::payloads_mut(&mut entry.body) {
            if let Payload::Inline(bytes) = payload
                && bytes.len() > limits::INLINE_MAX
            {
                let len = bytes.len() as u64;
                *payload = Payload::Blob { hash: self.put_blob(bytes)?, len };
            }
        }
        let size = check::estimate(&entry);
        if size > limits::ENTRY_MAX {
            let (size, limit) = (size as u64, limits::ENTRY_MAX as u64);
            return Err(self.poison(WriteError::TooLarge { what: "an entry", size, limit }));
        }
        let cell = entry.cell;
        self.summarise(&entry);
        let ends = matches!(entry.body, Body::Verdict(_));
        let chunk = self.open.entry(cell).or_default();
        chunk.estimate += size;
        chunk.entries.push(entry);
        if chunk.estimate >= limits::CHUNK_TARGET {
            self.flush_cell(cell)?;
        }
        if ends { self.end_cell(cell) } else { Ok(()) }
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
            let mut content = Vec::with_capacity(bytes.len() + 32);
            content.extend_from_slice(&hash);
            content.extend_from_slice(bytes);
            let frame = self.frame(Kind::Blob, 0, &content)?;
            self.index.blobs.push(BlobRef { hash, frame });
        }
        Ok(hash)
    }

    /// Keeps a frame of a kind that this version does not know.
    pub(crate) fn put_unknown(&mut self, frame: &frame::Frame) -> Result<(), WriteError> {
        let reference = self.frame(frame.head.kind, frame.head.cell, &frame.content)?;
        self.index.unknown.push(reference);
        Ok(())
    }

    /// Writes what is held back in memory, so that a crash loses nothing that was taken
    /// before (the system's own cache aside).
    ///
    /// # Errors
    /// When a write fails.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        let cells: Vec<u32> = self.open.keys().copied().collect();
        cells.into_iter().try_for_each(|cell| self.flush_cell(cell))
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
        self.index.cells = std::mem::take(&mut self.cells).into_values().collect();
        let content = archive(&self.index)?;
        let index = self.frame(Kind::Index, 0, &content)?;
        let footer = Footer {
            index_offset: index.offset,
            index_total: index.total,
            entries: self.entries,
            cells: self.index.cells.len() as u32,
            digest: *self.hasher.finalize().as_bytes(),
        };
        self.frame(Kind::Footer, 0, &footer.encode())?;
        let synced = self.file.sync_all();
        synced.map_err(|e| self.failed(&e))?;
        let renamed = std::fs::rename(&self.partial, &self.path);
        renamed.map_err(|e| self.failed(&e))?;
        // The name itself must be durable too; not every file system can sync a folder.
        if let Some(folder) = self.path.parent().filter(|p| !p.as_os_str().is_empty()) {
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(self.path)
    }

    fn summarise(&mut self, entry: &Entry) {
        match &entry.body {
            Body::CellStarted(started) => {
                let summary = CellSummary {
                    cell: entry.cell,
                    name: started.name.clone(),
                    scenario: started.scenario.clone(),
                    assumption: started.assumption.clone(),
                    expectation: started.expectation.clone(),
                    verdict: None,
                };
                self.cells.insert(entry.cell, summary);
            }
            Body::Verdict(verdict) => {
                if let Some(summary) = self.cells.get_mut(&entry.cell) {
                    summary.verdict = Some(verdict.clone());
                }
            }
            _ => {}
        }
    }

    fn end_cell(&mut self, cell: u32) -> Result<(), WriteError> {
        self.flush_cell(cell)?;
        if let Some(summary) = self.cells.get(&cell) {
            let content = archive(summary)?;
            self.frame(Kind::CellEnd, cell, &content)?;
        }
        let synced = self.file.sync_data();
        synced.map_err(|e| self.failed(&e))
    }

    fn flush_cell(&mut self, cell: u32) -> Result<(), WriteError> {
        let Some(chunk) = self.open.remove(&cell).filter(|chunk| !chunk.entries.is_empty()) else {
            return Ok(());
        };
        let content = archive(&chunk.entries).map_err(|e| self.poison(e))?;
        let frame = self.frame(Kind::Chunk, cell, &content)?;
        self.entries += chunk.entries.len() as u64;
        self.index.chunks.push(chunk_ref(frame, &chunk.entries));
        Ok(())
    }

    fn frame(&mut self, kind: Kind, cell: u32, content: &[u8]) -> Result<FrameRef, WriteError> {
        let bytes = frame::encode(kind, cell, content, LEVEL).map_err(|e| self.poison(e))?;
        let reference =
            FrameRef { offset: self.offset, total: bytes.len() as u64, kind: kind.number(), cell };
        self.write(&bytes)?;
        Ok(reference)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let written = self.file.write_all(bytes);
        written.map_err(|e| self.failed(&e))?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn failed(&mut self, error: &std::io::Error) -> WriteError {
        let path = self.partial.display().to_string();
        self.poison(WriteError::Io { path, message: error.to_string() })
    }

    fn poison(&mut self, error: WriteError) -> WriteError {
        self.poisoned = true;
        error
    }
}

/// What an index says about a chunk of these entries.
pub(crate) fn chunk_ref(frame: FrameRef, entries: &[Entry]) -> ChunkRef {
    let seqs = || entries.iter().map(|e| e.seq);
    let times = || entries.iter().map(|e| e.at_ns);
    ChunkRef {
        frame,
        entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        first_seq: seqs().min().unwrap_or_default(),
        last_seq: seqs().max().unwrap_or_default(),
        first_ns: times().min().unwrap_or_default(),
        last_ns: times().max().unwrap_or_default(),
    }
}

type Archiver<'a> = rkyv::api::high::HighSerializer<
    rkyv::util::AlignedVec,
    rkyv::ser::allocator::ArenaHandle<'a>,
    rkyv::rancor::Error,
>;

fn archive<T>(value: &T) -> Result<rkyv::util::AlignedVec, WriteError>
where
    T: for<'a> rkyv::Serialize<Archiver<'a>>,
{
    rkyv::to_bytes::<rkyv::rancor::Error>(value).map_err(|e| WriteError::Encode(e.to_string()))
}

/// Creates the temporary file; what a crashed run left under that name is evidence and stays.
fn create_partial(path: &Path) -> Result<(File, PathBuf), WriteError> {
    let io = |partial: &Path, e: std::io::Error| WriteError::Io {
        path: partial.display().to_string(),
        message: e.to_string(),
    };
    let mut number = 1u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 1 { ".partial".to_owned() } else { format!(".partial{number}") });
        let partial = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&partial) {
            Ok(file) => return Ok((file, partial)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
            Err(e) => return Err(io(&partial, e)),
        }
    }
}

// A header is the first thing in a file and frames follow at once.
const _: () = assert!(HEADER_LEN == 64);
