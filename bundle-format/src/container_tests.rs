//! Goal: a bundle reads back as it was written, and no damage is ever read as something
//! else. Method: a small bundle in a temporary folder, then every prefix and every flipped
//! bit of it.

use crate::index::ChunkRef;
use crate::reader::{Bundle, fuzz_one};
use crate::*;
use proptest::prelude::*;
use std::path::Path;

fn entry(seq: u64, cell: u32, stream: &str, body: Body) -> Entry {
    Entry {
        seq,
        at_ns: seq * 1000,
        cell,
        phase: if cell == 0 { Phase::Run } else { Phase::Scenario },
        actor: "test".into(),
        stream: stream.to_owned(),
        ordinal: seq,
        cause: None,
        body,
    }
}

fn file(path: &str, content: &[u8]) -> Body {
    Body::File(StoredFile {
        path: path.to_owned(),
        role: "spec".to_owned(),
        service: String::new(),
        digest: *blake3::hash(content).as_bytes(),
        content: Some(Payload::Inline(content.to_vec())),
    })
}

fn cell_started(name: &str) -> Body {
    Body::CellStarted(CellStarted {
        name: name.to_owned(),
        scenario: name.to_owned(),
        assumption: None,
        expectation: String::new(),
    })
}

fn verdict(ending: Ending) -> Body {
    Body::Verdict(Verdict {
        ending,
        reason: String::new(),
        blame: Blame::None,
        fired: Vec::new(),
        unreached: false,
        scenario_ns: 1,
        cell_ns: 2,
        digest: [3; 32],
    })
}

fn output(bytes: &[u8]) -> Body {
    Body::Output(Output { service: "api".to_owned(), stderr: true, bytes: bytes.to_vec() })
}

fn signed(bytes: Vec<u8>) -> Body {
    Body::Signed(Signed { service: "auth".to_owned(), claims: Payload::Inline(bytes) })
}

/// A run of two cells with a large payload in each, as it lies on the disk.
fn small(folder: &Path) -> (Vec<Entry>, Vec<u8>) {
    let path = folder.join("small.fb");
    let mut writer = BundleWriter::create(&path, Header::new([1; 16], [2; 16])).unwrap();
    let large: Vec<u8> = (0..2500u32).map(|n| (n % 7) as u8).collect();
    let entries = vec![
        entry(0, 0, "run", file("specs/a.star", b"service()")),
        entry(1, 1, "cell", cell_started("test_one")),
        entry(2, 1, "signed", signed(large.clone())),
        entry(3, 2, "cell", cell_started("test_two")),
        entry(4, 2, "signed", signed(large)),
        entry(5, 1, "cell", verdict(Ending::Passed)),
        entry(6, 2, "cell", verdict(Ending::Failed)),
        entry(7, 1, "out", output(b"late")),
    ];
    entries.iter().for_each(|entry| writer.append(entry).unwrap());
    let path = writer.finish().unwrap();
    let bytes = std::fs::read(path).unwrap();
    (entries, bytes)
}

/// What a bundle says, cell by cell; errors by their words.
fn read(bundle: &Bundle) -> Vec<Result<Vec<Entry>, String>> {
    (0..=2).map(|cell| bundle.entries(cell).map_err(|e| e.to_string())).collect()
}

#[test]
fn a_bundle_reads_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (entries, bytes) = small(folder.path());
    let bundle = Bundle::open(&folder.path().join("small.fb")).unwrap();
    assert!(bundle.is_complete() && bundle.damage().is_none());
    for cell in 0..=2 {
        let written: Vec<Entry> = entries.iter().filter(|e| e.cell == cell).cloned().collect();
        assert_eq!(bundle.entries(cell).unwrap(), written);
    }
    let names: Vec<&str> = bundle.cells().iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["test_one", "test_two"]);
    assert!(bundle.cells()[0].passed() && !bundle.cells()[1].passed());
    assert_eq!(bundle.file("specs/a.star").unwrap().unwrap(), b"service()");
    assert_eq!(bundle.index().blobs.len(), 1, "equal payloads are stored once");
    assert_eq!(bundle.verify().unwrap().entries, 8);
    let wrong = bundle.cell("test_on").unwrap_err().to_string();
    assert!(wrong.contains("test_one"), "{wrong}");
    assert!(!folder.path().join("small.fb.partial").exists());
    assert_eq!(Bundle::from_bytes(bytes).unwrap().verify().unwrap(), bundle.verify().unwrap());
}

