//! What a report shows, as JSON: an index of the cells, and each cell's entries.
//!
//! Contract: a function of the bundle. Times are microseconds; those of entries count from the beginning
//! of the scenario and can lie before it. Texts are made harmless for terminals and cut where they
//! are long, and say so; so is the number of entries.

use super::tree;
use crate::commands::test::{hex, verdict_json};
use crate::flaky::{Flaky, flaky};
use crate::host;
use crate::story::{self, Scope, Told, Weight};
use crate::terminal::{self, Findings, one_line, plain};
use faultbox_bundle_format::{
    Body, Bundle, CellSummary, Class, Ending, Entry, Exchange, Outcome, Payload, Phase, ReadError,
    RunStarted, split_interface,
};
use faultbox_engine::plan::run_of;
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Bytes of a request or a response that are shown.
const PAYLOAD: usize = 4096;
/// The same of session set-up and pings, which are many and alike.
const ASIDE: usize = 512;
/// Bytes of a line that are shown.
const LINE: usize = 2000;
/// Bytes of a spec's file that are shown.
const SOURCE: usize = 128 * 1024;
/// Entries of a cell that are shown: as many as a browser holds with ease.
const ENTRIES: usize = 200_000;

/// A bundle that is being put on a page.
pub struct Report<'a> {
    bundle: &'a Bundle,
    name: &'a str,
    started: Option<RunStarted>,
    host: Vec<(String, String)>,
    sources: Vec<(String, String)>,
}

impl<'a> Report<'a> {
    /// Reads what is said of the run.
    ///
    /// # Errors
    /// When that is damaged.
    pub fn of(bundle: &'a Bundle, name: &'a str) -> Result<Self, ReadError> {
        let mut report = Report { bundle, name, started: None, host: Vec::new(), sources: Vec::new() };
        for entry in bundle.raw_entries(0)? {
            match entry.body {
                Body::RunStarted(started) => report.started = Some(started),
                Body::HostFact(fact) => report.host.push((one_line(&fact.name), one_line(&fact.value))),
                Body::File(file) if file.role == "spec" => {
                    if let Some(content) = bundle.file(&file.path)? {
                        let text = tree::cut(plain(&String::from_utf8_lossy(&content)).as_ref(), SOURCE);
                        report.sources.push((file.path, text));
                    }
                }
                _ => {}
            }
        }
        Ok(report)
    }

    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.bundle.cells().len()
    }

    /// What the grid and the page's head show.
    pub fn index(&self) -> Json {
        let started = self.started.as_ref();
        let results = self.bundle.cells().iter().map(|cell| (cell.name.as_str(), cell.verdict.as_ref()));
        let flaky = flaky(results);
        let sources = self.sources.iter().map(|(path, text)| json!({ "path": one_line(path), "text": text }));
        json!({
            "bundle": one_line(self.name),
            "recorded": started.map(|s| host::date_and_time(s.unix_ns)),
            "tool": started.map(|s| one_line(&s.tool_version)),
            // A seed can be larger than what a script's numbers hold exactly.
            "seed": started.map(|s| s.seed.to_string()),
            "command": started.map(|s| one_line(&format!("faultbox {}", s.command.join(" ")))),
            "digest": self.bundle.digest().map(|digest| hex(&digest)),
            "notices": self.notices(),
            "flaky": flaky.iter().map(Flaky::line).collect::<Vec<_>>(),
            "host": self.host,
            "sources": sources.collect::<Vec<_>>(),
            "cells": self.bundle.cells().iter().map(|cell| self.head(cell)).collect::<Vec<_>>(),
        })
    }

    fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        if !self.bundle.is_complete() {
            notices.push(
                "The run that wrote this bundle was cut short: this is all up to its last whole chunk."
                    .to_owned(),
            );
        }
        if let Some(damage) = self.bundle.damage() {
            notices.push(format!("{} bytes are lost from byte {} on.", damage.lost, damage.at));
        }
        let unknown = self.bundle.index().unknown.len();
        if unknown > 0 {
            notices.push(format!("{unknown} records are of kinds that this version does not know."));
        }
        notices
    }

    /// A cell as the grid shows it; what cannot be read has nothing to say of itself, and no page is made of it.
    fn head(&self, cell: &CellSummary) -> Json {
        let findings =
            self.bundle.raw_entries(cell.cell).map(|entries| Findings::of(&entries)).unwrap_or_default();
        let mut json = match &cell.verdict {
            Some(verdict) => harmless(verdict_json(&cell.name, verdict)),
            None => json!({ "name": one_line(&cell.name), "verdict": "incomplete" }),
        };
        if let Some(map) = json.as_object_mut() {
            let (of, run) = run_of(&cell.name);
            map.insert("of".to_owned(), one_line(of).into());
            map.insert("run".to_owned(), run.into());
            map.insert("findings".to_owned(), findings.lines().into());
            map.insert("state".to_owned(), state(cell).into());
            map.insert("scenario".to_owned(), one_line(&cell.scenario).into());
            map.insert("fault".to_owned(), cell.assumption.as_ref().map(|name| one_line(name)).into());
            map.insert("expectation".to_owned(), one_line(&cell.expectation).into());
            let seed = self.started.as_ref().map_or(0, |started| started.seed);
            let again = terminal::replay_line(Path::new(self.name), &cell.name, seed);
            map.insert("again".to_owned(), again.into());
        }
        json
    }

    /// A cell's entries, and the lines of the spec that made it.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn cell(&self, place: usize) -> Result<Json, ReadError> {
        let Some(summary) = self.bundle.cells().get(place) else { return Ok(Json::Null) };
        let entries = self.bundle.entries(summary.cell)?;
        let scope = Scope::of(&entries, false);
        let mut told = story::tell(&entries);
        told.sort_by_key(|told| told.at_ns);
        let cut = told.len().saturating_sub(ENTRIES);
        // What led to the end matters most.
        let mut page = Page { base_ns: scope.base_ns, ..Page::default() };
        let events: Vec<Json> = told[cut..].iter().map(|told| page.event(told, &scope)).collect();
        Ok(json!({
            "lanes": page.lanes,
            "texts": page.texts,
            "events": events,
            "cut": cut,
            "places": self.places(summary, &entries),
        }))
    }

    /// Where the spec says what this cell does: its steps and failed assertions, its scenario, its fault.
    fn places(&self, cell: &CellSummary, entries: &[Entry]) -> Vec<String> {
        let mut places: BTreeSet<(String, u64)> = BTreeSet::new();
        for entry in entries {
            let location = match &entry.body {
                Body::StepStarted(step) => &step.location,
                Body::Assertion(assertion) if !assertion.held => &assertion.location,
                _ => continue,
            };
            if let Some((path, line)) = location.rsplit_once(':')
                && let Ok(line) = line.parse()
            {
                places.insert((path.to_owned(), line));
            }
        }
        let scenario = format!("def {}(", cell.scenario);
        let fault = cell.assumption.as_ref().map(|name| format!("\"{name}\""));
        for (path, text) in &self.sources {
            let begins = |line: &str| line.starts_with(&scenario);
            let names = |line: &str| {
                fault.as_ref().is_some_and(|fault| line.contains("fault_assumption(") && line.contains(fault))
            };
            let found = (1..).zip(text.lines()).filter(|(_, line)| begins(line) || names(line));
            places.extend(found.map(|(number, _)| (path.clone(), number)));
        }
        places.into_iter().map(|(path, line)| format!("{}:{line}", one_line(&path))).collect()
    }
}

