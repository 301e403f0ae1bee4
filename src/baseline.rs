//! The baseline: the reds that a suite is known to have, in a file that reads well in a diff.
//!
//! A line is `CELL: RESULT: REASON`, sorted by the cell; lines that begin with `#` say nothing. Only reds stand
//! in it. A reason is one line without its place in the spec, and tokens of secrets, whose tags differ from
//! bundle to bundle, have none.
//!
//! Contract: a red that is not in it, or is there with another result, is new; a cell that is in it and
//! passes (in all of its runs) is unexpected. Another reason alone is told and fails nothing: reasons can quote what a
//! service made up. What Faultbox or the host could not do is never known.

use crate::terminal;
use faultbox_bundle_format::{Blame, Ending, Verdict};
use faultbox_engine::plan::run_of;
use std::collections::{BTreeMap, BTreeSet};

/// Why a baseline cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// A line that says nothing of a cell.
    #[error("line {0}: want CELL: failed|violated|inconclusive|error: REASON")]
    Line(usize),
    /// A cell stands in it twice.
    #[error("line {0}: {1} was there before")]
    Twice(usize, String),
    /// A cell that the spec does not have.
    #[error("line {0}: the spec has no cell {1}; if it is gone, so should the line be")]
    NoCell(usize, String),
}

/// What is known of one red.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    line: usize,
    result: String,
    reason: String,
}

/// The reds that are known.
#[derive(Debug, Default)]
pub struct Baseline(BTreeMap<String, Known>);

/// A run held against a baseline; names of cells in the order of the run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Reds that are as the baseline has them.
    pub known: Vec<String>,
    /// Reds that it does not have, or has with another result: the name, and what it says.
    pub new: Vec<(String, Option<String>)>,
    /// Cells that passed although it has them.
    pub passed: Vec<String>,
    /// Known reds with another reason: the name, the reason there, the reason now.
    pub reasons: Vec<(String, String, String)>,
}

impl Baseline {
    /// Reads the text of a baseline.
    ///
    /// # Errors
    /// The first line that is not understood.
    pub fn read(text: &str) -> Result<Self, BaselineError> {
        let mut known = BTreeMap::new();
        for (line, said) in (1..).zip(text.lines()) {
            let said = said.trim();
            if said.is_empty() || said.starts_with('#') {
                continue;
            }
            let mut parts = said.splitn(3, ':').map(str::trim);
            let (Some(name), Some(result)) = (parts.next(), parts.next()) else {
                return Err(BaselineError::Line(line));
            };
            if name.is_empty() || !["failed", "violated", "inconclusive", "error"].contains(&result) {
                return Err(BaselineError::Line(line));
            }
            let reason = parts.next().unwrap_or_default().to_owned();
            let one = Known { line, result: result.to_owned(), reason };
            if known.insert(name.to_owned(), one).is_some() {
                return Err(BaselineError::Twice(line, name.to_owned()));
            }
        }
        Ok(Baseline(known))
    }

    /// Holds its names against those of the spec.
    ///
    /// # Errors
    /// The first line that is about no cell.
    pub fn check<'a>(&self, cells: impl Iterator<Item = &'a str>) -> Result<(), BaselineError> {
        let cells: BTreeSet<&str> = cells.collect();
        let mut lost: Vec<_> = self.0.iter().filter(|(name, _)| !cells.contains(name.as_str())).collect();
        lost.sort_by_key(|(_, known)| known.line);
        lost.first().map_or(Ok(()), |(name, known)| Err(BaselineError::NoCell(known.line, (*name).clone())))
    }

    /// Holds the results of a run against it.
    pub fn compare<'a>(&self, results: impl Iterator<Item = (&'a str, &'a Verdict)>) -> Compared {
        let mut compared = Compared::default();
        let results: Vec<_> = results.collect();
        let did = |(name, verdict): &(&'a str, &Verdict)| {
            (verdict.ending != Ending::Passed).then_some(run_of(name).0)
        };
        let not_passed: BTreeSet<&str> = results.iter().filter_map(did).collect();
        for (name, verdict) in results {
            let red = red(verdict);
            let cell = run_of(name).0;
            match (self.0.get(cell), red) {
                (None, None) => {}
                (Some(_), None) if not_passed.contains(cell) => {}
                (Some(_), None) => compared.passed.push(name.to_owned()),
                (None, Some(_)) => compared.new.push((name.to_owned(), None)),
                (Some(known), Some((result, _))) if known.result != result => {
                    compared.new.push((name.to_owned(), Some(known.result.clone())));
                }
                (Some(known), Some((_, reason))) => {
                    compared.known.push(name.to_owned());
                    if known.reason != reason {
                        compared.reasons.push((name.to_owned(), known.reason.clone(), reason));
                    }
                }
            }
        }
        compared
    }
}

