//! HTTP/1.x on the wire: heads and the end of bodies.
//!
//! Contract: no I/O. A head that is not complete is "need more"; what is not HTTP/1.x is an
//! error. Any segmentation of a body gives the same data. Lengths are bounded before
//! anything is allocated for them.
//! Not modelled: folded header lines and HTTP/0.9 (errors: the proxy passes them on
//! undecoded).

/// Longest head, and longest trailer section.
pub const HEAD_MAX: usize = 256 << 10;
/// Longest line with a chunk's size.
const CHUNK_LINE_MAX: usize = 4 << 10;

/// Bytes that are not HTTP/1.x.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not http/1: {0}")]
pub struct HttpError(pub &'static str);

/// Header fields in the order in which they were sent; names in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl Headers {
    /// The values of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_slice())
    }

    /// The first value of a header, where it is text.
    pub fn text<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Whether a header that lists tokens has this one.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name).any(|value| {
            value.split(|b| *b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    }
}

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: String,
    /// The target as sent.
    pub target: String,
    /// The minor version.
    pub minor: u8,
    /// The headers.
    pub headers: Headers,
    /// Bytes that the head takes on the wire.
    pub len: usize,
}

/// A response's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status.
    pub status: u16,
    /// The reason, which may be empty.
    pub reason: String,
    /// The minor version.
    pub minor: u8,
    /// The headers.
    pub headers: Headers,
    /// Bytes that the head takes on the wire.
    pub len: usize,
}

impl RequestHead {
    /// Whether the connection ends with this exchange as far as the asker is concerned.
    pub fn closes(&self) -> bool {
        closes(self.minor, &self.headers)
    }

    /// Whether the asker waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.headers.lists("expect", "100-continue")
    }
}

impl ResponseHead {
    /// Whether the connection ends with this exchange as far as the server is concerned.
    pub fn closes(&self) -> bool {
        closes(self.minor, &self.headers)
    }
}

fn closes(minor: u8, headers: &Headers) -> bool {
    let keeps = minor > 0 || headers.lists("connection", "keep-alive");
    !keeps || headers.lists("connection", "close")
}

/// Reads a request's head from the front of what arrived; `None` where more is needed.
///
/// # Errors
/// When it is none.
pub fn request_head(buffer: &[u8]) -> Result<Option<RequestHead>, HttpError> {
    let Some((line, headers, len)) = head(buffer, true)? else { return Ok(None) };
    let mut words = line.splitn(3, |b| *b == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let method = method.filter(|m| !m.is_empty() && m.iter().all(is_token)).ok_or(HttpError("no method"))?;
    let target = target.filter(|t| !t.is_empty()).and_then(|t| std::str::from_utf8(t).ok());
    let target = target.ok_or(HttpError("no target"))?;
    let minor = version_minor(version.unwrap_or_default())?;
    let method = String::from_utf8_lossy(method).into_owned();
    Ok(Some(RequestHead { method, target: target.to_owned(), minor, headers, len }))
}

/// Reads a response's head from the front of what arrived; `None` where more is needed.
///
/// # Errors
/// When it is none.
pub fn response_head(buffer: &[u8]) -> Result<Option<ResponseHead>, HttpError> {
    let Some((line, headers, len)) = head(buffer, false)? else { return Ok(None) };
    let mut words = line.splitn(3, |b| *b == b' ');
    let minor = version_minor(words.next().unwrap_or_default())?;
    let status = words.next().and_then(|s| std::str::from_utf8(s).ok()).filter(|s| s.len() == 3);
    let status: u16 = status.and_then(|s| s.parse().ok()).ok_or(HttpError("no status"))?;
    if status < 100 {
        return Err(HttpError("no status"));
    }
    let reason = String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
    Ok(Some(ResponseHead { status, reason, minor, headers, len }))
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

fn version_minor(version: &[u8]) -> Result<u8, HttpError> {
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        _ => Err(HttpError("no version")),
    }
}

type Head<'a> = (&'a [u8], Headers, usize);

/// The first line, the headers and the length of a head.
fn head(buffer: &[u8], request: bool) -> Result<Option<Head<'_>>, HttpError> {
    let mut at = 0;
    // Empty lines before a request are legal.
    while request && buffer.get(at).is_some_and(|b| matches!(b, b'\r' | b'\n')) {
        at += 1;
        if at > 64 {
            return Err(HttpError("empty lines"));
        }
    }
    let mut first = None;
    let mut headers = Vec::new();
    loop {
        let rest = buffer.get(at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            return match first {
                _ if buffer.len() > HEAD_MAX => Err(HttpError("head too long")),
                None if !plausible(rest, request) => Err(HttpError("no first line")),
                _ => Ok(None),
            };
        };
        let line = rest.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        at += end + 1;
        if at > HEAD_MAX {
            return Err(HttpError("head too long"));
        }
        match first {
            None => first = Some(line),
            Some(first) if line.is_empty() => return Ok(Some((first, Headers(headers), at))),
            Some(_) => headers.push(header(line)?),
        }
    }
}

