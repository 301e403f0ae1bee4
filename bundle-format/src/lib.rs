//! The bundle format: what a journal says, and how it lies on the disk.
//!
//! Start with `FORMAT.md`, the normative description. Then, in reading order:
//! - [`event`]: the vocabulary of journal entries;
//! - [`value`]: the tree in which decoded messages are kept;
//! - [`generated`]: ids and times that a run makes up, found and unified;
//! - [`learned`]: what else it makes up, found by where it stands; [`key_template`]: how keys look alike;
//! - [`canonical`]: the canonical form of a cell and its digest;
//! - [`version`]: the file header, and the one function that decides readability;
//! - [`frame`], [`index`]: the pieces of the container;
//! - `chunk`, `columns`, `texts`, `template`: entries by columns; `dictionary`: what small chunks share;
//! - [`writer`], [`reader`]: the container as a whole;
//! - [`redact`]: secrets become tokens;
//! - [`extract`]: a bundle laid out in a folder;
//! - [`check`]: semantic checks; [`limits`]: every bound; [`error`]: what can go wrong;
//!   [`fuzzing`]: what the fuzz targets ask.
#![forbid(unsafe_code)]

pub mod canonical;
pub mod check;
mod chunk;
mod columns;
mod container;
mod dictionary;
pub mod error;
pub mod event;
pub mod extract;
pub mod frame;
pub mod fuzzing;
pub mod generated;
pub mod index;
mod json_places;
pub mod key_template;
pub mod learned;
pub mod limits;
pub mod reader;
pub mod recover;
pub mod redact;
mod sheet;
mod spelling;
mod template;
mod texts;
pub mod value;
mod varint;
pub mod version;
pub mod writer;

pub use error::{ReadError, WriteError};
pub use event::*;
pub use index::CellSummary;
pub use reader::Bundle;
pub use redact::Redactor;
pub use value::{Value, ValueError};
pub use version::Header;
pub use writer::BundleWriter;

#[cfg(test)]
mod canonical_tests;
#[cfg(test)]
mod container_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod trust_tests;
