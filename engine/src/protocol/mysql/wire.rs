//! Packets and primitive fields of the MySQL protocol.
//!
//! Contract: sans I/O; [`take_message`] gives a whole message, asks for more, or refuses.
//! A message of 16 MiB and more travels in several frames and comes out in one piece.
//! Not modelled: compressed frames and TLS (the proxy strips both from the greeting).

use bytes::{Buf, Bytes, BytesMut};

/// Longest message that is kept in memory; MySQL's own ceiling for `max_allowed_packet`.
pub const MESSAGE_MAX: usize = 1 << 30;
const FRAME_MAX: usize = 0xff_ffff;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mysql: {0}")]
pub struct CodecError(pub String);

/// The result of decoding.
pub type Decoded<T> = Result<T, CodecError>;

/// An error about a malformed part.
pub fn malformed<T>(what: &str) -> Decoded<T> {
    Err(CodecError(format!("malformed {what}")))
}

/// One message, its frames joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Sequence number of its last frame.
    pub seq: u8,
    /// The content.
    pub payload: Bytes,
    /// The frames as they came.
    pub raw: Bytes,
}

/// Takes the next message off the buffer; `None` means that more bytes are needed.
///
/// # Errors
/// When the message is longer than [`MESSAGE_MAX`].
pub fn take_message(buffer: &mut BytesMut) -> Decoded<Option<Message>> {
    let (mut at, mut frames) = (0, 0);
    let seq = loop {
        let Some(header) = buffer.get(at..at + 4) else { return Ok(None) };
        let len = usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
        let seq = header[3];
        if at + 4 + len > MESSAGE_MAX {
            return Err(CodecError("message longer than 1 GiB".into()));
        }
        if buffer.len() < at + 4 + len {
            return Ok(None);
        }
        at += 4 + len;
        frames += 1;
        if len < FRAME_MAX {
            break seq;
        }
    };
    let raw = buffer.split_to(at).freeze();
    let payload = if frames == 1 { raw.slice(4..) } else { joined(&raw) };
    Ok(Some(Message { seq, payload, raw }))
}

fn joined(raw: &Bytes) -> Bytes {
    let mut payload = BytesMut::with_capacity(raw.len());
    let mut rest = raw.clone();
    while rest.len() >= 4 {
        let len = (rest.get_uint_le(3) as usize).min(rest.len().saturating_sub(1));
        rest.advance(1);
        payload.extend_from_slice(&rest.split_to(len));
    }
    payload.freeze()
}

/// Appends a message, split where it must be; `seq` is the number of the next frame.
pub fn put_message(out: &mut Vec<u8>, seq: &mut u8, payload: &[u8]) {
    let mut rest = payload;
    loop {
        let (frame, after) = rest.split_at(rest.len().min(FRAME_MAX));
        out.extend_from_slice(&(frame.len() as u32).to_le_bytes()[..3]);
        out.push(*seq);
        out.extend_from_slice(frame);
        *seq = seq.wrapping_add(1);
        // A frame of the greatest length says that another follows, be it empty.
        if frame.len() < FRAME_MAX {
            return;
        }
        rest = after;
    }
}

/// Reads fields off a payload.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Fields of this payload.
    pub fn new(payload: &'a [u8]) -> Self {
        Fields { rest: payload }
    }
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
    /// So many bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn bytes(&mut self, len: usize) -> Decoded<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => malformed("field: it ends early"),
        }
    }
    /// A little-endian integer of up to eight bytes.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn int(&mut self, len: usize) -> Decoded<u64> {
        let bytes = self.bytes(len)?;
        Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }
    /// One byte.
    ///
    /// # Errors
    /// When none is left.
    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(self.int(1)? as u8)
    }
    /// A length-encoded integer.
    ///
    /// # Errors
    /// When it is cut short or its first byte means something else.
    pub fn lenenc(&mut self) -> Decoded<u64> {
        match self.u8()? {
            small @ 0..=0xfa => Ok(u64::from(small)),
            0xfc => self.int(2),
            0xfd => self.int(3),
            0xfe => self.int(8),
            _ => malformed("length"),
        }
    }
    /// Bytes with a length-encoded length.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn lenenc_bytes(&mut self) -> Decoded<&'a [u8]> {
        let len = usize::try_from(self.lenenc()?).unwrap_or(usize::MAX);
        self.bytes(len)
    }
    /// Text with a length-encoded length; what is not UTF-8 is replaced.
    ///
    /// # Errors
    /// When fewer bytes are left.
    pub fn lenenc_text(&mut self) -> Decoded<String> {
        Ok(String::from_utf8_lossy(self.lenenc_bytes()?).into_owned())
    }
    /// Bytes up to a zero byte, or to the end.
    pub fn zero_ended(&mut self) -> &'a [u8] {
        match self.rest.iter().position(|b| *b == 0) {
            Some(at) => {
                let taken = &self.rest[..at];
                self.rest = &self.rest[at + 1..];
                taken
            }
            None => self.rest(),
        }
    }
    /// The same as text.
    pub fn zero_ended_text(&mut self) -> String {
        String::from_utf8_lossy(self.zero_ended()).into_owned()
    }
}

/// Appends a length-encoded integer.
pub fn put_lenenc(out: &mut Vec<u8>, n: u64) {
    match n {
        0..=0xfa => out.push(n as u8),
        0xfb..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&n.to_le_bytes()[..2]);
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&n.to_le_bytes()[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
}

/// Appends bytes with a length-encoded length.
pub fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_lenenc(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
