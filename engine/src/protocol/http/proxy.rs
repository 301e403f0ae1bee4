//! The way through: raw bytes in both directions, decoded on the side.
//!
//! Contract: where no rule acts, both sides get each other's bytes unchanged. The exchange is
//! journaled before the last byte of the answer leaves. Pipelined requests are answered one
//! after the other. What is not HTTP/1 passes undecoded, and the journal says so.
//! A rule sees a request when its head has arrived; one that answers or cuts lets the body
//! arrive first, so that proxy and replay see equal requests.

use super::codec::{self, BodyReader, RequestHead, ResponseHead, response_head};
use super::kept::Kept;
use super::rules;
use super::value;
use super::wire::{Inbox, Side, invalid, take_request};
use crate::fault::rule::Effect;
use crate::link::{Dial, Link, Pending, Request, Stream};
use crate::protocol::ProtocolError;
use faultbox_bundle_format::{Class, Value};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, WriteHalf};

/// How often a slowed answer goes on.
const SLOW_STEP: Duration = Duration::from_millis(50);

/// What becomes of the connection after an exchange.
enum Flow {
    /// The next request may come.
    Next,
    /// It ends.
    Close,
    /// From here on bytes pass undecoded.
    Splice,
}

/// Carries one connection.
pub async fn proxy(client: Stream, dial: Arc<dyn Dial>, link: Arc<Link>) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let mut client = Side::new(client);
    let mut upstream: Option<Side> = None;
    loop {
        let head = match next_request(&mut client, upstream.as_mut()).await? {
            Next::Request(head) => head,
            Next::End => return end(upstream).await,
            Next::Undecodable => {
                return splice_undecodable(&link, connection, client, upstream, &*dial).await;
            }
        };
        let Ok(framing) = codec::request_framing(&head) else {
            return splice_undecodable(&link, connection, client, upstream, &*dial).await;
        };
        let head = Arc::new(head);
        let request = if link.watched() { value::request(&head, None) } else { value::outline(&head) };
        let pending = link.ask(connection, request);
        let exchange = Exchange { link: &link, dial: &*dial, head: &head, pending };
        match exchange.carry(&mut client, &mut upstream, BodyReader::new(framing)).await? {
            Flow::Next => {}
            Flow::Close => return end(upstream).await,
            Flow::Splice => {
                return match upstream {
                    Some(upstream) => splice(client, upstream).await,
                    None => Ok(()),
                };
            }
        }
    }
}

async fn end(upstream: Option<Side>) -> Result<(), ProtocolError> {
    if let Some(mut upstream) = upstream {
        // Whether it still hears us does not matter any more.
        let _ = upstream.write.shutdown().await;
    }
    Ok(())
}

enum Next {
    Request(RequestHead),
    End,
    Undecodable,
}

/// Waits for a request; meanwhile the server may close, or speak unasked (a timeout's 408).
async fn next_request(client: &mut Side, mut upstream: Option<&mut Side>) -> std::io::Result<Next> {
    loop {
        let unasked = async {
            match upstream.as_deref_mut() {
                Some(upstream) => upstream.read.more().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            request = client.read.request() => {
                return Ok(match request? {
                    Ok(Some(head)) => Next::Request(head),
                    Ok(None) => Next::End,
                    Err(_) => Next::Undecodable,
                });
            }
            more = unasked => {
                if !matches!(more, Ok(true)) {
                    return Ok(Next::End);
                }
                if let Some(upstream) = upstream.as_deref_mut() {
                    client.write.write_all(&upstream.read.buffer.split()).await?;
                    client.write.flush().await?;
                }
            }
        }
    }
}

struct Exchange<'a> {
    link: &'a Arc<Link>,
    dial: &'a dyn Dial,
    head: &'a Arc<RequestHead>,
    pending: Pending,
}

