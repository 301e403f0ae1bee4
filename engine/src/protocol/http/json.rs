//! JSON text to [`Value`] and back, for bodies, steps and mocks.
//!
//! Contract: never panics; what is nested deeper than a [`Value`] may be is refused. Order
//! of fields is kept. Volatile marks are looked through.
//! Not modelled: numbers beyond 64 bits keep the precision of a double.

use base64::Engine;
use faultbox_bundle_format::Value;

/// Nesting that leaves room for the tree around a body.
const DEPTH_MAX: usize = 48;

/// Parses JSON text; `None` where it is not JSON (or nested too deeply).
pub fn parse(text: &[u8]) -> Option<Value> {
    from_json(&serde_json::from_slice(text).ok()?)
}

/// A JSON tree as a value; `None` where it is nested too deeply.
pub fn from_json(json: &serde_json::Value) -> Option<Value> {
    convert(json, 0)
}

fn convert(json: &serde_json::Value, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::Int(n),
            (None, Some(n)) => Value::UInt(n),
            (None, None) => Value::Float(n.as_f64()?),
        },
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Array(items) => {
            Value::List(items.iter().map(|item| convert(item, depth + 1)).collect::<Option<_>>()?)
        }
        serde_json::Value::Object(fields) => {
            let fields = fields.iter().map(|(k, v)| Some((k.clone(), convert(v, depth + 1)?)));
            Value::Map(fields.collect::<Option<_>>()?)
        }
    })
}

/// A value as a JSON tree. Bytes become base64 text, infinite floats and NaN text.
pub fn to_json(value: &Value) -> serde_json::Value {
    match value.bare() {
        Value::Null | Value::Volatile(_) => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Int(n) => (*n).into(),
        Value::UInt(n) => (*n).into(),
        Value::Float(n) => {
            serde_json::Number::from_f64(*n).map_or_else(|| n.to_string().into(), serde_json::Value::Number)
        }
        Value::Text(text) => text.clone().into(),
        Value::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(fields) => {
            serde_json::Value::Object(fields.iter().map(|(k, v)| (k.clone(), to_json(v))).collect())
        }
    }
}

/// JSON text of a value, without white space.
pub fn print(value: &Value) -> String {
    to_json(value).to_string()
}
