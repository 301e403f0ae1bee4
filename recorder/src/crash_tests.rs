//! Goal: a recorder that is killed at any instant leaves a file that opens, holds a gapless prefix
//! of what was noted, and can be recovered. Method: a child process (this test binary with the
//! ignored test `be_killed`) notes entries and counts them aloud; it is killed at counts, and at
//! sizes of its file, that a seed chose.

use super::*;
use faultbox_bundle_format::recover::recover;
use faultbox_bundle_format::*;
use faultbox_engine::prng::Key;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const KILLS: u64 = 200;
const CELL_ENTRIES: u64 = 40;

/// What the child notes as its n-th entry: cells of forty entries, one after the other.
fn nth(n: u64) -> Entry {
    let (cell, within) = (n / CELL_ENTRIES, n % CELL_ENTRIES);
    let body = match within {
        0 => Body::CellStarted(CellStarted {
            name: format!("cell{cell}"),
            scenario: "s".to_owned(),
            assumption: None,
            expectation: String::new(),
        }),
        39 => Body::Verdict(Verdict {
            ending: Ending::Passed,
            reason: String::new(),
            blame: Blame::None,
            fired: Vec::new(),
            unreached: false,
            scenario_ns: 1,
            cell_ns: 1,
            digest: [0; 32],
        }),
        _ => {
            let bytes =
                Key::of_run(n).below("output").draw("x", 0).to_le_bytes().repeat(64 * (n % 7) as usize);
            Body::Output(Output { service: "api".to_owned(), stderr: false, bytes })
        }
    };
    Entry {
        seq: n,
        at_ns: n,
        cell: u32::try_from(cell).unwrap() + 1,
        phase: Phase::Scenario,
        actor: "api".into(),
        stream: "s".to_owned(),
        ordinal: within,
        cause: None,
        body,
    }
}

/// The child: reads where to write, and writes until it is killed.
#[test]
#[ignore = "the child of the crash test"]
fn be_killed() {
    let mut path = String::new();
    std::io::stdin().read_line(&mut path).unwrap();
    let header = new_header().unwrap();
    let recorder = Recorder::create(Path::new(path.trim()), header, Redactor::new(&header.salt, [])).unwrap();
    let mut out = std::io::stdout();
    for n in 0.. {
        recorder.note(nth(n));
        // A parent that is gone ends this.
        writeln!(out, "noted {n}").and_then(|()| out.flush()).unwrap();
    }
}

/// Starts the child and kills it once it has noted this many entries and its file has this many bytes: that file.
fn killed_after(path: &Path, count: u64, bytes: u64) -> PathBuf {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash_tests::be_killed", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", path.display()).unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines();
    let partial = path.with_extension("fb.partial");
    let has_come_so_far = |line: String| {
        let noted = line.rsplit_once("noted ").and_then(|(_, n)| n.parse::<u64>().ok());
        noted.is_some_and(|n| n >= count) && std::fs::metadata(&partial).is_ok_and(|file| file.len() >= bytes)
    };
    assert!(said.map_while(Result::ok).any(has_come_so_far), "the child ended early");
    child.kill().unwrap();
    child.wait().unwrap();
    partial
}

#[test]
fn a_killed_recorder_leaves_a_prefix_that_can_be_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::of_run(4);
    let mut ended_cells = 0;
    for kill in 0..KILLS {
        let path = dir.path().join(format!("{kill}.fb"));
        // Where nothing runs but the child, all that it noted may still be in its memory.
        let (count, bytes) = (key.draw("kill", kill) % 9_000, key.draw("bytes", kill) % 4_000);
        let partial = killed_after(&path, count, if kill % 2 == 0 { 0 } else { bytes });
        let bundle = Bundle::open(&partial).unwrap_or_else(|error| panic!("kill {kill}: {error}"));
        assert!(!bundle.is_complete() && !path.exists());
        let mut noted: Vec<Entry> = Vec::new();
        for cell in bundle.cells() {
            noted.extend(bundle.entries(cell.cell).unwrap());
            ended_cells += usize::from(cell.verdict.is_some());
        }
        for (n, entry) in noted.iter().enumerate() {
            assert_eq!(*entry, nth(n as u64), "kill {kill}");
        }
        let recovered = recover(&partial, &path).unwrap();
        assert_eq!((recovered.entries, recovered.was_complete), (noted.len() as u64, false), "kill {kill}");
        let bundle = Bundle::open(&path).unwrap();
        assert!(bundle.is_complete());
        bundle.verify().unwrap();
    }
    // The kills were not all before the first write.
    assert!(ended_cells > 0);
}
