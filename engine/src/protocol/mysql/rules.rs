//! Rules: what can be matched and done, and the answers that rules give.
//!
//! Contract: pure. Whatever cannot be carried out is refused at load. Known error numbers
//! bring their own SQLSTATE and message, so that `error(errno = 1213)` is what drivers
//! take for a deadlock.
//! Not modelled: `corrupt` (a row with a flipped bit is a protocol error to most clients,
//! and says nothing about the service).

use super::result::{Column, error_value, ok_value, status, types};
use crate::fault::rule::{Effect, Fields, Rule};
use crate::protocol::RuleProblem;
use faultbox_bundle_format::Value;

/// Fields that rules match on.
pub const MATCHERS: &[&str] = &["query", "table"];
/// Parameters of `error(...)` and `response(...)`.
pub const PARAMETERS: &[&str] = &["errno", "sqlstate", "message", "rows", "affected", "last_insert_id"];

const ERROR: &[&str] = &["errno", "sqlstate", "message"];
const RESPONSE: &[&str] = &["rows", "affected", "last_insert_id"];

/// Errors that drivers know: number, SQLSTATE, message.
const KNOWN: &[(i64, &str, &str)] = &[
    (1021, "HY000", "Disk full; waiting for someone to free some space"),
    (1026, "HY000", "Error writing a file"),
    (1030, "HY000", "Got an error from the storage engine"),
    (1040, "08004", "Too many connections"),
    (1044, "42000", "Access denied to the database"),
    (1045, "28000", "Access denied"),
    (1046, "3D000", "No database selected"),
    (1048, "23000", "Column cannot be null"),
    (1049, "42000", "Unknown database"),
    (1053, "08S01", "Server shutdown in progress"),
    (1054, "42S22", "Unknown column"),
    (1062, "23000", "Duplicate entry"),
    (1064, "42000", "You have an error in your SQL syntax"),
    (1114, "HY000", "The table is full"),
    (1142, "42000", "Command denied to user"),
    (1146, "42S02", "Table doesn't exist"),
    (1153, "08S01", "Got a packet bigger than 'max_allowed_packet' bytes"),
    (1159, "08S01", "Got timeout reading communication packets"),
    (1203, "42000", "User has more than 'max_user_connections' active connections"),
    (1205, "HY000", "Lock wait timeout exceeded; try restarting transaction"),
    (1213, "40001", "Deadlock found when trying to get lock; try restarting transaction"),
    (1226, "42000", "User has exceeded a resource"),
    (1235, "42000", "This version doesn't support this"),
    (1264, "22003", "Out of range value"),
    (1290, "HY000", "The server is running with the --read-only option so it cannot execute this statement"),
    (1317, "70100", "Query execution was interrupted"),
    (1364, "HY000", "Field doesn't have a default value"),
    (1406, "22001", "Data too long for column"),
    (1451, "23000", "Cannot delete or update a parent row: a foreign key constraint fails"),
    (1452, "23000", "Cannot add or update a child row: a foreign key constraint fails"),
    (1792, "25006", "Cannot execute statement in a READ ONLY transaction"),
    (1836, "HY000", "Running in read-only mode"),
    (3024, "HY000", "Query execution was interrupted, maximum statement execution time exceeded"),
    (3572, "HY000", "Statement aborted because lock(s) could not be acquired immediately and NOWAIT is set"),
    (4031, "HY000", "The client was disconnected by the server because of inactivity"),
];

fn problem<T>(message: String, argument: &str, hint: &str) -> Result<T, RuleProblem> {
    let argument = Some(argument.to_owned()).filter(|a| !a.is_empty());
    let hint = Some(hint.to_owned()).filter(|h| !h.is_empty());
    Err(RuleProblem { message, argument, hint })
}

/// Whether the rule can be carried out.
///
/// # Errors
/// What is wrong with it.
pub fn check(rule: &Rule) -> Result<(), RuleProblem> {
    for matcher in &rule.matchers {
        if !MATCHERS.contains(&matcher.field.as_str()) {
            let message = format!("mysql requests have no `{}`", matcher.field);
            return problem(message, &matcher.field, "mysql rules match on `query` and `table`");
        }
        if matcher.pattern.glob.trim().is_empty() {
            return problem(
                format!("`{}` is empty", matcher.field),
                &matcher.field,
                "leave it out to match everything",
            );
        }
    }
    match &rule.effect {
        Effect::Error(fields) => check_error(fields),
        Effect::Respond(fields) => check_response(fields),
        Effect::Corrupt => problem(
            "mysql cannot corrupt answers".into(),
            "",
            "use reset_after(bytes=...) or error(errno=...)",
        ),
        Effect::Slow { bytes_per_second: 0 } => problem(
            "nothing would ever arrive".into(),
            "bytes_per_second",
            "use drop() to cut the connection",
        ),
        _ => Ok(()),
    }
}

