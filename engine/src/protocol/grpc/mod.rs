//! The grpc protocol.

pub mod codec;
pub mod message;
pub mod status;
#[cfg(test)]
pub mod testing;
pub mod value;

/// The registry entry.
pub static PROTOCOL: super::stub::Stub = super::stub::Stub("grpc");
