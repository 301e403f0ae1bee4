//! Keys of data with holes where something was made up: how keys of one kind look alike.
//!
//! Contract: pure. What stands in a hole is told by its form alone: a UUID, four digits and more, a word of letters and
//! digits that is long enough to be no name. Stable keys of Redis are made of it, so a change here makes recorded ones
//! other keys.

/// What stands for something made up.
pub const HOLE: &str = "{}";

/// Bytes of a key that are looked at.
const LONGEST: usize = 200;

/// A key with its generated parts (UUIDs, long numbers, hex, mixed tokens) replaced by holes; of a long one, its beginning.
pub fn of(key: &str) -> String {
    let mut out = String::new();
    put(&mut out, key);
    out
}

/// Appends the [template](of) of a key.
pub fn put(out: &mut String, key: &str) {
    let mut rest = &key[..key.floor_char_boundary(LONGEST)];
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.get(36..).filter(|_| is_uuid(rest.as_bytes())) {
            out.push_str(HOLE);
            rest = after;
            continue;
        }
        if !first.is_alphanumeric() {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        let len = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (found, after) = rest.split_at(len);
        token(out, found);
        rest = after;
    }
}

fn is_uuid(bytes: &[u8]) -> bool {
    let Some(candidate) = bytes.get(..36) else { return false };
    let ends = bytes.get(36).is_none_or(|b| !b.is_ascii_alphanumeric());
    ends && candidate.iter().enumerate().all(|(at, b)| match at {
        8 | 13 | 18 | 23 => *b == b'-',
        _ => b.is_ascii_hexdigit(),
    })
}

/// A run of letters and digits.
fn token(out: &mut String, text: &str) {
    let digits = text.bytes().any(|b| b.is_ascii_digit());
    let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    let letters = text.bytes().any(|b| b.is_ascii_alphabetic());
    if digits && letters && (hex && text.len() >= 8 || text.len() >= 16) {
        out.push_str(HOLE);
        return;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if run >= 4 {
            out.push_str(HOLE);
        } else {
            out.push_str(&rest[..run]);
        }
        rest = &rest[run..];
        let other = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        out.push_str(&rest[..other]);
        rest = &rest[other..];
    }
}
