//! Frames as [`Value`]s and back: the form in which exchanges are kept.
//!
//! | RESP | `Value` |
//! |---|---|
//! | bulk string | text, else bytes |
//! | integer, boolean, nil | `Int`, `Bool`, `Null` |
//! | array | list |
//! | simple string, error | `{"status": "OK"}`, `{"error": "ERR ..."}` |
//! | nil array | `{"nil": "array"}` |
//! | double, big number | `{"double": "1.5"}`, `{"bignum": "1"}` |
//! | bulk error | `{"bulk_error": "..."}` |
//! | verbatim | `{"verbatim": "...", "format": "txt"}` |
//! | map, set, push | `{"map": [k, v, ...]}`, `{"set": [...]}`, `{"push": [...]}` |
//! | attribute | `{"attribute": [k, v, ...], "of": ...}` |
//!
//! Contract: a frame of a server that speaks the negotiated version comes back as it was; a
//! version 3 value for a version 2 client becomes what Redis itself sends there. Lengths are
//! never kept. Any value can be encoded: a map of another shape becomes a map of its names.

use super::codec::Frame;
use faultbox_bundle_format::Value;

/// The value of a frame.
pub fn of_frame(frame: &Frame) -> Value {
    let one = |name: &str, value| Value::map([(name, value)]);
    match frame {
        Frame::Bulk(bytes) => Value::text_or_bytes(bytes),
        Frame::Integer(n) => Value::Int(*n),
        Frame::Boolean(b) => Value::Bool(*b),
        Frame::Null | Frame::NullBulk => Value::Null,
        Frame::NullArray => one("nil", "array".into()),
        Frame::Simple(text) => one("status", Value::text_or_bytes(text)),
        Frame::Error(text) => one("error", Value::text_or_bytes(text)),
        Frame::BulkError(text) => one("bulk_error", Value::text_or_bytes(text)),
        Frame::Double(text) => one("double", Value::text(text.as_str())),
        Frame::BigNumber(text) => one("bignum", Value::text(text.as_str())),
        Frame::Verbatim { format, text } => {
            Value::map([("verbatim", Value::text_or_bytes(text)), ("format", Value::text(format.as_str()))])
        }
        Frame::Array(items) => Value::List(items.iter().map(of_frame).collect()),
        Frame::Set(items) => one("set", Value::List(items.iter().map(of_frame).collect())),
        Frame::Push(items) => one("push", Value::List(items.iter().map(of_frame).collect())),
        Frame::Map(pairs) => one("map", of_pairs(pairs)),
        Frame::Attribute(pairs, of) => Value::map([("attribute", of_pairs(pairs)), ("of", of_frame(of))]),
    }
}

fn of_pairs(pairs: &[(Frame, Frame)]) -> Value {
    Value::List(pairs.iter().flat_map(|(k, v)| [of_frame(k), of_frame(v)]).collect())
}

/// The frame that tells a client of protocol version `version` this value.
pub fn to_frame(value: &Value, version: u8) -> Frame {
    let modern = version >= 3;
    match value {
        Value::Volatile(inner) => to_frame(inner, version),
        Value::Null if modern => Frame::Null,
        Value::Null => Frame::NullBulk,
        Value::Bool(b) if modern => Frame::Boolean(*b),
        Value::Bool(b) => Frame::Integer(i64::from(*b)),
        Value::Int(n) => Frame::Integer(*n),
        Value::UInt(n) if modern => Frame::BigNumber(n.to_string()),
        Value::UInt(n) => Frame::Bulk(n.to_string().into_bytes()),
        Value::Float(n) => double(&number_text(*n), modern),
        Value::Text(text) => Frame::Bulk(text.clone().into_bytes()),
        Value::Bytes(bytes) => Frame::Bulk(bytes.clone()),
        Value::List(items) => Frame::Array(frames(items, version)),
        Value::Map(fields) => named(fields, version),
    }
}

