//! The container while it is written: pieces to frames, frames to the disk, the index as it grows.
//!
//! Contract: the file grows by whole frames only; it bears a temporary name until [`Container::finish`]
//! has written index and footer; after a failed write every further one is refused. The pieces come from
//! this thread or through [`Behind`] from another one, which then waits neither for zstd nor for the disk
//! until [`PIECES`] of them are on their way.

use crate::chunk::Maker;
use crate::dictionary;
use crate::error::WriteError;
use crate::event::Entry;
use crate::frame::{self, Kind};
use crate::index::{BlobRef, CellSummary, ChunkRef, Footer, FrameRef, Index};
use crate::limits;
use crate::version::Header;
use crate::writer::Tuning;
use rkyv::util::AlignedVec;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// Pieces on their way to the thread that writes, at most.
const PIECES: usize = 4;

/// A chunk of at most this content gains from a dictionary.
const SMALL: usize = 64 * 1024;

/// So many chunks use one dictionary.
const USERS_MAX: usize = 256;

/// What becomes one frame.
pub(crate) struct Piece<E> {
    pub kind: Kind,
    pub cell: u32,
    pub content: Content<E>,
    pub listed: Listed,
    /// More is to come at once.
    pub hurried: bool,
    /// It is on the disk before anything that comes after it is.
    pub durable: bool,
}

/// Contents of frames that later ones are compressed with.
#[derive(Default)]
struct Dictionary {
    bytes: Vec<u8>,
    /// The frame that came last.
    offset: u64,
    /// Frames that it is made of.
    members: usize,
    /// Frames that use it, or a shorter one.
    users: usize,
}

/// What a frame holds.
pub(crate) enum Content<E> {
    Bytes(Vec<u8>),
    /// Becomes a chunk where the frame is made.
    Entries(Vec<E>),
}

/// How the index lists a frame; the place is put in when it is known.
pub(crate) enum Listed {
    Chunk(ChunkRef),
    Blob([u8; 32]),
    Unknown,
}

pub(crate) struct Container {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    len: u64,
    /// Over all that was written.
    hasher: blake3::Hasher,
    encoder: frame::Encoder,
    tuning: Tuning,
    dictionary: Dictionary,
    maker: Maker,
    /// Where chunks are made.
    room: AlignedVec,
    index: Index,
    entries: u64,
    poisoned: bool,
}

impl Container {
    pub fn create(path: &Path, header: Header, tuning: Tuning) -> Result<Self, WriteError> {
        let encoder = frame::Encoder::new(tuning.level_unhurried)?;
        let (file, partial) = create_partial(path)?;
        let mut container = Container {
            file,
            partial,
            path: path.to_owned(),
            len: 0,
            hasher: blake3::Hasher::new(),
            encoder,
            tuning,
            dictionary: Dictionary::default(),
            maker: Maker::default(),
            room: AlignedVec::new(),
            index: Index::default(),
            entries: 0,
            poisoned: false,
        };
        let written = container.file.write_all(&header.encode());
        written.map_err(|e| container.failed(&e))?;
        container.hasher.update(&header.encode());
        container.len = header.encode().len() as u64;
        Ok(container)
    }

    pub fn partial_path(&self) -> &Path {
        &self.partial
    }

