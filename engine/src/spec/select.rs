//! Choosing cells by name, and showing a plan without running it.

use super::convert::duration_words;
use super::diagnostics::nearest;
use crate::fault::{Assumption, Pattern};
use crate::plan::{Cell, Plan, RequireFire, run_of};
use crate::topology::Service;
use std::fmt::Write;

/// Why nothing was chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No cell has such a name.
    #[error("no cell matches `{pattern}`{}", .nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    None {
        /// What was asked for.
        pattern: String,
        /// The nearest name.
        nearest: Option<String>,
    },
    /// The regular expression cannot be read.
    #[error("bad regular expression `{pattern}`: {why}")]
    Regex {
        /// What was asked for.
        pattern: String,
        /// Why.
        why: String,
    },
}

/// Indices of the cells that the patterns choose, in the plan's order; all without patterns.
/// A pattern is an exact name, a glob (`matrix_*_db_down`, `?` for one character) or a regular
/// expression between slashes (`/_slow$/`). Of a cell with several runs, it is held against its name in the spec, which
/// chooses all of them, and against the names of its runs (`matrix_login_flow_db_down@3`).
///
/// # Errors
/// When a pattern chooses nothing.
pub fn select(plan: &Plan, patterns: &[String]) -> Result<Vec<usize>, SelectError> {
    let names: Vec<&str> = plan.cells.iter().map(|cell| cell.name.as_str()).collect();
    select_names(&names, patterns)
}

fn select_names(names: &[&str], patterns: &[String]) -> Result<Vec<usize>, SelectError> {
    if patterns.is_empty() {
        return Ok((0..names.len()).collect());
    }
    let mut chosen = vec![false; names.len()];
    for pattern in patterns {
        let matches = matcher(pattern)?;
        let mut any = false;
        for (name, chosen) in names.iter().zip(&mut chosen) {
            if matches(run_of(name).0) || matches(name) {
                any = true;
                *chosen = true;
            }
        }
        if !any {
            let near = near(pattern, names);
            return Err(SelectError::None { pattern: pattern.clone(), nearest: near });
        }
    }
    Ok(chosen.iter().enumerate().filter(|(_, chosen)| **chosen).map(|(index, _)| index).collect())
}

/// The name that a pattern without matches is nearest to. A pattern with wildcards is held
/// against the names with its own wildcards in place of what they could stand for.
fn near(pattern: &str, names: &[&str]) -> Option<String> {
    let Some((head, tail)) = pattern.split_once('*') else {
        return nearest(pattern, names.iter().copied()).map(str::to_owned);
    };
    let tail = tail.rsplit('*').next().unwrap_or_default();
    let part = |name: &str, begin: bool, len: usize| -> String {
        let chars: Vec<char> = name.chars().collect();
        let len = len.min(chars.len());
        if begin { chars.iter().take(len).collect() } else { chars.iter().skip(chars.len() - len).collect() }
    };
    let distance = |name: &str| {
        strsim::damerau_levenshtein(head, &part(name, true, head.chars().count()))
            + strsim::damerau_levenshtein(tail, &part(name, false, tail.chars().count()))
    };
    let best = names.iter().map(|name| (distance(name), *name)).min_by_key(|(distance, _)| *distance);
    // A name of which less than half of what was written is right is no help.
    let literal = head.chars().count() + tail.chars().count();
    best.filter(|(distance, _)| *distance <= 4 && distance * 2 <= literal).map(|(_, name)| name.to_owned())
}

type Matches = Box<dyn Fn(&str) -> bool>;

fn matcher(pattern: &str) -> Result<Matches, SelectError> {
    if let Some(inner) =
        pattern.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).filter(|p| !p.is_empty())
    {
        let regex = regex::Regex::new(inner).map_err(|error| {
            let why =
                error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            SelectError::Regex { pattern: pattern.to_owned(), why }
        })?;
        return Ok(Box::new(move |name| regex.is_match(name)));
    }
    if pattern.contains('?') {
        let pattern: Vec<char> = pattern.chars().collect();
        return Ok(Box::new(move |name| wild(&pattern, &name.chars().collect::<Vec<_>>())));
    }
    let pattern = Pattern { glob: pattern.to_owned(), case_sensitive: true };
    Ok(Box::new(move |name| pattern.matches(name)))
}

/// `*` stands for anything, `?` for one character.
fn wild(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => {
            wild(rest, name) || name.split_first().is_some_and(|(_, tail)| wild(pattern, tail))
        }
        (Some(('?', rest)), Some((_, tail))) => wild(rest, tail),
        (Some((p, rest)), Some((n, tail))) if p == n => wild(rest, tail),
        _ => false,
    }
}

