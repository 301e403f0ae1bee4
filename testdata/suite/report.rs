//! `faultbox report`, in a browser: what is on the page, that all of it can be reached by keyboard and by
//! address, that a hostile bundle runs nothing, and that a large one stays quick to draw.
//!
//! Method: bundles that the tests make themselves, opened in a headless Chromium from the disk, as a
//! reader does. How quick is told by how much is drawn, never by a clock.

use super::browser::Browser;
use super::{code, run, skipped};
use faultbox_bundle_format::*;
use std::path::{Path, PathBuf};

const NO_BROWSER: &str = "reports in a browser (no chromium here)";

/// Whatever runs sets this, or the title, or asks for something.
const HOSTILE: &[&str] = &[
    "</script><script>window.ran=1;document.title='ran'</script>",
    "\"><img src=x onerror=\"window.ran=1\">",
    "<svg/onload=window.ran=1>",
    "<!--<script>",
    "javascript:window.ran=1",
    "${window.ran=1}{{index}}{{script}}{{cells}}",
    "a\u{1b}[2J\u{9b}31m\u{202e}b\u{2028}c\0",
];

/// A bundle that a test makes.
struct Made {
    writer: BundleWriter,
    seq: u64,
}

impl Made {
    fn at(path: &Path) -> Self {
        let writer = BundleWriter::create(path, Header::new([1; 16], [2; 16])).unwrap();
        let mut made = Made { writer, seq: 0 };
        let started = RunStarted {
            seed: u64::MAX,
            seed_source: "cli".to_owned(),
            tool_version: "0.1.0".to_owned(),
            command: vec!["test".to_owned(), HOSTILE[0].to_owned()],
            unix_ns: 1_776_942_754_000_000_000,
            spec: "a.star".to_owned(),
        };
        made.note(0, Phase::Run, Body::RunStarted(started));
        made
    }

    fn note(&mut self, cell: u32, phase: Phase, body: Body) {
        self.seq += 1;
        let (seq, at_ns) = (self.seq, self.seq * 1_000_000);
        let (actor, stream) = ("api".to_owned(), "s".to_owned());
        let entry =
            Entry { seq, at_ns, cell, phase, actor: actor.into(), stream, ordinal: seq, cause: None, body };
        self.writer.append(&entry).unwrap();
    }

    fn begin(&mut self, cell: u32, name: &str, scenario: &str, assumption: Option<&str>) {
        let started = CellStarted {
            name: name.to_owned(),
            scenario: scenario.to_owned(),
            assumption: assumption.map(str::to_owned),
            expectation: "expect_success()".to_owned(),
        };
        self.note(cell, Phase::Start, Body::CellStarted(started));
    }

    fn exchange(&mut self, cell: u32, service: &str, text: &str) {
        let request = Value::map([("path", Value::text(text)), (text, Value::text(text))]);
        let exchange = Exchange {
            protocol: "http".into(),
            source: "test".into(),
            interface: format!("{service}.public").into(),
            connection: 1,
            operation: format!("GET {text}").into(),
            key: "k".to_owned(),
            class: Class::Work,
            mutating: false,
            repeatable: false,
            request: Payload::of(&request),
            outcome: Outcome::Answered,
            response: Some(Payload::of(&Value::map([
                ("status", Value::Int(200)),
                ("body", Value::text(text)),
            ]))),
            rule: None,
            began_ns: self.seq * 1_000_000,
            ended_ns: self.seq * 1_000_000 + 500_000,
            began_seq: self.seq,
        };
        self.note(cell, Phase::Scenario, Body::Exchange(exchange));
    }

    /// Something that the cell says of itself beside its verdict.
    fn finding(&mut self, cell: u32, text: &str) {
        let fact = Named { name: "proves nothing".to_owned(), value: text.to_owned() };
        self.note(cell, Phase::Scenario, Body::HostFact(fact));
    }

