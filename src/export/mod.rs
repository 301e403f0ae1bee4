//! Results in the forms of other tools: [`junit`], [`github`], [`summary`], [`har`], [`pcapng`].
//!
//! Contract: [`Suite`] is all that they say of results, whether it comes from a run or from a bundle. Texts
//! are of the redacted kind that bundles hold; each format escapes them by its own rules.

pub mod github;
pub mod har;
pub mod junit;
pub mod pcapng;
pub mod summary;

use crate::baseline::Compared;
use crate::terminal::Findings;
use faultbox_bundle_format::{Body, Bundle, Ending, Entry, ReadError, RunStarted, Verdict};

/// What a whole run came to.
pub struct Suite {
    /// The spec's path as it was given.
    pub spec: String,
    /// The folder of the spec in front of the places in it, with a `/` at its end, or empty.
    pub folder: String,
    /// The seed.
    pub seed: u64,
    /// When it began, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// The bundle's path, where there is one.
    pub bundle: Option<String>,
    /// Its cells, in their order.
    pub cells: Vec<Told>,
}

/// What one cell came to.
pub struct Told {
    /// Its name.
    pub name: String,
    /// Its scenario.
    pub scenario: String,
    /// Its fault, in a matrix.
    pub fault: Option<String>,
    /// Its result; `None` where the run was cut short.
    pub verdict: Option<Verdict>,
    /// Whether a baseline has it as it is.
    pub known: bool,
    /// Whether a baseline has it as a red, and it passed.
    pub unexpected: bool,
    /// Where the spec says what failed: file and line.
    pub place: Option<(String, u32)>,
    /// What else it says of itself, a line each.
    pub findings: Vec<String>,
}

/// What a cell is to whoever counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As expected.
    Passed,
    /// As expected, and none of its faults fired.
    Unreached,
    /// A red that is known.
    Known,
    /// Not as expected.
    Failed,
    /// Passed, and is marked as a red.
    Unexpected,
    /// Ran out of time.
    Inconclusive,
    /// Could not be carried out.
    Error,
    /// The run ended before it did.
    NoVerdict,
}

impl State {
    /// A sign and a word.
    pub fn shown(self) -> (&'static str, &'static str) {
        match self {
            State::Passed => ("\u{2705}", "passed"),
            State::Unreached => ("\u{26aa}", "unreached"),
            State::Known => ("\u{1f7e8}", "known red"),
            State::Failed => ("\u{274c}", "failed"),
            State::Unexpected => ("\u{2757}", "unexpected pass"),
            State::Inconclusive => ("\u{2754}", "inconclusive"),
            State::Error => ("\u{1f6d1}", "error"),
            State::NoVerdict => ("\u{2b1c}", "no verdict"),
        }
    }

    /// Whether somebody must do something about it.
    pub fn is_red(self) -> bool {
        !matches!(self, State::Passed | State::Unreached | State::Known)
    }
}

impl Told {
    /// A cell with its result, its place out of its entries.
    pub fn new(
        name: &str,
        scenario: &str,
        fault: Option<&str>,
        verdict: Option<&Verdict>,
        entries: &[Entry],
    ) -> Self {
        Told {
            name: name.to_owned(),
            scenario: scenario.to_owned(),
            fault: fault.map(str::to_owned),
            verdict: verdict.cloned(),
            known: false,
            unexpected: false,
            place: place(entries),
            findings: Findings::of(entries).lines(),
        }
    }

    /// What it is.
    pub fn state(&self) -> State {
        let Some(verdict) = &self.verdict else { return State::NoVerdict };
        match verdict.ending {
            Ending::Passed if self.unexpected => State::Unexpected,
            // Of what passes, only a known red has a reason.
            Ending::Passed if !verdict.reason.is_empty() => State::Known,
            Ending::Passed if verdict.unreached => State::Unreached,
            Ending::Passed => State::Passed,
            _ if self.known => State::Known,
            Ending::Failed | Ending::Violated => State::Failed,
            Ending::Inconclusive => State::Inconclusive,
            Ending::Error => State::Error,
        }
    }

    /// Why, in one line.
    pub fn reason(&self) -> String {
        match (&self.verdict, self.unexpected) {
            (_, true) => "it passed, and the baseline has it as a red".to_owned(),
            (Some(verdict), _) => {
                crate::terminal::one_line(&verdict.reason.split_whitespace().collect::<Vec<_>>().join(" "))
            }
            (None, _) => "the run ended before it had a verdict".to_owned(),
        }
    }
}

