//! Turns of a conversation as their bytes.

use crate::protocol::http::value::body_bytes;
use crate::protocol::retell::{Pieces, Retell};
use faultbox_bundle_format::Value;

/// A connection of bytes.
pub struct Retold;

impl Retell for Retold {
    fn exchange(&mut self, request: &Value, response: Option<&Value>) -> Result<Pieces, String> {
        let bytes = |value: &Value| body_bytes(value.get("bytes")).map(|(bytes, _)| bytes);
        let response = response.map(bytes).transpose()?.unwrap_or_default();
        Ok(Pieces { before: Vec::new(), request: bytes(request)?, response })
    }
}
