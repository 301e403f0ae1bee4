//! `Link`: the seam between a protocol and everything else. One link per (asker, interface).
//!
//! Contract: a protocol decodes a request, hands it to the link, and does what the returned
//! [`Pending`] says; the link consults the rules, journals the exchange with its answer, and
//! counts what is open. A protocol needs no other access to the engine.
//! Dropping a [`Pending`] without an answer notes the exchange as abandoned.

use crate::fault::active::{ActiveFaults, Consultation, Firing};
use crate::journal::{Journal, Place, Said};
use crate::virtual_time::Time;
use faultbox_bundle_format::{Body, Class, Entry, Exchange, Name, Outcome, Payload, Phase, RuleHit, Value};
use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A future that can be kept in a box.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A byte stream in both directions: TCP, or a pipe inside this process.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An owned byte stream.
pub type Stream = Box<dyn Io>;

/// Opens connections to whoever really serves an interface.
pub trait Dial: Send + Sync {
    /// Opens one connection.
    fn dial(&self) -> BoxFuture<'_, std::io::Result<Stream>>;
}

/// The operation and key of a connection that could not be made.
pub const UNREACHABLE: &str = "connect to the server";

/// A decoded request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is asked, for people: `SELECT`, `GET /orders`, `Produce`.
    pub operation: Cow<'static, str>,
    /// The stable key: identifies what is asked without generated values, ports, ids or
    /// literals that differ between runs (a SQL fingerprint, method and path template,
    /// topic-partition).
    pub key: String,
    /// What rules can match on: (field, values).
    pub fields: Vec<(&'static str, Vec<String>)>,
    /// How it counts.
    pub class: Class,
    /// Whether rules without matchers apply to it (`Class::Work`, as a rule, but not
    /// transaction control or PREPARE).
    pub works: bool,
    /// Whether it may change the state of who is asked.
    pub mutating: bool,
    /// Whether an identical request that follows at once is a retry that may collapse.
    pub repeatable: bool,
    /// All of it. What stands in [`Value::Volatile`] is neither compared nor matched.
    pub body: Value,
}

impl Request {
    /// What the asking client calls itself, where its protocol has that.
    fn client(&self) -> &str {
        let client = self.fields.iter().find(|(field, _)| *field == CLIENT);
        client.and_then(|(_, names)| names.first()).map_or("", String::as_str)
    }
}

/// The field of a request that holds what the client calls itself.
pub const CLIENT: &str = "client";

/// What a conversation answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// This response; the protocol encodes it.
    Reply(Value),
    /// No answer and no end: the request stays open until the asker gives up.
    Silence,
    /// The connection is cut instead of an answer.
    Cut,
    /// Nothing is known about this request. For `Class::Ambient` and `Class::Control` the
    /// protocol answers as an idle server would; for others it cuts the connection.
    Unknown,
    /// The request has no response (one-way), and none is sent.
    Nothing,
}

/// Whoever answers requests on one connection: a mock, a stand-in, a bundle.
pub trait Conversation: Send + Sync {
    /// Answers one request, after whatever pause belongs to the answer.
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)>;

    /// Whether [`Answer::Cut`] without a rule means that who was asked failed (as a server that
    /// died did), rather than that this conversation wants the connection cut.
    fn cuts_are_failures(&self) -> bool {
        false
    }
}

/// Starts conversations.
pub trait Responder: Send + Sync {
    /// Begins the conversation of a new connection of `source`.
    fn converse(&self, source: &str, connection: u64) -> Arc<dyn Conversation>;
}

/// What a protocol may have to know about an interface beyond its bytes.
#[derive(Debug, Clone, Default)]
pub struct InterfaceOptions {
    /// Descriptors of a gRPC service, as an encoded `FileDescriptorSet`.
    pub descriptors: Option<Arc<Vec<u8>>>,
    /// The service's environment: credentials and the database's name.
    pub env: BTreeMap<String, String>,
}

/// How many exchanges are open, for the end of a scenario.
#[derive(Debug, Default)]
pub struct OpenExchanges {
    count: AtomicUsize,
    changed: tokio::sync::Notify,
}

