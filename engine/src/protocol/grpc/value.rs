//! Requests and responses as [`Value`]s, and back onto the wire.
//!
//! Contract: proxy and server build request values with the same functions here, and every
//! response value that the proxy journals can be encoded again by [`response_from`].
//! Shapes: a request has `method`, `metadata`, and `message` (exactly one) or `messages`; a
//! response has `status`, `code`, `status_message`, `metadata`, `message` or `messages`,
//! `trailers`. A message is a map where descriptors decode it (its bytes are kept beside it
//! in the volatile `raw`), else bytes; `{compressed: bytes}` where it was compressed.
//! Metadata is sorted by name: across names its order has no meaning.

use super::codec::{self, Frame};
use super::{message, status};
use crate::protocol::http::kept::{KEPT_MAX, Kept};
use bytes::BytesMut;
use faultbox_bundle_format::Value;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost_reflect::MessageDescriptor;

/// Metadata that means nothing beyond one connection, moment or library version.
const VOLATILE: &[&str] = &["user-agent", "grpc-timeout", "date", "server", "grpc-accept-encoding"];

/// Headers that belong to the framing and are made anew.
const FRAMING: &[&str] = &["te", "grpc-status", "grpc-message", "content-length"];

/// The fields `message` or `messages`, and `raw`.
fn body_fields(body: &Kept, descriptor: Option<&MessageDescriptor>) -> Vec<(String, Value)> {
    let Some(bytes) = body.whole() else {
        return vec![("omitted".to_owned(), body.value())];
    };
    match codec::decode_all(bytes) {
        Ok(frames) => message_fields(descriptor, &frames),
        Err(_) => vec![("undecodable".to_owned(), Value::Bytes(bytes.to_vec()))],
    }
}

fn message_fields(descriptor: Option<&MessageDescriptor>, frames: &[Frame]) -> Vec<(String, Value)> {
    let mut values = Vec::new();
    let mut raw = Vec::new();
    for frame in frames {
        let bytes = Value::Bytes(frame.data.to_vec());
        let decoded =
            descriptor.filter(|_| !frame.compressed).and_then(|d| message::to_value(d, &frame.data));
        values.push(match decoded {
            Some(value) => {
                raw.push(bytes);
                value
            }
            None if frame.compressed => Value::map([("compressed", bytes)]),
            None => bytes,
        });
    }
    let decoded_all = raw.len() == values.len() && !raw.is_empty();
    let mut fields = match (values.len(), values.pop()) {
        (1, Some(one)) => vec![("message".to_owned(), one)],
        (_, last) => {
            values.extend(last);
            vec![("messages".to_owned(), Value::List(values))]
        }
    };
    if decoded_all {
        fields.push(("raw".to_owned(), Value::List(raw).volatile()));
    }
    fields
}

/// The messages of a request or response value, ready for the wire.
///
/// # Errors
/// When the value does not hold them (too large to keep, or decoded without descriptors at
/// hand and without its bytes).
pub fn body_from(descriptor: Option<&MessageDescriptor>, value: &Value) -> Result<BytesMut, String> {
    let mut out = BytesMut::new();
    if value.get("omitted").is_some() {
        return Err(format!("the body was longer than {KEPT_MAX} bytes and was not kept"));
    }
    if let Some(bytes) = value.get("undecodable").and_then(Value::as_bytes) {
        out.extend_from_slice(bytes);
        return Ok(out);
    }
    let one = value.get("message").map(std::slice::from_ref);
    let messages = one.or_else(|| value.get("messages").and_then(Value::as_list)).unwrap_or_default();
    let raw = value.get("raw").and_then(Value::as_list).unwrap_or_default();
    for (at, message) in messages.iter().enumerate() {
        let compressed = message.get("compressed").and_then(Value::as_bytes);
        let data = match (message.bare(), compressed, descriptor) {
            (_, Some(bytes), _) => bytes.to_vec(),
            (Value::Bytes(bytes), ..) => bytes.clone(),
            (value, None, Some(descriptor)) => message::from_value(descriptor, value)?,
            (_, None, None) => raw
                .get(at)
                .and_then(Value::as_bytes)
                .ok_or("there are no descriptors to encode the message with")?
                .to_vec(),
        };
        codec::encode(&Frame { compressed: compressed.is_some(), data: data.into() }, &mut out);
    }
    Ok(out)
}

/// Metadata as a map, without what belongs to the framing.
pub fn metadata(headers: &HeaderMap) -> Value {
    let mut fields: Vec<(String, Value)> = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        let usual = name == "content-type" && value.as_bytes() == b"application/grpc";
        if usual || FRAMING.contains(&name) {
            continue;
        }
        let text = Value::text_or_bytes(value.as_bytes());
        fields.push((name.to_owned(), if VOLATILE.contains(&name) { text.volatile() } else { text }));
    }
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    Value::Map(fields)
}

