//! Step verbs: one request on a connection of its own.
//!
//! Contract: redirects are not followed, nothing is retried, every status is an answer. A
//! request that cannot be written as given is refused before anything is sent.

use super::codec::{self, BodyReader, ResponseHead, response_head};
use super::json;
use super::value;
use super::wire::{Inbox, Side, invalid};
use crate::link::{Dial, Link, Stream};
use crate::protocol::{Parameter, ProtocolError, Verb};
use crate::step::{StepCall, StepResponse};
use crate::virtual_time::Time;
use faultbox_bundle_format::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Longest body that a step takes in.
const BODY_MAX: usize = 64 << 20;

const fn optional(name: &'static str) -> Parameter {
    Parameter { name, required: false }
}

const PARAMETERS: &[Parameter] =
    &[optional("path"), optional("headers"), optional("body"), optional("json"), optional("query")];

const fn verb(name: &'static str, doc: &'static str) -> Verb {
    Verb { name, parameters: PARAMETERS, doc }
}

/// The verbs.
pub const VERBS: &[Verb] = &[
    verb("get", "sends a GET request"),
    verb("post", "sends a POST request"),
    verb("put", "sends a PUT request"),
    verb("patch", "sends a PATCH request"),
    verb("delete", "sends a DELETE request"),
    verb("head", "sends a HEAD request"),
    verb("options", "sends an OPTIONS request"),
];

/// Performs a step.
pub async fn step(dial: Arc<dyn Dial>, link: Arc<Link>, call: &StepCall) -> StepResponse {
    let began = link.journal().clock().now_ns();
    let work = async {
        let request = match request(call, &link.advertised) {
            Ok(request) => request,
            Err(problem) => return StepResponse::no_answer(problem),
        };
        match ask(&*dial, &request, &call.verb.to_ascii_uppercase()).await {
            Ok((head, body)) => response(&head, body),
            Err(error) => StepResponse::no_answer(words(&error)),
        }
    };
    let mut response = within(link.time(), call.timeout, work).await;
    response.duration = Duration::from_nanos(link.journal().clock().now_ns().saturating_sub(began));
    response
}

/// Runs a step within its time, if it has one.
pub async fn within(
    time: &Time,
    timeout: Option<Duration>,
    step: impl Future<Output = StepResponse>,
) -> StepResponse {
    let Some(timeout) = timeout else { return step.await };
    match time.timeout(timeout, step).await {
        Ok(response) => response,
        Err(_) => StepResponse {
            timed_out: true,
            ..StepResponse::no_answer(format!("no answer within {} ms", timeout.as_millis()))
        },
    }
}

/// An I/O error in words that do not depend on the host.
pub fn words(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            "connection reset".to_owned()
        }
        ErrorKind::UnexpectedEof => "connection closed before an answer".to_owned(),
        _ => error.to_string(),
    }
}

