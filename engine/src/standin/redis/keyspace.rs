//! The data: databases, keys and typed values, and what commands need to get at them.
//!
//! Contract: pure; time is passed in. A command either leaves the data alone and gives an error,
//! or is carried out whole. Collections are ordered, so equal histories give equal answers.
//! Not modelled: eviction, streams, geo indexes, bit fields, HyperLogLog.

use crate::protocol::redis::{command, value};
use faultbox_bundle_format::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a key holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// A string.
    Text(Vec<u8>),
    /// A list.
    List(VecDeque<Vec<u8>>),
    /// A hash.
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    /// A set.
    Set(BTreeSet<Vec<u8>>),
    /// A sorted set.
    Sorted(BTreeMap<Vec<u8>, f64>),
}

impl Data {
    /// The name that `TYPE` gives.
    pub fn kind(&self) -> &'static str {
        match self {
            Data::Text(_) => "string",
            Data::List(_) => "list",
            Data::Hash(_) => "hash",
            Data::Set(_) => "set",
            Data::Sorted(_) => "zset",
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Data::Text(_) => false,
            Data::List(items) => items.is_empty(),
            Data::Hash(fields) => fields.is_empty(),
            Data::Set(members) => members.is_empty(),
            Data::Sorted(members) => members.is_empty(),
        }
    }
}

/// A key's value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it holds.
    pub data: Data,
    /// When it ends, Unix milliseconds.
    pub expires: Option<u64>,
    /// Changes with every write to the key.
    pub version: u64,
}

/// All databases.
#[derive(Debug, Clone, Default)]
pub struct Keyspace {
    /// By number, then by key.
    pub dbs: BTreeMap<i64, BTreeMap<Vec<u8>, Entry>>,
    writes: u64,
}

impl Keyspace {
    /// The version of a key, for `WATCH`.
    pub fn version(&self, db: i64, key: &[u8], now: u64) -> Option<u64> {
        let entry = self.dbs.get(&db)?.get(key)?;
        entry.expires.is_none_or(|at| at > now).then_some(entry.version)
    }

    /// Notes that the command wrote its keys.
    pub fn touched(&mut self, db: i64, words: &[Vec<u8>]) {
        self.writes += 1;
        let version = self.writes;
        let Some(keys) = self.dbs.get_mut(&db) else { return };
        for key in command::keys(words) {
            if let Some(entry) = keys.get_mut(key) {
                entry.version = version;
            }
        }
    }
}

/// What a command gives: a reply, or an error reply.
pub type Reply = Result<Value, Value>;

/// A command being carried out.
pub struct Run<'a> {
    /// The data.
    pub space: &'a mut Keyspace,
    /// The database.
    pub db: i64,
    /// Unix milliseconds.
    pub now: u64,
    /// Protocol version of the client.
    pub version: i64,
}

/// The error for a key of another type.
pub fn wrong_type() -> Value {
    value::error("WRONGTYPE Operation against a key holding the wrong kind of value")
}

/// An `ERR` error.
pub fn err(text: &str) -> Value {
    value::error(format!("ERR {text}"))
}

macro_rules! typed {
    ($get:ident, $make:ident, $variant:ident, $type:ty, $doc:literal) => {
        #[doc = $doc]
        ///
        /// # Errors
        /// When the key holds something else.
        pub fn $get(&mut self, key: &[u8]) -> Result<Option<&mut $type>, Value> {
            match self.entry(key).map(|entry| &mut entry.data) {
                None => Ok(None),
                Some(Data::$variant(data)) => Ok(Some(data)),
                Some(_) => Err(wrong_type()),
            }
        }

        #[doc = $doc]
        /// Made where it is missing.
        ///
        /// # Errors
        /// When the key holds something else.
        pub fn $make(&mut self, key: &[u8]) -> Result<&mut $type, Value> {
            if self.entry(key).is_none() {
                self.put(key, Data::$variant(Default::default()), None);
            }
            match self.entry(key).map(|entry| &mut entry.data) {
                Some(Data::$variant(data)) => Ok(data),
                _ => Err(wrong_type()),
            }
        }
    };
}

impl Run<'_> {
    /// The database's keys.
    pub fn keys(&mut self) -> &mut BTreeMap<Vec<u8>, Entry> {
        self.space.dbs.entry(self.db).or_default()
    }

    /// The keys that have not expired, in order.
    pub fn live(&self) -> impl Iterator<Item = (&Vec<u8>, &Entry)> {
        let now = self.now;
        let keys = self.space.dbs.get(&self.db).into_iter().flatten();
        keys.filter(move |(_, entry)| entry.expires.is_none_or(|at| at > now))
    }

    /// A key's entry, unless it has expired.
    pub fn entry(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let now = self.now;
        let keys = self.keys();
        if keys.get(key).is_some_and(|entry| entry.expires.is_some_and(|at| at <= now)) {
            keys.remove(key);
        }
        keys.get_mut(key)
    }

    /// Sets a key.
    pub fn put(&mut self, key: &[u8], data: Data, expires: Option<u64>) {
        self.keys().insert(key.to_vec(), Entry { data, expires, version: 0 });
    }

    /// Removes a key; whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.entry(key).is_some() && self.keys().remove(key).is_some()
    }

    /// Removes a key whose collection has become empty.
    pub fn tidy(&mut self, key: &[u8]) {
        if self.keys().get(key).is_some_and(|entry| entry.data.is_empty()) {
            self.keys().remove(key);
        }
    }

    typed!(text, text_or_new, Text, Vec<u8>, "A string.");
    typed!(list, list_or_new, List, VecDeque<Vec<u8>>, "A list.");
    typed!(hash, hash_or_new, Hash, BTreeMap<Vec<u8>, Vec<u8>>, "A hash.");
    typed!(set, set_or_new, Set, BTreeSet<Vec<u8>>, "A set.");
    typed!(sorted, sorted_or_new, Sorted, BTreeMap<Vec<u8>, f64>, "A sorted set.");
}

