//! Requests and responses as [`Value`]s, and back onto the wire.
//!
//! Contract: proxy and server build requests with [`request`]; every response value that the
//! proxy journals can be encoded again by [`encode`]. Shapes: a request has `method`, `path`,
//! `query` (where there is one), `headers`, `body` (where there is one); a response has
//! `status`, `reason`, `headers`, `body`. Header names are in lower case and sorted: across
//! names their order has no meaning. Lengths and transfer codings are left out and made anew.
//! Not modelled: trailers and multipart boundaries.

use super::codec::{self, Headers, RequestHead, ResponseHead};
use super::json;
use super::kept::Kept;
use crate::link::Request;
use faultbox_bundle_format::{Class, Value};

/// Headers that mean nothing beyond one connection, moment or library version.
const VOLATILE_ASKED: &[&str] = &["host", "user-agent", "date", "x-request-start", "content-length"];
const VOLATILE_ANSWERED: &[&str] = &[
    "date",
    "age",
    "expires",
    "last-modified",
    "server",
    "server-timing",
    "x-runtime",
    "x-response-time",
    "content-length",
];
/// Headers that belong to the framing of one hop.
const FRAMING: &[&str] = &["transfer-encoding", "expect", "trailer"];

/// Path and query of a target in any form.
fn split_target(target: &str) -> (&str, Option<&str>) {
    let path = match target.split_once("://") {
        // The absolute form, which proxies get.
        Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    }
}

/// The path with `{}` for every segment that identifies one thing among many.
pub fn template(path: &str) -> String {
    let mut template = String::with_capacity(path.len());
    for (at, segment) in path.split('/').enumerate() {
        template.push_str(if at > 0 { "/" } else { "" });
        template.push_str(if generated(segment) { "{}" } else { segment });
    }
    template
}

/// Numbers, UUIDs, hashes, and long tokens that mix letters and digits.
fn generated(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let hex = segment.bytes().filter(|b| b.is_ascii_hexdigit() || *b == b'-').count();
    let number = digits > 0 && segment.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b','));
    let hash = segment.len() >= 8 && hex == segment.len() && digits > 0;
    let token = segment.len() >= 16 && digits >= 4 && segment.bytes().all(|b| b.is_ascii_alphanumeric());
    number || hash || token
}

/// A request; `body` is missing while it has not passed yet.
pub fn request(head: &RequestHead, body: Option<&Kept>) -> Request {
    let (path, query) = split_target(&head.target);
    let host = head.headers.text("host").unwrap_or_default().to_owned();
    let bare_host = host.rsplit_once(':').map_or(host.clone(), |(host, _)| host.to_owned());
    let header = |(name, value): &(String, Vec<u8>)| format!("{name}: {}", String::from_utf8_lossy(value));
    let mut paths = vec![path.to_owned()];
    paths.extend(query.map(|query| format!("{path}?{query}")));
    Request {
        fields: vec![
            ("method", vec![head.method.clone()]),
            ("path", paths),
            ("host", vec![host, bare_host]),
            ("header", head.headers.0.iter().map(header).collect()),
        ],
        body: request_value(head, body),
        ..outline(head)
    }
}

