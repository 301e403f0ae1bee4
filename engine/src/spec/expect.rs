//! Expectations: what a cell's scenario must come to.
//!
//! Contract: judged from the response by its own protocol's idea of success; retries are judged
//! from the cell's journal, and recovery from the scenario's next runs, after the faults. Reasons
//! hold no measured times or counts, so that a replay of a violated cell gives the same reason.

use super::call::{Call, described, is_callable};
use super::convert;
use super::diagnostics::Problem;
use super::dialect::{Result, Value};
use super::steps::summary;
use super::values::{ExpectationValue, ResponseValue};
use crate::step::StepResponse;
use faultbox_bundle_format::canonical::scanner_of;
use faultbox_bundle_format::{Body, Class, Entry, Exchange, Outcome, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// What a cell expects.
#[derive(Debug, Clone)]
pub enum Expectation {
    /// An answer, and a good one.
    Success,
    /// An error or an error status, in time.
    ErrorWithin(Duration),
    /// No answer although the caller waited.
    Hang,
    /// One of these statuses.
    Status(Vec<i64>),
    /// No request was asked again more often than this after it failed.
    Retries(u64),
    /// Without the faults the scenario succeeds again in this time.
    Recovery(Duration),
    /// All of them.
    All(Vec<Arc<Expectation>>),
    /// At least one of them.
    Any(Vec<Arc<Expectation>>),
    /// A known red: does not fail the run; an unexpected pass does.
    Known(Arc<Expectation>, String),
    /// A callable that asserts or returns a truth value: its number, and its name.
    Callable(usize, String),
}

/// What a judgement needs besides the response.
pub trait World {
    /// Why something could not be judged.
    type Error;
    /// Runs a callable of the spec, by number and name; `Ok(None)` means as expected.
    ///
    /// # Errors
    /// When it could not be run, or gave no answer.
    fn call(&mut self, number: usize, name: &str) -> Result<Option<String>, Self::Error>;
    /// The request that the service under test asked again most often after it failed, in words,
    /// and how often.
    fn most_retried(&mut self) -> Option<(String, u64)>;
    /// Ends the faults and runs the scenario until it succeeds; whether it did in this time.
    fn recovers(&mut self, within: Duration) -> bool;
}

impl Expectation {
    /// In the language's words.
    pub fn words(&self) -> String {
        let list =
            |items: &[Arc<Expectation>]| items.iter().map(|item| item.words()).collect::<Vec<_>>().join(", ");
        match self {
            Expectation::Success => "expect_success()".to_owned(),
            Expectation::ErrorWithin(limit) => format!("expect_error_within(ms={})", limit.as_millis()),
            Expectation::Hang => "expect_hang()".to_owned(),
            Expectation::Status(codes) => format!("expect_status({})", numbers(codes)),
            Expectation::Retries(max) => format!("expect_retries(max={max})"),
            Expectation::Recovery(within) => {
                format!("expect_recovery(within=\"{}\")", convert::duration_words(*within))
            }
            Expectation::All(items) => format!("expect_all({})", list(items)),
            Expectation::Any(items) => format!("expect_any({})", list(items)),
            Expectation::Known(inner, reason) => format!("known_failure({}, \"{reason}\")", inner.words()),
            Expectation::Callable(_, name) => name.clone(),
        }
    }

    /// Whether it holds for every kind of response to a step by this protocol: good and bad ones, at once and late,
    /// none, and one that was waited for in vain. Functions of the spec and what is judged by more than the
    /// response are taken not to hold.
    pub fn holds_anyway(&self, protocol: &str) -> bool {
        const DAY: Duration = Duration::from_secs(86_400);
        let answers = [200, 302, 401, 404, 500, 503].into_iter().flat_map(|status| {
            let good = status < 400;
            let error = (!good && protocol != "http").then(|| "refused".to_owned());
            [Duration::ZERO, DAY].map(|duration| StepResponse {
                ok: good,
                status,
                error: error.clone(),
                duration,
                ..Default::default()
            })
        });
        let none = StepResponse::no_answer("refused");
        let in_vain = StepResponse { timed_out: true, duration: DAY, ..none.clone() };
        let holds = |response: StepResponse| {
            let Ok(reason) = self.judge(protocol, &response, &mut Nowhere);
            reason.is_none()
        };
        answers.chain([none, in_vain]).all(holds)
    }

    /// Judges a response: `Ok(None)` means as expected, else the reason.
    ///
    /// # Errors
    /// What `world` could not do.
    pub fn judge<W: World>(
        &self,
        protocol: &str,
        response: &StepResponse,
        world: &mut W,
    ) -> Result<Option<String>, W::Error> {
        Ok(match self {
            Expectation::Success => success(protocol, response),
            Expectation::ErrorWithin(limit) => error_within(protocol, response, *limit),
            Expectation::Hang => match response.timed_out {
                true => None,
                false => Some(format!("expect_hang: {} (want no answer)", summary(protocol, response))),
            },
            Expectation::Status(codes) => {
                let right = codes.contains(&response.status) && answered(protocol, response);
                let got = summary(protocol, response);
                (!right).then(|| format!("expect_status: {got} (want {})", numbers(codes)))
            }
            Expectation::Retries(max) => {
                let most = world.most_retried().filter(|(_, retries)| retries > max);
                most.map(|(what, _)| format!("expect_retries: {what} was asked again more than {max} times"))
            }
            Expectation::Recovery(within) => {
                let recovered = world.recovers(*within);
                let within = convert::duration_words(*within);
                (!recovered)
                    .then(|| format!("expect_recovery: no success within {within} of the faults' end"))
            }
            Expectation::All(items) => {
                for item in items {
                    if let Some(reason) = item.judge(protocol, response, world)? {
                        return Ok(Some(reason));
                    }
                }
                None
            }
            Expectation::Any(items) => {
                let mut reasons = Vec::new();
                for item in items {
                    match item.judge(protocol, response, world)? {
                        None => return Ok(None),
                        Some(reason) => reasons.push(reason),
                    }
                }
                Some(format!("expect_any: {}", reasons.join("; ")))
            }
            Expectation::Known(inner, _) => inner.judge(protocol, response, world)?,
            Expectation::Callable(number, name) => world.call(*number, name)?,
        })
    }
}

/// A world in which nothing beyond the response is as expected.
struct Nowhere;

impl World for Nowhere {
    type Error = Infallible;
    fn call(&mut self, _number: usize, name: &str) -> Result<Option<String>, Infallible> {
        Ok(Some(name.to_owned()))
    }
    fn most_retried(&mut self) -> Option<(String, u64)> {
        Some((String::new(), u64::MAX))
    }
    fn recovers(&mut self, _within: Duration) -> bool {
        false
    }
}

fn numbers(codes: &[i64]) -> String {
    codes.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether an answer came at all, good or bad.
fn answered(protocol: &str, response: &StepResponse) -> bool {
    let status = response.status != 0 || protocol == "grpc" && response.ok;
    !response.timed_out && (status || response.ok || !matches!(protocol, "http" | "grpc"))
}

/// Why a response is no success by its protocol's idea of one; `None` when it is.
pub fn success(protocol: &str, response: &StepResponse) -> Option<String> {
    let (good, want) = match protocol {
        "http" => (response.status > 0 && response.status < 500, "< 500"),
        "grpc" => (response.ok, "OK"),
        _ => (response.ok && response.error.is_none(), "no error"),
    };
    match good && answered(protocol, response) {
        true => None,
        false => Some(format!("expect_success: {} (want {want})", summary(protocol, response))),
    }
}

fn error_within(protocol: &str, response: &StepResponse, limit: Duration) -> Option<String> {
    let got = summary(protocol, response);
    let failed = match protocol {
        "http" => response.status >= 400 || response.status == 0 && response.error.is_some(),
        _ => !response.ok || response.error.is_some(),
    };
    let want = if protocol == "http" { "an error or >= 400" } else { "an error" };
    let ms = limit.as_millis();
    if response.timed_out {
        Some(format!("expect_error_within: {got} (want {want} within {ms}ms)"))
    } else if !failed {
        Some(format!("expect_error_within: {got} (want {want})"))
    } else if response.duration > limit {
        Some(format!("expect_error_within: {got} came too late (want it within {ms}ms)"))
    } else {
        None
    }
}

fn made<'v>(call: &Call<'_, 'v, '_, '_>, expectation: Expectation) -> Result<Value<'v>> {
    Ok(call.eval.heap().alloc(ExpectationValue(Arc::new(expectation))))
}

/// `expect_success()`.
pub fn expect_success<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    made(call, Expectation::Success)
}

/// `expect_error_within(ms=)`.
pub fn expect_error_within<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let limit = call.blame("ms", convert::millis(call.needed("ms")?))?;
    made(call, Expectation::ErrorWithin(limit))
}