impl Exchange<'_> {
    async fn carry(
        mut self,
        client: &mut Side,
        upstream: &mut Option<Side>,
        body: BodyReader,
    ) -> Result<Flow, ProtocolError> {
        let effect = self.pending.firing().map(|firing| firing.effect.clone());
        match &effect {
            Some(Effect::Drop) => {
                self.take(client, body).await?;
                self.pending.dropped();
                return Err(ProtocolError::Cut);
            }
            Some(Effect::Error(fields)) => {
                self.take(client, body).await?;
                return self.answer(client, rules::answer(fields, true), rules::pause(fields)).await;
            }
            Some(Effect::Respond(fields)) => {
                self.take(client, body).await?;
                return self.answer(client, rules::answer(fields, false), rules::pause(fields)).await;
            }
            _ => {}
        }
        if upstream.is_none() {
            match self.dial.dial().await {
                Ok(stream) => *upstream = Some(Side::new(stream)),
                Err(error) => {
                    self.take(client, body).await?;
                    self.pending.failed(&format!("cannot connect: {error}"));
                    return Err(error.into());
                }
            }
        }
        let Some(upstream) = upstream else { return Ok(Flow::Close) };
        let mut body = body;
        let sent = if effect == Some(Effect::Duplicate) {
            let (kept, raw) = self.take(client, body).await?;
            body = BodyReader::new(codec::Framing::Length(0));
            if let Some(raw) = raw.whole() {
                // The second copy first: its answer is in before the real one can be seen.
                let _ = ask_once(self.dial, self.head, raw).await;
                upstream.write.write_all(raw).await?;
                upstream.write.flush().await?;
            }
            Some(kept)
        } else {
            None
        };
        self.forward(client, upstream, body, sent, effect).await
    }

    /// Lets the whole request arrive here.
    async fn take(&mut self, client: &mut Side, body: BodyReader) -> std::io::Result<(Kept, Kept)> {
        let (kept, raw) = take_request(&mut client.read, &mut client.write, self.head, body).await?;
        self.pending.revise(value::request_value(self.head, Some(&kept)));
        Ok((kept, raw))
    }

    /// Answers by rule.
    async fn answer(
        self,
        client: &mut Side,
        answer: Value,
        pause: Option<Duration>,
    ) -> Result<Flow, ProtocolError> {
        let (wire, close) = value::encode(&self.head.method, &answer).map_err(ProtocolError::Malformed)?;
        if let Some(pause) = pause
            && !self.held(client, pause).await?
        {
            return Ok(Flow::Close);
        }
        self.pending.answered(&answer);
        client.write.write_all(&wire).await?;
        client.write.flush().await?;
        Ok(if close || self.head.closes() { Flow::Close } else { Flow::Next })
    }

    /// Holds an answer; false when the asker went away meanwhile.
    async fn held(&self, client: &mut Side, pause: Duration) -> std::io::Result<bool> {
        tokio::select! {
            () = self.link.pause(pause) => Ok(true),
            gone = client.read.until_end() => {
                gone?;
                if !self.head.closes() {
                    return Ok(false);
                }
                self.link.pause(pause).await;
                Ok(true)
            }
        }
    }

    async fn forward(
        mut self,
        client: &mut Side,
        upstream: &mut Side,
        body: BodyReader,
        sent: Option<Kept>,
        effect: Option<Effect>,
    ) -> Result<Flow, ProtocolError> {
        let paused = matches!(effect, Some(Effect::Delay(_)));
        let up = Up {
            kept: Arc::new(Mutex::new(sent.unwrap_or_default())),
            sent: AtomicBool::new(body.done()),
            gone: AtomicBool::new(false),
        };
        let (Side { read: client_read, write: client_write }, Side { read: up_read, write: up_write }) =
            (client, upstream);
        let head_bytes = match effect {
            Some(Effect::Duplicate) => bytes::BytesMut::new(),
            _ => client_read.buffer.split_to(self.head.len),
        };
        let leaves_early = paused && !self.head.closes();
        let (head, kept) = (self.head.clone(), up.kept.clone());
        self.pending.revise_at_close(Box::new(move || {
            let kept = Kept::taken(&kept);
            Box::new(move || value::request_value(&head, Some(&kept)))
        }));
        let head = self.head;
        let down = Down { exchange: self, up: &up, effect };
        let flow = tokio::select! {
            biased;
            flow = down.run(up_read, client_write) => flow?,
            left = send(client_read, up_write, head_bytes, body, &up, leaves_early) => {
                left?;
                return Ok(Flow::Close);
            }
        };
        // An answer before the end of the request leaves the two sides out of step.
        let in_step = up.sent.load(Ordering::SeqCst);
        Ok(match flow {
            Flow::Next if !in_step || (client_read.ended && client_read.buffer.is_empty()) => Flow::Close,
            Flow::Next if head.minor == 0 && head.closes() => Flow::Close,
            flow => flow,
        })
    }
}

/// What the two directions of an exchange know of each other.
struct Up {
    kept: Arc<Mutex<Kept>>,
    sent: AtomicBool,
    gone: AtomicBool,
}

