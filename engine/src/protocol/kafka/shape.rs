//! The shape of each message that is decoded: a walk over the bytes that proves every length
//! before a message is built from them.
//!
//! Contract: after [`check`] accepted a body, each array in it has as many items as it says, so
//! that a decoder which allocates by the count cannot be made to allocate more than a fixed
//! multiple of the frame. Never panics, allocates nothing.
//! Not modelled: the meaning of fields.
//!
//! A shape is text: `f9` says that versions from 9 on are flexible (compact lengths, tagged
//! fields); `1 2 4 8 16` are fields of so many bytes, `s` a string, `b` bytes, `[...]` an array of
//! structures, `(x)` an array of plain fields; `{3+}`, `{0-7}` after a field say in which versions
//! it is there.

use super::codec::CodecError;

/// A message that is decoded: its api key, the highest version, its shapes.
pub struct Shape {
    /// The api key.
    pub api: i16,
    /// Its name, as rules write it.
    pub name: &'static str,
    /// Lowest version that is decoded.
    pub min: i16,
    /// Highest version that is decoded.
    pub max: i16,
    /// Shape of the request.
    pub request: &'static str,
    /// Shape of the response.
    pub response: &'static str,
}

const fn shape(
    api: i16,
    name: &'static str,
    versions: (i16, i16),
    request: &'static str,
    response: &'static str,
) -> Shape {
    Shape { api, name, min: versions.0, max: versions.1, request, response }
}

/// Everything that is decoded, by api key. Produce and Fetch end before topic ids begin (13): the
/// proxy caps them in ApiVersions, so that every record's topic has its name on the wire.
pub static SHAPES: &[Shape] = &[
    shape(0, "Produce", (3, 12), "f9 s 2 4 [s [4 b]]", "f9 [s [4 2 8 8 8{5+} [4 s]{8+} s{8+}]] 4"),
    shape(
        1,
        "Fetch",
        (4, 12),
        "f12 4 4 4 4 1 4{7+} 4{7+} [s [4 4{9+} 8 4{12+} 8{5+} 4]] [s (4)]{7+} s{11+}",
        "f12 4 2{7+} 4{7+} [s [4 2 8 8 8{5+} [8 8] 4{11+} b]]",
    ),
    shape(2, "ListOffsets", (1, 10), "f6 4 1{2+} [s [4 4{4+} 8]] 4{10+}", "f6 4{2+} [s [4 2 8 8 4{4+}]]"),
    shape(
        3,
        "Metadata",
        (0, 13),
        "f9 [16{10+} s] 1{4+} 1{8-10} 1{8+}",
        "f9 4{3+} [4 s 4 s{1+}] s{2+} 4{1+} [2 s 16{10+} 1{1+} [2 4 4 4{7+} (4) (4) (4){5+}] 4{8+}] 4{8-10} 2{13+}",
    ),
    shape(8, "OffsetCommit", (2, 9), "f8 s 4 s s{7+} 8{2-4} [s [4 8 4{6+} s]]", "f8 4{3+} [s [4 2]]"),
    shape(
        9,
        "OffsetFetch",
        (1, 9),
        "f6 s{0-7} [s (4)]{0-7} [s s{9+} 4{9+} [s (4)]]{8+} 1{7+}",
        "f6 4{3+} [s [4 8 4{5+} s 2]]{0-7} 2{2-7} [s [s [4 8 4 s 2]] 2]{8+}",
    ),
    shape(
        10,
        "FindCoordinator",
        (0, 6),
        "f3 s{0-3} 1{1+} (s){4+}",
        "f3 4{1+} 2{0-3} s{1-3} 4{0-3} s{0-3} 4{0-3} [s 4 s 4 2 s]{4+}",
    ),
    shape(
        11,
        "JoinGroup",
        (0, 9),
        "f6 s 4 4{1+} s s{5+} s [s b] s{8+}",
        "f6 4{2+} 2 4 s{7+} s s 1{9+} s [s s{5+} b]",
    ),
    shape(12, "Heartbeat", (0, 4), "f4 s 4 s s{3+}", "f4 4{1+} 2"),
    shape(13, "LeaveGroup", (0, 5), "f4 s s{0-2} [s s s{5+}]{3+}", "f4 4{1+} 2 [s s 2]{3+}"),
    shape(14, "SyncGroup", (0, 5), "f4 s 4 s s{3+} s{5+} s{5+} [s b]", "f4 4{1+} 2 s{5+} s{5+} b"),
    shape(15, "DescribeGroups", (0, 5), "f5 (s) 1{3+}", "f5 4{1+} [2 s s s s [s s{4+} s s b b] 4{3+}]"),
    shape(16, "ListGroups", (0, 5), "f3 (s){4+} (s){5+}", "f3 4{1+} 2 [s s s{4+} s{5+}]"),
    shape(18, "ApiVersions", (0, 4), "f3 s{3+} s{3+}", "f3 2 [2 2 2] 4{1+}"),
    shape(
        19,
        "CreateTopics",
        (2, 7),
        "f5 [s 4 2 [4 (4)] [s s]] 4 1",
        "f5 4 [s 16{7+} 2 s 4{5+} 2{5+} [s s 1 1 1]{5+}]",
    ),
    shape(20, "DeleteTopics", (1, 6), "f4 [s 16]{6+} (s){0-5} 4", "f4 4 [s 16{6+} 2 s{5+}]"),
    shape(22, "InitProducerId", (0, 5), "f2 s 4 8{3+} 2{3+}", "f2 4 2 8 2"),
    shape(42, "DeleteGroups", (0, 2), "f2 (s)", "f2 4 [s 2]"),
    shape(60, "DescribeCluster", (0, 2), "f0 1 1{1+} 1{2+}", "f0 4 2 s 1{1+} s 4 [4 s 4 s 1{2+}] 4"),
];

