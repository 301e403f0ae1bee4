//! The server side that a responder speaks through: mocks and replays.
//!
//! Contract: handshake, metadata, coordinator, membership and producer ids are answered live, with
//! state that all connections of one link share; Produce, CreateTopics and DeleteTopics are the
//! responder's alone. Fetch asks the responder and is an idle broker's long poll where it knows
//! nothing (or knows an empty answer). Metadata, ListOffsets and OffsetFetch ask it as well, so that a
//! replay has the recorded partition counts and positions; without an answer a topic has
//! `KAFKA_NUM_PARTITIONS` (1) partitions, its log is empty, and what was committed live counts.

use super::batch;
use super::groups::Groups;
use super::message::{self, Offset};
use super::rules;
use super::server::{self, Backend, Call, Reply, Topic, reply_value};
use super::{host_and_port, topic_name};
use crate::fault::rule::Effect;
use crate::link::{Answer, BoxFuture, Conversation, Link, Request, Responder, Stream};
use crate::protocol::ProtocolError;
use faultbox_bundle_format::Value;
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, FetchResponse, ProduceRequest, RequestKind, ResponseKind,
    create_topics_response,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

/// How long the responder may take to say what the server could make up by itself.
const HINT_WITHIN: Duration = Duration::from_millis(500);
/// How many empty answers in a row are passed over at once.
const PASSED_OVER: usize = 1000;
/// How often a poll that waits asks the responder again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// What all connections of a link share.
#[derive(Default)]
struct Shared {
    groups: Groups,
    topics: Mutex<BTreeMap<String, i32>>,
    producers: AtomicI64,
}

struct Served {
    link: Arc<Link>,
    shared: Arc<Shared>,
    conversation: Arc<dyn Conversation>,
}

/// Serves one connection to its end.
///
/// # Errors
/// When the network fails, the bytes are not Kafka's, or the responder cuts the connection.
pub async fn run(
    client: Stream,
    link: Arc<Link>,
    responder: Arc<dyn Responder>,
) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let conversation = responder.converse(&link.source, connection);
    let shared = link.state(Shared::default);
    server::run(client, connection, Arc::new(Served { link, shared, conversation })).await
}

impl Served {
    fn partitions_unless_told(&self) -> i32 {
        let told = self.link.options.env.get("KAFKA_NUM_PARTITIONS").and_then(|n| n.parse().ok());
        told.filter(|n| *n > 0).unwrap_or(1)
    }

    fn learn(&self, topics: impl IntoIterator<Item = (String, i32)>) {
        self.shared.topics.lock().unwrap_or_else(|p| p.into_inner()).extend(topics);
    }

    /// What the responder knows about a request that the server could answer by itself.
    async fn hint(&self, call: &Call) -> Option<Value> {
        let request = call.describe();
        let asked = self.conversation.answer(&request);
        // An answer that does not come at once is none: all this is answered live.
        match self.link.time().timeout(HINT_WITHIN, asked).await {
            Ok((Answer::Reply(value), _)) => Some(value),
            _ => None,
        }
    }

    /// A Produce request: each of its records is asked for on its own, all at once.
    async fn ask_each(&self, call: &Call) -> Reply {
        let (first, rest) = batch::split(call.describe());
        let first = self.link.converse(call.connection, &*self.conversation, first);
        let mut parts: Vec<BoxFuture<'_, Answer>> = vec![Box::pin(first)];
        for request in rest {
            parts.push(Box::pin(self.ask_along(call.connection, request)));
        }
        let mut values = Vec::new();
        let mut nothing = false;
        for answer in all(parts).await {
            match answer {
                Answer::Reply(value) => values.push(value),
                Answer::Nothing => nothing = true,
                Answer::Cut | Answer::Unknown | Answer::Silence => return Reply::Cut,
            }
        }
        if nothing {
            return Reply::Nothing;
        }
        // One answer is the whole one.
        let whole = if values.len() == 1 { values.swap_remove(0) } else { batch::joined(&values) };
        Reply::Send(Box::new(message::produce_response(&whole).into()))
    }

