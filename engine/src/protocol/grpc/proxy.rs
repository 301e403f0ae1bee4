//! The way through: HTTP/2 on both sides, call by call.
//!
//! Contract: metadata, messages, trailers, deadlines, cancellation and flow control pass in
//! both directions; streams pass while they go on. A unary request (by its descriptor) is
//! complete before rules see it; any other is asked about when its metadata has arrived. One
//! connection of a client is one connection to the server, and ends with it.
//! Not modelled: HTTP/1 on this protocol (passes undecoded), server push, CONNECT.

use super::message::Schema;
use super::passing::{Arriving, Broken, Passing, Piece, Seen, given_up, reason};
use super::rules;
use super::settle::{Gathering, Part, Streams, settled};
use super::value;
use super::wire::{METADATA_MAX, sniff};
use crate::fault::rule::Effect;
use crate::link::{Dial, Link, Pending, Stream};
use crate::protocol::ProtocolError;
use crate::protocol::http::kept::{KEPT_MAX, Kept};
use crate::protocol::http::proxy::undecodable;
use crate::protocol::http::rules::pause;
use bytes::Bytes;
use faultbox_bundle_format::Value;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use prost_reflect::{MessageDescriptor, MethodDescriptor};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::OnceCell;

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
    let schema = link.options.descriptors.as_ref().and_then(|d| Schema::shared(d));
    let upstream = OnceCell::new();
    let carrier =
        Arc::new(Carrier { link, connection, dial, schema, upstream, opened: Mutex::default(), streams });
    // A client that breaks off its connection is no failure of the proxy's.
    let Ok(server) = server_settings().handshake(client).await else { return Ok(()) };
    let mut lines = Lines {
        server,
        accepting: Part::default(),
        calls: FuturesUnordered::new(),
        calling: Part::default(),
        upstream: None,
        forwarding: Part::default(),
    };
    let begin = |request, asker| carrier.clone().call(request, asker);
    poll_fn(|cx| lines.poll(cx, &carrier.opened, begin)).await
}

/// The windows and limits are those that our server side and step verb have elsewhere (hyper's).
fn server_settings() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    builder.max_send_buffer_size(400 << 10).max_header_list_size(METADATA_MAX);
    // Clients under test give up on many calls at once: that is no attack here.
    builder.max_pending_accept_reset_streams(1 << 16).max_local_error_reset_streams(None);
    builder
}

fn client_settings() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(2 << 20).initial_connection_window_size(5 << 20).enable_push(false);
    builder.max_send_buffer_size(1 << 20).max_header_list_size(METADATA_MAX);
    builder.initial_max_send_streams(100);
    builder
}

type Upstream = h2::client::Connection<Gathering, Bytes>;

/// Both sides of a connection, and the calls between them.
struct Lines<C> {
    server: h2::server::Connection<Gathering, Bytes>,
    accepting: Part,
    calls: FuturesUnordered<C>,
    calling: Part,
    upstream: Option<Upstream>,
    forwarding: Part,
}