impl Compared {
    /// Whether the run fails by it.
    pub fn fails(&self) -> bool {
        !(self.new.is_empty() && self.passed.is_empty())
    }

    /// In words, a line each.
    pub fn lines(&self) -> Vec<String> {
        let of = |count: usize, one: &str, more: &str| {
            if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
        };
        let mut lines = vec![format!(
            "baseline: {}, {}, {}",
            of(self.known.len(), "known red", "known reds"),
            of(self.new.len(), "new red", "new reds"),
            of(self.passed.len(), "unexpected pass", "unexpected passes")
        )];
        lines.extend(self.new.iter().map(|(name, was)| match was {
            None => format!("  new red: {name}"),
            Some(was) => format!("  new red: {name} (the baseline has it as {was})"),
        }));
        lines.extend(self.passed.iter().map(|name| format!("  unexpected pass: {name}")));
        lines.extend(
            self.reasons.iter().map(|(name, was, _)| format!("  another reason: {name} (it was: {was})")),
        );
        lines
    }

    /// For `--format json`.
    pub fn json(&self) -> serde_json::Value {
        let new = self.new.iter().map(|(name, was)| serde_json::json!({ "name": name, "was": was }));
        let reasons = self
            .reasons
            .iter()
            .map(|(name, was, is)| serde_json::json!({ "name": name, "was": was, "is": is }));
        serde_json::json!({
            "known": self.known,
            "new": new.collect::<Vec<_>>(),
            "passed": self.passed,
            "reasons": reasons.collect::<Vec<_>>(),
        })
    }
}

/// The text of a baseline for these results; of a cell's runs, the first red is what it has.
pub fn text<'a>(spec: &str, results: impl Iterator<Item = (&'a str, &'a Verdict)>) -> String {
    let mut reds: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    for (name, red) in results.filter_map(|(name, verdict)| red(verdict).map(|red| (run_of(name).0, red))) {
        reds.entry(name).or_insert(red);
    }
    let mut text = format!(
        "# Known reds of {}: a run with --baseline fails on any other, and on one of these that passes.\n",
        terminal::one_line(spec)
    );
    for (name, (result, reason)) in reds {
        text.push_str(format!("{name}: {result}: {reason}").trim_end());
        text.push('\n');
    }
    text
}

/// The result and the reason of a red as the file has them; none of what is not the suite's.
fn red(verdict: &Verdict) -> Option<(&'static str, String)> {
    let result = match verdict.ending {
        Ending::Passed => return None,
        Ending::Error if verdict.blame == Blame::Faultbox => return None,
        Ending::Failed => "failed",
        Ending::Violated => "violated",
        Ending::Inconclusive => "inconclusive",
        Ending::Error => "error",
    };
    let untagged = untagged(&verdict.reason);
    let words: Vec<&str> = untagged.split_whitespace().collect();
    Some((result, terminal::one_line(placeless(&words.join(" ")))))
}

/// The reason without the `(FILE:LINE)` at its end: lines move.
pub fn placeless(reason: &str) -> &str {
    let place = reason.strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
    let line = place.and_then(|(_, place)| place.rsplit_once(':')).map(|(_, line)| line);
    match (place, line) {
        (Some((said, _)), Some(line)) if line.parse::<u32>().is_ok() => said,
        _ => reason,
    }
}