/// What a cell's colour says: more than its verdict.
fn state(cell: &CellSummary) -> &'static str {
    match &cell.verdict {
        None => "incomplete",
        Some(verdict) => match verdict.ending {
            Ending::Passed if verdict.unreached => "unreached",
            Ending::Passed => "passed",
            Ending::Failed | Ending::Violated => "failed",
            Ending::Inconclusive => "inconclusive",
            Ending::Error => "error",
        },
    }
}

/// The document with every text made harmless.
fn harmless(json: Json) -> Json {
    match json {
        Json::String(text) => Json::String(plain(&text).into_owned()),
        Json::Array(items) => items.into_iter().map(harmless).collect(),
        Json::Object(fields) => fields.into_iter().map(|(name, value)| (name, harmless(value))).collect(),
        other => other,
    }
}

/// A cell's part of the page: what its entries refer to by number.
#[derive(Default)]
struct Page {
    base_ns: u64,
    lanes: Vec<String>,
    texts: Vec<String>,
    known: BTreeMap<String, usize>,
}

impl Page {
    /// One line: short names, since there can be very many.
    ///
    /// `s` number of the entry, `t` when, `d` how long, `p` phase unless scenario, `k` kind, `w` lane,
    /// `x` text, `y` part of the story, `f` who asked, `q` and `r` request and response among the
    /// texts, `o` outcome, `c` class unless work, `u` the rule, `a` place in the spec, `n` number of the
    /// step, `b` bad.
    fn event(&mut self, told: &Told<'_>, scope: &Scope) -> Json {
        let entry = told.entry;
        let mut event = Map::new();
        let mut put = |name: &str, value: Json| event.insert(name.to_owned(), value);
        put("s", entry.seq.into());
        put("t", micros(told.at_ns, self.base_ns).into());
        if entry.phase != Phase::Scenario {
            put("p", story::phase(entry.phase).into());
        }
        put("k", kind(&entry.body).into());
        put("w", self.lane(entry).into());
        let line = match &told.printed {
            // A line that came in one piece can have tabs.
            Some(_) => plain(&told.text(false)).into_owned(),
            None => one_line(&told.text(false)),
        };
        put("x", tree::cut(&line, LINE).into());
        if told.weight == Weight::Story && scope.holds(entry) {
            put("y", 1.into());
        }
        match &entry.body {
            Body::Exchange(exchange) => self.exchange(exchange, &mut put),
            Body::StepStarted(step) => {
                put("n", step.step.into());
                put("q", self.payload(&step.arguments, PAYLOAD));
                put("a", one_line(&step.location).into());
            }
            Body::StepEnded(step) => {
                put("n", step.step.into());
                put("r", self.payload(&step.response, PAYLOAD));
            }
            Body::Syscall(call) if call.rule.is_some() => {
                put("u", rule(call.rule.as_ref()));
                put("b", 1.into());
            }
            Body::Assertion(assertion) => {
                put("a", one_line(&assertion.location).into());
                if !assertion.held {
                    put("b", 1.into());
                }
            }
            Body::Signed(signed) => {
                put("q", self.payload(&signed.claims, PAYLOAD));
            }
            Body::Decision(decision) if decision.fired => {
                put("b", 1.into());
            }
            Body::ServiceExited(exited) if !exited.asked => {
                put("b", 1.into());
            }
            _ => {}
        }
        Json::Object(event)
    }

