//! Structured log lines: one JSON document a line, information on stdout, trouble on stderr.

use crate::clock::Moment;
use serde_json::{Value, json};
use std::io::Write;

/// Something happened.
pub fn info(message: &str, fields: Value) {
    write(&mut std::io::stdout().lock(), "info", message, fields);
}

/// Something went wrong and was dealt with, or could not be.
pub fn warn(message: &str, fields: Value) {
    write(&mut std::io::stderr().lock(), "warn", message, fields);
}

fn write(to: &mut dyn Write, level: &str, message: &str, fields: Value) {
    let mut line = json!({ "time": Moment::now().to_string(), "level": level, "message": message });
    if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
        line.extend(fields);
    }
    // There is nowhere to say that a log line could not be written.
    let _ = writeln!(to, "{line}");
}
