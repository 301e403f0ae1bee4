//! Every bound of the format, in one place, with the reason for its value.

/// Deepest nesting of a [`crate::Value`]: deeper than any message of a supported protocol
/// (JSON bodies stay text), shallow enough for the smallest thread stack.
pub const VALUE_DEPTH_MAX: usize = 64;

/// A chunk of entries is written once its entries are estimated at this many bytes: large
/// enough to compress well, small enough that a crash loses little and a reader decodes little.
pub const CHUNK_TARGET: usize = 1024 * 1024;

/// Largest decompressed frame of any kind except a blob. A chunk passes its target by at
/// most one entry, and [`ENTRY_MAX`] bounds that.
pub const FRAME_RAW_MAX: usize = 16 * 1024 * 1024;

/// Most entries of a chunk: bounds what a small hostile chunk unfolds to.
pub const CHUNK_ENTRIES_MAX: usize = 65_536;

/// Most items of lists in a chunk.
pub const CHUNK_ITEMS_MAX: usize = 1 << 20;

/// Most bytes of the texts of a chunk, as they are when they are put together.
pub const CHUNK_TEXT_MAX: usize = 64 * 1024 * 1024;

/// Longest dictionary of a frame: what zstd looks back at with profit in a small chunk, and what a reader of one
/// chunk decodes besides.
pub const DICTIONARY_MAX: usize = 256 * 1024;

/// Most frames that a dictionary is made of: bounds how far a reader goes back for one.
pub const DICTIONARY_FRAMES_MAX: usize = 32;

/// Largest decompressed index: what [`FRAMES_MAX`] frames need.
pub const INDEX_MAX: usize = 256 * 1024 * 1024;

/// Largest single entry as estimated by the writer; its payloads lie in blobs.
pub const ENTRY_MAX: usize = 8 * 1024 * 1024;

/// Largest blob: a service's binary with its debug information.
pub const BLOB_MAX: usize = 512 * 1024 * 1024;

/// Payloads longer than this lie in the payload store, where equal ones are kept once.
pub const INLINE_MAX: usize = 2048;

/// Most frames that a reader lists: bounds the index of a hostile file.
pub const FRAMES_MAX: usize = 4 * 1024 * 1024;

/// Longest path of a stored file.
pub const PATH_MAX: usize = 1024;

/// Longest run of generated values that are unified in one message: beyond it, values stay
/// as they are (a listing of thousands of ids is compared literally).
pub const GENERATED_MAX: usize = 65_536;

/// Most bytes of payloads that the entries of one cell may have at hand together: far more than a
/// cell moves, and what a small hostile file that refers to one payload often cannot go beyond.
pub const CELL_PAYLOADS_MAX: u64 = 2 << 30;

/// Most bytes that an extraction writes: several executables with their debug information, and
/// what a small hostile file cannot fill a disk beyond.
pub const EXTRACT_MAX: u64 = 8 << 30;
