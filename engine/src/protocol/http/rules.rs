//! What a rule can match and do on HTTP.
//!
//! Contract: pure. [`check`] refuses every matcher and parameter that the proxy could not
//! carry out; [`answer`] builds what the rule says as a response value.

use crate::fault::rule::{Effect, Fields, Rule};
use crate::protocol::RuleProblem;
use faultbox_bundle_format::Value;
use std::time::Duration;

/// Fields that rules can match on.
pub const MATCHERS: &[&str] = &["method", "path", "host", "header"];
/// Parameters of `error` and `response`.
pub const PARAMETERS: &[&str] = &["status_code", "status", "body", "message", "headers"];
/// The status of an `error(...)` that names none.
const ERROR_STATUS: i64 = 500;

/// Whether the rule can be carried out.
///
/// # Errors
/// What is wrong with it.
pub fn check(rule: &Rule) -> Result<(), RuleProblem> {
    check_matchers("http", rule, MATCHERS)?;
    match &rule.effect {
        Effect::Error(fields) | Effect::Respond(fields) => check_fields(fields),
        _ => Ok(()),
    }
}

/// Whether every matcher is one of the protocol's.
///
/// # Errors
/// Names the first that is not.
pub fn check_matchers(protocol: &str, rule: &Rule, known: &[&str]) -> Result<(), RuleProblem> {
    match rule.matchers.iter().find(|m| !known.contains(&m.field.as_str())) {
        None => Ok(()),
        Some(matcher) => Err(RuleProblem {
            message: format!("{protocol} rules cannot match on {}", matcher.field),
            argument: Some(matcher.field.clone()),
            hint: Some(format!("{protocol} rules match on {}", known.join(", "))),
        }),
    }
}

/// Whether every parameter is one of these.
///
/// # Errors
/// Names the first that is not.
pub fn check_names(protocol: &str, fields: &Fields, known: &[&str]) -> Result<(), RuleProblem> {
    match fields.0.iter().find(|(name, _)| name != "delay_ms" && !known.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => Err(RuleProblem {
            message: format!("{protocol} cannot answer {name}"),
            argument: Some(name.clone()),
            hint: Some(format!("{protocol} answers take {}", known.join(", "))),
        }),
    }
}

fn check_fields(fields: &Fields) -> Result<(), RuleProblem> {
    check_names("http", fields, PARAMETERS)?;
    let problem = |name: &str, message: String, hint: &str| {
        Err(RuleProblem { message, argument: Some(name.to_owned()), hint: Some(hint.to_owned()) })
    };
    for name in ["status_code", "status"] {
        if let Some(value) = fields.get(name)
            && !value.as_int().is_some_and(|status| (200..=599).contains(&status))
        {
            let hint = "a status is a number from 200 to 599; for no answer at all write drop()";
            return problem(name, format!("{name} is no http status"), hint);
        }
    }
    if fields.get("status_code").is_some() && fields.get("status").is_some() {
        return problem("status", "status and status_code are the same".to_owned(), "give one of them");
    }
    if fields.get("body").is_some() && fields.get("message").is_some() {
        return problem("message", "body and message are the same".to_owned(), "give one of them");
    }
    if fields.get("headers").is_some_and(|headers| headers.as_map().is_none()) {
        return problem("headers", "headers is not a dict".to_owned(), "headers = {\"retry-after\": \"1\"}");
    }
    Ok(())
}

/// The response that a rule asks for.
pub fn answer(fields: &Fields, error: bool) -> Value {
    let default = if error { ERROR_STATUS } else { 200 };
    let status = fields.int("status_code").or_else(|| fields.int("status")).unwrap_or(default);
    let mut headers = fields.get("headers").and_then(Value::as_map).unwrap_or_default().to_vec();
    for (name, _) in &mut headers {
        name.make_ascii_lowercase();
    }
    let body = fields.get("body").or_else(|| fields.get("message")).cloned();
    let typed = headers.iter().any(|(name, _)| name == "content-type");
    if let (false, Some(body)) = (typed, &body) {
        let json = !matches!(body.bare(), Value::Text(_) | Value::Bytes(_));
        let kind = if json { "application/json" } else { "text/plain; charset=utf-8" };
        headers.push(("content-type".to_owned(), Value::text(kind)));
    }
    headers.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut response =
        vec![("status".to_owned(), Value::Int(status)), ("headers".to_owned(), Value::Map(headers))];
    response.extend(body.map(|body| ("body".to_owned(), body)));
    Value::Map(response)
}

/// The pause that an answer was given besides.
pub fn pause(fields: &Fields) -> Option<Duration> {
    fields.int("delay_ms").and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::rule::{Matcher, Modifiers, Pattern};

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        let rule = |field: &str, effect: Effect| Rule {
            matchers: vec![Matcher {
                field: field.to_owned(),
                pattern: Pattern { glob: "*".to_owned(), case_sensitive: true },
            }],
            source: None,
            share: None,
            modifiers: Modifiers::default(),
            effect,
            words: String::new(),
        };
        let fields = |name: &str, value: Value| Fields(vec![(name.to_owned(), value)]);
        assert!(check(&rule("path", Effect::Drop)).is_ok());
        assert!(check(&rule("topic", Effect::Drop)).is_err());
        assert!(check(&rule("path", Effect::Error(fields("errno", Value::Int(1))))).is_err());
        assert!(check(&rule("path", Effect::Error(fields("status_code", Value::Int(0))))).is_err());
        assert!(check(&rule("path", Effect::Respond(fields("headers", Value::Int(0))))).is_err());
        assert!(check(&rule("path", Effect::Error(fields("status_code", Value::Int(503))))).is_ok());
    }
}
