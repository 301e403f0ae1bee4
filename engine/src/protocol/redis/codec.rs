//! RESP2 and RESP3: bytes to frames and back.
//!
//! Contract: no I/O, no clock, no panics on any input. A decoder is fed bytes and hands out whole
//! messages with the raw bytes they came in; it looks at each byte once, however the bytes are
//! cut. Nothing is allocated for a length before the bytes are there. Encoding a decoded frame
//! gives the same bytes (numbers in their usual notation).
//! Not modelled: RESP3's streamed strings and aggregates (`$?`, `*?`), which no server sends: an
//! error.

use crate::protocol::with_room;
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use std::ops::Range;

/// Deepest nesting of a frame. Redis itself nests 7 deep; a frame takes at most two levels of a
/// [`faultbox_bundle_format::Value`] for each of its own.
pub const DEPTH_MAX: usize = 24;
/// Longest line (simple strings, errors, inline commands): errors may quote a command.
pub const LINE_MAX: usize = 1 << 20;
/// Longest bulk string: Redis's own default bound.
pub const BULK_MAX: usize = 512 << 20;
/// Longest message as a whole.
pub const MESSAGE_MAX: usize = 1 << 30;
/// Most elements of one aggregate: Redis's own bound for a command.
pub const ELEMENTS_MAX: u64 = 1 << 24;

/// One message or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// `+`
    Simple(Vec<u8>),
    /// `-`
    Error(Vec<u8>),
    /// `:`
    Integer(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `*`
    Array(Vec<Frame>),
    /// `_`
    Null,
    /// `#`
    Boolean(bool),
    /// `,` in the notation in which it was sent.
    Double(String),
    /// `(`
    BigNumber(String),
    /// `!`
    BulkError(Vec<u8>),
    /// `=`
    Verbatim {
        /// Three letters: `txt`, `mkd`.
        format: String,
        /// What follows the colon.
        text: Vec<u8>,
    },
    /// `%`
    Map(Vec<(Frame, Frame)>),
    /// `~`
    Set(Vec<Frame>),
    /// `>`
    Push(Vec<Frame>),
    /// `|` in front of what it describes.
    Attribute(Vec<(Frame, Frame)>, Box<Frame>),
}

/// Why bytes are not RESP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A first byte that stands for no type.
    #[error("no type begins with byte {0:#04x}")]
    Type(u8),
    /// A length or number that is none.
    #[error("{0:?} is not a number here")]
    Number(String),
    /// Something is longer than its bound.
    #[error("{0} exceeds {1}")]
    TooLong(&'static str, u64),
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX}")]
    Depth,
    /// Bytes after a bulk string that are not CR LF.
    #[error("a bulk string does not end where it says")]
    BulkEnd,
    /// A streamed string or aggregate.
    #[error("streamed types are not supported")]
    Streamed,
    /// Text that is not UTF-8 where it has to be.
    #[error("a number or format is not text")]
    Text,
    /// A command that is not an array of bulk strings.
    #[error("a command must be an array of bulk strings")]
    Command,
    /// Quotes that do not close in an inline command.
    #[error("unbalanced quotes in an inline command")]
    Quotes,
}

/// Where a scan of an unfinished message stands.
#[derive(Debug, Default)]
struct Scan {
    /// Everything before is known to be well formed.
    at: usize,
    /// No line end before this.
    searched: usize,
    /// Elements still to come, per open aggregate.
    open: Vec<u64>,
}

