//! The reader: opens finished, crashed and damaged bundles, decodes what is asked for.
//!
//! Contract: opening a finished bundle reads header, footer and index; a file without a
//! footer is scanned up to its last whole frame and says that it is incomplete. Nothing in
//! the file is trusted: checksum, bounded decompression, rkyv's check, semantic checks.
//! A file is read by position, frame by frame, out of the system's cache, and not mapped: a mapped
//! file that gets shorter kills its reader, and one that is changed between the check and the use
//! passes the check. Each frame is copied once, then checked, so the worst is a clear error.

use crate::check;
use crate::chunk;
use crate::dictionary::{self, Dictionaries};
use crate::error::{FrameProblem, ReadError};
use crate::event::{Body, Entry, Payload, StoredFile};
use crate::frame::{self, Frame, HEAD, Kind};
use crate::index::{BlobRef, CellSummary, FOOTER_TOTAL, Footer, FrameRef, Index, summarise};
use crate::limits;
use crate::version::{HEADER_LEN, Header};
use crate::writer::chunk_ref;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Where a bundle's bytes are.
pub(crate) enum Source {
    File(File, u64),
    Bytes(Vec<u8>),
}

impl Source {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Source::File(_, len) => *len,
            Source::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Reads `len` bytes at `offset`; what lies beyond the end is an error before memory
    /// for it is asked for.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        let truncated = ReadError::Frame { at: offset, what: FrameProblem::Truncated };
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.len()) else {
            return Err(truncated);
        };
        match self {
            Source::Bytes(bytes) => {
                // In range: checked against the length above.
                let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
                let slice = range.and_then(|(a, b)| bytes.get(a..b));
                slice.map(<[u8]>::to_vec).ok_or(truncated)
            }
            Source::File(file, _) => {
                let mut out = vec![0; usize::try_from(len).map_err(|_| truncated)?];
                read_at(file, &mut out, offset)?;
                Ok(out)
            }
        }
    }
}

/// Fills the buffer from `offset` on (pread(2)).
///
/// # Errors
/// When the file ends before, or cannot be read.
#[cfg(unix)]
pub fn read_at(file: &File, out: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

/// Fills the buffer from `offset` on. Moves the file's own place: one reader at a time.
///
/// # Errors
/// When the file ends before, or cannot be read.
#[cfg(not(unix))]
pub fn read_at(mut file: &File, out: &mut [u8], offset: u64) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(out)
}

/// Where a file without a valid footer stops making sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Offset of the first byte that belongs to no whole frame.
    pub at: u64,
    /// Bytes from there to the end of the file.
    pub lost: u64,
    /// What is wrong there.
    pub what: String,
}

/// What [`Bundle::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Entries in the file.
    pub entries: u64,
    /// Payloads in the store.
    pub blobs: usize,
    /// The bundle digest.
    pub digest: [u8; 32],
}

/// An open bundle.
pub struct Bundle {
    source: Source,
    header: Header,
    index: Index,
    footer: Option<Footer>,
    damage: Option<Damage>,
    blobs: BTreeMap<[u8; 32], BlobRef>,
    dictionaries: Dictionaries,
}