/// The plan in words: services, faults, cells with their faults and expectations.
pub fn describe(plan: &Plan, cells: &[usize]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "Spec: {}\n\nServices:", plan.spec);
    let suts: Vec<&str> = plan.topology.suts().map(|service| service.name.as_str()).collect();
    let width = plan.topology.services.iter().map(|service| service.name.len()).max().unwrap_or(0);
    for service in &plan.topology.services {
        let _ = writeln!(
            out,
            "  {:width$}  {}",
            service.name,
            service_words(service, suts.contains(&service.name.as_str()))
        );
    }
    let chosen = || cells.iter().filter_map(|index| plan.cells.get(*index));
    let mut assumptions: Vec<&Assumption> = Vec::new();
    for assumption in chosen().filter_map(|cell| cell.assumption.as_deref()) {
        if !assumptions.iter().any(|known| known.name == assumption.name) {
            assumptions.push(assumption);
        }
    }
    if !assumptions.is_empty() {
        let _ = writeln!(out, "\nFaults:");
    }
    for assumption in &assumptions {
        let about = if assumption.description.is_empty() {
            String::new()
        } else {
            format!(": {}", assumption.description)
        };
        let _ = writeln!(out, "  {}{about}", assumption.name);
        for line in rule_lines(assumption) {
            let _ = writeln!(out, "    {line}");
        }
    }
    let _ = writeln!(out, "\nCells ({}):", cells.len());
    let under =
        |cell: &Cell| cell.assumption.as_ref().map(|a| format!("  under {}", a.name)).unwrap_or_default();
    let widest = |text: &dyn Fn(&Cell) -> usize| chosen().map(text).max().unwrap_or(0);
    let name = widest(&|cell| cell.name.len());
    let fault = widest(&|cell| under(cell).len());
    let expectation = widest(&|cell| cell.expectation.len());
    for cell in chosen() {
        let mut line = format!("  {:name$}{:fault$}", cell.name, under(cell));
        if expectation > 0 {
            let _ = write!(line, "  {:expectation$}", cell.expectation);
        }
        let _ = write!(line, "  within {}", duration_words(cell.timeout));
        if cell.require_faults_fire == RequireFire::Yes {
            line.push_str("  faults must fire");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if !plan.warnings.is_empty() {
        out.push('\n');
    }
    for warning in &plan.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

fn service_words(service: &Service, under_test: bool) -> String {
    let interfaces =
        service.interfaces.iter().map(|i| format!("{} {} at {}", i.name, i.protocol.name(), i.addr));
    let mut words = vec![service.kind.words()];
    words.extend(interfaces);
    if under_test {
        words.push("under test".to_owned());
    }
    if service.reuse {
        words.push("reused".to_owned());
    }
    if !service.depends_on.is_empty() {
        words.push(format!("after {}", service.depends_on.join(" ")));
    }
    words.join(", ")
}

fn rule_lines(assumption: &Assumption) -> Vec<String> {
    let mut lines = Vec::new();
    for part in assumption.flatten() {
        let target = match &part.target {
            Some(target) => match &target.interface {
                Some(interface) => format!("{}.{interface}", target.service),
                None => target.service.clone(),
            },
            None => continue,
        };
        lines.extend(part.rules.iter().map(|rule| format!("{target}: {}", rule.words)));
        lines.extend(part.syscalls.iter().map(|rule| {
            let side = match (rule.family.as_str(), rule.inbound) {
                ("connect", true) => " (connects to it)",
                ("connect", false) => " (connects of its own)",
                _ => "",
            };
            format!("{target}: {}{side}", rule.words)
        }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_globs_and_regexes_choose() {
        let names = ["test_a", "matrix_a_db_down", "matrix_b_db_down", "matrix_b_db_slow"];
        let chosen = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            select_names(&names, &patterns)
        };
        assert_eq!(chosen(&[]).unwrap(), [0, 1, 2, 3]);
        assert_eq!(chosen(&["test_a"]).unwrap(), [0]);
        assert_eq!(chosen(&["matrix_*_db_down"]).unwrap(), [1, 2]);
        assert_eq!(chosen(&["/slow$|^test/"]).unwrap(), [0, 3]);
        assert_eq!(chosen(&["matrix_?_db_slow", "test_a"]).unwrap(), [0, 3]);
        let error = chosen(&["test_a", "matrix_a_db_dwn"]).unwrap_err().to_string();
        assert_eq!(error, "no cell matches `matrix_a_db_dwn`; did you mean `matrix_a_db_down`?");
        let error = chosen(&["matrix_*_db_slw"]).unwrap_err().to_string();
        assert_eq!(error, "no cell matches `matrix_*_db_slw`; did you mean `matrix_b_db_slow`?");
        assert!(chosen(&["/(/"]).unwrap_err().to_string().starts_with("bad regular expression `/(/`"));
    }

    #[test]
    fn a_cells_runs_are_chosen_by_its_name_and_one_by_its_own() {
        let names = ["test_a@1", "matrix_a_db_down@1", "test_a@2", "matrix_a_db_down@2"];
        let chosen = |pattern: &str| select_names(&names, &[pattern.to_owned()]);
        assert_eq!(chosen("test_a").unwrap(), [0, 2]);
        assert_eq!(chosen("/_down$/").unwrap(), [1, 3]);
        assert_eq!(chosen("test_a@2").unwrap(), [2]);
        assert_eq!(chosen("*@1").unwrap(), [0, 1]);
        assert!(chosen("test_a@3").is_err());
    }
}
