//! The event vocabulary: what a journal entry can say.
//!
//! Contract: portable, stored types only (`Vec`, `String`, `Option`, enums, fixed-width
//! integers). Live types of the engine are converted to these where they are noted.
//! Not modelled: anything that only one implementation could understand.
#![expect(missing_docs, reason = "the derive makes helper types without docs; every field here has its own")]

use crate::Value;
use rkyv::{Archive, Deserialize, Serialize};

/// A `String` as far as the format goes; a short one needs no memory of its own, and an exchange has many.
pub type Name = compact_str::CompactString;

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub struct Entry {
    /// Position in the run; assigned by the journal, unique, ascending.
    pub seq: u64,
    /// Monotonic nanoseconds since the run began.
    pub at_ns: u64,
    /// The cell it belongs to: index in the plan plus one, 0 for the run itself.
    pub cell: u32,
    /// When in the cell.
    pub phase: Phase,
    /// Who did it: a service's name, `test`, or `faultbox`.
    pub actor: Name,
    /// The ordered sequence it belongs to (`source>service.interface:key` for exchanges).
    pub stream: String,
    /// Position in the stream, from 0.
    pub ordinal: u64,
    /// `seq` of the entry that caused it, if known.
    pub cause: Option<u64>,
    /// What happened.
    pub body: Body,
}

impl AsRef<Entry> for Entry {
    fn as_ref(&self) -> &Entry {
        self
    }
}

/// The phases of a cell (only `Scenario` is digested and matched strictly).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub enum Phase {
    /// Not in a cell.
    Run,
    /// Services come up, readiness, seeding.
    Start,
    /// From the activation of the faults until the scenario returned and nothing is open.
    Scenario,
    /// What begins later.
    Tail,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum Body {
    /// The run began.
    RunStarted(RunStarted),
    /// A file that the run read: the spec tree, descriptors, loaded files.
    File(StoredFile),
    /// A fact about the host (kernel, isolation, seccomp mode) in words.
    HostFact(Named),
    /// A cell began.
    CellStarted(CellStarted),
    /// The addresses of this cell: `address` text stands for `@service.interface`.
    Addresses(Vec<Named>),
    /// A phase of the cell began (`Entry::phase` is the new one).
    PhaseBegan,
    /// The rules of an assumption became active or inactive.
    FaultWindow(FaultWindow),
    /// A service's process began.
    ServiceStarted(ServiceStarted),
    /// A service answered its health check.
    ServiceReady(String),
    /// A service's process ended.
    ServiceExited(ServiceExited),
    /// Something a service printed.
    Output(Output),
    /// The test driver asks.
    StepStarted(StepStarted),
    /// The test driver got its answer.
    StepEnded(StepEnded),
    /// One request and its response on the wire.
    Exchange(Exchange),
    /// One seeded or counted choice of a rule.
    Decision(Decision),
    /// A syscall that a rule looked at.
    Syscall(Syscall),
    /// A token that a mock issuer signed for the scenario.
    Signed(Signed),
    /// An assertion of the scenario or of an expectation.
    Assertion(Assertion),
    /// A cell's result.
    Verdict(Verdict),
    /// The run ended; entries after it do not exist.
    RunEnded(RunEnded),
    /// An entry of a kind that this version does not know.
    Unknown(UnknownBody),
}

/// Bytes that stand in the entry, or a reference to the bundle's payload store.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Payload {
    /// The bytes themselves.
    Inline(Vec<u8>),
    /// BLAKE3 of the bytes, and their number.
    Blob {
        /// BLAKE3 of the bytes.
        hash: [u8; 32],
        /// Length in bytes.
        len: u64,
    },
}

impl Payload {
    /// An encoded value.
    pub fn of(value: &Value) -> Self {
        Payload::Inline(value.encode())
    }

    /// The value, where the bytes are at hand and well formed.
    pub fn value(&self) -> Option<Value> {
        match self {
            Payload::Inline(bytes) => Value::decode(bytes).ok(),
            Payload::Blob { .. } => None,
        }
    }

    /// The bytes, where they are at hand.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Payload::Inline(bytes) => Some(bytes),
            Payload::Blob { .. } => None,
        }
    }
}

/// Service and name of an interface that is written `service.interface`; without a dot there is no name.
/// Neither has a dot in it.
pub fn split_interface(interface: &str) -> (&str, &str) {
    interface.split_once('.').unwrap_or((interface, ""))
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// See [`Body::RunStarted`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RunStarted {
    /// The run's seed.
    pub seed: u64,
    /// Where the seed came from: `cli` or `generated`.
    pub seed_source: String,
    /// Version of the tool that wrote the bundle.
    pub tool_version: String,
    /// The command line, without its program.
    pub command: Vec<String>,
    /// Wall clock at the start, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Path of the root spec inside the stored tree.
    pub spec: String,
}

