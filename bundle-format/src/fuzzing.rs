//! What the fuzz targets in `testdata/fuzz` ask of this crate.
//!
//! Contract: each function takes any bytes, puts them where a hostile file would have them (behind
//! right checksums, or no fuzzer would ever get past those), and panics where something does not
//! hold. They go through the same doors as the commands, and nothing else calls them but tests.

use crate::canonical::{self, Policy};
use crate::chunk;
use crate::dictionary::{self, Dictionaries};
use crate::event::{Body, CellStarted, Ending, Entry, Output, Payload, Phase, StoredFile};
use crate::extract::extract;
use crate::frame::{self, HEAD, Head, Kind, TAIL};
use crate::index::{BlobRef, CellSummary, FOOTER_RAW, FOOTER_TOTAL, Footer, FrameRef, Index};
use crate::limits;
use crate::reader::{Bundle, Source};
use crate::version::{HEADER_LEN, Header, MAGIC};
use crate::{Blame, Redactor, Value, Verdict, check, writer};
use std::path::Path;
use std::sync::LazyLock;

/// A file of these frames, without index and footer.
fn frames(all: &[(Kind, u32, &[u8])]) -> Vec<u8> {
    let mut out = Header::new([1; 16], [2; 16]).encode().to_vec();
    for (kind, cell, content) in all {
        // What is longer than the format allows is not in the file.
        out.extend(frame::encode(*kind, *cell, content, 1).unwrap_or_default());
    }
    out
}

/// A file made a finished one by this index.
fn finished(mut file: Vec<u8>, index: &[u8]) -> Vec<u8> {
    let at = file.len() as u64;
    let frame = frame::encode(Kind::Index, 0, index, 1).unwrap_or_default();
    file.extend_from_slice(&frame);
    let footer = Footer {
        index_offset: at,
        index_total: frame.len() as u64,
        entries: 2,
        cells: 1,
        digest: *blake3::hash(&file).as_bytes(),
    };
    file.extend(frame::encode(Kind::Footer, 0, &footer.encode(), 1).unwrap_or_default());
    file
}

fn archive<T>(value: &T) -> Vec<u8>
where
    T: for<'a> rkyv::Serialize<
            rkyv::api::high::HighSerializer<
                rkyv::util::AlignedVec,
                rkyv::ser::allocator::ArenaHandle<'a>,
                rkyv::rancor::Error,
            >,
        >,
{
    rkyv::to_bytes::<rkyv::rancor::Error>(value).map(|bytes| bytes.to_vec()).unwrap_or_default()
}

fn entry(seq: u64, body: Body) -> Entry {
    Entry {
        seq,
        at_ns: seq * 1000,
        cell: 1,
        phase: Phase::Scenario,
        actor: "faultbox".into(),
        stream: "cell".to_owned(),
        ordinal: seq,
        cause: None,
        body,
    }
}

/// Any bytes as a file, as they are and with every checksum put right.
pub fn container(bytes: &[u8]) {
    for file in [bytes.to_vec(), repaired(bytes)] {
        if let Ok(bundle) = Bundle::from_bytes(file) {
            everything(&bundle);
        }
    }
}

/// Asks a bundle for all that it has.
fn everything(bundle: &Bundle) {
    let _ = bundle.run_entries();
    for file in bundle.files().unwrap_or_default() {
        assert!(check::safe_path(&file.path), "{:?} could leave its folder", file.path);
        let _ = bundle.file(&file.path);
    }
    let whole = bundle.verify().is_ok();
    assert!(!whole || bundle.is_complete(), "what has no footer is not whole");
    for cell in bundle.cells() {
        let entries = bundle.entries(cell.cell);
        assert!(!whole || entries.is_ok(), "what is whole can be read");
        for entry in entries.unwrap_or_default() {
            assert_eq!(entry.cell, cell.cell);
        }
    }
}

