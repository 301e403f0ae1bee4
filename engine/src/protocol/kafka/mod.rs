//! Kafka: produce, fetch, metadata, classic consumer groups, idempotent producers, topics.
//!
//! Contract: the proxy forwards bytes unchanged but for three things: advertised addresses become
//! the interface's own (so clients stay behind the proxy), ApiVersions is capped to what is decoded
//! (Produce and Fetch end at version 12, before topic ids, so every record's topic has its name on
//! the wire), and what rules ask for. Requests are pipelined and answered in order; requests of
//! other apis or versions pass through undecoded (one `Control` exchange each).
//!
//! Classes: Produce is `Work`: one exchange a request, with its records decoded. Fetch is `Ambient`:
//! it is a consumer's background poll, and timing alone decides how records are cut into fetches and
//! whether one is answered before the scenario ends or after it; its content is in the journal and a
//! replay serves it, but it is not digested. Creating and deleting topics is `Work`; metadata,
//! heartbeats and commits are `Ambient`, everything else is `Control`. Rules without matchers apply
//! to Produce and Fetch.
//!
//! Not modelled: one proxy stands for one broker (several brokers of one cluster all appear as it);
//! SASL and transactions pass through the proxy undecoded, the server side refuses transactions.

pub mod batch;
pub mod client;
pub mod codec;
pub mod groups;
pub mod message;
pub mod proxy;
pub mod records;
mod retell;
pub mod rules;
pub mod serve;
pub mod server;
pub mod shape;
#[cfg(test)]
mod tests;

use super::{Parameter, Protocol, ProtocolError, RuleProblem, Verb};
use crate::fault::rule::Rule;
use crate::link::{BoxFuture, Dial, Link, Responder, Stream};
use crate::protocol::quiet::quiet;
use crate::protocol::retell::Retell;
use crate::step::{StepCall, StepResponse};
use kafka_protocol::messages::TopicName;
use std::sync::Arc;

/// The registry entry.
pub static PROTOCOL: Kafka = Kafka;

/// The protocol.
pub struct Kafka;

const fn parameter(name: &'static str, required: bool) -> Parameter {
    Parameter { name, required }
}

static VERBS: &[Verb] = &[
    Verb {
        name: "publish",
        parameters: &[
            parameter("topic", true),
            parameter("value", true),
            parameter("key", false),
            parameter("headers", false),
            parameter("partition", false),
        ],
        doc: "appends one record to a topic; data has topic, partition and offset",
    },
    Verb {
        name: "consume",
        parameters: &[
            parameter("topic", true),
            parameter("count", false),
            parameter("max", false),
            parameter("from", false),
            parameter("partition", false),
        ],
        doc: "reads records of a topic from \"earliest\", \"latest\" or an offset until count came; data is a list",
    },
    Verb {
        name: "offsets",
        parameters: &[parameter("topic", false), parameter("group", false)],
        doc: "first and next offset of each partition of a topic, or what a group has committed",
    },
];

impl Protocol for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn matchers(&self) -> &'static [&'static str] {
        rules::MATCHERS
    }

    fn verbs(&self) -> &'static [Verb] {
        VERBS
    }

    fn effect_parameters(&self) -> &'static [&'static str] {
        rules::EFFECT_PARAMETERS
    }

    /// A producer sends from a thread of its own, pipelined, one partition's records beside another's.
    fn side_by_side(&self, operation: &str) -> bool {
        operation == "Produce"
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), RuleProblem> {
        rules::check(rule)
    }

    fn retell(&self) -> Box<dyn Retell> {
        Box::new(retell::Retold::default())
    }

    fn proxy(
        &self,
        client: Stream,
        upstream: Arc<dyn Dial>,
        link: Arc<Link>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>> {
        Box::pin(quiet(proxy::run(client, upstream, link)))
    }

    fn serve(
        &self,
        client: Stream,
        link: Arc<Link>,
        responder: Arc<dyn Responder>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>> {
        Box::pin(serve::run(client, link, responder))
    }

    fn step<'a>(
        &'a self,
        dial: Arc<dyn Dial>,
        link: Arc<Link>,
        call: &'a StepCall,
    ) -> BoxFuture<'a, StepResponse> {
        Box::pin(client::step(dial, link, call))
    }

    fn ready<'a>(&'a self, stream: Stream, _link: Arc<Link>) -> BoxFuture<'a, Result<(), ProtocolError>> {
        Box::pin(client::ready(stream))
    }
}

/// A topic's name as the message codec wants it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(name.to_owned().into())
}

/// Host and port of `host:port`.
pub fn host_and_port(address: &str) -> (String, i32) {
    match address.rsplit_once(':') {
        Some((host, port)) => (host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or(9092)),
        None => (address.to_owned(), 9092),
    }
}
