//! Goal: whatever a file holds, it reads to a valid prefix or is one clear error, and nothing leaves
//! the folder that it is laid out in. Method: a small bundle with an entry of every kind, each prefix
//! and each flipped bit of it, opened, verified, recovered and laid out; hostile files that are made
//! by hand; and the corpus of the fuzz targets, which is made here (`FAULTBOX_CORPUS=write`).

use crate::extract::extract;
use crate::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn text(word: &str) -> String {
    word.to_owned()
}

fn named(name: &str, value: &str) -> Named {
    Named { name: text(name), value: text(value) }
}

fn payload(bytes: usize) -> Payload {
    Payload::of(&Value::map([
        ("headers", Value::List(vec![Value::List(vec![Value::text("accept"), Value::text("*/*")])])),
        ("body", Value::Bytes((0..bytes).map(|n| (n % 251) as u8).collect())),
        ("id", Value::Int(-7).volatile()),
    ]))
}

fn verdict() -> Verdict {
    Verdict {
        ending: Ending::Violated,
        reason: text("expect_success: status_code=503 (want < 500)"),
        blame: Blame::ServiceUnderTest,
        fired: vec![FaultCount {
            assumption: text("slow"),
            index: 0,
            rule: text("delay(\"50ms\")"),
            target: text("db.main"),
            matched: 3,
            fired: 2,
        }],
        unreached: false,
        scenario_ns: 1,
        cell_ns: 2,
        digest: [3; 32],
    }
}

fn stored(path: &str, role: &str, service: &str, content: &[u8]) -> StoredFile {
    StoredFile {
        path: text(path),
        role: text(role),
        service: text(service),
        digest: *blake3::hash(content).as_bytes(),
        content: Some(Payload::Inline(content.to_vec())),
    }
}

fn hit() -> RuleHit {
    RuleHit { assumption: text("slow"), index: 0, action: text("delay 50ms") }
}

fn exchange() -> Exchange {
    Exchange {
        protocol: text("http").into(),
        source: text("api").into(),
        interface: text("users.main").into(),
        connection: 1,
        operation: text("GET /users").into(),
        key: text("GET /users"),
        class: Class::Work,
        mutating: false,
        repeatable: true,
        request: payload(3),
        outcome: Outcome::Answered,
        response: Some(payload(2500)),
        rule: Some(hit()),
        began_ns: 1,
        ended_ns: 2,
        began_seq: 3,
    }
}

fn of_the_run() -> Vec<(&'static str, Body)> {
    let started = RunStarted {
        seed: 1,
        seed_source: text("cli"),
        tool_version: text("0.1.0"),
        command: vec![text("test"), text("a.star")],
        unix_ns: 1_777_000_000_000_000_000,
        spec: text("a.star"),
    };
    vec![
        ("run_started", Body::RunStarted(started)),
        ("file", Body::File(stored("specs/a.star", "spec", "", b"service()"))),
        ("binary", Body::File(stored("bin/api", "binary", "api", &[0x7f; 2200]))),
        ("host_fact", Body::HostFact(named("kernel", "Linux 6.18"))),
        ("run_ended", Body::RunEnded(RunEnded { passed: 0, failed: 1, interrupted: false })),
    ]
}