impl OpenExchanges {
    /// Returns once no exchange that counts is open.
    pub async fn idle(&self) {
        loop {
            let changed = self.changed.notified();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// One asker's view of one interface.
pub struct Link {
    /// `service.interface`.
    pub interface: Arc<str>,
    /// The protocol's registered name.
    pub protocol: &'static str,
    /// Who asks: a service's name or `test`.
    pub source: Arc<str>,
    /// `host:port` at which the asker reaches this interface (what a broker advertises).
    pub advertised: String,
    /// More about the interface.
    pub options: Arc<InterfaceOptions>,
    journal: Arc<Journal>,
    faults: Option<Arc<ActiveFaults>>,
    open: Arc<OpenExchanges>,
    connections: AtomicU64,
    state: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Link {
    /// A link whose requests meet `faults` and are journaled.
    pub fn new(
        interface: &str,
        protocol: &'static str,
        source: &str,
        advertised: &str,
        options: Arc<InterfaceOptions>,
        journal: Arc<Journal>,
        faults: Option<Arc<ActiveFaults>>,
        open: Arc<OpenExchanges>,
    ) -> Arc<Self> {
        Arc::new(Link {
            interface: interface.into(),
            protocol,
            source: source.into(),
            advertised: advertised.to_owned(),
            options,
            journal,
            faults,
            open,
            connections: AtomicU64::new(0),
            state: OnceLock::new(),
        })
    }

    /// A link without rules or journal: what stands behind a proxy uses it.
    pub fn unobserved(
        interface: &str,
        protocol: &'static str,
        advertised: &str,
        options: InterfaceOptions,
        time: &Time,
    ) -> Arc<Self> {
        Link::new(
            interface,
            protocol,
            "",
            advertised,
            Arc::new(options),
            Journal::null(time),
            None,
            Arc::default(),
        )
    }

    /// A number for a new connection.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// What a protocol keeps for all connections of this link (group membership), made at first
    /// use. A protocol asks for one type only; of another type it gets a fresh one each time.
    pub fn state<T: Send + Sync + 'static>(&self, make: impl Fn() -> T) -> Arc<T> {
        let kept = self.state.get_or_init(|| Arc::new(make())).clone();
        kept.downcast().unwrap_or_else(|_| Arc::new(make()))
    }

    /// Notes that who is asked could not be connected to: a server that is down. It is part of
    /// the set-up of a session, neither digested nor compared, but a replay keeps it down as well.
    pub fn unreachable(self: &Arc<Self>, why: &str) {
        let request = Request {
            operation: UNREACHABLE.into(),
            key: UNREACHABLE.to_owned(),
            fields: Vec::new(),
            class: Class::Control,
            works: false,
            mutating: false,
            repeatable: true,
            body: Value::Null,
        };
        self.ask(0, request).failed(why);
    }

    /// What the cell waits by.
    pub fn time(&self) -> &Time {
        self.journal.clock().time()
    }

    /// The journal of the cell.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Whether a rule that is active now is about this interface. Else a proxy need not say what a
    /// request's fields are.
    pub fn watched(&self) -> bool {
        self.faults.as_ref().is_some_and(|faults| faults.watches(&self.interface))
    }

    /// A request arrived: asks the rules, opens the exchange.
    pub fn ask(self: &Arc<Self>, connection: u64, request: Request) -> Pending {
        let firing = self.faults.as_ref().and_then(|faults| {
            faults.consult(&Consultation {
                interface: &self.interface,
                source: &self.source,
                key: &request.key,
                works: request.works,
                client: request.client(),
                on_sut: faults.is_sut(&self.source),
                field: &|name| {
                    let values = request.fields.iter().find(|(field, _)| *field == name);
                    values.map(|(_, values)| values.clone()).unwrap_or_default()
                },
            })
        });
        self.open(connection, request, firing)
    }

    /// A server got a request that it answers itself (session set-up): no rules, journaled.
    pub fn receive(self: &Arc<Self>, connection: u64, request: Request) -> Pending {
        self.open(connection, request, None)
    }

    /// Server side: asks the conversation and closes the exchange with its answer. Rules are
    /// asked as well, so that decisions are counted and journaled, but what happens is what
    /// the conversation says: behind a proxy there are no rules, and a bundle has the outcome.
    pub async fn converse(
        self: &Arc<Self>,
        connection: u64,
        with: &dyn Conversation,
        request: Request,
    ) -> Answer {
        let class = request.class;
        self.converse_as(connection, with, request, |answer| (answer, class)).await
    }

    /// As [`Link::converse`], with the protocol's last word: `settle` turns what the
    /// conversation said into the answer that is given, and into the exchange's class.
    pub async fn converse_as(
        self: &Arc<Self>,
        connection: u64,
        with: &dyn Conversation,
        request: Request,
        settle: impl FnOnce(Answer) -> (Answer, Class) + Send,
    ) -> Answer {
        let mut pending = self.ask(connection, request);
        let (answer, hit) = with.answer(pending.request()).await;
        pending.hit = hit;
        let (answer, class) = settle(answer);
        match &answer {
            Answer::Reply(response) => pending.answered_as(class, response),
            Answer::Cut if pending.hit.is_none() && with.cuts_are_failures() => {
                pending.failed("the server closed the connection");
            }
            Answer::Cut => pending.dropped(),
            Answer::Nothing => pending.one_way(),
            Answer::Unknown => pending.failed("not known here"),
            Answer::Silence => {
                // Held until the asker goes away: the caller's task is cancelled with it.
                std::future::pending::<()>().await;
            }
        }
        answer
    }

    fn open(self: &Arc<Self>, connection: u64, request: Request, firing: Option<Firing>) -> Pending {
        let counted = request.class == Class::Work;
        if counted {
            self.open.count.fetch_add(1, Ordering::SeqCst);
        }
        let hit = firing.as_ref().map(|f| f.hit.clone());
        Pending {
            link: self.clone(),
            connection,
            firing,
            hit,
            phase: self.journal.phase(),
            began_ns: self.journal.clock().now_ns(),
            began_seq: self.journal.position(),
            counted,
            body: Told::InRequest,
            request: Some(request),
        }
    }

    /// Waits, but no longer than the fault that asked for it is active.
    pub async fn pause(&self, duration: Duration) {
        let time = self.time();
        let Some(faults) = &self.faults else {
            return time.sleep(duration).await;
        };
        let mut changes = faults.changes();
        tokio::select! {
            () = time.sleep(duration) => {}
            _ = changes.changed() => {}
        }
    }
}

/// An exchange that has begun.
pub struct Pending {
    link: Arc<Link>,
    connection: u64,
    firing: Option<Firing>,
    hit: Option<RuleHit>,
    phase: Phase,
    began_ns: u64,
    began_seq: u64,
    counted: bool,
    body: Told,
    request: Option<Request>,
}

/// Makes a request or a response from what it holds, off the way of the exchange.
pub type Later = Box<dyn FnOnce() -> Value + Send + Sync>;
/// Says when the exchange closes what its request's body is made from.
pub type LateBody = Box<dyn FnOnce() -> Later + Send + Sync>;

/// Where a request's body is.
enum Told {
    InRequest,
    Later(Later),
    AtClose(LateBody),
}

impl Pending {
    /// The rule that acts on it, if any. The protocol carries it out.
    pub fn firing(&self) -> Option<&Firing> {
        self.firing.as_ref()
    }

    /// The request.
    pub fn request(&self) -> &Request {
        match &self.request {
            Some(request) => request,
            // Taken only by `close`, which consumes or drops `self`.
            None => unreachable!("a pending exchange holds its request until it is closed"),
        }
    }

    /// The request turned out to be this: what streamed by after the rules were asked.
    pub fn revise(&mut self, body: Value) {
        if let Some(request) = &mut self.request {
            request.body = body;
            self.body = Told::InRequest;
        }
    }

    /// The request is this, for whoever reads the journal.
    pub fn revise_later(&mut self, body: impl FnOnce() -> Value + Send + Sync + 'static) {
        self.body = Told::Later(Box::new(body));
    }

    /// The request is still streaming by: what it turned out to be is asked when the exchange
    /// closes, however it does.
    pub fn revise_at_close(&mut self, body: LateBody) {
        self.body = Told::AtClose(body);
    }

    /// The exchange no longer holds up the end of the scenario, though more may follow (an
    /// answer without a recognisable end).
    pub fn settled(&mut self) {
        if std::mem::take(&mut self.counted) && self.link.open.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.link.open.changed.notify_waiters();
        }
    }

    /// The asker got this response (as re-encodable [`Value`]).
    pub fn answered(mut self, response: &Value) {
        self.close(Outcome::Answered, Some(encoded(response)));
    }

    /// As [`Pending::answered`], with a response that is made when somebody reads it.
    pub fn answered_later(mut self, response: impl FnOnce() -> Value + Send + Sync + 'static) {
        self.close(Outcome::Answered, Some(Box::new(move || Payload::of(&response()))));
    }

    /// As [`Pending::answered`], with the class decided by the response (an empty poll).
    pub fn answered_as(mut self, class: Class, response: &Value) {
        if let Some(request) = &mut self.request {
            request.class = class;
        }
        self.close(Outcome::Answered, Some(encoded(response)));
    }

    /// A rule cut the connection instead.
    pub fn dropped(mut self) {
        self.close(Outcome::Dropped, None);
    }

    /// Who was asked failed without an answer.
    pub fn failed(mut self, why: &str) {
        self.close(Outcome::Failed, Some(encoded(&Value::text(why).volatile())));
    }

    /// The request has no response.
    pub fn one_way(mut self) {
        self.close(Outcome::OneWay, None);
    }

    fn close(&mut self, outcome: Outcome, response: Option<LatePayload>) {
        let Some(request) = self.request.take() else { return };
        let body = match std::mem::replace(&mut self.body, Told::InRequest) {
            Told::InRequest => None,
            Told::Later(body) => Some(body),
            Told::AtClose(body) => Some(body()),
        };
        let closed = Closed {
            source: self.link.source.clone(),
            interface: self.link.interface.clone(),
            protocol: self.link.protocol,
            connection: self.connection,
            outcome,
            response,
            rule: self.hit.take(),
            began_ns: self.began_ns,
            began_seq: self.began_seq,
            request,
            body,
        };
        // The place of an exchange in the journal is this moment; its words can wait.
        self.link.journal.note_later(self.phase, closed);
        self.settled();
    }
}

type LatePayload = Box<dyn FnOnce() -> Payload + Send>;

fn encoded(value: &Value) -> LatePayload {
    let payload = Payload::of(value);
    Box::new(move || payload)
}

/// An exchange that is over.
struct Closed {
    source: Arc<str>,
    interface: Arc<str>,
    protocol: &'static str,
    connection: u64,
    outcome: Outcome,
    response: Option<LatePayload>,
    rule: Option<RuleHit>,
    began_ns: u64,
    began_seq: u64,
    request: Request,
    body: Option<Later>,
}

impl Said for Closed {
    fn stream(&self, name: &mut String) {
        let parts = [&*self.source, ">", &self.interface, ":", &self.request.key];
        name.reserve_exact(parts.iter().map(|part| part.len()).sum());
        name.extend(parts);
    }

    fn entry(self, place: Place) -> Entry {
        let mut stream = String::new();
        self.stream(&mut stream);
        let request = self.request;
        let source = Name::from(&*self.source);
        let exchange = Exchange {
            protocol: self.protocol.into(),
            source: source.clone(),
            interface: Name::from(&*self.interface),
            connection: self.connection,
            operation: Name::from(&*request.operation),
            key: request.key,
            class: request.class,
            mutating: request.mutating,
            repeatable: request.repeatable,
            request: Payload::of(&self.body.map_or(request.body, |body| body())),
            outcome: self.outcome,
            response: self.response.map(|response| response()),
            rule: self.rule,
            began_ns: self.began_ns,
            ended_ns: place.at_ns(),
            began_seq: self.began_seq,
        };
        place.entry(source, stream, None, Body::Exchange(exchange))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.close(Outcome::Abandoned, None);
    }
}