/// `expect_hang()`.
pub fn expect_hang<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    made(call, Expectation::Hang)
}

/// `expect_status(401, 403)`.
pub fn expect_status<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let mut codes = Vec::new();
    for (argument, value) in std::mem::take(&mut call.rest) {
        let items = super::call::items(value).unwrap_or_else(|| vec![value]);
        for item in items {
            let code = convert::integer(item).ok_or_else(|| {
                let message = format!("a status is a number, not {}", described(item));
                Problem::new(message).about(Some(argument.clone()))
            })?;
            codes.push(code);
        }
    }
    if codes.is_empty() {
        return Err(Problem::new("expect_status() needs a status").hint("expect_status(401, 403)").into());
    }
    made(call, Expectation::Status(codes))
}

/// `expect_all(...)`.
pub fn expect_all<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let items = parts(call)?;
    made(call, Expectation::All(items))
}

/// `expect_any(...)`.
pub fn expect_any<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let items = parts(call)?;
    made(call, Expectation::Any(items))
}

fn parts(call: &mut Call<'_, '_, '_, '_>) -> Result<Vec<Arc<Expectation>>> {
    let rest = std::mem::take(&mut call.rest);
    if rest.is_empty() {
        return Err(Problem::new(format!("{}() needs expectations", call.def.name)).into());
    }
    rest.into_iter()
        .map(|(argument, value)| from_value(call, value).map_err(|p| p.about(Some(argument)).into()))
        .collect()
}