/// The same bytes with magic number, version and every checksum as they ought to be.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut out = Header::new([1; 16], [2; 16]).encode().to_vec();
    if bytes.starts_with(&MAGIC) {
        out.extend_from_slice(bytes.get(HEADER_LEN..).unwrap_or_default());
    } else {
        out.extend_from_slice(bytes);
    }
    let mut at = HEADER_LEN;
    while let Some(head) = out.get(at..).and_then(|rest| rest.first_chunk::<HEAD>()) {
        let left = out.len() - at;
        let len = Head::decode(head).len as usize;
        let Some(end) = len.checked_add(HEAD + TAIL).filter(|total| *total <= left).map(|total| at + total)
        else {
            break;
        };
        let crc = crc32c::crc32c(out.get(at..end - TAIL).unwrap_or_default());
        let len = (len as u32).to_le_bytes();
        for (place, byte) in (end - TAIL..end).zip(crc.to_le_bytes().into_iter().chain(len)) {
            if let Some(there) = out.get_mut(place) {
                *there = byte;
            }
        }
        at = end;
    }
    out
}

/// Any bytes as the number of a cell and the content of a chunk of it: what reads is written and read
/// again, is put into canonical form, and loses its secrets once and for all.
pub fn chunk(bytes: &[u8]) {
    let Some((cell, content)) = bytes.split_first() else { return };
    let cell = u32::from(*cell);
    let Some(entries) = chunk_of(cell, content) else { return };
    let again = chunk_of(cell, &chunk::content(&entries));
    assert_eq!(again.as_ref(), Some(&entries), "entries do not survive their encoding");
    for policy in [Policy::Default, Policy::Strict] {
        let _ = canonical::of_cell(&entries, 0, policy);
    }
    for mut entry in entries {
        REDACTOR.entry(&mut entry);
        let once = entry.clone();
        REDACTOR.entry(&mut entry);
        assert_eq!(entry, once, "a token was redacted again");
    }
}

fn chunk_of(cell: u32, content: &[u8]) -> Option<Vec<Entry>> {
    let bundle = Bundle::from_bytes(frames(&[(Kind::Chunk, cell, content)])).ok()?;
    if bundle.index().chunks.is_empty() {
        assert!(bundle.damage().is_some(), "a chunk that is not there is damage");
        return None;
    }
    let entries = bundle.raw_entries(cell).ok();
    assert!(entries.is_some(), "what a scan took cannot be read");
    entries
}

