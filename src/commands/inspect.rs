//! `faultbox inspect`: what a reviewer opens. What ran, what failed and whose it is, the
//! entries behind a failure in order, and how to see it again.
//!
//! Contract: reads the bundle and nothing else; text from the bundle reaches the terminal
//! without control sequences.

use super::test::{hex, verdict_json};
use crate::cli::{Format, InspectArgs, InspectFormat};
use crate::export::{Suite, summary};
use crate::flaky::{Flaky, flaky};
use crate::markdown::code;
use crate::story::{self, Scope, Weight};
use crate::terminal::{
    self, Findings, notice, one_line, quoted, say, say_broken, say_json, say_result, say_row, set_in,
};
use crate::{exit_code, host, stable};
use faultbox_bundle_format::canonical::{self, Policy};
use faultbox_bundle_format::extract::{ExtractError, extract};
use faultbox_bundle_format::redact::{Redacted, redacted};
use faultbox_bundle_format::{
    Body, Bundle, CellSummary, Class, Ending, Entry, FaultCount, Phase, ReadError, RunStarted, Verdict,
};
use std::collections::BTreeMap;
use std::path::Path;

/// Characters of a finding in the overview.
const FINDING: usize = 100;
/// Most lines of a story in the overview.
const STORY: usize = 60;

/// Runs the command.
pub fn run(args: InspectArgs) -> u8 {
    match try_run(&args) {
        Ok(()) => exit_code::OK,
        Err(code) => code,
    }
}

/// One recorded cell.
struct Cell<'a> {
    name: &'a str,
    entries: Vec<Entry>,
    verdict: Option<&'a Verdict>,
    /// What it says of itself beside its verdict.
    findings: Findings,
}

struct Opened<'a> {
    args: &'a InspectArgs,
    bundle: &'a Bundle,
    started: Option<RunStarted>,
    run: Vec<Entry>,
}

fn unreadable(args: &InspectArgs, error: &ReadError) -> u8 {
    notice(&format!("faultbox: {}: {}", args.bundle.display(), one_line(&error.to_string())));
    match error {
        ReadError::NoSuchCell { .. } => exit_code::USAGE,
        _ => exit_code::BUNDLE,
    }
}

fn try_run(args: &InspectArgs) -> Result<(), u8> {
    if args.format == InspectFormat::Text {
        return stable_text(args);
    }
    let bundle = Bundle::open(&args.bundle).map_err(|error| unreadable(args, &error))?;
    if args.manifest || args.secrets {
        let format = match args.format {
            InspectFormat::Human => Format::Human,
            InspectFormat::Json => Format::Json,
            _ => return Err(no_such_format()),
        };
        return match args.manifest {
            true => {
                super::manifest::show(&args.bundle, &bundle, format);
                Ok(())
            }
            false => secrets(args, &bundle, format),
        };
    }
    if let Some(folder) = &args.extract {
        return lay_out(args, &bundle, folder);
    }
    let run = bundle.raw_entries(0).map_err(|error| unreadable(args, &error))?;
    let started = run.iter().find_map(|entry| match &entry.body {
        Body::RunStarted(started) => Some(started.clone()),
        _ => None,
    });
    let opened = Opened { args, bundle: &bundle, started, run };
    let Some(name) = &args.cell else {
        return match args.format {
            InspectFormat::Json => opened.all(false).map(|cells| opened.json(&cells)),
            InspectFormat::Markdown => {
                let suite = Suite::of_bundle(&bundle, &args.bundle.display().to_string());
                suite.map(|suite| say(summary::text(&suite).trim_end())).map_err(|e| unreadable(args, &e))
            }
            _ => opened.overview(),
        };
    };
    let summary = bundle.cell(name).map_err(|error| unreadable(args, &error))?;
    let cell = opened.cell(summary, true)?;
    match args.format {
        InspectFormat::Json => opened.json(&[cell]),
        InspectFormat::Markdown => opened.markdown(&cell),
        _ => opened.detail(&cell),
    }
    Ok(())
}

