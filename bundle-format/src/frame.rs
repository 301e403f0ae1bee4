//! Frames: the self-describing pieces that a bundle is a sequence of.
//!
//! ```text
//! 0      4     6      7         8        12     16          16+len      20+len   24+len
//! | len  | kind| codec| reserved| raw_len| cell | stored ... | crc32c     | len    |
//! ```
//! Contract: no I/O. [`decode`] checks the checksum of the exact frame before it looks at
//! anything inside, bounds every length before it allocates, and never panics.

use crate::error::{FrameProblem, WriteError};
use crate::limits;
use crate::varint;
use std::sync::Arc;

/// Bytes before the stored content.
pub const HEAD: usize = 16;
/// Bytes after it.
pub const TAIL: usize = 8;
/// Where a frame says how its content is stored.
pub(crate) const CODEC_AT: usize = 6;
/// The content as it is.
pub const CODEC_PLAIN: u8 = 0;
/// One zstd frame.
pub const CODEC_ZSTD: u8 = 1;
/// How many bytes before this frame another one begins (LEB128), then a zstd frame that needs that one's dictionary.
pub const CODEC_BASED: u8 = 2;
/// What an [`Encoder`] keeps of the room that a long payload needed.
const ROOM_KEPT: usize = 1024 * 1024;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Entries of one cell.
    Chunk,
    /// One payload of the store: its BLAKE3, then its bytes.
    Blob,
    /// A cell's result.
    CellEnd,
    /// Where everything is.
    Index,
    /// The last frame: where the index is.
    Footer,
    /// A kind that this version does not know. Kept, shown, not interpreted.
    Unknown(u16),
}

impl Kind {
    /// The number in the file.
    pub fn number(self) -> u16 {
        match self {
            Kind::Chunk => 1,
            Kind::Blob => 2,
            Kind::CellEnd => 3,
            Kind::Index => 4,
            Kind::Footer => 5,
            Kind::Unknown(number) => number,
        }
    }

    /// The kind of that number.
    pub fn of(number: u16) -> Self {
        match number {
            1 => Kind::Chunk,
            2 => Kind::Blob,
            3 => Kind::CellEnd,
            4 => Kind::Index,
            5 => Kind::Footer,
            other => Kind::Unknown(other),
        }
    }

    /// Longest content of a frame of this kind.
    pub fn raw_max(self) -> usize {
        match self {
            Kind::Blob => limits::BLOB_MAX + 32,
            Kind::Footer => crate::index::FOOTER_RAW,
            Kind::Index => limits::INDEX_MAX,
            _ => limits::FRAME_RAW_MAX,
        }
    }
}

/// The first bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Length of the stored content.
    pub len: u32,
    /// What it holds.
    pub kind: Kind,
    /// One of [`CODEC_PLAIN`], [`CODEC_ZSTD`], [`CODEC_BASED`].
    pub codec: u8,
    /// Must be 0.
    pub reserved: u8,
    /// Length of the content.
    pub raw_len: u32,
    /// The cell it belongs to (0: the run, or none).
    pub cell: u32,
}

impl Head {
    /// Reads the first bytes; they are not trusted before the checksum was seen.
    pub fn decode(bytes: &[u8; HEAD]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Head {
            len: u32_at(0),
            kind: Kind::of(u16::from_le_bytes([bytes[4], bytes[5]])),
            codec: bytes[6],
            reserved: bytes[7],
            raw_len: u32_at(8),
            cell: u32_at(12),
        }
    }

    fn encode(&self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..4].copy_from_slice(&self.len.to_le_bytes());
        out[4..6].copy_from_slice(&self.kind.number().to_le_bytes());
        out[6] = self.codec;
        out[7] = self.reserved;
        out[8..12].copy_from_slice(&self.raw_len.to_le_bytes());
        out[12..].copy_from_slice(&self.cell.to_le_bytes());
        out
    }

    /// Length of the whole frame.
    pub fn total(&self) -> u64 {
        (HEAD + TAIL) as u64 + u64::from(self.len)
    }

    /// Whether the declared lengths can be those of a frame at all.
    ///
    /// # Errors
    /// When a length is beyond the limits.
    pub fn bounded(&self) -> Result<(), FrameProblem> {
        // zstd stores what does not compress with a little overhead; the writer then stores it
        // as it is, so a stored content is never longer than the largest content.
        let max = self.kind.raw_max() as u64;
        match u64::from(self.len.max(self.raw_len)) {
            len if len > max => Err(FrameProblem::TooLong(len)),
            _ => Ok(()),
        }
    }
}

/// A decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its first bytes.
    pub head: Head,
    /// Its content, decompressed.
    pub content: Vec<u8>,
}

/// Makes frames, one after the other; what a frame needs room for is kept for the next one.
pub struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    level: i32,
    /// The frame whose dictionary this is: its offset, and what compresses with it.
    based: Option<(u64, zstd::bulk::Compressor<'static>)>,
    out: Vec<u8>,
}

