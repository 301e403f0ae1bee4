//! The canonical form of a cell and its digest: what two runs of one seed have in common.
//!
//! Contract: a function of the cell's entries, the clock at the run's start and a named
//! policy; no I/O, no order of arrival between streams. Two cells have one digest if and
//! only if they had the same steps, exchanges, decisions on the service under test and the
//! same verdict (`FORMAT.md`, "The canonical form").
//! Not modelled: equality of times (a coarse clock makes two of them equal by chance), and
//! the order of exchanges of one stream that were open at once.

use crate::event::{Body, Class, Entry, Exchange, Outcome, Payload, Phase, RuleHit, Verdict};
use crate::generated::{Generated, Kind, Scanner, placeholder};
use crate::learned::{self, Rule, Side};
use crate::value::Value;
use regex::Regex;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

/// How strictly two runs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// What timing alone decides stays out: repeats of one request or decision count once,
    /// exchanges of one stream that overlap have no order, attempts to connect are counted only.
    #[default]
    Default,
    /// Nothing is collapsed or put in order; attempts to connect count.
    Strict,
}

impl Policy {
    /// The policy's name.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Default => "default",
            Policy::Strict => "strict",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One element of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The entry it comes from (not digested).
    pub seq: u64,
    /// In a few words, for people (not digested).
    pub label: String,
    /// The canonical content.
    pub value: Value,
    /// How many consecutive equal ones it stands for (not digested).
    pub repeats: u64,
}

/// A cell without what differs from run to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Canonical {
    /// The policy it was made under.
    pub policy: Policy,
    /// The streams by key.
    pub streams: BTreeMap<String, Vec<Item>>,
    /// What is counted and not digested.
    pub counted: BTreeMap<String, u64>,
    /// BLAKE3 over policy and streams.
    pub digest: [u8; 32],
}

/// The canonical form of a cell from its entries (payloads inline) and the wall clock at
/// the start of its run, nanoseconds since the Unix epoch.
pub fn of_cell(entries: &[Entry], unix_ns: u64, policy: Policy) -> Canonical {
    of_cell_by(entries, unix_ns, policy, &[])
}

/// As [`of_cell`], with rules for learned values beside those that the cell was recorded with.
pub fn of_cell_by(entries: &[Entry], unix_ns: u64, policy: Policy, rules: &[Rule]) -> Canonical {
    let verdict = entries.iter().rev().find_map(|entry| match &entry.body {
        Body::Verdict(verdict) => Some(verdict),
        _ => None,
    });
    of_cell_seen(entries, verdict, scanner_of(entries, unix_ns).with_rules(rules.iter().cloned()), policy)
}

/// As [`of_cell`], for a cell whose verdict is not among its entries yet.
pub fn of_cell_with(entries: &[Entry], verdict: Option<&Verdict>, unix_ns: u64, policy: Policy) -> Canonical {
    of_cell_seen(entries, verdict, scanner_of(entries, unix_ns), policy)
}

fn of_cell_seen(entries: &[Entry], verdict: Option<&Verdict>, scanner: Scanner, policy: Policy) -> Canonical {
    let known = learned_values(entries, &scanner);
    let scanner = scanner.knowing(known);
    let mut gathered = Gathered {
        policy,
        scanner: &scanner,
        ambient: ambient_decisions(entries),
        streams: BTreeMap::new(),
        counted: BTreeMap::new(),
        steps: BTreeMap::new(),
    };
    entries.iter().for_each(|entry| gathered.take(entry));
    if let Some(verdict) = verdict {
        gathered.verdict(verdict);
    }
    gathered.finish()
}

/// The scanner for a cell: its clock, its addresses and the rules that it was recorded with.
pub fn scanner_of(entries: &[Entry], unix_ns: u64) -> Scanner {
    let addresses = entries.iter().filter_map(|entry| match &entry.body {
        Body::Addresses(addresses) => Some(addresses),
        _ => None,
    });
    let scanner =
        addresses.fold(Scanner::new(unix_ns), |scanner, addresses| scanner.with_addresses(addresses));
    scanner.with_rules(rules_of(entries))
}

/// The rules for learned values that a cell was recorded with.
pub fn rules_of(entries: &[Entry]) -> impl Iterator<Item = Rule> {
    entries.iter().filter_map(|entry| match &entry.body {
        // A line that cannot be read is one of a later version: it finds nothing.
        Body::HostFact(fact) if fact.name == learned::FACT => Rule::parse(&fact.value).ok().flatten(),
        _ => None,
    })
}

