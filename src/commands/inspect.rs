//! `faultbox inspect`: what a reviewer opens. What ran, what failed and whose it is, the
//! entries behind a failure in order, and how to see it again.
//!
//! Contract: reads the bundle and nothing else; text from the bundle reaches the terminal
//! without control sequences.

use super::test::{hex, verdict_json};
use crate::cli::{Format, InspectArgs};
use crate::terminal::{self, notice, plain, say};
use crate::{exit_code, host};
use faultbox_bundle_format::{
    Body, Bundle, Class, Ending, Entry, Exchange, Outcome, Payload, Phase, RunStarted, Verdict,
};
use faultbox_replayer::diff::show;

/// Runs the command.
pub fn run(args: InspectArgs) -> u8 {
    match try_run(&args) {
        Ok(()) => exit_code::OK,
        Err(code) => code,
    }
}

/// One recorded cell.
struct Cell {
    name: String,
    entries: Vec<Entry>,
    verdict: Option<Verdict>,
}

struct Opened<'a> {
    args: &'a InspectArgs,
    started: Option<RunStarted>,
    run: Vec<Entry>,
    cells: Vec<Cell>,
    complete: bool,
}

fn try_run(args: &InspectArgs) -> Result<(), u8> {
    let unreadable = |why: String| {
        notice(&format!("faultbox: {}: {why}", args.bundle.display()));
        exit_code::BUNDLE
    };
    let bundle = Bundle::open(&args.bundle).map_err(|error| unreadable(error.to_string()))?;
    let run = bundle.run_entries().map_err(|error| unreadable(error.to_string()))?;
    let mut cells = Vec::new();
    for summary in bundle.cells() {
        let entries = bundle.entries(summary.cell).map_err(|error| unreadable(error.to_string()))?;
        let verdict = entries.iter().rev().find_map(|entry| match &entry.body {
            Body::Verdict(verdict) => Some(verdict.clone()),
            _ => None,
        });
        cells.push(Cell { name: summary.name.clone(), entries, verdict });
    }
    let started = run.iter().find_map(|entry| match &entry.body {
        Body::RunStarted(started) => Some(started.clone()),
        _ => None,
    });
    let opened = Opened { args, started, run, cells, complete: bundle.is_complete() };
    match (&args.cell, args.format) {
        (None, Format::Human) => opened.overview(),
        (None, Format::Json) => opened.json(&opened.cells.iter().collect::<Vec<_>>()),
        (Some(name), format) => {
            let cell = opened.cells.iter().find(|cell| &cell.name == name).ok_or_else(|| {
                notice(&format!("faultbox: {} holds no cell {name}", args.bundle.display()));
                exit_code::USAGE
            })?;
            match format {
                Format::Human => opened.detail(cell),
                Format::Json => opened.json(&[cell]),
            }
        }
    }
    Ok(())
}

impl Opened<'_> {
    fn overview(&self) {
        self.head();
        let passed = self.cells.iter().filter(|cell| ending(cell) == Some(Ending::Passed)).count();
        say(&format!("{passed} passed, {} failed\n", self.cells.len() - passed));
        for cell in &self.cells {
            let mark = cell.verdict.as_ref().map_or("incomplete", |verdict| terminal::word(verdict.ending));
            let yellow = cell.verdict.as_ref().is_some_and(|verdict| verdict.unreached);
            let ms = cell.verdict.as_ref().map_or(0, |verdict| verdict.scenario_ns / 1_000_000);
            say(&format!("{mark:<12} {:<45} {ms:>6}ms{}", plain(&cell.name), if yellow { "  unreached" } else { "" }));
        }
        for cell in self.cells.iter().filter(|cell| ending(cell) != Some(Ending::Passed)) {
            say("");
            self.story(cell, false);
        }
    }

    fn head(&self) {
        let Some(started) = &self.started else { return };
        say(&format!(
            "{} recorded {} UTC by faultbox {}, seed {} ({})",
            self.args.bundle.display(),
            host::stamp(started.unix_ns),
            plain(&started.tool_version),
            started.seed,
            plain(&started.seed_source)
        ));
        say(&format!("command: faultbox {}", plain(&started.command.join(" "))));
        if !self.complete {
            say("incomplete: the run that wrote it was cut short; what follows is all up to its last whole chunk");
        }
    }

    fn detail(&self, cell: &Cell) {
        self.head();
        say("");
        self.story(cell, true);
        say("\nhost:");
        for entry in &self.run {
            if let Body::HostFact(fact) = &entry.body {
                say(&format!("  {}: {}", plain(&fact.name), plain(&fact.value)));
            }
        }
    }

    /// What failed, whose it is, what led to it, how to see it again.
    fn story(&self, cell: &Cell, whole: bool) {
        let Some(verdict) = &cell.verdict else {
            say(&format!("{}: no verdict was reached", plain(&cell.name)));
            return;
        };
        say(&format!("{} {}", terminal::word(verdict.ending), plain(&cell.name)));
        if verdict.ending != Ending::Passed {
            say(&format!("  reason: {}", plain(&verdict.reason)));
            say(&format!("  whose:  {}", terminal::whose(verdict.blame)));
        }
        say(&format!("  digest: {}", hex(&verdict.digest)));
        for count in &verdict.fired {
            let fired = if count.fired == 0 { "never fired".to_owned() } else { format!("fired {}x", count.fired) };
            say(&format!(
                "  fault:  {} {} on {}: {fired} of {} matches",
                plain(&count.assumption),
                plain(&count.rule),
                plain(&count.target),
                count.matched
            ));
        }
        say("  what happened in the scenario:");
        let base = cell.entries.iter().find(|e| e.phase == Phase::Scenario).map_or(0, |e| e.at_ns);
        let mut lines: Vec<(u64, String)> = Vec::new();
        for entry in cell.entries.iter().filter(|entry| entry.phase == Phase::Scenario) {
            lines.extend(line(entry, whole));
        }
        lines.sort_by_key(|(at, _)| *at);
        for (at, text) in lines {
            let ms = at.saturating_sub(base) as f64 / 1e6;
            say(&format!("    {ms:>9.2}ms  {}", plain(&text)));
        }
        if whole {
            counts(cell);
        }
        let seed = self.started.as_ref().map_or(0, |started| started.seed);
        say(&format!("  again:  faultbox replay {} --test {} --seed {seed}", self.args.bundle.display(), cell.name));
    }

    fn json(&self, cells: &[&Cell]) {
        let cells = cells.iter().map(|cell| match &cell.verdict {
            Some(verdict) => {
                let mut json = verdict_json(&cell.name, verdict);
                if let (Some(map), true) = (json.as_object_mut(), self.args.cell.is_some()) {
                    let entries = cell.entries.iter().filter_map(entry_json);
                    map.insert("entries".to_owned(), entries.collect::<Vec<_>>().into());
                }
                json
            }
            None => serde_json::json!({ "name": cell.name, "verdict": "incomplete" }),
        });
        let started = self.started.as_ref();
        let document = serde_json::json!({
            "bundle": self.args.bundle.display().to_string(),
            "complete": self.complete,
            "seed": started.map(|s| s.seed),
            "tool_version": started.map(|s| s.tool_version.clone()),
            "command": started.map(|s| s.command.clone()),
            "cells": cells.collect::<Vec<_>>(),
        });
        say(&serde_json::to_string_pretty(&document).unwrap_or_default());
    }
}

