//! The server side: gRPC with what a responder says; health and reflection by ourselves.
//!
//! Contract: a call is handed over when the asker has ended its half. Calls are answered as
//! their answers come; one that is cut ends the connection.
//! Not modelled: conversations in which the asker waits for an answer before it ends its half
//! (reflection and health excepted); compression of our own.

use super::message::Schema;
use super::reflection;
use super::rules;
use super::wire::{CallError, METADATA_MAX, Outgoing, Tasks};
use super::{codec, status, value};
use crate::link::{Answer, Conversation, Link, Responder, Stream};
use crate::protocol::ProtocolError;
use crate::protocol::http::kept::Kept;
use bytes::{Bytes, BytesMut};
use faultbox_bundle_format::{Class, Value};
use http::HeaderMap;
use http::header::HeaderValue;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use prost_reflect::{MessageDescriptor, MethodDescriptor};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Serves one connection.
pub async fn serve(
    client: Stream,
    link: Arc<Link>,
    responder: Arc<dyn Responder>,
) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let tasks = Tasks::default();
    let _guard = tasks.guard();
    let conversation = responder.converse(&link.source, connection);
    let schema = link.options.descriptors.as_ref().and_then(|d| Schema::shared(d));
    let server_side = Arc::new(Server {
        link,
        connection,
        conversation,
        schema,
        tasks: tasks.clone(),
        end: Ending::default(),
    });
    let service = {
        let server_side = server_side.clone();
        hyper::service::service_fn(move |request| {
            let server_side = server_side.clone();
            async move { server_side.call(request).await }
        })
    };
    let serving = server(tasks).serve_connection(TokioIo::new(client), service);
    tokio::select! {
        served = serving => served.map_err(|error| ProtocolError::Malformed(error.to_string())),
        error = server_side.end.wait() => Err(error),
    }
}

fn server(tasks: Tasks) -> hyper::server::conn::http2::Builder<Tasks> {
    let mut builder = hyper::server::conn::http2::Builder::new(tasks);
    builder.auto_date_header(false).max_concurrent_streams(None).max_header_list_size(METADATA_MAX);
    // Clients under test give up on many calls at once: that is no attack here.
    builder.max_pending_accept_reset_streams(1 << 16).max_local_error_reset_streams(None);
    builder
}

/// Why a connection is ended from within one of its calls.
#[derive(Default)]
struct Ending {
    error: Mutex<Option<ProtocolError>>,
    set: Notify,
}

impl Ending {
    /// Ends the connection; the call that asks for it never returns.
    async fn end<T>(&self, error: ProtocolError) -> T {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.set.notify_one();
        std::future::pending().await
    }

    /// Waits for the end.
    async fn wait(&self) -> ProtocolError {
        self.set.notified().await;
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(ProtocolError::Cut)
    }
}

struct Server {
    link: Arc<Link>,
    connection: u64,
    conversation: Arc<dyn Conversation>,
    schema: Option<Arc<Schema>>,
    tasks: Tasks,
    end: Ending,
}

type Answered = Result<http::Response<Outgoing>, CallError>;

impl Server {
    async fn call(self: Arc<Self>, request: http::Request<Incoming>) -> Answered {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        if rules::is_control(&path) {
            return self.control(&path, &parts.headers, body).await;
        }
        let method = self.schema.as_ref().and_then(|schema| schema.method(&path));
        let request = rules::request(&path, &parts.headers, &arrived(body).await?, method.as_ref());
        let class = request.class;
        let output = method.as_ref().map(MethodDescriptor::output);
        match self.link.converse(self.connection, &*self.conversation, request).await {
            Answer::Reply(answer) => match response(&answer, output.as_ref()) {
                Ok(response) => Ok(response),
                Err(error) => self.end.end(ProtocolError::Malformed(error.to_string())).await,
            },
            Answer::Unknown if class != Class::Work => {
                response(&value::error(status::UNIMPLEMENTED, "not served here"), None)
            }
            Answer::Cut | Answer::Unknown | Answer::Nothing | Answer::Silence => {
                self.end.end(ProtocolError::Cut).await
            }
        }
    }

