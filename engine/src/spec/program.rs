//! The program: a frozen spec whose callables run with a driver, one evaluator a call.
//!
//! Contract: a scenario that cannot be judged is an error, never a pass: one that returned
//! nothing under an expectation, or something that its expectation does not judge.

use super::call::described;
use super::convert;
use super::diagnostics::{Kind, problem};
use super::dialect::{Error, ErrorKind, Evaluator, Module, OwnedFrozenValue, Value, limit};
use super::expect::{self, Expectation, World};
use super::services;
use super::state::{Context, Run, Shared, Stage};
use super::steps;
use super::values::ResponseValue;
use crate::mock::grpc::GrpcAnswer;
use crate::mock::{MockError, SignRequest};
use crate::plan::{Driver, Judgement, Program, ScenarioResult};
use crate::step::{StepCall, StepResponse};
use faultbox_bundle_format::{Blame, Ending, Entry, Value as Plain};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A cell's callables.
pub struct ProgramCell {
    /// The scenario, an index of [`SpecProgram::callables`].
    pub scenario: usize,
    /// What is expected of it.
    pub expectation: Option<Arc<Expectation>>,
    /// Where the cell is declared.
    pub location: String,
}

/// A frozen spec.
pub struct SpecProgram {
    /// Cells in the plan's order.
    pub cells: Vec<ProgramCell>,
    /// Everything that can be called.
    pub callables: Vec<OwnedFrozenValue>,
    /// `seed` by service.
    pub seeds: BTreeMap<String, usize>,
    /// `reset` by service.
    pub resets: BTreeMap<String, usize>,
    /// The services under test.
    pub suts: BTreeSet<String>,
    /// Texts and files.
    pub shared: Arc<Shared>,
}

fn judgement(ending: Ending, reason: impl Into<String>, blame: Blame) -> Judgement {
    Judgement { ending, reason: reason.into(), blame }
}

fn passed() -> Judgement {
    judgement(Ending::Passed, "", Blame::None)
}

