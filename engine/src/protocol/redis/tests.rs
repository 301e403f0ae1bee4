//! Proxy and server together.