/// Any bytes as chunks that are compressed with the dictionaries of earlier ones: for each a length, how many
/// frames back the other one is (0: none), and how much farther back it is said to be than it is. What was
/// compressed with a dictionary that may be one reads back, and nothing reads otherwise because of what was
/// read before it.
pub fn based(bytes: &[u8]) {
    let mut file = Header::new([1; 16], [2; 16]).encode().to_vec();
    let mut placed: Vec<Based> = Vec::new();
    let mut rest = bytes;
    while let Some((&[len, repeats, back, astray], after)) = rest.split_first_chunk() {
        let (part, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        let other = usize::from(back).checked_sub(1).and_then(|back| placed.iter().rev().nth(back));
        let content = part.repeat(1 + usize::from(repeats));
        let (one, stored) = Based::new(file.len() as u64, content, other, u64::from(astray));
        placed.push(one);
        file.extend(stored);
    }
    let source = Source::Bytes(file.clone());
    let kept = Dictionaries::default();
    for one in placed.iter().chain(placed.iter().rev()) {
        let read = |dictionaries: &Dictionaries| {
            let bytes = dictionary::whole(&source, one.at)?;
            frame::decode_with(&bytes, |distance| dictionaries.of(&source, one.at, distance))
        };
        let content = read(&Dictionaries::default()).map(|frame| frame.content);
        assert_eq!(read(&kept).map(|frame| frame.content), content, "at {}: not as before", one.at);
        assert!(!one.reads || content.as_ref() == Ok(&one.content), "at {}: {content:?}", one.at);
    }
    if let Ok(bundle) = Bundle::from_bytes(file) {
        everything(&bundle);
    }
}

/// A frame that [`based`] wrote.
struct Based {
    at: u64,
    content: Vec<u8>,
    /// It reads as that.
    reads: bool,
    /// It may be a dictionary, of so many frames.
    frames: Option<usize>,
    /// What that dictionary is.
    all: Vec<u8>,
}

impl Based {
    /// A frame at `at` with the dictionary of another one, and its bytes.
    fn new(at: u64, content: Vec<u8>, other: Option<&Based>, astray: u64) -> (Self, Vec<u8>) {
        let mut encoder = frame::Encoder::new(1).expect("1 is a level");
        let other = other.filter(|other| {
            let said = other.at.saturating_sub(astray);
            // What zstd takes for another kind of dictionary is none.
            other.all.len() <= limits::DICTIONARY_MAX && encoder.set_dictionary(said, &other.all, 1).is_ok()
        });
        let stored = encoder.encode(Kind::Chunk, 1, &content, Some(at));
        let stored = stored.map(<[u8]>::to_vec).expect("no content is too long");
        let uses = stored.get(frame::CODEC_AT) == Some(&frame::CODEC_BASED);
        let (before, of) = match other.filter(|_| uses) {
            Some(other) => (other.all.as_slice(), other.frames.filter(|_| astray == 0)),
            None => (&[][..], Some(0)),
        };
        let all = [before, &content].concat();
        let frames = of.map(|frames| frames + 1);
        let frames =
            frames.filter(|frames| *frames <= limits::DICTIONARY_FRAMES_MAX && dictionary::fits(&all));
        (Based { at, content, reads: of.is_some(), frames, all }, stored)
    }
}

/// Any bytes as the number of a cell and the content of its end.
pub fn cell_end(bytes: &[u8]) {
    let Some((cell, content)) = bytes.split_first() else { return };
    let cell = u32::from(*cell);
    let Some(summary) = cell_end_of(cell, content) else { return };
    assert_eq!(summary.cell, cell);
    let again = cell_end_of(cell, &archive(&summary));
    assert_eq!(again, Some(summary), "a result does not survive its encoding");
}

fn cell_end_of(cell: u32, content: &[u8]) -> Option<CellSummary> {
    let bundle = Bundle::from_bytes(frames(&[(Kind::CellEnd, cell, content)])).ok()?;
    let summary = bundle.cells().first().cloned();
    assert!(summary.is_some() != bundle.damage().is_some(), "a result that is not there is damage");
    summary
}

/// Any bytes as the index of a file that is whole otherwise.
pub fn index(bytes: &[u8]) {
    let Ok(bundle) = Bundle::from_bytes(finished(BODY.0.clone(), bytes)) else { return };
    everything(&bundle);
    if bundle.verify().is_ok() {
        assert_eq!(*bundle.index(), BODY.1, "a wrong index verifies");
    }
}

/// The index that [`index`] takes for the right one, encoded.
pub fn right_index() -> Vec<u8> {
    archive(&BODY.1)
}

/// A bundle's frames as they are before they are compressed, for fuzzers to change: their checksums
/// are put right by [`container`].
///
/// # Errors
/// When a chunk or a payload cannot be read.
pub fn uncompressed(bundle: &Bundle) -> Result<Vec<u8>, crate::ReadError> {
    let mut out = Header::new([1; 16], [2; 16]).encode().to_vec();
    let mut put = |kind: Kind, cell: u32, content: &[u8]| {
        let len = content.len() as u32;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&kind.number().to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&cell.to_le_bytes());
        out.extend_from_slice(content);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&len.to_le_bytes());
    };
    for blob in &bundle.index().blobs {
        put(Kind::Blob, 0, &[&blob.hash[..], &bundle.blob(&blob.hash)?].concat());
    }
    let cells: std::collections::BTreeSet<u32> =
        bundle.index().chunks.iter().map(|chunk| chunk.frame.cell).collect();
    for cell in cells {
        put(Kind::Chunk, cell, &chunk::content(&bundle.raw_entries(cell)?));
    }
    Ok(repaired(&out))
}

