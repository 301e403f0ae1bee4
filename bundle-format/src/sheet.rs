//! A chunk's columns as they are written.
//!
//! Contract: values are appended to the column that the caller names; what a column has to come after its values
//! (templates, what is in holes) is kept apart until it is written. Nothing is read back here.
//! Not modelled: which column belongs to what: see `columns`.

use crate::texts::{Sort, Texts};
use crate::varint::{self, zigzag};

/// One column as it is written.
#[derive(Default)]
struct Column {
    bytes: Vec<u8>,
    /// The number before, where differences are kept.
    last: u64,
    /// The template of the text before.
    text: u32,
    /// The templates of its texts in order of their first appearance.
    templates: Vec<u32>,
    /// By template: its place among them plus one, 0 where it has none.
    places: Vec<u32>,
    /// Texts with holes: the template, and where the words begin in `words`.
    uses: Vec<(u32, u32)>,
    words: Vec<u64>,
}

/// A chunk as it is written; what it needs room for is kept for the next one.
#[derive(Default)]
pub(crate) struct Sheet {
    columns: Vec<Column>,
    texts: Texts,
    /// By template: the ordinal that the next entry of that stream has, most likely.
    ordinals: Vec<u64>,
}

impl Sheet {
    /// All that was put before is forgotten; so many columns are there.
    pub fn clear(&mut self, width: usize) {
        self.columns.resize_with(width, Column::default);
        for column in &mut self.columns {
            column.bytes.clear();
            column.uses.clear();
            column.words.clear();
            for template in column.templates.drain(..) {
                if let Some(place) = column.places.get_mut(template as usize) {
                    *place = 0;
                }
            }
            (column.last, column.text) = (0, u32::MAX);
        }
        self.texts.clear();
        self.ordinals.clear();
    }

    /// Appends the list of templates.
    pub fn write_texts(&self, out: &mut Vec<u8>) {
        self.texts.write(out);
    }

    /// Appends all columns.
    pub fn write_columns(&mut self, out: &mut Vec<u8>) {
        for column in &mut self.columns {
            out.extend_from_slice(&column.bytes);
            let mut expected = 0u32;
            for template in &column.templates {
                varint::put(out, zigzag(i64::from(*template) - i64::from(expected)));
                expected = template + 1;
            }
            if !column.uses.is_empty() {
                self.texts.write_holes(&mut column.uses, &column.words, out);
            }
        }
    }

    pub fn byte(&mut self, at: usize, byte: u8) {
        if let Some(column) = self.columns.get_mut(at) {
            column.bytes.push(byte);
        }
    }

    pub fn bytes(&mut self, at: usize, bytes: &[u8]) {
        if let Some(column) = self.columns.get_mut(at) {
            column.bytes.extend_from_slice(bytes);
        }
    }

    pub fn number(&mut self, at: usize, number: u64) {
        if let Some(column) = self.columns.get_mut(at) {
            varint::put(&mut column.bytes, number);
        }
    }

    /// The difference to the number before.
    pub fn step(&mut self, at: usize, number: u64) {
        if let Some(column) = self.columns.get_mut(at) {
            varint::put(&mut column.bytes, zigzag(number.wrapping_sub(column.last) as i64));
            column.last = number;
        }
    }

    pub fn text(&mut self, at: usize, bytes: &[u8], sort: Sort) -> u32 {
        let Some(column) = self.columns.get_mut(at) else { return 0 };
        if !self.texts.is(column.text, bytes) {
            let put = self.texts.put(bytes, sort);
            column.text = put.template;
            if put.holed {
                column.uses.push((put.template, column.words.len() as u32));
                column.words.extend_from_slice(&self.texts.words);
            }
        }
        let template = column.text as usize;
        if column.places.len() <= template {
            column.places.resize(template + 1, 0);
        }
        if let Some(place) = column.places.get_mut(template) {
            if *place == 0 {
                column.templates.push(column.text);
                *place = column.templates.len() as u32;
            }
            varint::put(&mut column.bytes, u64::from(*place - 1));
        }
        column.text
    }

    /// The difference to the ordinal after that of the last entry in the same stream.
    pub fn ordinal(&mut self, at: usize, stream: u32, ordinal: u64) {
        let stream = stream as usize;
        if self.ordinals.len() <= stream {
            self.ordinals.resize(stream + 1, 0);
        }
        if let Some(expected) = self.ordinals.get_mut(stream) {
            let difference = zigzag(ordinal.wrapping_sub(*expected) as i64);
            *expected = ordinal.wrapping_add(1);
            self.number(at, difference);
        }
    }
}
