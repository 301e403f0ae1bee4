//! gRPC over HTTP/2 with prior knowledge: proxy, server side and step verb.
//!
//! Contract: calls are multiplexed; deadlines, cancellation, streams and trailers pass through
//! unharmed. Messages are decoded through the interface's descriptors where it has some, and
//! stay bytes where it has none. Errors are real gRPC statuses (trailers only).
//! Not modelled: gRPC-Web, decompression of messages (they stay bytes), interactive
//! bidirectional streams in a replay (answered when the asker has ended its half).

pub mod client;
pub mod codec;
pub mod message;
mod passing;
pub mod proxy;
pub mod reflection;
mod retell;
pub mod rules;
pub mod serve;
mod settle;
pub mod status;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_http2;
pub mod value;
pub mod wire;

use super::{Protocol, ProtocolError, RuleProblem, Verb};
use crate::fault::rule::Rule;
use crate::link::{BoxFuture, Dial, Link, Responder, Stream};
use crate::protocol::retell::Retell;
use crate::step::{StepCall, StepResponse};
use std::sync::Arc;

/// gRPC.
#[derive(Debug)]
pub struct Grpc;

/// The registry entry.
pub static PROTOCOL: Grpc = Grpc;

impl Protocol for Grpc {
    fn name(&self) -> &'static str {
        "grpc"
    }

    fn url_scheme(&self) -> Option<&'static str> {
        Some("http")
    }

    fn matchers(&self) -> &'static [&'static str] {
        rules::MATCHERS
    }

    fn verbs(&self) -> &'static [Verb] {
        client::VERBS
    }

    fn effect_parameters(&self) -> &'static [&'static str] {
        rules::PARAMETERS
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
        Box::pin(proxy::proxy(client, upstream, link))
    }

    fn serve(
        &self,
        client: Stream,
        link: Arc<Link>,
        responder: Arc<dyn Responder>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>> {
        Box::pin(serve::serve(client, link, responder))
    }

    fn step<'a>(
        &'a self,
        dial: Arc<dyn Dial>,
        link: Arc<Link>,
        call: &'a StepCall,
    ) -> BoxFuture<'a, StepResponse> {
        Box::pin(client::step(dial, link, call))
    }

    fn ready<'a>(&'a self, stream: Stream, link: Arc<Link>) -> BoxFuture<'a, Result<(), ProtocolError>> {
        Box::pin(async move { client::ready(stream, &link).await })
    }
}