    /// As [`Link::converse`], for a further record of a request: the rules were asked already.
    async fn ask_along(&self, connection: u64, request: Request) -> Answer {
        let pending = self.link.receive(connection, request);
        let (answer, _) = self.conversation.answer(pending.request()).await;
        match &answer {
            Answer::Reply(value) => pending.answered(value),
            Answer::Cut => pending.dropped(),
            Answer::Nothing => pending.one_way(),
            Answer::Unknown => pending.failed("not known here"),
            // Until the asker goes away.
            Answer::Silence => std::future::pending::<()>().await,
        }
        answer
    }

    /// What the responder has for a poll now: `Pending` where there is nothing, `Ready(None)` where the
    /// connection is to be cut. Its empty answers are passed over, unless a rule made them: how many polls
    /// came to nothing is timing.
    async fn poll(&self, request: &Request) -> Poll<Option<FetchResponse>> {
        for _ in 0..PASSED_OVER {
            let (answer, rule) = self.conversation.answer(request).await;
            match answer {
                Answer::Reply(value) => {
                    let response = message::fetch_response(&value);
                    if rule.is_some() || message::brings_something(&response) {
                        return Poll::Ready(Some(response));
                    }
                }
                Answer::Cut => return Poll::Ready(None),
                Answer::Unknown | Answer::Silence | Answer::Nothing => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// A request that is the responder's alone.
    async fn ask(&self, call: &Call, encode: impl Fn(&Value) -> ResponseKind) -> Reply {
        match self.link.converse(call.connection, &*self.conversation, call.describe()).await {
            Answer::Reply(value) => Reply::Send(Box::new(encode(&value))),
            Answer::Nothing => Reply::Nothing,
            Answer::Cut | Answer::Unknown | Answer::Silence => Reply::Cut,
        }
    }
}

/// Waits for all of them, side by side: one that is held may be held for another.
async fn all(mut parts: Vec<BoxFuture<'_, Answer>>) -> Vec<Answer> {
    let mut answers: Vec<Option<Answer>> = parts.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (part, answer) in parts.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
            if let Poll::Ready(done) = part.as_mut().poll(context) {
                *answer = Some(done);
            }
        }
        if answers.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    answers.into_iter().flatten().collect()
}

impl Backend for Served {
    fn advertised(&self) -> (String, i32) {
        host_and_port(&self.link.advertised)
    }

    fn groups(&self) -> &Groups {
        &self.shared.groups
    }

    fn topics<'a>(
        &'a self,
        call: &'a Call,
        names: Option<Vec<String>>,
        _create: bool,
    ) -> BoxFuture<'a, Vec<Topic>> {
        Box::pin(async move {
            if let Some(value) = self.hint(call).await {
                self.learn(message::partition_counts(&value));
            }
            let mut known = self.shared.topics.lock().unwrap_or_else(|p| p.into_inner());
            let names = names.unwrap_or_else(|| known.keys().cloned().collect());
            let topic = |name: String| {
                let partitions = *known.entry(name.clone()).or_insert_with(|| self.partitions_unless_told());
                Topic { name, partitions, error: 0 }
            };
            names.into_iter().map(topic).collect()
        })
    }