/// See [`Body::File`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StoredFile {
    /// Path relative to the spec's root, `/` separated, never leaving it.
    pub path: String,
    /// `spec`, `loaded`, `descriptors`, `binary`.
    pub role: String,
    /// The service it belongs to (binaries), else empty.
    pub service: String,
    /// BLAKE3 of the content.
    pub digest: [u8; 32],
    /// The content; `None` where only the digest is kept.
    pub content: Option<Payload>,
}

/// See [`Body::CellStarted`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CellStarted {
    /// The cell's name (`matrix_<scenario>_<fault>` or `test_...`).
    pub name: String,
    /// The scenario's name.
    pub scenario: String,
    /// The assumption's name, in a matrix.
    pub assumption: Option<String>,
    /// The expectation in words.
    pub expectation: String,
}

/// See [`Body::FaultWindow`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct FaultWindow {
    /// The assumption.
    pub assumption: String,
    /// Active or not from here on.
    pub active: bool,
    /// `service` or `service.interface` per rule, in order of the rules.
    pub targets: Vec<String>,
    /// The rules in words, in order.
    pub rules: Vec<String>,
}

/// See [`Body::ServiceStarted`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ServiceStarted {
    /// The service.
    pub service: String,
    /// Its process id (0 where it has none of its own).
    pub pid: u32,
    /// What runs: a path relative to the spec, or `stand-in mysql`, `mock jwt`.
    pub program: String,
    /// BLAKE3 of the binary, where there is one.
    pub digest: Option<[u8; 32]>,
    /// Arguments.
    pub args: Vec<String>,
    /// The environment that it was given.
    pub env: Vec<Named>,
    /// Whether it runs in a network namespace of its own.
    pub isolated: bool,
}

/// How long the local executables of a cell took to be ready, nanoseconds; what they did in that time
/// is their own.
pub fn own_start_ns<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> u64 {
    let (mut began, mut own) = (std::collections::BTreeMap::new(), 0u64);
    for entry in entries {
        match &entry.body {
            // Only executables have a digest.
            Body::ServiceStarted(started) if started.digest.is_some() => {
                began.insert(started.service.as_str(), entry.at_ns);
            }
            Body::ServiceReady(service) => {
                let took =
                    began.remove(service.as_str()).map_or(0, |began| entry.at_ns.saturating_sub(began));
                own = own.saturating_add(took);
            }
            _ => {}
        }
    }
    own
}

/// See [`Body::ServiceExited`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ServiceExited {
    /// The service.
    pub service: String,
    /// Exit code.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Whether Faultbox asked it to end.
    pub asked: bool,
}

/// See [`Body::Output`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Output {
    /// The service.
    pub service: String,
    /// True for stderr, false for stdout.
    pub stderr: bool,
    /// What was printed, as it came.
    pub bytes: Vec<u8>,
}

/// See [`Body::StepStarted`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StepStarted {
    /// Number of the step in the cell, from 0.
    pub step: u32,
    /// `service.interface`.
    pub interface: String,
    /// The verb.
    pub verb: String,
    /// Arguments as a map ([`Value`]).
    pub arguments: Payload,
    /// `file:line` in the spec.
    pub location: String,
}

/// See [`Body::StepEnded`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StepEnded {
    /// Number of the step.
    pub step: u32,
    /// The response as a map ([`Value`]); `duration_ms` in it is volatile.
    pub response: Payload,
}

/// One request and its response on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Exchange {
    /// The protocol's registered name.
    pub protocol: Name,
    /// Who asked: a service's name or `test`.
    pub source: Name,
    /// Who was asked: `service.interface`.
    pub interface: Name,
    /// Connection number in the cell (never part of a digest).
    pub connection: u64,
    /// What was asked, for people: `SELECT`, `GET /orders`, `Produce`.
    pub operation: Name,
    /// The stable key: identifies the request without generated values.
    pub key: String,
    /// How it counts.
    pub class: Class,
    /// Whether it may change the state of who is asked.
    pub mutating: bool,
    /// Whether an identical request that follows at once is a retry that may collapse.
    pub repeatable: bool,
    /// The request as a [`Value`].
    pub request: Payload,
    /// How it ended.
    pub outcome: Outcome,
    /// The response as a [`Value`], where there was one.
    pub response: Option<Payload>,
    /// The rule that acted on it.
    pub rule: Option<RuleHit>,
    /// Monotonic nanoseconds of the request since the run began.
    pub began_ns: u64,
    /// Monotonic nanoseconds of the end.
    pub ended_ns: u64,
    /// Journal position when the request arrived (entries below it came before).
    pub began_seq: u64,
}

