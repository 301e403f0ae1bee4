//! What `faultbox replay` prints: a cell as it ends, and all of them.

use super::skipping;
use super::test::verdict_json;
use crate::cli::{Depth, Format, ReplayArgs};
use crate::exit_code;
use crate::terminal::{self, one_line, say, say_json, set_in};
use faultbox_bundle_format::canonical::Policy;
use faultbox_bundle_format::{Ending, own_start_ns};
use faultbox_replayer::diagnosis::{self, Cause};
use faultbox_replayer::divergence::Divergence;
use faultbox_replayer::session::{Outcome, Recording};
use faultbox_replayer::waits::Waits;

/// How many differences of one cell are printed.
const SHOWN: usize = 5;

/// A cell that was replayed.
pub struct Replay {
    /// Its name.
    pub name: String,
    /// What was recorded.
    pub recording: Recording,
    /// What came of it now.
    pub outcome: Outcome,
    /// Where its divergences come from.
    pub cause: Option<Cause>,
    /// Whether it was driven with its waits after it had not been exact without them.
    pub decided: bool,
    /// Where it parted from the recording in real time, where it is exact in virtual time only.
    pub in_real_time: Vec<Divergence>,
}

/// Prints what came of a cell.
pub fn print(args: &ReplayArgs, replay: &Replay) {
    let Replay { name, recording, outcome, cause, .. } = replay;
    terminal::say_result(
        Some(outcome.verdict.ending),
        &terminal::result(name, &outcome.verdict, recording.seed),
    );
    let (was, now) = (terminal::word(recording.verdict.ending), terminal::word(outcome.verdict.ending));
    if outcome.setup_failed {
        say("  the service could not be driven");
        return;
    }
    let changed = !args.with.is_empty() || !args.env.is_empty();
    if outcome.exact() {
        let how = match (args.depth, args.strict) {
            (Depth::Judge, _) => "recorded steps judged again",
            (_, true) => "strict policy",
            (_, false) => "default policy",
        };
        let repeats = match outcome.repeats {
            0 => String::new(),
            1 => ", 1 repeated request".to_owned(),
            more => format!(", {more} repeated requests"),
        };
        let time = if replay.in_real_time.is_empty() { "" } else { ", in virtual time" };
        say(&format!("  exact ({how}{time}{repeats})"));
        if let Some(first) = replay.in_real_time.first() {
            say(&format!(
                "  in real time, on this machine, something else came first: {}",
                one_line(&first.to_string())
            ));
        }
        say_waits(args, replay);
        return;
    }
    if !outcome.reproduced {
        say(&format!(
            "  {}: was {was}, now {now}",
            if changed { "verdict flipped" } else { "not reproduced" }
        ));
        if recording.verdict.ending != Ending::Passed {
            say(&format!("  recorded reason: {}", set_in(&recording.verdict.reason, 4)));
        }
    }
    say_waits(args, replay);
    for (place, divergence) in outcome.divergences.iter().take(SHOWN).enumerate() {
        let word = if place == 0 { "diverged at" } else { "then" };
        say(&format!("  {word} {}", one_line(&divergence.to_string())));
        if place == 0 {
            let around = diagnosis::around(divergence, &recording.entries, &outcome.entries);
            if let Some(step) = &around.step {
                say(&format!("    in {}", one_line(step)));
            }
            for (service, line) in &around.lines {
                say(&format!("    {service} says: {}", one_line(line)));
            }
        }
    }
    let more = outcome.divergences.len().saturating_sub(SHOWN);
    if more > 0 {
        say(&format!("  and {more} more (--format json shows all)"));
    }
    if let Some(cause) = cause {
        say(&format!("  cause: {}", one_line(&cause.to_string())));
    }
    let beyond = outcome.divergences.iter().any(|found| matches!(found, Divergence::Unexpected { .. }));
    if changed && beyond && outcome.reproduced {
        say("  the change asks for what was never recorded; --depth rerun asks the environment itself");
    }
}

fn waits_json(replay: &Replay) -> serde_json::Value {
    let Waits { skipped, skipped_ns, kept } = replay.outcome.waits;
    serde_json::json!({
        "skipped": skipped,
        "skipped_ms": skipped_ns / 1_000_000,
        "kept": kept,
        "as_recorded": replay.decided,
    })
}

