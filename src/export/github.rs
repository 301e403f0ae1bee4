//! GitHub Actions: annotations as workflow commands.
//!
//! Contract: at most ten, which is what GitHub shows of one step; one for each kind of failure, on the line of the
//! spec of its first cell. A kind is a result with its reason, apart from figures and the place.

use super::{State, Suite, Told};
use std::collections::BTreeMap;

/// Most annotations: GitHub shows ten of a step and drops the rest.
const ANNOTATIONS: usize = 10;

/// The workflow commands, a line each; `path` makes a path of the run one from the repository's top.
pub fn annotations(suite: &Suite, path: impl Fn(&str) -> String) -> Vec<String> {
    let mut kinds: Vec<Vec<&Told>> = Vec::new();
    let mut known: BTreeMap<(State, String), usize> = BTreeMap::new();
    for cell in suite.cells.iter().filter(|cell| cell.state().is_red()) {
        let at = *known.entry((cell.state(), kind(&cell.reason()))).or_insert(kinds.len());
        match kinds.get_mut(at) {
            Some(cells) => cells.push(cell),
            None => kinds.push(vec![cell]),
        }
    }
    // The kinds that most cells have, first.
    kinds.sort_by_key(|cells| std::cmp::Reverse(cells.len()));
    let shown = if kinds.len() > ANNOTATIONS { ANNOTATIONS - 1 } else { kinds.len() };
    let mut lines: Vec<String> = kinds[..shown].iter().map(|cells| annotation(suite, cells, &path)).collect();
    let rest = &kinds[shown..];
    if !rest.is_empty() {
        let cells: usize = rest.iter().map(Vec::len).sum();
        let said =
            format!("{cells} more cells, of {} more kinds of failure: see the job summary", rest.len());
        lines.push(format!("::error title={}::{}", property("faultbox"), data(&said)));
    }
    lines
}

fn annotation(suite: &Suite, cells: &[&Told], path: impl Fn(&str) -> String) -> String {
    let Some(first) = cells.first() else { return String::new() };
    let level = if first.state() == State::Inconclusive { "warning" } else { "error" };
    let place = suite.path(first).map(|(file, line)| format!("file={},line={line},", property(&path(&file))));
    let more = match cells.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more like it)"),
    };
    let title = format!("{}{more}: {}", first.name, first.state().shown().1);
    let mut said = first.reason();
    said.extend(suite.replay(first).map(|line| format!("\n{line}")));
    format!("::{level} {}title={}::{}", place.unwrap_or_default(), property(&title), data(&said))
}

/// What failures of one kind have in common.
fn kind(reason: &str) -> String {
    let untagged = crate::baseline::untagged(reason);
    let placeless = crate::baseline::placeless(&untagged);
    let mut out = String::new();
    for c in placeless.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false => out.push(c),
        }
    }
    out
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{suite, told};
    use super::*;
    use faultbox_bundle_format::Ending;

    fn lines(cells: Vec<Told>) -> Vec<String> {
        annotations(&suite(cells), str::to_owned)
    }

    #[test]
    fn one_for_each_kind() {
        let lines = lines(vec![
            told("a", "s", None, Ending::Failed, "got 503, 100% (a.star:7)"),
            told("b", "s", None, Ending::Failed, "got 500, 100% (a.star:9)"),
            told("c", "s", None, Ending::Inconclusive, "late"),
            told("d", "s", None, Ending::Passed, ""),
        ]);
        assert_eq!(
            lines,
            [
                "::error file=specs/a.star,line=7,title=a (and 1 more like it)%3A failed::got 503, 100%25 (a.star:7)%0Afaultbox replay a.fb --test a --seed 1",
                "::warning file=specs/a.star,line=7,title=c%3A inconclusive::late%0Afaultbox replay a.fb --test c --seed 1",
            ]
        );
    }

    #[test]
    fn never_more_than_ten() {
        let word = |n: u32| (0..n).map(|_| 'x').collect::<String>();
        let cells =
            |n: u32| (1..=n).map(|n| told(&format!("c{n}"), "s", None, Ending::Failed, &word(n))).collect();
        assert_eq!(lines(cells(10)).len(), 10);
        let eleven = lines(cells(11));
        assert_eq!(eleven.len(), 10);
        assert!(eleven[9].contains("2 more cells, of 2 more kinds"), "{eleven:?}");
    }

    #[test]
    fn a_reason_makes_no_command_of_its_own() {
        let lines =
            lines(vec![told("a", "s", None, Ending::Failed, "x\n::set-output name=a::b\r\n::error::c")]);
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].contains('\n') && !lines[0].contains('\r'), "{lines:?}");
    }
}
