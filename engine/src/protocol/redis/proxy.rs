//! The proxy: carries a connection to the real server and meets the rules on the way.
//!
//! Contract: bytes are forwarded as they came unless a rule acts. Two halves run at once (requests
//! up, replies down) and share a queue of what is expected, so that pipelines of any length, pushes,
//! subscriptions, blocking commands and half-closed connections pass. Answers made here take their
//! place in the order of replies. Nothing times out. After `MONITOR`, replication, or bytes that
//! are not RESP, the rest of the connection is copied without being read.
//! Not modelled: Redis Cluster (addresses in `CLUSTER SLOTS`, `MOVED` and Sentinel replies pass
//! unchanged), and rules on pushes.

use super::codec::{CommandDecoder, Frame, FrameDecoder, Sent, encode_command};
use super::command::Kind;
use super::session::{self, Asked, Session, Shape, Subscriptions, Unasked};
use super::{rules, value};
use crate::fault::rule::Effect;
use crate::link::{Dial, Link, Pending, Request, Stream};
use crate::protocol::ProtocolError;
use faultbox_bundle_format::{Class, Value};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What is expected next from the server, in order.
enum Expected {
    /// The reply to a request, or an answer that is made here.
    Reply(Box<Slot>),
    /// The second reply to a request that was sent twice: not the client's business.
    Swallow,
    /// From here on bytes are copied.
    Raw,
}

struct Slot {
    pending: Pending,
    name: Cow<'static, str>,
    kind: Kind,
    class: Class,
    shape: Shape,
    source: Source,
    hold: Option<Hold>,
    finish: Finish,
    confirmations: Vec<Value>,
    held_bytes: Vec<u8>,
}

impl Slot {
    /// Whether the server's reply passes as it is, and changes nothing on the connection.
    fn is_usual(&self) -> bool {
        let follows = matches!(self.kind, Kind::Read | Kind::Draw | Kind::Write | Kind::Settle);
        follows
            && matches!(self.source, Source::Server)
            && matches!(self.finish, Finish::Whole)
            && matches!(self.shape, Shape::One(_))
            && self.hold.is_none()
    }

    /// In whose place the connection is cut.
    fn cut(pending: Pending) -> Self {
        Slot {
            pending,
            name: Cow::Borrowed(""),
            kind: Kind::Takeover,
            class: Class::Control,
            shape: Shape::Silent,
            source: Source::Cut,
            hold: None,
            finish: Finish::Whole,
            confirmations: Vec::new(),
            held_bytes: Vec::new(),
        }
    }
}

/// Where the answer comes from.
enum Source {
    /// The server's, as it is.
    Server,
    /// The server's results of a transaction, with these put in at these places.
    With(Vec<(usize, Value)>),
    /// The server's counts as done, but the client gets this.
    Instead(Value),
    /// Made here; the server knows nothing of it.
    Local(Value),
    /// None: the connection is cut.
    Cut,
}

/// How the answer is delivered.
#[derive(Clone, Copy)]
enum Finish {
    Whole,
    Slow(u64),
    ResetAfter(u64),
    Corrupt,
}

