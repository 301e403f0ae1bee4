//! Diagnosis: what a divergence comes from, and what went on around it.
//!
//! Contract: a cause is named only where the runs show it: what the caller changed, a value that
//! looks made up anew in each run, or a second replay that went another way. Everything else is
//! [`Cause::Unknown`], with what is known about it. Nothing is run here.

use crate::diff::Difference;
use crate::divergence::Divergence;
use faultbox_bundle_format::{Body, Entry, Outcome as Ended, Phase};
use faultbox_engine::runner::{RANDOMNESS_BY, TIME_BY, asked_host};
use std::fmt;

/// Lines of a service's output shown before a divergence.
const LINES: usize = 3;
/// A number below this many digits is not taken for one that was drawn or measured.
const DIGITS: usize = 5;
/// A word shorter than this is not taken for one that was drawn.
const WORD: usize = 6;

/// What a divergence comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The journal holds a decision that its seed does not give.
    Journal,
    /// The spec is not the recorded one; these files differ.
    Spec(Vec<String>),
    /// The service under test is not the recorded one; this was given.
    Service(Vec<String>),
    /// The service makes a value up anew in each run, and nothing told Faultbox so.
    MadeUp {
        /// Where it stands in the request.
        field: String,
        /// What it looks like.
        looks: Looks,
        /// How services came by such values in a replay that was watched: `api: getrandom 2x`. Empty
        /// where none was.
        calls: Vec<String>,
    },
    /// Two replays of the recording diverged differently.
    Race,
    /// Nothing was changed, and two replays diverged alike.
    Unknown,
}

/// What a made-up value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// A point in time.
    Time,
    /// A random number or word.
    Random,
}

impl Cause {
    /// In one word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Cause::Journal => "journal",
            Cause::Spec(_) => "spec",
            Cause::Service(_) => "service",
            Cause::MadeUp { looks: Looks::Time, .. } => "time",
            Cause::MadeUp { looks: Looks::Random, .. } => "randomness",
            Cause::Race => "race",
            Cause::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Journal => write!(f, "the journal: its decisions are not those of its seed"),
            Cause::Spec(files) => write!(f, "the spec: not the recorded one ({})", files.join(", ")),
            Cause::Service(given) => write!(f, "the service: not the recorded one ({})", given.join(", ")),
            Cause::MadeUp { field, looks, calls } => {
                let what = match looks {
                    Looks::Time => "the time of the run",
                    Looks::Random => "something random",
                };
                write!(f, "the service makes a part of {field} up anew in each run (it looks like {what}")?;
                match calls.as_slice() {
                    [] => write!(f, ")"),
                    calls => write!(f, "; asked for by {})", calls.join(", ")),
                }
            }
            Cause::Race => write!(f, "a race in the service: driven again, it diverged differently"),
            Cause::Unknown => write!(
                f,
                "unknown: nothing was changed, and driven again it diverged alike; the service depends on something \
                 that the bundle does not hold"
            ),
        }
    }
}

/// What is known beside the divergences themselves.
#[derive(Debug, Default)]
pub struct Circumstances {
    /// Files of the spec that are not as they were.
    pub spec: Vec<String>,
    /// What the caller gave in place of the recorded service.
    pub given: Vec<String>,
    /// The divergences of a second replay, where there was one.
    pub again: Option<Vec<Divergence>>,
}

/// Names the cause of these divergences. `None` where there is none, or where a second replay is
/// needed to tell.
pub fn cause(found: &[Divergence], circumstances: &Circumstances) -> Option<Cause> {
    let first = found.first()?;
    if found.iter().any(|divergence| matches!(divergence, Divergence::Decision { .. })) {
        return Some(Cause::Journal);
    }
    if !circumstances.spec.is_empty() {
        return Some(Cause::Spec(circumstances.spec.clone()));
    }
    if !circumstances.given.is_empty() {
        return Some(Cause::Service(circumstances.given.clone()));
    }
    if let Some(cause) = made_up(first) {
        return Some(cause);
    }
    let alike = said(circumstances.again.as_ref()?) == said(found);
    Some(if alike { Cause::Unknown } else { Cause::Race })
}