fn of_the_cell() -> Vec<(&'static str, Body)> {
    let started = CellStarted {
        name: text("matrix_probe_slow"),
        scenario: text("probe"),
        assumption: Some(text("slow")),
        expectation: text("expect_success()"),
    };
    let window = FaultWindow {
        assumption: text("slow"),
        active: true,
        targets: vec![text("db.main")],
        rules: vec![text("delay(\"50ms\")")],
    };
    let service = ServiceStarted {
        service: text("api"),
        pid: 7,
        program: text("./bin/api"),
        digest: Some([5; 32]),
        args: vec![text("--verbose")],
        env: vec![named("DATABASE_URL", "mysql://root@db:3306/appdb")],
        isolated: true,
    };
    let exited = ServiceExited { service: text("api"), code: None, signal: Some(9), asked: true };
    let output =
        |stderr, line: &[u8]| Body::Output(Output { service: text("api"), stderr, bytes: line.to_vec() });
    let step = StepStarted {
        step: 0,
        interface: text("api.public"),
        verb: text("get"),
        arguments: payload(0),
        location: text("a.star:7"),
    };
    let decision = Decision {
        assumption: text("slow"),
        index: 0,
        key: text("GET /users"),
        source: text("api"),
        matched: 1,
        draw: 0,
        fired: true,
        on_sut: true,
    };
    let call = Syscall {
        service: text("db"),
        name: text("pwrite64"),
        family: text("write"),
        target: text("data/ibdata1"),
        action: text("deny EIO"),
        rule: Some(hit()),
        on_sut: false,
    };
    let assertion = Assertion { held: false, message: text("not so"), location: text("a.star:9") };
    vec![
        ("cell_started", Body::CellStarted(started)),
        ("addresses", Body::Addresses(vec![named("127.0.0.1:8080", "@api.public")])),
        ("phase_began", Body::PhaseBegan),
        ("fault_window", Body::FaultWindow(window)),
        ("service_started", Body::ServiceStarted(service)),
        ("service_ready", Body::ServiceReady(text("api"))),
        ("output", output(false, b"listening\nserv")),
        ("output_rest", output(false, b"ing\n")),
        ("output_stderr", output(true, b"\x1b[31mred\x07")),
        ("step_started", Body::StepStarted(step)),
        ("step_ended", Body::StepEnded(StepEnded { step: 0, response: payload(9) })),
        ("exchange", Body::Exchange(exchange())),
        ("decision", Body::Decision(decision)),
        ("syscall", Body::Syscall(call)),
        ("signed", Body::Signed(Signed { service: text("auth"), claims: payload(1) })),
        ("assertion", Body::Assertion(assertion)),
        ("service_exited", Body::ServiceExited(exited)),
        ("unknown", Body::Unknown(UnknownBody { kind: 99, bytes: vec![1, 2, 3] })),
        ("verdict", Body::Verdict(verdict())),
    ]
}

