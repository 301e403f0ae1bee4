//! Recovery: a damaged or unfinished bundle, written again as a finished one.
//!
//! Contract: every whole frame before the first damage is kept, and every whole frame after it
//! that can be reached from the end of the file (frames bear their length at both ends). What
//! could not be kept is said, never made up; the file that is read is not changed.
//! Not modelled: an island of whole frames between two damages.

use crate::check;
use crate::dictionary::Dictionaries;
use crate::error::{ReadError, WriteError};
use crate::event::Payload;
use crate::frame::{Frame, Kind};
use crate::reader::{Bundle, Damage, Source, decode_chunk, frame_before, intact, whole_frame};
use crate::version::{HEADER_LEN, Header};
use crate::writer::BundleWriter;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why a bundle could not be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It cannot be read at all.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The new file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What a recovery came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Where the finished bundle is.
    pub path: PathBuf,
    /// Entries in it.
    pub entries: u64,
    /// Cells in it.
    pub cells: usize,
    /// Cells that have no verdict.
    pub unfinished: Vec<String>,
    /// Bytes that belong to no whole frame, in order.
    pub damages: Vec<Damage>,
    /// Payloads that entries refer to and that are gone.
    pub missing_payloads: usize,
    /// Whether the run had ended the bundle.
    pub was_complete: bool,
}

impl Recovered {
    /// Whether the new bundle has all that the run noted.
    pub fn is_lossless(&self) -> bool {
        self.was_complete && self.damages.is_empty() && self.missing_payloads == 0
    }
}

/// Writes what is whole in the bundle at `from` as a finished bundle at `to`.
///
/// # Errors
/// When nothing can be read, or the new file cannot be written.
pub fn recover(from: &Path, to: &Path) -> Result<Recovered, RecoverError> {
    let bundle = Bundle::open(from)?;
    // What is written is of this version, whatever is read.
    let now = Header::new(bundle.header().id, bundle.header().salt);
    let header = Header { may_ignore: bundle.header().may_ignore, ..now };
    let mut salvage = Salvage {
        source: bundle.source(),
        major: bundle.header().major,
        dictionaries: Dictionaries::default(),
        writer: BundleWriter::create(to, header)?,
        wanted: BTreeSet::new(),
        kept: BTreeSet::new(),
        entries: 0,
        damages: Vec::new(),
    };
    let was_complete = salvage.run()?;
    let Salvage { writer, wanted, kept, entries, damages, .. } = salvage;
    let path = writer.finish()?;
    let recovered = Bundle::open(&path)?;
    let unfinished = recovered.cells().iter().filter(|cell| cell.verdict.is_none());
    Ok(Recovered {
        entries,
        cells: recovered.cells().len(),
        unfinished: unfinished.map(|cell| cell.name.clone()).collect(),
        damages,
        missing_payloads: wanted.difference(&kept).count(),
        was_complete,
        path,
    })
}

struct Salvage<'a> {
    source: &'a Source,
    major: u16,
    dictionaries: Dictionaries,
    writer: BundleWriter,
    wanted: BTreeSet<[u8; 32]>,
    kept: BTreeSet<[u8; 32]>,
    entries: u64,
    damages: Vec<Damage>,
}

impl Salvage<'_> {
    /// Takes every frame that can be reached; whether the last one is a footer.
    fn run(&mut self) -> Result<bool, RecoverError> {
        let end = self.source.len();
        let mut at = HEADER_LEN as u64;
        let mut last = None;
        while at < end {
            match intact(self.source, at) {
                Some(total) => {
                    last = self.intact(at, total)?;
                    at += total;
                }
                None => {
                    let what = self.read(at).err().map(|error| error.to_string()).unwrap_or_default();
                    let behind = self.behind(at);
                    let resumed = behind.first().copied().unwrap_or(end);
                    self.damages.push(Damage { at, lost: resumed - at, what });
                    for start in behind {
                        let total = intact(self.source, start).unwrap_or_default();
                        last = self.intact(start, total)?;
                    }
                    break;
                }
            }
        }
        Ok(last == Some(Kind::Footer))
    }

    fn read(&self, at: u64) -> Result<Frame, ReadError> {
        whole_frame(self.source, &self.dictionaries, at).map(|(_, frame)| frame)
    }

    /// Takes a frame whose bytes are as they were written; its kind, if it can be read: what it is compressed with may
    /// be damaged.
    fn intact(&mut self, at: u64, total: u64) -> Result<Option<Kind>, RecoverError> {
        match self.read(at) {
            Ok(frame) => {
                let kind = frame.head.kind;
                self.frame(at, total, frame)?;
                Ok(Some(kind))
            }
            Err(error) => {
                self.damages.push(Damage { at, lost: total, what: error.to_string() });
                Ok(None)
            }
        }
    }

    /// Where the whole frames after a damage begin: found from the end, in order of the file.
    fn behind(&self, damage: u64) -> Vec<u64> {
        let mut starts = Vec::new();
        let mut end = self.source.len();
        while let Some(start) = frame_before(self.source, end, damage) {
            starts.push(start);
            end = start;
        }
        starts.reverse();
        starts
    }

    fn frame(&mut self, at: u64, total: u64, frame: Frame) -> Result<(), RecoverError> {
        match frame.head.kind {
            Kind::Chunk => match decode_chunk(at, &frame, self.major) {
                Ok(entries) => {
                    for entry in entries {
                        for payload in check::payloads(&entry.body) {
                            if let Payload::Blob { hash, .. } = payload {
                                self.wanted.insert(*hash);
                            }
                        }
                        self.entries += 1;
                        self.writer.take(entry)?;
                    }
                }
                Err(error) => self.damages.push(Damage { at, lost: total, what: error.to_string() }),
            },
            Kind::Blob => {
                let hash: Option<[u8; 32]> = frame.content.first_chunk().copied();
                match hash.filter(|hash| blake3::hash(&frame.content[32..]).as_bytes() == hash) {
                    Some(hash) => {
                        self.kept.insert(hash);
                        self.writer.put_blob(&frame.content[32..])?;
                    }
                    None => {
                        let what = "a payload that does not have its hash".to_owned();
                        self.damages.push(Damage { at, lost: total, what });
                    }
                }
            }
            Kind::Unknown(_) => self.writer.put_unknown(&frame)?,
            // Made anew from the entries.
            Kind::CellEnd | Kind::Index | Kind::Footer => {}
        }
        Ok(())
    }
}