    fn end(&mut self, cell: u32, ending: Ending, unreached: bool, reason: &str) {
        let fault = FaultCount {
            assumption: "f".to_owned(),
            index: 0,
            rule: reason.to_owned(),
            target: "db".to_owned(),
            matched: 1,
            fired: u64::from(!unreached),
        };
        let verdict = Verdict {
            ending,
            reason: reason.to_owned(),
            blame: Blame::ServiceUnderTest,
            fired: vec![fault],
            unreached,
            scenario_ns: 5_000_000,
            cell_ns: 9_000_000,
            digest: [0; 32],
        };
        self.note(cell, Phase::Tail, Body::Verdict(verdict));
    }

    /// Ends the bundle and makes its page. The page's address.
    fn page(mut self, page: &Path) -> String {
        let ended = RunEnded { passed: 0, failed: 0, interrupted: false };
        self.note(0, Phase::Run, Body::RunEnded(ended));
        let bundle = self.writer.finish().unwrap();
        let output = run(&["report", &bundle.display().to_string(), "-o", &page.display().to_string()]);
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
        format!("file://{}", page.display())
    }
}

/// A matrix with a cell of every kind, and one test.
fn every_kind(folder: &Path) -> String {
    let mut made = Made::at(&folder.join("kinds.fb"));
    let cells = [
        ("creation", Some("db_down"), Ending::Violated, false),
        ("creation", Some("db_slow"), Ending::Passed, false),
        ("listing", Some("db_down"), Ending::Passed, true),
        ("listing", Some("db_slow"), Ending::Error, false),
        ("health", None, Ending::Inconclusive, false),
    ];
    for (cell, (scenario, fault, ending, unreached)) in (1..).zip(cells) {
        let name = fault.map_or(format!("test_{scenario}"), |fault| format!("matrix_{scenario}_{fault}"));
        made.begin(cell, &name, scenario, fault);
        for number in 0..4 {
            made.exchange(cell, "api", &format!("/{scenario}/{number}"));
        }
        let reason = if ending == Ending::Passed { "" } else { "status_code=503 (want < 500)" };
        made.end(cell, ending, unreached, reason);
    }
    made.begin(6, "matrix_health_db_down", "health", Some("db_down"));
    made.page(&folder.join("kinds.html"))
}

/// The labels of the grid's cells, in order.
fn labels(browser: &mut Browser) -> String {
    browser.text("[...document.querySelectorAll('#grids button')].map((b) => b.getAttribute('aria-label')).join('\\n')")
}

const FOCUS: &str = "document.activeElement.getAttribute('aria-label') || document.activeElement.id";

