//! Redis: RESP2 and RESP3.
//!
//! Contract: [`codec`] and [`value`] turn bytes into frames and frames into values and back;
//! [`command`] knows what commands mean and [`session`] what they mean in their place, for proxy
//! and server alike; [`rules`] says what faults can do; [`proxy`], [`serve`] and [`client`] are the
//! shells around them.
//! Not modelled: Redis Cluster and Sentinel addresses, TLS.

pub mod client;
pub mod codec;
pub mod command;
pub mod proxy;
mod retell;
pub mod rules;
pub mod serve;
pub mod session;
pub mod value;

#[cfg(test)]
mod tests;

use super::{Protocol, ProtocolError, RuleProblem, Verb};
use crate::fault::rule::Rule;
use crate::link::{BoxFuture, Dial, Link, Responder, Stream};
use crate::protocol::quiet::quiet;
use crate::protocol::retell::Retell;
use crate::step::{StepCall, StepResponse};
use std::sync::Arc;

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct Redis;

/// The registry entry.
pub static PROTOCOL: Redis = Redis;

impl Protocol for Redis {
    fn name(&self) -> &'static str {
        "redis"
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
        Box::new(retell::Retold)
    }

    fn proxy(
        &self,
        client: Stream,
        upstream: Arc<dyn Dial>,
        link: Arc<Link>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>> {
        Box::pin(quiet(proxy::proxy(client, upstream, link)))
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

    fn ready<'a>(&'a self, stream: Stream, _: Arc<Link>) -> BoxFuture<'a, Result<(), ProtocolError>> {
        Box::pin(client::ready(stream))
    }
}
