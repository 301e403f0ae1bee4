//! A replay session: one recorded cell, driven again or judged again.
//!
//! Contract: the recorded entries come with their payloads; the plan comes from the bundle's
//! spec tree. What is compared is the canonical form of the scenario phase under a named
//! policy; the outcome says exact, or where the two first parted.

use crate::diff;
use crate::divergence::Divergence;
use crate::environment::RecordedEnvironment;
use crate::tape::Tape;
use crate::waits::{Waiting, Waits};
use faultbox_bundle_format::canonical::{self, Canonical, Policy, scanner_of};
use faultbox_bundle_format::generated::Scanner;
use faultbox_bundle_format::redact::Redactor;
use faultbox_bundle_format::{Body, Entry, FaultCount, Named, Phase, Verdict};
use faultbox_engine::mock::{self, Mock, MockCell, MockError, ROTATE, SignRequest};
use faultbox_engine::plan::{Driver, Plan};
use faultbox_engine::prng::Key;
use faultbox_engine::runner::{self, CellResult, RunContext, whose};
use faultbox_engine::step::{StepCall, StepResponse};
use faultbox_engine::topology::ServiceKind;
use faultbox_engine::virtual_time::Skipped;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A cell as it was recorded.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Its entries, payloads inline.
    pub entries: Vec<Entry>,
    /// Wall clock at the start of the recorded run, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Seed of the recorded run.
    pub seed: u64,
    /// Its verdict.
    pub verdict: Verdict,
    /// Gives live values the recording's tokens.
    pub redactor: Redactor,
}

impl Recording {
    /// A recording from a cell's entries; `None` where the cell has no verdict.
    pub fn new(entries: Vec<Entry>, unix_ns: u64, seed: u64, redactor: Redactor) -> Option<Self> {
        let verdict = entries.iter().rev().find_map(|entry| match &entry.body {
            Body::Verdict(verdict) => Some(verdict.clone()),
            _ => None,
        })?;
        Some(Recording { entries, unix_ns, seed, verdict, redactor })
    }
}

/// What came of a replay.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The verdict now.
    pub verdict: Verdict,
    /// Where replay and recording differ, first difference first.
    pub divergences: Vec<Divergence>,
    /// Whether the verdict is the recorded one (ending and reason).
    pub reproduced: bool,
    /// Requests that were answered as repeats.
    pub repeats: u64,
    /// What became of the recorded waits.
    pub waits: Waits,
    /// What became of the time, where it was to be skipped.
    pub time: Option<Skipped>,
    /// Why the service could not be driven, if so.
    pub setup_failed: bool,
    /// The entries of the replay.
    pub entries: Vec<Entry>,
}

impl Outcome {
    /// Whether nothing differs.
    pub fn exact(&self) -> bool {
        self.reproduced && self.divergences.is_empty()
    }
}

/// Drives the services under test through a recorded cell.
pub async fn redrive(
    run: &Arc<RunContext>,
    plan: &Arc<Plan>,
    index: usize,
    recording: &Recording,
    policy: Policy,
    waiting: Waiting,
) -> Outcome {
    let services = plan.topology.services.iter();
    let addresses: Vec<Named> = services.flat_map(runner::addresses_of).collect();
    let suts: BTreeSet<String> = plan.topology.suts().map(|service| service.name.clone()).collect();
    let recording = &asked_by(recording, &suts);
    let rules = plan.learned.iter().map(|line| line.rule.clone());
    let recorded = scanner_of(&recording.entries, recording.unix_ns).with_rules(rules);
    let live = Scanner::new(run.clock.unix_ns()).with_addresses(&addresses);
    let live = live.with_rules(recorded.rules().iter().cloned());
    let tape = Tape::new(recording, recorded, live, &suts, waiting, run.clock.time().clone());
    let environment = RecordedEnvironment::new(tape.clone(), suts);
    let result = runner::run_cell(run, plan, index, environment).await;
    let mut outcome = outcome(recording, result, run.clock.unix_ns(), policy);
    (outcome.repeats, outcome.waits) = (tape.repeats(), tape.waits());
    outcome.time = run.clock.time().virtual_time().map(|time| time.sum());
    let divergences = &mut outcome.divergences;
    if divergences.is_empty() {
        // The same content in another causal order, or a request in another phase.
        divergences.extend(tape.divergences().into_iter().filter(|d| match d {
            Divergence::Unexpected { phase, .. } => *phase == faultbox_bundle_format::Phase::Scenario,
            _ => true,
        }));
        divergences.extend(tape.missing());
    } else {
        let unexpected = tape.divergences();
        divergences.splice(0..0, unexpected);
    }
    outcome
}