/// What is the same for every recording that means the same. Whoever asks is `git diff`, which gives up altogether
/// where one file cannot be put into text.
fn stable_text(args: &InspectArgs) -> Result<(), u8> {
    if args.cell.is_some() || args.manifest || args.secrets || args.extract.is_some() {
        return Err(no_such_format());
    }
    match Bundle::open(&args.bundle).and_then(|bundle| stable::text(&bundle)) {
        Ok(text) => say(text.trim_end()),
        Err(error) => say(&format!("no bundle that can be read: {}", one_line(&error.to_string()))),
    }
    Ok(())
}

fn no_such_format() -> u8 {
    notice("faultbox: --format text is of whole bundles; --manifest and --secrets are human or json");
    exit_code::USAGE
}

fn lay_out(args: &InspectArgs, bundle: &Bundle, folder: &Path) -> Result<(), u8> {
    let written = extract(bundle, folder).map_err(|error| match error {
        ExtractError::Read(error) => unreadable(args, &error),
        other => {
            notice(&format!("faultbox: {}", one_line(&other.to_string())));
            exit_code::USAGE
        }
    })?;
    written.iter().for_each(|path| say(&folder.join(path).display().to_string()));
    Ok(())
}

/// Where a secret was replaced: in which cell (or the run), in words, and how often.
type Places = BTreeMap<(u32, String), usize>;

/// What was redacted and where; not what it was, which is not in the bundle.
fn secrets(args: &InspectArgs, bundle: &Bundle, format: Format) -> Result<(), u8> {
    let mut found: BTreeMap<(String, String), Places> = BTreeMap::new();
    let cells = std::iter::once((0, "")).chain(bundle.cells().iter().map(|c| (c.cell, c.name.as_str())));
    let names: BTreeMap<u32, &str> = cells.collect();
    for cell in names.keys() {
        for entry in bundle.entries(*cell).map_err(|error| unreadable(args, &error))? {
            for Redacted { name, tag, place } in redacted(&entry) {
                *found.entry((name, tag)).or_default().entry((*cell, place)).or_default() += 1;
            }
        }
    }
    let cell_name =
        |cell: &u32| names.get(cell).copied().filter(|name| !name.is_empty()).unwrap_or("the run");
    if format == Format::Json {
        let secrets = found.iter().map(|((name, tag), places)| {
            let places = places.iter().map(|((cell, place), times)| {
                let cell = (*cell != 0).then(|| cell_name(cell));
                serde_json::json!({ "cell": cell, "where": place, "times": times })
            });
            serde_json::json!({ "name": name, "tag": tag, "places": places.collect::<Vec<_>>() })
        });
        let bundle = args.bundle.display().to_string();
        say_json(&serde_json::json!({ "bundle": bundle, "secrets": secrets.collect::<Vec<_>>() }));
        return Ok(());
    }
    match found.len() {
        0 => say("nothing was redacted"),
        1 => say("1 secret was redacted"),
        more => say(&format!("{more} secrets were redacted")),
    }
    for ((name, tag), places) in &found {
        say(&format!("\n<secret {name}#{tag}>"));
        for ((cell, place), times) in places {
            let times = if *times > 1 { format!(" ({times}x)") } else { String::new() };
            say(&format!("  {}: {}{times}", one_line(cell_name(cell)), one_line(place)));
        }
    }
    Ok(())
}

