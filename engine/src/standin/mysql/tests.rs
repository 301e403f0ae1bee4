//! Tests with a real client.
