//! The grpc protocol.

/// The registry entry.
pub static PROTOCOL: super::stub::Stub = super::stub::Stub("grpc");