impl SpecProgram {
    /// An evaluator with a driver.
    fn with<R>(
        &self,
        driver: Arc<dyn Driver>,
        strict: bool,
        work: impl for<'v, 'a, 'e> FnOnce(&mut Evaluator<'v, 'a, 'e>, &Run) -> R,
    ) -> Option<R> {
        let run = Run { driver, last_step: RefCell::new(None), strict, assertions: RefCell::new(0) };
        let context = Context { shared: self.shared.clone(), stage: Stage::Run(run) };
        Module::with_temp_heap(|module| {
            let mut eval = Evaluator::new(&module);
            limit(&mut eval);
            // Values are held on this side between calls; a run is short and bounded.
            eval.disable_gc();
            eval.extra = Some(&context);
            eval.set_print_handler(&context);
            match &context.stage {
                Stage::Run(run) => Some(work(&mut eval, run)),
                Stage::Load(_) => None,
            }
        })
    }

    fn call<'v>(
        &self,
        eval: &mut Evaluator<'v, '_, '_>,
        callable: usize,
        arguments: &[Value<'v>],
    ) -> Result<Value<'v>, Error> {
        let lost = || Error::from(super::diagnostics::Problem::new("the function is not in the spec"));
        let callable = self.callables.get(callable).ok_or_else(lost)?;
        let callable = eval.heap().access_owned_frozen_value(callable);
        eval.eval_function(callable, arguments, &[])
    }

    /// What an error that ended a callable comes to.
    fn ended_by(&self, error: &Error) -> Judgement {
        let diagnostic = self.shared.sources().diagnostic(error);
        let place =
            diagnostic.place.map(|place| format!(" ({}:{})", place.file, place.line)).unwrap_or_default();
        let kind = problem(error).map(|problem| problem.kind);
        match (kind, error.kind()) {
            (Some(Kind::Assertion), _) => {
                judgement(Ending::Failed, format!("{}{place}", diagnostic.message), Blame::ServiceUnderTest)
            }
            (None, ErrorKind::Fail(said)) => {
                let said = said.to_string();
                judgement(Ending::Failed, format!("fail: {}{place}", said.trim()), Blame::ServiceUnderTest)
            }
            (kind, _) => {
                let hint = diagnostic.hints.iter().find(|hint| !hint.starts_with("called from"));
                let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                let blame = if kind == Some(Kind::Faultbox) { Blame::Faultbox } else { Blame::Spec };
                judgement(Ending::Error, format!("{}{hint}{place}", diagnostic.message), blame)
            }
        }
    }

    fn judge_cell(&self, cell: &ProgramCell, eval: &mut Evaluator<'_, '_, '_>, run: &Run) -> Judgement {
        let result = self.call(eval, cell.scenario, &[]);
        let Some(expectation) = &cell.expectation else {
            return match result {
                Err(error) => self.ended_by(&error),
                Ok(value) if value.unpack_bool() == Some(false) => judgement(
                    Ending::Failed,
                    format!("it returned False ({})", cell.location),
                    Blame::ServiceUnderTest,
                ),
                Ok(value) => {
                    if *run.assertions.borrow() == 0 {
                        run.driver.print("note: nothing was asserted");
                        // What returns True could have returned False.
                        match (value.is_none(), value.unpack_bool()) {
                            (true, _) => run.driver.proves_nothing("it asserts nothing and returns nothing"),
                            (_, Some(_)) => {}
                            _ => run
                                .driver
                                .proves_nothing("nothing judges what it returns, and it asserts nothing"),
                        }
                    }
                    passed()
                }
            };
        };
        let (expectation, known) = match &**expectation {
            Expectation::Known(inner, reason) => (&**inner, Some(reason)),
            other => (other, None),
        };
        let judged = match result {
            Err(error) => self.ended_by(&error),
            Ok(value) => {
                let judged = self.judge_value(expectation, value, cell, eval, run);
                let held = judged.ending == Ending::Passed;
                if held || judged.ending == Ending::Violated {
                    let message = if held { expectation.words() } else { judged.reason.clone() };
                    steps::note(run, held, &message, &cell.location);
                }
                judged
            }
        };
        let said = &judged.reason;
        match (known, judged.ending) {
            (None, _) | (Some(_), Ending::Error | Ending::Inconclusive) => judged,
            (Some(reason), Ending::Passed) => {
                let said = format!("known_failure: it passed, and \"{reason}\" is marked as known");
                judgement(Ending::Violated, said, Blame::Spec)
            }
            (Some(reason), Ending::Failed | Ending::Violated) => {
                judgement(Ending::Passed, format!("known failure: {reason} ({said})"), Blame::None)
            }
        }
    }

    fn judge_value<'v>(
        &self,
        expectation: &Expectation,
        value: Value<'v>,
        cell: &ProgramCell,
        eval: &mut Evaluator<'v, '_, '_>,
        run: &Run,
    ) -> Judgement {
        if value.is_none() {
            let said =
                format!("scenario returned nothing, and {} judges what it returns", expectation.words());
            return judgement(Ending::Error, said, Blame::Spec);
        }
        let response = ResponseValue::from_value(value);
        let nothing = StepResponse::default();
        let (protocol, response) = match (response, expectation) {
            (Some(response), _) => (response.protocol, &*response.response),
            // A function may judge whatever the scenario returns.
            (None, Expectation::Callable(..)) => ("", &nothing),
            (None, _) => {
                let said = format!(
                    "scenario returned {}, and {} judges a response",
                    described(value),
                    expectation.words()
                );
                return judgement(Ending::Error, said, Blame::Spec);
            }
        };
        if expectation.holds_anyway(protocol) {
            let why = format!("{} holds whatever the answer is, and without one", expectation.words());
            run.driver.proves_nothing(&why);
        }
        let mut world = CellWorld { program: self, scenario: cell.scenario, value, eval, run };
        let judged = expectation.judge(protocol, response, &mut world);
        match judged {
            Ok(None) => passed(),
            Ok(Some(reason)) => judgement(Ending::Violated, reason, Blame::ServiceUnderTest),
            Err(judgement) => judgement,
        }
    }

    fn callable(&self, callable: Option<&usize>, driver: Arc<dyn Driver>) -> Result<(), String> {
        let Some(callable) = callable else { return Ok(()) };
        let ended = self.with(driver, true, |eval, _| match self.call(eval, *callable, &[]) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.ended_by(&error).reason),
        });
        ended.unwrap_or_else(|| Err("it could not be run".to_owned()))
    }
}