#[test]
fn every_prefix_is_a_valid_prefix_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (entries, bytes) = small(folder.path());
    for len in 0..bytes.len() {
        let Ok(bundle) = Bundle::from_bytes(bytes[..len].to_vec()) else {
            assert!(len < version::HEADER_LEN, "a prefix of {len} bytes does not open");
            continue;
        };
        assert!(!bundle.is_complete(), "a prefix of {len} bytes says that it is complete");
        for cell in 0..=2 {
            // A payload is written before the chunk that refers to it.
            let read = bundle.entries(cell).unwrap();
            let written: Vec<Entry> = entries.iter().filter(|e| e.cell == cell).cloned().collect();
            assert!(written.starts_with(&read), "a prefix of {len} bytes reads as something else");
        }
        assert!(bundle.verify().is_err());
    }
}

#[test]
fn every_flipped_bit_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (entries, bytes) = small(folder.path());
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fuzz_one(&damaged);
        let Ok(bundle) = Bundle::from_bytes(damaged) else { continue };
        assert!(bundle.verify().is_err(), "a flip of bit {bit} verifies");
        for (cell, read) in read(&bundle).into_iter().enumerate() {
            let written: Vec<Entry> = entries.iter().filter(|e| e.cell == cell as u32).cloned().collect();
            if let Ok(read) = read {
                let whole = bundle.is_complete() && read == written;
                let prefix = !bundle.is_complete() && written.starts_with(&read);
                assert!(whole || prefix, "a flip of bit {bit} reads as something else");
            }
        }
    }
}

#[test]
fn what_follows_the_footer_is_not_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut bytes) = small(folder.path());
    bytes.extend_from_slice(&[0; 16]);
    let bundle = Bundle::from_bytes(bytes).unwrap();
    assert!(!bundle.is_complete());
    assert_eq!(bundle.damage().unwrap().lost, 16);
}

#[test]
fn frames_of_unknown_kinds_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (_, bytes) = small(folder.path());
    let mut newer = bytes[..version::HEADER_LEN].to_vec();
    newer.extend(frame::encode(frame::Kind::Unknown(77), 0, b"from the future", 1).unwrap());
    newer.extend_from_slice(&bytes[version::HEADER_LEN..]);
    let bundle = Bundle::from_bytes(newer).unwrap();
    assert_eq!(bundle.index().unknown.len(), 1);
    assert_eq!(bundle.index().unknown[0].kind, 77);
    assert_eq!(bundle.cells().len(), 2);
}