async fn ask(dial: &dyn Dial, request: &[u8], method: &str) -> std::io::Result<(ResponseHead, Vec<u8>)> {
    let Side { mut read, mut write } = Side::new(dial.dial().await?);
    let sending = async {
        // A server may answer and close before it has read everything: its answer counts.
        let _ = write.write_all(request).await;
        let _ = write.flush().await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        answer = take_response(&mut read, method) => answer,
        () = sending => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Takes a final response off the wire.
///
/// # Errors
/// When the connection fails or ends early, or what arrives is no HTTP/1.
pub async fn take_response(read: &mut Inbox, method: &str) -> std::io::Result<(ResponseHead, Vec<u8>)> {
    let head = loop {
        match response_head(&read.buffer).map_err(invalid)? {
            Some(head) => {
                let _ = read.buffer.split_to(head.len);
                if head.status >= 200 || head.status == 101 {
                    break head;
                }
            }
            None => {
                if !read.more().await? {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    };
    let mut body = BodyReader::new(codec::response_framing(method, &head).map_err(invalid)?);
    let mut data = Vec::new();
    loop {
        let used = body.feed(&mut read.buffer, &mut |d| data.extend_from_slice(d)).map_err(invalid)?;
        let _ = read.buffer.split_to(used);
        if body.done() {
            return Ok((head, data));
        }
        if data.len() > BODY_MAX {
            return Err(std::io::Error::other(format!("the body is longer than {BODY_MAX} bytes")));
        }
        if !read.more().await? {
            let whole = body.ends_with_connection();
            return if whole { Ok((head, data)) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

fn request(call: &StepCall, host: &str) -> Result<Vec<u8>, String> {
    let method = call.verb.to_ascii_uppercase();
    let path = match call.argument("path").map(Value::bare) {
        None | Some(Value::Null) => "/".to_owned(),
        Some(path) => path.as_text().ok_or("path is not a string")?.to_owned(),
    };
    let path = if path.starts_with('/') || path == "*" { path } else { format!("/{path}") };
    let mut target = escape(&path, PATH);
    if let Some(query) = query(call.argument("query"))? {
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(&query);
    }
    let (body, is_json) = match (call.argument("json"), call.argument("body")) {
        (Some(_), Some(body)) if *body.bare() != Value::Null => {
            return Err("give json or body, not both".to_owned());
        }
        (Some(tree), _) => (json::print(tree).into_bytes(), true),
        (None, body) => value::body_bytes(body)?,
    };
    let headers = call.argument("headers").map(Value::bare);
    if !matches!(headers, None | Some(Value::Null | Value::Map(_))) {
        return Err("headers is not a dict".to_owned());
    }
    let fields = headers.and_then(Value::as_map).unwrap_or_default();
    if let Some((name, _)) = fields.iter().find(|(name, value)| !sendable(name, value)) {
        return Err(format!("header {name:?} cannot be sent as given"));
    }
    let given = |name: &str| fields.iter().any(|(k, _)| k.eq_ignore_ascii_case(name));
    let mut out = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    for (name, value) in [("host", host), ("user-agent", "faultbox"), ("accept", "*/*")] {
        if !given(name) {
            value::put_header(&mut out, name, value.as_bytes());
        }
    }
    value::put_headers(&mut out, headers, &["content-length", "transfer-encoding"]);
    if is_json && !given("content-type") {
        value::put_header(&mut out, "content-type", b"application/json");
    }
    if !body.is_empty() || matches!(method.as_str(), "POST" | "PUT" | "PATCH") {
        value::put_header(&mut out, "content-length", body.len().to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body);
    Ok(out)
}

fn sendable(name: &str, value: &Value) -> bool {
    let mut line = Vec::new();
    value::put_headers(&mut line, Some(&Value::map([(name, value.clone())])), &[]);
    !line.is_empty() || value.as_list().is_some_and(<[Value]>::is_empty)
}

const PATH: &[u8] = b"-._~!$&'()*+,;=:@/?%[]";
const QUERY: &[u8] = b"-._~";

fn escape(text: &str, keep: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || keep.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn query(query: Option<&Value>) -> Result<Option<String>, String> {
    match query.map(Value::bare) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => Ok(Some(escape(text.trim_start_matches('?'), PATH))),
        Some(Value::Map(fields)) => {
            let mut pairs = Vec::new();
            for (name, value) in fields {
                for value in value.as_list().unwrap_or(std::slice::from_ref(value)) {
                    let text = value.as_text().map_or_else(|| json::print(value), str::to_owned);
                    pairs.push(format!("{}={}", escape(name, QUERY), escape(&text, QUERY)));
                }
            }
            Ok((!pairs.is_empty()).then(|| pairs.join("&")))
        }
        Some(_) => Err("query is neither a dict nor a string".to_owned()),
    }
}

fn response(head: &ResponseHead, body: Vec<u8>) -> StepResponse {
    let headers = head.headers.0.iter();
    StepResponse {
        ok: (200..400).contains(&head.status),
        status: i64::from(head.status),
        headers: headers.map(|(k, v)| (k.clone(), String::from_utf8_lossy(v).into_owned())).collect(),
        data: json::parse(&body).unwrap_or_default(),
        body,
        error: None,
        timed_out: false,
        duration: Duration::ZERO,
    }
}

/// Whether an HTTP server answers at all.
///
/// # Errors
/// When no answer comes.
pub async fn ready(stream: Stream, link: &Link) -> Result<(), ProtocolError> {
    let Side { mut read, mut write } = Side::new(stream);
    let request = format!(
        "HEAD / HTTP/1.1\r\nhost: {}\r\nuser-agent: faultbox\r\nconnection: close\r\n\r\n",
        link.advertised
    );
    write.write_all(request.as_bytes()).await?;
    write.flush().await?;
    take_response(&mut read, "HEAD").await?;
    Ok(())
}
