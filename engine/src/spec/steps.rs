//! Steps, tokens and assertions: what scenarios do.
//!
//! Contract: a verb's arguments are checked against the protocol's own list before the driver
//! is asked; a step that fails does not end the scenario, its response says so.

use super::call::{Call, Given};
use super::convert;
use super::diagnostics::{Argument, Kind, Problem};
use super::dialect::{Evaluator, FileSpan, Result, Value};
use super::state::{Context, Run};
use super::values::{InterfaceValue, Receiver, ResponseValue, header};
use crate::mock::{ROTATE, SignRequest};
use crate::protocol::grpc::status;
use crate::protocol::{Protocol, Verb};
use crate::step::{StepCall, StepResponse};
use faultbox_bundle_format::Value as Plain;
use std::sync::Arc;

/// `step(interface, verb, ...)`.
pub fn step<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let value = call.needed("interface")?;
    let Some(interface) = InterfaceValue::from_value(value) else {
        let message =
            format!("step() asks an interface (`api.public`), not {}", super::call::described(value));
        return Err(call.problem("interface", message).into());
    };
    let name = call.needed_text("verb")?;
    let protocol = interface.info().protocol;
    let Some(verb) = protocol.verbs().iter().find(|verb| verb.name == name) else {
        return Err(call.aimed("verb", unknown_verb(protocol, &name)).into());
    };
    let rest = std::mem::take(&mut call.rest);
    let positional = rest.into_iter().map(|(_, value)| value).collect();
    let given = Given { positional, named: std::mem::take(&mut call.extra) };
    let span = call.span();
    perform(call.eval, interface, verb, given, span, 2)
}

/// `interface.verb(...)`, and `protocol.verb(interface, ...)`.
pub fn verb<'v>(
    target: Option<&InterfaceValue>,
    protocol: &'static dyn Protocol,
    verb: &'static Verb,
    mut given: Given<'v>,
    eval: &mut Evaluator<'v, '_, '_>,
) -> Result<Value<'v>> {
    let depth = eval.call_stack_count();
    let span = (0..depth).find_map(|n| eval.call_stack_nth_location(n));
    if let Some(target) = target {
        return perform(eval, target, verb, given, span, 0);
    }
    let name = format!("{}.{}", protocol.name(), verb.name);
    let value = match given.named.iter().position(|(name, _)| name == "interface") {
        Some(at) => given.named.remove(at).1,
        None if given.positional.is_empty() => {
            return Err(Problem::new(format!("{name}() needs the interface that it asks")).into());
        }
        None => given.positional.remove(0),
    };
    let first = Some(Argument::Positional(0));
    match InterfaceValue::from_value(value) {
        Some(interface) if interface.info().protocol.name() == protocol.name() => {
            perform(eval, interface, verb, given, span, 1)
        }
        Some(interface) => {
            let info = interface.info();
            let message =
                format!("{name}(): {}.{} speaks {}", interface.service.name, info.name, info.protocol.name());
            Err(Problem::new(message).about(first).into())
        }
        None => {
            let message =
                format!("{name}() asks an interface (`db.main`), not {}", super::call::described(value));
            Err(Problem::new(message).about(first).into())
        }
    }
}

/// Checks the arguments and performs the step. `shift` positional arguments came before.
fn perform<'v>(
    eval: &mut Evaluator<'v, '_, '_>,
    interface: &InterfaceValue,
    verb: &'static Verb,
    given: Given<'v>,
    span: Option<FileSpan>,
    shift: usize,
) -> Result<Value<'v>> {
    let info = interface.info();
    let (timeout, arguments) = arguments(info.protocol, verb, given, shift)?;
    let context = context(eval)?;
    let words = format!("{}.{}.{}", interface.service.name, info.name, verb.name);
    let run = context.run(&words)?;
    let call = StepCall {
        service: interface.service.name.clone(),
        interface: info.name.clone(),
        verb: verb.name.to_owned(),
        arguments,
        timeout,
        location: context.line(&span),
    };
    let protocol = info.protocol.name();
    let response = Arc::new(run.driver.step(call));
    let said = format!("{words}: {}", summary(protocol, &response));
    if run.strict && !response.ok {
        return Err(Problem { kind: Kind::Assertion, ..Problem::new(said) }.into());
    }
    *run.last_step.borrow_mut() = Some(said);
    Ok(eval.heap().alloc(ResponseValue { response, protocol }))
}