/// `known_failure(expectation, reason)`.
pub fn known_failure<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let value = call.needed("expectation")?;
    let inner = from_value(call, value);
    let inner = call.blame("expectation", inner)?;
    let reason = call.needed_text("reason")?;
    if reason.trim().is_empty() {
        return Err(call.problem("reason", "a known failure needs a reason").into());
    }
    if matches!(*inner, Expectation::Known(..)) {
        return Err(call.problem("expectation", "it is marked as known already").into());
    }
    made(call, Expectation::Known(inner, reason))
}

/// `expect_retries(max=)`.
pub fn expect_retries<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    call.needed("max")?;
    let max = call.integer("max")?.and_then(|max| u64::try_from(max).ok());
    let max = max.ok_or_else(|| call.problem("max", "`max` is a number of retries, 0 or more"))?;
    made(call, Expectation::Retries(max))
}

/// `expect_recovery(within=)`.
pub fn expect_recovery<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    call.needed("within")?;
    let within = call.duration("within")?.unwrap_or_default();
    if within.is_zero() {
        return Err(call.problem("within", "a recovery takes some time").hint("within = \"5s\"").into());
    }
    made(call, Expectation::Recovery(within))
}

/// The request of one of `suts` that was asked again most often after it failed (a rule acted on it, or
/// no answer came), in words, and how often. Handshakes, heartbeats and attempts to connect are
/// no requests.
pub fn most_retried(entries: &[Entry], suts: &BTreeSet<String>) -> Option<(String, u64)> {
    let scanner = scanner_of(entries, 0);
    // Who asked whom for what; whether the last try failed, how often it was asked again, the first.
    type Asked<'a> = (&'a str, &'a str, &'a str, Vec<u8>);
    let mut asked: BTreeMap<Asked<'_>, (bool, u64, &Exchange)> = BTreeMap::new();
    let exchanges = entries.iter().filter(|entry| entry.phase == Phase::Scenario);
    let mut exchanges: Vec<&Exchange> = exchanges
        .filter_map(|entry| match &entry.body {
            Body::Exchange(exchange) => Some(exchange),
            _ => None,
        })
        .filter(|exchange| suts.contains(exchange.source.as_str()) && exchange.class == Class::Work)
        .collect();
    exchanges.sort_by_key(|exchange| exchange.began_seq);
    for exchange in exchanges {
        let Some(request) = exchange.request.value() else { continue };
        let shape = scanner.template(&request.stable()).encode();
        let failed =
            exchange.rule.is_some() || !matches!(exchange.outcome, Outcome::Answered | Outcome::OneWay);
        let key = (exchange.source.as_str(), exchange.interface.as_str(), exchange.key.as_str(), shape);
        let (failed_before, retries, _) = asked.entry(key).or_insert((false, 0, exchange));
        *retries += u64::from(*failed_before);
        *failed_before = failed;
    }
    let most = asked.values().max_by_key(|(_, retries, _)| *retries)?;
    Some((format!("{} on {}", most.2.operation, most.2.interface), most.1))
}

