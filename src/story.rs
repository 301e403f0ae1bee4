//! The story of a cell: its entries in words and in their order, for `inspect` and `report`.
//!
//! Contract: a function of the entries. What services said and sent is told as it was recorded; whoever
//! shows it makes it harmless for where it is shown.

use faultbox_bundle_format::{Body, Class, Entry, Exchange, Outcome, Output, Payload, Phase};
use faultbox_replayer::diff::show;
use std::collections::{BTreeMap, BTreeSet};

/// How much somebody must want to see to be shown this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// What led to the result.
    Story,
    /// Shown to who looks at one cell.
    Detail,
    /// Session set-up, pings, decisions: there, and seldom the reason.
    Aside,
}

/// One line of a story.
pub struct Told<'a> {
    /// When it began, nanoseconds since the run began.
    pub at_ns: u64,
    /// What is told; of a printed line the entry that ended it.
    pub entry: &'a Entry,
    /// Who wants to see it.
    pub weight: Weight,
    /// A whole line that a service printed.
    pub printed: Option<String>,
}

impl Told<'_> {
    /// In words; with the requests themselves where it is to be whole.
    pub fn text(&self, whole: bool) -> String {
        match (&self.printed, &self.entry.body) {
            (Some(line), Body::Output(output)) => format!("{} says: {line}", output.service),
            _ => in_words(self.entry, whole),
        }
    }
}

/// Which entries a story is about.
pub struct Scope {
    every_phase: bool,
    /// When it begins, nanoseconds since the run began.
    pub base_ns: u64,
}

impl Scope {
    /// The scenario of a cell, or the whole cell: where it is asked for, and where there was no scenario.
    pub fn of(entries: &[Entry], every_phase: bool) -> Self {
        let every_phase = every_phase || !begun(entries);
        let first = entries.iter().find(|entry| every_phase || in_scenario(entry));
        Scope { every_phase, base_ns: first.map_or(0, |entry| entry.at_ns) }
    }

    /// Whether the entry belongs to it.
    pub fn holds(&self, entry: &Entry) -> bool {
        self.every_phase || in_scenario(entry)
    }
}

/// Whether the cell's scenario began.
pub fn begun(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.phase == Phase::Scenario)
}

fn in_scenario(entry: &Entry) -> bool {
    // Faults begin to act just before the scenario begins.
    entry.phase == Phase::Scenario || matches!(&entry.body, Body::FaultWindow(window) if window.active)
}

/// All entries of a cell as lines, in order of the entries.
pub fn tell(entries: &[Entry]) -> Vec<Told<'_>> {
    let seen = rules_seen(entries);
    let mut printed = Printed::default();
    let mut told = Vec::with_capacity(entries.len());
    for entry in entries {
        match &entry.body {
            Body::Output(output) => printed.add(entry, output, &mut told),
            Body::Exchange(exchange) => {
                told.push(Told {
                    at_ns: exchange.began_ns,
                    entry,
                    weight: weight(entry, &seen),
                    printed: None,
                });
            }
            _ => told.push(Told { at_ns: entry.at_ns, entry, weight: weight(entry, &seen), printed: None }),
        }
    }
    printed.end(&mut told);
    told.sort_by_key(|told| told.entry.seq);
    told
}

/// The rules (assumption, index) whose deeds stand in an exchange or a syscall.
fn rules_seen(entries: &[Entry]) -> BTreeSet<(&str, u32)> {
    let hit = |entry: &Entry| match &entry.body {
        Body::Exchange(exchange) => exchange.rule.is_some(),
        Body::Syscall(call) => call.rule.is_some(),
        _ => false,
    };
    let hits = entries.iter().filter(|entry| hit(entry)).filter_map(|entry| match &entry.body {
        Body::Exchange(Exchange { rule, .. }) => rule.as_ref(),
        Body::Syscall(call) => call.rule.as_ref(),
        _ => None,
    });
    hits.map(|hit| (hit.assumption.as_str(), hit.index)).collect()
}

fn weight(entry: &Entry, seen: &BTreeSet<(&str, u32)>) -> Weight {
    match &entry.body {
        Body::FaultWindow(_) | Body::StepStarted(_) | Body::StepEnded(_) | Body::ServiceExited(_) => {
            Weight::Story
        }
        Body::Exchange(exchange) if exchange.class == Class::Work => Weight::Story,
        Body::Exchange(exchange) if exchange.rule.is_some() => Weight::Detail,
        // Calls that a rule looked at and let pass are many and explain nothing.
        Body::Syscall(call) if call.rule.is_some() => Weight::Story,
        Body::Syscall(_) => Weight::Detail,
        Body::Assertion(assertion) if !assertion.held => Weight::Story,
        // A connection that was refused has no exchange: nothing else says that the fault fired.
        Body::Decision(d) if d.fired && !seen.contains(&(d.assumption.as_str(), d.index)) => Weight::Story,
        _ => Weight::Aside,
    }
}

/// A line that has not ended: when it began, its bytes so far, the last entry with some of them.
type Begun<'a> = (u64, Vec<u8>, Option<&'a Entry>);

/// What services print, put together to whole lines: a line can come in pieces. By service and whether it
/// was on stderr.
#[derive(Default)]
struct Printed<'a>(BTreeMap<(String, bool), Begun<'a>>);