    /// Health and reflection.
    async fn control(self: Arc<Self>, path: &str, headers: &HeaderMap, body: Incoming) -> Answered {
        let note = |body: &Kept, answer: &Value| {
            let request = rules::request(path, headers, body, None);
            self.link.receive(self.connection, request).answered(answer);
        };
        if reflection::METHODS.contains(&path) {
            let Some(schema) = self.schema.clone() else {
                let answer = value::error(status::UNIMPLEMENTED, "there are no descriptors to reflect");
                note(&Kept::default(), &answer);
                return response(&answer, None);
            };
            note(&Kept::default(), &value::error(status::OK, ""));
            let (sender, receiver) = tokio::sync::mpsc::channel(4);
            self.tasks.start(reflect(body, schema, sender));
            let mut response = http::Response::new(Outgoing::Made(receiver));
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            return Ok(response);
        }
        let kept = arrived(body).await?;
        let known = self.knows(&kept);
        let watch = path.ends_with("/Watch");
        let answer = match path.rsplit('/').next() {
            Some("Check") if known => value::success(None, &[SERVING.to_vec()]),
            Some("Check") => value::error(status::NOT_FOUND, "unknown service"),
            Some("Watch") => value::success(None, &[if known { SERVING } else { SERVICE_UNKNOWN }.to_vec()]),
            _ => value::error(status::UNIMPLEMENTED, &format!("{path} is not served here")),
        };
        note(&kept, &answer);
        let response = response(&answer, None)?;
        Ok(response.map(|body| match body {
            // A watch goes on until the asker ends it.
            Outgoing::Whole(mut frames) if watch => {
                frames.truncate(1);
                Outgoing::Open(frames)
            }
            other => other,
        }))
    }

    /// Whether the service that a health check names is one of ours.
    fn knows(&self, request: &Kept) -> bool {
        let frames = codec::decode_all(request.whole().unwrap_or_default()).unwrap_or_default();
        let asked = frames.first().map(|frame| reflection::HealthCheckRequest::of(&frame.data));
        match (&self.schema, asked) {
            (Some(schema), Some(asked)) if !asked.service.is_empty() => {
                schema.pool().get_service_by_name(&asked.service).is_some()
            }
            _ => true,
        }
    }
}

/// `HealthCheckResponse { status: SERVING }`.
const SERVING: &[u8] = &[0x08, 1];
/// `HealthCheckResponse { status: SERVICE_UNKNOWN }`.
const SERVICE_UNKNOWN: &[u8] = &[0x08, 3];

/// A response value as a response.
fn response(answer: &Value, output: Option<&MessageDescriptor>) -> Answered {
    let wire = value::response_from(output, answer)?;
    let mut response = http::Response::new(Outgoing::whole(wire.body.freeze(), wire.trailers));
    *response.status_mut() = http::StatusCode::from_u16(wire.http_status)?;
    *response.headers_mut() = wire.headers;
    Ok(response)
}

/// Waits for all of a request, and keeps no more of it than [`Kept`] does.
async fn arrived(mut body: Incoming) -> Result<Kept, CallError> {
    let mut kept = Kept::default();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            kept.push(data);
        }
    }
    Ok(kept)
}

/// Answers the questions of one reflection stream as they arrive.
async fn reflect(mut body: Incoming, schema: Arc<Schema>, sender: tokio::sync::mpsc::Sender<Frame<Bytes>>) {
    let mut decoder = codec::Decoder::default();
    let mut code = status::OK;
    'stream: while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        decoder.push(data);
        loop {
            match decoder.next_frame() {
                Ok(Some(question)) => {
                    let data = reflection::answer(&schema, &question.data).into();
                    let mut out = BytesMut::new();
                    codec::encode(&codec::Frame { compressed: false, data }, &mut out);
                    if sender.send(Frame::data(out.freeze())).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    code = status::INTERNAL;
                    break 'stream;
                }
            }
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    let _ = sender.send(Frame::trailers(trailers)).await;
}