    /// Writes one piece; what ends a cell is durable then.
    pub fn put<E: AsRef<Entry>>(&mut self, piece: &Piece<E>) -> Result<(), WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let put = self.try_put(piece);
        self.poisoned = put.is_err();
        put
    }

    fn try_put<E: AsRef<Entry>>(&mut self, piece: &Piece<E>) -> Result<(), WriteError> {
        let mut room = std::mem::take(&mut self.room);
        room.clear();
        let content: &[u8] = match &piece.content {
            Content::Bytes(bytes) => bytes,
            Content::Entries(entries) => {
                room = self.maker.make(entries, room)?;
                &room
            }
        };
        self.try_put_content(piece, content)?;
        self.room = room;
        Ok(())
    }

    fn try_put_content<E>(&mut self, piece: &Piece<E>, content: &[u8]) -> Result<(), WriteError> {
        let level = if piece.hurried { self.tuning.level } else { self.tuning.level_unhurried };
        self.encoder.set_level(level)?;
        let small = piece.kind == Kind::Chunk && content.len() <= SMALL && !piece.hurried;
        let (frame, codec) = self.frame(piece.kind, piece.cell, content, small)?;
        // What did not get shorter with the dictionary has none, and so cannot make it longer.
        if small && (codec == frame::CODEC_BASED || self.dictionary.members == 0) {
            self.learn(frame.offset, content)?;
        }
        match &piece.listed {
            Listed::Chunk(chunk) => {
                self.entries += u64::from(chunk.entries);
                self.index.chunks.push(ChunkRef { frame, ..*chunk });
            }
            Listed::Blob(hash) => self.index.blobs.push(BlobRef { hash: *hash, frame }),
            Listed::Unknown => self.index.unknown.push(frame),
        }
        match piece.durable {
            true => self.file.sync_data().map_err(|e| self.failed(&e)),
            false => Ok(()),
        }
    }

    /// Adds the content of a small chunk to the dictionary of those that come, until that is long enough; it begins
    /// anew after a while, so that a damage there does not reach the whole file.
    fn learn(&mut self, offset: u64, content: &[u8]) -> Result<(), WriteError> {
        let dictionary = &mut self.dictionary;
        dictionary.users += 1;
        if dictionary.users >= USERS_MAX {
            *dictionary = Dictionary::default();
            self.encoder.forget_dictionary();
            return Ok(());
        }
        let len = dictionary.bytes.len() + content.len();
        if dictionary.members >= limits::DICTIONARY_FRAMES_MAX || len > limits::DICTIONARY_MAX {
            return Ok(());
        }
        if dictionary.members == 0 && !dictionary::fits(content) {
            return Ok(());
        }
        dictionary.bytes.extend_from_slice(content);
        (dictionary.offset, dictionary.members) = (offset, dictionary.members + 1);
        self.encoder.set_dictionary(offset, &dictionary.bytes, self.tuning.level_unhurried)
    }

    fn frame(
        &mut self,
        kind: Kind,
        cell: u32,
        content: &[u8],
        small: bool,
    ) -> Result<(FrameRef, u8), WriteError> {
        let bytes = self.encoder.encode(kind, cell, content, small.then_some(self.len))?;
        let (offset, total) = (self.len, bytes.len() as u64);
        let codec = bytes.get(frame::CODEC_AT).copied().unwrap_or_default();
        let written = self.file.write_all(bytes);
        self.hasher.update(bytes);
        self.len += total;
        written.map_err(|e| self.failed(&e))?;
        Ok((FrameRef { offset, total, kind: kind.number(), cell }, codec))
    }

    /// Writes index and footer, makes the file durable and gives it its name.
    pub fn finish(mut self, cells: Vec<CellSummary>) -> Result<PathBuf, WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        self.index.cells = cells;
        let content = rkyv::to_bytes::<rkyv::rancor::Error>(&self.index);
        let content = content.map_err(|e| WriteError::Encode(e.to_string()))?;
        self.encoder.set_level(self.tuning.level_unhurried)?;
        let (index, _) = self.frame(Kind::Index, 0, &content, false)?;
        let footer = Footer {
            index_offset: index.offset,
            index_total: index.total,
            entries: self.entries,
            cells: self.index.cells.len() as u32,
            digest: *self.hasher.finalize().as_bytes(),
        };
        self.frame(Kind::Footer, 0, &footer.encode(), false)?;
        self.file.sync_all().map_err(|e| self.failed(&e))?;
        std::fs::rename(&self.partial, &self.path).map_err(|e| self.failed(&e))?;
        // The name itself must be durable too; not every file system can sync a folder.
        if let Some(folder) = self.path.parent().filter(|p| !p.as_os_str().is_empty()) {
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(self.path)
    }

    fn failed(&self, error: &std::io::Error) -> WriteError {
        WriteError::Io { path: self.partial.display().to_string(), message: error.to_string() }
    }
}

/// A container in a thread of its own.
pub(crate) struct Behind<E> {
    pieces: SyncSender<Piece<E>>,
    /// Entries that are written: whoever gave them lets go of them, and has their room again.
    spare: Receiver<Vec<E>>,
    thread: JoinHandle<Result<Container, WriteError>>,
}

impl<E: AsRef<Entry> + Send + 'static> Behind<E> {
    /// Moves a container there.
    pub fn of(mut container: Container) -> Result<Self, WriteError> {
        let (pieces, coming) = sync_channel::<Piece<E>>(PIECES);
        let (used, spare) = channel();
        let thread = std::thread::Builder::new().name("bundle".to_owned()).spawn(move || {
            for piece in coming {
                container.put(&piece)?;
                if let Content::Entries(entries) = piece.content {
                    let _ = used.send(entries);
                }
            }
            Ok(container)
        });
        let thread = thread.map_err(|e| WriteError::Encode(format!("no thread: {e}")))?;
        Ok(Behind { pieces, spare, thread })
    }
}

impl<E> Behind<E> {
    /// Gives it a piece. Waits while many are on their way.
    ///
    /// # Errors
    /// When the thread has ended, which it does at a failed write; [`Behind::end`] gives the reason.
    pub fn put(&self, piece: Piece<E>) -> Result<(), WriteError> {
        self.pieces.send(piece).map_err(|_| WriteError::Poisoned)
    }

    pub fn spare(&self) -> Vec<E> {
        let mut entries = self.spare.try_recv().unwrap_or_default();
        entries.clear();
        entries
    }

    /// Waits until all is written.
    pub fn end(self) -> Result<Container, WriteError> {
        drop(self.pieces);
        let stopped = |_| WriteError::Encode("the thread that writes stopped unexpectedly".to_owned());
        self.thread.join().map_err(stopped)?
    }
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