/// Whether an incomplete first line may still become one: binary protocols are told at once.
fn plausible(line: &[u8], request: bool) -> bool {
    if request {
        let method = line.split(|b| *b == b' ').next().unwrap_or_default();
        return method.len() <= 64
            && method.iter().all(is_token)
            && line.iter().all(|b| *b >= b' ' || matches!(b, b'\r' | b'\t'));
    }
    let known = b"HTTP/1.";
    line.iter().zip(known).all(|(a, b)| a == b)
}

fn header(line: &[u8]) -> Result<(String, Vec<u8>), HttpError> {
    let colon = line.iter().position(|b| *b == b':').ok_or(HttpError("a header without a colon"))?;
    let (name, value) = line.split_at(colon);
    if name.is_empty() || !name.iter().all(is_token) {
        return Err(HttpError("a header's name"));
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    Ok((name, value.get(1..).unwrap_or_default().trim_ascii().to_vec()))
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By this many bytes.
    Length(u64),
    /// By an empty chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// The framing of a request's body.
///
/// # Errors
/// When its length is contradictory.
pub fn request_framing(head: &RequestHead) -> Result<Framing, HttpError> {
    match declared(&head.headers)? {
        Some(Framing::UntilClose) => Err(HttpError("a request without an end")),
        Some(framing) => Ok(framing),
        None => Ok(Framing::Length(0)),
    }
}

/// The framing of a response's body.
///
/// # Errors
/// When its length is contradictory.
pub fn response_framing(method: &str, head: &ResponseHead) -> Result<Framing, HttpError> {
    if !has_body(method, head.status) {
        return Ok(Framing::Length(0));
    }
    Ok(declared(&head.headers)?.unwrap_or(Framing::UntilClose))
}

/// Whether a response to this method with this status has a body at all.
pub fn has_body(method: &str, status: u16) -> bool {
    method != "HEAD" && status >= 200 && status != 204 && status != 304
}

fn declared(headers: &Headers) -> Result<Option<Framing>, HttpError> {
    if let Some(encoding) = headers.all("transfer-encoding").last() {
        let last = encoding.rsplit(|b| *b == b',').next().unwrap_or_default();
        let chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return Ok(Some(if chunked { Framing::Chunked } else { Framing::UntilClose }));
    }
    let mut length = None;
    for value in headers.all("content-length") {
        let text = std::str::from_utf8(value).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
        let parsed: u64 = text.and_then(|t| t.parse().ok()).ok_or(HttpError("a content-length"))?;
        if length.is_some_and(|known| known != parsed) {
            return Err(HttpError("two content-lengths"));
        }
        length = Some(parsed);
    }
    Ok(length.map(Framing::Length))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Length(u64),
    Size(Vec<u8>),
    Data(u64),
    DataEnd,
    Trailers { line: usize, all: usize },
    UntilClose,
    Done,
}

/// Follows a body to its end.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
}

impl BodyReader {
    /// A reader at the beginning of a body.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size(Vec::new()),
            Framing::UntilClose => State::UntilClose,
        };
        BodyReader { state }
    }

    /// Whether the body has ended.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Follows bytes, giving the data among them to `data`, which may change them in place.
    /// Returns how many belong to the body.
    ///
    /// # Errors
    /// When they break the framing.
    pub fn feed(&mut self, bytes: &mut [u8], data: &mut dyn FnMut(&mut [u8])) -> Result<usize, HttpError> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = bytes.get_mut(at..).unwrap_or_default();
            match &mut self.state {
                State::Done => break,
                State::UntilClose => {
                    at += rest.len();
                    data(rest);
                }
                State::Length(left) | State::Data(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    data(rest.get_mut(..take).unwrap_or_default());
                    at += take;
                    *left -= take as u64;
                    if *left == 0 {
                        let chunk = matches!(self.state, State::Data(_));
                        self.state = if chunk { State::DataEnd } else { State::Done };
                    }
                }
                State::DataEnd => {
                    let byte = rest.first().copied().unwrap_or_default();
                    at += 1;
                    match byte {
                        b'\r' => {}
                        b'\n' => self.state = State::Size(Vec::new()),
                        _ => return Err(HttpError("a chunk without its end")),
                    }
                }
                State::Size(line) => {
                    let byte = rest.first().copied().unwrap_or_default();
                    at += 1;
                    if byte != b'\n' {
                        line.push(byte);
                        if line.len() > CHUNK_LINE_MAX {
                            return Err(HttpError("a chunk's size"));
                        }
                    } else {
                        let size = chunk_size(line)?;
                        self.state =
                            if size == 0 { State::Trailers { line: 0, all: 0 } } else { State::Data(size) };
                    }
                }
                State::Trailers { line, all } => {
                    let byte = rest.first().copied().unwrap_or_default();
                    at += 1;
                    *all += 1;
                    match byte {
                        b'\n' if *line == 0 => self.state = State::Done,
                        b'\n' => *line = 0,
                        b'\r' => {}
                        _ => *line += 1,
                    }
                    if let State::Trailers { all, .. } = self.state
                        && all > HEAD_MAX
                    {
                        return Err(HttpError("trailers too long"));
                    }
                }
            }
        }
        Ok(at)
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, HttpError> {
    let size = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(size).ok().filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()));
    text.and_then(|t| u64::from_str_radix(t, 16).ok()).ok_or(HttpError("a chunk's size"))
}

