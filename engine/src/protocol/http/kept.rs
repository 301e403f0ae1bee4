//! What is kept of a body that passes by.
//!
//! Contract: up to [`KEPT_MAX`] bytes are kept; of a longer body its length and hash, which
//! suffice to compare it but not to send it again.

use bytes::BytesMut;
use faultbox_bundle_format::Value;
use std::sync::{Mutex, PoisonError};

/// Most bytes of a body that are kept.
pub const KEPT_MAX: usize = 8 << 20;

/// A body as it passes by.
#[derive(Debug, Default)]
pub struct Kept {
    bytes: BytesMut,
    length: u64,
    /// Of a body that is too long to keep; most are not, and are not hashed.
    hasher: Option<Box<blake3::Hasher>>,
}

impl Kept {
    /// Takes note of bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.length <= KEPT_MAX as u64 {
            self.bytes.extend_from_slice(bytes);
        } else {
            let kept = std::mem::take(&mut self.bytes);
            self.hasher.get_or_insert_default().update(&kept).update(bytes);
        }
    }

    /// What passed so far, out of a place where more is kept.
    pub fn taken(place: &Mutex<Kept>) -> Kept {
        std::mem::take(&mut *place.lock().unwrap_or_else(PoisonError::into_inner))
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
        match &self.hasher {
            None => Value::text_or_bytes(&self.bytes),
            Some(hasher) => Value::map([
                ("omitted_bytes", Value::UInt(self.length)),
                ("blake3", Value::text(hasher.finalize().to_hex().to_string())),
            ]),
        }
    }
}