/// A recording without what services asked that do not run again: it is their business.
fn asked_by(recording: &Recording, suts: &BTreeSet<String>) -> Recording {
    let asks = |source: &str| source == runner::TEST || suts.contains(source);
    let stays = |entry: &&Entry| match &entry.body {
        Body::Exchange(exchange) => asks(&exchange.source),
        _ => true,
    };
    Recording { entries: recording.entries.iter().filter(stays).cloned().collect(), ..recording.clone() }
}

/// Compares a cell that ran (live or redriven, at `unix_ns`) with its recording.
pub fn outcome(recording: &Recording, result: CellResult, unix_ns: u64, policy: Policy) -> Outcome {
    let CellResult { mut verdict, mut entries, setup_failed, .. } = result;
    // What fired on services that were not run stands in the recording.
    for count in &mut verdict.fired {
        let same = |r: &&FaultCount| r.assumption == count.assumption && r.index == count.index;
        if let (0, Some(recorded)) = (count.fired, recording.verdict.fired.iter().find(same)) {
            *count = recorded.clone();
        }
    }
    verdict.unreached = !verdict.fired.is_empty() && verdict.fired.iter().all(|count| count.fired == 0);
    entries.iter_mut().for_each(|entry| recording.redactor.entry(entry));
    Outcome {
        divergences: compare(&recording.entries, recording.unix_ns, &entries, unix_ns, policy),
        reproduced: same_verdict(&recording.verdict, &verdict),
        verdict,
        repeats: 0,
        waits: Waits::default(),
        time: None,
        setup_failed,
        entries,
    }
}

/// Judges the recorded steps with the spec as it is now; nothing runs.
pub fn judge(plan: &Plan, index: usize, recording: &Recording, run_key: Key) -> Outcome {
    let driver = Arc::new(RecordedDriver::new(plan, &recording.entries, recording.unix_ns, run_key));
    let cell = plan.cells.get(index);
    let number = cell.map_or(index, |cell| cell.number);
    let assumption = cell.and_then(|cell| cell.assumption.as_deref());
    let result = plan.program.run(number, driver.clone());
    let judgement = whose::settled(result.judgement, assumption, || recording.entries.clone());
    let verdict = Verdict {
        ending: judgement.ending,
        reason: judgement.reason,
        blame: judgement.blame,
        ..recording.verdict.clone()
    };
    Outcome {
        reproduced: same_verdict(&recording.verdict, &verdict),
        verdict,
        divergences: driver.divergences(),
        repeats: 0,
        waits: Waits::default(),
        time: None,
        setup_failed: false,
        entries: Vec::new(),
    }
}

fn same_verdict(recorded: &Verdict, now: &Verdict) -> bool {
    recorded.ending == now.ending
        && canonical::without_durations(&recorded.reason) == canonical::without_durations(&now.reason)
}

/// All differences between two cells' canonical forms, by the rules for learned values of both.
pub fn compare(
    recorded: &[Entry],
    recorded_unix_ns: u64,
    replayed: &[Entry],
    replayed_unix_ns: u64,
    policy: Policy,
) -> Vec<Divergence> {
    let rules: Vec<_> = canonical::rules_of(recorded).chain(canonical::rules_of(replayed)).collect();
    let recorded = canonical::of_cell_by(recorded, recorded_unix_ns, policy, &rules);
    let replayed = canonical::of_cell_by(replayed, replayed_unix_ns, policy, &rules);
    if recorded.digest == replayed.digest {
        return Vec::new();
    }
    let mut found = differences(&recorded, &replayed);
    // In the order in which the recording met them; what was not recorded comes by the replay's.
    found.sort_by_key(|(seq, _)| *seq);
    found.into_iter().map(|(_, divergence)| divergence).collect()
}