/// The text with `<secret NAME>` for `<secret NAME#tag>`: tags are salted anew in every bundle.
pub fn untagged(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("<secret ") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find('>').map_or(rest.len(), |end| end + 1);
        let (token, after) = rest.split_at(end);
        match token.split_once('#') {
            Some((name, _)) if token.ends_with('>') => out.push_str(&format!("{name}>")),
            _ => out.push_str(token),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ending: Ending, blame: Blame, reason: &str) -> Verdict {
        Verdict {
            ending,
            reason: reason.to_owned(),
            blame,
            fired: Vec::new(),
            unreached: false,
            scenario_ns: 0,
            cell_ns: 0,
            digest: [0; 32],
        }
    }

    fn results() -> Vec<(&'static str, Verdict)> {
        vec![
            (
                "b",
                verdict(
                    Ending::Failed,
                    Blame::ServiceUnderTest,
                    "got <secret db#0a1b2c3d>:\n  503 (x.star:45)",
                ),
            ),
            (
                "a",
                verdict(
                    Ending::Violated,
                    Blame::ServiceUnderTest,
                    "expect_success: status_code=503 (want < 500)",
                ),
            ),
            ("c", verdict(Ending::Passed, Blame::None, "")),
            ("d", verdict(Ending::Error, Blame::Faultbox, "no disk")),
        ]
    }

    fn of<'a>(results: &'a [(&'static str, Verdict)]) -> impl Iterator<Item = (&'a str, &'a Verdict)> {
        results.iter().map(|(name, verdict)| (*name, verdict))
    }

    #[test]
    fn what_was_written_is_known() {
        let results = results();
        let text = text("x.star", of(&results));
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            ["a: violated: expect_success: status_code=503 (want < 500)", "b: failed: got <secret db>: 503"]
        );
        let baseline = Baseline::read(&text).unwrap();
        let compared = baseline.compare(of(&results));
        assert_eq!(compared, Compared { known: vec!["b".into(), "a".into()], ..Compared::default() });
        assert!(!compared.fails());
        assert_eq!(compared.lines(), ["baseline: 2 known reds, 0 new reds, 0 unexpected passes"]);
    }

    #[test]
    fn new_reds_and_unexpected_passes_fail() {
        let baseline = Baseline::read("# known\n\na: failed: x\nb: failed: of old\nc: failed\n").unwrap();
        let compared = baseline.compare(of(&results()));
        assert_eq!(compared.known, ["b"]);
        assert_eq!(compared.new, [("a".to_owned(), Some("failed".to_owned()))]);
        assert_eq!(compared.passed, ["c"]);
        assert_eq!(compared.reasons.len(), 1);
        assert!(compared.fails());
        assert!(Baseline::default().compare(of(&results())).fails(), "nothing is known");
    }

    #[test]
    fn a_red_of_some_runs_is_known_in_all_and_passes_only_where_all_do() {
        let red = verdict(Ending::Failed, Blame::ServiceUnderTest, "503");
        let green = verdict(Ending::Passed, Blame::None, "");
        let mixed = [("a@1", green.clone()), ("a@2", red), ("b@1", green.clone()), ("b@2", green)];
        assert_eq!(text("x.star", of(&mixed)).lines().nth(1), Some("a: failed: 503"));
        let baseline = Baseline::read("a: failed: 503\nb: failed: 503").unwrap();
        baseline.check(["a", "b"].into_iter()).unwrap();
        let compared = baseline.compare(of(&mixed));
        assert_eq!((compared.known, compared.passed), (vec!["a@2".into()], vec!["b@1".into(), "b@2".into()]));
    }

    #[test]
    fn a_file_that_is_not_understood_is_none() {
        assert_eq!(Baseline::read("a: broken: x").unwrap_err(), BaselineError::Line(1));
        assert_eq!(Baseline::read("#\nwhat").unwrap_err(), BaselineError::Line(2));
        let twice = Baseline::read("a: failed: x\na: failed: x").unwrap_err();
        assert_eq!(twice, BaselineError::Twice(2, "a".to_owned()));
        let gone = Baseline::read("a: failed: x\nb: failed").unwrap().check(["a"].into_iter());
        assert_eq!(gone, Err(BaselineError::NoCell(2, "b".to_owned())));
    }

    #[test]
    fn tags_of_secrets_go() {
        assert_eq!(untagged("a <secret x#00ff> b <secret y#1> c"), "a <secret x> b <secret y> c");
        assert_eq!(untagged("<secret x"), "<secret x");
    }
}
