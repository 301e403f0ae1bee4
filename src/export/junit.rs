//! JUnit XML, as CI systems read it.
//!
//! Contract: one suite, one case a cell; its class is the scenario. What failed is a `failure`, what could not be
//! carried out or ran out of time an `error`, a known red is `skipped` with its reason. What XML 1.0 has no
//! character for is U+FFFD.

use super::{State, Suite, Told};
use crate::host;
use crate::terminal;

/// The document.
pub fn document(suite: &Suite) -> String {
    let failures = suite.count(&[State::Failed, State::Unexpected]);
    let errors = suite.count(&[State::Error, State::Inconclusive, State::NoVerdict]);
    let skipped = suite.count(&[State::Known]);
    let ns = suite.cells.iter().filter_map(|cell| cell.verdict.as_ref()).map(|verdict| verdict.cell_ns).sum();
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{}\"",
        suite.cells.len(),
        seconds(ns)
    );
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"faultbox\" {counts}>\n  <testsuite \
         name=\"{}\" {counts} timestamp=\"{}\">\n    <properties>\n      <property name=\"seed\" value=\"{}\"/>\n",
        escaped(&suite.spec),
        host::iso(suite.unix_ns).trim_end_matches('Z'),
        suite.seed
    );
    if let Some(bundle) = &suite.bundle {
        out.push_str(&format!("      <property name=\"bundle\" value=\"{}\"/>\n", escaped(bundle)));
    }
    out.push_str("    </properties>\n");
    suite.cells.iter().for_each(|cell| case(suite, cell, &mut out));
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn case(suite: &Suite, cell: &Told, out: &mut String) {
    let ns = cell.verdict.as_ref().map_or(0, |verdict| verdict.cell_ns);
    let (name, class) = (escaped(&cell.name), escaped(&cell.scenario));
    let head = format!("    <testcase name=\"{name}\" classname=\"{class}\" time=\"{}\"", seconds(ns));
    let state = cell.state();
    let element = match state {
        State::Passed | State::Unreached => {
            out.push_str(&format!("{head}/>\n"));
            return;
        }
        State::Known => "skipped",
        State::Failed | State::Unexpected => "failure",
        State::Inconclusive | State::Error | State::NoVerdict => "error",
    };
    let mut body = cell.verdict.as_ref().map(|verdict| verdict.reason.clone()).unwrap_or_default();
    if let Some((file, line)) = suite.path(cell) {
        body.push_str(&format!("\nat: {file}:{line}"));
    }
    if let Some(verdict) = cell.verdict.as_ref().filter(|_| state.is_red() && !cell.unexpected) {
        body.push_str(&format!("\nwhose: {}", terminal::whose(verdict.blame)));
    }
    body.extend(suite.replay(cell).map(|line| format!("\nreplay: {line}")));
    let kind = if element == "skipped" { String::new() } else { format!(" type=\"{}\"", state.shown().1) };
    let message = escaped(&cell.reason());
    let body = escaped(body.trim());
    out.push_str(&format!(
        "{head}>\n      <{element}{kind} message=\"{message}\">{body}</{element}>\n    </testcase>\n"
    ));
}

fn seconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1000)
}

/// Text for an element or an attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::{suite, told};
    use super::*;
    use faultbox_bundle_format::Ending;

    #[test]
    fn a_case_for_each_cell() {
        let xml = document(&suite(vec![
            told("a", "s", None, Ending::Passed, ""),
            told("b", "s", None, Ending::Failed, "<x> & \"y\"\u{1b}]]>\n\u{ffff}"),
            told("c", "s", None, Ending::Inconclusive, "late"),
            told("d", "s", None, Ending::Passed, "known failure: issue 12"),
        ]));
        assert!(
            xml.contains("tests=\"4\" failures=\"1\" errors=\"1\" skipped=\"1\" time=\"8.000\""),
            "{xml}"
        );
        assert!(xml.contains("timestamp=\"2026-04-23T11:12:34.123\""), "{xml}");
        assert!(xml.contains("message=\"&lt;x&gt; &amp; &quot;y&quot;\u{fffd}]]&gt; \u{fffd}\""), "{xml}");
        assert!(
            xml.contains("<error type=\"inconclusive\" message=\"late\">late\nat: specs/a.star:7"),
            "{xml}"
        );
        assert!(xml.contains("<skipped message=\"known failure: issue 12\">"), "{xml}");
        assert!(xml.contains("replay: faultbox replay a.fb --test b --seed 1"), "{xml}");
    }
}
