//! Why a bundle cannot be read or written.
//!
//! Contract: every error names the place in the file where there is one, and what to do
//! where something can be done.

/// Why a bundle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("cannot read the bundle: {0}")]
    Io(#[from] std::io::Error),
    /// Not a bundle.
    #[error("not a Faultbox bundle: {0}")]
    NotABundle(&'static str),
    /// Written by a version that this one does not read.
    #[error(transparent)]
    Version(#[from] crate::version::VersionError),
    /// A frame whose bytes are not what was written.
    #[error("frame at byte {at}: {what}")]
    Frame {
        /// Offset of the frame.
        at: u64,
        /// What is wrong with it.
        what: FrameProblem,
    },
    /// A frame whose bytes are intact and whose content cannot be.
    #[error("frame at byte {at}: {what}")]
    Content {
        /// Offset of the frame.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// The index or footer contradicts the file.
    #[error("index: {0}")]
    Index(String),
    /// A payload that entries refer to and the file does not hold.
    #[error("the payload {0} is not in the bundle")]
    MissingBlob(String),
    /// The bundle has no such cell.
    #[error("no cell {name:?} in this bundle{}", nearest.as_ref().map(|n| format!("; the nearest name is {n:?}")).unwrap_or_default())]
    NoSuchCell {
        /// What was asked for.
        name: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
}

/// What is wrong with a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameProblem {
    /// The file ends inside it.
    #[error("the file ends inside it")]
    Truncated,
    /// Longer than the format allows.
    #[error("declares {0} bytes, more than the format allows")]
    TooLong(u64),
    /// The two lengths differ.
    #[error("the lengths at its two ends differ")]
    Lengths,
    /// The checksum is wrong.
    #[error("checksum mismatch")]
    Checksum,
    /// A compression that is not known.
    #[error("unknown compression {0}")]
    Codec(u8),
    /// Does not decompress to what it declares.
    #[error("does not decompress to its declared length")]
    Compression,
    /// Needs the content of an earlier frame, which is not there or too long.
    #[error("an earlier frame that it is compressed with is damaged or not there")]
    Dictionary,
    /// A reserved field is set.
    #[error("a reserved field is not zero")]
    Reserved,
}

/// Why a bundle cannot be written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The disk refused.
    #[error("cannot write {path}: {message}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        message: String,
    },
    /// An earlier write failed; the file on disk is incomplete and says so.
    #[error("not written: an earlier write to this bundle failed")]
    Poisoned,
    /// An entry or payload beyond the format's limits.
    #[error("{what} of {size} bytes is larger than a bundle can hold ({limit})")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The encoder failed.
    #[error("cannot encode: {0}")]
    Encode(String),
}