impl Encoder {
    /// An encoder that compresses at this zstd level.
    ///
    /// # Errors
    /// When zstd does not take the level.
    pub fn new(level: i32) -> Result<Self, WriteError> {
        let zstd = zstd::bulk::Compressor::new(level).map_err(|e| WriteError::Encode(e.to_string()))?;
        Ok(Encoder { zstd, level, based: None, out: Vec::new() })
    }

    /// Compresses at this zstd level from the next frame on.
    ///
    /// # Errors
    /// When zstd does not take the level.
    pub fn set_level(&mut self, level: i32) -> Result<(), WriteError> {
        if self.level != level {
            self.zstd.set_compression_level(level).map_err(|e| WriteError::Encode(e.to_string()))?;
            self.level = level;
        }
        Ok(())
    }

    /// Compresses what wants a dictionary at this level with these bytes: the dictionary of the frame at
    /// `offset`.
    ///
    /// # Errors
    /// When zstd does not take them.
    pub fn set_dictionary(&mut self, offset: u64, bytes: &[u8], level: i32) -> Result<(), WriteError> {
        let zstd = zstd::bulk::Compressor::with_dictionary(level, bytes);
        self.based = Some((offset, zstd.map_err(|e| WriteError::Encode(e.to_string()))?));
        Ok(())
    }

    /// No dictionary any more.
    pub fn forget_dictionary(&mut self) {
        self.based = None;
    }

    /// The bytes of one frame; compressed where that makes it shorter, with the dictionary if there is one and
    /// the frame's own offset is known.
    ///
    /// # Errors
    /// When the content is beyond the limits.
    pub fn encode(
        &mut self,
        kind: Kind,
        cell: u32,
        content: &[u8],
        at: Option<u64>,
    ) -> Result<&[u8], WriteError> {
        if content.len() > kind.raw_max() {
            let (size, limit) = (content.len() as u64, kind.raw_max() as u64);
            return Err(WriteError::TooLarge { what: "a frame", size, limit });
        }
        // Else never made shorter: what lies beyond this frame is the room of a longer one.
        let most = HEAD + content.len() + TAIL;
        if self.out.len() > ROOM_KEPT && most <= ROOM_KEPT {
            self.out = Vec::new();
        }
        if self.out.len() < most {
            self.out.resize(most, 0);
        }
        let (head_room, rest) = self.out.split_at_mut(HEAD);
        let stored = rest.get_mut(..content.len()).unwrap_or_default();
        // A frame that does not get shorter does not fit here, and is stored as it is.
        let squeezed = match (kind, stored.split_last_mut()) {
            (Kind::Footer, _) | (_, None) => None,
            (_, Some((_, room))) => match self.based.as_mut().zip(at) {
                Some(((offset, zstd), at)) => {
                    based(at - *offset, zstd, content, room).map(|len| (CODEC_BASED, len))
                }
                None => self.zstd.compress_to_buffer(content, room).ok().map(|len| (CODEC_ZSTD, len)),
            },
        };
        if squeezed.is_none() {
            stored.copy_from_slice(content);
        }
        let (codec, len) = squeezed.unwrap_or((CODEC_PLAIN, content.len()));
        // Both fit: the largest content of any kind is far below 4 GiB.
        let head = Head { len: len as u32, kind, codec, reserved: 0, raw_len: content.len() as u32, cell };
        head_room.copy_from_slice(&head.encode());
        let (covered, tail) = self.out.split_at_mut(HEAD + len);
        let crc = crc32c::crc32c(covered).to_le_bytes();
        crc.iter().chain(&head.len.to_le_bytes()).zip(tail).for_each(|(byte, place)| *place = *byte);
        Ok(self.out.get(..HEAD + len + TAIL).unwrap_or_default())
    }
}

/// Compresses with a dictionary; how far back the frame is that has it stands before the rest.
fn based(
    distance: u64,
    zstd: &mut zstd::bulk::Compressor<'static>,
    content: &[u8],
    room: &mut [u8],
) -> Option<usize> {
    let mut named = Vec::with_capacity(10);
    varint::put(&mut named, distance);
    let (name, room) = room.split_at_mut_checked(named.len())?;
    name.copy_from_slice(&named);
    Some(named.len() + zstd.compress_to_buffer(content, room).ok()?)
}

/// Encodes one frame; compresses where that makes it shorter.
///
/// # Errors
/// When the content is beyond the limits.
pub fn encode(kind: Kind, cell: u32, content: &[u8], level: i32) -> Result<Vec<u8>, WriteError> {
    Encoder::new(level)?.encode(kind, cell, content, None).map(<[u8]>::to_vec)
}