    fn exchange(&mut self, exchange: &Exchange, put: &mut impl FnMut(&str, Json) -> Option<Json>) {
        let most = if exchange.class == Class::Work { PAYLOAD } else { ASIDE };
        put("d", (exchange.ended_ns.saturating_sub(exchange.began_ns) / 1000).into());
        put("f", one_line(&exchange.source).into());
        put("q", self.payload(&exchange.request, most));
        if let Some(response) = &exchange.response {
            put("r", self.payload(response, most));
        }
        put("o", outcome(exchange.outcome).into());
        match exchange.class {
            Class::Work => {}
            Class::Control => drop(put("c", "session set-up".into())),
            Class::Ambient => drop(put("c", "ambient".into())),
        }
        if exchange.rule.is_some() {
            put("u", rule(exchange.rule.as_ref()));
        }
        if exchange.rule.is_some() || matches!(exchange.outcome, Outcome::Dropped | Outcome::Failed) {
            put("b", 1.into());
        }
    }

    /// The number of a text; equal ones are kept once.
    fn payload(&mut self, payload: &Payload, most: usize) -> Json {
        let text = match (payload.value(), payload.bytes()) {
            (Some(value), _) => tree::text(&value, most),
            (None, Some(bytes)) => format!("{} bytes that this version cannot read", bytes.len()),
            (None, None) => "not in the bundle".to_owned(),
        };
        let next = self.texts.len();
        let number = *self.known.entry(text).or_insert_with_key(|text| {
            self.texts.push(text.clone());
            next
        });
        number.into()
    }

    /// The number of the lane in which an entry is drawn: that of the service that it is about.
    fn lane(&mut self, entry: &Entry) -> usize {
        let service = |interface: &str| split_interface(interface).0.to_owned();
        let name = match &entry.body {
            Body::FaultWindow(_) | Body::Decision(_) => "faults".to_owned(),
            Body::StepStarted(_) | Body::StepEnded(_) | Body::Assertion(_) => "test".to_owned(),
            Body::Exchange(exchange) => service(&exchange.interface),
            Body::Syscall(call) => call.service.clone(),
            Body::Output(output) => output.service.clone(),
            Body::ServiceStarted(started) => started.service.clone(),
            Body::ServiceReady(service) => service.clone(),
            Body::ServiceExited(exited) => exited.service.clone(),
            Body::Signed(signed) => signed.service.clone(),
            _ => "faultbox".to_owned(),
        };
        let name = one_line(&name);
        self.lanes.iter().position(|lane| *lane == name).unwrap_or_else(|| {
            self.lanes.push(name);
            self.lanes.len() - 1
        })
    }
}

fn micros(at_ns: u64, base_ns: u64) -> i64 {
    let (at, base) = (i64::try_from(at_ns / 1000), i64::try_from(base_ns / 1000));
    at.unwrap_or(i64::MAX).saturating_sub(base.unwrap_or(0))
}

fn kind(body: &Body) -> &'static str {
    match body {
        Body::StepStarted(_) => "step",
        Body::StepEnded(_) => "answer",
        Body::Exchange(_) => "exchange",
        Body::Syscall(_) => "syscall",
        Body::Output(_) => "log",
        Body::FaultWindow(_) => "fault",
        Body::Decision(_) => "decision",
        Body::Assertion(_) => "assertion",
        Body::ServiceStarted(_) | Body::ServiceReady(_) | Body::ServiceExited(_) => "service",
        _ => "other",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered => "answered",
        Outcome::Dropped => "cut by a rule",
        Outcome::Failed => "failed",
        Outcome::Abandoned => "the asker went away",
        Outcome::OneWay => "no answer wanted",
    }
}

fn rule(hit: Option<&faultbox_bundle_format::RuleHit>) -> Json {
    hit.map(|hit| one_line(&format!("{}: {}", hit.assumption, hit.action))).into()
}
