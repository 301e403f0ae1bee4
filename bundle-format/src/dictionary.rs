//! What small chunks are compressed with: the contents of earlier ones.
//!
//! Contract: a frame names an earlier one; its dictionary is that one's dictionary and content, one after the
//! other. Every step goes towards the beginning of the file, and their number and the length are bounded: what
//! is beyond that is refused whatever was read before.

use crate::error::FrameProblem;
use crate::frame::{self, HEAD, Head, Kind};
use crate::limits;
use crate::reader::Source;
use crate::version::HEADER_LEN;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Dictionaries that are put together at the same time, at most.
const KEPT: usize = 2 * limits::DICTIONARY_FRAMES_MAX;
/// zstd takes what begins so for something else than plain content.
const ZSTD_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// Whether these bytes can be a dictionary.
pub(crate) fn fits(bytes: &[u8]) -> bool {
    (8..=limits::DICTIONARY_MAX).contains(&bytes.len()) && !bytes.starts_with(&ZSTD_MAGIC)
}

/// A dictionary, and of how many frames it is made.
type Known = (Arc<Vec<u8>>, usize);

/// The dictionaries of a file by the offset of the frame that is named.
#[derive(Default)]
pub(crate) struct Dictionaries(Mutex<BTreeMap<u64, Known>>);

impl Dictionaries {
    /// The dictionary for the frame at `user`, which names the one that begins `distance` before it.
    pub fn of(&self, source: &Source, user: u64, distance: u64) -> Result<Arc<Vec<u8>>, FrameProblem> {
        let found = self.at(source, user, distance, limits::DICTIONARY_FRAMES_MAX);
        found.map(|(all, _)| all).map_err(|_| FrameProblem::Dictionary)
    }

    /// Made of `left` frames at most.
    fn at(&self, source: &Source, user: u64, distance: u64, left: usize) -> Result<Known, FrameProblem> {
        let left = left.checked_sub(1).ok_or(FrameProblem::Dictionary)?;
        let offset = user.checked_sub(distance).filter(|offset| *offset >= HEADER_LEN as u64 && distance > 0);
        let offset = offset.ok_or(FrameProblem::Dictionary)?;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&offset).cloned();
        if let Some((all, frames)) = known {
            return if frames <= left + 1 { Ok((all, frames)) } else { Err(FrameProblem::Dictionary) };
        }
        let bytes = whole(source, offset)?;
        let head = frame::check(&bytes)?;
        if head.kind != Kind::Chunk || head.raw_len as usize > limits::DICTIONARY_MAX {
            return Err(FrameProblem::Dictionary);
        }
        let before = match frame::base(&bytes, &head)? {
            Some(base) => Some(self.at(source, offset, base, left)?),
            None => None,
        };
        let own = |_| before.as_ref().map(|(all, _)| all.clone()).ok_or(FrameProblem::Dictionary);
        let content = frame::decode_with(&bytes, own)?.content;
        let (all, frames) = match before {
            Some((before, frames)) => ([&before[..], &content].concat(), frames + 1),
            None => (content, 1),
        };
        if !fits(&all) {
            return Err(FrameProblem::Dictionary);
        }
        let found = (Arc::new(all), frames);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(offset, found.clone());
        Ok(found)
    }
}

/// The bytes of the frame at an offset, bounded by what it may be.
pub(crate) fn whole(source: &Source, at: u64) -> Result<Vec<u8>, FrameProblem> {
    let read = |len| source.read(at, len).map_err(|_| FrameProblem::Truncated);
    let head = Head::decode(read(HEAD as u64)?.first_chunk().ok_or(FrameProblem::Truncated)?);
    head.bounded()?;
    read(head.total())
}
