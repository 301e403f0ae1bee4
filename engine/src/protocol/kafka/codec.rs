//! Bytes to frames and back: length-framed requests and responses of Kafka's protocol.
//!
//! Contract: sans-io; decoders tell a message, "more bytes are needed" and an error apart, never
//! panic, and prove every length before they allocate ([`super::shape`]). A request of an api or a
//! version that is not decoded is [`Decoded::Opaque`]: it can be forwarded, not understood.
//! Not modelled: SASL (its requests are opaque), topic ids on the wire (see `SHAPES`).

use super::shape::{self, Shape};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable};

/// Largest frame that is taken in whole. Brokers allow 100 MiB by default; some are set higher.
pub const FRAME_MAX: usize = 512 << 20;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub String);

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
}

impl Framer {
    /// The buffer to read into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next frame without its length; `None` while more bytes are needed.
    ///
    /// # Errors
    /// When what stands there is no length of a frame.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, CodecError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let len = i32::from_be_bytes(*prefix);
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= FRAME_MAX) else {
            return Err(CodecError(format!("{len} is no length of a frame")));
        };
        if self.buffer.len() < 4 + len {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    /// What was read and is not a frame.
    pub fn take_rest(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }
}

/// A frame with its length in front.
pub fn framed(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 4);
    // A frame that was read or built here is below `FRAME_MAX`.
    out.put_i32(i32::try_from(payload.len()).unwrap_or(i32::MAX));
    out.put_slice(payload);
    out.freeze()
}

/// The front of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The api key.
    pub api: i16,
    /// Its version.
    pub version: i16,
    /// Names the request on its connection.
    pub correlation: i32,
    /// What the client calls itself.
    pub client: Option<String>,
}

impl Head {
    /// The api's name.
    pub fn name(&self) -> String {
        match shape::of(self.api) {
            Some(shape) => shape.name.to_owned(),
            None => match ApiKey::try_from(self.api) {
                Ok(key) => format!("{key:?}"),
                Err(()) => format!("api {}", self.api),
            },
        }
    }

    fn shape(&self) -> Option<&'static Shape> {
        shape::of(self.api).filter(|s| self.version >= s.min && self.version <= s.max)
    }
}

/// The body of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// Understood.
    Known(Box<RequestKind>),
    /// An api or a version that is forwarded as it is.
    Opaque,
}

/// Decodes a request.
///
/// # Errors
/// When the frame is no request.
pub fn decode_request(frame: &Bytes) -> Result<(Head, Decoded), CodecError> {
    let mut front = frame.clone();
    if front.remaining() < 8 {
        return Err(CodecError("a request shorter than its header".into()));
    }
    let (api, version, correlation) = (front.get_i16(), front.get_i16(), front.get_i32());
    let mut head = Head { api, version, correlation, client: None };
    let (Some(shape), Ok(key)) = (head.shape(), ApiKey::try_from(api)) else {
        return Ok((head, Decoded::Opaque));
    };
    let mut body = frame.clone();
    let header = RequestHeader::decode(&mut body, key.request_header_version(version)).map_err(wrong)?;
    head.client = header.client_id.map(|id| id.to_string());
    shape::check(api, shape.request, version, &body)?;
    let kind = RequestKind::decode(key, &mut body, version).map_err(wrong)?;
    Ok((head, Decoded::Known(Box::new(kind))))
}

/// Encodes a request, with its length in front.
///
/// # Errors
/// When the message has fields that its version cannot say.
pub fn encode_request(head: &Head, kind: &RequestKind) -> Result<Bytes, CodecError> {
    let key = ApiKey::try_from(head.api).map_err(|()| CodecError(format!("no api {}", head.api)))?;
    let header = RequestHeader::default()
        .with_request_api_key(head.api)
        .with_request_api_version(head.version)
        .with_correlation_id(head.correlation)
        .with_client_id(head.client.clone().map(Into::into));
    let mut out = BytesMut::new();
    header.encode(&mut out, key.request_header_version(head.version)).map_err(wrong)?;
    kind.encode(&mut out, head.version).map_err(wrong)?;
    Ok(framed(&out))
}

/// The correlation id of a response.
///
/// # Errors
/// When the frame is shorter than one.
pub fn response_correlation(frame: &Bytes) -> Result<i32, CodecError> {
    let id = frame.first_chunk::<4>().ok_or_else(|| CodecError("a response without its header".into()))?;
    Ok(i32::from_be_bytes(*id))
}

/// Decodes the response to a request.
///
/// # Errors
/// When the frame is no response to it, or the api is not decoded.
pub fn decode_response(head: &Head, frame: &Bytes) -> Result<ResponseKind, CodecError> {
    let (Some(shape), Ok(key)) = (head.shape(), ApiKey::try_from(head.api)) else {
        return Err(CodecError(format!("{} v{} is not decoded", head.name(), head.version)));
    };
    let mut body = frame.clone();
    ResponseHeader::decode(&mut body, key.response_header_version(head.version)).map_err(wrong)?;
    let mut version = head.version;
    // A broker that does not know the version of an ApiVersions request answers in version 0.
    if key == ApiKey::ApiVersions && body.starts_with(&35i16.to_be_bytes()) {
        version = 0;
    }
    shape::check(head.api, shape.response, version, &body)?;
    ResponseKind::decode(key, &mut body, version).map_err(wrong)
}

/// Encodes the response to a request, with its length in front.
///
/// # Errors
/// When the message has fields that the request's version cannot say.
pub fn encode_response(head: &Head, kind: &ResponseKind) -> Result<Bytes, CodecError> {
    let key = ApiKey::try_from(head.api).map_err(|()| CodecError(format!("no api {}", head.api)))?;
    let mut out = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(head.correlation);
    header.encode(&mut out, key.response_header_version(head.version)).map_err(wrong)?;
    let version = match kind {
        ResponseKind::ApiVersions(answer) if answer.error_code == 35 => 0,
        _ => head.version,
    };
    kind.encode(&mut out, version).map_err(wrong)?;
    Ok(framed(&out))
}

fn wrong(error: impl std::fmt::Display) -> CodecError {
    CodecError(format!("{error:#}"))
}

/// Feeds bytes from outside to every decoder of this protocol.
pub fn fuzz_one(bytes: &[u8]) {
    let mut framer = Framer::default();
    framer.buffer().extend_from_slice(bytes);
    while let Ok(Some(frame)) = framer.next_frame() {
        fuzz_frame(&frame);
    }
    fuzz_frame(&Bytes::copy_from_slice(bytes));
}

fn fuzz_frame(frame: &Bytes) {
    if let Ok((head, Decoded::Known(kind))) = decode_request(frame) {
        let _ = super::message::describe(&head, &kind);
        let _ = encode_request(&head, &kind);
    }
    // The first two bytes choose what the rest is a response to.
    if let [api, version, rest @ ..] = frame.as_ref() {
        if let Some(shape) = shape::SHAPES.get(usize::from(*api) % shape::SHAPES.len()) {
            let version = shape.min + i16::from(*version) % (shape.max - shape.min + 1);
            let head = Head { api: shape.api, version, correlation: 0, client: None };
            if let Ok(kind) = decode_response(&head, &Bytes::copy_from_slice(rest)) {
                let _ = super::message::response_value(&kind);
                let _ = encode_response(&head, &kind);
            }
        }
    }
    let _ = super::records::decode_all(frame);
}
