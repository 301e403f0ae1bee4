//! Goal: a bundle that some version of the format wrote is opened by every later one, and says what it
//! said. Method: `testdata/bundles/` holds one bundle for each version, with every kind of entry in it,
//! two payloads of which one is shared, and a frame of a kind that nobody knows. They are compared
//! with what was written, entry by entry. A version that is new adds its own
//! (`cargo test ... golden_tests::write -- --ignored`); those that exist never change.

use crate::frame::{Frame, Head, Kind};
use crate::version::{MAJOR, MINOR, Tool};
use crate::*;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/bundles")
}

fn named(name: &str, value: &str) -> Named {
    Named { name: name.to_owned(), value: value.to_owned() }
}

fn hit() -> RuleHit {
    RuleHit { assumption: "slow".to_owned(), index: 1, action: "delay 3000ms".to_owned() }
}

fn exchange(body: &str) -> Body {
    Body::Exchange(Exchange {
        protocol: "http".into(),
        source: "api".into(),
        interface: "users.main".into(),
        connection: 7,
        operation: "GET /users".into(),
        key: "GET /users".to_owned(),
        class: Class::Work,
        mutating: true,
        repeatable: false,
        request: Payload::of(&Value::map([("path", Value::text("/users")), ("n", Value::Int(-3))])),
        outcome: Outcome::Answered,
        response: Some(Payload::of(&Value::map([("body", Value::text(body))]))),
        rule: Some(hit()),
        began_ns: 10,
        ended_ns: u64::MAX,
        began_seq: 3,
    })
}

fn file(path: &str, role: &str, content: &[u8]) -> Body {
    Body::File(StoredFile {
        path: path.to_owned(),
        role: role.to_owned(),
        service: String::new(),
        digest: *blake3::hash(content).as_bytes(),
        content: Some(Payload::Inline(content.to_vec())),
    })
}

fn verdict(ending: Ending) -> Body {
    let fired = FaultCount {
        assumption: "slow".to_owned(),
        index: 1,
        rule: "delay 3000ms".to_owned(),
        target: "users.main".to_owned(),
        matched: 2,
        fired: 1,
    };
    Body::Verdict(Verdict {
        ending,
        reason: "status_code=503 (want < 500)".to_owned(),
        blame: Blame::ServiceUnderTest,
        fired: vec![fired],
        unreached: false,
        scenario_ns: 5,
        cell_ns: 6,
        digest: [9; 32],
    })
}

/// What every golden bundle says: all kinds of entries, in a run of two cells.
fn said() -> Vec<Entry> {
    let text = "a payload that is longer than what stands in an entry; ".repeat(40);
    let run = RunStarted {
        seed: u64::MAX,
        seed_source: "cli".to_owned(),
        tool_version: "0.1.0".to_owned(),
        command: vec!["test".to_owned(), "a.star".to_owned()],
        unix_ns: 1_790_000_000_000_000_000,
        spec: "a.star".to_owned(),
    };
    let cell = |name: &str| {
        Body::CellStarted(CellStarted {
            name: name.to_owned(),
            scenario: "probe".to_owned(),
            assumption: Some("slow".to_owned()),
            expectation: "expect_success()".to_owned(),
        })
    };
    let started = ServiceStarted {
        service: "api".to_owned(),
        pid: 77,
        program: "bin/api".to_owned(),
        digest: Some([4; 32]),
        args: vec!["--port".to_owned(), "8080".to_owned()],
        env: vec![named("A", "b")],
        isolated: true,
    };
    let window = FaultWindow {
        assumption: "slow".to_owned(),
        active: true,
        targets: vec!["users.main".to_owned()],
        rules: vec!["delay 3000ms".to_owned()],
    };
    let step = StepStarted {
        step: 0,
        interface: "api.public".to_owned(),
        verb: "get".to_owned(),
        arguments: Payload::of(&Value::map([("path", Value::text("/"))])),
        location: "a.star:3".to_owned(),
    };
    let decision = Decision {
        assumption: "slow".to_owned(),
        index: 1,
        key: "GET /users".to_owned(),
        source: "api".to_owned(),
        matched: 1,
        draw: 0,
        fired: true,
        on_sut: true,
    };
    let syscall = Syscall {
        service: "db".to_owned(),
        name: "pwrite64".to_owned(),
        family: "write".to_owned(),
        target: "data/t.ibd".to_owned(),
        action: "deny EIO".to_owned(),
        rule: None,
        on_sut: false,
    };
    let all = vec![
        (0, Phase::Run, Body::RunStarted(run)),
        (0, Phase::Run, file("specs/a.star", "spec", text.as_bytes())),
        (0, Phase::Run, Body::HostFact(named("kernel", "6.1"))),
        (1, Phase::Start, cell("matrix_probe_slow")),
        (1, Phase::Start, Body::Addresses(vec![named("127.0.0.1:9", "@users.main")])),
        (1, Phase::Start, Body::ServiceStarted(started)),
        (1, Phase::Start, Body::ServiceReady("api".to_owned())),
        (1, Phase::Scenario, Body::PhaseBegan),
        (1, Phase::Scenario, Body::FaultWindow(window)),
        (1, Phase::Scenario, Body::StepStarted(step)),
        (1, Phase::Scenario, Body::Decision(decision)),
        (1, Phase::Scenario, exchange("short")),
        (1, Phase::Scenario, exchange(&text)),
        (1, Phase::Scenario, Body::Syscall(syscall)),
        (1, Phase::Scenario, Body::StepEnded(StepEnded { step: 0, response: Payload::of(&Value::Null) })),
        (
            1,
            Phase::Scenario,
            Body::Signed(Signed { service: "auth".to_owned(), claims: Payload::of(&Value::Bool(true)) }),
        ),
        (
            1,
            Phase::Scenario,
            Body::Assertion(Assertion {
                held: false,
                message: "no".to_owned(),
                location: "a.star:4".to_owned(),
            }),
        ),
        (
            1,
            Phase::Tail,
            Body::Output(Output { service: "api".to_owned(), stderr: true, bytes: vec![0xff, 0, b'\n'] }),
        ),
        (
            1,
            Phase::Tail,
            Body::ServiceExited(ServiceExited {
                service: "api".to_owned(),
                code: None,
                signal: Some(9),
                asked: true,
            }),
        ),
        (1, Phase::Tail, verdict(Ending::Violated)),
        (2, Phase::Start, cell("matrix_probe_again")),
        (2, Phase::Scenario, exchange(&text)),
        (2, Phase::Tail, Body::Unknown(UnknownBody { kind: 900, bytes: vec![1, 2, 3] })),
        (2, Phase::Tail, verdict(Ending::Passed)),
        (0, Phase::Run, Body::RunEnded(RunEnded { passed: 1, failed: 1, interrupted: false })),
    ];
    let entry = |(seq, (cell, phase, body)): (usize, (u32, Phase, Body))| Entry {
        seq: seq as u64,
        at_ns: seq as u64 * 1_000_003,
        cell,
        phase,
        actor: "api".into(),
        stream: format!("stream {}", seq % 3),
        ordinal: seq as u64 / 3,
        cause: (seq % 4 == 1).then_some(0),
        body,
    };
    all.into_iter().enumerate().map(entry).collect()
}