impl Scan {
    /// The length of the message at the start of `bytes`, once it is all there.
    fn message(&mut self, bytes: &[u8]) -> Result<Option<usize>, CodecError> {
        loop {
            if self.at > MESSAGE_MAX {
                return Err(CodecError::TooLong("a message", MESSAGE_MAX as u64));
            }
            let Some(line_end) = self.line_end(bytes)? else { return Ok(None) };
            let line = bytes.get(self.at..line_end).unwrap_or_default();
            let Some((kind, rest)) = line.split_first() else { return Err(CodecError::Type(b'\r')) };
            let after = line_end + 2;
            let done = match kind {
                b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => after,
                b'$' | b'!' | b'=' => match length(rest, BULK_MAX as u64, "a bulk string")? {
                    None => after,
                    Some(len) => {
                        let end = after + len as usize;
                        if bytes.len() < end + 2 {
                            return Ok(None);
                        }
                        if bytes.get(end..end + 2) != Some(b"\r\n") {
                            return Err(CodecError::BulkEnd);
                        }
                        end + 2
                    }
                },
                b'*' | b'~' | b'>' | b'%' | b'|' => {
                    let count = length(rest, ELEMENTS_MAX, "an aggregate")?.unwrap_or(0);
                    let elements = match kind {
                        b'%' => count * 2,
                        b'|' => count * 2 + 1,
                        _ => count,
                    };
                    if elements > 0 {
                        self.open.push(elements);
                        if self.open.len() > DEPTH_MAX {
                            return Err(CodecError::Depth);
                        }
                        self.step_to(after);
                        continue;
                    }
                    after
                }
                other => return Err(CodecError::Type(*other)),
            };
            self.step_to(done);
            if self.close() {
                return Ok(Some(done));
            }
        }
    }

    fn step_to(&mut self, at: usize) {
        self.at = at;
        self.searched = at;
    }

    /// Counts an element as complete; true when that completes the message.
    fn close(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }

    /// Where the line that begins at `self.at` ends (without CR LF).
    fn line_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, CodecError> {
        let from = self.searched.max(self.at);
        let unseen = bytes.get(from..).unwrap_or_default();
        if let Some(found) = crlf(unseen) {
            return Ok(Some(from + found));
        }
        if bytes.len().saturating_sub(self.at) > LINE_MAX {
            return Err(CodecError::TooLong("a line", LINE_MAX as u64));
        }
        // The last byte may be the CR of a pair.
        self.searched = bytes.len().saturating_sub(1).max(self.at);
        Ok(None)
    }
}

/// Where the first line ends.
fn crlf(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\r\n")
}

/// A length; `None` is -1.
fn length(text: &[u8], max: u64, what: &'static str) -> Result<Option<u64>, CodecError> {
    // Nearly all of them, without the detour over text.
    if let [first @ b'0'..=b'9'] = text {
        return Ok(Some(u64::from(first - b'0')));
    }
    match number(text)? {
        -1 => Ok(None),
        n if n < 0 => Err(not_a_number(text)),
        n if n as u64 > max => Err(CodecError::TooLong(what, max)),
        n => Ok(Some(n as u64)),
    }
}

fn number(text: &[u8]) -> Result<i64, CodecError> {
    if text == b"?" {
        return Err(CodecError::Streamed);
    }
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or_else(|| not_a_number(text))
}

fn not_a_number(text: &[u8]) -> CodecError {
    CodecError::Number(String::from_utf8_lossy(text.get(..32).unwrap_or(text)).into_owned())
}

/// Decodes what a server sends.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
    scan: Scan,
}

impl FrameDecoder {
    /// Where bytes that arrive are put.
    pub fn buffer(&mut self) -> &mut BytesMut {
        with_room(&mut self.buffer)
    }

    /// The next whole frame and the bytes it came in; `None` means that more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are not RESP. The decoder still holds them: see [`FrameDecoder::rest`].
    pub fn next_frame(&mut self) -> Result<Option<(Frame, Bytes)>, CodecError> {
        let Some(len) = self.scan.message(&self.buffer)? else { return Ok(None) };
        let (frame, _) = build(self.buffer.get(..len).unwrap_or_default())?;
        self.scan = Scan::default();
        Ok(Some((frame, self.buffer.split_to(len).freeze())))
    }

