//! Field-by-field differences of two values.

use faultbox_bundle_format::Value;
use std::fmt;

/// Longest text shown of one side.
const SHOWN: usize = 80;
/// How much of what both sides begin with is shown at most, where more is left out.
const LEAD: usize = 20;

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
        (a, b) => {
            let (recorded, now) = match (a.bare(), b.bare()) {
                (Value::Text(a), Value::Text(b)) => texts(a, b),
                _ => (show(a), show(b)),
            };
            out.push(Difference { path: path.to_owned(), recorded, now });
        }
    }
}

/// Two texts, without most of what both begin with where that would hide what differs.
fn texts(a: &str, b: &str) -> (String, String) {
    let same = a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b);
    let from = match same {
        Some(((at, _), _)) => a[..at].char_indices().rev().nth(LEAD).map_or(0, |(at, _)| at),
        None => 0,
    };
    if from <= LEAD {
        return (show_text(a), show_text(b));
    }
    // The texts are the same up to there, so it is a boundary in both.
    let rest = |text: &str| format!("...{}", show_text(text.get(from..).unwrap_or_default()));
    (rest(a), rest(b))
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
        Value::Text(text) => return show_text(text),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Map(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", show(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Volatile(inner) => show(inner),
    };
    cut(text)
}

fn show_text(text: &str) -> String {
    cut(format!("{text:?}"))
}

fn cut(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(recorded: &str, now: &str) -> (String, String) {
        let found = values(&Value::text(recorded), &Value::text(now));
        (found[0].recorded.clone(), found[0].now.clone())
    }

    #[test]
    fn what_differs_in_long_texts_is_what_is_shown() {
        assert_eq!(of("open", "done"), ("\"open\"".to_owned(), "\"done\"".to_owned()));
        let long = "ä".repeat(500);
        let (recorded, now) = of(&format!("{long} VALUES ('open')"), &format!("{long} VALUES ('done')"));
        assert!(recorded.starts_with("...\"ä") && recorded.ends_with("VALUES ('open')\""), "{recorded}");
        assert!(now.starts_with("...\"ä") && now.ends_with("VALUES ('done')\""), "{now}");
        let (recorded, now) = of(&long, &format!("{long}!"));
        assert!(recorded.ends_with("...") && now.ends_with("..."), "one goes on where the other ends");
    }
}