#[test]
fn what_is_whole_is_recovered_and_what_is_not_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (entries, bytes) = small(dir.path());
    let damaged = dir.path().join("damaged.fb");
    let recover = |bytes: &[u8], name: &str| {
        std::fs::write(&damaged, bytes).unwrap();
        let recovered = crate::recover::recover(&damaged, &dir.path().join(name)).unwrap();
        let bundle = Bundle::open(&recovered.path).unwrap();
        assert_eq!(bundle.verify().is_ok(), recovered.missing_payloads == 0);
        (recovered, bundle)
    };
    let (whole, bundle) = recover(&bytes, "whole.fb");
    assert!(whole.is_lossless() && whole.entries == entries.len() as u64);
    assert_eq!(bundle.verify().unwrap().entries, entries.len() as u64);
    // Cut off in the middle of the footer: nothing but the ending is lost.
    let (cut, bundle) = recover(&bytes[..bytes.len() - 10], "cut.fb");
    assert!(!cut.was_complete && cut.entries == entries.len() as u64 && bundle.is_complete());
    assert_eq!(cut.damages.len(), 1);
    // One byte of each frame in turn: all the other frames are kept, but for those that are compressed with it.
    let index = Bundle::from_bytes(bytes.clone()).unwrap().index().clone();
    for (number, chunk) in index.chunks.iter().enumerate() {
        let mut flipped = bytes.clone();
        flipped[chunk.frame.offset as usize + 20] ^= 1;
        let (recovered, bundle) = recover(&flipped, &format!("chunk{number}.fb"));
        let based =
            |chunk: &&ChunkRef| bytes[chunk.frame.offset as usize + frame::CODEC_AT] == frame::CODEC_BASED;
        let lost: Vec<&ChunkRef> = index.chunks[number + 1..].iter().filter(based).chain([chunk]).collect();
        let gone: u64 = lost.iter().map(|chunk| u64::from(chunk.entries)).sum();
        assert_eq!(recovered.entries, entries.len() as u64 - gone, "{recovered:?}");
        assert_eq!(recovered.damages.len(), lost.len());
        assert_eq!(recovered.damages[0].lost, chunk.frame.total);
        assert!(bundle.is_complete() && !recovered.is_lossless() && recovered.was_complete);
    }
    for (number, blob) in index.blobs.iter().enumerate() {
        let mut flipped = bytes.clone();
        flipped[blob.frame.offset as usize + 30] ^= 1;
        let (recovered, _) = recover(&flipped, &format!("blob{number}.fb"));
        assert_eq!((recovered.entries, recovered.missing_payloads), (entries.len() as u64, 1));
    }
}

#[test]
fn cells_that_repeat_each_other_are_compressed_with_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cells.fb");
    let mut writer = BundleWriter::create(&path, Header::new([1; 16], [2; 16])).unwrap();
    let mut entries = Vec::new();
    for cell in 1..=600u32 {
        let name = format!("matrix_probe_{cell}");
        let bodies =
            [cell_started(&name), output(format!("{cell} times\n").as_bytes()), verdict(Ending::Passed)];
        for (seq, body) in bodies.into_iter().enumerate() {
            entries.push(entry(u64::from(cell) * 10 + seq as u64, cell, "cell", body));
        }
    }
    entries.iter().for_each(|entry| writer.append(entry).unwrap());
    let path = writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let bundle = Bundle::open(&path).unwrap();
    bundle.verify().unwrap();
    let alone = |chunk: &ChunkRef| bytes[chunk.frame.offset as usize + frame::CODEC_AT] != frame::CODEC_BASED;
    let alone: Vec<usize> = bundle
        .index()
        .chunks
        .iter()
        .enumerate()
        .filter(|(_, chunk)| alone(chunk))
        .map(|(at, _)| at)
        .collect();
    assert_eq!(alone, [0, 256, 512], "a dictionary begins where one has had its users");
    for cell in [1, 2, 33, 34, 256, 257, 600] {
        let written: Vec<Entry> = entries.iter().filter(|entry| entry.cell == cell).cloned().collect();
        // Opened anew: nothing is known of other frames.
        assert_eq!(Bundle::open(&path).unwrap().entries(cell).unwrap(), written);
    }
    // Damage to the first reaches as far as its dictionary is used.
    let mut flipped = bytes.clone();
    flipped[bundle.index().chunks[0].frame.offset as usize + 20] ^= 1;
    let damaged = Bundle::from_bytes(flipped).unwrap();
    assert!(damaged.entries(256).unwrap_err().to_string().contains("an earlier frame"));
    assert_eq!(damaged.entries(257).unwrap(), bundle.entries(257).unwrap());
}

#[test]
fn what_does_not_get_shorter_is_no_part_of_a_dictionary() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise.fb");
    let mut writer = BundleWriter::create(&path, Header::new([1; 16], [2; 16])).unwrap();
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut entries = Vec::new();
    for cell in 1..=40u32 {
        let mut bytes = vec![b'a'; 1900];
        if cell % 3 == 0 {
            noise.fill(&mut bytes);
        }
        for (seq, body) in
            [cell_started("a"), output(&bytes), verdict(Ending::Passed)].into_iter().enumerate()
        {
            entries.push(entry(u64::from(cell) * 10 + seq as u64, cell, "cell", body));
        }
    }
    entries.iter().for_each(|entry| writer.append(entry).unwrap());
    let bundle = Bundle::open(&writer.finish().unwrap()).unwrap();
    bundle.verify().unwrap();
    for cell in 1..=40 {
        let written: Vec<Entry> = entries.iter().filter(|entry| entry.cell == cell).cloned().collect();
        assert_eq!(bundle.entries(cell).unwrap(), written);
    }
}