fn differences(recorded: &Canonical, replayed: &Canonical) -> Vec<((usize, u64), Divergence)> {
    let mut found = Vec::new();
    let empty = Vec::new();
    let mut names: Vec<&String> = recorded.streams.keys().chain(replayed.streams.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let before = recorded.streams.get(name).unwrap_or(&empty);
        let now = replayed.streams.get(name).unwrap_or(&empty);
        for at in 0..before.len().max(now.len()) {
            let (a, b) = (before.get(at), now.get(at));
            if a.map(|item| &item.value) == b.map(|item| &item.value) {
                continue;
            }
            let differences = match (a, b) {
                (Some(a), Some(b)) => diff::values(&a.value, &b.value),
                _ => Vec::new(),
            };
            // What is missing or new explains what only differs: it comes first.
            let differs = usize::from(a.is_some() && b.is_some());
            let seq = (differs, a.or(b).map_or(u64::MAX, |item| item.seq));
            let divergence = Divergence::Stream {
                stream: name.clone(),
                at,
                recorded: a.map(|item| item.label.clone()),
                replayed: b.map(|item| item.label.clone()),
                differences,
                recorded_seq: a.map(|item| item.seq),
                replayed_seq: b.map(|item| item.seq),
            };
            found.push((seq, divergence));
            break;
        }
    }
    found
}

/// Answers steps with what was recorded.
struct RecordedDriver {
    mocks: BTreeMap<String, (Arc<dyn Mock>, MockCell)>,
    entries: Vec<Entry>,
    steps: Mutex<VecDeque<RecordedStep>>,
    divergences: Mutex<Vec<Divergence>>,
    unix_s: u64,
}

struct RecordedStep {
    interface: String,
    verb: String,
    response: StepResponse,
}

impl RecordedDriver {
    fn new(plan: &Plan, entries: &[Entry], unix_ns: u64, run_key: Key) -> Self {
        let mut steps = VecDeque::new();
        // Attempts to see whether the service has recovered come after the scenario.
        for entry in entries.iter().filter(|entry| entry.phase != Phase::Start) {
            match &entry.body {
                Body::StepStarted(started) => steps.push_back(RecordedStep {
                    interface: started.interface.clone(),
                    verb: started.verb.clone(),
                    response: StepResponse::no_answer("the recording ends before the answer"),
                }),
                Body::StepEnded(ended) => {
                    if let (Some(step), Some(response)) = (steps.back_mut(), ended.response.value()) {
                        step.response = StepResponse::from_value(&response);
                    }
                }
                _ => {}
            }
        }
        let mocks = plan.topology.services.iter().filter_map(|service| match &service.kind {
            ServiceKind::Mock(mock) => {
                let cell = MockCell::new(&run_key, &service.name, plan.program.clone());
                Some((service.name.clone(), (mock.clone(), cell)))
            }
            _ => None,
        });
        RecordedDriver {
            mocks: mocks.collect(),
            steps: Mutex::new(steps),
            divergences: Mutex::default(),
            unix_s: unix_ns / 1_000_000_000,
            entries: entries.to_vec(),
        }
    }

    fn divergences(&self) -> Vec<Divergence> {
        lock(&self.divergences).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Driver for RecordedDriver {
    fn step(&self, call: StepCall) -> StepResponse {
        let interface = format!("{}.{}", call.service, call.interface);
        let next = lock(&self.steps).pop_front();
        let wanted = format!("{} {interface}", call.verb);
        match next {
            Some(step) if step.interface == interface && step.verb == call.verb => {
                if let (ROTATE, Some((mock, cell))) = (call.verb.as_str(), self.mocks.get(&call.service)) {
                    // What it came to stands in the recorded answer.
                    mock::rotate(&**mock, cell, &call);
                }
                step.response
            }
            other => {
                lock(&self.divergences).push(Divergence::Stream {
                    stream: "steps".to_owned(),
                    at: 0,
                    recorded: other.map(|step| format!("{} {}", step.verb, step.interface)),
                    replayed: Some(wanted),
                    differences: Vec::new(),
                    recorded_seq: None,
                    replayed_seq: None,
                });
                StepResponse::no_answer("this step was not recorded")
            }
        }
    }

    fn sign(&self, mock: &str, request: SignRequest) -> Result<String, MockError> {
        match self.mocks.get(mock) {
            Some((declared, cell)) => declared.sign(cell, &request),
            None => Err(MockError(format!("{mock} is not a mock"))),
        }
    }

    fn assertion(&self, _held: bool, _message: &str, _location: &str) {}

    fn now_unix_s(&self) -> u64 {
        self.unix_s
    }

    fn print(&self, _text: &str) {}

    fn entries(&self) -> Vec<Entry> {
        self.entries.clone()
    }

    fn recover(&self, _within: Duration, attempt: &mut dyn FnMut() -> bool) -> bool {
        while !lock(&self.steps).is_empty() {
            if attempt() {
                return true;
            }
        }
        false
    }
}