fn named(fields: &[(String, Value)], version: u8) -> Frame {
    let modern = version >= 3;
    let only = match fields {
        [(name, value)] => Some((name.as_str(), value.bare())),
        _ => None,
    };
    let bytes = |value: &Value| value.as_bytes().map(<[u8]>::to_vec);
    let found = match only {
        Some(("status", value)) => bytes(value).map(Frame::Simple),
        Some(("error", value)) => bytes(value).map(Frame::Error),
        Some(("bulk_error", value)) if modern => bytes(value).map(Frame::BulkError),
        Some(("bulk_error", value)) => bytes(value).map(Frame::Error),
        Some(("double", value)) => value.as_text().map(|text| double(text, modern)),
        Some(("bignum", value)) if modern => value.as_text().map(|text| Frame::BigNumber(text.to_owned())),
        Some(("bignum", value)) => bytes(value).map(Frame::Bulk),
        Some(("nil", _)) if modern => Some(Frame::Null),
        Some(("nil", _)) => Some(Frame::NullArray),
        Some(("set", Value::List(items))) if modern => Some(Frame::Set(frames(items, version))),
        Some(("push", Value::List(items))) if modern => Some(Frame::Push(frames(items, version))),
        Some(("set" | "push", Value::List(items))) => Some(Frame::Array(frames(items, version))),
        Some(("map", Value::List(items))) => Some(mapping(frames(items, version), modern)),
        _ => special(fields, version),
    };
    found.unwrap_or_else(|| {
        let flat = fields
            .iter()
            .flat_map(|(name, value)| [Frame::Bulk(name.clone().into_bytes()), to_frame(value, version)]);
        mapping(flat.collect(), modern)
    })
}

/// The shapes of two fields.
fn special(fields: &[(String, Value)], version: u8) -> Option<Frame> {
    let [(first, a), (second, b)] = fields else { return None };
    match (first.as_str(), second.as_str()) {
        ("verbatim", "format") => {
            let (text, format) = (a.as_bytes()?.to_vec(), b.as_text()?);
            if version < 3 {
                return Some(Frame::Bulk(text));
            }
            (format.len() == 3).then(|| Frame::Verbatim { format: format.to_owned(), text })
        }
        ("attribute", "of") if version < 3 => Some(to_frame(b, version)),
        ("attribute", "of") => match mapping(frames(a.as_list()?, version), true) {
            Frame::Map(pairs) => Some(Frame::Attribute(pairs, Box::new(to_frame(b, version)))),
            _ => None,
        },
        _ => None,
    }
}

fn frames(items: &[Value], version: u8) -> Vec<Frame> {
    items.iter().map(|item| to_frame(item, version)).collect()
}

/// Names and values in turn, as a map or flat.
fn mapping(flat: Vec<Frame>, modern: bool) -> Frame {
    if !modern || flat.len() % 2 == 1 {
        return Frame::Array(flat);
    }
    let mut flat = flat.into_iter();
    Frame::Map(std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect())
}

fn double(text: &str, modern: bool) -> Frame {
    if modern { Frame::Double(text.to_owned()) } else { Frame::Bulk(text.as_bytes().to_vec()) }
}