    /// The bytes of the next frame, if it is there as a whole and is a string, an error or nothing:
    /// what [`FrameDecoder::plain`] always decodes. Else it is left for [`FrameDecoder::next_frame`].
    pub fn next_plain(&mut self) -> Option<Bytes> {
        let plain = matches!(self.buffer.first(), Some(b'$' | b'+' | b'-'));
        let len = if plain { self.scan.message(&self.buffer).ok()?? } else { return None };
        self.scan = Scan::default();
        Some(self.buffer.split_to(len).freeze())
    }

    /// The frame in the bytes that [`FrameDecoder::next_plain`] gave.
    pub fn plain(bytes: &[u8]) -> Option<Frame> {
        build(bytes).ok().map(|(frame, _)| frame)
    }

    /// All bytes that were not handed out.
    pub fn rest(&mut self) -> Bytes {
        self.scan = Scan::default();
        self.buffer.split().freeze()
    }
}

/// A command: its name and arguments.
pub type Command = Vec<Vec<u8>>;

/// A command as it came.
#[derive(Debug)]
pub struct Sent {
    bytes: Bytes,
    words: Words,
}

/// Where the words of a command are.
#[derive(Debug)]
enum Words {
    /// In its bytes. Offsets fit: a message has [`MESSAGE_MAX`] bytes at most.
    There(SmallVec<[Range<u32>; 4]>),
    /// Here: it came inline.
    Apart(Command),
}

impl Sent {
    /// All of its bytes.
    pub fn raw(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Its words, apart from its bytes.
    pub fn to_command(&self) -> Command {
        self.words().into_iter().map(<[u8]>::to_vec).collect()
    }

    /// Its words.
    pub fn words(&self) -> SmallVec<[&[u8]; 8]> {
        match &self.words {
            Words::There(places) => {
                let word = |place: &Range<u32>| self.bytes.get(place.start as usize..place.end as usize);
                places.iter().map(|place| word(place).unwrap_or_default()).collect()
            }
            Words::Apart(words) => words.iter().map(Vec::as_slice).collect(),
        }
    }
}

/// Decodes what a client sends: commands as arrays of bulk strings, or inline.
#[derive(Debug, Default)]
pub struct CommandDecoder {
    buffer: BytesMut,
    scan: Scan,
}

impl CommandDecoder {
    /// Where bytes that arrive are put.
    pub fn buffer(&mut self) -> &mut BytesMut {
        with_room(&mut self.buffer)
    }

    /// The next whole command; `None` means that more bytes are needed.
    /// A command without any words (an empty line) is one that servers do not answer.
    ///
    /// # Errors
    /// When the bytes are no command. The decoder still holds them: see [`CommandDecoder::rest`].
    pub fn next_command(&mut self) -> Result<Option<Command>, CodecError> {
        self.next_sent().map(|sent| sent.map(|sent| sent.to_command()))
    }

    /// As [`CommandDecoder::next_command`], with the bytes it came in and the words left where they are.
    ///
    /// # Errors
    /// As there.
    pub fn next_sent(&mut self) -> Result<Option<Sent>, CodecError> {
        let (words, len) = match self.buffer.first() {
            None => return Ok(None),
            Some(b'*') => {
                let Some(len) = self.scan.message(&self.buffer)? else {
                    // Nested commands would be found out only at their end.
                    return if self.scan.open.len() > 1 { Err(CodecError::Command) } else { Ok(None) };
                };
                (Words::There(places(self.buffer.get(..len).unwrap_or_default())?), len)
            }
            Some(_) => {
                let Some(end) = self.buffer.iter().position(|b| *b == b'\n') else {
                    let too_long = self.buffer.len() > LINE_MAX;
                    return if too_long {
                        Err(CodecError::TooLong("a line", LINE_MAX as u64))
                    } else {
                        Ok(None)
                    };
                };
                let line = self.buffer.get(..end).unwrap_or_default();
                (Words::Apart(split_inline(line.strip_suffix(b"\r").unwrap_or(line))?), end + 1)
            }
        };
        self.scan = Scan::default();
        Ok(Some(Sent { bytes: self.buffer.split_to(len).freeze(), words }))
    }