/// A message of a cell that rules for learned values may be about.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// Its entry.
    pub entry: &'a Entry,
    /// `service.interface`.
    pub interface: &'a str,
    /// Which of an exchange it is.
    pub side: Side,
    /// What was asked, or the verb of a step.
    pub operation: &'a str,
    /// What it says.
    pub value: Value,
}

/// The messages of a cell's exchanges that do work, and the answers to its steps, in order.
pub fn messages(entries: &[Entry]) -> Vec<Message<'_>> {
    let mut steps = BTreeMap::new();
    let mut found = Vec::new();
    for entry in entries {
        match &entry.body {
            Body::Exchange(exchange) if exchange.class == Class::Work => {
                let sides =
                    [(Side::Request, Some(&exchange.request)), (Side::Response, exchange.response.as_ref())];
                for (side, payload) in sides {
                    let (interface, operation) = (exchange.interface.as_str(), exchange.operation.as_str());
                    found.extend(payload.map(|payload| {
                        let value = content(payload);
                        Message { entry, interface, side, operation, value }
                    }));
                }
            }
            Body::StepStarted(step) => {
                steps.insert(step.step, step);
            }
            Body::StepEnded(ended) => found.extend(steps.get(&ended.step).map(|step| Message {
                entry,
                interface: &step.interface,
                side: Side::Step,
                operation: &step.verb,
                value: step_response(&content(&ended.response)),
            })),
            _ => {}
        }
    }
    found
}

/// The places of those rules that find nothing in any of these cells: their entries, and the wall clock at the
/// start of their run.
pub fn find_nothing<E: AsRef<[Entry]>>(
    cells: impl IntoIterator<Item = (E, u64)>,
    rules: &[&Rule],
) -> Vec<usize> {
    let mut idle: Vec<(usize, &Rule)> = rules.iter().copied().enumerate().collect();
    let mut cells = cells.into_iter();
    while !idle.is_empty()
        && let Some((entries, unix_ns)) = cells.next()
    {
        let (scanner, messages) = (scanner_of(entries.as_ref(), unix_ns), messages(entries.as_ref()));
        idle.retain(|(_, rule)| {
            let alone = scanner.clone().with_only((*rule).clone());
            !messages.iter().any(|message| {
                let alone = alone.about(message.interface, message.operation, Some(message.side));
                !alone.learned(&message.value).is_empty()
            })
        });
    }
    idle.into_iter().map(|(place, _)| place).collect()
}

/// What rules find in a cell's messages, as far as it is known wherever it stands.
fn learned_values(entries: &[Entry], scanner: &Scanner) -> BTreeSet<String> {
    if scanner.rules().is_empty() {
        return BTreeSet::new();
    }
    let of = |message: Message<'_>| {
        let scanner = scanner.about(message.interface, message.operation, Some(message.side));
        scanner.learned(&message.value)
    };
    messages(entries).into_iter().flat_map(of).filter(|value| learned::is_telling(value)).collect()
}

/// Text without its durations: `took 5003ms` and `took 5001ms` say the same.
pub fn without_durations(text: &str) -> String {
    static DURATION: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"[0-9]+(?:\.[0-9]+)?\s?(?:ns|us|µs|ms|s)([^A-Za-z0-9]|$)").expect("well formed")
    });
    DURATION.replace_all(text, "<duration>$1").into_owned()
}

/// A candidate: not numbered yet, with what decides about order and repeats.
struct Raw {
    seq: u64,
    began_ns: u64,
    ended_ns: u64,
    label: String,
    value: Value,
    /// The value with unnumbered holes, encoded: the same in every bundle.
    shape: Vec<u8>,
    /// The same with the tokens of secrets as they are in this bundle.
    exact: Vec<u8>,
    collapses: bool,
    /// Who knows what is made up in it, where that is another one than for the cell.
    scanner: Option<Scanner>,
}

struct Gathered<'a> {
    policy: Policy,
    scanner: &'a Scanner,
    ambient: BTreeSet<(String, String)>,
    streams: BTreeMap<String, Vec<Raw>>,
    counted: BTreeMap<String, u64>,
    /// Interface and verb of the steps that have begun.
    steps: BTreeMap<u32, (String, String)>,
}