/// A small file without index and footer, and the index that it ought to have.
static BODY: LazyLock<(Vec<u8>, Index)> = LazyLock::new(|| {
    let payload = [0x5a; 2500];
    let hash = *blake3::hash(&payload).as_bytes();
    let summary = summary();
    let started = CellStarted {
        name: summary.name.clone(),
        scenario: summary.scenario.clone(),
        assumption: summary.assumption.clone(),
        expectation: summary.expectation.clone(),
    };
    let signed = crate::Signed { service: "auth".to_owned(), claims: Payload::Blob { hash, len: 2500 } };
    let entries = vec![entry(0, Body::CellStarted(started)), entry(1, Body::Signed(signed))];
    let blob = [&hash[..], &payload].concat();
    let content = chunk::content(&entries);
    let parts: [(Kind, u32, &[u8]); 3] =
        [(Kind::Blob, 0, &blob), (Kind::Chunk, 1, &content), (Kind::CellEnd, 1, &archive(&summary))];
    let mut places = Vec::new();
    for (upto, (kind, cell, _)) in parts.iter().enumerate() {
        let (offset, end) = (frames(&parts[..upto]).len() as u64, frames(&parts[..=upto]).len() as u64);
        places.push(FrameRef { offset, total: end - offset, kind: kind.number(), cell: *cell });
    }
    let index = Index {
        chunks: vec![writer::chunk_ref(places[1], &entries)],
        blobs: vec![BlobRef { hash, frame: places[0] }],
        cells: vec![summary],
        unknown: Vec::new(),
    };
    (frames(&parts), index)
});

fn summary() -> CellSummary {
    CellSummary {
        cell: 1,
        name: "matrix_probe_slow".to_owned(),
        scenario: "probe".to_owned(),
        assumption: Some("slow".to_owned()),
        expectation: "expect_success()".to_owned(),
        verdict: Some(Verdict {
            ending: Ending::Violated,
            reason: "expect_success: status_code=503 (want < 500)".to_owned(),
            blame: Blame::ServiceUnderTest,
            fired: Vec::new(),
            unreached: false,
            scenario_ns: 1,
            cell_ns: 2,
            digest: [0; 32],
        }),
    }
}

/// Any bytes as the footer of a file that is whole otherwise, and as the header of one.
pub fn ends(bytes: &[u8]) {
    let mut file = finished(BODY.0.clone(), &archive(&BODY.1));
    let footer = bytes.iter().copied().chain(std::iter::repeat(0)).take(FOOTER_RAW).collect::<Vec<_>>();
    file.truncate(file.len() - FOOTER_TOTAL);
    file.extend(frame::encode(Kind::Footer, 0, &footer, 1).unwrap_or_default());
    if let Ok(bundle) = Bundle::from_bytes(file) {
        everything(&bundle);
    }
    let mut header: Vec<u8> = bytes.iter().copied().chain(std::iter::repeat(0)).take(60).collect();
    header.splice(..MAGIC.len(), MAGIC);
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    if let Ok(header) = Header::decode(&header) {
        assert_eq!(
            Header::decode(&header.encode()).ok(),
            Some(header),
            "a header does not survive its encoding"
        );
    }
}

/// Any bytes as an encoded value.
pub fn value(bytes: &[u8]) {
    let Ok(value) = Value::decode(bytes) else { return };
    let encoded = value.encode();
    // Compared encoded: there are numbers that do not equal themselves.
    let again = Value::decode(&encoded).map(|value| value.encode());
    assert_eq!(again.as_ref(), Ok(&encoded), "a value does not survive its encoding");
    let once = REDACTOR.value(&value);
    assert_eq!(REDACTOR.value(&once).encode(), once.encode(), "a token was redacted again");
    let _ = REDACTOR.restore(&once);
    let _ = value.stable();
}

/// What the fuzzed redactor knows.
const KNOWN: &str = "correct horse/7";

static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| {
    Redactor::new(&[2; 16], [("API".to_owned(), KNOWN.to_owned()), ("B".to_owned(), "battery1".to_owned())])
});

