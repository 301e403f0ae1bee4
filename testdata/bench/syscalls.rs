//! What a trapped syscall costs a service.
//!
//! Method: this executable as a service writes one byte to one place of a file many times and measures
//! with its monotonic clock; the ways take turns, and figures are medians of the rounds and ratios of
//! them. `strace` injects into the same calls of the same program, with the filter that makes it stop at
//! those only; what it would inject never comes.

use super::clock::{median, said, service};
use super::parts::{journal, recorder};
use faultbox_engine::clock::RunClock;
use faultbox_engine::fault::{
    ActiveFaults, Assumption, Modifiers, SyscallAction, SyscallAsk, SyscallRule, Target,
};
use faultbox_engine::journal::Journal;
use faultbox_engine::oracle::{Ratio, SeededOracle};
use faultbox_engine::supervisor::{
    Interest, Launch, Quiet, SyscallCall, SyscallDecision, SyscallPolicy, SyscallTarget,
};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Turns of each way.
const ROUNDS: usize = 7;
/// Writes in a turn.
const WRITES: u64 = 20_000;
/// Pass-through, microseconds.
const AIM: f64 = 8.0;
/// How much cheaper than strace.
const AIM_OF_STRACE: f64 = 5.0;

const WAYS: [&str; 6] =
    ["without Faultbox", "no rule", "no rule active", "looked up", "decided and journaled", "strace"];

/// The service: prints microseconds a write to this file.
pub fn guest(paths: &[String]) {
    let file = File::create(paths.first().expect("a path")).expect("a file");
    let clock = RunClock::start();
    for _ in 0..WRITES {
        file.write_at(b"x", 0).expect("a write");
    }
    println!("{}", clock.now_ns() as f64 / 1000.0 / WRITES as f64);
}

/// Finds out what every call is about, and lets it pass.
struct LooksUp;

impl SyscallPolicy for LooksUp {
    fn decide(&self, call: &SyscallCall<'_>) -> SyscallDecision {
        assert!(!matches!(call.target, SyscallTarget::None));
        SyscallDecision::CONTINUE
    }
    fn wants(&self, _: &'static str, _: &[&'static str]) -> Option<Interest> {
        Some(Interest::default())
    }
}

/// A rule that draws for every call, never acts, and is journaled each time.
struct Draws(Arc<ActiveFaults>);

impl Draws {
    fn over(journal: Arc<Journal>) -> Self {
        let modifiers = Modifiers { probability: Some(Ratio { part: 0, of: 100 }), ..Modifiers::default() };
        let rule = SyscallRule {
            family: "write".to_owned(),
            path: None,
            to: None,
            fd: None,
            process: None,
            action: SyscallAction::Deny(5),
            inbound: false,
            modifiers,
            words: "write = deny(\"EIO\", probability=0)".to_owned(),
        };
        let assumption = Assumption {
            name: "bench".to_owned(),
            description: String::new(),
            target: Some(Target { service: "api".to_owned(), interface: None }),
            rules: Vec::new(),
            syscalls: vec![rule],
            parts: Vec::new(),
        };
        let faults = ActiveFaults::new(journal, Arc::new(SeededOracle::new(1)), "api");
        faults.activate(Arc::new(assumption));
        Draws(faults)
    }
}

impl SyscallPolicy for Draws {
    fn decide(&self, call: &SyscallCall<'_>) -> SyscallDecision {
        let SyscallTarget::File { path, kind } = &call.target else { return SyscallDecision::CONTINUE };
        let path = path.display().to_string();
        let key = format!("write {path}");
        let acting = self.0.consult_syscall(&SyscallAsk {
            service: "api",
            families: call.families,
            peer: None,
            peers: &[],
            path: Some(&path),
            kind: Some(*kind),
            bytes: call.bytes,
            process: &call.process,
            key: &key,
        });
        assert!(acting.is_empty());
        SyscallDecision::CONTINUE
    }
    fn wants(&self, _: &'static str, families: &[&'static str]) -> Option<Interest> {
        self.0.looks_at(families)
    }
}

/// Prints what a write costs in each way.
pub async fn writes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("data");
    let recorder = recorder(folder.path());
    let draws = Arc::new(Draws::over(journal(recorder.clone())));
    let mut seen = [(); WAYS.len()].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        for (way, figures) in WAYS.into_iter().zip(&mut seen) {
            let policy: Arc<dyn SyscallPolicy> = match way {
                "looked up" => Arc::new(LooksUp),
                "decided and journaled" => draws.clone(),
                _ => Arc::new(Quiet),
            };
            figures.extend(one(way, &file, policy).await);
        }
    }
    drop(draws);
    recorder.finish().expect("the bundle is written");
    let figures: Vec<f64> = seen.iter_mut().filter(|f| !f.is_empty()).map(|f| median(f)).collect();
    println!("A write of one byte to a file, microseconds, median of {ROUNDS} times {WRITES}:");
    for (way, figure) in WAYS.into_iter().zip(&figures) {
        println!("  {way:<22} {figure:.2}");
    }
    println!("  a service without a rule is {:.2} of one without Faultbox", figures[1] / figures[0]);
    let added = |n: usize| figures.get(n).map(|figure| figure - figures[0]);
    let pass = added(2).expect("a figure");
    let mark = |held: bool| if held { "" } else { ", MISSED" };
    println!("  a trapped call adds {pass:.2} (aim {AIM}{})", mark(pass < AIM));
    match added(5) {
        Some(strace) => {
            let ratio = strace / pass;
            println!(
                "  strace adds {ratio:.1} times as much (aim {AIM_OF_STRACE}{})",
                mark(ratio >= AIM_OF_STRACE)
            );
        }
        None => println!("  strace: not measured, it is not installed"),
    }
}

async fn one(way: &str, file: &Path, policy: Arc<dyn SyscallPolicy>) -> Option<f64> {
    let path = file.to_str().expect("a path in words");
    let text = match way {
        "without Faultbox" => {
            let me = std::env::current_exe().expect("this executable");
            let said = Command::new(me).args(["__writes", path]).output().expect("this executable runs");
            String::from_utf8_lossy(&said.stdout).into_owned()
        }
        "strace" => {
            let me = std::env::current_exe().expect("this executable");
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=pwrite64"]);
            strace.args(["-e", "inject=pwrite64:error=EIO:when=65535"]).arg(me).args(["__writes", path]);
            let said = strace.output().ok().filter(|said| said.status.success())?;
            String::from_utf8_lossy(&said.stdout).into_owned()
        }
        _ => {
            let families = if way == "no rule" { Default::default() } else { ["write".to_owned()].into() };
            said(Launch { families, ..service("api", &["__writes", path]) }, policy).await
        }
    };
    text.trim().parse().ok()
}
