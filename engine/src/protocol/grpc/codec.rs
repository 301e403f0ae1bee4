//! Length-prefixed messages: what the body of a gRPC call is made of.
//!
//! Contract: no I/O. Any segmentation of the same bytes gives the same frames. A frame that
//! is not complete yet is "need more"; a flag that gRPC does not define is an error. Nothing
//! is allocated on the word of a length.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before a message: a flag and a length.
const PREFIX: usize = 5;

/// One message on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether the message is compressed as `grpc-encoding` says.
    pub compressed: bool,
    /// The message.
    pub data: Bytes,
}

/// Bytes that are not gRPC messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A flag that gRPC does not define.
    #[error("flag {0} before a grpc message")]
    Flag(u8),
    /// The bytes end inside a frame.
    #[error("the body ends inside a grpc message, {0} bytes after its beginning")]
    Truncated(usize),
}

/// Takes frames off the front of what has arrived.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame; `None` where more bytes are needed.
    ///
    /// # Errors
    /// When what stands there is no frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((flag, length)) = prefix(&self.buffer) else { return Ok(None) };
        if flag > 1 {
            return Err(FrameError::Flag(flag));
        }
        if self.buffer.len() - PREFIX < length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(Frame { compressed: flag == 1, data: self.buffer.split_to(length).freeze() }))
    }

    /// Ends the body.
    ///
    /// # Errors
    /// When it ends inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(FrameError::Truncated(self.buffer.len())) }
    }
}

fn prefix(buffer: &[u8]) -> Option<(u8, usize)> {
    let (flag, rest) = buffer.split_first()?;
    let length = rest.first_chunk::<4>()?;
    Some((*flag, usize::try_from(u32::from_be_bytes(*length)).ok()?))
}

/// All frames of a whole body.
///
/// # Errors
/// When it is not a sequence of whole frames.
pub fn decode_all(body: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::default();
    decoder.push(body);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next_frame()? {
        frames.push(frame);
    }
    decoder.finish().map(|()| frames)
}

/// Writes one frame.
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    out.reserve(PREFIX + frame.data.len());
    out.put_u8(u8::from(frame.compressed));
    // A message in memory is shorter than 4 GiB: what arrived had a 32-bit length.
    out.put_u32(u32::try_from(frame.data.len()).unwrap_or(u32::MAX));
    out.put_slice(&frame.data);
}

/// The text of a `grpc-message` header.
pub fn message_from_header(header: &[u8]) -> String {
    let mut out = Vec::with_capacity(header.len());
    let mut rest = header;
    while let Some((byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(decoded) if *byte == b'%' => {
                out.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The `grpc-message` header for a text.
pub fn message_to_header(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// For the fuzzer: any bytes, in one piece and byte by byte, give the same result.
pub fn fuzz_one(bytes: &[u8]) {
    let whole = decode_all(bytes);
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    let mut failed = None;
    'bytes: for byte in bytes {
        decoder.push(std::slice::from_ref(byte));
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    failed = Some(error);
                    break 'bytes;
                }
            }
        }
    }
    let pieces = match failed {
        Some(error) => Err(error),
        None => decoder.finish().map(|()| frames),
    };
    assert_eq!(whole, pieces, "segmentation changes the frames");
    let _ = message_from_header(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_back(messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..5)) {
            let frames: Vec<Frame> = messages.into_iter()
                .map(|(compressed, data)| Frame { compressed, data: data.into() }).collect();
            let mut bytes = BytesMut::new();
            for frame in &frames {
                encode(frame, &mut bytes);
            }
            prop_assert_eq!(decode_all(&bytes), Ok(frames));
            fuzz_one(&bytes);
            for end in 0..bytes.len() {
                fuzz_one(&bytes[..end]);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_one(&bytes);
        }

        #[test]
        fn status_messages_come_back(text in any::<String>()) {
            prop_assert_eq!(message_from_header(message_to_header(&text).as_bytes()), text);
        }
    }
}
