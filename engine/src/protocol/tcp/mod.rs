//! Plain TCP: opaque bytes, for protocols that Faultbox does not know.
//!
//! Contract: bytes pass unchanged where no rule acts, half-closed connections included. An
//! exchange is a *turn*: what the asker sends until the answer starts, and the answer until
//! the asker sends again. What a server says first is a turn of its own, `greeting`. A turn is
//! journaled when it ends: bytes without a protocol have no other end.
//! Not modelled: matchers (there is nothing to match on); pipelined turns (they are one).
//! A server of ours takes a pause of [`QUIET`] for the end of what is asked.

pub mod client;
mod proxy;
mod retell;
mod serve;
#[cfg(test)]
mod tests;

use super::http::kept::Kept;
use super::http::rules::check_matchers;
use super::{Protocol, ProtocolError, RuleProblem, Verb};
use crate::fault::rule::{Effect, Rule};
use crate::link::{BoxFuture, Dial, Link, Request, Responder, Stream};
use crate::protocol::retell::Retell;
use crate::step::{StepCall, StepResponse};
use faultbox_bundle_format::{Class, Value};
use std::sync::Arc;
use std::time::Duration;

/// The pause after which what was sent is taken to be whole.
pub const QUIET: Duration = Duration::from_millis(25);

/// TCP.
#[derive(Debug)]
pub struct Tcp;

/// The registry entry.
pub static PROTOCOL: Tcp = Tcp;

/// What an asker sent in a turn.
fn request(sent: &Kept) -> Request {
    Request {
        operation: "bytes".into(),
        key: "bytes".into(),
        fields: Vec::new(),
        class: Class::Work,
        works: true,
        mutating: true,
        repeatable: false,
        body: bytes(sent),
    }
}

/// What a server says before it was asked anything.
fn greeting() -> Request {
    Request {
        operation: "greeting".into(),
        key: "greeting".into(),
        class: Class::Control,
        works: false,
        mutating: false,
        ..request(&Kept::default())
    }
}

fn bytes(kept: &Kept) -> Value {
    Value::map([("bytes", kept.value())])
}

impl Protocol for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn matchers(&self) -> &'static [&'static str] {
        &[]
    }

    fn verbs(&self) -> &'static [Verb] {
        client::VERBS
    }

    fn effect_parameters(&self) -> &'static [&'static str] {
        &[]
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), RuleProblem> {
        check_matchers("tcp", rule, &[])?;
        match &rule.effect {
            Effect::Error(_) | Effect::Respond(_) | Effect::Duplicate => Err(RuleProblem {
                message: format!("tcp rules cannot do {}", rule.words),
                argument: None,
                hint: Some("tcp rules do delay, drop, slow, corrupt, reset_after and allow".to_owned()),
            }),
            _ => Ok(()),
        }
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
        Box::pin(async move { client::ready(stream, link.time()).await })
    }
}