/// A verb that a protocol does not have.
pub fn unknown_verb(protocol: &dyn Protocol, name: &str) -> Problem {
    let verbs = protocol.verbs().iter().map(|verb| verb.name);
    Problem::new(format!("{} has no step \"{name}\"", protocol.name())).nearest(name, verbs)
}

/// A keyword that a verb does not have, if it is none.
pub fn unknown_keyword(protocol: &dyn Protocol, verb: &Verb, name: &str) -> Option<Problem> {
    let right = || verb.parameters.iter().map(|parameter| parameter.name).chain(["timeout"]);
    if right().any(|known| known == name) {
        return None;
    }
    let problem = Problem::new(format!("{}.{}() has no parameter `{name}`", protocol.name(), verb.name));
    Some(problem.at(name).nearest(name, right()))
}

type Arguments = (Option<std::time::Duration>, Vec<(String, Plain)>);

fn arguments(
    protocol: &dyn Protocol,
    verb: &'static Verb,
    given: Given<'_>,
    shift: usize,
) -> Result<Arguments, Problem> {
    let name = format!("{}.{}", protocol.name(), verb.name);
    let mut arguments: Vec<(String, Plain)> = Vec::new();
    let mut timeout = None;
    if let Some(problem) = given.named.iter().find_map(|(name, _)| unknown_keyword(protocol, verb, name)) {
        return Err(problem);
    }
    for (index, value) in given.positional.iter().enumerate() {
        let about = Some(Argument::Positional(index + shift));
        let Some(parameter) = verb.parameters.get(index) else {
            return Err(Problem::new(format!("{name}() got too many positional arguments")).about(about));
        };
        let value = convert::to_plain(*value).map_err(|problem| problem.about(about))?;
        arguments.push((parameter.name.to_owned(), value));
    }
    for (given_name, value) in given.named {
        if arguments.iter().any(|(known, _)| *known == given_name) {
            return Err(Problem::new(format!("{name}() got `{given_name}` twice")).at(&given_name));
        }
        let at = |problem: Problem| problem.at(&given_name);
        if given_name == "timeout" {
            timeout = Some(convert::duration(value).map_err(at)?);
        } else {
            let value = convert::to_plain(value).map_err(at)?;
            arguments.push((given_name, value));
        }
    }
    for parameter in verb.parameters.iter().filter(|parameter| parameter.required) {
        if !arguments.iter().any(|(known, _)| known == parameter.name) {
            return Err(Problem::new(format!("{name}() needs `{}`", parameter.name)));
        }
    }
    Ok((timeout, arguments))
}

fn context<'a, 'e>(eval: &Evaluator<'_, 'a, 'e>) -> Result<&'a Context, Problem> {
    let context = eval.extra.and_then(|extra| extra.downcast_ref::<Context>());
    context.ok_or_else(|| Problem::new("a step was made outside a spec"))
}

/// What a step got, in the fewest words that say whether it is good.
pub fn summary(protocol: &str, response: &StepResponse) -> String {
    if response.timed_out {
        return "no answer in time".to_owned();
    }
    match (protocol, &response.error) {
        ("http", None) => format!("status_code={}", response.status),
        ("http", Some(_)) if response.status > 0 => format!("status_code={}", response.status),
        ("grpc", None) => format!("status={}", status::name(response.status)),
        ("grpc", Some(error)) if response.status != 0 => {
            format!("status={} ({error})", status::name(response.status))
        }
        ("http" | "grpc", Some(error)) => format!("no answer: {error}"),
        (_, Some(error)) => format!("error: {error}"),
        (_, None) if response.ok => "ok".to_owned(),
        (_, None) => format!("status={}", response.status),
    }
}

/// `issuer.sign(claims=, headers=, expires_in=)`.
pub fn sign<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let Some(Receiver::Mock(service)) = call.receiver else {
        return Err(Problem::new("sign() belongs to an issuer").into());
    };
    let run = call.context()?.run(&format!("{}.sign()", service.name))?;
    let plain = |name: &str| -> Result<Plain, Problem> {
        call.dict(name)?;
        match call.value(name) {
            Some(value) => call.blame(name, convert::to_plain(value)),
            None => Ok(Plain::Null),
        }
    };
    let claims = match plain("claims")? {
        Plain::Null => Plain::Map(Vec::new()),
        claims => claims,
    };
    let request = SignRequest {
        claims,
        headers: plain("headers")?,
        expires_in: call.duration("expires_in")?,
        now_unix_s: run.driver.now_unix_s(),
    };
    match run.driver.sign(&service.name, request) {
        Ok(token) => Ok(call.eval.heap().alloc(token)),
        Err(error) => {
            Err(Problem { kind: Kind::Faultbox, ..Problem::new(format!("{}.sign(): {error}", service.name)) }
                .into())
        }
    }
}