#[test]
fn a_frame_that_leads_nowhere_for_its_dictionary_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, bytes) = small(folder.path());
    let index = Bundle::from_bytes(bytes.clone()).unwrap().index().clone();
    let based = index
        .chunks
        .iter()
        .find(|c| bytes[c.frame.offset as usize + frame::CODEC_AT] == frame::CODEC_BASED)
        .unwrap();
    let at = based.frame.offset as usize;
    let right = usize::from(bytes[at + frame::HEAD] & 0x7f) | usize::from(bytes[at + frame::HEAD + 1]) << 7;
    assert!((128..16_000).contains(&right) && right < at, "two bytes of distance");
    // Before the file, to its header, into the middle of a frame.
    for distance in [16_000, at, at - 10, right + 1] {
        let mut wrong = bytes.clone();
        wrong[at + frame::HEAD] = distance as u8 | 0x80;
        wrong[at + frame::HEAD + 1] = (distance >> 7) as u8;
        let end = at + based.frame.total as usize - frame::TAIL;
        let crc = crc32c::crc32c(&wrong[at..end]).to_le_bytes();
        wrong[end..end + 4].copy_from_slice(&crc);
        let refused = Bundle::from_bytes(wrong).unwrap().entries(based.frame.cell).unwrap_err().to_string();
        assert!(refused.contains("an earlier frame"), "{distance}: {refused}");
    }
}

#[test]
fn a_failed_write_poisons_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.fb");
    let mut writer = BundleWriter::create(&path, Header::new([1; 16], [2; 16])).unwrap();
    let huge = entry(0, 0, "out", output(&vec![0; limits::ENTRY_MAX + 1]));
    assert!(matches!(writer.append(&huge), Err(WriteError::TooLarge { .. })));
    let fine = entry(1, 0, "out", output(b"x"));
    assert!(matches!(writer.append(&fine), Err(WriteError::Poisoned)));
    assert!(matches!(writer.finish(), Err(WriteError::Poisoned)));
    assert!(!path.exists(), "a failed bundle must not look whole");
}

#[test]
fn an_unfinished_run_is_left_beside_its_name_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.fb");
    let header = Header::new([1; 16], [2; 16]);
    let mut first = BundleWriter::create(&path, header).unwrap();
    first.append(&entry(0, 1, "cell", cell_started("test_one"))).unwrap();
    first.flush().unwrap();
    let left = first.partial_path().to_owned();
    drop(first);
    BundleWriter::create(&path, header).unwrap().finish().unwrap();
    let crashed = Bundle::open(&left).unwrap();
    assert!(!crashed.is_complete());
    assert_eq!(crashed.cells()[0].name, "test_one");
    assert!(crashed.cells()[0].verdict.is_none());
}

#[test]
fn the_manifest_is_read_out_of_header_index_and_footer_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut bytes) = small(folder.path());
    let whole = Bundle::from_bytes(bytes.clone()).unwrap();
    let footer = bytes.len() - index::FOOTER_TOTAL;
    let index_at = u64::from_le_bytes(*bytes[footer + frame::HEAD..].first_chunk().unwrap()) as usize;
    bytes[version::HEADER_LEN..index_at].fill(0xaa);
    let path = folder.path().join("blank.fb");
    std::fs::write(&path, bytes).unwrap();
    let blank = Bundle::open(&path).unwrap();
    assert!(blank.is_complete());
    assert_eq!((blank.cells(), blank.index()), (whole.cells(), whole.index()));
    assert_eq!((blank.digest(), blank.entry_count()), (whole.digest(), 8));
    assert!(blank.entries(1).is_err() && blank.verify().is_err());
}

