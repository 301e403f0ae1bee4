//! A run as Markdown: what came out, the grid, each failure. For a job summary, a comment, a review.
//!
//! Contract: at most [`MOST`] bytes whatever the matrix; what there is no room for is counted.

use super::{State, Suite, Told};
use crate::flaky::flaky;
use crate::markdown::code;
use crate::terminal;
use faultbox_engine::plan::run_of;
use std::collections::{BTreeMap, BTreeSet};

/// Most bytes: GitHub takes 1 MiB of a step, and drops all of what is larger.
pub const MOST: usize = 1_000_000;
/// Bytes of a reason that are shown.
const REASON: usize = 1000;
/// Bytes that are left for the grid at the least.
const GRID: usize = MOST / 2;

/// The text.
pub fn text(suite: &Suite) -> String {
    let mut out = format!("## Faultbox: {}\n\n{}, seed {}", suite.counted(), code(&suite.spec), suite.seed);
    out.extend(suite.bundle.as_ref().map(|bundle| format!(", bundle {}", code(bundle))));
    out.push('\n');
    let findings = findings(suite);
    let failures = failures(suite, MOST - GRID - out.len() - findings.len()) + &findings;
    out.push_str(&grid(suite, MOST - out.len() - failures.len()));
    out.push_str(&failures);
    out
}

/// The cells in a table: scenarios by faults, and tests that stand alone below it.
fn grid(suite: &Suite, room: usize) -> String {
    let whole = table(&suite.cells.iter().collect::<Vec<_>>());
    if whole.len() <= room {
        return whole;
    }
    let reds: Vec<&Told> = suite.cells.iter().filter(|cell| cell.state().is_red()).collect();
    let (scenarios, faults): (BTreeSet<&str>, BTreeSet<Option<&str>>) =
        reds.iter().map(|cell| (cell.scenario.as_str(), cell.fault.as_deref())).unzip();
    let near =
        |cell: &&Told| scenarios.contains(cell.scenario.as_str()) && faults.contains(&cell.fault.as_deref());
    let part = table(&suite.cells.iter().filter(near).collect::<Vec<_>>());
    let said = format!("\nThe grid of {} cells has no room here", suite.cells.len());
    match part.len() + said.len() + 100 <= room && !reds.is_empty() {
        true => format!("{said}; these are the rows and columns with failures.\n{part}"),
        false => format!("{said}: open the report.\n"),
    }
}

fn table(cells: &[&Told]) -> String {
    let mut out = String::new();
    let mut faults: Vec<&str> = Vec::new();
    let mut scenarios: Vec<&str> = Vec::new();
    let mut states: BTreeMap<(&str, &str), Vec<State>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for cell in cells {
        let Some(fault) = cell.fault.as_deref() else { continue };
        if seen.insert((true, fault)) {
            faults.push(fault);
        }
        if seen.insert((false, cell.scenario.as_str())) {
            scenarios.push(&cell.scenario);
        }
        states.entry((&cell.scenario, fault)).or_default().push(cell.state());
    }
    if !faults.is_empty() {
        let heads: String = faults.iter().map(|fault| format!(" {} |", code(fault))).collect();
        out.push_str(&format!("\n| scenario |{heads}\n|---|{}\n", ":---:|".repeat(faults.len())));
        for scenario in scenarios {
            let cells = faults.iter().map(|fault| states.get(&(scenario, *fault)));
            let cells: String = cells
                .map(|states| format!(" {} |", states.map_or_else(String::new, |states| of_runs(states))))
                .collect();
            out.push_str(&format!("| {} |{cells}\n", code(scenario)));
        }
    }
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut alone: Vec<(&str, Vec<State>)> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.fault.is_none()) {
        let name = run_of(&cell.name).0;
        match places.get(name).and_then(|place| alone.get_mut(*place)) {
            Some((_, states)) => states.push(cell.state()),
            None => {
                places.insert(name, alone.len());
                alone.push((name, vec![cell.state()]));
            }
        }
    }
    if !alone.is_empty() {
        out.push_str("\n| test | |\n|---|---|\n");
        for (name, states) in alone {
            let word = states.iter().max().map_or("", |state| state.shown().1);
            out.push_str(&format!("| {} | {} {word} |\n", code(name), of_runs(&states)));
        }
    }
    let used: BTreeSet<State> = cells.iter().map(|cell| cell.state()).collect();
    if !faults.is_empty() {
        let legend = used.iter().map(|state| state.shown()).map(|(sign, word)| format!("{sign} {word}"));
        out.push_str(&format!("\n{}\n", legend.collect::<Vec<_>>().join(" \u{b7} ")));
    }
    out
}

/// The sign of a cell: of its runs, the worst, and in how many it was other than passed, where not all are alike.
fn of_runs(states: &[State]) -> String {
    let Some(worst) = states.iter().max() else { return String::new() };
    let sign = worst.shown().0;
    match states.iter().all(|state| state == worst) {
        true => sign.to_owned(),
        false => {
            let others = states.iter().filter(|state| **state != State::Passed).count();
            format!("{sign} {others} of {}", states.len())
        }
    }
}

