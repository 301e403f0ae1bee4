//! `fault_matrix`: scenarios times faults, each cell with its expectation.

use super::call::{Call, described, is_callable, items};
use super::convert;
use super::diagnostics::{Argument, Problem};
use super::dialect::{Result, Value};
use super::expect::{self, Expectation};
use super::state::CellDraft;
use super::values::AssumptionValue;
use crate::plan::RequireFire;
use std::sync::Arc;
use std::time::Duration;

/// All of a cell's scenario time, unless the matrix says so.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A scenario: its name and the function.
struct Scenario<'v> {
    name: String,
    value: Value<'v>,
}

/// `fault_matrix(scenarios=, faults=, ...)`.
pub fn fault_matrix<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let context = call.context()?;
    let load = context.load("fault_matrix()")?;
    let span = call.span();
    if !call.list("monitors")?.is_empty() {
        return Err(call.problem("monitors", "`monitors` are not supported yet").into());
    }
    let scenarios = scenarios(call)?;
    let faults = faults(call)?;
    let default = expectation(call, "default_expect")?;
    let overrides = overrides(call, &scenarios, &faults)?;
    let excluded = excluded(call, &scenarios, &faults)?;
    let fire = require_faults_fire(call)?;
    let timeout = call.duration("timeout")?.unwrap_or(TIMEOUT);
    if timeout <= Duration::from_secs(1) {
        let message = format!("`timeout` {} leaves a step no time", convert::duration_words(timeout));
        return Err(call
            .problem("timeout", message)
            .hint("1s of a cell's time is kept back for its end")
            .into());
    }
    if let Some((s, f, _)) = overrides.iter().find(|(s, f, _)| excluded.contains(&(*s, *f))) {
        let pair = (scenarios[*s].name.as_str(), faults[*f].1.as_str());
        return Err(pair_problem("overrides", pair, "is excluded and has an override").into());
    }
    let mut callables = Vec::new();
    {
        let mut draft = load.draft.borrow_mut();
        for scenario in &scenarios {
            callables.push(draft.keep(call.eval, scenario.value));
        }
    }
    let mut draft = load.draft.borrow_mut();
    for (s, scenario) in scenarios.iter().enumerate() {
        for (f, (assumption, fault)) in faults.iter().enumerate() {
            if excluded.contains(&(s, f)) {
                continue;
            }
            let over =
                overrides.iter().find(|(os, of, _)| (*os, *of) == (s, f)).map(|(.., over)| over.clone());
            let name = format!("matrix_{}_{fault}", scenario.name);
            if let Some(earlier) = draft.cells.iter().find(|cell| cell.name == name) {
                let place = context.line(&earlier.span);
                return Err(Problem::new(format!("two cells are called {name}"))
                    .hint(format!("the other is of {place}"))
                    .into());
            }
            draft.cells.push(CellDraft {
                name,
                scenario: scenario.name.clone(),
                callable: callables[s],
                assumption: Some(*assumption),
                expectation: over.or_else(|| default.clone()),
                timeout,
                fire,
                span: span.clone(),
            });
        }
    }
    Ok(Value::new_none())
}

fn scenarios<'v>(call: &Call<'_, 'v, '_, '_>) -> Result<Vec<Scenario<'v>>, Problem> {
    call.needed("scenarios")?;
    let mut scenarios: Vec<Scenario<'v>> = Vec::new();
    for value in call.list("scenarios")? {
        if !is_callable(value) {
            return Err(
                call.problem("scenarios", format!("`scenarios` holds functions, not {}", described(value)))
            );
        }
        let name = value.function_name().unwrap_or("lambda").to_owned();
        if name == "lambda" {
            return Err(
                call.problem("scenarios", "a scenario needs a name for its cells: use def, not lambda")
            );
        }
        if value.parameters_spec().is_some_and(|spec| !spec.can_fill_with_args(0, &[])) {
            return Err(call.problem("scenarios", format!("scenario {name} has parameters")));
        }
        if scenarios.iter().any(|known| known.name == name) {
            return Err(call.problem("scenarios", format!("two scenarios are called {name}")));
        }
        scenarios.push(Scenario { name, value });
    }
    match scenarios.is_empty() {
        true => Err(call.problem("scenarios", "fault_matrix() has no scenarios")),
        false => Ok(scenarios),
    }
}

