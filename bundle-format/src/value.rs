//! `Value`: the one self-describing tree in which decoded messages are kept.
//!
//! Contract: every protocol decodes requests and responses to a `Value` that holds all
//! that is needed to compare, show and re-encode them. `encode`/`decode` are exact
//! inverses; `decode` bounds depth and every length before it allocates.
//! Not modelled: maps with keys that are not text, and shared sub-trees.

use crate::limits;

/// A decoded message or a part of one.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing (SQL NULL, a Redis nil, an absent field).
    #[default]
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer that does not fit `Int`.
    UInt(u64),
    /// A floating point number.
    Float(f64),
    /// UTF-8 text.
    Text(String),
    /// Bytes that are not text.
    Bytes(Vec<u8>),
    /// An ordered sequence.
    List(Vec<Value>),
    /// Named fields, in the order in which they were sent.
    Map(Vec<(String, Value)>),
    /// A part that means nothing beyond one connection or one moment (a correlation id, a
    /// salt, an HTTP `Date`). Kept for re-encoding and display, left out of comparison.
    Volatile(Box<Value>),
}

/// Why bytes are not an encoded [`Value`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The bytes end inside a value.
    #[error("value ends early at byte {0}")]
    Truncated(usize),
    /// A tag that this version does not know.
    #[error("unknown value tag {tag} at byte {at}")]
    Tag {
        /// The tag.
        tag: u8,
        /// Where it stands.
        at: usize,
    },
    /// Nested deeper than [`limits::VALUE_DEPTH_MAX`].
    #[error("value nested deeper than {}", limits::VALUE_DEPTH_MAX)]
    Depth,
    /// Text that is not UTF-8.
    #[error("text at byte {0} is not UTF-8")]
    Utf8(usize),
    /// Bytes are left over after the value.
    #[error("{0} bytes left over after the value")]
    Trailing(usize),
}

impl Value {
    /// Text from anything that can be a string.
    pub fn text(text: impl Into<String>) -> Self {
        Value::Text(text.into())
    }