    /// All bytes that were not handed out.
    pub fn rest(&mut self) -> Bytes {
        self.scan = Scan::default();
        self.buffer.split().freeze()
    }
}

/// Where the words are in a command that a scan found complete. A null array has none.
fn places(bytes: &[u8]) -> Result<SmallVec<[Range<u32>; 4]>, CodecError> {
    let mut places = SmallVec::new();
    let mut at = head(bytes, b'*')?.0;
    while at < bytes.len() {
        let (text, len) = head(bytes.get(at..).unwrap_or_default(), b'$')?;
        let start = at + text;
        let end = start + len.ok_or(CodecError::Command)? as usize;
        places.push(start as u32..end as u32);
        at = end + 2;
    }
    Ok(places)
}

/// The line of this kind at the start of bytes: how long it is, and the length that it gives.
fn head(bytes: &[u8], kind: u8) -> Result<(usize, Option<u64>), CodecError> {
    let end = crlf(bytes).ok_or(CodecError::BulkEnd)?;
    match bytes.get(..end).and_then(<[u8]>::split_first) {
        Some((first, text)) if *first == kind => {
            Ok((end + 2, length(text, ELEMENTS_MAX.max(BULK_MAX as u64), "a word")?))
        }
        _ => Err(CodecError::Command),
    }
}

/// Splits an inline command into words; quotes as in a shell, with C escapes in double ones.
fn split_inline(line: &[u8]) -> Result<Command, CodecError> {
    let mut words = Vec::new();
    let mut bytes = line.iter().copied().peekable();
    while bytes.next_if(|b| b.is_ascii_whitespace() || *b == 0).is_some() || bytes.peek().is_some() {
        let mut word = Vec::new();
        let mut any = false;
        while let Some(byte) = bytes.next_if(|b| !b.is_ascii_whitespace() && *b != 0) {
            any = true;
            match byte {
                quote @ (b'"' | b'\'') => loop {
                    match bytes.next().ok_or(CodecError::Quotes)? {
                        end if end == quote => break,
                        b'\\' if quote == b'"' => word.push(escaped(&mut bytes)?),
                        b'\\' if bytes.peek() == Some(&b'\'') => word.extend(bytes.next()),
                        other => word.push(other),
                    }
                },
                other => word.push(other),
            }
        }
        if any {
            words.push(word);
        }
    }
    Ok(words)
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> Result<u8, CodecError> {
    let mut next = || bytes.next().ok_or(CodecError::Quotes);
    Ok(match next()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        b'x' => {
            let digits = [next()?, next()?];
            let text = std::str::from_utf8(&digits).map_err(|_| CodecError::Quotes)?;
            u8::from_str_radix(text, 16).map_err(|_| CodecError::Quotes)?
        }
        other => other,
    })
}

/// Builds the frame at the start of bytes that a scan found complete; gives what is left.
fn build(bytes: &[u8]) -> Result<(Frame, &[u8]), CodecError> {
    let end = crlf(bytes).ok_or(CodecError::BulkEnd)?;
    let (kind, text) = bytes.get(..end).and_then(<[u8]>::split_first).ok_or(CodecError::Type(b'\r'))?;
    let rest = bytes.get(end + 2..).unwrap_or_default();
    let word = || std::str::from_utf8(text).map(str::to_owned).map_err(|_| CodecError::Text);
    let frame = match kind {
        b'+' => Frame::Simple(text.to_vec()),
        b'-' => Frame::Error(text.to_vec()),
        b':' => Frame::Integer(number(text)?),
        b',' => Frame::Double(word()?),
        b'(' => Frame::BigNumber(word()?),
        b'_' => Frame::Null,
        b'#' => match text {
            b"t" => Frame::Boolean(true),
            b"f" => Frame::Boolean(false),
            _ => return Err(not_a_number(text)),
        },
        b'$' | b'!' | b'=' => {
            let Some(len) = length(text, BULK_MAX as u64, "a bulk string")? else {
                return Ok((Frame::NullBulk, rest));
            };
            let content = rest.get(..len as usize).ok_or(CodecError::BulkEnd)?.to_vec();
            let rest = rest.get(len as usize + 2..).ok_or(CodecError::BulkEnd)?;
            let frame = match kind {
                b'$' => Frame::Bulk(content),
                b'!' => Frame::BulkError(content),
                _ => verbatim(content)?,
            };
            return Ok((frame, rest));
        }
        b'*' if text == b"-1" => Frame::NullArray,
        b'*' | b'~' | b'>' | b'%' | b'|' => return aggregate(*kind, text, rest),
        other => return Err(CodecError::Type(*other)),
    };
    Ok((frame, rest))
}

fn verbatim(content: Vec<u8>) -> Result<Frame, CodecError> {
    match content.split_at_checked(4) {
        Some((format, text)) if format.ends_with(b":") => {
            let format = std::str::from_utf8(format.get(..3).unwrap_or_default());
            Ok(Frame::Verbatim {
                format: format.map_err(|_| CodecError::Text)?.to_owned(),
                text: text.to_vec(),
            })
        }
        _ => Err(CodecError::Text),
    }
}

/// The recursion is bounded: the scan refused what is nested deeper than [`DEPTH_MAX`].
fn aggregate<'a>(kind: u8, text: &[u8], mut rest: &'a [u8]) -> Result<(Frame, &'a [u8]), CodecError> {
    let count = length(text, ELEMENTS_MAX, "an aggregate")?.unwrap_or(0);
    let mut take = || -> Result<Frame, CodecError> {
        let (frame, left) = build(rest)?;
        rest = left;
        Ok(frame)
    };
    // No capacity is reserved from the count: it came from outside.
    let frame = match kind {
        b'%' | b'|' => {
            let mut pairs = Vec::new();
            for _ in 0..count {
                pairs.push((take()?, take()?));
            }
            if kind == b'%' { Frame::Map(pairs) } else { Frame::Attribute(pairs, Box::new(take()?)) }
        }
        _ => {
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(take()?);
            }
            match kind {
                b'*' => Frame::Array(items),
                b'~' => Frame::Set(items),
                _ => Frame::Push(items),
            }
        }
    };
    Ok((frame, rest))
}