impl<C: Future<Output = Result<(), ProtocolError>>> Lines<C> {
    /// Works on what has something to do; over when the client's side or a call ends the connection.
    fn poll(
        &mut self,
        cx: &Context<'_>,
        opened: &Mutex<Option<Upstream>>,
        begin: impl Fn(http::Request<RecvStream>, SendResponse<Bytes>) -> C,
    ) -> Poll<Result<(), ProtocolError>> {
        let Lines { server, accepting, calls, calling, upstream, forwarding } = self;
        let left = accepting.poll(cx, |cx| {
            while let Some(Ok((request, asker))) = ready!(server.poll_accept(cx)) {
                calls.push(begin(request, asker));
                calling.wake();
            }
            Poll::Ready(())
        });
        if left.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let cut = calling.poll(cx, |cx| {
            while let Some(call) = ready!(calls.poll_next_unpin(cx)) {
                if let Err(error) = call {
                    return Poll::Ready(error);
                }
            }
            Poll::Pending
        });
        if let Poll::Ready(error) = cut {
            return Poll::Ready(Err(error));
        }
        if upstream.is_none()
            && let Some(fresh) = lock(opened).take()
        {
            *upstream = Some(fresh);
            forwarding.wake();
        }
        let gone = forwarding.poll(cx, |cx| match upstream {
            // How it ended is seen by the calls that were on it.
            Some(upstream) => Pin::new(upstream).poll(cx).map(|_| ()),
            None => Poll::Pending,
        });
        if gone.is_ready() {
            *upstream = None;
            server.graceful_shutdown();
            accepting.wake();
        }
        Poll::Pending
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Carrier {
    link: Arc<Link>,
    connection: u64,
    dial: Arc<dyn Dial>,
    schema: Option<Arc<Schema>>,
    upstream: OnceCell<SendRequest<Bytes>>,
    /// The connection to the server, until somebody works on it.
    opened: Mutex<Option<Upstream>>,
    streams: Streams,
}

/// What a call ends with that does not come to its own end.
enum Cut {
    /// The call alone.
    Call(Reason),
    /// The whole connection.
    Connection(ProtocolError),
}

impl From<h2::Error> for Cut {
    fn from(error: h2::Error) -> Self {
        Cut::Call(reason(&error))
    }
}

impl Carrier {
    async fn call(
        self: Arc<Self>,
        request: http::Request<RecvStream>,
        mut asker: SendResponse<Bytes>,
    ) -> Result<(), ProtocolError> {
        match self.exchange(request, &mut asker).await {
            Ok(()) => Ok(()),
            Err(Cut::Call(reason)) => {
                asker.send_reset(reason);
                Ok(())
            }
            Err(Cut::Connection(error)) => Err(error),
        }
    }

    async fn exchange(
        &self,
        request: http::Request<RecvStream>,
        asker: &mut SendResponse<Bytes>,
    ) -> Result<(), Cut> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let method = self.schema.as_ref().and_then(|schema| schema.method(&path));
        let mut request = Asked::new(body);
        if method.as_ref().is_some_and(|m| !m.is_client_streaming()) {
            request.whole().await?;
        }
        let asked = match self.link.watched() {
            true => rules::request(&path, &parts.headers, &lock(&request.kept), method.as_ref()),
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
            pending.revise(value::request(&path, &parts.headers, &lock(&request.kept), input.as_ref()));
        }
        let output = method.as_ref().map(MethodDescriptor::output);
        match &effect {
            Some(Effect::Drop) => {
                pending.dropped();
                Err(Cut::Connection(ProtocolError::Cut))
            }
            Some(Effect::Error(fields)) => {
                let answer = rules::answer(fields, true, output.as_ref());
                self.by_rule(pending, answer, pause(fields), output, asker).await
            }
            Some(Effect::Respond(fields)) => {
                let answer = rules::answer(fields, false, output.as_ref());
                self.by_rule(pending, answer, pause(fields), output, asker).await
            }
            _ => {
                let input = method.as_ref().map(MethodDescriptor::input);
                let (kept, asked) = (request.kept.clone(), parts.headers.clone());
                pending.revise_at_close(Box::new(move || {
                    let kept = Kept::taken(&kept);
                    Box::new(move || value::request(&path, &asked, &kept, input.as_ref()))
                }));
                let exchange = Exchange { ongoing: Some(pending), output, ..Exchange::default() };
                self.forward(parts, request, exchange, effect, asker).await
            }
        }
    }

    async fn by_rule(
        &self,
        pending: Pending,
        answer: Value,
        pause: Option<std::time::Duration>,
        output: Option<MessageDescriptor>,
        asker: &mut SendResponse<Bytes>,
    ) -> Result<(), Cut> {
        let unfit = |_| Cut::Call(Reason::INTERNAL_ERROR);
        let wire = value::response_from(output.as_ref(), &answer).map_err(unfit)?;
        let mut head = http::Response::new(());
        *head.status_mut() =
            StatusCode::from_u16(wire.http_status).map_err(|_| Cut::Call(Reason::INTERNAL_ERROR))?;
        *head.headers_mut() = wire.headers;
        for name in HOP_BY_HOP {
            head.headers_mut().remove(*name);
        }
        if let Some(pause) = pause {
            unless_gone(asker, self.link.pause(pause)).await?;
        }
        pending.answered(&answer);
        let mut to = asker.send_response(head, wire.body.is_empty() && wire.trailers.is_none())?;
        if !wire.body.is_empty() {
            to.send_data(wire.body.freeze(), wire.trailers.is_none())?;
        }
        if let Some(trailers) = wire.trailers {
            to.send_trailers(trailers)?;
        }
        Ok(())
    }

    async fn forward(
        &self,
        parts: Parts,
        asked: Asked,
        mut exchange: Exchange,
        effect: Option<Effect>,
        asker: &mut SendResponse<Bytes>,
    ) -> Result<(), Cut> {
        let mut upstream = match unless_gone(asker, self.upstream()).await? {
            Ok(upstream) => upstream,
            Err(error) => {
                exchange.failed(&format!("cannot connect: {error}"));
                return Err(Cut::Connection(ProtocolError::Io(std::io::Error::other(error))));
            }
        };
        let (kept, alone) = (asked.kept, asked.pieces.is_empty() && asked.half.is_over());
        let sent = upstream.send_request(head_of(parts), alone);
        let begun = sent
            .and_then(|(response, to)| Ok((response, Passing::new(asked.pieces, asked.half, to, alone)?)));
        let (mut response, mut asking) = begun.map_err(|error| exchange.broken(&error))?;
        let ask_on = |cx: &mut Context<'_>, asking: &mut Passing| {
            let polled = asking.poll(cx, |seen| {
                if let Seen::Data(data) = seen {
                    lock(&kept).push(data);
                }
            });
            if let Poll::Ready(Err(Broken::Sender(error))) = &polled {
                asking.reset(reason(error));
            }
            polled.is_ready()
        };
        let answer = poll_fn(|cx| {
            if let Poll::Ready(gone) = asker.poll_reset(cx) {
                let gone = given_up(gone);
                asking.reset(gone);
                return Poll::Ready(Err(Cut::Call(gone)));
            }
            ask_on(cx, &mut asking);
            while let Poll::Ready(Some(Ok(early))) = response.poll_informational(cx) {
                // One that cannot be given on is left out: what counts is still to come.
                let _ = asker.send_informational(early);
            }
            Pin::new(&mut response).poll(cx).map_err(|error| exchange.broken(&error))
        });
        let (answer, body) = answer.await?.into_parts();
        if let Some(Effect::Delay(pause)) = effect {
            let mut pause = pin!(self.link.pause(pause));
            poll_fn(|cx| {
                if let Poll::Ready(gone) = asker.poll_reset(cx) {
                    let gone = given_up(gone);
                    asking.reset(gone);
                    return Poll::Ready(Err(Cut::Call(gone)));
                }
                ask_on(cx, &mut asking);
                pause.as_mut().poll(cx).map(Ok)
            })
            .await?;
        }
        let half = Arriving::new(body);
        let alone = half.is_over();
        exchange.begins(&answer, alone);
        let to = asker.send_response(http::Response::from_parts(answer, ()), alone)?;
        let mut answering = Passing::new(VecDeque::new(), half, to, alone)?;
        poll_fn(|cx| {
            ask_on(cx, &mut asking);
            answering.poll(cx, |seen| exchange.sees(seen)).map_err(|broken| match broken {
                Broken::Sender(error) => exchange.broken(&error),
                Broken::Receiver(gone) => {
                    asking.reset(gone);
                    Cut::Call(gone)
                }
            })
        })
        .await?;
        // An answer may come before the request has ended.
        poll_fn(|cx| if ask_on(cx, &mut asking) { Poll::Ready(()) } else { Poll::Pending }).await;
        Ok(())
    }

