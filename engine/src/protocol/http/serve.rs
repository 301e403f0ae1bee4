//! The server side: HTTP/1.1 with what a responder says.
//!
//! Contract: a request is handed over when it has wholly arrived; `100 Continue` is answered
//! live. Answers keep the order of the requests. An asker that ends its half without having
//! announced it (`Connection: close`, HTTP/1.0) is taken to be gone.
//! Not modelled: upgrades (refused by cutting the connection).

use super::codec::{self, BodyReader};
use super::value;
use super::wire::{Side, take_request};
use crate::link::{Answer, Link, Responder, Stream};
use crate::protocol::ProtocolError;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

/// Serves one connection.
pub async fn serve(
    client: Stream,
    link: Arc<Link>,
    responder: Arc<dyn Responder>,
) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let conversation = responder.converse(&link.source, connection);
    let Side { mut read, mut write } = Side::new(client);
    loop {
        let framed = match read.request().await? {
            Ok(None) => return Ok(()),
            Ok(Some(head)) => codec::request_framing(&head).map(|framing| (head, framing)),
            Err(error) => Err(error),
        };
        let (head, framing) = match framed {
            Ok(framed) => framed,
            Err(error) => {
                let _ = write.write_all(BAD_REQUEST).await;
                return Err(ProtocolError::Malformed(error.to_string()));
            }
        };
        let (body, _) = take_request(&mut read, &mut write, &head, BodyReader::new(framing)).await?;
        let request = value::request(&head, Some(&body));
        let answering = link.converse(connection, &*conversation, request);
        tokio::pin!(answering);
        let answer = tokio::select! {
            biased;
            answer = &mut answering => answer,
            gone = read.until_end() => {
                gone?;
                if !head.closes() {
                    return Ok(());
                }
                answering.await
            }
        };
        match answer {
            Answer::Reply(response) => {
                let wire = value::encode(&head.method, &response).map_err(ProtocolError::Malformed)?;
                write.write_all(&wire.0).await?;
                write.flush().await?;
                if wire.1 || head.closes() {
                    write.shutdown().await?;
                    return Ok(());
                }
            }
            // Nothing on HTTP is one-way: without an answer there is only the end.
            Answer::Cut | Answer::Unknown | Answer::Nothing | Answer::Silence => {
                return Err(ProtocolError::Cut);
            }
        }
    }
}

const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
