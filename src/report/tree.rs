//! A recorded value as text that people read: one field a line, nested ones set in.
//!
//! Contract: at most so many bytes, and where there was more the text says how much; nothing in it drives
//! a terminal or turns its neighbours around.

use crate::terminal::plain;
use faultbox_bundle_format::Value;

/// Deepest nesting that is set in; what is deeper stands on one line.
const DEPTH: usize = 12;

/// The text of a value, cut to about `most` bytes.
pub fn text(value: &Value, most: usize) -> String {
    let mut out = String::new();
    match value.bare() {
        Value::Map(_) | Value::List(_) => nested(value, 0, &mut out),
        _ => out.push_str(&scalar(value)),
    }
    cut(plain(out.trim_end()).as_ref(), most)
}

/// A text cut to about `most` bytes, with a line that says so.
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}\n... cut here: {} of {} bytes are shown", &text[..end], end, text.len())
}

fn nested(value: &Value, depth: usize, out: &mut String) {
    let mut field = |name: &str, value: &Value| {
        out.push_str(&format!("{:width$}{name}", "", width = depth * 2));
        match value.bare() {
            Value::Map(_) | Value::List(_) if !empty(value) && depth < DEPTH => {
                out.push('\n');
                nested(value, depth + 1, out);
            }
            _ => {
                let text = scalar(value);
                let pad = format!("\n{:width$}", "", width = (depth + 1) * 2);
                match text.contains('\n') {
                    true => out.push_str(&format!("{pad}{}\n", text.replace('\n', &pad))),
                    false => out.push_str(&format!(" {text}\n")),
                }
            }
        }
    };
    match value.bare() {
        Value::Map(fields) => fields.iter().for_each(|(name, value)| field(&format!("{name}:"), value)),
        Value::List(items) => items.iter().for_each(|item| field("-", item)),
        _ => {}
    }
}

fn empty(value: &Value) -> bool {
    value.as_map().is_some_and(<[_]>::is_empty) || value.as_list().is_some_and(<[_]>::is_empty)
}

fn scalar(value: &Value) -> String {
    match value.bare() {
        Value::Text(text) => document(text).unwrap_or_else(|| text.clone()),
        Value::Bytes(bytes) => {
            let shown: Vec<String> = bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
            let more = if bytes.len() > 32 { " ..." } else { "" };
            format!("{} bytes: {}{more}", bytes.len(), shown.join(" "))
        }
        Value::Map(fields) if fields.is_empty() => "{}".to_owned(),
        Value::List(items) if items.is_empty() => "[]".to_owned(),
        other => faultbox_replayer::diff::show(other),
    }
}

/// JSON in a text, laid out; a body is easier to read so.
fn document(text: &str) -> Option<String> {
    if !text.starts_with(['{', '[']) {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    serde_json::to_string_pretty(&value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_on_lines_of_their_own() {
        let value = Value::map([
            ("method", Value::text("POST")),
            ("headers", Value::map([("accept", Value::text("*/*"))])),
            ("rows", Value::List(vec![Value::Int(1), Value::Null])),
            ("body", Value::text(r#"{"a":[1]}"#)),
            ("raw", Value::Bytes(vec![0, 255])),
            ("none", Value::Map(Vec::new())),
        ]);
        let wanted = "method: POST\nheaders:\n  accept: */*\nrows:\n  - 1\n  - null\nbody:\n  {\n    \"a\": [\n      \
                      1\n    ]\n  }\nraw: 2 bytes: 00 ff\nnone: {}";
        assert_eq!(text(&value, 1000), wanted);
    }

    #[test]
    fn what_is_cut_says_so_and_what_drives_terminals_is_gone() {
        assert_eq!(text(&Value::text("ä".repeat(10)), 5), "ää\n... cut here: 4 of 20 bytes are shown");
        assert_eq!(text(&Value::text("a\u{1b}[2Jb\u{202e}"), 100), "a\u{fffd}[2Jb\u{fffd}");
    }
}