/// `issuer.rotate(keep=)`: the id of the new key.
pub fn rotate<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let Some(Receiver::Mock(service)) = call.receiver else {
        return Err(Problem::new("rotate() belongs to an issuer").into());
    };
    let words = format!("{}.rotate()", service.name);
    let keep = call.truth("keep")?.unwrap_or(true);
    let context = call.context()?;
    let run = context.run(&words)?;
    let response = run.driver.step(StepCall {
        service: service.name.clone(),
        interface: service.interfaces.first().map(|i| i.name.clone()).unwrap_or_default(),
        verb: ROTATE.to_owned(),
        arguments: vec![("keep".to_owned(), Plain::Bool(keep))],
        timeout: None,
        location: context.line(&call.span()),
    });
    match response.data.as_text() {
        Some(id) if response.ok => Ok(call.eval.heap().alloc(id)),
        _ => {
            let why = response.error.unwrap_or_default();
            Err(Problem { kind: Kind::Faultbox, ..Problem::new(format!("{words}: {why}")) }.into())
        }
    }
}

/// `headers.get(name, default)`.
pub fn headers_get<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let name = call.needed_text("name")?;
    let Some(Receiver::Headers(response)) = call.receiver else {
        return Err(Problem::new("get() belongs to headers").into());
    };
    Ok(match header(response, &name) {
        Some(text) => call.eval.heap().alloc(text),
        None => call.value("default").unwrap_or_else(Value::new_none),
    })
}

/// `headers.items()`: a list of pairs, in order.
pub fn headers_items<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let Some(Receiver::Headers(response)) = call.receiver else {
        return Err(Problem::new("items() belongs to headers").into());
    };
    let heap = call.eval.heap();
    let pairs: Vec<Value<'v>> =
        response.headers.iter().map(|(name, text)| heap.alloc((name.as_str(), text.as_str()))).collect();
    Ok(heap.alloc(super::dialect::AllocList(pairs)))
}

/// `assert_true(cond, msg)`.
pub fn assert_true<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let value = call.slot_value("cond")?;
    let held = value.to_bool();
    let span = call.span();
    let condition = span.as_ref().and_then(|span| call.context().ok()?.shared.sources().first_argument(span));
    let said = match (call.text("msg")?, condition) {
        (Some(message), _) => format!("assert_true: {message}"),
        (None, Some(condition)) => format!("assert_true({condition})"),
        (None, None) => "assert_true".to_owned(),
    };
    assertion(call, held, said, &span)
}

/// `assert_eq(a, b, msg)`.
pub fn assert_eq<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let (a, b) = (call.slot_value("a")?, call.slot_value("b")?);
    let held = a.equals(b)?;
    let span = call.span();
    let message = call.text("msg")?.map(|message| format!("{message}: ")).unwrap_or_default();
    let said = match held {
        true => format!("assert_eq: {message}{} == {}", shortened(a), shortened(b)),
        false => format!("assert_eq: {message}{} != {}", shortened(a), shortened(b)),
    };
    assertion(call, held, said, &span)
}

fn shortened(value: Value<'_>) -> String {
    let text = value.to_repr();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn assertion<'v>(
    call: &mut Call<'_, 'v, '_, '_>,
    held: bool,
    said: String,
    span: &Option<FileSpan>,
) -> Result<Value<'v>> {
    let context = call.context()?;
    // While a spec is loaded an assertion checks the spec itself.
    if let Ok(run) = context.run("") {
        note(run, held, &said, &context.line(span));
        let last = run.last_step.borrow();
        if !held {
            let last = last.as_ref().map(|last| format!("; last step {last}")).unwrap_or_default();
            return Err(Problem { kind: Kind::Assertion, ..Problem::new(format!("{said}{last}")) }.into());
        }
    } else if !held {
        return Err(Problem::new(format!("{said} does not hold")).into());
    }
    Ok(Value::new_none())
}

/// Notes an assertion and counts it.
pub fn note(run: &Run, held: bool, message: &str, location: &str) {
    *run.assertions.borrow_mut() += 1;
    run.driver.assertion(held, message, location);
}
