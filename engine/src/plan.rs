//! The plan: what a spec wants run. All that the spec hands to the runner.
//!
//! Contract: everything is checked (names, rules, cycles, overrides) before a `Plan` exists.

use crate::fault::Assumption;
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
}

/// One test, or one scenario under one assumption.
#[derive(Debug, Clone)]
pub struct Cell {
    /// `test_...` or `matrix_<scenario>_<fault>`.
    pub name: String,
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
    /// Runs a cell's scenario; keeps its result for [`Program::judge`].
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
