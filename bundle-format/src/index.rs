//! The index and the footer: where everything in a finished bundle is.
//!
//! Contract: the index repeats what frames say and adds nothing, so a scan of the frames
//! rebuilds it. [`Index::check`] holds it against the file's length before anyone follows it.

use crate::error::ReadError;
use crate::event::{Body, Ending, Entry, Verdict};
use crate::frame::{self, Kind};
use crate::limits;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;

/// Length of the footer's content.
pub const FOOTER_RAW: usize = 64;
/// Length of the footer's frame.
pub const FOOTER_TOTAL: usize = FOOTER_RAW + frame::HEAD + frame::TAIL;

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct FrameRef {
    /// Its offset in the file.
    pub offset: u64,
    /// Its length, head and tail included.
    pub total: u64,
    /// Its kind's number.
    pub kind: u16,
    /// The cell it belongs to.
    pub cell: u32,
}

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ChunkRef {
    /// Where it is.
    pub frame: FrameRef,
    /// How many entries.
    pub entries: u32,
    /// Smallest sequence number in it.
    pub first_seq: u64,
    /// Largest sequence number in it.
    pub last_seq: u64,
    /// Earliest time in it.
    pub first_ns: u64,
    /// Latest time in it.
    pub last_ns: u64,
}

/// Where a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BlobRef {
    /// BLAKE3 of the payload.
    pub hash: [u8; 32],
    /// Where it is.
    pub frame: FrameRef,
}

/// What one cell came to.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CellSummary {
    /// Number of the cell: its index in the plan plus one.
    pub cell: u32,
    /// Its name.
    pub name: String,
    /// Its scenario.
    pub scenario: String,
    /// Its assumption, in a matrix.
    pub assumption: Option<String>,
    /// Its expectation in words.
    pub expectation: String,
    /// Its result; `None` where the run ended before it did.
    pub verdict: Option<Verdict>,
}

impl CellSummary {
    /// The cell digest, where the cell has a result.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.verdict.as_ref().map(|verdict| verdict.digest)
    }

    /// Whether the cell ended as expected.
    pub fn passed(&self) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.ending == Ending::Passed)
    }
}

/// Adds what an entry says about its cell.
pub(crate) fn summarise(cells: &mut BTreeMap<u32, CellSummary>, entry: &Entry) {
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
            cells.insert(entry.cell, summary);
        }
        Body::Verdict(verdict) => {
            if let Some(summary) = cells.get_mut(&entry.cell) {
                summary.verdict = Some(verdict.clone());
            }
        }
        _ => {}
    }
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Index {
    /// Chunks in order of the file.
    pub chunks: Vec<ChunkRef>,
    /// Payloads in order of the file.
    pub blobs: Vec<BlobRef>,
    /// Cells in order of their number.
    pub cells: Vec<CellSummary>,
    /// Frames of kinds that the writer or the reader does not know.
    pub unknown: Vec<FrameRef>,
}

impl Index {
    /// Holds every reference against the length of the part of the file that it may point to.
    ///
    /// # Errors
    /// What contradicts the file.
    pub fn check(&self, end: u64) -> Result<(), ReadError> {
        let all = self
            .chunks
            .iter()
            .map(|c| (c.frame, Some(Kind::Chunk)))
            .chain(self.blobs.iter().map(|b| (b.frame, Some(Kind::Blob))))
            .chain(self.unknown.iter().map(|f| (*f, None)));
        let mut count = 0usize;
        for (reference, kind) in all {
            count += 1;
            let inside = reference.offset >= crate::version::HEADER_LEN as u64
                && reference.offset.checked_add(reference.total).is_some_and(|stop| stop <= end)
                && reference.total >= (frame::HEAD + frame::TAIL) as u64;
            if !inside {
                return Err(ReadError::Index(format!("a frame at byte {} lies outside", reference.offset)));
            }
            if kind.is_some_and(|kind| kind.number() != reference.kind) {
                return Err(ReadError::Index(format!(
                    "the frame at byte {} has another kind",
                    reference.offset
                )));
            }
        }
        if count > limits::FRAMES_MAX {
            return Err(ReadError::Index(format!("{count} frames are more than a bundle can have")));
        }
        let chunks = self.chunks.windows(2).all(|w| w[0].frame.offset < w[1].frame.offset);
        let cells = self.cells.windows(2).all(|w| w[0].cell < w[1].cell);
        if !chunks || !cells {
            return Err(ReadError::Index("its parts are out of order".to_owned()));
        }
        Ok(())
    }
}

/// The last frame of a finished bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Offset of the index frame.
    pub index_offset: u64,
    /// Length of the index frame.
    pub index_total: u64,
    /// Entries in the file.
    pub entries: u64,
    /// Cells in the file.
    pub cells: u32,
    /// BLAKE3 of every byte before the footer's frame: the bundle digest.
    pub digest: [u8; 32],
}

impl Footer {
    /// The footer's content.
    pub fn encode(&self) -> [u8; FOOTER_RAW] {
        let mut out = [0; FOOTER_RAW];
        out[..8].copy_from_slice(&self.index_offset.to_le_bytes());
        out[8..16].copy_from_slice(&self.index_total.to_le_bytes());
        out[16..24].copy_from_slice(&self.entries.to_le_bytes());
        out[24..28].copy_from_slice(&self.cells.to_le_bytes());
        out[32..].copy_from_slice(&self.digest);
        out
    }

    /// Reads a footer's content.
    ///
    /// # Errors
    /// When it has another length.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let wrong = || ReadError::Index("the footer has a wrong length".to_owned());
        let bytes: &[u8; FOOTER_RAW] = bytes.try_into().map_err(|_| wrong())?;
        let u64_at = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        let mut digest = [0; 32];
        digest.copy_from_slice(&bytes[32..]);
        Ok(Footer {
            index_offset: u64_at(0),
            index_total: u64_at(8),
            entries: u64_at(16),
            cells: u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]),
            digest,
        })
    }
}