impl Gathered<'_> {
    fn take(&mut self, entry: &Entry) {
        let scenario = entry.phase == Phase::Scenario;
        // An expectation judges, and a step may end, after the scenario returned.
        let or_tail = scenario || entry.phase == Phase::Tail;
        match &entry.body {
            Body::Exchange(exchange) if scenario => self.exchange(entry, exchange),
            Body::Decision(d) if scenario && d.on_sut => {
                let ambient = d.key == "connection"
                    || is_connect(&d.key)
                    || d.key.starts_with("member ")
                    || self.ambient.contains(&(d.source.clone(), d.key.clone()));
                if ambient && self.policy == Policy::Default {
                    return self.count("decision about connections and ambient exchanges");
                }
                let value = Value::map([
                    ("decision", rule(&d.assumption, d.index)),
                    ("key", Value::text(d.key.clone())),
                    ("source", Value::text(d.source.clone())),
                    ("fired", Value::Bool(d.fired)),
                ]);
                let word = if d.fired { "acts on" } else { "spares" };
                let label = format!("{}#{} {word} {}", d.assumption, d.index, d.key);
                self.push(
                    &format!("decision {}#{}:{}", d.assumption, d.index, d.key),
                    entry,
                    label,
                    value,
                    true,
                );
            }
            Body::Syscall(s) if scenario && s.on_sut => {
                if s.family == "connect" && self.policy == Policy::Default {
                    return self.count("syscall connect");
                }
                let value = Value::map([
                    ("syscall", Value::text(s.name.clone())),
                    ("family", Value::text(s.family.clone())),
                    ("target", Value::text(s.target.clone())),
                    ("action", Value::text(s.action.clone())),
                    ("rule", hit(s.rule.as_ref())),
                ]);
                let label = format!("{} {} -> {}", s.name, s.target, s.action);
                self.push(
                    &format!("syscall {}:{}:{}", s.service, s.family, s.target),
                    entry,
                    label,
                    value,
                    true,
                );
            }
            Body::StepStarted(step) if scenario => {
                self.steps.insert(step.step, (step.interface.clone(), step.verb.clone()));
                let value = Value::map([
                    ("step", Value::Int(i64::from(step.step))),
                    ("interface", Value::text(step.interface.clone())),
                    ("verb", Value::text(step.verb.clone())),
                    ("arguments", content(&step.arguments)),
                ]);
                let label = format!("step {} {} {}", step.step, step.verb, step.interface);
                self.push("steps", entry, label, value, false);
            }
            Body::StepEnded(step) if or_tail => {
                let Some((interface, verb)) = self.steps.get(&step.step) else { return };
                let scanner = self.scanner.about(interface, verb, None);
                let value = Value::map([
                    ("step", Value::Int(i64::from(step.step))),
                    ("response", step_response(&content(&step.response))),
                ]);
                let label = format!("answer to step {}", step.step);
                let raw = self.raw(own(scanner), entry.seq, entry.at_ns, label, value, false);
                self.streams.entry("steps".to_owned()).or_default().push(raw);
            }
            Body::Signed(signed) if scenario => {
                let value = Value::map([
                    ("issuer", Value::text(signed.service.clone())),
                    ("claims", content(&signed.claims)),
                ]);
                self.push("signed", entry, format!("token of {}", signed.service), value, false);
            }
            Body::Assertion(assertion) if or_tail => {
                let value = Value::map([
                    ("held", Value::Bool(assertion.held)),
                    ("message", Value::text(without_durations(&assertion.message))),
                    ("location", Value::text(assertion.location.clone())),
                ]);
                let word = if assertion.held { "held" } else { "failed" };
                self.push(
                    "assertions",
                    entry,
                    format!("assertion {word}: {}", assertion.message),
                    value,
                    false,
                );
            }
            _ => {}
        }
    }

    fn exchange(&mut self, entry: &Entry, exchange: &Exchange) {
        match exchange.class {
            Class::Work => {}
            Class::Control => return self.count(&format!("control {}", exchange.interface)),
            Class::Ambient => return self.count(&format!("ambient {}", exchange.interface)),
        }
        let response = exchange.response.as_ref().map(content).unwrap_or_default();
        let value = Value::map([
            ("protocol", Value::text(exchange.protocol.clone())),
            ("operation", Value::text(exchange.operation.clone())),
            ("request", content(&exchange.request)),
            ("outcome", Value::text(outcome(exchange.outcome))),
            ("response", response),
            ("rule", hit(exchange.rule.as_ref())),
        ]);
        let Exchange { source, interface, operation, key, .. } = exchange;
        let label = format!("{source} -> {interface} {operation} ({})", outcome(exchange.outcome));
        let scanner = self.scanner.about(interface, operation, None);
        let key = match &scanner {
            Cow::Owned(scanner) => scanner.keyed(key, &value),
            Cow::Borrowed(_) => key.clone(),
        };
        let stream = self.scanner_key(&format!("{source}>{interface}:{key}"));
        let mut raw = self.raw(own(scanner), entry.seq, entry.at_ns, label, value, exchange.repeatable);
        (raw.began_ns, raw.ended_ns) = (exchange.began_ns, exchange.ended_ns);
        self.streams.entry(stream).or_default().push(raw);
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let value = Value::map([
            ("ending", Value::text(format!("{:?}", verdict.ending).to_lowercase())),
            ("reason", Value::text(without_durations(&verdict.reason))),
        ]);
        let ending = format!("{:?}", verdict.ending).to_lowercase();
        let reason = if verdict.reason.is_empty() { "" } else { ": " };
        let label = format!("verdict {ending}{reason}{}", verdict.reason);
        let raw = self.raw(None, u64::MAX, 0, label, value, false);
        self.streams.entry("verdict".to_owned()).or_default().push(raw);
    }

    fn push(&mut self, stream: &str, entry: &Entry, label: String, value: Value, collapses: bool) {
        let raw = self.raw(None, entry.seq, entry.at_ns, label, value, collapses);
        self.streams.entry(self.scanner_key(stream)).or_default().push(raw);
    }

    fn raw(
        &self,
        scanner: Option<Scanner>,
        seq: u64,
        at_ns: u64,
        label: String,
        value: Value,
        collapses: bool,
    ) -> Raw {
        let seen = scanner.as_ref().unwrap_or(self.scanner);
        let shape = seen.replace(&value, &mut |generated| placeholder(generated)).encode();
        let exact = seen.template(&value).encode();
        Raw { seq, began_ns: at_ns, ended_ns: at_ns, label, value, shape, exact, collapses, scanner }
    }

    /// A stream's key never holds a generated value by contract; if it does, it is a hole.
    fn scanner_key(&self, stream: &str) -> String {
        self.scanner.replace_text(stream, &mut |generated| placeholder(generated))
    }

    fn count(&mut self, what: &str) {
        *self.counted.entry(what.to_owned()).or_default() += 1;
    }

    fn finish(self) -> Canonical {
        let mut numbers = Numbers::default();
        let mut streams = BTreeMap::new();
        let collapse = self.policy == Policy::Default;
        for (key, mut raws) in self.streams {
            raws.sort_by_key(|raw| (raw.began_ns, raw.seq));
            let mut items: Vec<Item> = Vec::with_capacity(raws.len());
            let mut last: Option<Vec<u8>> = None;
            for mut group in groups(raws, collapse) {
                if group.len() > 1 {
                    // Of those that look alike, the one that speaks of the older ids comes first.
                    group.sort_by_cached_key(|raw| {
                        let scanner = raw.scanner.as_ref().unwrap_or(self.scanner);
                        let known = scanner.replace(&raw.value, &mut |generated| numbers.peek(generated));
                        (raw.shape.clone(), known.encode(), raw.seq)
                    });
                }
                for raw in group {
                    let repeated = collapse && raw.collapses && last.as_ref() == Some(&raw.exact);
                    if let (true, Some(item)) = (repeated, items.last_mut()) {
                        item.repeats += 1;
                        continue;
                    }
                    let scanner = raw.scanner.as_ref().unwrap_or(self.scanner);
                    let value = scanner.replace(&raw.value, &mut |generated| numbers.name(generated));
                    items.push(Item { seq: raw.seq, label: raw.label, value, repeats: 1 });
                    last = Some(raw.exact);
                }
            }
            streams.insert(key, items);
        }
        let digest = digest(self.policy, &streams);
        Canonical { policy: self.policy, streams, counted: self.counted, digest }
    }
}