    /// The connection to the server, opened by the first call that needs it.
    async fn upstream(&self) -> std::io::Result<SendRequest<Bytes>> {
        let open = || async {
            let stream = self.streams.gather(self.dial.dial().await?);
            let (sender, connection) =
                client_settings().handshake(stream).await.map_err(std::io::Error::other)?;
            *lock(&self.opened) = Some(connection);
            Ok(sender)
        };
        self.upstream.get_or_try_init(open).await.cloned()
    }
}

/// Headers of one connection, which HTTP/2 does not have.
const HOP_BY_HOP: &[&str] =
    &["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"];

fn head_of(parts: Parts) -> http::Request<()> {
    let mut head = http::Request::new(());
    // Without an authority in its address, only a request of the former version can be sent on.
    if parts.uri.authority().is_some() {
        *head.version_mut() = http::Version::HTTP_2;
    }
    *head.method_mut() = parts.method;
    *head.uri_mut() = parts.uri;
    *head.headers_mut() = parts.headers;
    head
}

/// Does the work, unless who asked gives up before it is done.
async fn unless_gone<T>(asker: &mut SendResponse<Bytes>, work: impl Future<Output = T>) -> Result<T, Cut> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => asker.poll_reset(cx).map(|gone| Err(Cut::Call(given_up(gone)))),
    })
    .await
}