impl Suite {
    /// Reads a bundle.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn of_bundle(bundle: &Bundle, path: &str) -> Result<Self, ReadError> {
        let started = run_started(bundle)?;
        let mut cells = Vec::with_capacity(bundle.cells().len());
        for cell in bundle.cells() {
            let entries = if cell.passed() { Vec::new() } else { bundle.entries(cell.cell)? };
            let fault = cell.assumption.as_deref();
            let mut told = Told::new(&cell.name, &cell.scenario, fault, cell.verdict.as_ref(), &entries);
            if cell.passed() {
                told.findings = Findings::of(&bundle.raw_entries(cell.cell)?).lines();
            }
            cells.push(told);
        }
        let mut suite = Suite {
            spec: String::new(),
            folder: String::new(),
            seed: 0,
            unix_ns: 0,
            bundle: Some(path.to_owned()),
            cells,
        };
        if let Some(started) = started {
            let given = started.command.iter().find(|word| word.ends_with(&started.spec));
            suite.spec = given.cloned().unwrap_or_else(|| started.spec.clone());
            suite.folder = folder(&suite.spec, &started.spec);
            (suite.seed, suite.unix_ns) = (started.seed, started.unix_ns);
        }
        Ok(suite)
    }

    /// Marks what a baseline says.
    pub fn mark(&mut self, compared: &Compared) {
        for cell in &mut self.cells {
            cell.known = compared.known.contains(&cell.name);
            cell.unexpected = compared.passed.contains(&cell.name);
        }
    }

    /// How many cells are in these states.
    pub fn count(&self, states: &[State]) -> usize {
        self.cells.iter().filter(|cell| states.contains(&cell.state())).count()
    }

    /// What came out, in one line.
    pub fn counted(&self) -> String {
        let order = [
            State::Passed,
            State::Unreached,
            State::Failed,
            State::Unexpected,
            State::Error,
            State::Inconclusive,
            State::NoVerdict,
            State::Known,
        ];
        let counts = order.iter().map(|state| (self.count(&[*state]), state.shown().1));
        let shown = counts.filter(|(count, word)| *count > 0 || ["passed", "failed"].contains(word));
        shown.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
    }

    /// The line that replays a cell, where there is a bundle.
    pub fn replay(&self, cell: &Told) -> Option<String> {
        let bundle = self.bundle.as_ref()?;
        Some(crate::terminal::replay_line(std::path::Path::new(bundle), &cell.name, self.seed))
    }

    /// The place of a cell as a path from where the run was started.
    pub fn path(&self, cell: &Told) -> Option<(String, u32)> {
        cell.place.as_ref().map(|(file, line)| (format!("{}{file}", self.folder), *line))
    }
}

/// How a bundle's run began.
///
/// # Errors
/// When the bundle is damaged.
pub fn run_started(bundle: &Bundle) -> Result<Option<RunStarted>, ReadError> {
    let run = bundle.raw_entries(0)?;
    Ok(run.into_iter().find_map(|entry| match entry.body {
        Body::RunStarted(started) => Some(started),
        _ => None,
    }))
}

/// What stands in a path before the spec's name inside its tree.
pub fn folder(given: &str, spec: &str) -> String {
    let before = given.strip_suffix(spec).filter(|before| before.is_empty() || before.ends_with('/'));
    before.map(|before| before.trim_start_matches("./").to_owned()).unwrap_or_default()
}

/// Where the spec says what failed: its last assertion that did not hold, else its last step.
fn place(entries: &[Entry]) -> Option<(String, u32)> {
    let failed = entries.iter().rev().find_map(|entry| match &entry.body {
        Body::Assertion(assertion) if !assertion.held => Some(&assertion.location),
        _ => None,
    });
    let step = || {
        entries.iter().rev().find_map(|entry| match &entry.body {
            Body::StepStarted(step) => Some(&step.location),
            _ => None,
        })
    };
    let (file, line) = failed.or_else(step)?.rsplit_once(':')?;
    Some((file.to_owned(), line.parse().ok()?))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use faultbox_bundle_format::Blame;

    pub fn told(name: &str, scenario: &str, fault: Option<&str>, ending: Ending, reason: &str) -> Told {
        let verdict = Verdict {
            ending,
            reason: reason.to_owned(),
            blame: Blame::ServiceUnderTest,
            fired: Vec::new(),
            unreached: false,
            scenario_ns: 1_500_000_000,
            cell_ns: 2_000_000_000,
            digest: [0; 32],
        };
        let mut told = Told::new(name, scenario, fault, Some(&verdict), &[]);
        told.place = Some(("a.star".to_owned(), 7));
        told
    }

    pub fn suite(cells: Vec<Told>) -> Suite {
        Suite {
            spec: "specs/a.star".to_owned(),
            folder: "specs/".to_owned(),
            seed: 1,
            unix_ns: 1_776_942_754_123_000_000,
            bundle: Some("a.fb".to_owned()),
            cells,
        }
    }

    #[test]
    fn places_begin_where_the_run_did() {
        assert_eq!(folder("./specs/a.star", "a.star"), "specs/");
        assert_eq!(folder("a.star", "a.star"), "");
        assert_eq!(folder("x/b/a.star", "b/a.star"), "x/");
        assert_eq!(folder("xa.star", "a.star"), "", "another file");
    }

    #[test]
    fn known_reds_are_no_reds() {
        let mut known = told("a", "a", None, Ending::Failed, "x");
        assert!(known.state().is_red());
        known.known = true;
        assert_eq!(known.state(), State::Known);
        assert_eq!(told("a", "a", None, Ending::Passed, "known failure: x").state(), State::Known);
        let mut passed = told("a", "a", None, Ending::Passed, "");
        passed.unexpected = true;
        assert!(passed.state().is_red());
        let suite = suite(vec![passed, known, told("b", "b", None, Ending::Passed, "")]);
        assert_eq!(suite.counted(), "1 passed, 0 failed, 1 unexpected pass, 1 known red");
    }
}