impl Bundle {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read, is no bundle, or is of a version that is not read.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        // Opening a pipe waits for somebody to write into it.
        if !std::fs::metadata(path)?.is_file() {
            return Err(ReadError::NotABundle("it is not a file"));
        }
        let file = File::open(path)?;
        let meta = file.metadata()?;
        Self::of(Source::File(file, meta.len()))
    }

    /// Opens a bundle that is in memory.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ReadError> {
        Self::of(Source::Bytes(bytes))
    }

    fn of(source: Source) -> Result<Self, ReadError> {
        let header = Header::decode(&source.read(0, source.len().min(HEADER_LEN as u64))?)?;
        let (index, footer, damage) = match indexed(&source) {
            Some((index, footer)) => (index, Some(footer), None),
            None => {
                let scan = scan(&source, header.major);
                (scan.index, None, scan.damage)
            }
        };
        let blobs = index.blobs.iter().map(|blob| (blob.hash, *blob)).collect();
        Ok(Bundle { source, header, index, footer, damage, blobs, dictionaries: Dictionaries::default() })
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// What stands at the beginning of the file.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the run wrote it to its end. An incomplete bundle holds what was written
    /// before the run was killed.
    pub fn is_complete(&self) -> bool {
        self.footer.is_some()
    }

    /// Where an incomplete file stops making sense, if it has bytes beyond its last whole
    /// frame.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// How many entries the file holds, as the index says.
    pub fn entry_count(&self) -> u64 {
        self.index.chunks.iter().map(|chunk| u64::from(chunk.entries)).sum()
    }

    /// The bundle digest (finished bundles).
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.footer.map(|footer| footer.digest)
    }

    /// The index, as stored or as rebuilt by a scan.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The cells, in order of their number.
    pub fn cells(&self) -> &[CellSummary] {
        &self.index.cells
    }

    /// The cell of that name.
    ///
    /// # Errors
    /// When there is none; the error names the nearest.
    pub fn cell(&self, name: &str) -> Result<&CellSummary, ReadError> {
        self.index.cells.iter().find(|cell| cell.name == name).ok_or_else(|| {
            let nearest = self.index.cells.iter().map(|cell| &cell.name);
            let nearest = nearest.map(|other| (distance(name, other), other)).min_by_key(|(far, _)| *far);
            // A name that shares less than half with what was asked is no help.
            let nearest =
                nearest.filter(|(far, _)| far * 2 <= name.chars().count()).map(|(_, other)| other.clone());
            ReadError::NoSuchCell { name: name.to_owned(), nearest }
        })
    }

    /// The entries of a cell in order of their numbers, payloads at hand.
    ///
    /// # Errors
    /// When a chunk of the cell or a payload is damaged or missing.
    pub fn entries(&self, cell: u32) -> Result<Vec<Entry>, ReadError> {
        let mut entries = self.raw_entries(cell)?;
        let mut left = limits::CELL_PAYLOADS_MAX;
        for entry in &mut entries {
            self.resolve(entry)?;
            let held = check::payloads(&entry.body).filter_map(Payload::bytes);
            let held: usize = held.map(<[u8]>::len).sum();
            left = left.checked_sub(held as u64).ok_or_else(|| {
                let gib = limits::CELL_PAYLOADS_MAX >> 30;
                ReadError::Index(format!("the payloads of cell {cell} are more than {gib} GiB"))
            })?;
        }
        Ok(entries)
    }

    /// The entries of the run itself (sources, environment, start and end), files with their
    /// content; [`Bundle::raw_entries`] of cell 0 leaves that in the store.
    ///
    /// # Errors
    /// When a chunk is damaged.
    pub fn run_entries(&self) -> Result<Vec<Entry>, ReadError> {
        self.entries(0)
    }

    /// The entries of a cell, large payloads by reference.
    ///
    /// # Errors
    /// When a chunk of the cell is damaged.
    pub fn raw_entries(&self, cell: u32) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        for chunk in self.index.chunks.iter().filter(|chunk| chunk.frame.cell == cell) {
            let frame = self.frame(&chunk.frame)?;
            entries.append(&mut decode_chunk(chunk.frame.offset, &frame, self.header.major)?);
        }
        entries.sort_by_key(|entry| entry.seq);
        Ok(entries)
    }

    /// Puts the bytes of an entry's payloads in the place of references.
    ///
    /// # Errors
    /// When a payload is damaged or missing.
    pub fn resolve(&self, entry: &mut Entry) -> Result<(), ReadError> {
        for payload in check::payloads_mut(&mut entry.body) {
            if let Payload::Blob { hash, .. } = payload {
                *payload = Payload::Inline(self.blob(hash)?);
            }
        }
        Ok(())
    }

    /// The bytes of a payload.
    ///
    /// # Errors
    /// When the payload is damaged or missing.
    pub fn content(&self, payload: &Payload) -> Result<Vec<u8>, ReadError> {
        match payload {
            Payload::Inline(bytes) => Ok(bytes.clone()),
            Payload::Blob { hash, .. } => self.blob(hash),
        }
    }

    /// A payload of the store.
    ///
    /// # Errors
    /// When it is damaged or missing.
    pub fn blob(&self, hash: &[u8; 32]) -> Result<Vec<u8>, ReadError> {
        let missing = || ReadError::MissingBlob(blake3::Hash::from(*hash).to_hex().to_string());
        let reference = self.blobs.get(hash).ok_or_else(missing)?;
        let mut frame = self.frame(&reference.frame)?;
        let at = reference.frame.offset;
        let wrong = |what: &str| ReadError::Content { at, what: what.to_owned() };
        let stored = frame.content.get(..32).ok_or_else(|| wrong("a payload without its hash"))?;
        if stored != hash || blake3::hash(&frame.content[32..]).as_bytes() != hash {
            return Err(wrong("a payload that does not have its hash"));
        }
        Ok(frame.content.split_off(32))
    }

    /// The files that the run read: sources, descriptors, binaries; content by reference.
    ///
    /// # Errors
    /// When a chunk of the run is damaged.
    pub fn files(&self) -> Result<Vec<StoredFile>, ReadError> {
        let file = |entry: Entry| match entry.body {
            Body::File(file) => Some(file),
            _ => None,
        };
        Ok(self.raw_entries(0)?.into_iter().filter_map(file).collect())
    }

    /// The content of a stored file by its path; `None` where there is no such file or only
    /// its digest was kept.
    ///
    /// # Errors
    /// When the file's payload is damaged or is not what its digest says.
    pub fn file(&self, path: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let files = self.files()?;
        let Some(file) = files.iter().find(|file| file.path == path) else { return Ok(None) };
        let Some(content) = &file.content else { return Ok(None) };
        let bytes = self.content(content)?;
        if blake3::hash(&bytes).as_bytes() != &file.digest {
            return Err(ReadError::Index(format!("the content of {path:?} does not have its digest")));
        }
        Ok(Some(bytes))
    }

    /// Checks every byte: checksums, contents, that the index says what the frames say, that
    /// every payload is there, and the bundle digest.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<Verified, ReadError> {
        let scan = scan(&self.source, self.header.major);
        if let Some(Damage { at, what, .. }) = scan.damage {
            return Err(ReadError::Content { at, what });
        }
        let footer = self.footer.ok_or_else(|| {
            ReadError::Index("the bundle is incomplete: the run that wrote it did not finish".to_owned())
        })?;
        if scan.index != self.index {
            return Err(ReadError::Index("it does not say what the frames say".to_owned()));
        }
        if scan.digest != footer.digest || scan.entries != footer.entries {
            return Err(ReadError::Index("the footer's digest or count is wrong".to_owned()));
        }
        for blob in &self.index.blobs {
            self.blob(&blob.hash)?;
        }
        for chunk in &self.index.chunks {
            let frame = self.frame(&chunk.frame)?;
            for entry in decode_chunk(chunk.frame.offset, &frame, self.header.major)? {
                for payload in check::payloads(&entry.body) {
                    if let Payload::Blob { hash, .. } = payload
                        && !self.blobs.contains_key(hash)
                    {
                        let hash = blake3::Hash::from(*hash).to_hex().to_string();
                        return Err(ReadError::MissingBlob(hash));
                    }
                }
            }
        }
        let blobs = self.index.blobs.len();
        Ok(Verified { entries: scan.entries, blobs, digest: footer.digest })
    }

    fn frame(&self, reference: &FrameRef) -> Result<Frame, ReadError> {
        let at = reference.offset;
        let bytes = self.source.read(at, reference.total)?;
        let dictionary = |distance| self.dictionaries.of(&self.source, at, distance);
        let frame = frame::decode_with(&bytes, dictionary).map_err(|what| ReadError::Frame { at, what })?;
        if frame.head.kind.number() != reference.kind || frame.head.cell != reference.cell {
            return Err(ReadError::Index(format!("the frame at byte {at} is another one")));
        }
        Ok(frame)
    }
}

