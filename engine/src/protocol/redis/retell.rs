//! Commands as arrays of bulk strings, replies in RESP2.

use super::codec::encode_command;
use super::session::words_in;
use super::value::to_frame;
use crate::protocol::retell::{Pieces, Retell};
use faultbox_bundle_format::Value;

/// A connection of RESP2.
pub struct Retold;

impl Retell for Retold {
    fn exchange(&mut self, request: &Value, response: Option<&Value>) -> Result<Pieces, String> {
        let words: Vec<&[u8]> = words_in(request).collect();
        // What a server pushes was not asked for.
        let asked = if words.is_empty() { Vec::new() } else { encode_command(&words) };
        let response = response.map(|reply| to_frame(reply, 2).encode()).unwrap_or_default();
        Ok(Pieces { before: Vec::new(), request: asked, response })
    }
}
