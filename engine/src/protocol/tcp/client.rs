//! Step verbs on opaque bytes, each on a connection of its own.

use super::QUIET;
use crate::link::{Dial, Link, Stream};
use crate::protocol::http::client::{within, words};
use crate::protocol::http::wire::{Inbox, Side};
use crate::protocol::{Parameter, ProtocolError, Verb};
use crate::step::{StepCall, StepResponse};
use crate::virtual_time::Time;
use faultbox_bundle_format::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Most bytes that a step takes in.
const ANSWER_MAX: usize = 64 << 20;

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "send",
        parameters: &[
            Parameter { name: "data", required: true },
            Parameter { name: "reply", required: false },
        ],
        doc: "sends bytes and takes in the answer until it pauses (reply = False: no answer)",
    },
    Verb {
        name: "expect",
        parameters: &[
            Parameter { name: "text", required: true },
            Parameter { name: "data", required: false },
        ],
        doc: "sends bytes, if any, and waits until the answer contains a text",
    },
];

/// Performs a step.
pub async fn step(dial: Arc<dyn Dial>, link: Arc<Link>, call: &StepCall) -> StepResponse {
    let began = link.journal().clock().now_ns();
    let work = async {
        let data = call.argument("data").map(Value::bare).filter(|data| **data != Value::Null);
        let data = match data.map(|data| data.as_bytes().ok_or(())) {
            None => &[],
            Some(Ok(data)) => data,
            Some(Err(())) => return StepResponse::no_answer("data is neither a string nor bytes"),
        };
        let until = match call.verb.as_str() {
            "expect" => match call.argument("text").and_then(Value::as_bytes) {
                Some(text) => Until::Holds(text),
                None => return StepResponse::no_answer("text is neither a string nor bytes"),
            },
            _ if call.argument("reply").and_then(Value::as_bool) == Some(false) => Until::Sent,
            _ => Until::Quiet,
        };
        match perform(&*dial, data, until, link.time()).await {
            Ok(response) => response,
            Err(error) => StepResponse::no_answer(words(&error)),
        }
    };
    let mut response = within(link.time(), call.timeout, work).await;
    response.duration = Duration::from_nanos(link.journal().clock().now_ns().saturating_sub(began));
    response
}

/// When a step is over.
enum Until<'a> {
    /// Everything is sent.
    Sent,
    /// The answer pauses.
    Quiet,
    /// The answer contains this.
    Holds(&'a [u8]),
}

async fn perform(
    dial: &dyn Dial,
    data: &[u8],
    until: Until<'_>,
    time: &Time,
) -> std::io::Result<StepResponse> {
    let Side { mut read, mut write } = Side::new(dial.dial().await?);
    write.write_all(data).await?;
    write.flush().await?;
    let (ok, error) = match until {
        Until::Sent => {
            write.shutdown().await?;
            (true, None)
        }
        Until::Quiet => {
            quiet(&mut read, time).await?;
            let answered = !read.buffer.is_empty();
            (answered, (!answered).then(|| "connection closed before an answer".to_owned()))
        }
        Until::Holds(text) => {
            let found = holds(&mut read, text).await?;
            (found, (!found).then(|| "connection closed before the text came".to_owned()))
        }
    };
    let body = read.buffer.to_vec();
    let data = if body.is_empty() { Value::Null } else { Value::text_or_bytes(&body) };
    Ok(StepResponse { ok, body, data, error, ..StepResponse::default() })
}

async fn quiet(read: &mut Inbox, time: &Time) -> std::io::Result<()> {
    let mut more = read.more().await?;
    while more && read.buffer.len() < ANSWER_MAX {
        more = match time.timeout(QUIET, read.more()).await {
            Ok(more) => more?,
            Err(_) => false,
        };
    }
    Ok(())
}

async fn holds(read: &mut Inbox, text: &[u8]) -> std::io::Result<bool> {
    loop {
        if text.is_empty() || read.buffer.windows(text.len()).any(|window| window == text) {
            return Ok(true);
        }
        if read.buffer.len() >= ANSWER_MAX || !read.more().await? {
            return Ok(false);
        }
    }
}

/// Whether the connection stays open for a moment: all that can be asked of unknown bytes.
///
/// # Errors
/// When it is closed at once.
pub async fn ready(stream: Stream, time: &Time) -> Result<(), ProtocolError> {
    let mut side = Side::new(stream);
    match time.timeout(QUIET, side.read.more()).await {
        Ok(Ok(false)) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(true)) | Err(_) => Ok(()),
    }
}