/// Reads footer and index, if both are whole and agree with the file.
fn indexed(source: &Source) -> Option<(Index, Footer)> {
    let end = source.len().checked_sub(FOOTER_TOTAL as u64).filter(|end| *end >= HEADER_LEN as u64)?;
    let frame = frame::decode(&source.read(end, FOOTER_TOTAL as u64).ok()?).ok()?;
    if frame.head.kind != Kind::Footer {
        return None;
    }
    let footer = Footer::decode(&frame.content).ok()?;
    if footer.index_offset.checked_add(footer.index_total) != Some(end) {
        return None;
    }
    let frame = frame::decode(&source.read(footer.index_offset, footer.index_total).ok()?).ok()?;
    if frame.head.kind != Kind::Index {
        return None;
    }
    let index: Index = unarchive(&frame.content).ok()?;
    index.check(footer.index_offset).ok()?;
    Some((index, footer))
}

struct Scan {
    index: Index,
    entries: u64,
    digest: [u8; 32],
    damage: Option<Damage>,
}

/// Reads every frame from the beginning; stops at the first that is not whole.
fn scan(source: &Source, major: u16) -> Scan {
    let mut scan = Scan { index: Index::default(), entries: 0, digest: [0; 32], damage: None };
    let mut cells: BTreeMap<u32, CellSummary> = BTreeMap::new();
    let mut hasher = blake3::Hasher::new();
    let dictionaries = Dictionaries::default();
    let mut at = HEADER_LEN as u64;
    if let Ok(header) = source.read(0, at) {
        hasher.update(&header);
    }
    while at < source.len() {
        let step = whole_frame(source, &dictionaries, at).and_then(|(bytes, frame)| {
            take_frame(&mut scan, &mut cells, at, bytes.len() as u64, &frame, major)?;
            Ok((bytes, frame.head.kind))
        });
        match step {
            Ok((bytes, kind)) => {
                at += bytes.len() as u64;
                if kind == Kind::Footer {
                    if at < source.len() {
                        let what = "bytes follow the footer".to_owned();
                        scan.damage = Some(Damage { at, lost: source.len() - at, what });
                    }
                    break;
                }
                hasher.update(&bytes);
            }
            Err(error) => {
                let what = match error {
                    ReadError::Frame { what, .. } => what.to_string(),
                    ReadError::Content { what, .. } => what,
                    other => other.to_string(),
                };
                scan.damage = Some(Damage { at, lost: source.len() - at, what });
                break;
            }
        }
    }
    scan.digest = *hasher.finalize().as_bytes();
    scan.index.cells = cells.into_values().collect();
    scan
}

