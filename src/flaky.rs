//! Cells that did not come out the same in all of their runs (`test --runs`).
//!
//! Contract: a function of names and verdicts; a run without a verdict counts for nothing. A name that has no
//! number of a run is of a cell that ran once.

use crate::terminal::one_line;
use faultbox_bundle_format::{Ending, Verdict};
use faultbox_engine::plan::run_of;
use std::collections::BTreeMap;

/// Most numbers of runs in a line.
const NUMBERS: usize = 10;

/// A cell that passed in some of its runs and not in others.
#[derive(Debug, PartialEq, Eq)]
pub struct Flaky<'a> {
    /// Its name in the spec.
    pub name: &'a str,
    /// How many of its runs came to a verdict.
    pub runs: usize,
    /// The runs in which it did not pass.
    pub others: Vec<u32>,
}

/// Those among the results of a run, by their names.
pub fn flaky<'a>(results: impl Iterator<Item = (&'a str, Option<&'a Verdict>)>) -> Vec<Flaky<'a>> {
    let mut cells: BTreeMap<&str, Flaky<'_>> = BTreeMap::new();
    for (name, verdict) in results {
        let ((name, Some(run)), Some(verdict)) = (run_of(name), verdict) else { continue };
        let cell = cells.entry(name).or_insert_with(|| Flaky { name, runs: 0, others: Vec::new() });
        cell.runs += 1;
        if verdict.ending != Ending::Passed {
            cell.others.push(run);
        }
    }
    cells.into_values().filter(|cell| (1..cell.runs).contains(&cell.others.len())).collect()
}

impl Flaky<'_> {
    /// `matrix_a_b passed in 7 of 10 runs, not in 3, 5 and 9`.
    pub fn line(&self) -> String {
        let passed = self.runs - self.others.len();
        let mut numbers: Vec<String> = self.others.iter().take(NUMBERS).map(u32::to_string).collect();
        let more = self.others.len() - numbers.len();
        let last = if more > 0 { Some(format!("{more} more")) } else { numbers.pop() };
        let numbers = [numbers.join(", "), last.unwrap_or_default()];
        let others = numbers
            .iter()
            .filter(|part| !part.is_empty())
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" and ");
        format!("{} passed in {passed} of {} runs, not in {others}", one_line(self.name), self.runs)
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name,
            "runs": self.runs,
            "passed": self.runs - self.others.len(),
            "not_passed_in": self.others,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::tests::told;

    #[test]
    fn what_passed_in_some_runs_only() {
        let run = |name: &str, ending| told(name, "s", None, ending, "");
        let mut results: Vec<_> = (1..=15).map(|n| run(&format!("often@{n}"), Ending::Failed)).collect();
        results.extend([
            run("once", Ending::Failed),
            run("often@16", Ending::Passed),
            run("red@1", Ending::Failed),
            run("red@2", Ending::Violated),
            run("a@1", Ending::Passed),
            run("a@2", Ending::Inconclusive),
            run("a@3", Ending::Passed),
            run("a@4", Ending::Error),
        ]);
        let found = flaky(results.iter().map(|cell| (cell.name.as_str(), cell.verdict.as_ref())));
        let lines: Vec<String> = found.iter().map(Flaky::line).collect();
        assert_eq!(
            lines,
            [
                "a passed in 2 of 4 runs, not in 2 and 4",
                "often passed in 1 of 16 runs, not in 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 5 more"
            ]
        );
        assert_eq!(found[0].json()["not_passed_in"], serde_json::json!([2, 4]));
    }
}
