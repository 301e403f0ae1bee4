//! `faultbox learn`: record cells twice, and write what services make up into the spec's side file.
//!
//! Contract: both recordings are of one seed and nothing of them is kept. The side file gets lines and wider holes,
//! never fewer lines; where there is nothing to learn it is not touched. What cannot be learned is told, and so
//! is a line that found nothing.

use super::run::{self, Host};
use super::stack;
use super::test::select;
use crate::cli::{Format, LearnArgs};
use crate::terminal::{Progress, notice, one_line, say, say_json};
use crate::{exit_code, host};
use faultbox_bundle_format::redact::Redactor;
use faultbox_bundle_format::{Entry, canonical};
use faultbox_engine::addresses::AddressBook;
use faultbox_engine::event_sink::NullSink;
use faultbox_engine::oracle::SeededOracle;
use faultbox_engine::plan::Plan;
use faultbox_engine::runner;
use faultbox_engine::runner::live::Live;
use faultbox_engine::spec::volatile::{self, Line};
use faultbox_replayer::learn::{Learned, Lesson, Take, learn};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Runs the command.
pub fn run(args: LearnArgs) -> u8 {
    match try_run(&args) {
        Ok(code) | Err(code) => code,
    }
}

/// All cells, recorded once.
struct Recorded {
    unix_ns: u64,
    /// By cell, in order.
    cells: Vec<Vec<Entry>>,
}

/// What a run of the command came to.
struct Outcome {
    file: PathBuf,
    /// By cell.
    learned: Vec<(String, Learned)>,
    /// Lines that found nothing.
    idle: Vec<Line>,
    lines: usize,
}

fn try_run(args: &LearnArgs) -> Result<u8, u8> {
    let mut host = Host::probe()?;
    let addresses = Arc::new(host.addresses());
    let (seed, source) = stack::seed(&args.stack)?;
    let plan = stack::load(&args.stack, &addresses, seed)?;
    let cells = select(&plan, &args.tests, &format!("faultbox test {} --list", args.stack.spec.display()))?;
    stack::check_host(&plan, &args.stack, &host)?;
    let runtime = run::runtime()?;
    stack::make_ready(&mut host, &plan, &args.stack, &runtime)?;
    if args.format == Format::Human {
        say(&format!("Seed: {seed} ({source})\n"));
    }
    let recording = Recording { args, host: &host, plan: Arc::new(plan), cells, seed, addresses };
    let recorded = runtime.block_on(recording.twice());
    runtime.shutdown_background();
    let outcome = recording.outcome(&recorded?)?;
    Ok(recording.report(&outcome))
}

/// The line of a side file that found nothing, for people.
pub fn idle_line(file: &str, line: &Line) -> String {
    format!("{file}:{}: this line found nothing: {}", line.number, one_line(&line.rule.to_string()))
}

/// The lines of a side file that found nothing in these cells: their entries, redacted, and the wall clock at the
/// start of their run.
pub fn idle_lines<E: AsRef<[Entry]>>(lines: &[Line], cells: impl IntoIterator<Item = (E, u64)>) -> Vec<Line> {
    let rules: Vec<_> = lines.iter().map(|line| &line.rule).collect();
    let idle = canonical::find_nothing(cells, &rules);
    idle.into_iter().filter_map(|place| lines.get(place).cloned()).collect()
}

struct Recording<'a> {
    args: &'a LearnArgs,
    host: &'a Host,
    plan: Arc<Plan>,
    cells: Vec<usize>,
    seed: u64,
    addresses: Arc<AddressBook>,
}