/// For the fuzzer: any bytes are survived, and segmentation changes no body.
pub fn fuzz_one(bytes: &[u8]) {
    let request = request_head(bytes);
    if let Ok(Some(head)) = &request {
        for end in 0..head.len {
            let part = request_head(bytes.get(..end).unwrap_or_default());
            assert_eq!(part, Ok(None), "a shorter head is another result");
        }
        if let Ok(framing) = request_framing(head) {
            same_in_pieces(framing, bytes.get(head.len..).unwrap_or_default());
        }
    }
    if let Ok(Some(head)) = response_head(bytes)
        && let Ok(framing) = response_framing("GET", &head)
    {
        same_in_pieces(framing, bytes.get(head.len..).unwrap_or_default());
    }
    same_in_pieces(Framing::Chunked, bytes);
}

fn same_in_pieces(framing: Framing, bytes: &[u8]) {
    let follow = |size: usize| {
        let mut reader = BodyReader::new(framing);
        let (mut data, mut used) = (Vec::new(), 0);
        for piece in bytes.chunks(size.max(1)) {
            let mut piece = piece.to_vec();
            match reader.feed(&mut piece, &mut |d| data.extend_from_slice(d)) {
                Ok(taken) => used += taken,
                Err(error) => return (data, used, Some(error), false),
            }
        }
        (data, used, None, reader.done())
    };
    let (whole, pieces) = (follow(bytes.len()), follow(1));
    assert_eq!(
        (&whole.0, &whole.2, whole.3),
        (&pieces.0, &pieces.2, pieces.3),
        "segmentation changes a body"
    );
    assert!(whole.2.is_some() || whole.1 == pieces.1, "segmentation changes a body's length");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_are_read_and_bodies_followed() {
        let wire = b"POST /a?b=c HTTP/1.1\r\nHost: x:1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
        let head = request_head(wire).unwrap().unwrap();
        assert_eq!((head.method.as_str(), head.target.as_str(), head.len), ("POST", "/a?b=c", wire.len()));
        assert_eq!(head.headers.text("host"), Some("x:1"));
        assert_eq!(request_framing(&head), Ok(Framing::Chunked));
        let mut reader = BodyReader::new(Framing::Chunked);
        let mut body = b"4;x=y\r\nabcd\r\n0\r\nTrailer: 1\r\n\r\nNEXT".to_vec();
        let mut data = Vec::new();
        let used = reader.feed(&mut body, &mut |d| data.extend_from_slice(d)).unwrap();
        assert!(reader.done());
        assert_eq!((data.as_slice(), body.len() - used), (b"abcd".as_slice(), 4));
        let head = response_head(b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n").unwrap().unwrap();
        assert_eq!(response_framing("GET", &head), Ok(Framing::Length(0)));
        let head = response_head(b"HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap();
        assert_eq!(response_framing("GET", &head), Ok(Framing::UntilClose));
        assert!(head.closes());
    }

    #[test]
    fn what_is_not_http_is_told_at_once() {
        assert!(request_head(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").is_err());
        assert!(request_head(b"\x16\x03\x01\x02\x00\x01").is_err());
        assert!(request_head(b"GET / HTTP/1.1\r\n folded\r\n\r\n").is_err());
        assert!(response_head(b"\x4a\x00\x00\x00").is_err());
        assert_eq!(request_head(b"GE"), Ok(None));
        assert_eq!(response_head(b"HTT"), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_one(&bytes);
        }

        #[test]
        fn near_http_is_survived(
            head in "(GET|POST|P) /[a-z?]{0,4} HTTP/1.[01]\r?\n(Content-Length: [0-9]{1,3}\r\n)?(Transfer-Encoding: chunked\r\n)?\r\n",
            body in "([0-9a-f]{1,2}\r?\n[a-z]{0,20}\r?\n){0,4}0?\r?\n?(X: y\r\n)?\r?\n?.{0,5}",
        ) {
            fuzz_one(format!("{head}{body}").as_bytes());
        }

        #[test]
        fn chunks_come_back(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..5)) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let mut reader = BodyReader::new(Framing::Chunked);
            let mut data = Vec::new();
            let used = reader.feed(&mut wire, &mut |d| data.extend_from_slice(d)).unwrap();
            prop_assert!(reader.done());
            prop_assert_eq!(used, wire.len());
            prop_assert_eq!(data, chunks.concat());
            same_in_pieces(Framing::Chunked, &wire);
        }
    }
}