/// The frame at an offset, with its bytes.
pub(crate) fn whole_frame(
    source: &Source,
    dictionaries: &Dictionaries,
    at: u64,
) -> Result<(Vec<u8>, Frame), ReadError> {
    let wrong = |what| ReadError::Frame { at, what };
    let bytes = dictionary::whole(source, at).map_err(wrong)?;
    let frame =
        frame::decode_with(&bytes, |distance| dictionaries.of(source, at, distance)).map_err(wrong)?;
    Ok((bytes, frame))
}

/// The length of the frame at an offset, if its bytes are as they were written.
pub(crate) fn intact(source: &Source, at: u64) -> Option<u64> {
    let bytes = dictionary::whole(source, at).ok()?;
    frame::check(&bytes).ok().map(|head| head.total())
}

/// Where the whole frame that ends at `end` begins, not before `floor`.
pub(crate) fn frame_before(source: &Source, end: u64, floor: u64) -> Option<u64> {
    let at = end.checked_sub(4).filter(|at| *at >= floor)?;
    let len = u32::from_le_bytes(*source.read(at, 4).ok()?.first_chunk()?);
    let start =
        end.checked_sub((HEAD + frame::TAIL) as u64 + u64::from(len)).filter(|start| *start >= floor)?;
    intact(source, start).filter(|len| *len == end - start).map(|_| start)
}

fn take_frame(
    scan: &mut Scan,
    cells: &mut BTreeMap<u32, CellSummary>,
    at: u64,
    total: u64,
    frame: &Frame,
    major: u16,
) -> Result<(), ReadError> {
    let reference = FrameRef { offset: at, total, kind: frame.head.kind.number(), cell: frame.head.cell };
    let wrong = |what: &str| ReadError::Content { at, what: what.to_owned() };
    match frame.head.kind {
        Kind::Chunk => {
            let entries = decode_chunk(at, frame, major)?;
            scan.entries += entries.len() as u64;
            scan.index.chunks.push(chunk_ref(reference, &entries));
            entries.iter().for_each(|entry| summarise(cells, entry));
        }
        Kind::Blob => {
            let hash = frame.content.first_chunk().ok_or_else(|| wrong("a payload without its hash"))?;
            scan.index.blobs.push(BlobRef { hash: *hash, frame: reference });
        }
        Kind::CellEnd => {
            let summary: CellSummary = unarchive(&frame.content).map_err(|what| wrong(&what))?;
            if summary.cell != frame.head.cell {
                return Err(wrong("a result in the frame of another cell"));
            }
            cells.insert(summary.cell, summary);
        }
        Kind::Index | Kind::Footer => {}
        Kind::Unknown(_) => scan.index.unknown.push(reference),
    }
    Ok(())
}

/// The entries of a chunk.
pub(crate) fn decode_chunk(at: u64, frame: &Frame, major: u16) -> Result<Vec<Entry>, ReadError> {
    chunk::read(&frame.content, frame.head.cell, major).map_err(|what| ReadError::Content { at, what })
}

type Validator<'a> = rkyv::api::high::HighValidator<'a, rkyv::rancor::Error>;
type Unarchiver = rkyv::api::high::HighDeserializer<rkyv::rancor::Error>;

pub(crate) fn unarchive<T>(bytes: &[u8]) -> Result<T, String>
where
    T: rkyv::Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<Validator<'a>> + rkyv::Deserialize<T, Unarchiver>,
{
    let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    rkyv::from_bytes::<T, rkyv::rancor::Error>(&aligned).map_err(|e| e.to_string())
}

/// Edit distance, for "the nearest name is".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(256).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(256).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Fuzz entry point: any bytes open to a valid prefix or one clear error, and everything
/// that opens can be asked for without a panic.
pub fn fuzz_one(bytes: &[u8]) {
    let Ok(bundle) = Bundle::from_bytes(bytes.to_vec()) else { return };
    let _ = bundle.run_entries();
    let _ = bundle.files();
    for cell in bundle.cells() {
        let _ = bundle.entries(cell.cell);
    }
    let _ = bundle.verify();
}