/// A request as far as it has arrived.
struct Asked {
    pieces: VecDeque<Piece>,
    half: Arriving,
    kept: Arc<Mutex<Kept>>,
}

impl Asked {
    fn new(body: RecvStream) -> Self {
        Asked { pieces: VecDeque::new(), half: Arriving::new(body), kept: Arc::default() }
    }

    /// Waits for all of it, or for more than is kept.
    async fn whole(&mut self) -> Result<(), h2::Error> {
        while lock(&self.kept).len() <= KEPT_MAX as u64
            && let Some(piece) = poll_fn(|cx| self.half.poll(cx)).await
        {
            let piece = piece?;
            if let Piece::Data(data) = &piece {
                lock(&self.kept).push(data);
            }
            self.pieces.push_back(piece);
        }
        Ok(())
    }
}

/// The exchange that a call is, for the journal.
#[derive(Default)]
struct Exchange {
    /// Until its end is known.
    ongoing: Option<Pending>,
    /// Type of the response's messages.
    output: Option<MessageDescriptor>,
    status: u16,
    headers: HeaderMap,
    kept: Kept,
}

impl Exchange {
    /// The response has begun; it may be all there is.
    fn begins(&mut self, answer: &http::response::Parts, alone: bool) {
        (self.status, self.headers) = (answer.status.as_u16(), answer.headers.clone());
        if alone {
            self.ends(None);
        }
    }

    fn sees(&mut self, seen: Seen<'_>) {
        match seen {
            Seen::Data(data) => self.kept.push(data),
            Seen::End(trailers) => self.ends(trailers),
        }
    }

    /// Journals the end.
    fn ends(&mut self, trailers: Option<&HeaderMap>) {
        let Some(pending) = self.ongoing.take() else { return };
        let (status, trailers, output) = (self.status, trailers.cloned(), self.output.take());
        let (headers, kept) = (std::mem::take(&mut self.headers), std::mem::take(&mut self.kept));
        pending.answered_later(move || {
            value::response(status, &headers, &kept, trailers.as_ref(), output.as_ref())
        });
    }

    /// Journals that there is no answer.
    fn failed(&mut self, why: &str) {
        if let Some(pending) = self.ongoing.take() {
            pending.failed(why);
        }
    }

    /// Journals that the server's side of it broke: so does the asker's.
    fn broken(&mut self, error: &h2::Error) -> Cut {
        self.failed(&error.to_string());
        Cut::Call(reason(error))
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
