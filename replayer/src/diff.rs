//! Field-by-field differences of two values.

use faultbox_bundle_format::Value;
use std::fmt;

/// Longest text shown of one side.
const SHOWN: usize = 80;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: `params[0]`, `headers.traceparent`.
    pub path: String,
    /// What was recorded; empty where nothing was.
    pub recorded: String,
    /// What came now; empty where nothing did.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: recorded {}, now {}", self.path, self.recorded, self.now)
    }
}

/// All fields in which two values differ, in order.
pub fn values(recorded: &Value, now: &Value) -> Vec<Difference> {
    let mut differences = Vec::new();
    walk("", recorded, now, &mut differences);
    differences
}

fn walk(path: &str, recorded: &Value, now: &Value, out: &mut Vec<Difference>) {
    match (recorded, now) {
        (a, b) if a == b => {}
        (Value::Map(a), Value::Map(b)) => {
            for (name, value) in a {
                let other = b.iter().find(|(other, _)| other == name).map(|(_, v)| v);
                side(&join(path, name), Some(value), other, out);
            }
            for (name, value) in b.iter().filter(|(name, _)| !a.iter().any(|(other, _)| other == name)) {
                side(&join(path, name), None, Some(value), out);
            }
        }
        (Value::List(a), Value::List(b)) => {
            for index in 0..a.len().max(b.len()) {
                side(&format!("{path}[{index}]"), a.get(index), b.get(index), out);
            }
        }
        (a, b) => out.push(Difference { path: path.to_owned(), recorded: show(a), now: show(b) }),
    }
}

fn side(path: &str, a: Option<&Value>, b: Option<&Value>, out: &mut Vec<Difference>) {
    match (a, b) {
        (Some(a), Some(b)) => walk(path, a, b, out),
        (a, b) => {
            let shown = |v: Option<&Value>| v.map_or_else(|| "nothing".to_owned(), show);
            out.push(Difference { path: path.to_owned(), recorded: shown(a), now: shown(b) });
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A value on one line, cut to a readable length.
pub fn show(value: &Value) -> String {
    let text = match value.bare() {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::UInt(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Map(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", show(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Volatile(inner) => show(inner),
    };
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}
