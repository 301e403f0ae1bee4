//! What a rule can match and do on gRPC, and what a request is to the rules.
//!
//! Contract: pure. [`check`] refuses what the proxy could not carry out; [`answer`] builds
//! what the rule says as a response value.

use super::{message, status, value};
use crate::fault::rule::{Effect, Fields, Rule};
use crate::link::Request;
use crate::protocol::RuleProblem;
use crate::protocol::http::json;
use crate::protocol::http::kept::Kept;
use crate::protocol::http::rules::{check_matchers, check_names};
use faultbox_bundle_format::{Class, Value};
use http::HeaderMap;
use prost_reflect::{MessageDescriptor, MethodDescriptor};

/// Fields that rules can match on.
pub const MATCHERS: &[&str] = &["method", "metadata", "message"];
/// Parameters of `error` and `response`.
pub const PARAMETERS: &[&str] = &["code", "message", "metadata"];

/// First words of methods that, by their name, change nothing.
const READING: &[&str] = &[
    "Get", "List", "Find", "Search", "Read", "Query", "Check", "Watch", "Lookup", "Fetch", "Count",
    "Describe", "Exists", "Has", "Is", "Stat", "Health", "BatchGet", "Validate",
];

/// Whether the rule can be carried out.
///
/// # Errors
/// What is wrong with it.
pub fn check(rule: &Rule) -> Result<(), RuleProblem> {
    check_matchers("grpc", rule, MATCHERS)?;
    let problem = |argument: Option<&str>, message: String, hint: &str| {
        Err(RuleProblem { message, argument: argument.map(str::to_owned), hint: Some(hint.to_owned()) })
    };
    let (fields, error) = match &rule.effect {
        Effect::Error(fields) => (fields, true),
        Effect::Respond(fields) => (fields, false),
        Effect::Delay(_) | Effect::Drop | Effect::Allow => return Ok(()),
        Effect::Duplicate | Effect::Slow { .. } | Effect::Corrupt | Effect::ResetAfter { .. } => {
            let message = format!("grpc rules cannot do {}", rule.words);
            return problem(None, message, "grpc rules do error, response, delay, drop and allow");
        }
    };
    check_names("grpc", fields, PARAMETERS)?;
    if let Some(code) = fields.get("code")
        && self::code(code).is_none()
    {
        return problem(Some("code"), status::unknown(&json::print(code)), "code = \"UNAVAILABLE\" or 14");
    }
    if fields.get("metadata").is_some_and(|metadata| metadata.as_map().is_none()) {
        return problem(Some("metadata"), "metadata is not a dict".into(), "metadata = {\"x-a\": \"1\"}");
    }
    match (error, fields.get("code"), fields.get("message")) {
        (true, None, _) => problem(None, "a grpc error needs a code".into(), "error(code = \"UNAVAILABLE\")"),
        (true, _, Some(message)) if message.as_text().is_none() => {
            problem(Some("message"), "the message of an error is a string".into(), "message = \"down\"")
        }
        (false, None, None) => {
            problem(None, "a grpc response needs a message".into(), "message = {\"id\": 1}")
        }
        _ => Ok(()),
    }
}

fn code(code: &Value) -> Option<i64> {
    match code.bare() {
        Value::Text(name) => status::number(name),
        other => other.as_int().filter(|code| (0..status::NAMES.len() as i64).contains(code)),
    }
}

/// The response that a rule asks for.
pub fn answer(fields: &Fields, error: bool, output: Option<&MessageDescriptor>) -> Value {
    let code = fields.get("code").and_then(code);
    let text = fields.text("message").unwrap_or_default();
    let mut answer = match (error, code, fields.get("message")) {
        (false, None | Some(status::OK), Some(given)) => match success(given, output) {
            Ok(answer) => answer,
            Err(problem) => {
                value::error(status::INTERNAL, &format!("the rule cannot be carried out: {problem}"))
            }
        },
        (_, code, _) => value::error(code.unwrap_or(status::UNKNOWN), text),
    };
    if let (Value::Map(answer), Some(metadata)) = (&mut answer, fields.get("metadata"))
        && let Some((_, place)) = answer.iter_mut().find(|(name, _)| name == "metadata")
    {
        *place = metadata.clone();
    }
    answer
}

