//! One side of a connection: a stream with its messages.
//!
//! Contract: `message` and `gone` may be cancelled and asked again; no byte is lost.

use super::wire::{Message, put_message, take_message};
use crate::link::Stream;
use crate::protocol::{ProtocolError, with_room};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

/// Bytes that are read ahead while an answer is on its way.
const AHEAD_MAX: usize = 1 << 20;

/// A stream and what was read of it.
pub struct Side {
    pub(super) read: ReadHalf<Stream>,
    pub(super) write: WriteHalf<Stream>,
    pub(super) buffer: BytesMut,
}

impl From<super::wire::CodecError> for ProtocolError {
    fn from(error: super::wire::CodecError) -> Self {
        ProtocolError::Malformed(error.to_string())
    }
}

impl Side {
    /// This stream.
    pub fn new(stream: Stream) -> Self {
        let (read, write) = tokio::io::split(stream);
        Side { read, write, buffer: BytesMut::new() }
    }

    /// The next message, `None` at the end.
    ///
    /// # Errors
    /// When the stream fails, ends inside a message, or holds none.
    pub async fn message(&mut self) -> Result<Option<Message>, ProtocolError> {
        loop {
            if let Some(message) = take_message(&mut self.buffer)? {
                return Ok(Some(message));
            }
            if self.read.read_buf(with_room(&mut self.buffer)).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                };
            }
        }
    }

    /// The next message; the end is an error.
    ///
    /// # Errors
    /// As [`Side::message`], and at the end.
    pub async fn expect(&mut self) -> Result<Message, ProtocolError> {
        let end = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        Ok(self.message().await?.ok_or_else(end)?)
    }

    /// Returns when the other end has gone; what it sends meanwhile is kept.
    pub async fn gone(&mut self) {
        loop {
            if self.buffer.len() >= AHEAD_MAX {
                return std::future::pending().await;
            }
            match self.read.read_buf(with_room(&mut self.buffer)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// When the stream fails.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.write.write_all(bytes).await?;
        Ok(self.write.flush().await?)
    }

    /// Writes one message.
    ///
    /// # Errors
    /// When the stream fails.
    pub async fn put(&mut self, seq: &mut u8, payload: &[u8]) -> Result<(), ProtocolError> {
        let mut out = Vec::with_capacity(payload.len() + 4);
        put_message(&mut out, seq, payload);
        self.send(&out).await
    }
}