    fn produce<'a>(&'a self, call: &'a Call, request: &'a ProduceRequest) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let reply = self.ask_each(call).await;
            if request.acks == 0 && reply != Reply::Cut { Reply::Nothing } else { reply }
        })
    }

    fn fetch<'a>(&'a self, call: &'a Call, request: &'a FetchRequest) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let pending = self.link.ask(call.connection, call.describe());
            let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
            let time = self.link.time();
            let deadline = time.now() + wait;
            let response = loop {
                match self.poll(pending.request()).await {
                    Poll::Ready(Some(response)) => break response,
                    Poll::Ready(None) => {
                        pending.dropped();
                        return Reply::Cut;
                    }
                    Poll::Pending if time.now() >= deadline => {
                        break rules::fetch_error(request, 0);
                    }
                    // What it waits for may come once the cell has gone on.
                    Poll::Pending => time.ask_again(ASK_AGAIN, Some(deadline)).await,
                }
            };
            let kind = ResponseKind::Fetch(response);
            pending.answered(&message::response_value(&kind));
            Reply::Send(Box::new(kind))
        })
    }

    fn list_offsets<'a>(
        &'a self,
        call: &'a Call,
        asked: Vec<(String, i32, i64)>,
    ) -> BoxFuture<'a, Vec<Offset>> {
        Box::pin(async move {
            if let Some(value) = self.hint(call).await {
                return message::offsets(&value);
            }
            let one = |(topic, partition, _)| Offset { topic, partition, timestamp: -1, ..Offset::default() };
            asked.into_iter().map(one).collect()
        })
    }

    fn committed<'a>(
        &'a self,
        call: &'a Call,
        group: String,
        asked: Option<Vec<(String, i32)>>,
    ) -> BoxFuture<'a, Vec<Offset>> {
        Box::pin(async move {
            let live = self.shared.groups.offsets(&group, asked);
            let recorded = self.hint(call).await.map(|value| message::offsets(&value)).unwrap_or_default();
            let told = |o: &Offset| {
                let same = |r: &&Offset| {
                    r.topic == o.topic
                        && r.partition == o.partition
                        && (r.group == group || r.group.is_empty())
                };
                recorded.iter().find(same)
            };
            // What was committed live is later than what was recorded before.
            let one = |o: Offset| match (o.offset, told(&o)) {
                (-1, Some(recorded)) => Offset { group: o.group, ..recorded.clone() },
                _ => o,
            };
            if live.is_empty() { recorded } else { live.into_iter().map(one).collect() }
        })
    }

    fn create_topics<'a>(&'a self, call: &'a Call, request: &'a CreateTopicsRequest) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let reply = self.ask(call, |value| message::create_topics_response(value).into()).await;
            if let Reply::Send(kind) = &reply
                && let ResponseKind::CreateTopics(response) = &**kind
            {
                let made = |t: &&create_topics_response::CreatableTopicResult| t.error_code == 0;
                let count = |name: &str| {
                    let asked = request.topics.iter().find(|t| *t.name == *topic_name(name));
                    asked.map(|t| t.num_partitions).filter(|n| *n > 0)
                };
                let made = response.topics.iter().filter(made).map(|t| t.name.to_string());
                self.learn(made.map(|name| {
                    let partitions = count(&name).unwrap_or_else(|| self.partitions_unless_told());
                    (name, partitions)
                }));
            }
            reply
        })
    }

    fn delete_topics<'a>(&'a self, call: &'a Call, names: Vec<String>) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let reply = self.ask(call, |value| message::delete_topics_response(value).into()).await;
            let mut known = self.shared.topics.lock().unwrap_or_else(|p| p.into_inner());
            known.retain(|name, _| !names.contains(name));
            reply
        })
    }

    fn producer_id(&self) -> i64 {
        self.shared.producers.fetch_add(1, Ordering::SeqCst)
    }

    /// Notes the exchange, and does what a rule asks for: nobody has recorded an outcome for
    /// membership, so in a replay the rules act here.
    fn around<'a>(&'a self, call: &'a Call, answer: BoxFuture<'a, Reply>) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let pending = self.link.ask(call.connection, call.describe());
            let effect = pending.firing().map(|firing| firing.effect.clone());
            let reply = match &effect {
                Some(Effect::Drop) => Reply::Cut,
                Some(Effect::Error(fields)) => {
                    let code = rules::error_code(fields).unwrap_or(-1);
                    let kind: &RequestKind = &call.kind;
                    match rules::error_response(kind, code, fields.text("message")) {
                        Some(kind) => Reply::Send(Box::new(kind)),
                        None => Reply::Cut,
                    }
                }
                _ => answer.await,
            };
            if let Some(Effect::Delay(delay)) = effect {
                self.link.pause(delay).await;
            }
            match reply_value(&reply) {
                Some(value) => pending.answered(&value),
                None => pending.dropped(),
            }
            reply
        })
    }
}