fn ending(cell: &Cell) -> Option<Ending> {
    cell.verdict.as_ref().map(|verdict| verdict.ending)
}

/// An entry as lines of the story, with the time at which each began.
fn line(entry: &Entry, whole: bool) -> Vec<(u64, String)> {
    let one = |text: String| vec![(entry.at_ns, text)];
    match &entry.body {
        Body::FaultWindow(window) => {
            let word = if window.active { "active" } else { "over" };
            one(format!("fault {} {word}: {}", window.assumption, window.rules.join(", ")))
        }
        Body::StepStarted(step) => {
            one(format!("step {}: {} {} {}", step.step, step.verb, step.interface, shown(&step.arguments)))
        }
        Body::StepEnded(step) => {
            let response = step.response.value().unwrap_or_default();
            let field = |name: &str| response.get(name).map(show).unwrap_or_default();
            let error = field("error");
            let error = if error == "null" { String::new() } else { format!(", {error}") };
            one(format!("step {} answered: status {}{error}", step.step, field("status")))
        }
        Body::Exchange(exchange) if exchange.class == Class::Work || whole && exchange.rule.is_some() => {
            vec![(exchange.began_ns, exchange_line(exchange, whole))]
        }
        Body::Syscall(call) => one(format!("{}: {} {} -> {}", call.service, call.name, call.target, call.action)),
        Body::Output(output) => {
            let text = String::from_utf8_lossy(&output.bytes).into_owned();
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.map(|line| (entry.at_ns, format!("{} says: {line}", output.service))).collect()
        }
        Body::Assertion(assertion) if !assertion.held => {
            one(format!("assertion failed at {}: {}", assertion.location, assertion.message))
        }
        Body::ServiceExited(exited) => one(format!("{} ended", exited.service)),
        _ => Vec::new(),
    }
}

fn exchange_line(exchange: &Exchange, whole: bool) -> String {
    let outcome = match exchange.outcome {
        Outcome::Answered => format!("answered {}", brief(exchange.response.as_ref())),
        Outcome::Dropped => "connection cut by a rule".to_owned(),
        Outcome::Failed => format!("failed {}", brief(exchange.response.as_ref())),
        Outcome::Abandoned => "the asker went away".to_owned(),
        Outcome::OneWay => "no answer wanted".to_owned(),
    };
    let rule = exchange.rule.as_ref().map(|hit| format!(" [{}: {}]", hit.assumption, hit.action)).unwrap_or_default();
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

/// What the story leaves out, counted.
fn counts(cell: &Cell) {
    let exchanges = || {
        cell.entries.iter().filter_map(|entry| match &entry.body {
            Body::Exchange(exchange) => Some((entry.phase, exchange)),
            _ => None,
        })
    };
    let class = |class: Class| exchanges().filter(|(_, exchange)| exchange.class == class).count();
    let outside = exchanges().filter(|(phase, _)| *phase != Phase::Scenario).count();
    say(&format!(
        "  not shown: {} session set-up, {} ambient (pings, polls, refreshes), {outside} before or after the scenario",
        class(Class::Control),
        class(Class::Ambient)
    ));
}

fn entry_json(entry: &Entry) -> Option<serde_json::Value> {
    let text = line(entry, true);
    if text.is_empty() {
        return None;
    }
    let what: Vec<String> = text.into_iter().map(|(_, text)| plain(&text)).collect();
    Some(serde_json::json!({
        "seq": entry.seq,
        "at_ns": entry.at_ns,
        "phase": format!("{:?}", entry.phase).to_lowercase(),
        "actor": entry.actor,
        "what": what.join("\n"),
    }))
}