/// A bulk string.
pub fn bulk(bytes: &[u8]) -> Value {
    Value::text_or_bytes(bytes)
}

/// A bulk string or nil.
pub fn maybe(bytes: Option<&Vec<u8>>) -> Value {
    bytes.map_or(Value::Null, |bytes| bulk(bytes))
}

/// A count.
pub fn count(n: usize) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// A simple `OK`.
pub fn ok() -> Value {
    value::status("OK")
}

/// The nil that stands for an array.
pub fn nil_array() -> Value {
    Value::map([("nil", Value::text("array"))])
}

/// A list of bulk strings.
pub fn bulks<'a>(items: impl IntoIterator<Item = &'a Vec<u8>>) -> Value {
    Value::List(items.into_iter().map(|item| bulk(item)).collect())
}

/// The word at a place.
pub fn word(words: &[Vec<u8>], at: usize) -> &[u8] {
    words.get(at).map(Vec::as_slice).unwrap_or_default()
}

/// An integer argument.
///
/// # Errors
/// When it is none.
pub fn integer(word: &[u8]) -> Result<i64, Value> {
    let parsed = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| err("value is not an integer or out of range"))
}

/// A floating point argument.
///
/// # Errors
/// When it is none.
pub fn float(word: &[u8]) -> Result<f64, Value> {
    let parsed: Option<f64> =
        std::str::from_utf8(word).ok().and_then(|text| text.trim_start_matches('+').parse().ok());
    parsed.filter(|n| !n.is_nan()).ok_or_else(|| err("value is not a valid float"))
}

/// `start` and `stop` of a range over `len` elements, both may count from the end.
pub fn range(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let from = if start < 0 { (len + start).max(0) } else { start };
    let to = if stop < 0 { len + stop } else { stop.min(len - 1) };
    if from > to { 0..0 } else { from as usize..to as usize + 1 }
}

/// Redis's glob: `*`, `?`, `[a-c]`, `[^x]`, `\` before a character that means itself.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        let matched = match text.get(t) {
            Some(byte) => one(pattern, p, *byte),
            None if p >= pattern.len() => return true,
            None => None,
        };
        match (matched, &mut star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((after, from))) if *from < text.len() => {
                *from += 1;
                p = *after;
                t = *from;
            }
            _ => return false,
        }
    }
}

/// Where the pattern goes on when its element at `p` matches the byte.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'\\' if p + 1 < pattern.len() => (pattern.get(p + 1) == Some(&byte)).then_some(p + 2),
        b'[' => {
            let rest = pattern.get(p + 1..)?;
            let (negated, from) = if rest.first() == Some(&b'^') { (true, 1) } else { (false, 0) };
            let end = rest.iter().skip(from + 1).position(|b| *b == b']').map(|at| at + from + 1)?;
            let class = rest.get(from..end)?;
            let mut found = false;
            let mut at = 0;
            while let Some(low) = class.get(at) {
                match (class.get(at + 1), class.get(at + 2)) {
                    (Some(b'-'), Some(high)) => {
                        found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                        at += 3;
                    }
                    _ => {
                        found |= *low == byte;
                        at += 1;
                    }
                }
            }
            (found != negated).then_some(p + 1 + end + 1)
        }
        literal => (literal == byte).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_redis_does() {
        let yes = [
            ("*", ""),
            ("a*c", "abbc"),
            ("a?c", "abc"),
            ("[ab]x", "bx"),
            ("[a-c]x", "bx"),
            ("[^a]x", "bx"),
            (r"\*", "*"),
            ("user:*:x", "user:1:x:2:x"),
        ];
        for (pattern, text) in yes {
            assert!(glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in
            [("a", ""), ("a*c", "abb"), ("[^a]x", "ax"), (r"\*", "x"), ("[a", "a"), ("", "x")]
        {
            assert!(!glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn ranges_count_from_both_ends() {
        assert_eq!(range(0, -1, 3), 0..3);
        assert_eq!(range(-2, 9, 3), 1..3);
        assert_eq!(range(2, 1, 3), 0..0);
        assert_eq!(range(5, 9, 3), 0..0);
        assert_eq!(range(0, -9, 3), 0..0);
        assert_eq!(range(0, -1, 0), 0..0);
    }
}
