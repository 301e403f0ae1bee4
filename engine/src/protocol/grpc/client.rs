//! The step verb: one call on a connection of its own, typed by descriptors.
//!
//! Contract: descriptors are those of the interface, else what the server's reflection says.
//! Every status is an answer; a message that does not fit is refused before anything is sent.

use super::codec::{self, Frame};
use super::message::{self, Schema};
use super::reflection;
use super::wire::{CallError, METADATA_MAX, Outgoing, Tasks};
use super::{status, value};
use crate::link::{Dial, Link, Stream};
use crate::protocol::http::client::{within, words};
use crate::protocol::http::json;
use crate::protocol::{Parameter, ProtocolError, Verb};
use crate::step::{StepCall, StepResponse};
use bytes::BytesMut;
use faultbox_bundle_format::Value;
use http::HeaderMap;
use http::header::HeaderValue;
use http_body_util::BodyExt;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use prost::Message;
use prost_reflect::MethodDescriptor;
use std::sync::Arc;
use std::time::Duration;

/// Longest response that a step takes in.
const BODY_MAX: usize = 64 << 20;

/// The verbs.
pub const VERBS: &[Verb] = &[Verb {
    name: "call",
    parameters: &[
        Parameter { name: "method", required: true },
        Parameter { name: "message", required: false },
        Parameter { name: "metadata", required: false },
    ],
    doc: "calls a method with a message (a dict; a list for a stream)",
}];

/// Performs a step.
pub async fn step(dial: Arc<dyn Dial>, link: Arc<Link>, call: &StepCall) -> StepResponse {
    let began = link.journal().clock().now_ns();
    let work = async {
        match perform(&*dial, &link, call).await {
            Ok(response) => response,
            Err(error) => StepResponse::no_answer(described(&error)),
        }
    };
    let mut response = within(link.time(), call.timeout, work).await;
    response.duration = Duration::from_nanos(link.journal().clock().now_ns().saturating_sub(began));
    response
}

fn described(error: &CallError) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return words(io);
        }
        cause = error.source();
    }
    match std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>()) {
        Some(error) if error.is_closed() || error.is_canceled() => {
            "connection closed before an answer".to_owned()
        }
        _ => error.to_string(),
    }
}

struct Connection {
    sender: SendRequest<Outgoing>,
    authority: String,
}

