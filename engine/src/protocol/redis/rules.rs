//! What rules can match and do on Redis, and the answers that they give.
//!
//! Contract: whatever [`check`] lets pass can be carried out; what it refuses it refuses with the
//! parameter and a hint.
//! - `error(message=, code=)`: an error reply. `code` is Redis's prefix (`OOM`, `LOADING`, ...; `ERR`
//!   where neither says one).
//! - `response(value=)` or `response(status=)`: a value, or a simple string such as `OK`.
//! - In a transaction an error is given when the command is queued and makes `EXEC` fail with
//!   `EXECABORT`, as in Redis; a response takes its place among the results of `EXEC`.
//! - `reset_after` cuts before the last byte of the answer at the latest.

use super::codec::Frame;
use super::{command, value};
use crate::fault::rule::{Effect, Fields, Rule};
use crate::protocol::RuleProblem;
use faultbox_bundle_format::Value;

/// Fields that rules can match on.
pub const MATCHERS: &[&str] = &["command", "key"];

/// Parameters of `error` and `response`.
pub const PARAMETERS: &[&str] = &["message", "code", "value", "status"];

/// Errors that Redis itself gives, for `error(code=)` without a message.
const KNOWN: &[(&str, &str)] = &[
    ("LOADING", "Redis is loading the dataset in memory"),
    ("OOM", "command not allowed when used memory > 'maxmemory'."),
    ("READONLY", "You can't write against a read only replica."),
    ("MISCONF", "Errors writing to the AOF file: No space left on device"),
    ("BUSY", "Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."),
    ("NOAUTH", "Authentication required."),
    ("NOPERM", "this user has no permissions to run this command"),
    ("WRONGPASS", "invalid username-password pair or user is disabled."),
    ("WRONGTYPE", "Operation against a key holding the wrong kind of value"),
    ("MASTERDOWN", "Link with MASTER is down and replica-serve-stale-data is set to 'no'."),
    ("NOREPLICAS", "Not enough good replicas to write."),
    ("CLUSTERDOWN", "The cluster is down"),
    ("TRYAGAIN", "Multiple keys request during rehashing of slot"),
    ("NOSCRIPT", "No matching script. Please use EVAL."),
    ("EXECABORT", "Transaction discarded because of previous errors."),
    ("ERR", "an injected error"),
];

fn problem(message: String, argument: Option<&str>, hint: Option<String>) -> RuleProblem {
    RuleProblem { message, argument: argument.map(str::to_owned), hint }
}

/// Whether a rule can be carried out.
///
/// # Errors
/// What is wrong with it.
pub fn check(rule: &Rule) -> Result<(), RuleProblem> {
    for matcher in &rule.matchers {
        check_matcher(&matcher.field, &matcher.pattern.glob)?;
    }
    match &rule.effect {
        Effect::Error(fields) => check_error(fields),
        Effect::Respond(fields) => check_response(fields),
        Effect::Slow { bytes_per_second: 0 } => {
            Err(problem("slow needs a rate above 0".to_owned(), Some("bytes_per_second"), None))
        }
        Effect::Duplicate => check_duplicate(rule),
        Effect::Delay(_)
        | Effect::Drop
        | Effect::Allow
        | Effect::Slow { .. }
        | Effect::Corrupt
        | Effect::ResetAfter { .. } => Ok(()),
    }
}

fn check_matcher(field: &str, glob: &str) -> Result<(), RuleProblem> {
    if !MATCHERS.contains(&field) {
        let hint = "redis rules match on command= and key=".to_owned();
        return Err(problem(format!("redis cannot match on {field}"), Some(field), Some(hint)));
    }
    if glob.is_empty() {
        return Err(problem(format!("{field} must not be empty"), Some(field), None));
    }
    let word = glob.split(' ').next().unwrap_or_default().to_ascii_uppercase();
    // Modules name their commands with a dot; they are not ours to know.
    if field == "command"
        && !word.contains('*')
        && !word.contains('.')
        && !command::names().any(|n| n == word)
    {
        let distance = |name: &&str| strsim::damerau_levenshtein(name, &word);
        let near = command::names().min_by_key(distance).filter(|name| distance(name) <= 2);
        let hint = near.map(|name| format!("did you mean {name}?"));
        return Err(problem(format!("redis has no command {word}"), Some("command"), hint));
    }
    Ok(())
}

