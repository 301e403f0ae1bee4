//! The way through: HTTP/2 on both sides, call by call.
//!
//! Contract: metadata, messages, trailers, deadlines, cancellation and flow control pass in
//! both directions; streams pass while they go on. A unary request (by its descriptor) is
//! complete before rules see it; any other is asked about when its metadata has arrived. One
//! connection of a client is one connection to the server, and ends with it.
//! Not modelled: HTTP/1 on this protocol (passes undecoded), server push, CONNECT.

use super::message::Schema;
use super::rules;
use super::settle::{Gathering, Streams, settled};
use super::value;
use super::wire::{CallError, Inbound, METADATA_MAX, Ongoing, Outbound, Passing, Tasks, sniff};
use crate::fault::rule::Effect;
use crate::link::{Dial, Io, Link, Pending, Stream};
use crate::protocol::ProtocolError;
use crate::protocol::http::kept::{KEPT_MAX, Kept};
use crate::protocol::http::proxy::undecodable;
use crate::protocol::http::rules::pause;
use bytes::Bytes;
use faultbox_bundle_format::Value;
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use prost_reflect::{MessageDescriptor, MethodDescriptor};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Carries one connection.
pub async fn proxy(client: Stream, dial: Arc<dyn Dial>, link: Arc<Link>) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let (client, speaks) = sniff(client).await?;
    if !speaks {
        return splice(client, &*dial, &link, connection).await;
    }
    let streams = Streams::default();
    let client = streams.gather(client);
    settled(carry(client, dial, link, connection, streams.clone()), streams).await
}

async fn carry(
    client: Gathering,
    dial: Arc<dyn Dial>,
    link: Arc<Link>,
    connection: u64,
    streams: Streams,
) -> Result<(), ProtocolError> {
    let (tasks, mut crew) = Tasks::within();
    let schema = link.options.descriptors.as_ref().and_then(|d| Schema::shared(d));
    let carrier = Arc::new(Carrier {
        link,
        connection,
        dial,
        schema,
        tasks: tasks.clone(),
        upstream: tokio::sync::Mutex::new(None),
        streams,
        end: Ending::default(),
        gone: Arc::default(),
    });
    let service = {
        let carrier = carrier.clone();
        hyper::service::service_fn(move |request| {
            let carrier = carrier.clone();
            async move { carrier.call(request).await }
        })
    };
    let server = server(tasks).serve_connection(TokioIo::new(client), service);
    tokio::pin!(server);
    let mut ending = false;
    loop {
        tokio::select! {
            // A client that breaks off its connection is no failure of the proxy's.
            _ = &mut server => return Ok(()),
            () = crew.work() => {}
            error = carrier.end.wait() => return Err(error),
            () = carrier.gone.notified(), if !ending => {
                server.as_mut().graceful_shutdown();
                ending = true;
            }
        }
    }
}

/// Settings of our server side.
pub fn server(tasks: Tasks) -> hyper::server::conn::http2::Builder<Tasks> {
    let mut builder = hyper::server::conn::http2::Builder::new(tasks);
    builder.auto_date_header(false).max_concurrent_streams(None).max_header_list_size(METADATA_MAX);
    // Clients under test give up on many calls at once: that is no attack here.
    builder.max_pending_accept_reset_streams(1 << 16).max_local_error_reset_streams(None);
    builder
}