async fn connect(stream: Stream, tasks: &Tasks) -> Result<SendRequest<Outgoing>, CallError> {
    let mut builder = hyper::client::conn::http2::Builder::new(tasks.clone());
    builder.max_header_list_size(METADATA_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // How it ended is seen by the calls that were on it.
    tasks.start(connection);
    Ok(sender)
}

/// What a call came to.
struct Outcome {
    status: u16,
    headers: HeaderMap,
    body: BytesMut,
    trailers: Option<HeaderMap>,
}

async fn perform(dial: &dyn Dial, link: &Link, call: &StepCall) -> Result<StepResponse, CallError> {
    let path = call.argument("method").and_then(Value::as_text).ok_or("method is not a string")?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut headers = HeaderMap::new();
    value::put_metadata(call.argument("metadata"), &mut headers);
    let stream = dial.dial().await?;
    let tasks = Tasks::default();
    let _guard = tasks.guard();
    let sender = connect(stream, &tasks).await?;
    let mut connection = Connection { sender, authority: link.advertised.clone() };
    let schema = match link.options.descriptors.as_ref().and_then(|d| Schema::shared(d)) {
        Some(schema) => schema,
        None => Arc::new(connection.reflect(&path).await?),
    };
    let method = schema.require(&path)?;
    let body = request_body(&method, call.argument("message"))?;
    let outcome = connection.call(&path, headers, body).await?;
    response(&method, outcome)
}

fn request_body(method: &MethodDescriptor, given: Option<&Value>) -> Result<BytesMut, String> {
    let empty = Value::Map(Vec::new());
    let given = given.filter(|given| *given.bare() != Value::Null).unwrap_or(&empty);
    let messages = match given.as_list() {
        Some(_) if !method.is_client_streaming() => {
            return Err(format!("{} takes one message, not a list", method.full_name()));
        }
        Some(messages) => messages,
        None => std::slice::from_ref(given),
    };
    let mut body = BytesMut::new();
    for given in messages {
        let data = message::from_value(&method.input(), given)?.into();
        codec::encode(&Frame { compressed: false, data }, &mut body);
    }
    Ok(body)
}

impl Connection {
    async fn call(&mut self, path: &str, metadata: HeaderMap, body: BytesMut) -> Result<Outcome, CallError> {
        let uri = format!("http://{}{path}", self.authority);
        let mut request = http::Request::post(uri).body(Outgoing::whole(body.freeze(), None))?;
        *request.version_mut() = http::Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert("user-agent", HeaderValue::from_static("grpc-faultbox"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.extend(metadata);
        let (parts, mut incoming) = self.sender.send_request(request).await?.into_parts();
        let (mut body, mut trailers) = (BytesMut::new(), None);
        while let Some(frame) = incoming.frame().await {
            match frame?.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if body.len() > BODY_MAX {
                return Err(format!("the answer is longer than {BODY_MAX} bytes").into());
            }
        }
        Ok(Outcome { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
    }

    /// Asks the server for the file that declares the method's service.
    async fn reflect(&mut self, path: &str) -> Result<Schema, CallError> {
        let symbol = path.trim_start_matches('/').rsplit_once('/').map(|(service, _)| service.to_owned());
        let question = reflection::Question { file_containing_symbol: symbol, ..Default::default() };
        let mut body = BytesMut::new();
        codec::encode(&Frame { compressed: false, data: question.encode_to_vec().into() }, &mut body);
        for method in reflection::METHODS {
            let outcome = self.call(method, HeaderMap::new(), body.clone()).await?;
            let Some(frame) = codec::decode_all(&outcome.body).unwrap_or_default().into_iter().next() else {
                continue;
            };
            let reply = reflection::Reply::decode(frame.data)?;
            let Some(files) = reply.files else {
                let why = reply.error.map(|e| e.message).unwrap_or_default();
                return Err(format!("the server's reflection does not know {path}: {why}").into());
            };
            let file = files.files.iter().map(|f| prost_types::FileDescriptorProto::decode(f.as_slice()));
            let set = prost_types::FileDescriptorSet { file: file.collect::<Result<_, _>>()? };
            return Ok(Schema::decode(&set.encode_to_vec())?);
        }
        Err("there are no descriptors, and the server offers no reflection".into())
    }
}

fn response(method: &MethodDescriptor, outcome: Outcome) -> Result<StepResponse, CallError> {
    let last = outcome.trailers.as_ref().unwrap_or(&outcome.headers);
    let code = last.get("grpc-status").and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<i64>().ok());
    let text = last.get("grpc-message").map(|v| codec::message_from_header(v.as_bytes()));
    let error = match code {
        Some(status::OK) => None,
        Some(code) => Some(format!("{}: {}", status::name(code), text.unwrap_or_default())),
        None => Some(format!("no grpc status (http status {})", outcome.status)),
    };
    let frames = codec::decode_all(&outcome.body)?;
    let output = method.output();
    let mut messages = Vec::new();
    for frame in &frames {
        if frame.compressed {
            return Err("the answer is compressed, which a step does not understand".into());
        }
        messages.push(
            message::to_readable(&output, &frame.data).ok_or("the answer does not fit the descriptors")?,
        );
    }
    let data =
        if method.is_server_streaming() { Value::List(messages) } else { messages.pop().unwrap_or_default() };
    let metadata = outcome.headers.iter().chain(outcome.trailers.iter().flatten());
    let headers =
        metadata.map(|(k, v)| (k.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()));
    Ok(StepResponse {
        ok: error.is_none(),
        status: code.unwrap_or(status::UNKNOWN),
        headers: headers.collect(),
        body: if data == Value::Null { Vec::new() } else { json::print(&data).into_bytes() },
        data,
        error,
        timed_out: false,
        duration: Duration::ZERO,
    })
}

/// Whether a gRPC server answers: its health service, or its word that it has none.
///
/// # Errors
/// When no gRPC answer comes, or it says that it does not serve.
pub async fn ready(stream: Stream, link: &Link) -> Result<(), ProtocolError> {
    let failed = |error: CallError| ProtocolError::Malformed(described(&error));
    let tasks = Tasks::default();
    let _guard = tasks.guard();
    let sender = connect(stream, &tasks).await.map_err(failed)?;
    let mut connection = Connection { sender, authority: link.advertised.clone() };
    let mut body = BytesMut::new();
    codec::encode(&Frame { compressed: false, data: Default::default() }, &mut body);
    let outcome = connection.call("/grpc.health.v1.Health/Check", HeaderMap::new(), body).await;
    let outcome = outcome.map_err(failed)?;
    let last = outcome.trailers.as_ref().unwrap_or(&outcome.headers);
    if !last.contains_key("grpc-status") {
        return Err(ProtocolError::Malformed("the answer is not gRPC".to_owned()));
    }
    let frames = codec::decode_all(&outcome.body).unwrap_or_default();
    match frames.first().map(|frame| frame.data.as_ref()) {
        Some([0x08, 2]) => Err(ProtocolError::Malformed("the health service says NOT_SERVING".to_owned())),
        _ => Ok(()),
    }
}