fn only(fields: &Fields, allowed: &[&str], what: &str) -> Result<(), RuleProblem> {
    match fields.0.iter().find(|(name, _)| !allowed.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => {
            let hint = format!("redis {what} takes {}", allowed.join("= and ") + "=");
            Err(problem(format!("redis {what} cannot carry {name}"), Some(name), Some(hint)))
        }
    }
}

fn check_error(fields: &Fields) -> Result<(), RuleProblem> {
    only(fields, &["message", "code"], "error")?;
    let hint =
        || Some("for example error(message = \"LOADING Redis is loading the dataset in memory\")".to_owned());
    if fields.0.is_empty() {
        return Err(problem("redis error needs message= or code=".to_owned(), None, hint()));
    }
    for (name, value) in &fields.0 {
        let text = value.as_text();
        if text.is_none_or(|text| text.is_empty() || text.contains(['\r', '\n'])) {
            return Err(problem(format!("{name} must be one line of text"), Some(name), hint()));
        }
    }
    match fields.text("code") {
        Some(code) if code.contains(' ') => {
            Err(problem("code is one word, such as OOM".to_owned(), Some("code"), hint()))
        }
        Some(code) if fields.text("message").is_none() && !KNOWN.iter().any(|(known, _)| *known == code) => {
            Err(problem(format!("{code} needs a message"), Some("code"), hint()))
        }
        _ => Ok(()),
    }
}

fn check_response(fields: &Fields) -> Result<(), RuleProblem> {
    only(fields, &["value", "status"], "response")?;
    match fields.0.as_slice() {
        [(name, value)] if name == "status" => match value.as_text() {
            Some(text) if !text.contains(['\r', '\n']) => Ok(()),
            _ => Err(problem("status must be one line of text".to_owned(), Some("status"), None)),
        },
        [_] => Ok(()),
        _ => {
            let hint =
                "response(value = ...) for data, response(status = \"OK\") for a simple string".to_owned();
            Err(problem("redis response needs value= or status=".to_owned(), None, Some(hint)))
        }
    }
}

/// Sessions and subscriptions are states, not requests that a network could send twice.
fn check_duplicate(rule: &Rule) -> Result<(), RuleProblem> {
    let named = rule.matchers.iter().filter(|m| m.field == "command" && !m.pattern.glob.contains('*'));
    for matcher in named {
        let words = command::of(&matcher.pattern.glob.split(' ').collect::<Vec<_>>());
        if !can_duplicate(command::kind(&words)) {
            let message = format!("redis cannot send {} twice", matcher.pattern.glob);
            return Err(problem(
                message,
                Some("command"),
                Some("duplicate a command that does work".to_owned()),
            ));
        }
    }
    Ok(())
}

/// Whether a command of this kind can be sent twice without confusing the session.
pub fn can_duplicate(kind: command::Kind) -> bool {
    use command::Kind::*;
    !matches!(kind, Session | Transaction | Subscribe | Takeover)
}

/// The error reply of a rule.
pub fn error_value(fields: &Fields) -> Value {
    let looks_like_code = |word: &str| word.len() >= 3 && word.bytes().all(|b| b.is_ascii_uppercase());
    let text = match (fields.text("code"), fields.text("message")) {
        (Some(code), Some(message)) => {
            let rest = message.strip_prefix(code).map_or(message, str::trim_start);
            format!("{code} {rest}")
        }
        (Some(code), None) => {
            let known = KNOWN.iter().find(|(known, _)| *known == code);
            format!("{code} {}", known.map_or("an injected error", |(_, message)| message))
        }
        (None, Some(message)) if message.split(' ').next().is_some_and(looks_like_code) => message.to_owned(),
        (None, Some(message)) => format!("ERR {message}"),
        (None, None) => "ERR an injected error".to_owned(),
    };
    value::error(text)
}

/// The reply of a `response(...)` rule.
pub fn response_value(fields: &Fields) -> Value {
    match fields.text("status") {
        Some(text) => value::status(text),
        None => fields.get("value").map(given).unwrap_or_default(),
    }
}

