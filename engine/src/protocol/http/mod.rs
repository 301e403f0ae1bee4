//! The http protocol.

pub mod json;

/// The registry entry.
pub static PROTOCOL: super::stub::Stub = super::stub::Stub("http");