/// Writes the bundle of this version.
#[test]
#[ignore = "a version that is new adds its bundle once"]
fn write() {
    let path = folder().join(format!("{MAJOR}.{MINOR}.fb"));
    // Golden bundles never change.
    assert!(!path.exists(), "{} is there", path.display());
    let mut writer = BundleWriter::create(&path, Header::new([1; 16], [2; 16])).unwrap();
    let head = Head { len: 15, kind: Kind::Unknown(0x7fff), codec: 0, reserved: 0, raw_len: 15, cell: 1 };
    writer.put_unknown(&Frame { head, content: b"from the future".to_vec() }).unwrap();
    said().iter().for_each(|entry| writer.append(entry).unwrap());
    writer.finish().unwrap();
}

#[test]
fn every_version_that_was_written_is_read() {
    let mut versions = Vec::new();
    for item in std::fs::read_dir(folder()).unwrap() {
        let path = item.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let bundle = Bundle::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        bundle.verify().unwrap_or_else(|error| panic!("{name}: {error}"));
        let header = bundle.header();
        assert_eq!(format!("{}.{}", header.major, header.minor), name);
        assert_eq!((header.id, header.salt), ([1; 16], [2; 16]));
        let said = said();
        for cell in 0..=2 {
            let written: Vec<Entry> = said.iter().filter(|entry| entry.cell == cell).cloned().collect();
            assert_eq!(bundle.entries(cell).unwrap(), written, "{name}");
        }
        let cells: Vec<_> = bundle.cells().iter().map(|cell| (cell.name.as_str(), cell.passed())).collect();
        assert_eq!(cells, [("matrix_probe_slow", false), ("matrix_probe_again", true)]);
        // The text as a file, and inside the answer that two cells got.
        assert_eq!(bundle.index().blobs.len(), 2, "{name}");
        let unknown: Vec<u16> = bundle.index().unknown.iter().map(|frame| frame.kind).collect();
        assert_eq!(unknown, [0x7fff], "{name}");
        assert_eq!(header.tool == Tool::default(), name == "1.0");
        versions.push(name);
    }
    versions.sort();
    assert!(versions.contains(&"1.0".to_owned()));
    assert!(
        versions.contains(&format!("{MAJOR}.{MINOR}")),
        "this version has no golden bundle: {versions:?}"
    );
}

#[test]
fn recovery_keeps_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Bundle::open(&folder().join("1.1.fb")).unwrap();
    let recovered = recover::recover(&folder().join("1.1.fb"), &dir.path().join("r.fb")).unwrap();
    let bundle = Bundle::open(&recovered.path).unwrap();
    assert!(recovered.is_lossless());
    let ids = |bundle: &Bundle| (bundle.header().id, bundle.header().salt);
    assert_eq!(ids(&bundle), ids(&golden));
    assert_eq!((bundle.header().major, bundle.header().minor), (MAJOR, MINOR));
    assert_eq!(bundle.index().unknown.len(), 1);
    assert_eq!(bundle.index().unknown[0].kind, 0x7fff);
    assert_eq!(bundle.entries(2).unwrap(), golden.entries(2).unwrap());
}