impl Opened<'_> {
    /// A cell; its entries are read only where they are shown.
    fn cell<'a>(&self, summary: &'a CellSummary, entries: bool) -> Result<Cell<'a>, u8> {
        let entries = match entries {
            true => self.bundle.entries(summary.cell).map_err(|error| unreadable(self.args, &error))?,
            false => Vec::new(),
        };
        let findings = match entries.is_empty() {
            true => self.findings(summary)?,
            false => Findings::of(&entries),
        };
        Ok(Cell { name: &summary.name, entries, verdict: summary.verdict.as_ref(), findings })
    }

    /// What a cell says of itself; large payloads are not read for it.
    fn findings(&self, summary: &CellSummary) -> Result<Findings, u8> {
        let entries = self.bundle.raw_entries(summary.cell);
        entries.map(|entries| Findings::of(&entries)).map_err(|error| unreadable(self.args, &error))
    }

    fn all(&self, entries: bool) -> Result<Vec<Cell<'_>>, u8> {
        self.bundle.cells().iter().map(|summary| self.cell(summary, entries)).collect()
    }

    fn overview(&self) -> Result<(), u8> {
        self.head();
        let cells = self.bundle.cells();
        let passed = cells.iter().filter(|cell| cell.passed()).count();
        let without = cells.iter().filter(|cell| cell.verdict.is_none()).count();
        let incomplete = if without > 0 { format!(", {without} without a verdict") } else { String::new() };
        say(&format!("{passed} passed, {} failed{incomplete}\n", cells.len() - passed - without));
        for cell in cells {
            let verdict = cell.verdict.as_ref();
            let ending = verdict.map(|verdict| verdict.ending);
            let mark = terminal::mark(ending);
            let ms = verdict.map_or(0, |verdict| verdict.scenario_ns / 1_000_000);
            let faults = verdict.map(faults).unwrap_or_default();
            let row = format!("{mark:<12} {:<45} {ms:>6}ms  {faults}", one_line(&cell.name));
            say_row(Some(ending), row.trim_end());
            for line in self.findings(cell)?.lines() {
                // All of it stands in the cell's own story.
                let more = if line.chars().nth(FINDING).is_some() { "..." } else { "" };
                say_row(
                    None,
                    &format!("             {}{more}", line.chars().take(FINDING).collect::<String>()),
                );
            }
        }
        let flaky = self.flaky();
        if !flaky.is_empty() {
            say("");
        }
        flaky.iter().for_each(|flaky| say(&format!("flaky: {}", flaky.line())));
        for cell in cells.iter().filter(|cell| !cell.passed()) {
            say("");
            self.story(&self.cell(cell, true)?, false);
        }
        Ok(())
    }

    /// Cells that did not come out the same in all of their runs.
    fn flaky(&self) -> Vec<Flaky<'_>> {
        flaky(self.bundle.cells().iter().map(|cell| (cell.name.as_str(), cell.verdict.as_ref())))
    }

    /// The bundle's path as a word of a command line.
    fn bundle_word(&self) -> String {
        quoted(&self.args.bundle.display().to_string())
    }

    fn head(&self) {
        if let Some(started) = &self.started {
            say(&format!(
                "{} recorded {} by faultbox {}, seed {} ({})",
                self.args.bundle.display(),
                host::date_and_time(started.unix_ns),
                one_line(&started.tool_version),
                started.seed,
                one_line(&started.seed_source)
            ));
            say(&format!("command: faultbox {}", one_line(&started.command.join(" "))));
        }
        if let Some(digest) = self.bundle.digest() {
            say(&format!("digest:  {}", hex(&digest)));
        } else {
            say(
                "incomplete: the run that wrote it was cut short; what follows is all up to its last whole chunk \
                 (`faultbox recover` makes it a whole bundle again)",
            );
        }
        if let Some(damage) = self.bundle.damage() {
            say(&format!(
                "lost: {} bytes from byte {} on ({})",
                damage.lost,
                damage.at,
                one_line(&damage.what)
            ));
        }
        let unknown = &self.bundle.index().unknown;
        if let Some(first) = unknown.first() {
            let count = unknown.len();
            say(&format!(
                "not shown: {count} records of kinds that this version does not know (the first is {})",
                first.kind
            ));
        }
    }

    fn detail(&self, cell: &Cell<'_>) {
        self.head();
        say("");
        self.story(cell, true);
        say("\nhost (where it was recorded):");
        for entry in &self.run {
            if let Body::HostFact(fact) = &entry.body {
                say(&format!("  {}: {}", one_line(&fact.name), one_line(&fact.value)));
            }
        }
    }

    /// The cell's digest where nothing is collapsed: equal in two runs that differ in nothing but time. Twice as much work as
    /// all else that is shown of a cell.
    fn strict_digest(&self, cell: &Cell<'_>) -> [u8; 32] {
        let began = self.started.as_ref().map_or(0, |started| started.unix_ns);
        canonical::of_cell(&cell.entries, began, Policy::Strict).digest
    }

    /// What failed, whose it is, what led to it, how to see it again.
    fn story(&self, cell: &Cell<'_>, whole: bool) {
        let name = one_line(cell.name);
        let Some(verdict) = cell.verdict else {
            say(&format!("{name}: no verdict was reached; the last that is known:"));
            self.happened(cell, whole, true);
            return;
        };
        say_result(Some(verdict.ending), &format!("{} {name}", terminal::word(verdict.ending)));
        if verdict.ending != Ending::Passed {
            say_broken(&format!("  reason: {}", set_in(&verdict.reason, 4)), 4);
            say(&format!("  whose:  {}", terminal::whose(verdict.blame)));
        }
        say(&format!("  digest: {}", hex(&verdict.digest)));
        for count in &verdict.fired {
            let fired =
                if count.fired == 0 { "never fired".to_owned() } else { format!("fired {}x", count.fired) };
            let line = format!(
                "  fault:  {} {} on {}: {fired} of {} matches",
                one_line(&count.assumption),
                one_line(&count.rule),
                one_line(&count.target),
                count.matched
            );
            say_broken(&line, 10);
        }
        cell.findings.lines().iter().for_each(|line| say_broken(&format!("  {line}"), 4));
        match story::begun(&cell.entries) {
            true => say("  what happened in the scenario:"),
            false => say("  what happened (the scenario was never begun):"),
        }
        self.happened(cell, whole, false);
        let seed = self.started.as_ref().map_or(0, |started| started.seed);
        say(&format!("  again:  {}", terminal::replay_line(self.args.bundle.as_path(), cell.name, seed)));
    }

    /// The entries behind a result, in the order in which they began.
    fn happened(&self, cell: &Cell<'_>, whole: bool, every_phase: bool) {
        let scope = Scope::of(&cell.entries, every_phase);
        let wanted = if whole { Weight::Detail } else { Weight::Story };
        let mut lines = story::tell(&cell.entries);
        lines.retain(|told| told.weight <= wanted && scope.holds(told.entry));
        lines.sort_by_key(|told| told.at_ns);
        // What led to the end matters most: a long story loses its middle.
        let most = if whole { usize::MAX } else { STORY };
        let (head, tail) = (most.min(lines.len()) / 3, most - most.min(lines.len()) / 3);
        let cut = lines.len().saturating_sub(head + tail);
        for (place, told) in lines.iter().enumerate() {
            if place == head && cut > 0 {
                let (bundle, name) = (self.bundle_word(), quoted(cell.name));
                say(&format!("               ... {cut} more: faultbox inspect {bundle} {name}"));
            }
            if place < head || place >= head + cut {
                let ms = told.at_ns.saturating_sub(scope.base_ns) as f64 / 1e6;
                let text = format!("    {ms:>9.2}ms  {}", set_in(&told.text(whole), 17));
                match whole {
                    true => say_broken(&text, 17),
                    // On one screen, a line is one.
                    false => text.split('\n').for_each(|line| say_row(None, line)),
                }
            }
        }
        if whole {
            counts(cell);
        }
    }

    /// One cell for a comment: what it came to, and its story.
    fn markdown(&self, cell: &Cell<'_>) {
        let mark = terminal::mark(cell.verdict.map(|verdict| verdict.ending));
        say(&format!("### {mark} {}\n", code(cell.name)));
        if let Some(verdict) = cell.verdict.filter(|verdict| verdict.ending != Ending::Passed) {
            say(&format!("- reason: {}", code(&verdict.reason)));
            say(&format!("- whose: {}", terminal::whose(verdict.blame)));
        }
        for count in cell.verdict.iter().flat_map(|verdict| &verdict.fired) {
            let fired =
                if count.fired == 0 { "never fired".to_owned() } else { format!("fired {}x", count.fired) };
            say(&format!("- fault: {} on {}: {fired}", code(&count.rule), code(&count.target)));
        }
        cell.findings.lines().iter().for_each(|line| say(&format!("- {}", code(line))));
        let seed = self.started.as_ref().map_or(0, |started| started.seed);
        let again = terminal::replay_line(self.args.bundle.as_path(), cell.name, seed);
        say(&format!("- again: {}\n", code(&again)));
        let scope = Scope::of(&cell.entries, false);
        let mut told = story::tell(&cell.entries);
        told.retain(|told| told.weight == Weight::Story && scope.holds(told.entry));
        told.sort_by_key(|told| told.at_ns);
        for told in told {
            let ms = told.at_ns.saturating_sub(scope.base_ns) as f64 / 1e6;
            say(&format!("1. {ms:.2}ms {}", code(&told.text(false))));
        }
    }

    fn json(&self, cells: &[Cell<'_>]) {
        let cells = cells.iter().map(|cell| match cell.verdict {
            Some(verdict) => {
                let mut json = verdict_json(cell.name, verdict);
                cell.findings.put_into(&mut json);
                if let (Some(map), true) = (json.as_object_mut(), self.args.cell.is_some()) {
                    map.insert("strict_digest".to_owned(), hex(&self.strict_digest(cell)).into());
                    map.insert("entries".to_owned(), entries_json(&cell.entries).into());
                }
                json
            }
            None => serde_json::json!({ "name": cell.name, "verdict": "incomplete" }),
        });
        let started = self.started.as_ref();
        let document = serde_json::json!({
            "bundle": self.args.bundle.display().to_string(),
            "complete": self.bundle.is_complete(),
            "digest": self.bundle.digest().map(|digest| hex(&digest)),
            "seed": started.map(|s| s.seed),
            "tool_version": started.map(|s| s.tool_version.clone()),
            "command": started.map(|s| s.command.clone()),
            "flaky": self.flaky().iter().map(Flaky::json).collect::<Vec<_>>(),
            "cells": cells.collect::<Vec<_>>(),
        });
        say_json(&document);
    }
}