/// Puts metadata back into headers; what is no legal header is left out.
pub fn put_metadata(value: Option<&Value>, headers: &mut HeaderMap) {
    for (name, value) in value.and_then(Value::as_map).unwrap_or_default() {
        let values = value.as_list().unwrap_or(std::slice::from_ref(value));
        for value in values {
            let header = value.as_bytes().map_or_else(
                || HeaderValue::from_str(&crate::protocol::http::json::print(value)),
                HeaderValue::from_bytes,
            );
            if let (Ok(name), Ok(header)) = (HeaderName::from_bytes(name.as_bytes()), header) {
                headers.append(name, header);
            }
        }
    }
}

/// A request.
pub fn request(
    path: &str,
    headers: &HeaderMap,
    body: &Kept,
    descriptor: Option<&MessageDescriptor>,
) -> Value {
    let mut fields =
        vec![("method".to_owned(), Value::text(path)), ("metadata".to_owned(), metadata(headers))];
    fields.extend(body_fields(body, descriptor));
    Value::Map(fields)
}

/// A response: initial headers, body, trailers (which are the headers where there is no body).
pub fn response(
    http_status: u16,
    headers: &HeaderMap,
    body: &Kept,
    trailers: Option<&HeaderMap>,
    descriptor: Option<&MessageDescriptor>,
) -> Value {
    let last = trailers.unwrap_or(headers);
    let code = last.get("grpc-status").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let code = code.unwrap_or(status::UNKNOWN);
    let text = last.get("grpc-message").map(|v| codec::message_from_header(v.as_bytes()));
    let mut fields = head(code, &text.unwrap_or_default());
    if http_status != 200 {
        fields.push(("http_status".to_owned(), Value::Int(i64::from(http_status))));
    }
    if !last.contains_key("grpc-status") {
        fields.push(("no_status".to_owned(), Value::Bool(true)));
    }
    fields.push(("metadata".to_owned(), metadata(headers)));
    if trailers.is_some() || !body.is_empty() {
        fields.extend(body_fields(body, descriptor));
    }
    if let Some(trailers) = trailers {
        fields.push(("trailers".to_owned(), metadata(trailers)));
    }
    Value::Map(fields)
}

fn head(code: i64, text: &str) -> Vec<(String, Value)> {
    vec![
        ("status".to_owned(), Value::Int(code)),
        ("code".to_owned(), Value::text(status::name(code))),
        ("status_message".to_owned(), Value::text(text)),
    ]
}

/// An error without messages, as a mock or a rule gives it.
pub fn error(code: i64, text: &str) -> Value {
    let mut fields = head(code, text);
    fields.push(("metadata".to_owned(), Value::Map(Vec::new())));
    Value::Map(fields)
}

/// These messages and OK.
pub fn success(descriptor: Option<&MessageDescriptor>, messages: &[Vec<u8>]) -> Value {
    let frames: Vec<Frame> =
        messages.iter().map(|m| Frame { compressed: false, data: m.clone().into() }).collect();
    let mut fields = head(status::OK, "");
    fields.push(("metadata".to_owned(), Value::Map(Vec::new())));
    fields.extend(message_fields(descriptor, &frames));
    fields.push(("trailers".to_owned(), Value::Map(Vec::new())));
    Value::Map(fields)
}

/// A response on the wire.
#[derive(Debug, Clone)]
pub struct Wire {
    /// The HTTP status.
    pub http_status: u16,
    /// Initial headers; with the status where there are no trailers.
    pub headers: HeaderMap,
    /// The body.
    pub body: BytesMut,
    /// Trailers, where they are apart from the headers.
    pub trailers: Option<HeaderMap>,
}

/// A response value back on the wire.
///
/// # Errors
/// When its messages cannot be encoded ([`body_from`]).
pub fn response_from(descriptor: Option<&MessageDescriptor>, value: &Value) -> Result<Wire, String> {
    let int = |name: &str| value.get(name).and_then(Value::as_int);
    let body = body_from(descriptor, value)?;
    let mut headers = HeaderMap::new();
    put_metadata(value.get("metadata"), &mut headers);
    if !headers.contains_key("content-type") {
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    }
    let code = int("status").unwrap_or(status::UNKNOWN);
    let mut ending = HeaderMap::new();
    if value.get("no_status").is_none() {
        ending.insert("grpc-status", HeaderValue::from(code));
        let text = value.get("status_message").and_then(Value::as_text).unwrap_or_default();
        if let (false, Ok(text)) = (text.is_empty(), HeaderValue::from_str(&codec::message_to_header(text))) {
            ending.insert("grpc-message", text);
        }
    }
    put_metadata(value.get("trailers"), &mut ending);
    let apart = !body.is_empty() || value.get("trailers").is_some();
    let trailers = if apart {
        Some(ending)
    } else {
        headers.extend(ending);
        None
    };
    let http_status = int("http_status").and_then(|s| u16::try_from(s).ok()).unwrap_or(200);
    Ok(Wire { http_status, headers, body, trailers })
}
