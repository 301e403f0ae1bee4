//! HTTP/1.1: proxy, server side and step verbs over one codec of our own.
//!
//! Contract: bytes pass unchanged where no rule acts: keep-alive, pipelining, chunked bodies,
//! `100 Continue`, HEAD, upgrades and half-closed connections. Bodies are journaled up to
//! [`kept::KEPT_MAX`] and stream beyond it.
//! Not modelled: HTTP/2 on this protocol (it passes undecoded; see [`super::grpc`]), trailers,
//! what follows an upgrade.

pub mod client;
pub mod codec;
pub mod json;
pub mod kept;
pub mod proxy;
mod retell;
pub mod rules;
pub mod serve;
#[cfg(test)]
mod tests;
pub mod value;
pub mod wire;

use super::{Protocol, ProtocolError, RuleProblem, Verb};
use crate::fault::rule::Rule;
use crate::link::{BoxFuture, Dial, Link, Responder, Stream};
use crate::protocol::retell::Retell;
use crate::step::{StepCall, StepResponse};
use std::sync::Arc;

/// HTTP/1.1.
#[derive(Debug)]
pub struct Http;

/// The registry entry.
pub static PROTOCOL: Http = Http;

impl Protocol for Http {
    fn name(&self) -> &'static str {
        "http"
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
        Box::new(retell::Retold)
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
