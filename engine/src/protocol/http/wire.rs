//! One end of a connection: its halves and what has arrived but was not consumed.

use super::codec::{BodyReader, HttpError, RequestHead, request_head};
use super::kept::Kept;
use crate::link::Stream;
use crate::protocol::with_room;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

/// What is read ahead while an exchange is open (pipelined requests) stops at this.
pub const AHEAD_MAX: usize = 64 << 10;

/// One end of a connection.
pub struct Side {
    /// Where bytes come from.
    pub read: Inbox,
    /// Where bytes go.
    pub write: WriteHalf<Stream>,
}

/// The reading half with what has arrived.
pub struct Inbox {
    half: ReadHalf<Stream>,
    /// Arrived, not consumed.
    pub buffer: BytesMut,
    /// Whether the other side will send no more.
    pub ended: bool,
}

impl Side {
    /// An end of this stream.
    pub fn new(stream: Stream) -> Self {
        let (half, write) = tokio::io::split(stream);
        Side { read: Inbox { half, buffer: BytesMut::new(), ended: false }, write }
    }
}

impl Inbox {
    /// Waits for more. False at the end. Cancel safe.
    ///
    /// # Errors
    /// When the connection failed.
    pub async fn more(&mut self) -> std::io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let n = self.half.read_buf(with_room(&mut self.buffer)).await?;
        self.ended = n == 0;
        Ok(!self.ended)
    }

    /// Reads ahead until the other side ends its half. Cancel safe.
    ///
    /// # Errors
    /// When the connection failed.
    pub async fn until_end(&mut self) -> std::io::Result<()> {
        loop {
            if self.buffer.len() >= AHEAD_MAX {
                // No more room: its end is noticed when the next request is read.
                std::future::pending::<()>().await;
            }
            if !self.more().await? {
                return Ok(());
            }
        }
    }

    /// Waits for a request's head, and leaves it in the buffer. `Ok(None)` at a clean end.
    /// Cancel safe.
    ///
    /// # Errors
    /// When what arrives is no request.
    pub async fn request(&mut self) -> std::io::Result<Result<Option<RequestHead>, HttpError>> {
        loop {
            match request_head(&self.buffer) {
                Ok(None) => {}
                other => return Ok(other),
            }
            if !self.more().await? {
                let blank = self.buffer.iter().all(|b| matches!(b, b'\r' | b'\n'));
                return Ok(if blank { Ok(None) } else { Err(HttpError("the head ends early")) });
            }
        }
    }
}

/// Takes a request with its body off the wire (answering `100 Continue` where that is waited
/// for). Returns the body and the raw bytes, as far as they are kept.
///
/// # Errors
/// When the connection fails or ends early, or the body breaks its framing.
pub async fn take_request(
    read: &mut Inbox,
    write: &mut WriteHalf<Stream>,
    head: &RequestHead,
    mut body: BodyReader,
) -> std::io::Result<(Kept, Kept)> {
    let (mut kept, mut raw) = (Kept::default(), Kept::default());
    raw.push(&read.buffer.split_to(head.len));
    if head.expects_continue() && !body.done() && read.buffer.is_empty() {
        write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        write.flush().await?;
    }
    while !body.done() {
        if read.buffer.is_empty() && !read.more().await? {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let used = body.feed(&mut read.buffer, &mut |data| kept.push(data)).map_err(invalid)?;
        raw.push(&read.buffer.split_to(used));
    }
    Ok((kept, raw))
}

/// A framing error as an I/O error.
pub fn invalid(error: HttpError) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, error)
}