/// What cells say of themselves, a line each, as far as one looks at it.
fn findings(suite: &Suite) -> String {
    const LINES: usize = 30;
    const LINE: usize = 200;
    let of = |cell: &Told| {
        let name = code(&cell.name);
        let line =
            |said: &String| format!("- {name}: {}\n", code(&said.chars().take(LINE).collect::<String>()));
        cell.findings.iter().map(line).collect::<Vec<_>>()
    };
    let flaky = flaky(suite.cells.iter().map(|cell| (cell.name.as_str(), cell.verdict.as_ref())));
    let flaky = flaky.iter().map(|flaky| format!("- flaky: {}\n", code(&flaky.line())));
    let lines: Vec<String> = flaky.chain(suite.cells.iter().flat_map(of)).collect();
    let more = lines.len().saturating_sub(LINES);
    let mut out = if lines.is_empty() { String::new() } else { "\n### To look at\n\n".to_owned() };
    lines.iter().take(LINES).for_each(|line| out.push_str(line));
    if more > 0 {
        out.push_str(&format!("- and {more} more\n"));
    }
    out
}

/// A paragraph for each red, as many as there is room for.
fn failures(suite: &Suite, room: usize) -> String {
    let reds: Vec<&Told> = suite.cells.iter().filter(|cell| cell.state().is_red()).collect();
    let mut out = String::new();
    for (place, cell) in reds.iter().enumerate() {
        let mut reason = cell.reason();
        if reason.len() > REASON {
            let end = (0..=REASON).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
            reason.truncate(end);
            reason.push('\u{2026}');
        }
        let (sign, word) = cell.state().shown();
        let mut one = format!("\n### {sign} {}: {word}\n\n- reason: {}\n", code(&cell.name), code(&reason));
        if let Some(verdict) = cell.verdict.as_ref().filter(|_| !cell.unexpected) {
            one.push_str(&format!("- whose: {}\n", terminal::whose(verdict.blame)));
            for count in verdict.fired.iter().take(20) {
                let fired = if count.fired == 0 {
                    "never fired".to_owned()
                } else {
                    format!("fired {}x", count.fired)
                };
                one.push_str(&format!(
                    "- fault: {} on {}: {fired}\n",
                    code(&count.rule),
                    code(&count.target)
                ));
            }
        }
        one.extend(
            suite.path(cell).map(|(file, line)| format!("- where: {}\n", code(&format!("{file}:{line}")))),
        );
        one.extend(suite.replay(cell).map(|line| format!("- again: {}\n", code(&line))));
        if out.len() + one.len() + 100 > room {
            out.push_str(&format!("\n{} more are not shown here: open the report.\n", reds.len() - place));
            break;
        }
        out.push_str(&one);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::{suite, told};
    use super::*;
    use faultbox_bundle_format::Ending;

    #[test]
    fn the_grid_and_the_failures() {
        let text = text(&suite(vec![
            told("test_a", "test_a", None, Ending::Passed, ""),
            told("matrix_s_f", "s", Some("f"), Ending::Violated, "got `503` | <b>"),
            told("matrix_s_g", "s", Some("g"), Ending::Passed, ""),
        ]));
        assert!(
            text.starts_with("## Faultbox: 2 passed, 1 failed\n\n`specs/a.star`, seed 1, bundle `a.fb`\n"),
            "{text}"
        );
        assert!(text.contains("| `s` | \u{274c} | \u{2705} |\n"), "{text}");
        assert!(text.contains("- reason: `` got `503` \u{2502} <b> ``\n"), "{text}");
    }

    #[test]
    fn runs_of_a_cell_share_a_place_in_the_grid() {
        let run = |n: u32, ending| told(&format!("matrix_s_f@{n}"), "s", Some("f"), ending, "");
        let alone = |n: u32, ending| told(&format!("test_a@{n}"), "test_a", None, ending, "");
        let text = text(&suite(vec![
            run(1, Ending::Passed),
            alone(1, Ending::Failed),
            run(2, Ending::Failed),
            alone(2, Ending::Failed),
            run(3, Ending::Passed),
        ]));
        assert!(text.contains("| `s` | \u{274c} 1 of 3 |\n"), "{text}");
        assert!(text.contains("| `test_a` | \u{274c} failed |\n"), "{text}");
        assert!(text.contains("- flaky: `matrix_s_f passed in 2 of 3 runs, not in 2`\n"), "{text}");
    }

    #[test]
    fn a_large_matrix_has_room() {
        let cell = |s: u32, f: u32, ending| {
            let (scenario, fault) = (format!("scenario_{s}"), format!("fault_{f}"));
            told(&format!("matrix_{scenario}_{fault}"), &scenario, Some(&fault), ending, &"why ".repeat(1000))
        };
        // Everything is red; then hardly anything is, in a grid that has no room.
        let all = (0..300).flat_map(|s| (0..300).map(move |f| (s, f)));
        let red = suite(all.clone().map(|(s, f)| cell(s, f, Ending::Failed)).collect());
        let shown = text(&red);
        assert!(shown.len() <= MOST, "{}", shown.len());
        assert!(shown.contains("more are not shown here"));
        let wide = (0..600).flat_map(|s| (0..600).map(move |f| (s, f)));
        let few = suite(
            wide.map(|(s, f)| cell(s, f, if (s, f) == (3, 4) { Ending::Failed } else { Ending::Passed }))
                .collect(),
        );
        let shown = text(&few);
        assert!(shown.len() <= MOST, "{}", shown.len());
        assert!(shown.contains("these are the rows and columns with failures"), "{}", &shown[..500]);
        assert!(shown.contains("| `scenario_3` | \u{274c} |"), "{}", &shown[..500]);
    }
}