fn check_error(fields: &Fields) -> Result<(), RuleProblem> {
    for (name, value) in &fields.0 {
        match name.as_str() {
            "errno" if !value.as_int().is_some_and(|n| (1..=65535).contains(&n)) => {
                return problem(
                    "errno is a number from 1 to 65535".into(),
                    name,
                    "1213 is a deadlock, 1205 a lock wait timeout",
                );
            }
            "sqlstate"
                if !value
                    .as_text()
                    .is_some_and(|s| s.len() == 5 && s.bytes().all(|b| b.is_ascii_alphanumeric())) =>
            {
                return problem(
                    "sqlstate is five letters and digits".into(),
                    name,
                    "\"40001\" is a serialization failure",
                );
            }
            "message" if value.as_text().is_none() => {
                return problem("message is a text".into(), name, "");
            }
            name if !ERROR.contains(&name) => {
                return problem(
                    format!("a mysql error has no `{name}`"),
                    name,
                    "it has errno, sqlstate and message",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_response(fields: &Fields) -> Result<(), RuleProblem> {
    for (name, value) in &fields.0 {
        match name.as_str() {
            "rows" => {
                let rows = value.as_list().unwrap_or_default();
                if rows.is_empty() || rows.iter().any(|row| row.as_map().is_none_or(<[_]>::is_empty)) {
                    return problem(
                        "rows is a list of dicts, at least one".into(),
                        name,
                        "rows = [{\"id\": 1}]",
                    );
                }
            }
            "affected" | "last_insert_id" if value.as_int().is_none_or(|n| n < 0) => {
                return problem(format!("{name} is a number from 0"), name, "");
            }
            name if !RESPONSE.contains(&name) => {
                return problem(
                    format!("a mysql response has no `{name}`"),
                    name,
                    "it has rows, or affected and last_insert_id",
                );
            }
            _ => {}
        }
    }
    if fields.get("rows").is_some() && fields.0.len() > 1 {
        return problem("an answer has rows, or counts, not both".into(), "rows", "");
    }
    Ok(())
}

/// SQLSTATE and message of a known error number.
pub fn known(errno: i64) -> (&'static str, &'static str) {
    let found = KNOWN.iter().find(|(number, ..)| *number == errno);
    found.map_or(("HY000", "Unknown error"), |(_, state, message)| (state, message))
}

/// The answer of `error(...)`.
pub fn error_answer(fields: &Fields) -> Value {
    let errno = fields.int("errno").unwrap_or(1105);
    let (state, message) = known(errno);
    error_value(errno, fields.text("sqlstate").unwrap_or(state), fields.text("message").unwrap_or(message))
}

/// The answer of `response(...)`.
pub fn answer(fields: &Fields) -> Value {
    let Some(rows) = fields.get("rows").and_then(Value::as_list) else {
        let number = |name: &str| fields.int(name).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        return ok_value(number("affected"), number("last_insert_id"), status::AUTOCOMMIT, 0, "");
    };
    let names: Vec<&str> = match rows.first().and_then(Value::as_map) {
        Some(first) => first.iter().map(|(name, _)| name.as_str()).collect(),
        None => Vec::new(),
    };
    let cell = |row: &Value, name: &str| row.get(name).cloned().unwrap_or_default();
    let columns = names.iter().map(|name| {
        let sample = rows.iter().map(|row| cell(row, name)).find(|value| *value != Value::Null);
        let kind = match sample {
            Some(Value::Int(_) | Value::UInt(_) | Value::Bool(_)) => types::LONGLONG,
            Some(Value::Float(_)) => types::DOUBLE,
            _ => types::VAR_STRING,
        };
        Column::plain(name, kind)
    });
    let columns: Vec<Column> = columns.collect();
    let rows = rows.iter().map(|row| names.iter().map(|name| cell(row, name)).collect()).collect();
    result_set(&columns, rows)
}

/// A result set as a [`Value`].
pub fn result_set(columns: &[Column], rows: Vec<Vec<Value>>) -> Value {
    let parts = [
        ("columns", Value::List(columns.iter().map(Column::to_value).collect())),
        ("rows", Value::List(rows.into_iter().map(Value::List).collect())),
        ("status", Value::Int(status::AUTOCOMMIT as i64)),
        ("warnings", Value::Int(0)),
    ];
    Value::map([("resultset", Value::map(parts))])
}