/// A number as Redis writes it: no exponent, no trailing zeros, `inf`, `-inf`, `nan`.
pub fn number_text(n: f64) -> String {
    if n.is_nan() {
        "nan".to_owned()
    } else if n.is_infinite() {
        if n > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else {
        format!("{n}")
    }
}

/// `{"status": text}`
pub fn status(text: &str) -> Value {
    Value::map([("status", Value::text(text))])
}

/// `{"error": text}`
pub fn error(text: impl Into<String>) -> Value {
    Value::map([("error", Value::Text(text.into()))])
}

/// `{"map": [k, v, ...]}`
pub fn map(flat: Vec<Value>) -> Value {
    Value::map([("map", Value::List(flat))])
}

/// `{"set": [...]}`
pub fn set(items: Vec<Value>) -> Value {
    Value::map([("set", Value::List(items))])
}

/// The message, if this is an error.
pub fn error_text(value: &Value) -> Option<&str> {
    match value.bare() {
        Value::Map(fields) => match fields.as_slice() {
            [(name, text)] if name == "error" || name == "bulk_error" => text.as_text(),
            _ => None,
        },
        _ => None,
    }
}

/// What a person means by the value: without the marks of its RESP type.
pub fn plain(value: &Value) -> Value {
    match value.bare() {
        Value::List(items) => Value::List(items.iter().map(plain).collect()),
        Value::Map(fields) => match fields.as_slice() {
            [(name, text)] if name == "status" => text.clone(),
            [(name, _)] if name == "nil" => Value::Null,
            [(name, Value::List(items))] if name == "set" || name == "push" => {
                Value::List(items.iter().map(plain).collect())
            }
            [(name, Value::List(items))] if name == "map" => plain_map(items),
            [(name, text)] if name == "double" => {
                let number = text.as_text().and_then(|t| t.parse().ok());
                number.map_or_else(|| text.clone(), Value::Float)
            }
            [(verbatim, text), (format, _)] if verbatim == "verbatim" && format == "format" => text.clone(),
            [(attribute, _), (of, value)] if attribute == "attribute" && of == "of" => plain(value),
            _ => value.bare().clone(),
        },
        other => other.clone(),
    }
}

/// Names and values in turn, as a map where the names are text.
pub fn plain_map(flat: &[Value]) -> Value {
    let pairs = flat.chunks_exact(2).map(|pair| match pair {
        [name, value] => name.as_text().map(|name| (name.to_owned(), plain(value))),
        _ => None,
    });
    match pairs.collect::<Option<Vec<_>>>() {
        Some(pairs) => Value::Map(pairs),
        None => Value::List(flat.iter().map(plain).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(bytes: &[u8], version: u8) {
        let mut decoder = super::super::codec::FrameDecoder::default();
        decoder.buffer().extend_from_slice(bytes);
        let (frame, _) = decoder.next_frame().unwrap().unwrap();
        let value = Value::decode(&of_frame(&frame).encode()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&to_frame(&value, version).encode()),
            String::from_utf8_lossy(bytes)
        );
    }

    #[test]
    fn frames_come_back_as_they_were() {
        for bytes in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":-3\r\n",
            "$2\r\nhi\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*3\r\n$1\r\na\r\n*1\r\n:1\r\n$-1\r\n",
        ] {
            there_and_back(bytes.as_bytes(), 2);
        }
        there_and_back(b"$2\r\n\xff\x00\r\n", 2);
        for bytes in [
            "_\r\n",
            "#t\r\n",
            ",1.50\r\n",
            ",inf\r\n",
            "(12345678901234567890\r\n",
            "!5\r\nERR x\r\n",
            "=5\r\ntxt:a\r\n",
            "%1\r\n$1\r\na\r\n:1\r\n",
            "~1\r\n:1\r\n",
            ">2\r\n$1\r\na\r\n:1\r\n",
            "|1\r\n+a\r\n:1\r\n+OK\r\n",
        ] {
            there_and_back(bytes.as_bytes(), 3);
        }
    }

    #[test]
    fn version_2_gets_what_redis_sends_there() {
        let frame = |value: Value| String::from_utf8(to_frame(&value, 2).encode()).unwrap();
        assert_eq!(frame(map(vec!["a".into(), Value::Int(1)])), "*2\r\n$1\r\na\r\n:1\r\n");
        assert_eq!(frame(set(vec!["a".into()])), "*1\r\n$1\r\na\r\n");
        assert_eq!(frame(Value::Float(1.5)), "$3\r\n1.5\r\n");
        assert_eq!(frame(Value::Bool(true)), ":1\r\n");
        let fields = Value::map([("x", Value::Int(1)), ("y", Value::Null)]);
        assert_eq!(frame(fields), "*4\r\n$1\r\nx\r\n:1\r\n$1\r\ny\r\n$-1\r\n");
    }
}