/// Checks the bytes of exactly one frame (checksum first) and returns its head.
///
/// # Errors
/// What is wrong with the frame.
pub fn check(bytes: &[u8]) -> Result<Head, FrameProblem> {
    let head = Head::decode(bytes.first_chunk().ok_or(FrameProblem::Truncated)?);
    head.bounded()?;
    if bytes.len() as u64 != head.total() {
        return Err(FrameProblem::Truncated);
    }
    let (covered, tail) = bytes.split_at(bytes.len() - TAIL);
    if tail[..4] != crc32c::crc32c(covered).to_le_bytes() {
        return Err(FrameProblem::Checksum);
    }
    if tail[4..] != head.len.to_le_bytes() {
        return Err(FrameProblem::Lengths);
    }
    if head.reserved != 0 {
        return Err(FrameProblem::Reserved);
    }
    Ok(head)
}

/// Decodes the bytes of exactly one frame that needs no dictionary.
///
/// # Errors
/// What is wrong with the frame.
pub fn decode(bytes: &[u8]) -> Result<Frame, FrameProblem> {
    decode_with(bytes, |_| Err(FrameProblem::Dictionary))
}

/// Decodes the bytes of exactly one frame; `dictionary` has that of the frame so many bytes before this one.
///
/// # Errors
/// What is wrong with the frame, or with the one that has its dictionary.
pub fn decode_with(
    bytes: &[u8],
    dictionary: impl FnOnce(u64) -> Result<Arc<Vec<u8>>, FrameProblem>,
) -> Result<Frame, FrameProblem> {
    let head = check(bytes)?;
    let stored = &bytes[HEAD..bytes.len() - TAIL];
    let raw_len = head.raw_len as usize;
    let content = match head.codec {
        CODEC_PLAIN => stored.to_vec(),
        CODEC_ZSTD => zstd::bulk::decompress(stored, raw_len).map_err(|_| FrameProblem::Compression)?,
        CODEC_BASED => {
            let (distance, squeezed) = base_of(stored)?;
            let zstd = zstd::bulk::Decompressor::with_dictionary(&dictionary(distance)?);
            let content = zstd.and_then(|mut zstd| zstd.decompress(squeezed, raw_len));
            content.map_err(|_| FrameProblem::Compression)?
        }
        other => return Err(FrameProblem::Codec(other)),
    };
    if content.len() != raw_len {
        return Err(FrameProblem::Compression);
    }
    Ok(Frame { head, content })
}

/// How many bytes before a frame the one begins whose dictionary it needs.
pub(crate) fn base(bytes: &[u8], head: &Head) -> Result<Option<u64>, FrameProblem> {
    match head.codec {
        CODEC_BASED => base_of(bytes.get(HEAD..).unwrap_or_default()).map(|(distance, _)| Some(distance)),
        _ => Ok(None),
    }
}

fn base_of(stored: &[u8]) -> Result<(u64, &[u8]), FrameProblem> {
    let mut reader = varint::Reader::of(stored);
    let distance = reader.number().map_err(|_| FrameProblem::Dictionary)?;
    Ok((distance, reader.rest()))
}

/// Fuzz entry point: any bytes are a frame or one clear problem, and what decodes encodes
/// to a frame of the same content.
pub fn fuzz_one(bytes: &[u8]) {
    if let Ok(frame) = decode(bytes) {
        let again = encode(frame.head.kind, frame.head.cell, &frame.content, 1);
        let again = again.ok().and_then(|bytes| decode(&bytes).ok());
        assert_eq!(again.map(|f| f.content), Some(frame.content), "a frame does not survive its encoding");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_compression_bomb_is_refused() {
        // Declares 16 bytes and holds a megabyte of zeros.
        let squeezed = zstd::bulk::compress(&vec![0; 1 << 20], 3).unwrap();
        let head = Head {
            len: squeezed.len() as u32,
            kind: Kind::Chunk,
            codec: 1,
            reserved: 0,
            raw_len: 16,
            cell: 1,
        };
        let mut bytes = head.encode().to_vec();
        bytes.extend_from_slice(&squeezed);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&head.len.to_le_bytes());
        assert_eq!(decode(&bytes), Err(FrameProblem::Compression));
    }

    proptest! {
        #[test]
        fn frames_survive_their_encoding(
            content in proptest::collection::vec(any::<u8>(), 0..5000), number in any::<u16>(), cell in any::<u32>(),
        ) {
            let kind = Kind::of(number);
            prop_assume!(kind != Kind::Footer || content.len() <= crate::index::FOOTER_RAW);
            let bytes = encode(kind, cell, &content, 3).unwrap();
            let frame = decode(&bytes).unwrap();
            prop_assert_eq!(frame.head.kind, kind);
            prop_assert_eq!(frame.head.cell, cell);
            prop_assert_eq!(frame.content, content);
        }

        #[test]
        fn no_bit_flips_unseen(content in proptest::collection::vec(any::<u8>(), 0..200), bit in any::<prop::sample::Index>()) {
            let mut bytes = encode(Kind::Chunk, 3, &content, 3).unwrap();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_one(&bytes);
        }
    }
}