/// A cell whose scenario gave `value`.
struct CellWorld<'w, 'v, 'a, 'e> {
    program: &'w SpecProgram,
    scenario: usize,
    value: Value<'v>,
    eval: &'w mut Evaluator<'v, 'a, 'e>,
    run: &'w Run,
}

impl World for CellWorld<'_, '_, '_, '_> {
    type Error = Judgement;

    fn call(&mut self, number: usize, name: &str) -> Result<Option<String>, Judgement> {
        let asserted = *self.run.assertions.borrow();
        let answer = self.program.call(self.eval, number, &[self.value]);
        let answer = answer.map_err(|error| self.program.ended_by(&error))?;
        if answer.is_none() && *self.run.assertions.borrow() == asserted {
            let why = format!("expectation {name} returned nothing and asserted nothing");
            self.run.driver.proves_nothing(&why);
        }
        match (answer.is_none(), answer.unpack_bool()) {
            (true, _) | (_, Some(true)) => Ok(None),
            (_, Some(false)) if name == "lambda" => {
                Ok(Some("expectation: the lambda returned False".to_owned()))
            }
            (_, Some(false)) => Ok(Some(format!("expectation: {name} returned False"))),
            _ => {
                let said = format!("expectation {name} returned {}, not True or False", described(answer));
                Err(judgement(Ending::Error, said, Blame::Spec))
            }
        }
    }

    fn most_retried(&mut self) -> Option<(String, u64)> {
        expect::most_retried(&self.run.driver.entries(), &self.program.suts)
    }

    fn recovers(&mut self, within: Duration) -> bool {
        let driver = self.run.driver.clone();
        driver.recover(within, &mut || {
            let Ok(value) = self.program.call(self.eval, self.scenario, &[]) else { return false };
            let response = ResponseValue::from_value(value);
            response.is_some_and(|r| expect::success(r.protocol, &r.response).is_none())
        })
    }
}

/// The world of a mock's function: none.
struct NoWorld;

impl Driver for NoWorld {
    fn step(&self, _call: StepCall) -> StepResponse {
        StepResponse::no_answer("a mock's function makes no steps")
    }
    fn sign(&self, _mock: &str, _request: SignRequest) -> Result<String, MockError> {
        Err(MockError("a mock's function signs nothing".to_owned()))
    }
    fn assertion(&self, _held: bool, _message: &str, _location: &str) {}
    fn now_unix_s(&self) -> u64 {
        0
    }
    fn print(&self, _text: &str) {}
    fn entries(&self) -> Vec<Entry> {
        Vec::new()
    }
    fn recover(&self, _within: Duration, _attempt: &mut dyn FnMut() -> bool) -> bool {
        false
    }
}

impl Program for SpecProgram {
    fn run(&self, cell: usize, driver: Arc<dyn Driver>) -> ScenarioResult {
        let judged = match self.cells.get(cell) {
            Some(cell) => self.with(driver, false, |eval, run| self.judge_cell(cell, eval, run)),
            None => None,
        };
        let lost = || judgement(Ending::Error, format!("there is no cell {cell}"), Blame::Faultbox);
        ScenarioResult { judgement: judged.unwrap_or_else(lost) }
    }

    fn seed(&self, service: &str, driver: Arc<dyn Driver>) -> Result<(), String> {
        self.callable(self.seeds.get(service), driver)
    }

    fn reset(&self, service: &str, driver: Arc<dyn Driver>) -> Result<(), String> {
        self.callable(self.resets.get(service), driver)
    }

    fn answer(&self, function: usize, request: &Plain) -> Result<GrpcAnswer, String> {
        let answered = self.with(Arc::new(NoWorld), true, |eval, _| {
            let request = convert::from_plain(eval.heap(), request);
            let answer =
                self.call(eval, function, &[request]).map_err(|error| self.ended_by(&error).reason)?;
            services::answer(answer, None).map_err(|problem| problem.message)
        });
        answered.unwrap_or_else(|| Err("it could not be run".to_owned()))
    }
}
