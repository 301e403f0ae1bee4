//! Chunks: the entries of one cell, as the content of a frame.
//!
//! Contract: what [`Maker`] makes, [`read`] reads back; rkyv's check comes first, then the columns', then the
//! semantic ones. Chunks of format 1 (an archived `Vec<Entry>`) are read and not written.

use crate::check;
use crate::columns;
use crate::error::WriteError;
use crate::event::Entry;
use crate::reader::unarchive;
use crate::sheet::Sheet;
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// What the frame of a chunk holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Archive, Serialize, Deserialize)]
pub struct Chunk {
    /// How many entries.
    pub entries: u32,
    /// The templates of their texts.
    pub texts: Vec<u8>,
    /// Their columns.
    pub columns: Vec<u8>,
}

/// Makes chunks; what it needs room for is kept for the next one.
#[derive(Default)]
pub(crate) struct Maker {
    sheet: Sheet,
    chunk: Chunk,
}

impl Maker {
    /// The content of a chunk of these entries.
    pub fn make<E: AsRef<Entry>>(
        &mut self,
        entries: &[E],
        room: AlignedVec,
    ) -> Result<AlignedVec, WriteError> {
        self.sheet.begin();
        entries.iter().for_each(|entry| self.sheet.put(entry.as_ref()));
        self.chunk.entries = entries.len() as u32;
        self.chunk.texts.clear();
        self.chunk.columns.clear();
        self.sheet.write_texts(&mut self.chunk.texts);
        self.sheet.write_columns(&mut self.chunk.columns);
        let archived = rkyv::api::high::to_bytes_in::<_, Error>(&self.chunk, room);
        archived.map_err(|e| WriteError::Encode(e.to_string()))
    }
}

/// The content of a chunk of these entries; empty where they do not fit.
pub(crate) fn content<E: AsRef<Entry>>(entries: &[E]) -> Vec<u8> {
    Maker::default().make(entries, AlignedVec::new()).map(|content| content.to_vec()).unwrap_or_default()
}

/// The entries in the content of a chunk of this cell, in a file of this major version.
///
/// # Errors
/// What cannot be, in words.
pub(crate) fn read(content: &[u8], cell: u32, major: u16) -> Result<Vec<Entry>, String> {
    let entries = match major {
        1 => unarchive(content)?,
        _ => {
            let Chunk { entries, texts, columns } = unarchive(content)?;
            columns::take(entries, cell, &texts, &columns)?
        }
    };
    check::entries(&entries, cell)?;
    Ok(entries)
}