fn time_json(replay: &Replay) -> serde_json::Value {
    let mut json = skipping::json(&replay.outcome.time.clone().unwrap_or_default());
    if let Some(map) = json.as_object_mut() {
        map.insert("as_recorded".to_owned(), replay.decided.into());
    }
    json
}

/// What `--virtual-time` skipped, and whose time it could not.
fn say_time(replay: &Replay) {
    let Some(time) = &replay.outcome.time else { return };
    if replay.decided {
        say("  waited as recorded: with time skipped it went another way");
    }
    skipping::lines(time).iter().for_each(|line| say(&format!("  {line}")));
}

/// What `--no-wait` skipped, where there was anything to wait for.
fn say_waits(args: &ReplayArgs, replay: &Replay) {
    let Waits { skipped, skipped_ns, kept } = replay.outcome.waits;
    say_time(replay);
    let waits = |count: u64| format!("{count} recorded wait{}", if count == 1 { "" } else { "s" });
    if !args.no_wait {
        return;
    }
    if replay.decided {
        say("  waited as recorded: without its waits it went another way");
        return;
    }
    let kept = match kept {
        0 => None,
        _ => Some(format!("sat through {}", waits(kept))),
    };
    let skipped = match skipped {
        0 => None,
        _ => Some(format!("skipped {} ({}ms)", waits(skipped), skipped_ns / 1_000_000)),
    };
    let said: Vec<String> = [skipped, kept].into_iter().flatten().collect();
    if !said.is_empty() {
        say(&format!("  {}", said.join(", ")));
    }
}

/// Prints the document, or the count of all cells. Gives the exit code.
pub fn report(args: &ReplayArgs, replays: &[Replay], policy: Policy) -> u8 {
    let exact = |replay: &&Replay| replay.outcome.exact() && !replay.outcome.setup_failed;
    let exact = replays.iter().filter(exact).count();
    let lost = replays.iter().filter(|replay| !replay.outcome.reproduced).count();
    if args.format == Format::Json {
        let cells = replays.iter().map(|replay| {
            let mut cell = verdict_json(&replay.name, &replay.outcome.verdict);
            if let Some(map) = cell.as_object_mut() {
                map.insert(
                    "recorded_verdict".to_owned(),
                    format!("{:?}", replay.recording.verdict.ending).to_lowercase().into(),
                );
                map.insert("exact".to_owned(), replay.outcome.exact().into());
                map.insert("reproduced".to_owned(), replay.outcome.reproduced.into());
                let divergences: Vec<String> =
                    replay.outcome.divergences.iter().map(ToString::to_string).collect();
                map.insert("divergences".to_owned(), divergences.into());
                if !replay.in_real_time.is_empty() {
                    let parted: Vec<String> = replay.in_real_time.iter().map(ToString::to_string).collect();
                    map.insert("in_real_time".to_owned(), parted.into());
                }
                if args.no_wait {
                    map.insert("waits".to_owned(), waits_json(replay));
                }
                if args.virtual_time {
                    map.insert("virtual_time".to_owned(), time_json(replay));
                }
                map.insert("cause".to_owned(), replay.cause.as_ref().map(Cause::word).into());
                if let Some(Cause::MadeUp { calls, .. }) = &replay.cause {
                    map.insert("asked_by".to_owned(), calls.clone().into());
                }
                let of_recording = &replay.recording.entries;
                for (name, ns) in [
                    ("start_ms", own_start_ns(&replay.outcome.entries)),
                    ("recorded_start_ms", own_start_ns(of_recording)),
                    ("recorded_cell_ms", replay.recording.verdict.cell_ns),
                ] {
                    map.insert(name.to_owned(), (ns / 1_000_000).into());
                }
            }
            cell
        });
        let document = serde_json::json!({
            "policy": format!("{policy:?}").to_lowercase(),
            "exact": exact,
            "cells": cells.collect::<Vec<_>>(),
        });
        say_json(&document);
    } else if replays.len() > 1 {
        let undriven = replays.iter().filter(|replay| replay.outcome.setup_failed).count();
        let more = if undriven > 0 { format!(", {undriven} not driven") } else { String::new() };
        say(&format!("\n{exact} exact, {} diverged{more}", replays.len() - exact - undriven));
    }
    if replays.iter().any(|replay| replay.outcome.setup_failed) {
        exit_code::HOST
    } else if lost > 0 {
        exit_code::FAILED
    } else if exact < replays.len() {
        exit_code::INCONCLUSIVE
    } else {
        exit_code::OK
    }
}
