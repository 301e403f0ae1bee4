//! The plan: what a spec wants run. All that the spec hands to the runner.
//!
//! Contract: everything is checked (names, rules, cycles, overrides) before a `Plan` exists.

use crate::fault::Assumption;
use crate::fault::rule::Modifiers;
use crate::mock::{SignRequest, grpc::GrpcAnswer};
use crate::spec::volatile::Line;
use crate::step::{StepCall, StepResponse};
use crate::topology::{ServiceKind, Topology};
use faultbox_bundle_format::{Blame, Ending, Entry, Value};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A loaded and checked spec.
#[derive(Clone)]
pub struct Plan {
    /// The services.
    pub topology: Topology,
    /// Tests and matrix cells, in order of definition.
    pub cells: Vec<Cell>,
    /// Every file that was read, for the bundle.
    pub files: Vec<LoadedFile>,
    /// Warnings to print before the run (`literal credential outside secret()`).
    pub warnings: Vec<String>,
    /// Values of `secret(...)`.
    pub secrets: Vec<(String, String)>,
    /// Path of the root spec relative to `root`.
    pub spec: String,
    /// Folder that all paths in `files` are relative to.
    pub root: PathBuf,
    /// Where services make values up anew in each run: the lines of the spec's side file.
    pub learned: Vec<Line>,
    /// Runs the callables of the spec.
    pub program: Arc<dyn Program>,
}

impl Plan {
    /// The same plan, in which what local executables ask the host is told of (`determinism("L1")`).
    pub fn watched(&self) -> Self {
        let mut plan = self.clone();
        let services = plan.topology.services.iter_mut();
        for service in services.filter(|service| matches!(service.kind, ServiceKind::Binary { .. })) {
            service.determinism.watched = true;
        }
        plan
    }

    /// The same plan with each cell so many times, as a cell of its own: all of run 1, then all of run 2, and so on.
    /// What is drawn for a cell is drawn by its name, so runs differ in it and each can be had again.
    pub fn repeated(&self, runs: u32) -> Self {
        let run = |run: u32| {
            self.cells
                .iter()
                .map(move |cell| Cell { name: format!("{}{RUN}{run}", cell.name), ..cell.clone() })
        };
        let cells = (1..=runs).flat_map(run).collect();
        Plan { cells, ..self.clone() }
    }

    /// Whether anything that happens in a cell is drawn from the seed, so that its runs differ by it.
    pub fn draws(&self, index: usize) -> bool {
        let cell = self.cells.get(index);
        let parts =
            cell.and_then(|cell| cell.assumption.as_deref()).map(Assumption::flatten).unwrap_or_default();
        let odds = |modifiers: &Modifiers| modifiers.probability.is_some();
        let by_rules = |part: &&Assumption| {
            part.rules.iter().any(|rule| odds(&rule.modifiers) || rule.share.is_some())
                || part.syscalls.iter().any(|rule| odds(&rule.modifiers))
        };
        parts.iter().any(by_rules) || self.topology.services.iter().any(|service| service.determinism.entropy)
    }
}

/// What stands between a cell's name and the number of its run.
const RUN: char = '@';

/// Most runs of a cell.
pub const RUNS_MAX: u32 = 1000;

/// The name that a cell has in the spec, and which run of it this is, from 1, where it is one of several.
pub fn run_of(name: &str) -> (&str, Option<u32>) {
    let split = name.rsplit_once(RUN).and_then(|(cell, run)| Some((cell, run, run.parse().ok()?)));
    match split {
        // No two names are of one run.
        Some((cell, written, run)) if (1..=RUNS_MAX).contains(&run) && written == run.to_string() => {
            (cell, Some(run))
        }
        _ => (name, None),
    }
}

/// The last run that any of these names of cells, or patterns of such names, is of.
pub fn last_run<'a>(names: impl Iterator<Item = &'a str>) -> Option<u32> {
    names.filter_map(|name| run_of(name).1).max()
}

/// One test, or one scenario under one assumption.
#[derive(Debug, Clone)]
pub struct Cell {
    /// `test_...` or `matrix_<scenario>_<fault>`, with `@<run>` behind it where it has several ([`run_of`]).
    pub name: String,
    /// Which of the program's cells it is.
    pub number: usize,
    /// The scenario's name.
    pub scenario: String,
    /// What goes wrong.
    pub assumption: Option<Arc<Assumption>>,
    /// The expectation in words (`expect_success()`), empty for plain tests.
    pub expectation: String,
    /// All of the cell's scenario time.
    pub timeout: Duration,
    /// Whether a cell none of whose faults fired fails.
    pub require_faults_fire: RequireFire,
    /// Services that its scenario can reach through faults, for the filter plan.
    pub location: String,
}