#[test]
fn the_grid_the_keyboard_and_the_address() {
    let Some(mut browser) = Browser::start() else { return skipped(NO_BROWSER) };
    let folder = tempfile::tempdir().unwrap();
    let address = every_kind(folder.path());
    browser.open(&address);
    let wanted = "creation under db_down: failed, status_code=503 (want < 500)\n\
                  creation under db_slow: passed\n\
                  listing under db_down: unreached\n\
                  listing under db_slow: error, status_code=503 (want < 500)\n\
                  health under db_down: no verdict\n\
                  health without a fault: inconclusive, status_code=503 (want < 500)";
    assert_eq!(labels(&mut browser), wanted);
    let seed = browser.text("document.getElementById('facts').textContent.includes('18446744073709551615')");
    assert_eq!(seed, "true", "a seed keeps its digits");

    // By keyboard: into the grid, to a cell, into its story, to an entry and back again.
    browser.value("document.querySelector('#grids button[tabindex=\"0\"]').focus()");
    browser.press("ArrowDown");
    assert_eq!(browser.text(FOCUS), "listing under db_down: unreached");
    browser.press("ArrowUp");
    browser.press("Enter");
    assert_eq!(browser.text("location.hash"), "#cell=matrix_creation_db_down");
    assert_eq!(browser.text(FOCUS), "cell-name");
    assert_eq!(browser.text("document.title"), "matrix_creation_db_down: failed");
    browser.value("document.getElementById('list').focus()");
    browser.press("End");
    let details = browser.text("document.getElementById('details').textContent");
    assert!(details.contains("GET /creation/3") && details.contains("status: 200"), "{details}");
    browser.press("Enter");
    assert_eq!(browser.text(FOCUS), "The selected entry");
    browser.press("Escape");
    assert_eq!(browser.text("document.activeElement.id"), "list");
    browser.press("Escape");
    assert_eq!(browser.text(FOCUS), "creation under db_down: failed, status_code=503 (want < 500)");

    // By search: what is found is a link to the line.
    browser.value(
        "(() => { const s = document.getElementById('search'); s.value = 'LISTING/2'; \
         s.dispatchEvent(new Event('input')); })()",
    );
    assert_eq!(browser.text("document.querySelectorAll('.finds a').length"), "2");
    let link = browser.text("document.querySelector('.finds a').getAttribute('href')");
    assert_eq!(browser.complaints, Vec::<String>::new());

    // By address.
    browser.open(&format!("{address}{link}"));
    assert_eq!(browser.text("document.title"), "matrix_listing_db_down: unreached");
    let details = browser.text("document.getElementById('details').textContent");
    assert!(details.contains("GET /listing/2"), "{details}");
    browser.open(&format!("{address}#cell=matrix_creation_db_down&tab=exchanges"));
    assert_eq!(browser.text("document.querySelectorAll('#rows .row').length"), "4");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn runs_of_a_cell_share_a_place_and_what_there_is_to_look_at_is_linked() {
    let Some(mut browser) = Browser::start() else { return skipped(NO_BROWSER) };
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::at(&folder.path().join("runs.fb"));
    for run in 1..=3 {
        let ending = if run == 2 { Ending::Violated } else { Ending::Passed };
        made.begin(2 * run - 1, &format!("matrix_creation_db_down@{run}"), "creation", Some("db_down"));
        made.exchange(2 * run - 1, "api", &format!("/run/{run}"));
        made.end(2 * run - 1, ending, false, if run == 2 { "503" } else { "" });
        made.begin(2 * run, &format!("test_alone@{run}"), "test_alone", None);
        made.exchange(2 * run, "api", "/alone");
        made.finding(2 * run, "it asserts nothing");
        made.end(2 * run, Ending::Passed, false, "");
    }
    let address = made.page(&folder.path().join("runs.html"));
    browser.open(&address);
    let wanted =
        "creation under db_down: flaky, 2 of 3 passed, 503\ntest_alone without a fault: passed, 3 runs";
    assert_eq!(labels(&mut browser), wanted);
    let said = browser
        .text("[...document.querySelectorAll('#findings li')].map((line) => line.textContent).join('\\n')");
    let alone = |run| format!("test_alone@{run}: proves nothing: it asserts nothing");
    let lines =
        ["flaky: matrix_creation_db_down passed in 2 of 3 runs, not in 2", &alone(1), &alone(2), &alone(3)];
    assert_eq!(said, lines.join("\n"));

    // The button opens what is not as the others, and each run has a link there.
    browser.value("document.querySelector('#grids button').click()");
    browser.drawn();
    assert_eq!(browser.text("document.title"), "matrix_creation_db_down@2: failed");
    let runs =
        "[...document.querySelectorAll('#runs a')].map((a) => a.getAttribute('aria-label')).join(', ')";
    assert_eq!(browser.text(runs), "run 1: passed, run 2: failed, run 3: passed");
    browser.value("document.querySelectorAll('#runs a')[2].click()");
    browser.drawn();
    assert_eq!(browser.text("document.title"), "matrix_creation_db_down@3: passed");
    assert_eq!(browser.text("document.querySelector('#runs [aria-current]').textContent"), "\u{2713} 3");
    browser.press("Escape");
    browser.drawn();
    assert_eq!(browser.text(FOCUS), "creation under db_down: flaky, 2 of 3 passed, 503");
    browser.value("document.querySelectorAll('#findings a')[1].click()");
    browser.drawn();
    assert_eq!(browser.text("document.title"), "test_alone@2: passed");
    let facts = browser.text("document.getElementById('cell-facts').textContent");
    assert!(facts.contains("to look atproves nothing: it asserts nothing"), "{facts}");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn a_hostile_bundle_runs_nothing() {
    let Some(mut browser) = Browser::start() else { return skipped(NO_BROWSER) };
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::at(&folder.path().join("h.fb"));
    for (cell, text) in (1..).zip(HOSTILE) {
        made.begin(cell, &format!("matrix_{text}"), text, Some(text));
        made.exchange(cell, text, text);
        let output =
            Output { service: (*text).to_owned(), stderr: true, bytes: format!("{text}\n").into_bytes() };
        made.note(cell, Phase::Scenario, Body::Output(output));
        made.finding(cell, text);
        made.end(cell, Ending::Violated, false, text);
    }
    let page: PathBuf = folder.path().join("h.html");
    let address = made.page(&page);
    let bytes = std::fs::read_to_string(&page).unwrap();
    let drives = |c: &char| c.is_control() && *c != '\n' || ('\u{202a}'..='\u{202e}').contains(c);
    assert_eq!(bytes.chars().find(drives), None, "nothing in the file drives a terminal");

    let intact = |browser: &mut Browser, place: &str| {
        let ran = browser.text("String(window.ran)");
        assert_eq!(ran, "undefined", "{place}");
        let foreign =
            browser.text("document.querySelectorAll('img, svg, iframe, object, embed, link').length");
        assert_eq!(foreign, "0", "{place}");
        assert_eq!(browser.complaints, Vec::<String>::new(), "{place}");
    };
    browser.open(&address);
    assert_eq!(browser.text("document.querySelectorAll('#grids button').length"), HOSTILE.len().to_string());
    intact(&mut browser, "the grid");
    for (place, hostile) in HOSTILE.iter().enumerate() {
        browser.value(&format!("document.querySelector('#grids button[data-places=\"{place}\"]').click()"));
        browser.drawn();
        assert_eq!(browser.text("document.getElementById('cell').hidden"), "false");
        for tab in ["exchanges", "logs", "all", "spec", "story"] {
            browser.value(&format!("document.getElementById('tab-{tab}').click()"));
            browser.drawn();
            browser.value("document.querySelector('#rows .row')?.click()");
            browser.drawn();
            intact(&mut browser, &format!("{tab} of {hostile:?}"));
        }
        browser.press("Escape");
        browser.press("Escape");
        browser.value("location.hash = ''");
        browser.drawn();
    }
    browser.open(&format!("{address}#cell=%3Cimg%20src%3Dx%20onerror%3Dwindow.ran%3D1%3E&event=%22"));
    intact(&mut browser, "a hostile address");
}

#[test]
fn of_a_hundred_thousand_entries_a_screenful_is_drawn() {
    const MANY: usize = 100_000;
    let Some(mut browser) = Browser::start() else { return skipped(NO_BROWSER) };
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::at(&folder.path().join("large.fb"));
    made.begin(1, "test_large", "large", None);
    for number in 0..MANY {
        made.exchange(1, ["api", "db", "cache"][number % 3], &format!("/things/{number}"));
    }
    made.end(1, Ending::Failed, false, "it is large");
    let address = made.page(&folder.path().join("large.html"));
    browser.open(&format!("{address}#cell=test_large"));
    assert_eq!(
        browser.text("document.getElementById('list').getAttribute('aria-label')"),
        "Story, 100000 entries"
    );
    let rows = |browser: &mut Browser| -> usize {
        browser.text("document.querySelectorAll('#rows .row').length").parse().unwrap()
    };
    assert!((1..=100).contains(&rows(&mut browser)), "{}", rows(&mut browser));
    browser.value("document.getElementById('list').focus()");
    browser.press("End");
    let details = browser.text("document.querySelector('#details h3').textContent");
    assert!(details.contains("/things/99999"), "{details}");
    assert!((1..=100).contains(&rows(&mut browser)), "{}", rows(&mut browser));
    assert_eq!(
        browser.text("document.querySelector('[aria-selected=\"true\"].row').getAttribute('aria-posinset')"),
        "100000"
    );
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn a_report_never_takes_the_place_of_its_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("kinds.fb");
    every_kind(folder.path());
    let before = std::fs::read(&bundle).unwrap();
    let name = bundle.display().to_string();
    let output = run(&["report", &name, "-o", &name]);
    assert_eq!(code(&output), 2, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(&bundle).unwrap(), before);
    let nowhere = folder.path().join("no/such/folder.html").display().to_string();
    assert_eq!(code(&run(&["report", &name, "--output", &nowhere])), 2);
    assert_eq!(code(&run(&["report", "Cargo.toml", "--output", &nowhere])), 5);
}
