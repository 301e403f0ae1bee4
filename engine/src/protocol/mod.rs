//! Wire protocols. One folder each and one line in [`PROTOCOLS`].
//!
//! Contract: codecs and rules do no I/O and read no clock; `proxy`, `serve` and `step` are
//! the shells around them. There is one decoder per protocol in the repository: proxy, mock,
//! stand-in, replay and inspect use the same.
//!
//! A protocol has two sides. [`Protocol::proxy`] stands between an asker and a real server
//! and changes nothing that no rule asks for. [`Protocol::serve`] *is* the server: it
//! answers handshakes itself and everything else with what a [`Responder`] says (a mock, a
//! stand-in, or a bundle in a replay).

pub mod grpc;
pub mod http;
pub mod kafka;
pub mod mysql;
mod quiet;
pub mod redis;
pub mod retell;
pub mod tcp;
#[cfg(test)]
pub mod testing;

use crate::fault::rule::Rule;
use crate::link::{BoxFuture, Dial, Link, Responder, Stream};
use crate::step::{StepCall, StepResponse};
use std::sync::Arc;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The network failed.
    #[error("i/o: {0}")]
    Io(#[from] std::io::Error),
    /// Bytes that are not of this protocol.
    #[error("{0}")]
    Malformed(String),
    /// A rule (or a recorded answer) cuts the connection: the shell resets it.
    #[error("cut by a rule")]
    Cut,
}

/// A rule that its protocol cannot carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleProblem {
    /// What is wrong: `mysql cannot answer status_code=503`.
    pub message: String,
    /// The parameter that it is about, for the caret.
    pub argument: Option<String>,
    /// What to do instead.
    pub hint: Option<String>,
}

/// One parameter of a step verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Whether a call without it is an error.
    pub required: bool,
}

/// One step verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// Its parameters (besides `timeout`), in order of position.
    pub parameters: &'static [Parameter],
    /// One line for `faultbox help`.
    pub doc: &'static str,
}

/// A wire protocol.
pub trait Protocol: Send + Sync + 'static {
    /// The registered name; it is written into bundles.
    fn name(&self) -> &'static str;

    /// `http` for protocols whose interfaces have a `.url`.
    fn url_scheme(&self) -> Option<&'static str> {
        None
    }

    /// Fields that rules can match on (`query`, `table`).
    fn matchers(&self) -> &'static [&'static str];

    /// Step verbs.
    fn verbs(&self) -> &'static [Verb];

    /// Parameters that `error(...)` and `response(...)` take on this protocol, besides
    /// `delay_ms`, `drop`, matchers and modifiers.
    fn effect_parameters(&self) -> &'static [&'static str];

    /// A rule's pattern in the form in which the field's values are matched.
    fn normalised(&self, _field: &str, glob: &str) -> String {
        glob.to_owned()
    }

    /// Whether the rule can be carried out.
    ///
    /// # Errors
    /// What is wrong with it, for a diagnostic at load.
    fn check_rule(&self, rule: &Rule) -> Result<(), RuleProblem>;

    /// Whether two requests with this operation may come in either order: which of them a client
    /// sends first is timing. (Those of one stream keep their order in it.)
    fn side_by_side(&self, _operation: &str) -> bool {
        false
    }

    /// Says the exchanges of one recorded connection again, as bytes.
    fn retell(&self) -> Box<dyn retell::Retell>;

    /// Carries one connection to the real server, meeting the link's rules on the way.
    fn proxy(
        &self,
        client: Stream,
        upstream: Arc<dyn Dial>,
        link: Arc<Link>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>>;

    /// Serves one connection with what the responder says.
    fn serve(
        &self,
        client: Stream,
        link: Arc<Link>,
        responder: Arc<dyn Responder>,
    ) -> BoxFuture<'static, Result<(), ProtocolError>>;

    /// Performs a step over connections that `dial` opens. Never an error: what went wrong
    /// stands in the response.
    fn step<'a>(
        &'a self,
        dial: Arc<dyn Dial>,
        link: Arc<Link>,
        call: &'a StepCall,
    ) -> BoxFuture<'a, StepResponse>;

    /// Asks a server whether it serves (not merely accepts).
    fn ready<'a>(&'a self, stream: Stream, link: Arc<Link>) -> BoxFuture<'a, Result<(), ProtocolError>>;
}

/// Every protocol, in the order in which they are listed to users.
pub static PROTOCOLS: &[&dyn Protocol] =
    &[&http::PROTOCOL, &grpc::PROTOCOL, &mysql::PROTOCOL, &redis::PROTOCOL, &kafka::PROTOCOL, &tcp::PROTOCOL];

/// Room made for one read.
const READ: usize = 16 << 10;

/// The buffer, with room for a read. Without it a read into a full buffer takes 64 bytes at a time.
pub(crate) fn with_room(buffer: &mut bytes::BytesMut) -> &mut bytes::BytesMut {
    if buffer.capacity() - buffer.len() < READ / 4 {
        buffer.reserve(READ);
    }
    buffer
}

/// The protocol of that name.
pub fn by_name(name: &str) -> Option<&'static dyn Protocol> {
    PROTOCOLS.iter().copied().find(|protocol| protocol.name() == name)
}