/// An expectation out of what stands in its place: one of ours, or a callable.
///
/// # Errors
/// When it is neither.
pub fn from_value<'v>(
    call: &mut Call<'_, 'v, '_, '_>,
    value: Value<'v>,
) -> Result<Arc<Expectation>, Problem> {
    if let Some(expectation) = ExpectationValue::from_value(value) {
        return Ok(expectation.0.clone());
    }
    if ResponseValue::from_value(value).is_some() || !is_callable(value) {
        let message = format!("an expectation is an expect_*(...) or a function, not {}", described(value));
        return Err(Problem::new(message));
    }
    if value.parameters_spec().is_some_and(|spec| !spec.can_fill_with_args(1, &[])) {
        return Err(Problem::new("an expectation's function takes one argument, the response"));
    }
    let name = value.function_name().unwrap_or("function").to_owned();
    let context = call.context().map_err(|_| Problem::new("an expectation outside a spec"))?;
    let number = context.load("an expectation")?.draft.borrow_mut().keep(call.eval, value);
    Ok(Arc::new(Expectation::Callable(number, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: i64) -> StepResponse {
        StepResponse {
            ok: (200..400).contains(&status),
            status,
            duration: Duration::from_millis(10),
            ..Default::default()
        }
    }

    fn judge(expectation: &Expectation, protocol: &str, response: &StepResponse) -> Option<String> {
        let Ok(reason) = expectation.judge(protocol, response, &mut Told(2));
        reason
    }

    /// A world in which a request was asked again so often, and that recovers in five seconds.
    struct Told(u64);

    impl World for Told {
        type Error = Infallible;
        fn call(&mut self, _number: usize, _name: &str) -> Result<Option<String>, Infallible> {
            Ok(None)
        }
        fn most_retried(&mut self) -> Option<(String, u64)> {
            Some(("INSERT on db.main".to_owned(), self.0))
        }
        fn recovers(&mut self, within: Duration) -> bool {
            within >= Duration::from_secs(5)
        }
    }

    #[test]
    fn retries_and_recovery_are_judged_from_the_world() {
        let good = response(200);
        assert_eq!(judge(&Expectation::Retries(2), "http", &good), None);
        let reason = judge(&Expectation::Retries(1), "http", &good).unwrap();
        assert_eq!(reason, "expect_retries: INSERT on db.main was asked again more than 1 times");
        assert_eq!(judge(&Expectation::Recovery(Duration::from_secs(5)), "http", &good), None);
        let reason = judge(&Expectation::Recovery(Duration::from_secs(2)), "http", &good).unwrap();
        assert_eq!(reason, "expect_recovery: no success within 2s of the faults' end");
    }

    #[test]
    fn success_is_an_answer_below_500() {
        assert_eq!(judge(&Expectation::Success, "http", &response(404)), None);
        let reason = judge(&Expectation::Success, "http", &response(503)).unwrap();
        assert_eq!(reason, "expect_success: status_code=503 (want < 500)");
        let reason =
            judge(&Expectation::Success, "http", &StepResponse::no_answer("connection refused")).unwrap();
        assert_eq!(reason, "expect_success: no answer: connection refused (want < 500)");
        let late = StepResponse { timed_out: true, ..StepResponse::no_answer("no answer within 3000ms") };
        assert_eq!(
            judge(&Expectation::Success, "http", &late).unwrap(),
            "expect_success: no answer in time (want < 500)"
        );
    }

    #[test]
    fn success_is_the_protocols_own() {
        let failed = StepResponse { status: 14, error: Some("down".to_owned()), ..Default::default() };
        let reason = judge(&Expectation::Success, "grpc", &failed).unwrap();
        assert_eq!(reason, "expect_success: status=UNAVAILABLE (down) (want OK)");
        let good = StepResponse { ok: true, ..Default::default() };
        assert_eq!(judge(&Expectation::Success, "grpc", &good), None);
        assert_eq!(judge(&Expectation::Success, "mysql", &good), None);
        let failed =
            StepResponse { status: 1146, error: Some("no such table".to_owned()), ..Default::default() };
        let reason = judge(&Expectation::Success, "mysql", &failed).unwrap();
        assert_eq!(reason, "expect_success: error: no such table (want no error)");
    }

    #[test]
    fn an_error_must_come_and_in_time() {
        let within = Expectation::ErrorWithin(Duration::from_millis(5000));
        assert_eq!(judge(&within, "http", &response(401)), None);
        assert_eq!(judge(&within, "http", &StepResponse::no_answer("reset")), None);
        let reason = judge(&within, "http", &response(201)).unwrap();
        assert_eq!(reason, "expect_error_within: status_code=201 (want an error or >= 400)");
        let late = StepResponse { duration: Duration::from_millis(5001), ..response(503) };
        let reason = judge(&within, "http", &late).unwrap();
        assert_eq!(reason, "expect_error_within: status_code=503 came too late (want it within 5000ms)");
        let never = StepResponse { timed_out: true, ..StepResponse::no_answer("no answer") };
        assert!(judge(&within, "http", &never).is_some());
        assert_eq!(judge(&Expectation::Hang, "http", &never), None);
        assert!(judge(&Expectation::Hang, "http", &response(200)).is_some());
    }

    #[test]
    fn what_holds_anyway_proves_nothing() {
        let within = |seconds| Arc::new(Expectation::ErrorWithin(Duration::from_secs(seconds)));
        let any = |items: Vec<Arc<Expectation>>| Expectation::Any(items);
        let success = || Arc::new(Expectation::Success);
        assert!(!any(vec![success(), within(5)]).holds_anyway("http"), "a late error fails it");
        assert!(!any(vec![success(), Arc::new(Expectation::Hang)]).holds_anyway("http"));
        let slow = within(u64::from(u32::MAX));
        let all = any(vec![success(), slow.clone(), Arc::new(Expectation::Hang)]);
        for protocol in ["http", "grpc", "mysql"] {
            assert!(all.holds_anyway(protocol), "{protocol}");
            assert!(!Expectation::Success.holds_anyway(protocol));
            assert!(!Expectation::Hang.holds_anyway(protocol));
            assert!(!Expectation::Retries(3).holds_anyway(protocol), "judged by more than the response");
        }
        assert!(Expectation::All(vec![Arc::new(all)]).holds_anyway("http"));
    }

    #[test]
    fn statuses_and_compositions() {
        let status = Arc::new(Expectation::Status(vec![401, 403]));
        assert_eq!(judge(&status, "http", &response(403)), None);
        let reason = judge(&status, "http", &response(200)).unwrap();
        assert_eq!(reason, "expect_status: status_code=200 (want 401, 403)");
        let any = Expectation::Any(vec![status.clone(), Arc::new(Expectation::Success)]);
        assert_eq!(judge(&any, "http", &response(200)), None);
        assert!(judge(&any, "http", &response(500)).is_some());
        let all = Expectation::All(vec![status, Arc::new(Expectation::Success)]);
        assert_eq!(judge(&all, "http", &response(401)), None);
        assert!(judge(&all, "http", &response(200)).is_some());
    }
}