    /// Text where the bytes are UTF-8, else bytes.
    pub fn text_or_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(bytes.to_vec()),
        }
    }

    /// A map from fields.
    pub fn map<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Self {
        Value::Map(fields.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    /// Marks a value volatile.
    pub fn volatile(self) -> Self {
        Value::Volatile(Box::new(self))
    }

    /// The value itself, without a volatile mark around it.
    pub fn bare(&self) -> &Value {
        match self {
            Value::Volatile(inner) => inner.bare(),
            other => other,
        }
    }

    /// A field of a map, seen through volatile marks.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self.bare() {
            Value::Map(fields) => fields.iter().find(|(k, _)| k == name).map(|(_, v)| v.bare()),
            _ => None,
        }
    }

    /// The text, if this is text.
    pub fn as_text(&self) -> Option<&str> {
        match self.bare() {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if this is one that fits.
    pub fn as_int(&self) -> Option<i64> {
        match self.bare() {
            Value::Int(n) => Some(*n),
            Value::UInt(n) => i64::try_from(*n).ok(),
            Value::Bool(b) => Some(i64::from(*b)),
            _ => None,
        }
    }

    /// The truth value, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self.bare() {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The bytes of text or bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self.bare() {
            Value::Text(text) => Some(text.as_bytes()),
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The items, if this is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self.bare() {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The fields, if this is a map.
    pub fn as_map(&self) -> Option<&[(String, Value)]> {
        match self.bare() {
            Value::Map(fields) => Some(fields),
            _ => None,
        }
    }

    /// The same tree without its volatile parts: what is compared and matched.
    pub fn stable(&self) -> Value {
        match self {
            Value::Volatile(_) => Value::Null,
            Value::List(items) => Value::List(items.iter().map(Value::stable).collect()),
            Value::Map(fields) => Value::Map(
                fields
                    .iter()
                    .filter(|(_, v)| !matches!(v, Value::Volatile(_)))
                    .map(|(k, v)| (k.clone(), v.stable()))
                    .collect(),
            ),
            other => other.clone(),
        }
    }

    /// The portable encoding (`FORMAT.md`, "Values").
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        out
    }

    /// How many bytes [`Value::encode`] makes.
    fn encoded_len(&self) -> usize {
        let sized = |len: usize| crate::varint::len(len as u64) + len;
        1 + match self {
            Value::Null | Value::Bool(_) => 0,
            Value::Int(_) | Value::UInt(_) | Value::Float(_) => 8,
            Value::Text(text) => sized(text.len()),
            Value::Bytes(bytes) => sized(bytes.len()),
            Value::List(items) => {
                crate::varint::len(items.len() as u64) + items.iter().map(Value::encoded_len).sum::<usize>()
            }
            Value::Map(fields) => {
                let field = |(name, value): &(String, Value)| sized(name.len()) + value.encoded_len();
                crate::varint::len(fields.len() as u64) + fields.iter().map(field).sum::<usize>()
            }
            Value::Volatile(inner) => inner.encoded_len(),
        }
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        fn sized(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
            out.push(tag);
            length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        fn length(out: &mut Vec<u8>, len: usize) {
            crate::varint::put(out, len as u64);
        }
        match self {
            Value::Null => out.push(0),
            Value::Bool(false) => out.push(1),
            Value::Bool(true) => out.push(2),
            Value::Int(n) => {
                out.push(3);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Value::UInt(n) => {
                out.push(4);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Value::Float(n) => {
                out.push(5);
                out.extend_from_slice(&n.to_bits().to_le_bytes());
            }
            Value::Text(text) => sized(out, 6, text.as_bytes()),
            Value::Bytes(bytes) => sized(out, 7, bytes),
            Value::List(items) => {
                out.push(8);
                length(out, items.len());
                for item in items {
                    item.encode_into(out);
                }
            }
            Value::Map(fields) => {
                out.push(9);
                length(out, fields.len());
                for (name, value) in fields {
                    length(out, name.len());
                    out.extend_from_slice(name.as_bytes());
                    value.encode_into(out);
                }
            }
            Value::Volatile(inner) => {
                out.push(10);
                inner.encode_into(out);
            }
        }
    }

    /// Reads what [`Value::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not exactly one encoded value within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Value, ValueError> {
        let mut reader = Reader { bytes, at: 0 };
        let value = reader.value(0)?;
        match bytes.len() - reader.at {
            0 => Ok(value),
            left => Err(ValueError::Trailing(left)),
        }
    }
}

/// The length or count at a place in an encoded value, and where it ends.
pub(crate) fn length_at(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut reader = Reader { bytes, at };
    bytes.get(at..).and_then(|_| reader.length().ok()).map(|len| (len, reader.at))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ValueError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(ValueError::Truncated(self.at))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn eight(&mut self) -> Result<[u8; 8], ValueError> {
        let mut eight = [0; 8];
        eight.copy_from_slice(self.take(8)?);
        Ok(eight)
    }

    fn length(&mut self) -> Result<usize, ValueError> {
        let at = self.at;
        let mut length = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // A length can never exceed the bytes that are left: one byte an item at least.
                let length = usize::try_from(length).map_err(|_| ValueError::Truncated(at))?;
                if length > self.bytes.len() - self.at {
                    return Err(ValueError::Truncated(at));
                }
                return Ok(length);
            }
        }
        Err(ValueError::Truncated(at))
    }

    fn text(&mut self) -> Result<String, ValueError> {
        let at = self.at;
        let len = self.length()?;
        std::str::from_utf8(self.take(len)?).map(str::to_owned).map_err(|_| ValueError::Utf8(at))
    }

    fn value(&mut self, depth: usize) -> Result<Value, ValueError> {
        if depth > limits::VALUE_DEPTH_MAX {
            return Err(ValueError::Depth);
        }
        let at = self.at;
        Ok(match self.take(1)?[0] {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => Value::Int(i64::from_le_bytes(self.eight()?)),
            4 => Value::UInt(u64::from_le_bytes(self.eight()?)),
            5 => Value::Float(f64::from_bits(u64::from_le_bytes(self.eight()?))),
            6 => Value::Text(self.text()?),
            7 => {
                let len = self.length()?;
                Value::Bytes(self.take(len)?.to_vec())
            }
            8 => {
                let len = self.length()?;
                let mut items = Vec::new();
                for _ in 0..len {
                    items.push(self.value(depth + 1)?);
                }
                Value::List(items)
            }
            9 => {
                let len = self.length()?;
                let mut fields = Vec::new();
                for _ in 0..len {
                    let name = self.text()?;
                    fields.push((name, self.value(depth + 1)?));
                }
                Value::Map(fields)
            }
            10 => Value::Volatile(Box::new(self.value(depth + 1)?)),
            tag => return Err(ValueError::Tag { tag, at }),
        })
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Value::Int(n)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}
