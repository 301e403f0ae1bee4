//! Calls as HTTP/2 frames again, one stream after the other. Headers are literals without an index and without
//! Huffman coding, which every reader of HPACK takes; settings are empty and windows are not spoken of.

use super::value::{body_from, put_metadata, response_from};
use crate::protocol::retell::{Piece, Pieces, Retell};
use faultbox_bundle_format::Value;
use http::HeaderMap;

/// Largest frame without settings that say otherwise.
const FRAME_MAX: usize = 16_384;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection of HTTP/2.
#[derive(Default)]
pub struct Retold {
    /// How many streams there were.
    streams: u32,
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A string without Huffman coding: its length with a prefix of seven bits, then its bytes.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut left = bytes.len();
    if left < 127 {
        out.push(left as u8);
    } else {
        out.push(127);
        left -= 127;
        while left >= 128 {
            out.push((left % 128) as u8 | 128);
            left /= 128;
        }
        out.push(left as u8);
    }
    out.extend_from_slice(bytes);
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(0);
    string(out, name.as_bytes());
    string(out, value);
}

fn fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    headers.iter().for_each(|(name, value)| field(out, name.as_str(), value.as_bytes()));
}

fn headers(out: &mut Vec<u8>, stream: u32, block: &[u8], end: bool) {
    let mut chunks = block.chunks(FRAME_MAX).peekable();
    let (mut kind, mut flags) = (HEADERS, if end { END_STREAM } else { 0 });
    while let Some(chunk) = chunks.next() {
        let last = if chunks.peek().is_none() { END_HEADERS } else { 0 };
        frame(out, kind, flags | last, stream, chunk);
        (kind, flags) = (CONTINUATION, 0);
    }
}

fn data(out: &mut Vec<u8>, stream: u32, bytes: &[u8], end: bool) {
    let mut chunks = bytes.chunks(FRAME_MAX).peekable();
    if bytes.is_empty() && end {
        frame(out, DATA, END_STREAM, stream, &[]);
    }
    while let Some(chunk) = chunks.next() {
        let flags = if end && chunks.peek().is_none() { END_STREAM } else { 0 };
        frame(out, DATA, flags, stream, chunk);
    }
}

/// What both sides begin with.
fn preface() -> Vec<Piece> {
    let mut client = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut client, SETTINGS, 0, 0, &[]);
    let (mut server, mut ack) = (Vec::new(), Vec::new());
    frame(&mut server, SETTINGS, 0, 0, &[]);
    frame(&mut server, SETTINGS, ACK, 0, &[]);
    frame(&mut ack, SETTINGS, ACK, 0, &[]);
    vec![Piece::asked(client), Piece::answered(server), Piece::asked(ack)]
}

impl Retell for Retold {
    fn exchange(&mut self, request: &Value, response: Option<&Value>) -> Result<Pieces, String> {
        let stream = self.streams * 2 + 1;
        let mut asked = Vec::new();
        let mut block = Vec::new();
        let path = request.get("method").and_then(Value::as_text).unwrap_or_default();
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "faultbox")];
        pseudo.iter().for_each(|(name, value)| field(&mut block, name, value.as_bytes()));
        let mut metadata = HeaderMap::new();
        put_metadata(request.get("metadata"), &mut metadata);
        if !metadata.contains_key("content-type") {
            field(&mut block, "content-type", b"application/grpc");
        }
        field(&mut block, "te", b"trailers");
        fields(&mut block, &metadata);
        headers(&mut asked, stream, &block, false);
        data(&mut asked, stream, &body_from(None, request)?, true);
        let mut answered = Vec::new();
        if let Some(response) = response {
            let wire = response_from(None, response)?;
            let mut block = Vec::new();
            field(&mut block, ":status", wire.http_status.to_string().as_bytes());
            fields(&mut block, &wire.headers);
            headers(&mut answered, stream, &block, wire.trailers.is_none());
            if let Some(trailers) = wire.trailers {
                let mut block = Vec::new();
                fields(&mut block, &trailers);
                data(&mut answered, stream, &wire.body, block.is_empty());
                headers(&mut answered, stream, &block, true);
            }
        }
        let before = if self.streams == 0 { preface() } else { Vec::new() };
        self.streams += 1;
        Ok(Pieces { before, request: asked, response: answered })
    }
}