impl Up {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a request on, then watches for the asker's end, which the server gets to see too.
/// Returns only when the asker is gone for good.
async fn send(
    client: &mut Inbox,
    upstream: &mut WriteHalf<Stream>,
    head: bytes::BytesMut,
    mut body: BodyReader,
    up: &Up,
    leaves_early: bool,
) -> std::io::Result<()> {
    // A server that no longer listens may have answered already: its answer decides.
    let mut heard = upstream.write_all(&head).await.is_ok() && upstream.flush().await.is_ok();
    while !body.done() {
        if client.buffer.is_empty() && !client.more().await? {
            break;
        }
        let used = body.feed(&mut client.buffer, &mut |data| up.kept().push(data)).map_err(invalid)?;
        let bytes = client.buffer.split_to(used);
        up.sent.store(body.done(), Ordering::SeqCst);
        heard = heard && upstream.write_all(&bytes).await.is_ok() && upstream.flush().await.is_ok();
    }
    client.until_end().await?;
    up.gone.store(true, Ordering::SeqCst);
    if leaves_early {
        return Ok(());
    }
    let _ = upstream.shutdown().await;
    std::future::pending().await
}

/// The direction of the answer.
struct Down<'a, 'b> {
    exchange: Exchange<'a>,
    up: &'b Up,
    effect: Option<Effect>,
}

impl Down<'_, '_> {
    async fn run(
        mut self,
        upstream: &mut Inbox,
        client: &mut WriteHalf<Stream>,
    ) -> Result<Flow, ProtocolError> {
        let method = self.exchange.head.method.clone();
        let head = loop {
            let head = match self.next_head(upstream).await {
                Ok(Some(head)) => head,
                Ok(None) => return self.unanswered("the connection was closed without an answer"),
                Err(error) => return self.unanswered(&error.to_string()),
            };
            if head.status >= 200 || head.status == 101 {
                break head;
            }
            client.write_all(&upstream.buffer.split_to(head.len)).await?;
            client.flush().await?;
        };
        if let Some(Effect::Delay(pause)) = self.effect {
            self.exchange.link.pause(pause).await;
        }
        let upgrade = head.status == 101 || (method == "CONNECT" && head.status < 300);
        if upgrade {
            let bytes = upstream.buffer.split_to(head.len);
            self.answered(head, Kept::default());
            client.write_all(&bytes).await?;
            client.flush().await?;
            return Ok(Flow::Splice);
        }
        let framing =
            codec::response_framing(&method, &head).map_err(|e| ProtocolError::Malformed(e.0.into()))?;
        self.body(upstream, client, head, BodyReader::new(framing)).await
    }

    async fn next_head(&mut self, upstream: &mut Inbox) -> std::io::Result<Option<ResponseHead>> {
        loop {
            if let Some(head) = response_head(&upstream.buffer).map_err(invalid)? {
                return Ok(Some(head));
            }
            if !upstream.more().await? {
                return Ok(None);
            }
        }
    }

    async fn body(
        self,
        upstream: &mut Inbox,
        client: &mut WriteHalf<Stream>,
        head: ResponseHead,
        mut body: BodyReader,
    ) -> Result<Flow, ProtocolError> {
        let mut kept = Kept::default();
        let corrupt = self.effect == Some(Effect::Corrupt);
        let mut budget = match self.effect {
            Some(Effect::ResetAfter { bytes }) => Some(bytes),
            _ => None,
        };
        let mut out = upstream.buffer.split_to(head.len);
        loop {
            let mut see = |data: &mut [u8]| {
                if corrupt {
                    let first = kept.len();
                    let hit =
                        data.iter_mut().enumerate().filter(|(at, _)| (first + *at as u64).is_multiple_of(64));
                    hit.for_each(|(_, byte)| *byte ^= 0x5a);
                }
                kept.push(data);
            };
            let used = body.feed(&mut upstream.buffer, &mut see).map_err(invalid)?;
            out.unsplit(upstream.buffer.split_to(used));
            let ended = upstream.ended && body.ends_with_connection();
            if let Some(left) = &mut budget {
                let size = usize::try_from(*left).unwrap_or(usize::MAX);
                if out.len() >= size {
                    out.truncate(size);
                    let _ = client.write_all(&out).await;
                    let _ = client.flush().await;
                    self.exchange.pending.dropped();
                    return Err(ProtocolError::Cut);
                }
                *left -= out.len() as u64;
            }
            let done = body.done() || ended;
            if done {
                // What a rule slows down leaves before the journal knows, but for the last byte; else
                // all of it leaves in one piece, so that the asker is woken once.
                let mut last = out;
                if matches!(self.effect, Some(Effect::Slow { .. })) {
                    let first = last.split_to(last.len().saturating_sub(1));
                    write(client, &first, &self.effect, self.exchange.link).await?;
                }
                self.answered(head, kept);
                client.write_all(&last).await?;
                client.flush().await?;
                return Ok(if ended { Flow::Close } else { Flow::Next });
            }
            write(client, &out, &self.effect, self.exchange.link).await?;
            out.clear();
            match upstream.more().await {
                Ok(true) => {}
                Ok(false) if body.ends_with_connection() => {}
                Ok(false) => return self.unanswered("the answer ends early"),
                Err(error) => return self.unanswered(&error.to_string()),
            }
        }
    }