/// A scanner that is another one than the cell's.
fn own(scanner: Cow<'_, Scanner>) -> Option<Scanner> {
    match scanner {
        Cow::Owned(scanner) => Some(scanner),
        Cow::Borrowed(_) => None,
    }
}

/// Runs of exchanges of one stream that were open at once: these have no order of their own,
/// theirs is that of their content. One by one where order of arrival counts.
fn groups(raws: Vec<Raw>, overlapping: bool) -> Vec<Vec<Raw>> {
    let mut groups: Vec<Vec<Raw>> = Vec::new();
    let mut open_until = 0;
    for raw in raws {
        let ended_ns = raw.ended_ns;
        match groups.last_mut() {
            Some(group) if overlapping && raw.began_ns < open_until => {
                open_until = open_until.max(ended_ns);
                group.push(raw);
            }
            _ => {
                open_until = ended_ns;
                groups.push(vec![raw]);
            }
        }
    }
    groups
}

/// Numbers generated values by first appearance.
#[derive(Default)]
struct Numbers {
    known: BTreeMap<(Kind, String), u64>,
    next: BTreeMap<Kind, u64>,
}

impl Numbers {
    /// The number of a value that has one, else an unnumbered hole.
    fn peek(&self, generated: &Generated) -> String {
        match self.known.get(&(generated.kind, generated.identity())) {
            Some(number) => format!("<{} {number}>", generated.kind.word()),
            None => placeholder(generated),
        }
    }

