//! Every bound of the format, in one place, with the reason for its value.

/// Deepest nesting of a [`crate::Value`]: deeper than any message of a supported protocol
/// (JSON bodies stay text), shallow enough for the smallest thread stack.
pub const VALUE_DEPTH_MAX: usize = 64;