/// A pause that began when the request came.
struct Hold(JoinHandle<()>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What both halves know.
struct Shared {
    link: Arc<Link>,
    connection: u64,
    expected: Mutex<VecDeque<Expected>>,
    /// Something was put into `expected` that needs no reply of the server.
    local: Notify,
    /// The client sends no more.
    client_done: CancellationToken,
    /// The server's bytes are not RESP: requests are not looked at any more.
    raw: AtomicBool,
}

impl Shared {
    fn expect(&self, what: Expected) {
        let wakes = match &what {
            Expected::Reply(slot) => matches!(slot.source, Source::Local(_) | Source::Cut),
            Expected::Swallow => false,
            Expected::Raw => true,
        };
        self.queue().push_back(what);
        if wakes {
            self.local.notify_one();
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Expected>> {
        self.expected.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Journals something that is no command.
    fn note(&self, operation: &'static str, body: Value) {
        let request = Request {
            operation: operation.into(),
            key: operation.to_owned(),
            fields: Vec::new(),
            class: Class::Control,
            works: false,
            mutating: false,
            repeatable: false,
            body,
        };
        self.link.ask(self.connection, request).one_way();
    }
}

/// Carries one connection.
///
/// # Errors
/// When a side fails, or a rule cuts the connection.
pub async fn proxy(client: Stream, upstream: Arc<dyn Dial>, link: Arc<Link>) -> Result<(), ProtocolError> {
    let shared = Arc::new(Shared {
        connection: link.next_connection(),
        link,
        expected: Mutex::default(),
        local: Notify::new(),
        client_done: CancellationToken::new(),
        raw: AtomicBool::new(false),
    });
    let (from_client, to_client) = tokio::io::split(client);
    let server = match upstream.dial().await {
        Ok(server) => server,
        Err(error) => return unreachable_server(&shared, from_client, error).await,
    };
    let (from_server, to_server) = tokio::io::split(server);
    let requests = Requests {
        shared: shared.clone(),
        session: Session::default(),
        transaction: Transaction::default(),
        from_client,
        to_server,
    };
    let replies = Replies {
        shared: shared.clone(),
        subscriptions: Subscriptions::default(),
        version: 2,
        out: Vec::new(),
        to_client,
    };
    let mut replies = std::pin::pin!(replies.run(from_server));
    let ended = tokio::select! {
        ended = &mut replies => ended,
        ended = requests.run() => match ended {
            Ok(()) => replies.await,
            Err(error) => Err(error),
        },
    };
    // A client that went away has abandoned what it asked (dropping notes that); else the server
    // owes the answers.
    let owed: Vec<Expected> = shared.queue().drain(..).collect();
    if !shared.client_done.is_cancelled() && !matches!(ended, Err(ProtocolError::Cut)) {
        for expected in owed {
            if let Expected::Reply(slot) = expected {
                slot.pending.failed("the server closed the connection");
            }
        }
    }
    ended
}

/// The server cannot be reached: whatever the client asks first fails with it.
async fn unreachable_server(
    shared: &Shared,
    mut from_client: ReadHalf<Stream>,
    error: std::io::Error,
) -> Result<(), ProtocolError> {
    let mut decoder = CommandDecoder::default();
    let mut session = Session::default();
    let mut asked = false;
    while !asked && from_client.read_buf(decoder.buffer()).await? > 0 {
        while let Ok(Some(words)) = decoder.next_command() {
            if !words.is_empty() {
                asked = true;
                let request = session.ask(&words).request;
                shared
                    .link
                    .ask(shared.connection, request)
                    .failed(&format!("cannot reach the server: {error}"));
            }
        }
    }
    Err(ProtocolError::Io(error))
}

/// What rules did to the transaction that is open.
#[derive(Default)]
struct Transaction {
    queued: usize,
    inserted: Vec<(usize, Value)>,
    aborted: bool,
}

struct Requests {
    shared: Arc<Shared>,
    session: Session,
    transaction: Transaction,
    from_client: ReadHalf<Stream>,
    to_server: WriteHalf<Stream>,
}

/// What becomes of the connection after a request.
#[derive(PartialEq)]
enum Next {
    Request,
    Copy,
    Nothing,
}

impl Requests {
    /// Until the client sends no more. What the server's side does ends the other half.
    async fn run(mut self) -> Result<(), ProtocolError> {
        let mut decoder = CommandDecoder::default();
        let mut forward = Vec::new();
        let mut next = Next::Request;
        loop {
            while next == Next::Request && !self.shared.raw.load(Ordering::SeqCst) {
                match decoder.next_sent() {
                    Ok(None) => break,
                    Ok(Some(sent)) => next = self.request(sent, &mut forward),
                    Err(error) => {
                        self.shared.note("undecodable", Value::text(error.to_string()));
                        self.shared.expect(Expected::Raw);
                        next = Next::Copy;
                    }
                }
            }
            if next == Next::Copy || self.shared.raw.load(Ordering::SeqCst) {
                forward.extend_from_slice(&decoder.rest());
            }
            if !forward.is_empty() && self.to_server.write_all(&forward).await.is_err() {
                // The server went away: what it still said, and its end, come down the other half.
                next = Next::Nothing;
            }
            forward.clear();
            if next == Next::Nothing {
                return std::future::pending().await;
            }
            let read = self.from_client.read_buf(decoder.buffer()).await;
            if !matches!(read, Ok(1..)) {
                self.shared.client_done.cancel();
                let _ = self.to_server.shutdown().await;
                return read.map(drop).map_err(ProtocolError::Io);
            }
        }
    }

    fn request(&mut self, sent: Sent, forward: &mut Vec<u8>) -> Next {
        let (raw, words) = (sent.raw(), sent.words());
        if words.is_empty() {
            forward.extend_from_slice(&raw);
            return Next::Request;
        }
        let link = &self.shared.link;
        let (asked, beside) = self.session.outline(&words);
        let Asked { mut request, kind, name, shape, queued, ends_transaction } = asked;
        if link.watched() {
            request.fields = session::fields(&name, &words);
        }
        let class = request.class;
        let mut pending = link.ask(self.shared.connection, request);
        drop(words);
        pending.revise_later(move || beside.body(&sent.words()));
        if kind == Kind::Takeover && !queued {
            return self.takeover(pending, &raw, forward);
        }
        let effect = pending.firing().map(|firing| firing.effect.clone());
        let mut source = Source::Server;
        let mut finish = Finish::Whole;
        let mut hold = None;
        let mut twice = false;
        match effect {
            None | Some(Effect::Allow) => {}
            Some(Effect::Drop) => source = Source::Cut,
            Some(Effect::Error(fields)) => {
                self.transaction.aborted |= queued;
                source = Source::Local(rules::error_value(&fields));
            }
            Some(Effect::Respond(fields)) if queued => {
                self.transaction.inserted.push((self.transaction.queued, rules::response_value(&fields)));
                source = Source::Local(value::status("QUEUED"));
            }
            Some(Effect::Respond(fields)) => source = Source::Local(rules::response_value(&fields)),
            Some(Effect::Delay(duration)) => hold = Some(self.hold(duration)),
            Some(Effect::Duplicate) => twice = rules::can_duplicate(kind) && !queued,
            Some(Effect::Slow { bytes_per_second }) => finish = Finish::Slow(bytes_per_second),
            Some(Effect::Corrupt) => finish = Finish::Corrupt,
            Some(Effect::ResetAfter { bytes }) => finish = Finish::ResetAfter(bytes),
        }
        self.transaction.queued += usize::from(queued);
        let mut instead = None;
        if ends_transaction {
            source = self.end_transaction(&name, source, &mut instead);
        } else if name == "MULTI" && !queued {
            self.transaction = Transaction::default();
        }
        let next = if matches!(source, Source::Cut) { Next::Nothing } else { Next::Request };
        if !matches!(source, Source::Cut | Source::Local(_)) {
            let sent = instead.as_deref().unwrap_or(&raw);
            forward.extend_from_slice(sent);
            if twice {
                forward.extend_from_slice(sent);
            }
        }
        if shape == Shape::Silent && next == Next::Request {
            pending.one_way();
            return next;
        }
        let confirmations = Vec::new();
        let held_bytes = Vec::new();
        let slot =
            Slot { pending, name, kind, class, shape, source, hold, finish, confirmations, held_bytes };
        self.shared.expect(Expected::Reply(Box::new(slot)));
        if twice {
            self.shared.expect(Expected::Swallow);
        }
        next
    }

    /// `MONITOR` and the like: only a cut makes sense of a connection that is read no further.
    fn takeover(&mut self, pending: Pending, raw: &[u8], forward: &mut Vec<u8>) -> Next {
        if pending.firing().is_some_and(|firing| firing.effect == Effect::Drop) {
            self.shared.expect(Expected::Reply(Box::new(Slot::cut(pending))));
            return Next::Nothing;
        }
        pending.one_way();
        self.shared.expect(Expected::Raw);
        forward.extend_from_slice(raw);
        Next::Copy
    }

    /// `EXEC` or `DISCARD`: what rules did to the queued commands shows now.
    fn end_transaction(&mut self, name: &str, source: Source, instead: &mut Option<Vec<u8>>) -> Source {
        let done = std::mem::take(&mut self.transaction);
        match source {
            // The server must not be left inside the transaction.
            Source::Local(answer) => {
                *instead = Some(encode_command(&["DISCARD"]));
                Source::Instead(answer)
            }
            Source::Server if name == "EXEC" && done.aborted => {
                *instead = Some(encode_command(&["DISCARD"]));
                Source::Instead(value::error("EXECABORT Transaction discarded because of previous errors."))
            }
            Source::Server if name == "EXEC" && !done.inserted.is_empty() => Source::With(done.inserted),
            other => other,
        }
    }

    /// The pause begins with the request, whatever is in front of it.
    fn hold(&self, duration: Duration) -> Hold {
        let link = self.shared.link.clone();
        Hold(tokio::spawn(async move { link.pause(duration).await }))
    }
}

struct Replies {
    shared: Arc<Shared>,
    subscriptions: Subscriptions,
    version: u8,
    out: Vec<u8>,
    to_client: WriteHalf<Stream>,
}

/// What stands at the head of the queue.
enum Head {
    Local(Box<Slot>),
    Raw,
    Server,
}

impl Replies {
    /// Until the server sends no more.
    async fn run(mut self, mut from_server: ReadHalf<Stream>) -> Result<(), ProtocolError> {
        let mut decoder = FrameDecoder::default();
        loop {
            match self.head() {
                Head::Local(slot) => {
                    if !self.local(slot).await? {
                        return Ok(());
                    }
                    continue;
                }
                Head::Raw => {
                    self.out.extend_from_slice(&decoder.rest());
                    self.flush().await?;
                    tokio::io::copy(&mut from_server, &mut self.to_client).await?;
                    return Ok(());
                }
                Head::Server => {}
            }
            if self.pass_on(&mut decoder) {
                continue;
            }
            match decoder.next_frame() {
                Ok(Some((frame, raw))) => {
                    if !self.frame(frame, &raw).await? {
                        return Ok(());
                    }
                }
                Ok(None) => {
                    self.flush().await?;
                    tokio::select! {
                        read = from_server.read_buf(decoder.buffer()) => if read? == 0 {
                            // What is left is a message that was cut short: the client's to see.
                            self.out.extend_from_slice(&decoder.rest());
                            self.flush().await?;
                            let _ = self.to_client.shutdown().await;
                            return Ok(());
                        },
                        () = self.shared.local.notified() => {}
                    }
                }
                Err(error) => {
                    self.shared.note("undecodable", Value::text(error.to_string()));
                    self.shared.raw.store(true, Ordering::SeqCst);
                    let mut queue = self.shared.queue();
                    for expected in queue.drain(..) {
                        if let Expected::Reply(slot) = expected {
                            slot.pending.failed("the server's bytes are not RESP");
                        }
                    }
                    queue.push_back(Expected::Raw);
                }
            }
        }
    }

    /// Passes on the usual: a plain reply that no rule is about, to a command whose reply means nothing
    /// for later ones. What it says is put into words later. False where there is more to it.
    fn pass_on(&mut self, decoder: &mut FrameDecoder) -> bool {
        let mut queue = self.shared.queue();
        if !matches!(queue.front(), Some(Expected::Reply(slot)) if slot.is_usual()) {
            return false;
        }
        let Some(raw) = decoder.next_plain() else { return false };
        let Some(Expected::Reply(slot)) = queue.pop_front() else { return false };
        drop(queue);
        self.out.extend_from_slice(&raw);
        let Slot { pending, shape, .. } = *slot;
        pending.answered_later(move || {
            let reply = FrameDecoder::plain(&raw);
            session::mark_reply(&shape, reply.as_ref().map_or(Value::Null, value::of_frame))
        });
        true
    }

    fn head(&self) -> Head {
        let mut queue = self.shared.queue();
        match queue.pop_front() {
            Some(Expected::Reply(slot)) if matches!(slot.source, Source::Local(_) | Source::Cut) => {
                Head::Local(slot)
            }
            Some(Expected::Raw) => Head::Raw,
            Some(other) => {
                queue.push_front(other);
                Head::Server
            }
            None => Head::Server,
        }
    }

    async fn flush(&mut self) -> Result<(), ProtocolError> {
        if !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            self.give(&out).await?;
        }
        Ok(())
    }

    /// Writes to the client. One that cannot be written to has gone away.
    async fn give(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let given = self.to_client.write_all(bytes).await;
        if given.is_err() {
            self.shared.client_done.cancel();
        }
        Ok(given?)
    }

    /// An answer that is made here. False ends the connection.
    async fn local(&mut self, mut slot: Box<Slot>) -> Result<bool, ProtocolError> {
        match std::mem::replace(&mut slot.source, Source::Server) {
            Source::Local(answer) => {
                let frame = value::to_frame(&answer, self.version);
                let bytes = frame.encode();
                self.deliver(slot, frame, answer, bytes).await
            }
            _ => {
                self.flush().await?;
                slot.pending.dropped();
                Err(ProtocolError::Cut)
            }
        }
    }

    /// A frame of the server. False ends the connection.
    async fn frame(&mut self, frame: Frame, raw: &[u8]) -> Result<bool, ProtocolError> {
        let within = match self.shared.queue().front() {
            Some(Expected::Reply(slot)) => match &slot.shape {
                Shape::Confirmations(which, named) => Some(named.map_or_else(
                    // Counted down as they are confirmed: the first tells how many there are.
                    || slot.confirmations.len() + self.subscriptions.expected(*which),
                    |named| named,
                )),
                _ => None,
            },
            _ => None,
        };
        match (self.subscriptions.unasked(&frame, within.is_some()), within) {
            (Some(Unasked::Confirmation), Some(expected)) => {
                return self.confirmation(&frame, raw, expected).await;
            }
            (Some(Unasked::Confirmation), None) => self.subscriptions.confirm(&value::of_frame(&frame)),
            (Some(Unasked::Message), _) => {
                let request = self.subscriptions.next_message();
                let pending = self.shared.link.ask(self.shared.connection, request);
                if pending.firing().is_some_and(|firing| firing.effect == Effect::Drop) {
                    pending.dropped();
                    return Err(ProtocolError::Cut);
                }
                pending.answered_as(Class::Work, &value::of_frame(&frame));
            }
            (None, _) => {
                // Bound first: the queue must not stay locked while the answer is delivered.
                let head = self.shared.queue().pop_front();
                match head {
                    Some(Expected::Reply(slot)) => return self.answer(slot, frame, raw).await,
                    Some(Expected::Swallow) => return Ok(true),
                    Some(Expected::Raw) => self.shared.queue().push_front(Expected::Raw),
                    // Said by a server that takes no more clients, for one.
                    None => self.shared.note("unasked", value::of_frame(&frame)),
                }
            }
        }
        self.out.extend_from_slice(raw);
        Ok(true)
    }

    async fn confirmation(
        &mut self,
        frame: &Frame,
        raw: &[u8],
        expected: usize,
    ) -> Result<bool, ProtocolError> {
        let confirmed = value::plain(&value::of_frame(frame));
        self.subscriptions.confirm(&confirmed);
        let Some(Expected::Reply(mut slot)) = self.shared.queue().pop_front() else { return Ok(true) };
        slot.confirmations.push(confirmed);
        slot.held_bytes.extend_from_slice(raw);
        if slot.confirmations.len() < expected {
            // Messages may come between confirmations: none may overtake its own.
            if slot.hold.is_none() && matches!(slot.finish, Finish::Whole) {
                self.out.append(&mut slot.held_bytes);
            }
            self.shared.queue().push_front(Expected::Reply(slot));
            return Ok(true);
        }
        let answer = Value::map([("confirmations", Value::List(std::mem::take(&mut slot.confirmations)))]);
        let bytes = std::mem::take(&mut slot.held_bytes);
        self.deliver(slot, frame.clone(), answer, bytes).await
    }

    /// The server's reply to a request.
    async fn answer(
        &mut self,
        mut slot: Box<Slot>,
        mut frame: Frame,
        raw: &[u8],
    ) -> Result<bool, ProtocolError> {
        match std::mem::replace(&mut slot.source, Source::Server) {
            Source::With(inserted) => {
                if let Frame::Array(results) = &mut frame {
                    for (at, result) in inserted {
                        results.insert(at.min(results.len()), value::to_frame(&result, self.version));
                    }
                }
                let bytes = frame.encode();
                let answer = value::of_frame(&frame);
                self.deliver(slot, frame, answer, bytes).await
            }
            Source::Instead(answer) => {
                let frame = value::to_frame(&answer, self.version);
                let bytes = frame.encode();
                self.deliver(slot, frame, answer, bytes).await
            }
            _ => {
                self.follow(&slot.name, &frame);
                let answer = value::of_frame(&frame);
                self.deliver(slot, frame, answer, raw.to_vec()).await
            }
        }
    }

    /// Replies that change what later ones look like.
    fn follow(&mut self, name: &str, frame: &Frame) {
        match (name, frame) {
            ("RESET", Frame::Simple(_)) => {
                self.subscriptions.clear();
                self.version = 2;
            }
            ("HELLO", Frame::Map(_)) => self.version = 3,
            ("HELLO", Frame::Array(_)) => self.version = 2,
            _ => {}
        }
    }

    /// Gives the client its answer: late, slowly, damaged or in part where a rule says so.
    async fn deliver(
        &mut self,
        mut slot: Box<Slot>,
        mut frame: Frame,
        mut answer: Value,
        mut bytes: Vec<u8>,
    ) -> Result<bool, ProtocolError> {
        if let Some(mut hold) = slot.hold.take() {
            self.flush().await?;
            tokio::select! {
                _ = &mut hold.0 => {}
                // Nobody waits for it any more; dropping the exchange notes it as abandoned.
                () = self.shared.client_done.cancelled() => return Ok(false),
            }
        }
        if let Finish::Corrupt = slot.finish {
            rules::corrupt(&mut frame);
            answer = value::of_frame(&frame);
            bytes = frame.encode();
        }
        let answer = session::mark_reply(&slot.shape, answer);
        let class = session::answered_class(slot.kind, slot.class, &answer);
        match slot.finish {
            Finish::Whole | Finish::Corrupt => {
                slot.pending.answered_as(class, &answer);
                self.out.extend_from_slice(&bytes);
            }
            Finish::Slow(rate) => {
                self.flush().await?;
                let step = usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1);
                let pause = Duration::from_nanos((step as u64).saturating_mul(1_000_000_000) / rate.max(1));
                let last = (bytes.len().saturating_sub(1) / step) * step;
                for piece in bytes.get(..last).unwrap_or_default().chunks(step) {
                    self.give(piece).await?;
                    self.shared.link.pause(pause).await;
                }
                slot.pending.answered_as(class, &answer);
                self.out.extend_from_slice(bytes.get(last..).unwrap_or_default());
            }
            Finish::ResetAfter(most) => {
                let most = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len().saturating_sub(1));
                self.out.extend_from_slice(bytes.get(..most).unwrap_or_default());
                self.flush().await?;
                slot.pending.dropped();
                return Err(ProtocolError::Cut);
            }
        }
        Ok(true)
    }
}