/// A request without what rules look at, and without its body.
pub fn outline(head: &RequestHead) -> Request {
    let (path, _) = split_target(&head.target);
    let reads = matches!(head.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE");
    let idempotent = reads || matches!(head.method.as_str(), "PUT" | "DELETE");
    Request {
        operation: [&head.method, " ", path].concat().into(),
        key: [&head.method, " ", &template(path)].concat(),
        fields: Vec::new(),
        class: Class::Work,
        works: true,
        mutating: !reads,
        repeatable: idempotent,
        body: Value::Null,
    }
}

/// The value of a request ([`request`]).
pub fn request_value(head: &RequestHead, body: Option<&Kept>) -> Value {
    let (path, query) = split_target(&head.target);
    let mut fields =
        vec![("method".to_owned(), Value::text(head.method.clone())), ("path".to_owned(), Value::text(path))];
    fields.extend(query.map(|query| ("query".to_owned(), Value::text(query))));
    fields.push(("headers".to_owned(), headers(&head.headers, VOLATILE_ASKED, false)));
    fields.extend(body.filter(|body| !body.is_empty()).map(|body| ("body".to_owned(), body.value())));
    Value::Map(fields)
}

/// The value of a response to a request with this method.
pub fn response(method: &str, head: &ResponseHead, body: &Kept) -> Value {
    let bodiless = !codec::has_body(method, head.status);
    let mut fields = vec![
        ("status".to_owned(), Value::Int(i64::from(head.status))),
        ("reason".to_owned(), Value::text(head.reason.clone()).volatile()),
        ("headers".to_owned(), headers(&head.headers, VOLATILE_ANSWERED, bodiless)),
    ];
    if !body.is_empty() {
        fields.push(("body".to_owned(), body.value()));
    }
    Value::Map(fields)
}

/// `with_length`: a response without body whose length is that of another one (HEAD, 304).
fn headers(headers: &Headers, volatile: &[&str], with_length: bool) -> Value {
    let mut fields = Vec::new();
    for (name, value) in &headers.0 {
        let length = name == "content-length" && !with_length;
        if length || FRAMING.contains(&name.as_str()) {
            continue;
        }
        let text = Value::text_or_bytes(value);
        let text = if volatile.contains(&name.as_str()) { text.volatile() } else { text };
        fields.push((name.clone(), text));
    }
    fields.sort_by(|(a, _): &(String, Value), (b, _)| a.cmp(b));
    Value::Map(fields)
}

/// The bytes of a body value; a tree becomes JSON. The flag says that it did.
///
/// # Errors
/// When the body was too large to be kept.
pub fn body_bytes(body: Option<&Value>) -> Result<(Vec<u8>, bool), String> {
    match body.map(Value::bare) {
        None | Some(Value::Null) => Ok((Vec::new(), false)),
        Some(value) if value.get("omitted_bytes").is_some() => {
            Err("the body was too long and was not kept".to_owned())
        }
        Some(value) => match value.as_bytes() {
            Some(bytes) => Ok((bytes.to_vec(), false)),
            None => Ok((json::print(value).into_bytes(), true)),
        },
    }
}

/// Writes one header line; what would break the head is left out.
pub fn put_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    if name.is_empty() || name.bytes().any(|b| b == b':' || b <= b' ') || value.iter().any(breaks) {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the headers of a map; a list is a header that is sent several times.
pub fn put_headers(out: &mut Vec<u8>, headers: Option<&Value>, except: &[&str]) {
    for (name, value) in headers.and_then(Value::as_map).unwrap_or_default() {
        if except.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            continue;
        }
        for value in value.as_list().unwrap_or(std::slice::from_ref(value)) {
            match value.as_bytes() {
                Some(bytes) => put_header(out, name, bytes),
                None => put_header(out, name, json::print(value).as_bytes()),
            }
        }
    }
}

/// A response value on the wire, in answer to a request with this method; and whether the
/// server closes after it.
///
/// # Errors
/// When the value cannot be sent (no status, an upgrade, a body that was not kept).
pub fn encode(method: &str, response: &Value) -> Result<(Vec<u8>, bool), String> {
    let status = response.get("status").and_then(Value::as_int);
    let status = status.and_then(|s| u16::try_from(s).ok()).filter(|s| (200..1000).contains(s));
    let status = status.ok_or("a response needs a status from 200 up (upgrades cannot be served)")?;
    let (body, is_json) = body_bytes(response.get("body"))?;
    let reason = response.get("reason").and_then(Value::as_text).filter(|r| !r.contains(['\r', '\n']));
    let standard = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    let reason = reason.or(standard).unwrap_or_default();
    let mut out = format!("HTTP/1.1 {status} {reason}\r\n").into_bytes();
    let headers = response.get("headers");
    let has_body = codec::has_body(method, status);
    let framing: &[&str] = if has_body || status == 204 {
        &["content-length", "transfer-encoding", "trailer"]
    } else {
        &["transfer-encoding", "trailer"]
    };
    put_headers(&mut out, headers, framing);
    let given = |name: &str| {
        let fields = headers.and_then(Value::as_map).unwrap_or_default();
        fields.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).and_then(|(_, v)| v.as_text())
    };
    if is_json && given("content-type").is_none() {
        put_header(&mut out, "content-type", b"application/json");
    }
    if has_body {
        put_header(&mut out, "content-length", body.len().to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    if has_body {
        out.extend_from_slice(&body);
    }
    Ok((out, given("connection").is_some_and(|c| c.to_ascii_lowercase().contains("close"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_no_generated_values() {
        for (path, wanted) in [
            ("/orders", "/orders"),
            ("/orders/17/items/", "/orders/{}/items/"),
            ("/o/9f8b2c1e-3f6a-4a51-9d1c-2f6f3f1f7c11", "/o/{}"),
            ("/blob/deadbeef42", "/blob/{}"),
            ("/v1/.well-known/jwks.json", "/v1/.well-known/jwks.json"),
            ("/t/01HZX5J8K2QW3E4R5T6Y7U8I9O", "/t/{}"),
            ("/facade/defaced", "/facade/defaced"),
        ] {
            assert_eq!(template(path), wanted);
        }
        assert_eq!(split_target("http://h:1/a?b=/c"), ("/a", Some("b=/c")));
        assert_eq!(split_target("/a?u=http://x/"), ("/a", Some("u=http://x/")));
    }

    #[test]
    fn a_response_with_injected_lines_stays_one_response() {
        let headers = Value::map([("x\r\ny", Value::text("1")), ("z", Value::text("a\r\nb: c"))]);
        let (wire, _) =
            encode("GET", &Value::map([("status", Value::Int(200)), ("headers", headers)])).unwrap();
        assert_eq!(wire, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }
}