/// A value of the spec as a reply: its maps are RESP maps.
fn given(from: &Value) -> Value {
    match from {
        Value::List(items) => Value::List(items.iter().map(given).collect()),
        Value::Map(fields) => {
            value::map(fields.iter().flat_map(|(name, v)| [Value::text(name.as_str()), given(v)]).collect())
        }
        other => other.clone(),
    }
}

/// One flipped bit in the longest text of a reply, so that it still parses.
pub fn corrupt(frame: &mut Frame) {
    // A number has no other place to be wrong in.
    if let Frame::Integer(n) = frame {
        *n ^= 1;
    } else if let Some(bytes) = longest(frame) {
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= if matches!(*byte, 11 | 12) { 2 } else { 1 };
        }
    }
}

fn longest(frame: &mut Frame) -> Option<&mut Vec<u8>> {
    match frame {
        Frame::Simple(bytes)
        | Frame::Error(bytes)
        | Frame::Bulk(bytes)
        | Frame::BulkError(bytes)
        | Frame::Verbatim { text: bytes, .. } => Some(bytes),
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => {
            items.iter_mut().filter_map(longest).max_by_key(|bytes| bytes.len())
        }
        Frame::Map(pairs) => pairs.iter_mut().filter_map(|(_, v)| longest(v)).max_by_key(|bytes| bytes.len()),
        Frame::Attribute(_, of) => longest(of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::rule::{Matcher, Modifiers, Pattern};

    fn fields(of: &[(&str, Value)]) -> Fields {
        Fields(of.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
    }

    fn rule(effect: Effect, matchers: &[(&str, &str)]) -> Rule {
        let matchers = matchers.iter().map(|(field, glob)| Matcher {
            field: (*field).to_owned(),
            pattern: Pattern { glob: (*glob).to_owned(), case_sensitive: false },
        });
        Rule {
            matchers: matchers.collect(),
            source: None,
            share: None,
            modifiers: Modifiers::default(),
            effect,
            words: String::new(),
        }
    }

    #[test]
    fn errors_carry_redis_prefixes() {
        let text = |of: &[(&str, Value)]| value::error_text(&error_value(&fields(of))).unwrap().to_owned();
        assert_eq!(text(&[("message", "no such thing".into())]), "ERR no such thing");
        assert_eq!(text(&[("message", "LOADING data".into())]), "LOADING data");
        assert_eq!(text(&[("code", "OOM".into()), ("message", "full".into())]), "OOM full");
        assert_eq!(text(&[("code", "OOM".into()), ("message", "OOM full".into())]), "OOM full");
        assert!(text(&[("code", "READONLY".into())]).starts_with("READONLY You can't write"));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_a_hint() {
        let refused = |effect, matchers: &[(&str, &str)]| check(&rule(effect, matchers)).unwrap_err();
        let error = |of: &[(&str, Value)]| Effect::Error(fields(of));
        assert_eq!(refused(Effect::Drop, &[("command", "GTE")]).hint.unwrap(), "did you mean GET?");
        assert!(refused(Effect::Drop, &[("query", "x")]).message.contains("query"));
        assert_eq!(refused(error(&[("status_code", Value::Int(503))]), &[]).argument.unwrap(), "status_code");
        assert!(refused(error(&[]), &[]).hint.is_some());
        assert!(refused(error(&[("message", "a\nb".into())]), &[]).message.contains("one line"));
        assert!(refused(error(&[("code", "STRANGE".into())]), &[]).message.contains("message"));
        assert!(refused(Effect::Respond(fields(&[])), &[]).message.contains("value="));
        assert!(refused(Effect::Duplicate, &[("command", "SUBSCRIBE")]).message.contains("twice"));
        for (effect, matcher) in [
            (error(&[("message", "x".into())]), ("command", "get")),
            (Effect::Respond(fields(&[("value", Value::Null)])), ("command", "JSON.GET")),
            (Effect::Duplicate, ("command", "IN*")),
            (Effect::Drop, ("key", "orders:*")),
            (Effect::Drop, ("command", "config get")),
        ] {
            assert_eq!(check(&rule(effect, &[matcher])), Ok(()));
        }
    }
}
