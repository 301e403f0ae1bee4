//! The MySQL protocol.
//!
//! Contract: text and prepared statements, several results, both ways of ending rows, session
//! tracking and query attributes pass through; an exchange is a statement with its parameters,
//! whatever number it was prepared under. Statements do work; transaction control is journaled
//! and matched but no rule without matchers acts on it; logging in, preparing and session
//! set-up are control; pings are ambient. `SELECT 1` is a statement like any other.
//! Not modelled: TLS and compression through the proxy (taken out of the greeting, so clients
//! go on in clear; a client that insists is spliced), replication.

pub mod client;
pub mod command;
pub mod crypt;
pub mod facts;
pub mod fingerprint;
pub mod handshake;
mod proxy;
pub mod result;
mod retell;
pub mod rules;
pub mod serve;
mod side;
#[cfg(test)]
pub(crate) mod tests;
pub mod wire;

use super::{Parameter, Protocol, ProtocolError, RuleProblem, Verb};
use crate::fault::rule::Rule;
use crate::link::{BoxFuture, Dial, Link, Responder, Stream};
use crate::protocol::retell::Retell;
use crate::step::{StepCall, StepResponse};
use faultbox_bundle_format::Value;
use std::sync::Arc;
use std::time::Duration;

/// The protocol.
#[derive(Debug)]
pub struct Mysql;

/// The registry entry.
pub static PROTOCOL: Mysql = Mysql;

const STATEMENT: &[Parameter] =
    &[Parameter { name: "sql", required: true }, Parameter { name: "params", required: false }];

impl Protocol for Mysql {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn matchers(&self) -> &'static [&'static str] {
        rules::MATCHERS
    }

    fn verbs(&self) -> &'static [Verb] {
        const VERBS: &[Verb] = &[
            Verb { name: "query", parameters: STATEMENT, doc: "runs one statement; data is its rows" },
            Verb {
                name: "exec",
                parameters: STATEMENT,
                doc: "runs a statement or a script; data is the counts",
            },
        ];
        VERBS
    }

    fn effect_parameters(&self) -> &'static [&'static str] {
        rules::PARAMETERS
    }

    fn normalised(&self, field: &str, glob: &str) -> String {
        if field == "query" { fingerprint::pattern(glob) } else { glob.to_owned() }
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
        Box::pin(proxy::run(client, upstream, link))
    }

    fn serve(
        &self,
        client: Stream,
        link: Arc<Link>,
        responder: Arc<dyn Responder>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>> {
        Box::pin(serve::run(client, link, responder, serve::Accounts::default()))
    }

    fn step<'a>(
        &'a self,
        dial: Arc<dyn Dial>,
        link: Arc<Link>,
        call: &'a StepCall,
    ) -> BoxFuture<'a, StepResponse> {
        Box::pin(async move {
            let Some(sql) = call.argument("sql").and_then(Value::as_text) else {
                return StepResponse::no_answer("`sql` is not a text");
            };
            let params = call.argument("params").and_then(Value::as_list).unwrap_or_default();
            let script = match call.verb.as_str() {
                "query" => false,
                "exec" => true,
                other => return StepResponse::no_answer(format!("mysql has no verb `{other}`")),
            };
            let began = link.journal().clock().now_ns();
            let work = async {
                match dial.dial().await {
                    Ok(stream) => client::step(stream, &link.options, script, sql, params).await,
                    Err(error) => StepResponse::no_answer(error.to_string()),
                }
            };
            let mut response = match call.timeout {
                None => work.await,
                Some(limit) => link.time().timeout(limit, work).await.unwrap_or_else(|_| StepResponse {
                    timed_out: true,
                    ..StepResponse::no_answer("no answer in time")
                }),
            };
            response.duration = Duration::from_nanos(link.journal().clock().now_ns().saturating_sub(began));
            response
        })
    }

    fn ready<'a>(&'a self, stream: Stream, link: Arc<Link>) -> BoxFuture<'a, Result<(), ProtocolError>> {
        Box::pin(async move { client::ready(stream, &link.options).await })
    }
}

/// Feeds bytes to every decoder, as client and as server; for fuzzing.
pub fn fuzz_one(bytes: &[u8]) {
    let mut buffer = bytes::BytesMut::from(bytes);
    let capabilities = bytes.first().map_or(0, |b| u32::from(*b) << 23) | 0x00ff_ffff;
    let mut session = command::Session { capabilities, ..command::Session::default() };
    session.prepared(1, "select ?, ?, ?");
    let shapes = [
        result::Shape::Text,
        result::Shape::Binary,
        result::Shape::Prepare,
        result::Shape::Fields,
        result::Shape::Fetch,
        result::Shape::One,
    ];
    let columns = std::sync::Arc::new(vec![result::Column::plain("a", result::types::DATETIME)]);
    let mut readers = shapes.map(|shape| result::Reader::new(shape, capabilities, columns.clone()));
    // An unframed payload too, so that short inputs reach deep.
    let whole = Some(bytes::Bytes::copy_from_slice(bytes));
    let framed = std::iter::from_fn(|| wire::take_message(&mut buffer).ok().flatten().map(|m| m.payload));
    for payload in whole.into_iter().chain(framed) {
        if let Ok(command) = session.decode(&payload) {
            session.describe(&command);
        }
        let _ = handshake::Greeting::decode(&payload);
        let _ = handshake::Login::decode(&payload);
        let _ = handshake::strip(&mut payload.to_vec());
        for reader in &mut readers {
            let _ = reader.feed(&payload);
        }
    }
    for (reader, shape) in readers.into_iter().zip(shapes) {
        result::encode(&reader.finish(), shape, capabilities, 1);
    }
}
