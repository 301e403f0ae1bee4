//! The bundle format: what a journal says, and how it lies on the disk.
//!
//! Start with `FORMAT.md`, the normative description. Then, in reading order:
//! - [`event`]: the vocabulary of journal entries;
//! - [`value`]: the tree in which decoded messages are kept;
//! - [`limits`]: every bound.
#![forbid(unsafe_code)]

pub mod event;
pub mod limits;
pub mod value;

pub use event::*;
pub use value::{Value, ValueError};