fn said(found: &[Divergence]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

/// A first divergence all of whose differing fields look made up.
fn made_up(divergence: &Divergence) -> Option<Cause> {
    let differences: &[Difference] = match divergence {
        Divergence::Unexpected { nearest, .. } => &nearest.first()?.differences,
        Divergence::Stream { differences, .. } => differences,
        _ => return None,
    };
    let looks: Option<Vec<Looks>> = differences.iter().map(|d| looks(&d.recorded, &d.now)).collect();
    let (looks, first) = (looks?.first().copied()?, differences.first()?);
    Some(Cause::MadeUp { field: first.path.clone(), looks, calls: Vec::new() })
}

/// How services came by such values, as a replay tells that was watched (`determinism("L1")`).
pub fn calls(looks: Looks, watched: &[Entry]) -> Vec<String> {
    let by = match looks {
        Looks::Time => TIME_BY,
        Looks::Random => RANDOMNESS_BY,
    };
    let facts = watched.iter().filter_map(|entry| match &entry.body {
        Body::HostFact(fact) => asked_host(fact),
        _ => None,
    });
    let of = |(service, asked): (&str, &str)| {
        let calls = asked.split(", ").filter_map(|what| what.strip_prefix(by));
        calls.map(|call| format!("{service}: {call}")).collect::<Vec<_>>()
    };
    facts.flat_map(of).collect()
}

/// What two values look like that differ only in what each run makes up. What both begin and end with
/// says nothing.
fn looks(recorded: &str, now: &str) -> Option<Looks> {
    let (recorded, now) = (words(recorded), words(now));
    let mut found = None;
    if recorded.len() != now.len() {
        return None;
    }
    for (a, b) in recorded.iter().zip(&now).filter(|(a, b)| a != b) {
        let this = word_looks(a, b)?;
        // A random word beside a time is random: the time alone would have been known.
        found = Some(if found == Some(Looks::Random) { Looks::Random } else { this });
    }
    found
}

/// Runs of letters and digits.
fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect()
}

fn word_looks(a: &str, b: &str) -> Option<Looks> {
    let number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    if number(a) && number(b) {
        let (short, long) = (a.len().min(b.len()), a.len().max(b.len()));
        // Seconds to nanoseconds since 1970, in both runs of this century.
        let instant = short == long
            && [10, 13, 16, 19].contains(&short)
            && a.as_bytes().first() == b.as_bytes().first();
        return match () {
            () if instant => Some(Looks::Time),
            () if short >= DIGITS => Some(Looks::Random),
            () => None,
        };
    }
    let drawn = |word: &str| word.len() >= WORD && word.bytes().any(|byte| byte.is_ascii_digit());
    let mixed = |word: &str| word.bytes().any(|byte| byte.is_ascii_alphabetic());
    let alike = a.len().abs_diff(b.len()) <= 2 && drawn(a) && drawn(b) && (mixed(a) || mixed(b));
    alike.then_some(Looks::Random)
}

/// What went on around a divergence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Around {
    /// The step that was open: `step 0: post api.public (faultbox.star:61)`.
    pub step: Option<String>,
    /// The last lines that services printed before it: service, line.
    pub lines: Vec<(String, String)>,
}

/// What went on around a divergence, by the replay's entries and, where the replay has nothing at that
/// place, by the recording's.
pub fn around(divergence: &Divergence, recorded: &[Entry], replayed: &[Entry]) -> Around {
    if let Some(place) = place(divergence, replayed, false) {
        return at(replayed, place);
    }
    let step = place(divergence, recorded, true).and_then(|place| at(recorded, place).step);
    Around { step, lines: Vec::new() }
}

/// The number of the entry that diverges.
fn place(divergence: &Divergence, entries: &[Entry], recorded: bool) -> Option<u64> {
    match divergence {
        Divergence::Unexpected { source, interface, operation, .. } if !recorded => {
            let unanswered = |entry: &&Entry| match &entry.body {
                Body::Exchange(asked) => {
                    asked.source == *source
                        && asked.interface == *interface
                        && asked.operation == *operation
                        && asked.outcome != Ended::Answered
                }
                _ => false,
            };
            entries.iter().find(unanswered).map(|entry| entry.seq)
        }
        Divergence::Stream { recorded_seq, replayed_seq, .. } => {
            if recorded {
                *recorded_seq
            } else {
                *replayed_seq
            }
        }
        _ => None,
    }
}