impl<'a> Printed<'a> {
    fn add(&mut self, entry: &'a Entry, output: &Output, lines: &mut Vec<Told<'a>>) {
        let key = (output.service.clone(), output.stderr);
        let (began, mut text, _) = self.0.remove(&key).unwrap_or_default();
        let mut began = if text.is_empty() { entry.at_ns } else { began };
        for piece in output.bytes.split_inclusive(|byte| *byte == b'\n') {
            text.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                lines.extend(says(began, entry, &text));
                text.clear();
                began = entry.at_ns;
            }
        }
        if !text.is_empty() {
            self.0.insert(key, (began, text, Some(entry)));
        }
    }

    fn end(self, lines: &mut Vec<Told<'a>>) {
        for (began, text, entry) in self.0.into_values() {
            lines.extend(entry.and_then(|entry| says(began, entry, &text)));
        }
    }
}

fn says<'a>(at_ns: u64, entry: &'a Entry, line: &[u8]) -> Option<Told<'a>> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    let printed = Some(text.to_owned());
    (!text.is_empty()).then_some(Told { at_ns, entry, weight: Weight::Story, printed })
}

/// An entry in words.
fn in_words(entry: &Entry, whole: bool) -> String {
    match &entry.body {
        Body::FaultWindow(window) => {
            let word = if window.active { "active" } else { "over" };
            format!("fault {} {word}: {}", window.assumption, window.rules.join(", "))
        }
        Body::StepStarted(step) => {
            format!("step {}: {} {} {}", step.step, step.verb, step.interface, shown(&step.arguments))
        }
        Body::StepEnded(step) => {
            let response = step.response.value().unwrap_or_default();
            let field = |name: &str| response.get(name).map(show).unwrap_or_default();
            let error = field("error");
            let error = if error == "null" { String::new() } else { format!(", {error}") };
            format!("step {} answered: status {}{error}", step.step, field("status"))
        }
        Body::Exchange(exchange) => exchange_in_words(exchange, whole),
        Body::Syscall(call) => format!("{}: {} {} -> {}", call.service, call.name, call.target, call.action),
        Body::Assertion(assertion) => {
            let word = if assertion.held { "held" } else { "failed" };
            format!("assertion {word} at {}: {}", assertion.location, assertion.message)
        }
        Body::Decision(d) => {
            let word = if d.fired { "fired on" } else { "spared" };
            format!("fault {} {word} {} (asked by {}, match {})", d.assumption, d.key, d.source, d.matched)
        }
        _ => of_service(entry),
    }
}

/// What happens to services and cells, in words.
fn of_service(entry: &Entry) -> String {
    match &entry.body {
        Body::ServiceStarted(started) => format!("{} started: {}", started.service, started.program),
        Body::ServiceReady(service) => format!("{service} is ready"),
        Body::ServiceExited(exited) => {
            let how = match (exited.code, exited.signal) {
                (Some(code), _) => format!("exit code {code}"),
                (_, Some(signal)) => format!("signal {signal}"),
                _ => "its end was not seen".to_owned(),
            };
            let by = if exited.asked { "was stopped" } else { "ended by itself" };
            format!("{} {by} ({how})", exited.service)
        }
        Body::PhaseBegan => format!("phase: {}", phase(entry.phase)),
        Body::CellStarted(started) => format!("cell {} began, wants: {}", started.name, started.expectation),
        Body::Addresses(addresses) => {
            let one = |named: &faultbox_bundle_format::Named| format!("{} is {}", named.name, named.value);
            format!("addresses: {}", addresses.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Body::Signed(signed) => format!("{} signed a token: {}", signed.service, shown(&signed.claims)),
        Body::Verdict(verdict) => format!("verdict: {}", crate::terminal::word(verdict.ending)),
        Body::Unknown(unknown) => {
            format!("a record of kind {}, which this version does not know", unknown.kind)
        }
        _ => String::new(),
    }
}

/// A phase's name.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Run => "run",
        Phase::Start => "start",
        Phase::Scenario => "scenario",
        Phase::Tail => "tail",
    }
}

fn exchange_in_words(exchange: &Exchange, whole: bool) -> String {
    let outcome = match exchange.outcome {
        Outcome::Answered => format!("answered {}", brief(exchange.response.as_ref())),
        Outcome::Dropped => "connection cut by a rule".to_owned(),
        Outcome::Failed => format!("failed {}", brief(exchange.response.as_ref())),
        Outcome::Abandoned => "the asker went away".to_owned(),
        Outcome::OneWay => "no answer wanted".to_owned(),
    };
    let rule = exchange
        .rule
        .as_ref()
        .map(|hit| format!(" [{}: {}]", hit.assumption, hit.action))
        .unwrap_or_default();
    let ms = exchange.ended_ns.saturating_sub(exchange.began_ns) as f64 / 1e6;
    let request = if whole { format!(" {}", shown(&exchange.request)) } else { String::new() };
    let Exchange { source, interface, operation, .. } = exchange;
    format!("{source} -> {interface}: {operation}{request}, {outcome} after {ms:.2}ms{rule}")
}

fn shown(payload: &Payload) -> String {
    payload.value().map(|value| show(&value)).unwrap_or_default()
}

fn brief(payload: Option<&Payload>) -> String {
    let value = payload.and_then(Payload::value).unwrap_or_default();
    match value.get("status").or_else(|| value.get("err")).or_else(|| value.get("error")) {
        Some(status) => show(status),
        None => show(&value),
    }
}