/// Which faults of a cell fired how often, on one line.
fn faults(verdict: &Verdict) -> String {
    let one = |count: &FaultCount| {
        let (rule, target) = (one_line(&count.rule), one_line(&count.target));
        if count.fired == 0 {
            format!("{rule} on {target} never fired")
        } else {
            format!("{rule} on {target} {}x", count.fired)
        }
    };
    let all: Vec<String> = verdict.fired.iter().map(one).collect();
    let mark = if verdict.unreached { "unreached: " } else { "" };
    format!("{mark}{}", all.join(", "))
}

/// What the story leaves out, counted.
fn counts(cell: &Cell<'_>) {
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

/// The entries for `--format json`, those that somebody wants to see; a printed line belongs to the entry
/// that ends it.
fn entries_json(entries: &[Entry]) -> Vec<serde_json::Value> {
    let mut shown: Vec<(&Entry, String)> = Vec::new();
    for told in story::tell(entries).iter().filter(|told| told.weight <= Weight::Detail) {
        let text = told.text(true);
        match shown.last_mut() {
            Some((entry, what)) if entry.seq == told.entry.seq => what.push_str(&format!("\n{text}")),
            _ => shown.push((told.entry, text)),
        }
    }
    let one = |(entry, what): (&Entry, String)| {
        serde_json::json!({
            "seq": entry.seq,
            "at_ns": entry.at_ns,
            "phase": story::phase(entry.phase),
            "actor": entry.actor,
            "what": what,
        })
    };
    shown.into_iter().map(one).collect()
}