fn at(entries: &[Entry], place: u64) -> Around {
    let mut around = Around::default();
    for entry in entries.iter().filter(|entry| entry.phase == Phase::Scenario && entry.seq <= place) {
        match &entry.body {
            Body::StepStarted(step) => {
                let location =
                    if step.location.is_empty() { String::new() } else { format!(" ({})", step.location) };
                around.step = Some(format!("step {}: {} {}{location}", step.step, step.verb, step.interface));
            }
            Body::StepEnded(_) if entry.seq < place => around.step = None,
            Body::Output(output) => {
                let text = String::from_utf8_lossy(&output.bytes);
                let lines = text.lines().filter(|line| !line.trim().is_empty());
                around.lines.extend(lines.map(|line| (output.service.clone(), line.to_owned())));
            }
            _ => {}
        }
    }
    around.lines.drain(..around.lines.len().saturating_sub(LINES));
    around
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::divergence::Nearest;
    use faultbox_bundle_format::Value;

    fn asked(differences: &[(&str, &str, &str)]) -> Divergence {
        let differences = differences.iter().map(|(path, recorded, now)| Difference {
            path: (*path).to_owned(),
            recorded: (*recorded).to_owned(),
            now: (*now).to_owned(),
        });
        Divergence::Unexpected {
            source: "api".to_owned(),
            interface: "db.main".to_owned(),
            operation: "SELECT".to_owned(),
            request: Value::Null,
            nearest: vec![Nearest {
                operation: "SELECT".to_owned(),
                spent: false,
                differences: differences.collect(),
            }],
            phase: Phase::Scenario,
        }
    }

    fn cause_of(differences: &[(&str, &str, &str)], again: &[(&str, &str, &str)]) -> Option<Cause> {
        let circumstances = Circumstances { again: Some(vec![asked(again)]), ..Circumstances::default() };
        cause(&[asked(differences)], &circumstances)
    }

    #[test]
    fn values_that_each_run_makes_up_are_known_by_their_looks() {
        let made_up = |recorded, now| cause_of(&[("args[1]", recorded, now)], &[]).unwrap();
        let random = Cause::MadeUp { field: "args[1]".to_owned(), looks: Looks::Random, calls: Vec::new() };
        let time = Cause::MadeUp { field: "args[1]".to_owned(), looks: Looks::Time, calls: Vec::new() };
        assert_eq!(made_up("\"token:9fk2ab81\"", "\"token:b1c44x0z\""), random);
        assert_eq!(made_up("734512", "9120033"), random);
        assert_eq!(made_up("1795625631171", "1795625699008"), time);
        assert_eq!(made_up("\"at 1795625631 as 9fk2ab81\"", "\"at 1795625699 as b1c44x0z\""), random);
        for (recorded, now) in [
            ("'open'", "'done'"),
            ("50", "51"),
            ("\"customer\"", "\"category\""),
            ("\"orders:list\"", "nothing"),
            ("\"9fk2ab81\"", "\"9fk2ab81 and more\""),
        ] {
            assert_eq!(made_up(recorded, now), Cause::Race, "{recorded} {now}");
        }
        // One that looks drawn does not explain another that does not.
        assert_eq!(cause_of(&[("a", "9fk2ab81", "b1c44x0z"), ("b", "open", "done")], &[]), Some(Cause::Race));
    }

    #[test]
    fn what_was_changed_comes_before_what_it_looks_like() {
        let drawn = [asked(&[("a", "9fk2ab81", "b1c44x0z")])];
        let given = vec!["--with api=fixed".to_owned()];
        let mut circumstances = Circumstances { given: given.clone(), ..Circumstances::default() };
        assert_eq!(cause(&drawn, &circumstances), Some(Cause::Service(given)));
        circumstances.spec = vec!["faultbox.star".to_owned()];
        assert_eq!(cause(&drawn, &circumstances), Some(Cause::Spec(circumstances.spec.clone())));
        let decision = Divergence::Decision { rule: "r".to_owned(), key: "k".to_owned(), recorded: true };
        assert_eq!(cause(&[decision], &circumstances), Some(Cause::Journal));
        assert_eq!(cause(&[], &circumstances), None);
    }

    #[test]
    fn a_second_replay_tells_a_race() {
        let (one, other) = ([("a", "open", "done")], [("a", "open", "shut")]);
        assert_eq!(cause_of(&one, &other), Some(Cause::Race));
        assert_eq!(cause_of(&one, &one), Some(Cause::Unknown));
        assert_eq!(cause(&[asked(&one)], &Circumstances::default()), None, "not told without one");
    }
}