impl Frame {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Appends the frame's bytes.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Simple(text) => line(out, b'+', text),
            Frame::Error(text) => line(out, b'-', text),
            Frame::Integer(n) => line(out, b':', n.to_string().as_bytes()),
            Frame::Bulk(bytes) => bulk(out, b'$', &[bytes]),
            Frame::NullBulk => out.extend_from_slice(b"$-1\r\n"),
            Frame::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Frame::Null => out.extend_from_slice(b"_\r\n"),
            Frame::Boolean(b) => line(out, b'#', if *b { b"t" } else { b"f" }),
            Frame::Double(text) => line(out, b',', text.as_bytes()),
            Frame::BigNumber(text) => line(out, b'(', text.as_bytes()),
            Frame::BulkError(bytes) => bulk(out, b'!', &[bytes]),
            Frame::Verbatim { format, text } => bulk(out, b'=', &[format.as_bytes(), b":", text]),
            Frame::Array(items) => sequence(out, b'*', items),
            Frame::Set(items) => sequence(out, b'~', items),
            Frame::Push(items) => sequence(out, b'>', items),
            Frame::Map(pairs) => mapping(out, b'%', pairs),
            Frame::Attribute(pairs, of) => {
                mapping(out, b'|', pairs);
                of.encode_into(out);
            }
        }
    }
}