/// How an exchange counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Class {
    /// A request that does work: digested and matched.
    Work,
    /// Handshakes, membership, session set-up: answered live in a replay, not digested.
    Control,
    /// Heartbeats, empty polls, metadata refreshes, pings: counted, not digested.
    Ambient,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Outcome {
    /// A response was delivered.
    Answered,
    /// A rule cut the connection instead of an answer.
    Dropped,
    /// The side that was asked closed or failed without an answer.
    Failed,
    /// The side that asked went away before the answer.
    Abandoned,
    /// The protocol has no response for it (acks=0, COM_STMT_CLOSE, a push).
    OneWay,
}

/// Which rule acted, and how.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RuleHit {
    /// The assumption.
    pub assumption: String,
    /// Index of the rule in it.
    pub index: u32,
    /// What was done, in the language's words: `delay 3000ms`, `error UNAVAILABLE`.
    pub action: String,
}

/// One choice of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Decision {
    /// The assumption.
    pub assumption: String,
    /// Index of the rule in it.
    pub index: u32,
    /// What the decision is about.
    pub key: String,
    /// Who asked.
    pub source: String,
    /// The how many-th match of the rule this was for that source, from 1.
    pub matched: u64,
    /// Position on the draw stream (assumption, index, key), from 0.
    pub draw: u64,
    /// Whether the rule acts.
    pub fired: bool,
    /// Whether it was about the service under test.
    pub on_sut: bool,
}

/// A syscall that a rule looked at.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Syscall {
    /// The service whose process made it.
    pub service: String,
    /// Its name (`pwrite64`).
    pub name: String,
    /// The family that the rule named (`write`).
    pub family: String,
    /// Resolved target: a path relative to the cell's directory, or `@service.interface`.
    pub target: String,
    /// What was done: `allow`, `deny EIO`, `delay 30ms`, `reset`.
    pub action: String,
    /// The rule that acted.
    pub rule: Option<RuleHit>,
    /// Whether the service is the one under test.
    pub on_sut: bool,
}

/// See [`Body::Signed`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Signed {
    /// The issuer service.
    pub service: String,
    /// The claims ([`Value`]).
    pub claims: Payload,
}

/// See [`Body::Assertion`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Assertion {
    /// Whether it held.
    pub held: bool,
    /// What it said.
    pub message: String,
    /// `file:line` in the spec.
    pub location: String,
}

/// How a cell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Ending {
    /// As expected.
    Passed,
    /// An assertion failed.
    Failed,
    /// The expectation was violated.
    Violated,
    /// Ran out of time without a verdict.
    Inconclusive,
    /// Faultbox or the environment could not do it.
    Error,
}

/// Whose failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Blame {
    /// Nobody's: the cell passed.
    None,
    /// The service under test.
    ServiceUnderTest,
    /// A dependency.
    Dependency,
    /// An injected fault.
    InjectedFault,
    /// Faultbox or the host.
    Faultbox,
    /// The spec.
    Spec,
}

/// A cell's result.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Verdict {
    /// How it ended.
    pub ending: Ending,
    /// `expect_success: status_code=503 (want < 500)`; empty when passed.
    pub reason: String,
    /// Whose it is.
    pub blame: Blame,
    /// Firing count per rule of the assumption, in order.
    pub fired: Vec<FaultCount>,
    /// True where the cell has faults and none fired.
    pub unreached: bool,
    /// Time from the scenario's start to its return, nanoseconds.
    pub scenario_ns: u64,
    /// Time of the whole cell, nanoseconds.
    pub cell_ns: u64,
    /// The cell digest under the default policy.
    pub digest: [u8; 32],
}

/// How often a rule fired.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct FaultCount {
    /// The assumption.
    pub assumption: String,
    /// Index of the rule in it.
    pub index: u32,
    /// The rule in words.
    pub rule: String,
    /// What it is aimed at.
    pub target: String,
    /// How often it matched.
    pub matched: u64,
    /// How often it acted.
    pub fired: u64,
}

/// See [`Body::RunEnded`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RunEnded {
    /// Cells that passed.
    pub passed: u32,
    /// Cells that did not.
    pub failed: u32,
    /// Whether the run was interrupted.
    pub interrupted: bool,
}

/// See [`Body::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct UnknownBody {
    /// The record kind in the file.
    pub kind: u16,
    /// Its bytes.
    pub bytes: Vec<u8>,
}