/// Index and name of each assumption.
fn faults(call: &Call<'_, '_, '_, '_>) -> Result<Vec<(usize, String)>, Problem> {
    call.needed("faults")?;
    let mut faults: Vec<(usize, String)> = Vec::new();
    for value in call.list("faults")? {
        let Some(fault) = AssumptionValue::from_value(value) else {
            return Err(
                call.problem("faults", format!("`faults` holds fault assumptions, not {}", described(value)))
            );
        };
        if faults.iter().any(|(index, _)| *index == fault.index) {
            return Err(call.problem("faults", format!("`faults` names {} twice", fault.name)));
        }
        faults.push((fault.index, fault.name.clone()));
    }
    match faults.is_empty() {
        true => Err(call.problem("faults", "fault_matrix() has no faults")),
        false => Ok(faults),
    }
}

fn expectation(call: &mut Call<'_, '_, '_, '_>, name: &str) -> Result<Option<Arc<Expectation>>, Problem> {
    let Some(value) = call.value(name) else { return Ok(None) };
    let made = expect::from_value(call, value);
    call.blame(name, made).map(Some)
}

type Override = (usize, usize, Arc<Expectation>);

fn overrides<'v>(
    call: &mut Call<'_, 'v, '_, '_>,
    scenarios: &[Scenario<'v>],
    faults: &[(usize, String)],
) -> Result<Vec<Override>, Problem> {
    let mut overrides = Vec::new();
    for (key, value) in call.dict("overrides")? {
        let (scenario, fault) = pair(call, "overrides", key, scenarios, faults)?;
        let made = expect::from_value(call, value);
        let made = made.map_err(|problem| {
            let at = pair_problem("overrides", (&scenarios[scenario].name, &faults[fault].1), "");
            Problem { argument: at.argument, ..problem }
        })?;
        overrides.push((scenario, fault, made));
    }
    Ok(overrides)
}

fn excluded<'v>(
    call: &Call<'_, 'v, '_, '_>,
    scenarios: &[Scenario<'v>],
    faults: &[(usize, String)],
) -> Result<Vec<(usize, usize)>, Problem> {
    let pairs = call.list("exclude")?;
    pairs.into_iter().map(|key| pair(call, "exclude", key, scenarios, faults)).collect()
}

/// Which cell a (scenario, fault) pair names.
fn pair<'v>(
    call: &Call<'_, 'v, '_, '_>,
    argument: &str,
    key: Value<'v>,
    scenarios: &[Scenario<'v>],
    faults: &[(usize, String)],
) -> Result<(usize, usize), Problem> {
    let parts = items(key).unwrap_or_default();
    let [scenario, fault] = parts.as_slice() else {
        return Err(call.problem(
            argument,
            format!("`{argument}` names cells as (scenario, fault), not {}", described(key)),
        ));
    };
    let scenario_name = scenario.function_name().unwrap_or_default().to_owned();
    let assumption = AssumptionValue::from_value(*fault);
    let Some(assumption) = assumption.filter(|_| is_callable(*scenario)) else {
        return Err(call.problem(
            argument,
            format!("`{argument}` names cells as (scenario, fault), not {}", key.to_repr()),
        ));
    };
    let s = scenarios.iter().position(|known| known.value.ptr_eq(*scenario));
    let f = faults.iter().position(|(index, _)| *index == assumption.index);
    match (s, f) {
        (Some(s), Some(f)) => Ok((s, f)),
        (s, _) => {
            let problem = pair_problem(argument, (&scenario_name, &assumption.name), "is not in the matrix");
            let (what, names): (&str, Vec<&str>) = match s {
                None => ("scenarios", scenarios.iter().map(|scenario| scenario.name.as_str()).collect()),
                Some(_) => ("faults", faults.iter().map(|(_, name)| name.as_str()).collect()),
            };
            Err(problem.hint(format!("its {what}: {}", names.join(", "))))
        }
    }
}

fn pair_problem(argument: &str, (scenario, fault): (&str, &str), what: &str) -> Problem {
    let mut problem = Problem::new(format!("`{argument}`: ({scenario}, {fault}) {what}"));
    problem.argument = Some(Argument::Pair(scenario.to_owned(), fault.to_owned()));
    problem
}

fn require_faults_fire(call: &Call<'_, '_, '_, '_>) -> Result<RequireFire, Problem> {
    match call.value("require_faults_fire") {
        None => Ok(RequireFire::Warn),
        Some(value) => match (value.unpack_bool(), value.unpack_str()) {
            (Some(true), _) => Ok(RequireFire::Yes),
            (Some(false), _) => Ok(RequireFire::No),
            (None, Some("warn")) => Ok(RequireFire::Warn),
            _ => {
                let message =
                    format!("`require_faults_fire` is \"warn\", True or False, not {}", described(value));
                Err(call.problem("require_faults_fire", message))
            }
        },
    }
}