#[test]
fn equal_content_is_stored_once_whatever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let content = b"a body, an executable and a file of the spec ".repeat(100);
    let binary = Body::File(StoredFile {
        path: "bin/api".to_owned(),
        role: "binary".to_owned(),
        service: "api".to_owned(),
        digest: *blake3::hash(&content).as_bytes(),
        content: Some(Payload::Inline(content.clone())),
    });
    let path = folder.path().join("once.fb");
    let mut writer = BundleWriter::create(&path, Header::new([1; 16], [2; 16])).unwrap();
    let bodies = [file("specs/a.star", &content), binary, signed(content.clone()), signed(content.clone())];
    for (seq, (cell, body)) in [0, 0, 2, 3].into_iter().zip(bodies).enumerate() {
        writer.append(&entry(seq as u64, cell, "s", body)).unwrap();
    }
    let bundle = Bundle::open(&writer.finish().unwrap()).unwrap();
    bundle.verify().unwrap();
    assert_eq!(bundle.index().blobs.len(), 1);
    assert_eq!(bundle.file("bin/api").unwrap().unwrap(), content);
    assert_eq!(bundle.entries(3).unwrap()[0].body, signed(content));
}

/// Holds an entry as the recorder does.
#[derive(Clone)]
struct Shared(std::sync::Arc<Entry>);

impl AsRef<Entry> for Shared {
    fn as_ref(&self) -> &Entry {
        &self.0
    }
}

impl From<Entry> for Shared {
    fn from(entry: Entry) -> Self {
        Shared(std::sync::Arc::new(entry))
    }
}

#[test]
fn shared_entries_are_written_as_owned_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (entries, bytes) = small(folder.path());
    let path = folder.path().join("shared.fb");
    let header = Header::new([1; 16], [2; 16]);
    let mut writer = BundleWriter::<Shared>::create_with(&path, header, writer::Tuning::default()).unwrap();
    let shared: Vec<Shared> = entries.iter().cloned().map(Shared::from).collect();
    shared.iter().for_each(|entry| writer.take(entry.clone()).unwrap());
    let written = std::fs::read(writer.finish().unwrap()).unwrap();
    assert!(written == bytes, "another file");
    let writer = BundleWriter::<Shared>::create_with(&path, header, writer::Tuning::default()).unwrap();
    let mut writer = writer.in_background().unwrap();
    shared.iter().for_each(|entry| writer.take(entry.clone()).unwrap());
    let written = std::fs::read(writer.finish().unwrap()).unwrap();
    assert!(written == bytes, "in the background it becomes another file");
    assert!(shared.iter().all(|entry| std::sync::Arc::strong_count(&entry.0) == 1), "let go of");
    assert!(shared.iter().zip(&entries).all(|(shared, entry)| *shared.0 == *entry), "and not changed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_entries_read_back(
        payloads in proptest::collection::vec((0u32..4, proptest::collection::vec(any::<u8>(), 0..3000)), 1..120)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.fb");
        let mut writer = BundleWriter::create(&path, Header::new([1; 16], [2; 16])).unwrap();
        let mut entries = Vec::new();
        for (seq, (cell, bytes)) in payloads.into_iter().enumerate() {
            let body = if bytes.len() % 2 == 0 { signed(bytes) } else { output(&bytes) };
            entries.push(entry(seq as u64, cell, "s", body));
        }
        entries.iter().for_each(|entry| writer.append(entry).unwrap());
        let bundle = Bundle::open(&writer.finish().unwrap()).unwrap();
        bundle.verify().unwrap();
        for cell in 0..4 {
            let written: Vec<Entry> = entries.iter().filter(|e| e.cell == cell).cloned().collect();
            prop_assert_eq!(bundle.entries(cell).unwrap(), written);
        }
    }

    #[test]
    fn any_bytes_after_a_header_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut file = Header::new([1; 16], [2; 16]).encode().to_vec();
        file.extend_from_slice(&bytes);
        fuzz_one(&file);
        fuzz_one(&bytes);
    }
}