    fn name(&mut self, generated: &Generated) -> String {
        if !generated.identifies() {
            return placeholder(generated);
        }
        let key = (generated.kind, generated.identity());
        let next = self.next.entry(generated.kind).or_default();
        let number = *self.known.entry(key).or_insert_with(|| {
            *next += 1;
            *next
        });
        match generated.kind {
            Kind::Secret => format!("<secret {} {number}>", generated.name),
            kind => format!("<{} {number}>", kind.word()),
        }
    }
}

fn digest(policy: Policy, streams: &BTreeMap<String, Vec<Item>>) -> [u8; 32] {
    fn sized(hasher: &mut blake3::Hasher, bytes: &[u8]) {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    let mut hasher = blake3::Hasher::new();
    sized(&mut hasher, b"faultbox cell 1");
    sized(&mut hasher, policy.name().as_bytes());
    for (key, items) in streams {
        sized(&mut hasher, key.as_bytes());
        hasher.update(&(items.len() as u64).to_le_bytes());
        items.iter().for_each(|item| sized(&mut hasher, &item.value.encode()));
    }
    *hasher.finalize().as_bytes()
}

/// (asker, key) of exchanges that are ambient or control and never work: a decision about
/// one of them happens when a heartbeat does.
fn ambient_decisions(entries: &[Entry]) -> BTreeSet<(String, String)> {
    let mut ambient = BTreeSet::new();
    let mut work = BTreeSet::new();
    for entry in entries {
        if let Body::Exchange(exchange) = &entry.body {
            let set = if exchange.class == Class::Work { &mut work } else { &mut ambient };
            set.insert((exchange.source.to_string(), exchange.key.clone()));
        }
    }
    &ambient - &work
}

/// Keys of decisions about attempts to connect: `connect` and what it goes to.
fn is_connect(key: &str) -> bool {
    key.strip_prefix("connect").is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

fn rule(assumption: &str, index: u32) -> Value {
    Value::text(format!("{assumption}#{index}"))
}

fn hit(rule: Option<&RuleHit>) -> Value {
    rule.map_or(Value::Null, |hit| Value::text(format!("{}#{} {}", hit.assumption, hit.index, hit.action)))
}

/// The value of a payload; bytes that are no value stay bytes, and what is not at hand is
/// known by its hash.
fn content(payload: &Payload) -> Value {
    match payload {
        Payload::Inline(bytes) => {
            Value::decode(bytes).map_or_else(|_| Value::Bytes(bytes.clone()), |value| value.stable())
        }
        Payload::Blob { hash, len } => {
            Value::map([("blob", Value::Bytes(hash.to_vec())), ("len", Value::UInt(*len))])
        }
    }
}

/// The words for why there was no answer may name how long was waited.
fn step_response(response: &Value) -> Value {
    match response {
        Value::Map(fields) => {
            let field = |(name, value): &(String, Value)| match value {
                Value::Text(text) if name == "error" => (name.clone(), Value::Text(without_durations(text))),
                _ => (name.clone(), value.clone()),
            };
            Value::Map(fields.iter().map(field).collect())
        }
        other => other.clone(),
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::Dropped => "dropped",
        Outcome::Failed => "failed",
        Outcome::Abandoned => "abandoned",
        Outcome::OneWay => "one way",
    }
}
