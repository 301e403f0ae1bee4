//! What is kept of a body that passes by.
//!
//! Contract: up to [`KEPT_MAX`] bytes are kept; of a longer body its length and hash, which
//! suffice to compare it but not to send it again.

use bytes::BytesMut;
use faultbox_bundle_format::Value;

/// Most bytes of a body that are kept.
pub const KEPT_MAX: usize = 8 << 20;

/// A body as it passes by.
#[derive(Debug, Default)]
pub struct Kept {
    bytes: BytesMut,
    length: u64,
    hasher: blake3::Hasher,
}

impl Kept {
    /// Takes note of bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        if self.length <= KEPT_MAX as u64 {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.bytes = BytesMut::new();
        }
    }

    /// How many bytes passed.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether none did.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes, where all were kept.
    pub fn whole(&self) -> Option<&[u8]> {
        (self.length <= KEPT_MAX as u64).then_some(&self.bytes)
    }

    /// Text or bytes; of a longer body a map of its length and hash.
    pub fn value(&self) -> Value {
        match self.whole() {
            Some(bytes) => Value::text_or_bytes(bytes),
            None => Value::map([
                ("omitted_bytes", Value::UInt(self.length)),
                ("blake3", Value::text(self.hasher.finalize().to_hex().to_string())),
            ]),
        }
    }
}