/// An entry of every kind, named.
fn every_kind() -> Vec<(&'static str, Entry)> {
    let run = of_the_run().into_iter().map(|(name, body)| (name, 0, body));
    let cell = of_the_cell().into_iter().map(|(name, body)| (name, 1, body));
    let entry = |(seq, (name, cell, body)): (usize, (&'static str, u32, Body))| {
        let entry = Entry {
            seq: seq as u64,
            at_ns: seq as u64 * 1_000_000,
            cell,
            phase: if cell == 0 { Phase::Run } else { Phase::Scenario },
            actor: text("faultbox").into(),
            stream: text("a stream with a name"),
            ordinal: seq as u64,
            cause: (seq % 2 == 0).then_some(seq as u64),
            body,
        };
        (name, entry)
    };
    run.chain(cell).enumerate().map(entry).collect()
}

/// All of them in one file.
fn bundle_of_every_kind(folder: &Path) -> (Vec<Entry>, Vec<u8>) {
    let entries: Vec<Entry> = every_kind().into_iter().map(|(_, entry)| entry).collect();
    let mut writer = BundleWriter::create(&folder.join("every.fb"), Header::new([1; 16], [2; 16])).unwrap();
    entries.iter().for_each(|entry| writer.append(entry).unwrap());
    (entries, std::fs::read(writer.finish().unwrap()).unwrap())
}

/// The entries of a cell, or the error in words.
type Read = Result<Vec<Entry>, String>;

/// Opens the bytes as every command does. What was read, cell by cell.
fn opened(bytes: &[u8]) -> Option<(bool, [Read; 2])> {
    let bundle = Bundle::from_bytes(bytes.to_vec()).ok()?;
    let read = [0, 1].map(|cell| bundle.entries(cell).map_err(|error| error.to_string()));
    Some((bundle.is_complete() && bundle.verify().is_ok(), read))
}

/// Lays the bytes out, or gets one clear error.
fn laid_out(bytes: &[u8], folder: &Path) {
    let Ok(bundle) = Bundle::from_bytes(bytes.to_vec()) else { return };
    if let Err(error) = extract(&bundle, folder) {
        assert!(!error.to_string().is_empty());
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Recovers the bytes, if they can be: what comes out is whole.
fn recovered(bytes: &[u8], folder: &Path) -> Option<recover::Recovered> {
    let (from, to) = (folder.join("damaged.fb"), folder.join("recovered.fb"));
    std::fs::write(&from, bytes).unwrap();
    let recovered = recover::recover(&from, &to).ok()?;
    let bundle = Bundle::open(&recovered.path).unwrap();
    assert!(bundle.is_complete());
    assert_eq!(bundle.verify().is_ok(), recovered.missing_payloads == 0);
    std::fs::remove_file(&recovered.path).unwrap();
    Some(recovered)
}

fn of_cells(entries: &[Entry]) -> [Vec<Entry>; 2] {
    [0, 1].map(|cell| entries.iter().filter(|entry| entry.cell == cell).cloned().collect())
}

#[test]
fn a_bundle_of_every_kind_cut_off_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (entries, bytes) = bundle_of_every_kind(dir.path());
    let written = of_cells(&entries);
    for len in 0..bytes.len() {
        let Some((whole, read)) = opened(&bytes[..len]) else {
            assert!(len < version::HEADER_LEN, "a prefix of {len} bytes does not open");
            continue;
        };
        assert!(!whole, "a prefix of {len} bytes says that it is whole");
        for (read, written) in read.iter().zip(&written) {
            let read = read.as_ref().unwrap_or_else(|error| panic!("{len} bytes: {error}"));
            assert!(written.starts_with(read), "a prefix of {len} bytes reads as something else");
        }
        if len % 16 != 0 {
            continue; // What follows writes files.
        }
        laid_out(&bytes[..len], &dir.path().join("out"));
        let recovered = recovered(&bytes[..len], dir.path()).unwrap();
        assert!(!recovered.is_lossless(), "nothing is missing from a prefix of {len} bytes");
        let read: usize = read.iter().flatten().map(Vec::len).sum();
        assert_eq!(recovered.entries, read as u64, "{len} bytes");
    }
}

#[test]
fn a_bundle_of_every_kind_with_every_bit_flipped() {
    let dir = tempfile::tempdir().unwrap();
    let (entries, bytes) = bundle_of_every_kind(dir.path());
    let written = of_cells(&entries);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let Some((whole, read)) = opened(&damaged) else { continue };
        assert!(!whole, "a flip of bit {bit} verifies");
        for (read, written) in read.iter().zip(&written) {
            if let Ok(read) = read {
                assert!(written.starts_with(read), "a flip of bit {bit} reads as something else");
            }
        }
        // What follows writes files; a flip in each eighth byte shows what it can meet.
        if bit % 67 != 0 {
            continue;
        }
        laid_out(&damaged, &dir.path().join("out"));
        if let Some(recovered) = recovered(&damaged, dir.path()) {
            assert!(!recovered.is_lossless() || bit / 8 >= bytes.len() - 200, "bit {bit}");
            assert!(recovered.entries <= entries.len() as u64);
        }
    }
}

/// A file of these frames.
fn file(frames: &[(frame::Kind, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = Header::new([1; 16], [2; 16]).encode().to_vec();
    for (kind, cell, content) in frames {
        out.extend(frame::encode(*kind, *cell, content, 1).unwrap());
    }
    out
}

fn chunk(entries: &[Entry]) -> Vec<u8> {
    chunk::content(entries)
}

fn run_entry(body: Body) -> Entry {
    Entry { body, ..every_kind()[0].1.clone() }
}

#[test]
fn a_hostile_bundle_lays_nothing_out_outside() {
    for path in ["../up", "/etc/cron.d/x", "a/../../up", "C:\\x", "a\0b", "a/", "", &"x".repeat(2000)] {
        let entry = run_entry(Body::File(stored(path, "spec", "", b"x")));
        let bundle = Bundle::from_bytes(file(&[(frame::Kind::Chunk, 0, chunk(&[entry]))])).unwrap();
        let damage = bundle.damage().unwrap_or_else(|| panic!("{path:?} is taken"));
        assert!(damage.what.contains("could leave its folder"), "{damage:?}");
    }
    // What names of services and cells say is not checked when it is read: they are no paths.
    let long = "n".repeat(9000);
    let names = ["../../up", "/etc/passwd", "..", ".", "", "a\0b", "a/b", "\u{202e}x\u{1b}[2J", &long];
    let mut entries = Vec::new();
    for (seq, name) in names.iter().enumerate() {
        entries.push(run_entry(Body::File(stored(&format!("f{seq}"), "binary", name, b"x"))));
        entries.push(run_entry(Body::Output(Output {
            service: text(name),
            stderr: true,
            bytes: vec![b'x'],
        })));
    }
    // One name twice, one that is another's folder, and two that come to one name.
    for path in ["twice", "twice", "twice/below", "a?b", "a b"] {
        if check::safe_path(path) {
            entries.push(run_entry(Body::File(stored(path, "spec", "", b"x"))));
        }
    }
    let bundle = Bundle::from_bytes(file(&[(frame::Kind::Chunk, 0, chunk(&entries))])).unwrap();
    assert!(bundle.damage().is_none());
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("here");
    let written = extract(&bundle, &folder).unwrap();
    assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1, "something is outside");
    let count = |name: &str| written.iter().filter(|path| path.starts_with(name)).count();
    assert_eq!((count("bin"), count("files")), (names.len(), 4), "{written:?}");
    for path in &written {
        assert!(std::fs::symlink_metadata(folder.join(path)).unwrap().is_file(), "{}", path.display());
    }
}

#[test]
fn nothing_is_laid_out_through_a_link_or_over_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (_, bytes) = bundle_of_every_kind(dir.path());
    let bundle = Bundle::from_bytes(bytes).unwrap();
    let (outside, folder) = (dir.path().join("outside"), dir.path().join("folder"));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(&outside, folder.join("files")).unwrap();
    assert!(matches!(extract(&bundle, &folder), Err(extract::ExtractError::NotEmpty(_))));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_laid_out_bundle_says_how_it_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (_, bytes) = bundle_of_every_kind(dir.path());
    let folder = dir.path().join("out");
    let written = extract(&Bundle::from_bytes(bytes).unwrap(), &folder).unwrap();
    let names: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    let wanted = [
        "run.json",
        "files/specs/a.star",
        "bin/api",
        "logs/matrix_probe_slow/api.out",
        "logs/matrix_probe_slow/api.err",
        "manifest.txt",
    ];
    assert_eq!(names, wanted);
    let run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
    assert_eq!(run["tool_version"], "0.1.0");
    assert_eq!(run["command"], serde_json::json!(["test", "a.star"]));
    assert_eq!(run["host"][0], serde_json::json!({ "name": "kernel", "value": "Linux 6.18" }));
    assert_eq!(run["cells"][0]["verdict"], "violated");
    let log = std::fs::read_to_string(folder.join("logs/matrix_probe_slow/api.out")).unwrap();
    let lines: Vec<&str> = log.lines().map(|line| line.trim_start()).collect();
    assert_eq!(lines, ["11.000 listening", "11.000 serving"], "a line that comes in pieces is one line");
    let manifest = std::fs::read_to_string(folder.join("manifest.txt")).unwrap();
    assert!(manifest.contains("\"binary\" \"bin/api\" -> bin/api\n"), "{manifest}");
}

#[test]
fn a_small_file_cannot_ask_for_much_memory() {
    // One payload of 64 MiB that compresses to nothing, and a thousand entries that refer to it.
    let zeros = vec![0; 64 << 20];
    let hash = *blake3::hash(&zeros).as_bytes();
    let mut blob = hash.to_vec();
    blob.extend_from_slice(&zeros);
    let claims = Payload::Blob { hash, len: zeros.len() as u64 };
    let signed = |seq| Entry {
        seq,
        cell: 1,
        body: Body::Signed(Signed { service: text("auth"), claims: claims.clone() }),
        ..every_kind()[0].1.clone()
    };
    let entries: Vec<Entry> = (0..1000).map(signed).collect();
    let bytes = file(&[(frame::Kind::Blob, 0, blob), (frame::Kind::Chunk, 1, chunk(&entries))]);
    assert!(bytes.len() < 1 << 20);
    let bundle = Bundle::from_bytes(bytes).unwrap();
    assert!(bundle.damage().is_none());
    let refused = bundle.entries(1).unwrap_err().to_string();
    assert!(refused.contains("more than"), "{refused}");
    assert_eq!(bundle.raw_entries(1).unwrap().len(), 1000);
}

#[test]
fn a_pipe_is_no_bundle_and_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.fb");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = Bundle::open(&pipe).err().unwrap().to_string();
    assert!(error.contains("it is not a file"), "{error}");
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/fuzz/corpus").join(target)
}