    fn answered(self, head: ResponseHead, body: Kept) {
        let asked = self.exchange.head.clone();
        self.exchange.pending.answered_later(move || value::response(&asked.method, &head, &body));
    }

    /// No (whole) answer: the server's failure, unless the asker had left before.
    fn unanswered(self, why: &str) -> Result<Flow, ProtocolError> {
        if !self.up.gone.load(Ordering::SeqCst) {
            self.exchange.pending.failed(why);
        }
        Ok(Flow::Close)
    }
}

async fn write(
    client: &mut WriteHalf<Stream>,
    bytes: &[u8],
    effect: &Option<Effect>,
    link: &Arc<Link>,
) -> std::io::Result<()> {
    if let Some(Effect::Slow { bytes_per_second }) = effect {
        let steps = 1000 / SLOW_STEP.as_millis() as u64;
        let step = usize::try_from((bytes_per_second / steps).max(1)).unwrap_or(usize::MAX);
        for piece in bytes.chunks(step) {
            link.pause(SLOW_STEP).await;
            client.write_all(piece).await?;
            client.flush().await?;
        }
        return Ok(());
    }
    client.write_all(bytes).await?;
    client.flush().await
}

/// Sends a request on a connection of its own and waits for the end of the answer.
async fn ask_once(dial: &dyn Dial, head: &RequestHead, raw: &[u8]) -> std::io::Result<()> {
    let mut side = Side::new(dial.dial().await?);
    side.write.write_all(raw).await?;
    side.write.flush().await?;
    super::client::take_response(&mut side.read, &head.method).await.map(drop)
}

/// Passes bytes in both directions, half-closed connections included.
async fn splice(client: Side, upstream: Side) -> Result<(), ProtocolError> {
    let Side { read: mut client_read, write: mut client_write } = client;
    let Side { read: mut up_read, write: mut up_write } = upstream;
    tokio::try_join!(pump(&mut client_read, &mut up_write), pump(&mut up_read, &mut client_write))?;
    Ok(())
}

async fn pump(from: &mut Inbox, to: &mut WriteHalf<Stream>) -> std::io::Result<()> {
    loop {
        if !from.buffer.is_empty() {
            to.write_all(&from.buffer.split()).await?;
            to.flush().await?;
        }
        if !from.more().await? {
            return to.shutdown().await;
        }
    }
}

async fn splice_undecodable(
    link: &Arc<Link>,
    connection: u64,
    client: Side,
    upstream: Option<Side>,
    dial: &dyn Dial,
) -> Result<(), ProtocolError> {
    let pending = link.ask(connection, undecodable());
    if matches!(pending.firing().map(|f| &f.effect), Some(Effect::Drop)) {
        pending.dropped();
        return Err(ProtocolError::Cut);
    }
    let upstream = match upstream {
        Some(upstream) => upstream,
        None => match dial.dial().await {
            Ok(stream) => Side::new(stream),
            Err(error) => {
                pending.failed(&format!("cannot connect: {error}"));
                return Err(error.into());
            }
        },
    };
    pending.one_way();
    splice(client, upstream).await
}

/// What is noted of a connection that passes undecoded.
pub fn undecodable() -> Request {
    Request {
        operation: "undecodable".into(),
        key: "undecodable".to_owned(),
        fields: Vec::new(),
        class: Class::Control,
        works: false,
        mutating: false,
        repeatable: false,
        body: Value::Null,
    }
}
