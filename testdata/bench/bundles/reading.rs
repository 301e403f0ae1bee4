//! A bundle of ten million entries: how long a reviewer waits, and in how much memory.

use super::events::{Mix, Noter};
use faultbox_bundle_format::{Blame, Body, CellStarted, Ending, FaultCount, Phase, RunStarted, Verdict};
use faultbox_engine::clock::RunClock;
use faultbox_engine::journal::Journal;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Cells in it; the last but one fails.
const CELLS: u32 = 10_000;
/// Entries of each.
const EACH: u64 = 1000;
/// Limits for showing the failure.
const LIMITS: (u64, i64) = (50, 64);

/// Writes the bundle, then times `faultbox inspect` on it. Each is a process of its own: the kernel counts what
/// a parent had resident as its child's.
pub fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.fb");
    let clock = RunClock::start();
    let began = clock.now_ns();
    part("__write", &path);
    let size = std::fs::metadata(&path).expect("a file").len();
    println!(
        "Reading, {} entries in {CELLS} cells, {} MiB, written in {:.1} s; medians of 9 of the whole command:",
        u64::from(CELLS) * EACH,
        size >> 20,
        (clock.now_ns() - began) as f64 / 1e9
    );
    part("__read", &path);
}

fn part(what: &str, path: &Path) {
    let program = std::env::current_exe().expect("this program");
    let status = Command::new(program).arg(what).arg(path).status();
    assert!(status.is_ok_and(|status| status.success()), "{what} failed");
}

/// Times `faultbox inspect` on a bundle that [`write`] wrote.
pub fn read(path: &Path) {
    let clock = RunClock::start();
    let failed = format!("cell_{}", CELLS - 2);
    let small = path.with_file_name("small.fb");
    super::events::small(&small);
    for (what, path, args) in [
        ("a small bundle, for comparison", &small, vec![]),
        ("the failure of one cell", &path.to_owned(), vec![failed.as_str()]),
        ("the manifest", &path.to_owned(), vec!["--manifest"]),
    ] {
        let mut times: Vec<u64> = (0..9).map(|_| inspect(&clock, path, &args)).collect();
        times.sort_unstable();
        let most = usage();
        println!(
            "  {what:<34} {:>6.1} ms (limit {}), at most {} MiB resident so far (limit {})",
            times[4] as f64 / 1e6,
            LIMITS.0,
            most >> 10,
            LIMITS.1
        );
    }
}

fn inspect(clock: &RunClock, path: &Path, args: &[&str]) -> u64 {
    let began = clock.now_ns();
    let mut command = Command::new(env!("CARGO_BIN_EXE_faultbox"));
    let status =
        command.arg("inspect").arg(path).args(args).stdout(Stdio::null()).status().expect("faultbox");
    let took = clock.now_ns() - began;
    assert!(status.success());
    took
}

/// Most memory that a child of this process had resident, in KiB.
fn usage() -> i64 {
    use nix::sys::resource::{UsageWho, getrusage};
    getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage").max_rss()
}

/// Writes the bundle.
pub fn write(path: &Path) {
    let recorder = super::recorder(path);
    let (clock, sequence) = (RunClock::start(), Arc::default());
    let journal = |cell: u32, name: &str| {
        Journal::new(recorder.clone(), clock.clone(), Arc::clone(&sequence), cell, name)
    };
    let run = RunStarted {
        seed: 1,
        seed_source: "cli".to_owned(),
        tool_version: "0".to_owned(),
        command: vec!["test".to_owned()],
        unix_ns: clock.unix_ns(),
        spec: "a.star".to_owned(),
    };
    journal(0, "").note("faultbox", "run", None, Body::RunStarted(run));
    let noter = Noter::new(Mix::Proxies);
    for cell in 1..=CELLS {
        let name = format!("cell_{cell}");
        let journal = journal(cell, &name);
        let started =
            CellStarted { name, scenario: "s".to_owned(), assumption: None, expectation: String::new() };
        journal.note("faultbox", "cell", None, Body::CellStarted(started));
        journal.enter(Phase::Scenario);
        (0..EACH - 3).for_each(|n| noter.note(&journal, u64::from(cell) * EACH + n));
        let failed = cell == CELLS - 2;
        let fired = FaultCount {
            assumption: "slow".to_owned(),
            index: 0,
            rule: "delay 3000ms".to_owned(),
            target: "db.main".to_owned(),
            matched: 1,
            fired: 1,
        };
        let verdict = Verdict {
            ending: if failed { Ending::Failed } else { Ending::Passed },
            reason: if failed { "status_code=503 (want < 500)".to_owned() } else { String::new() },
            blame: if failed { Blame::ServiceUnderTest } else { Blame::None },
            fired: vec![fired],
            unreached: false,
            scenario_ns: 1,
            cell_ns: 1,
            digest: [0; 32],
        };
        journal.note("faultbox", "cell", None, Body::Verdict(verdict));
    }
    recorder.finish().expect("a bundle");
}