/// What the corpus of each target begins with, by name.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let (entries, bytes) = bundle_of_every_kind(dir.path());
    let bundle = Bundle::from_bytes(bytes.clone()).unwrap();
    let with_cell = |cell: u8, content: &[u8]| [&[cell], content].concat();
    let mut seeds = Vec::new();
    for (name, entry) in every_kind() {
        let cell = u8::try_from(entry.cell).unwrap();
        seeds.push(("chunk", text(name), with_cell(cell, &chunk(&[entry]))));
    }
    let cell: Vec<Entry> = entries.iter().filter(|entry| entry.cell == 1).cloned().collect();
    seeds.push(("chunk", text("a_cell"), with_cell(1, &chunk(&cell))));
    let archive = |summary: &CellSummary| rkyv::to_bytes::<rkyv::rancor::Error>(summary).unwrap().to_vec();
    seeds.push(("cell_end", text("failed"), with_cell(1, &archive(&bundle.cells()[0]))));
    let none = CellSummary { verdict: None, assumption: None, ..bundle.cells()[0].clone() };
    seeds.push(("cell_end", text("no_verdict"), with_cell(1, &archive(&none))));
    seeds.push(("index", text("right"), fuzzing::right_index()));
    seeds.push(("container", text("every_kind"), bytes));
    let plain = fuzzing::uncompressed(&bundle).unwrap();
    seeds.push(("container", text("uncompressed"), plain));
    for (name, entry) in every_kind() {
        for (place, payload) in check::payloads(&entry.body).enumerate() {
            seeds.push(("value", format!("{name}{place}"), payload.bytes().unwrap_or_default().to_vec()));
        }
    }
    let secrets = "Authorization: Basic dXNlcjpjb3JyZWN0IGhvcnNlLzc= Cookie: sid=abc; a=b\nmysql://u:pw@h/db \
                   correct%20horse%2F7 u:pw@tcp(h)/d ?token=abc%20&sig=x <secret API#12345678> \
                   \\u003csecret API#12345678\\u003e battery1 correct horse\\/7";
    seeds.push(("secrets", text("spellings"), secrets.as_bytes().to_vec()));
    let key =
        "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY----- -----BEGIN RSA PRIVATE KEY-----\nMII";
    seeds.push(("secrets", text("keys"), key.as_bytes().to_vec()));
    seeds.push(("secrets", text("data_sources"), b"u:pw@tcp(:pw@tcp(h)/d u:pw@tcp(v:pw@unix(/s)/d".to_vec()));
    seeds.push((
        "extract",
        text("plain"),
        b"2\nspecs/a.star\nx\n3\nbin/api\napi\n0\ntest_one\n\n1\napi\nhello".to_vec(),
    ));
    seeds.push((
        "extract",
        text("hostile"),
        b"2\na\nx\n2\na/b\ny\n2\n../up\nz\n2\na\nx\n3\nq\n../../api\n3\nq\n..\n1\n/\n\n".to_vec(),
    ));
    let part =
        |repeats: u8, back: u8, astray: u8| [&[11, repeats, back, astray], &b"frame of it"[..]].concat();
    // Longer than a dictionary may be, each based on the one before; then on one that is far back, and on none.
    let chain: Vec<u8> = (0..40).flat_map(|n| part(40 + n, 1, 0)).collect();
    seeds.push(("based", text("chain"), [chain, part(9, 36, 0), part(9, 0, 0)].concat()));
    seeds.push((
        "based",
        text("astray"),
        [part(9, 0, 0), part(9, 1, 1), part(9, 1, 24), part(9, 2, 99)].concat(),
    ));
    seeds.push(("ends", text("header"), Header::new([1; 16], [2; 16]).encode().to_vec()));
    seeds
}