/// A line cannot hold line ends: spaces stand for them.
fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend(text.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
    out.extend_from_slice(b"\r\n");
}

fn bulk(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    line(out, kind, parts.iter().map(|part| part.len()).sum::<usize>().to_string().as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

fn sequence(out: &mut Vec<u8>, kind: u8, items: &[Frame]) {
    line(out, kind, items.len().to_string().as_bytes());
    for item in items {
        item.encode_into(out);
    }
}

fn mapping(out: &mut Vec<u8>, kind: u8, pairs: &[(Frame, Frame)]) {
    line(out, kind, pairs.len().to_string().as_bytes());
    for (key, value) in pairs {
        key.encode_into(out);
        value.encode_into(out);
    }
}

/// A command as clients send it.
pub fn encode_command<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut out = Vec::new();
    line(&mut out, b'*', words.len().to_string().as_bytes());
    for word in words {
        bulk(&mut out, b'$', &[word.as_ref()]);
    }
    out
}

/// Feeds arbitrary bytes to both decoders: neither may panic, and what decodes must encode again.
pub fn fuzz_one(bytes: &[u8]) {
    let mut frames = FrameDecoder::default();
    frames.buffer().extend_from_slice(bytes);
    while let Ok(Some((frame, _))) = frames.next_frame() {
        let encoded = frame.encode();
        let mut again = FrameDecoder::default();
        again.buffer().extend_from_slice(&encoded);
        // A lone CR or LF inside a line becomes a space when encoded, hence the second round.
        let first = again.next_frame().ok().flatten().map(|(frame, _)| frame);
        assert_eq!(first.map(|frame| frame.encode()), Some(encoded));
        let value = super::value::of_frame(&frame);
        super::value::to_frame(&value, 2).encode();
        super::value::to_frame(&value, 3).encode();
    }
    let mut commands = CommandDecoder::default();
    commands.buffer().extend_from_slice(bytes);
    let mut session = super::session::Session::default();
    while let Ok(Some(command)) = commands.next_command() {
        if !command.is_empty() {
            session.ask(&command);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Vec<u8>> {
        "[ -~]{0,12}".prop_map(String::into_bytes)
    }

    pub fn frame() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
        let leaf = prop_oneof![
            text().prop_map(Frame::Simple),
            text().prop_map(Frame::Error),
            any::<i64>().prop_map(Frame::Integer),
            bytes().prop_map(Frame::Bulk),
            Just(Frame::NullBulk),
            Just(Frame::NullArray),
            Just(Frame::Null),
            any::<bool>().prop_map(Frame::Boolean),
            any::<f64>().prop_map(|n| Frame::Double(n.to_string())),
            "-?[0-9]{1,30}".prop_map(Frame::BigNumber),
            bytes().prop_map(Frame::BulkError),
            ("[a-z]{3}", bytes()).prop_map(|(format, text)| Frame::Verbatim { format, text }),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            let items = || proptest::collection::vec(inner.clone(), 0..5);
            let pairs = || proptest::collection::vec((inner.clone(), inner.clone()), 0..3);
            prop_oneof![
                items().prop_map(Frame::Array),
                items().prop_map(Frame::Set),
                items().prop_map(Frame::Push),
                pairs().prop_map(Frame::Map),
                (pairs(), inner.clone()).prop_map(|(pairs, of)| Frame::Attribute(pairs, Box::new(of))),
            ]
        })
    }

    fn frames(decoder: &mut FrameDecoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.next_frame().unwrap().map(|(frame, _)| frame)).collect()
    }

    proptest! {
        #[test]
        fn frames_come_back_whole_and_byte_by_byte(sent in proptest::collection::vec(frame(), 1..4)) {
            let bytes: Vec<u8> = sent.iter().flat_map(Frame::encode).collect();
            let mut whole = FrameDecoder::default();
            whole.buffer().extend_from_slice(&bytes);
            prop_assert_eq!(&frames(&mut whole), &sent);
            let mut pieces = FrameDecoder::default();
            let mut got = Vec::new();
            for byte in &bytes {
                pieces.buffer().extend_from_slice(&[*byte]);
                got.extend(frames(&mut pieces));
            }
            prop_assert_eq!(&got, &sent);
        }

        #[test]
        fn what_is_cut_short_waits(sent in frame(), cut in any::<prop::sample::Index>()) {
            let bytes = sent.encode();
            let mut decoder = FrameDecoder::default();
            decoder.buffer().extend_from_slice(&bytes[..cut.index(bytes.len())]);
            prop_assert_eq!(decoder.next_frame(), Ok(None));
        }

        #[test]
        fn commands_come_back_byte_by_byte(
            sent in proptest::collection::vec(proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..9), 1..5), 1..4)
        ) {
            let mut decoder = CommandDecoder::default();
            let mut got = Vec::new();
            for byte in sent.iter().flat_map(|words| encode_command(words)) {
                decoder.buffer().extend_from_slice(&[byte]);
                while let Some(sent) = decoder.next_sent().unwrap() {
                    let command = sent.to_command();
                    prop_assert_eq!(sent.raw().to_vec(), encode_command(&command));
                    got.push(command);
                }
            }
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), b'0'..b':', Just(b'*'), Just(b'$'), Just(b'%')], 0..64)) {
            fuzz_one(&bytes);
        }

        #[test]
        fn mutated_frames_never_panic(sent in frame(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = sent.encode();
            let at = at.index(bytes.len());
            bytes[at] = to;
            fuzz_one(&bytes);
        }
    }

    fn inline(line: &[u8]) -> Result<Option<Command>, CodecError> {
        let mut decoder = CommandDecoder::default();
        decoder.buffer().extend_from_slice(line);
        decoder.next_command()
    }

    #[test]
    fn inline_commands_have_quotes_and_escapes() {
        let command = |words: &[&str]| Ok(Some(words.iter().map(|w| w.as_bytes().to_vec()).collect()));
        assert_eq!(inline(b"PING\r\n"), command(&["PING"]));
        assert_eq!(inline(b"  set  a 'b c' \n"), command(&["set", "a", "b c"]));
        assert_eq!(inline(br#"set a "x\n\x41\"" ''"#), Ok(None));
        assert_eq!(inline(b"set a \"x\\n\\x41\\\"\" ''\r\n"), command(&["set", "a", "x\nA\"", ""]));
        assert_eq!(inline(b"\r\n"), command(&[]));
        assert_eq!(inline(b"set \"a\r\n"), Err(CodecError::Quotes));
    }

    #[test]
    fn what_no_server_sends_is_refused_without_allocating() {
        let refused = |bytes: &[u8]| {
            let mut decoder = FrameDecoder::default();
            decoder.buffer().extend_from_slice(bytes);
            decoder.next_frame().unwrap_err()
        };
        assert_eq!(refused(b"$?\r\n"), CodecError::Streamed);
        assert_eq!(refused(b"*?\r\n"), CodecError::Streamed);
        assert!(matches!(refused(b"$99999999999\r\n"), CodecError::TooLong(..)));
        assert!(matches!(refused(b"*99999999999\r\n"), CodecError::TooLong(..)));
        assert!(matches!(refused(b"$-2\r\n"), CodecError::Number(_)));
        assert_eq!(refused(b"$1\r\nabc"), CodecError::BulkEnd);
        assert_eq!(refused("*1\r\n".repeat(DEPTH_MAX + 1).as_bytes()), CodecError::Depth);
        assert_eq!(refused(b"GET / HTTP/1.1\r\n"), CodecError::Type(b'G'));
        assert_eq!(inline(b"*2\r\n*1\r\n"), Err(CodecError::Command));
        assert_eq!(inline(b"*1\r\n:1\r\n"), Err(CodecError::Command));
    }
}