/// What becomes of a cell whose faults did not fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequireFire {
    /// It fails.
    Yes,
    /// It passes with a mark.
    Warn,
    /// It passes.
    No,
}

/// A file that the spec read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedFile {
    /// Relative to the plan's root, `/` separated.
    pub path: String,
    /// `spec`, `loaded` or `descriptors`.
    pub role: &'static str,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// What callables of a spec can do to the world.
pub trait Driver: Send + Sync {
    /// Performs a step. Never an error: what went wrong stands in the response.
    fn step(&self, call: StepCall) -> StepResponse;
    /// Signs a token.
    ///
    /// # Errors
    /// When the mock cannot.
    fn sign(&self, mock: &str, request: SignRequest) -> Result<String, crate::mock::MockError>;
    /// Notes an assertion.
    fn assertion(&self, held: bool, message: &str, location: &str);
    /// Notes that what was to judge the cell could not have failed, and why.
    fn proves_nothing(&self, _why: &str) {}
    /// Wall clock of the run, seconds since the Unix epoch.
    fn now_unix_s(&self) -> u64;
    /// Something the spec printed.
    fn print(&self, text: &str);
    /// What was noted in the cell once nothing that the scenario began is open any more.
    fn entries(&self) -> Vec<Entry>;
    /// Ends the faults, then makes attempts until one succeeds; whether one did in this time.
    fn recover(&self, within: Duration, attempt: &mut dyn FnMut() -> bool) -> bool;
}

/// What came of a scenario and its expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// How it ended.
    pub ending: Ending,
    /// `expect_success: status_code=503 (want < 500)`; empty when passed.
    pub reason: String,
    /// Whose it is.
    pub blame: Blame,
}

/// Runs the callables of a spec. Each call has an evaluator of its own; the frozen module
/// is shared. Calls block; the runner makes them on a thread that may block.
pub trait Program: Send + Sync {
    /// Runs the scenario of a cell, which is given by its number, and judges its result.
    fn run(&self, cell: usize, driver: Arc<dyn Driver>) -> ScenarioResult;
    /// Runs a service's `seed`.
    ///
    /// # Errors
    /// The failure with its place in the spec.
    fn seed(&self, service: &str, driver: Arc<dyn Driver>) -> Result<(), String>;
    /// Runs a service's `reset`.
    ///
    /// # Errors
    /// The failure with its place in the spec.
    fn reset(&self, service: &str, driver: Arc<dyn Driver>) -> Result<(), String>;
    /// Asks a mock's function (by its number) for its answer to a request.
    ///
    /// # Errors
    /// The failure with its place in the spec.
    fn answer(&self, function: usize, request: &Value) -> Result<GrpcAnswer, String>;
}

/// A program without callables.
#[cfg(test)]
pub struct NoProgram;

#[cfg(test)]
impl Program for NoProgram {
    fn run(&self, cell: usize, _driver: Arc<dyn Driver>) -> ScenarioResult {
        panic!("there is no cell {cell}");
    }
    fn seed(&self, _service: &str, _driver: Arc<dyn Driver>) -> Result<(), String> {
        Ok(())
    }
    fn reset(&self, _service: &str, _driver: Arc<dyn Driver>) -> Result<(), String> {
        Ok(())
    }
    fn answer(&self, function: usize, _request: &Value) -> Result<GrpcAnswer, String> {
        Err(format!("there is no function {function}"))
    }
}

/// What a scenario came to.
#[derive(Debug, Clone, PartialEq)]
pub struct ScenarioResult {
    /// The judgement of assertions and expectation.
    pub judgement: Judgement,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_in_a_name() {
        assert_eq!(run_of("matrix_a_b"), ("matrix_a_b", None));
        assert_eq!(run_of("matrix_a_b@12"), ("matrix_a_b", Some(12)));
        // A bundle can hold any name.
        for odd in ["a@", "a@0", "a@01", "a@+1", "a@1001", "a@99999999999999999999", "a@b", "a@1b"] {
            assert_eq!(run_of(odd), (odd, None));
        }
        assert_eq!(last_run(["a@2", "b", "c@7", "d@*"].into_iter()), Some(7));
        assert_eq!(last_run(["b"].into_iter()), None);
    }
}