fn success(given: &Value, output: Option<&MessageDescriptor>) -> Result<Value, String> {
    let output = output.ok_or("there are no descriptors to encode the message with")?;
    let given = given.as_list().unwrap_or(std::slice::from_ref(given));
    let messages = given.iter().map(|given| message::from_value(output, given));
    Ok(value::success(Some(output), &messages.collect::<Result<Vec<_>, _>>()?))
}

/// Whether the protocol answers this method itself: health and reflection.
pub fn is_control(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/grpc.reflection.")
}

/// A request.
pub fn request(path: &str, headers: &HeaderMap, body: &Kept, method: Option<&MethodDescriptor>) -> Request {
    let input = method.map(MethodDescriptor::input);
    let body = value::request(path, headers, body, input.as_ref());
    let metadata = headers.iter().map(|(k, v)| format!("{k}: {}", String::from_utf8_lossy(v.as_bytes())));
    let mut messages: Vec<String> = body.get("message").map(json::print).into_iter().collect();
    for (field, value) in body.get("message").and_then(Value::as_map).unwrap_or_default() {
        let text = value.as_text().map_or_else(|| json::print(value), str::to_owned);
        messages.push(format!("{field}={text}"));
    }
    let bare = path.trim_start_matches('/');
    let names = vec![path.to_owned(), bare.to_owned(), bare.replace('/', "."), last_name(path).to_owned()];
    Request {
        fields: vec![("method", names), ("metadata", metadata.collect()), ("message", messages)],
        body,
        ..outline(path, method)
    }
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// A request without what rules look at, and without its body.
pub fn outline(path: &str, method: Option<&MethodDescriptor>) -> Request {
    let name = last_name(path);
    let control = is_control(path);
    // A method may say of itself that it changes nothing (1) or the same thing every time (2).
    let declared =
        method.and_then(|m| m.method_descriptor_proto().options.as_ref().map(|o| o.idempotency_level));
    let reads = declared == Some(Some(1)) || READING.iter().any(|word| begins_with_word(name, word));
    Request {
        operation: path.to_owned().into(),
        key: path.to_owned(),
        fields: Vec::new(),
        class: if control { Class::Control } else { Class::Work },
        works: !control,
        mutating: !control && !reads,
        repeatable: reads || declared == Some(Some(2)),
        body: Value::Null,
    }
}

/// `GetCity` begins with the word `Get`, `Getaway` does not.
fn begins_with_word(name: &str, word: &str) -> bool {
    name.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::rule::Modifiers;

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        let check = |effect: Effect| {
            let (matchers, modifiers, words) = (Vec::new(), Modifiers::default(), String::new());
            super::check(&Rule { matchers, source: None, share: None, modifiers, effect, words })
        };
        let fields =
            |f: &[(&str, Value)]| Fields(f.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect());
        assert!(check(Effect::Error(fields(&[("code", Value::text("UNAVAILABLE"))]))).is_ok());
        assert!(check(Effect::Error(fields(&[("code", Value::Int(14))]))).is_ok());
        let typo = check(Effect::Error(fields(&[("code", Value::text("UNAVALABLE"))]))).unwrap_err();
        assert!(typo.message.contains("the nearest is UNAVAILABLE"), "{}", typo.message);
        assert!(check(Effect::Error(fields(&[("code", Value::Int(17))]))).is_err());
        assert!(check(Effect::Error(fields(&[]))).is_err());
        assert!(check(Effect::Error(fields(&[("status_code", Value::Int(503))]))).is_err());
        assert!(check(Effect::Respond(fields(&[]))).is_err());
        assert!(check(Effect::Duplicate).is_err());
        assert!(check(Effect::Corrupt).is_err());
        assert!(begins_with_word("GetCity", "Get") && !begins_with_word("Issue", "Is"));
    }
}