/// Any bytes as text and as bytes with secrets in them: none is left, and tokens stay as they are.
pub fn secrets(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let once = REDACTOR.text(&text).into_owned();
    assert!(!once.contains(KNOWN), "a known secret is left in {once:?}");
    assert_eq!(REDACTOR.text(&once), once, "a token was redacted again");
    let once = REDACTOR.bytes(bytes);
    assert!(!once.windows(KNOWN.len()).any(|window| window == KNOWN.as_bytes()), "a known secret is left");
    assert_eq!(REDACTOR.bytes(&once), once, "a token was redacted again");
    for name in ["authorization", "cookie", "set-cookie", "password", "body"] {
        let once = REDACTOR.value(&Value::map([(name, Value::text(text.clone()))]));
        assert_eq!(REDACTOR.value(&once), once, "a token was redacted again");
    }
}

/// Any bytes as names and contents, laid out in `outer/laid-out`: nothing else in `outer` is touched,
/// and what is said to be written is there.
pub fn extraction(bytes: &[u8], outer: &Path) {
    let (mut files, mut cell) = (Vec::new(), vec![Body::CellStarted(started("test_one"))]);
    // Records: what it is, then three texts, each to a newline.
    let mut rest = bytes.split(|byte| *byte == b'\n');
    while let (Some(what), Some(a), Some(b)) = (rest.next(), rest.next(), rest.next()) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match what.first().copied().unwrap_or_default() % 4 {
            0 => cell = vec![Body::CellStarted(started(&text(a)))],
            1 => cell.push(Body::Output(Output {
                service: text(a),
                stderr: b.len() % 2 == 0,
                bytes: b.to_vec(),
            })),
            kind => {
                let stored = StoredFile {
                    path: text(a),
                    role: if kind == 2 { "spec" } else { "binary" }.to_owned(),
                    service: text(b),
                    digest: *blake3::hash(b).as_bytes(),
                    content: Some(Payload::Inline(b.to_vec())),
                };
                files.push(stored);
            }
        }
    }
    let of_run =
        |(seq, file): (usize, &StoredFile)| Entry { cell: 0, ..entry(seq as u64, Body::File(file.clone())) };
    let refused = |file: &StoredFile| {
        let content = chunk::content(&[of_run((0, file))]);
        Bundle::from_bytes(frames(&[(Kind::Chunk, 0, &content)]))
            .is_ok_and(|bundle| bundle.damage().is_some())
    };
    files.retain(|file| {
        assert_eq!(refused(file), !check::safe_path(&file.path), "{:?}", file.path);
        check::safe_path(&file.path)
    });
    let run: Vec<Entry> = files.iter().enumerate().map(of_run).collect();
    let cell: Vec<Entry> = cell.into_iter().enumerate().map(|(seq, body)| entry(seq as u64, body)).collect();
    let mut parts = Vec::new();
    let (run, cell) = (chunk::content(&run), chunk::content(&cell));
    if !files.is_empty() {
        parts.push((Kind::Chunk, 0, run.as_slice()));
    }
    parts.push((Kind::Chunk, 1, cell.as_slice()));
    let Ok(bundle) = Bundle::from_bytes(frames(&parts)) else { return };
    let folder = outer.join("laid-out");
    let written = extract(&bundle, &folder).unwrap_or_else(|error| panic!("{error}"));
    let names = std::fs::read_dir(outer)
        .map(|all| all.filter_map(Result::ok).map(|e| e.file_name()).collect::<Vec<_>>());
    assert_eq!(names.unwrap_or_default(), vec![std::ffi::OsString::from("laid-out")], "something is outside");
    for path in &written {
        let plain = |part| matches!(part, std::path::Component::Normal(_));
        assert!(path.components().all(plain), "{}", path.display());
        let meta = std::fs::symlink_metadata(folder.join(path));
        assert!(meta.is_ok_and(|meta| meta.is_file()), "{} is not there", path.display());
    }
    let contents = |role: &str| files.iter().filter(|file| file.role == role).count();
    let below = |name: &str| written.iter().filter(|path| path.starts_with(name)).count();
    assert_eq!((contents("spec"), contents("binary")), (below("files"), below("bin")), "a file was lost");
}

fn started(name: &str) -> CellStarted {
    CellStarted {
        name: name.to_owned(),
        scenario: String::new(),
        assumption: None,
        expectation: String::new(),
    }
}