/// Tagged fields that are arrays: (api key, tag) of responses.
const TAGGED_ARRAYS: &[(i16, u32)] = &[(0, 0), (18, 0), (18, 2)];

/// The shape of an api.
pub fn of(api: i16) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.api == api)
}

/// Walks a body of this shape and version.
///
/// # Errors
/// When the bytes are not such a body. Bytes after it are let be, as brokers do: librdkafka's request
/// for all topics has a count of the wrong width in it and is longer than what it says.
pub fn check(api: i16, shape: &str, version: i16, body: &[u8]) -> Result<(), CodecError> {
    let (first, rest) = shape.split_once(' ').unwrap_or((shape, ""));
    let flexible = first.strip_prefix('f').and_then(|n| n.parse::<i16>().ok()).is_some_and(|n| version >= n);
    let mut walk = Walk { body, at: 0, version, flexible, api };
    walk.structure(rest.as_bytes())
}

struct Walk<'a> {
    body: &'a [u8],
    at: usize,
    version: i16,
    flexible: bool,
    api: i16,
}

impl Walk<'_> {
    fn skip(&mut self, len: usize) -> Result<&[u8], CodecError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.body.len());
        let end =
            end.ok_or_else(|| CodecError(format!("the message ends inside a field at byte {}", self.at)))?;
        let taken = &self.body[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u32, CodecError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.skip(1)?.first().copied().unwrap_or_default();
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError(format!("a length of more than five bytes at byte {}", self.at)))
    }

    /// A length; 0 for "null".
    fn length(&mut self, bytes: usize) -> Result<usize, CodecError> {
        if self.flexible {
            return Ok(self.varint()?.saturating_sub(1) as usize);
        }
        let mut value = 0i64;
        for byte in self.skip(bytes)? {
            value = value << 8 | i64::from(*byte);
        }
        let value = if bytes == 2 { i64::from(value as i16) } else { i64::from(value as i32) };
        match value {
            -1 => Ok(0),
            n => usize::try_from(n).map_err(|_| CodecError(format!("length {n} at byte {}", self.at))),
        }
    }

    fn structure(&mut self, fields: &[u8]) -> Result<(), CodecError> {
        let mut rest = fields;
        while let Some((kind, inner, present, after)) = field(rest, self.version) {
            rest = after;
            if present {
                self.field(kind, inner)?;
            }
        }
        if self.flexible { self.tagged() } else { Ok(()) }
    }

    fn field(&mut self, kind: u8, inner: &[u8]) -> Result<(), CodecError> {
        match kind {
            b's' | b'b' => {
                let len = self.length(if kind == b's' { 2 } else { 4 })?;
                self.skip(len)?;
            }
            b'[' | b'(' => {
                let count = self.length(4)?;
                if count > self.body.len() - self.at {
                    return Err(CodecError(format!("an array of {count} items at byte {}", self.at)));
                }
                for _ in 0..count {
                    if kind == b'[' {
                        self.structure(inner)?;
                    } else if let Some((kind, inner, true, _)) = field(inner, self.version) {
                        self.field(kind, inner)?;
                    }
                }
            }
            _ => {
                let size = std::str::from_utf8(inner).ok().and_then(|n| n.parse().ok()).unwrap_or(0);
                self.skip(size)?;
            }
        }
        Ok(())
    }

    fn tagged(&mut self) -> Result<(), CodecError> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let begin = self.at;
            self.skip(size)?;
            if TAGGED_ARRAYS.contains(&(self.api, tag)) {
                let end = std::mem::replace(&mut self.at, begin);
                let count = self.varint()? as usize;
                if count > size {
                    return Err(CodecError(format!("a tagged array of {count} items in {size} bytes")));
                }
                self.at = end;
            }
        }
        Ok(())
    }
}

/// The next field of a shape: its kind, what stands in it, whether this version has it, the rest.
fn field(shape: &[u8], version: i16) -> Option<(u8, &[u8], bool, &[u8])> {
    let start = shape.iter().position(|b| *b != b' ')?;
    let shape = &shape[start..];
    let kind = *shape.first()?;
    let (inner, rest) = match kind {
        b'[' | b'(' => {
            let close = if kind == b'[' { b']' } else { b')' };
            let mut depth = 0;
            let end = shape.iter().position(|b| {
                depth += i32::from(*b == kind) - i32::from(*b == close);
                depth == 0
            })?;
            (&shape[1..end], &shape[end + 1..])
        }
        _ => {
            let end = shape.iter().position(|b| matches!(b, b' ' | b'{')).unwrap_or(shape.len());
            shape.split_at(end)
        }
    };
    let Some(range) = rest.strip_prefix(b"{") else { return Some((kind, inner, true, rest)) };
    let end = range.iter().position(|b| *b == b'}')?;
    let words = std::str::from_utf8(&range[..end]).ok()?;
    let present = match (words.strip_suffix('+'), words.split_once('-')) {
        (Some(min), _) => min.parse::<i16>().is_ok_and(|min| version >= min),
        (None, Some((min, max))) => {
            min.parse::<i16>().is_ok_and(|min| version >= min)
                && max.parse::<i16>().is_ok_and(|max| version <= max)
        }
        (None, None) => false,
    };
    Some((kind, inner, present, &range[end + 1..]))
}
