//! Recorded exchanges as bytes again: what both sides of a connection could have sent.
//!
//! Contract: made with the codecs of the protocols, out of what a journal says. Where a connection's set-up or a
//! choice of encoding is not in it, the plainest is taken. What cannot be said again is an error with its
//! reason; the connection goes on.

use faultbox_bundle_format::Value;

/// What one side sends at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whether the side that asks sends it.
    pub asks: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Piece {
    /// What the side that asks sends.
    pub fn asked(bytes: Vec<u8>) -> Self {
        Piece { asks: true, bytes }
    }

    /// What the other side sends.
    pub fn answered(bytes: Vec<u8>) -> Self {
        Piece { asks: false, bytes }
    }
}

/// One exchange as bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Before its request: the connection's set-up.
    pub before: Vec<Piece>,
    /// The request; empty where there is none.
    pub request: Vec<u8>,
    /// The response; empty where there is none.
    pub response: Vec<u8>,
}

/// A connection that is told again.
pub trait Retell {
    /// The next exchange of the connection, in the order in which they began.
    ///
    /// # Errors
    /// Why it cannot be said again.
    fn exchange(&mut self, request: &Value, response: Option<&Value>) -> Result<Pieces, String>;
}