#[test]
fn the_corpus_of_the_fuzz_targets_is_as_it_is_made_and_holds() {
    let write = std::env::var_os("FAULTBOX_CORPUS").is_some_and(|value| value == "write");
    for (target, name, bytes) in seeds() {
        let path = corpus(target).join(&name);
        if write {
            std::fs::create_dir_all(corpus(target)).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let there = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // How a chunk compresses may change; what records are laid out as must not.
        assert!(
            there == bytes || name == "every_kind",
            "{} is another (FAULTBOX_CORPUS=write)",
            path.display()
        );
    }
    let outer = tempfile::tempdir().unwrap();
    let mut run = 0;
    let targets: BTreeMap<&str, fn(&[u8])> = BTreeMap::from([
        ("container", fuzzing::container as fn(&[u8])),
        ("based", fuzzing::based),
        ("chunk", fuzzing::chunk),
        ("cell_end", fuzzing::cell_end),
        ("index", fuzzing::index),
        ("ends", fuzzing::ends),
        ("value", fuzzing::value),
        ("secrets", fuzzing::secrets),
    ]);
    for (target, one) in targets {
        for entry in std::fs::read_dir(corpus(target)).unwrap() {
            one(&std::fs::read(entry.unwrap().path()).unwrap());
            run += 1;
        }
    }
    for entry in std::fs::read_dir(corpus("extract")).unwrap() {
        fuzzing::extraction(&std::fs::read(entry.unwrap().path()).unwrap(), outer.path());
        std::fs::remove_dir_all(outer.path().join("laid-out")).unwrap();
        run += 1;
    }
    assert!(run >= 40, "the corpus is missing");
}

/// `struct` and `enum` declarations of stored types, on one line each.
fn declarations(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let mut found = Vec::new();
    for (at, _) in source.match_indices("\npub struct ").chain(source.match_indices("\npub enum ")) {
        let derived = source[..at]
            .rsplit_once("#[derive(")
            .is_some_and(|(_, derives)| derives.contains("Archive") && !derives.contains("\n}"));
        let body = source[at + 5..].split_once("\n}").unwrap().0;
        let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("///"));
        let text = lines.map(|line| line.trim_start_matches("pub ")).collect::<Vec<_>>().join(" ");
        if derived {
            // A `Name` is stored as a `String` is.
            let text = format!("{} }}", text.trim_end_matches(',').replace(": Name", ": String"));
            found.push(text.replace(", }", " }"));
        }
    }
    found
}

#[test]
fn the_document_declares_every_stored_type_as_it_is() {
    let document = include_str!("../FORMAT.md");
    let block = document.split_once("```types\n").unwrap().1.split_once("```").unwrap().0;
    let block = block.split_whitespace().collect::<Vec<_>>().join(" ");
    let declared: Vec<String> =
        [include_str!("event.rs"), include_str!("index.rs"), include_str!("chunk.rs")]
            .into_iter()
            .flat_map(declarations)
            .collect();
    assert!(declared.len() >= 30, "{declared:?}");
    for declaration in &declared {
        assert!(block.contains(declaration), "not in FORMAT.md: {declaration}");
    }
    let words = |word: &str| block.matches(word).count();
    assert_eq!(words("struct ") + words("enum "), declared.len(), "FORMAT.md declares more than there is");
}