impl Recording<'_> {
    async fn twice(&self) -> Result<[Recorded; 2], u8> {
        let trouble = |error: &dyn std::fmt::Display| {
            notice(&format!("faultbox: {error}"));
            exit_code::HOST
        };
        let dir = host::RunDir::create().map_err(|error| trouble(&error))?;
        let header = faultbox_recorder::new_header().map_err(|error| trouble(&error))?;
        // One salt: equal secrets have equal tokens in both.
        let redactor = Redactor::new(&header.salt, run::secrets(&self.plan));
        let first = self.once(&redactor, &dir, 1).await?;
        Ok([first, self.once(&redactor, &dir, 2).await?])
    }

    async fn once(&self, redactor: &Redactor, dir: &host::RunDir, which: usize) -> Result<Recorded, u8> {
        let (embedded, addresses) = (self.args.stack.embedded, self.addresses.clone());
        let (sink, oracle) = (Arc::new(NullSink), Arc::new(SeededOracle::new(self.seed)));
        let context = self.host.context(self.seed, redactor.clone(), sink, oracle, dir, embedded, addresses);
        let context = Arc::new(context);
        let live = Live::new(context.clone());
        let progress = Progress::new();
        let (mut cells, mut lost) = (Vec::new(), None);
        for index in &self.cells {
            let name = &self.plan.cells[*index].name;
            progress.show(cells.len(), self.cells.len(), &format!("{name} ({which} of 2)"));
            let mut result = runner::run_cell(&context, &self.plan, *index, live.clone()).await;
            progress.clear();
            live.take_notices().iter().for_each(|text| notice(&format!("notice: {text}")));
            if result.setup_failed || context.interrupted.is_cancelled() {
                lost = Some(format!("{}: {}", one_line(name), one_line(&result.verdict.reason)));
                break;
            }
            result.entries.iter_mut().for_each(|entry| redactor.entry(entry));
            cells.push(result.entries);
        }
        live.stop().await;
        match lost {
            Some(why) => {
                notice(&format!("faultbox: nothing is learned from a cell that cannot be recorded: {why}"));
                Err(exit_code::HOST)
            }
            None => Ok(Recorded { unix_ns: context.clock.unix_ns(), cells }),
        }
    }

    /// Learns from what was recorded, and writes the side file where there is something new.
    fn outcome(&self, recorded: &[Recorded; 2]) -> Result<Outcome, u8> {
        let suts: BTreeSet<String> = self.plan.topology.suts().map(|service| service.name.clone()).collect();
        let mut rules: Vec<_> = self.plan.learned.iter().map(|line| line.rule.clone()).collect();
        let mut learned: Vec<(String, Learned)> = Vec::new();
        for (place, index) in self.cells.iter().enumerate() {
            let [first, second] = [0, 1].map(|which| Take {
                entries: recorded[which].cells.get(place).map(Vec::as_slice).unwrap_or_default(),
                unix_ns: recorded[which].unix_ns,
            });
            learned.push((self.plan.cells[*index].name.clone(), learn(first, second, &suts, &mut rules)));
        }
        let file = side_file(&self.args.stack.spec);
        let further: Vec<&Lesson> = learned.iter().flat_map(|(_, learned)| &learned.lessons).collect();
        if !further.is_empty() {
            write(&file, &further)?;
        }
        let all = self.cells.len() == self.plan.cells.len();
        let cells = recorded.iter().flat_map(|once| once.cells.iter().map(|cell| (cell, once.unix_ns)));
        let idle = if all { idle_lines(&self.plan.learned, cells) } else { Vec::new() };
        Ok(Outcome { file, idle, lines: rules.len(), learned })
    }

    fn report(&self, outcome: &Outcome) -> u8 {
        let file = outcome.file.display().to_string();
        let (mut new, mut wider, mut puzzles) = (0, 0, 0);
        for (name, Learned { lessons, puzzles: found }) in &outcome.learned {
            puzzles += found.len();
            wider += lessons.iter().filter(|lesson| lesson.instead.is_some()).count();
            new += lessons.iter().filter(|lesson| lesson.instead.is_none()).count();
            if self.args.format == Format::Human && !(lessons.is_empty() && found.is_empty()) {
                say(&one_line(name));
                for lesson in lessons {
                    let word = if lesson.instead.is_some() { "widened" } else { "made up" };
                    say(&format!("  {word}: {}", one_line(&lesson.rule.to_string())));
                    say(&format!("    once {}, once {}", one_line(&lesson.first), one_line(&lesson.second)));
                }
                found.iter().for_each(|puzzle| say(&format!("  not learned: {}", one_line(puzzle))));
            }
        }
        outcome.idle.iter().for_each(|line| notice(&format!("notice: {}", idle_line(&file, line))));
        if self.args.format == Format::Json {
            say_json(&document(outcome, self.seed));
        } else if new + wider == 0 {
            let said = if outcome.lines == 0 { "there is none" } else { "it stays as it is" };
            say(&format!("{file}: nothing new; {said}"));
        } else {
            say(&format!("\n{file}: {new} new, {wider} widened, {} in all", counted(outcome.lines)));
        }
        if puzzles == 0 { exit_code::OK } else { exit_code::INCONCLUSIVE }
    }
}

fn counted(lines: usize) -> String {
    if lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") }
}

/// The side file beside a spec.
fn side_file(spec: &Path) -> PathBuf {
    let name = spec.file_name().unwrap_or_default().to_string_lossy();
    spec.with_file_name(volatile::file_of(&name))
}

fn write(file: &Path, further: &[&Lesson]) -> Result<(), u8> {
    let failed = |error: std::io::Error| {
        notice(&format!("faultbox: {}: {error}", file.display()));
        exit_code::USAGE
    };
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    let lines = further.iter().map(|lesson| {
        (&lesson.rule, lesson.instead.as_ref(), [lesson.first.as_str(), lesson.second.as_str()])
    });
    let text = volatile::amended(&text, lines);
    let new = file.with_extension("volatile.new");
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file)).map_err(failed)
}

/// For `--format json`.
fn document(outcome: &Outcome, seed: u64) -> serde_json::Value {
    let cells = outcome.learned.iter().map(|(name, learned)| {
        let lessons = learned.lessons.iter().map(|lesson| {
            serde_json::json!({
                "line": lesson.rule.to_string(),
                "instead": lesson.instead.as_ref().map(ToString::to_string),
                "values": [lesson.first, lesson.second],
            })
        });
        serde_json::json!({
            "name": name,
            "learned": lessons.collect::<Vec<_>>(),
            "not_learned": learned.puzzles,
        })
    });
    let idle = outcome
        .idle
        .iter()
        .map(|line| serde_json::json!({ "number": line.number, "line": line.rule.to_string() }));
    serde_json::json!({
        "seed": seed,
        "file": outcome.file.display().to_string(),
        "lines": outcome.lines,
        "cells": cells.collect::<Vec<_>>(),
        "found_nothing": idle.collect::<Vec<_>>(),
    })
}