/// Opens our client side.
///
/// # Errors
/// When the other side does not speak HTTP/2.
pub async fn connect(
    stream: impl Io + 'static,
    tasks: &Tasks,
    gone: Arc<Notify>,
) -> Result<SendRequest<Outbound>, CallError> {
    let mut builder = hyper::client::conn::http2::Builder::new(tasks.clone());
    builder.max_header_list_size(METADATA_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tasks.start(async move {
        // How it ended is seen by the calls that were on it.
        let _ = connection.await;
        gone.notify_one();
    });
    Ok(sender)
}

/// Why a connection is ended from within one of its calls.
#[derive(Default)]
pub struct Ending {
    error: Mutex<Option<ProtocolError>>,
    set: Notify,
}

impl Ending {
    /// Ends the connection; the call that asks for it never returns.
    pub async fn end<T>(&self, error: ProtocolError) -> T {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.set.notify_one();
        std::future::pending().await
    }

    /// Waits for the end.
    pub async fn wait(&self) -> ProtocolError {
        self.set.notified().await;
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(ProtocolError::Cut)
    }
}

struct Carrier {
    link: Arc<Link>,
    connection: u64,
    dial: Arc<dyn Dial>,
    schema: Option<Arc<Schema>>,
    tasks: Tasks,
    upstream: tokio::sync::Mutex<Option<SendRequest<Outbound>>>,
    streams: Streams,
    end: Ending,
    gone: Arc<Notify>,
}

type Answered = Result<http::Response<Inbound>, CallError>;

impl Carrier {
    async fn call(self: Arc<Self>, request: http::Request<Incoming>) -> Answered {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let method = self.schema.as_ref().and_then(|schema| schema.method(&path));
        let mut request = Arriving::new(body);
        if method.as_ref().is_some_and(|m| !m.is_client_streaming()) {
            request.whole().await?;
        }
        let asked = match self.link.watched() {
            true => rules::request(&path, &parts.headers, &request.kept(), method.as_ref()),
            false => rules::outline(&path, method.as_ref()),
        };
        let mut pending = self.link.ask(self.connection, asked);
        let effect = pending.firing().map(|firing| firing.effect.clone());
        let acts = matches!(effect, Some(Effect::Drop | Effect::Error(_) | Effect::Respond(_)));
        if acts {
            if method.is_none() {
                // Without descriptors it may well be unary: a replay sees the whole request.
                request.whole().await?;
            }
            let input = method.as_ref().map(MethodDescriptor::input);
            pending.revise(value::request(&path, &parts.headers, &request.kept(), input.as_ref()));
        }
        let output = method.as_ref().map(MethodDescriptor::output);
        match &effect {
            Some(Effect::Drop) => {
                pending.dropped();
                self.end.end(ProtocolError::Cut).await
            }
            Some(Effect::Error(fields)) => {
                let answer = rules::answer(fields, true, output.as_ref());
                self.by_rule(pending, answer, pause(fields), output).await
            }
            Some(Effect::Respond(fields)) => {
                let answer = rules::answer(fields, false, output.as_ref());
                self.by_rule(pending, answer, pause(fields), output).await
            }
            _ => {
                let input = method.as_ref().map(MethodDescriptor::input);
                let (kept, asked) = (request.kept.clone(), parts.headers.clone());
                pending.revise_at_close(Box::new(move || {
                    let kept = Kept::taken(&kept);
                    Box::new(move || value::request(&path, &asked, &kept, input.as_ref()))
                }));
                let exchange = Ongoing { pending, output };
                self.forward(parts, request.outbound(), exchange, effect).await
            }
        }
    }

    async fn by_rule(
        &self,
        pending: Pending,
        answer: Value,
        pause: Option<std::time::Duration>,
        output: Option<MessageDescriptor>,
    ) -> Answered {
        let response = response(&answer, output.as_ref())?;
        if let Some(pause) = pause {
            self.link.pause(pause).await;
        }
        pending.answered(&answer);
        Ok(response)
    }

    async fn forward(
        &self,
        parts: Parts,
        body: Outbound,
        exchange: Ongoing,
        effect: Option<Effect>,
    ) -> Answered {
        let mut upstream = match self.upstream().await {
            Ok(upstream) => upstream,
            Err(error) => {
                exchange.pending.failed(&format!("cannot connect: {error}"));
                return self.end.end(ProtocolError::Io(std::io::Error::other(error))).await;
            }
        };
        let mut request = http::Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = parts.uri;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = parts.headers;
        let response = match upstream.send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                exchange.pending.failed(&error.to_string());
                return Err(error.into());
            }
        };
        if let Some(Effect::Delay(pause)) = effect {
            self.link.pause(pause).await;
        }
        let (parts, incoming) = response.into_parts();
        let mut passing = Passing {
            exchange: Some(exchange),
            status: parts.status.as_u16(),
            headers: parts.headers.clone(),
            kept: Kept::default(),
            incoming,
        };
        if passing.incoming.is_end_stream() {
            passing.end(None);
        }
        Ok(http::Response::from_parts(parts, Inbound::Passing(Box::new(passing))))
    }

    /// The connection to the server, opened by the first call that needs it.
    async fn upstream(&self) -> Result<SendRequest<Outbound>, CallError> {
        let mut upstream = self.upstream.lock().await;
        if let Some(sender) = &*upstream {
            return Ok(sender.clone());
        }
        let stream = self.dial.dial().await?;
        let stream = self.streams.gather(stream);
        let sender = connect(stream, &self.tasks, self.gone.clone()).await?;
        *upstream = Some(sender.clone());
        Ok(sender)
    }
}

/// A response value as a response.
///
/// # Errors
/// When its messages cannot be encoded.
pub fn response(answer: &Value, output: Option<&MessageDescriptor>) -> Answered {
    let wire = value::response_from(output, answer)?;
    let mut response = http::Response::new(Inbound::whole(wire.body.freeze(), wire.trailers));
    *response.status_mut() = http::StatusCode::from_u16(wire.http_status)?;
    *response.headers_mut() = wire.headers;
    Ok(response)
}

/// A request's body as it arrives.
pub struct Arriving {
    frames: VecDeque<Frame<Bytes>>,
    body: Option<Incoming>,
    /// What of it is kept.
    pub kept: Arc<Mutex<Kept>>,
}

impl Arriving {
    /// A body of which nothing has arrived.
    pub fn new(body: Incoming) -> Self {
        Arriving { frames: VecDeque::new(), body: Some(body), kept: Arc::default() }
    }

    /// Waits for all of it, or for more than is kept.
    ///
    /// # Errors
    /// When the asker breaks off.
    pub async fn whole(&mut self) -> Result<(), CallError> {
        while let Some(body) = &mut self.body {
            match body.frame().await {
                None => self.body = None,
                Some(frame) => {
                    let frame = frame?;
                    if let Some(data) = frame.data_ref() {
                        self.kept().push(data);
                    }
                    self.frames.push_back(frame);
                    if self.kept().len() > KEPT_MAX as u64 {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits for all of it and keeps no more than [`Kept`] does.
    ///
    /// # Errors
    /// When the asker breaks off.
    pub async fn consume(&mut self) -> Result<(), CallError> {
        while self.body.is_some() {
            self.whole().await?;
            self.frames.clear();
        }
        Ok(())
    }

    /// What of it is kept.
    pub fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbound(self) -> Outbound {
        Outbound::new(self.frames, self.body, self.kept)
    }
}

async fn splice(
    mut client: Stream,
    dial: &dyn Dial,
    link: &Arc<Link>,
    connection: u64,
) -> Result<(), ProtocolError> {
    let pending = link.ask(connection, undecodable());
    if matches!(pending.firing().map(|f| &f.effect), Some(Effect::Drop)) {
        pending.dropped();
        return Err(ProtocolError::Cut);
    }
    let mut upstream = match dial.dial().await {
        Ok(upstream) => upstream,
        Err(error) => {
            pending.failed(&format!("cannot connect: {error}"));
            return Err(error.into());
        }
    };
    pending.one_way();
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}
