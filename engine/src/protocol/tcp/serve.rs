//! The server side: bytes with what a responder says.

use super::{QUIET, greeting, request};
use crate::link::{Answer, Link, Responder, Stream};
use crate::protocol::ProtocolError;
use crate::protocol::http::kept::Kept;
use crate::protocol::http::wire::{Inbox, Side};
use crate::virtual_time::Time;
use faultbox_bundle_format::Value;
use std::sync::Arc;
use tokio::io::{AsyncWriteExt, WriteHalf};

/// Serves one connection.
pub async fn serve(
    client: Stream,
    link: Arc<Link>,
    responder: Arc<dyn Responder>,
) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let conversation = responder.converse(&link.source, connection);
    let Side { mut read, mut write } = Side::new(client);
    let mut question = Some(greeting());
    loop {
        let asked = match question.take() {
            Some(question) => question,
            None => match whole(&mut read, link.time()).await? {
                Some(sent) => request(&sent),
                None => return Ok(write.shutdown().await?),
            },
        };
        let greets = asked.key == "greeting";
        match link.converse(connection, &*conversation, asked).await {
            Answer::Reply(answer) => {
                if send(&mut write, &answer).await? {
                    return Ok(write.shutdown().await?);
                }
            }
            Answer::Nothing => {}
            // A server that nobody knows to greet does not.
            Answer::Unknown if greets => {}
            Answer::Cut | Answer::Unknown | Answer::Silence => return Err(ProtocolError::Cut),
        }
    }
}

/// What the asker sends until it pauses; `None` when it has ended.
async fn whole(read: &mut Inbox, time: &Time) -> std::io::Result<Option<Kept>> {
    let mut sent = Kept::default();
    loop {
        let more = if sent.is_empty() {
            read.more().await?
        } else {
            match time.timeout(QUIET, read.more()).await {
                Ok(more) => more?,
                Err(_) => return Ok(Some(sent)),
            }
        };
        if !more {
            return Ok((!sent.is_empty()).then_some(sent));
        }
        sent.push(&read.buffer.split());
    }
}

/// Sends an answer; true where the connection ends with it.
async fn send(write: &mut WriteHalf<Stream>, answer: &Value) -> Result<bool, ProtocolError> {
    let bytes = answer.get("bytes").and_then(Value::as_bytes);
    let bytes = bytes.ok_or_else(|| ProtocolError::Malformed("an answer without its bytes".to_owned()))?;
    write.write_all(bytes).await?;
    write.flush().await?;
    Ok(answer.get("closes").and_then(Value::as_bool) == Some(true))
}
