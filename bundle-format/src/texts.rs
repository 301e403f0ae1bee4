//! The texts of a chunk as it is written: each once, and what differs from one to the next apart from what does not.
//!
//! Contract: a text is a number in the chunk's list of templates, and the values of that template's holes. Which
//! holes are made is decided here and nowhere else: where a text of the same shape came before in the chunk, or
//! in an earlier one.
//! Not modelled: shapes that are found by comparing texts.

use crate::limits;
use crate::template::{DIGITS_MAX, HEX_MAX, Hole, op};
use crate::value;
use crate::varint;

/// Whether a byte in here could be taken for something else in a template.
fn needs_escapes(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |most, byte| most.max(*byte)) >= op::DECIMAL
}

/// Appends bytes to a template as they are.
fn literal(template: &mut Vec<u8>, bytes: &[u8], escapes: bool) {
    if !escapes {
        template.extend_from_slice(bytes);
        return;
    }
    for byte in bytes {
        if *byte >= op::DECIMAL {
            template.push(op::ESCAPE);
        }
        template.push(*byte);
    }
}

/// Whether a template with escapes and without holes renders to these bytes.
fn renders_to(template: &[u8], bytes: &[u8]) -> bool {
    let mut pieces = template.iter();
    bytes.iter().all(|byte| {
        let escaped = *byte < op::DECIMAL || pieces.next() == Some(&op::ESCAPE);
        escaped && pieces.next() == Some(byte)
    }) && pieces.next().is_none()
}

/// Finds the holes of a text.
struct Shape<'a> {
    bytes: &'a [u8],
    /// From where on nothing is in the template yet.
    from: usize,
    escapes: bool,
    template: &'a mut Vec<u8>,
    holes: &'a mut Vec<Hole>,
    words: &'a mut Vec<u64>,
}

/// Whether a byte is a letter or a digit (1), and one of lower-case hexadecimal (2).
const WORD: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let word = (byte as u8).is_ascii_alphanumeric() as u8;
        table[byte] = word | if word != 0 && matches!(byte as u8, b'0'..=b'9' | b'a'..=b'f') { 2 } else { 0 };
        byte += 1;
    }
    table
};

fn is_word(byte: u8) -> bool {
    WORD[usize::from(byte)] != 0
}

fn is_hex(byte: u8) -> bool {
    WORD[usize::from(byte)] & 2 != 0
}

/// Where the next decimal digit is: eight bytes at a time while there is none.
fn next_digit(bytes: &[u8], mut at: usize) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        // Bytes from 0 to 9 are those that neither have their high bit nor get it.
        let word = u64::from_le_bytes(*eight) ^ (0x30 * EACH);
        let other = (((word & (0x7f * EACH)) + 0x76 * EACH) | word) & (0x80 * EACH);
        let found = (other ^ (0x80 * EACH)).trailing_zeros() as usize / 8;
        if found < 8 {
            return Some(at + found);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    rest.iter().position(u8::is_ascii_digit).map(|place| at + place)
}

impl Shape<'_> {
    /// Up to there, everything is as it is.
    fn literal_to(&mut self, to: usize) {
        literal(self.template, self.bytes.get(self.from..to).unwrap_or_default(), self.escapes);
        self.from = to;
    }

    fn hole(&mut self, start: usize, end: usize, hole: Hole, words: &[u64]) {
        self.literal_to(start);
        match hole {
            Hole::Decimal => self.template.push(op::DECIMAL),
            Hole::Fixed(digits) => self.template.extend([op::FIXED, digits]),
            Hole::Hex(digits) => self.template.extend([op::HEX, digits]),
            Hole::Uuid => self.template.push(op::UUID),
            Hole::Integer => self.template.push(op::INTEGER),
        }
        self.holes.push(hole);
        self.words.extend_from_slice(words);
        self.from = end;
    }

    /// Looks for holes in text from `at` to `end`.
    fn text(&mut self, mut at: usize, end: usize) {
        let bytes = self.bytes.get(..end).unwrap_or_default();
        while let Some(digit) = next_digit(bytes, at) {
            let before = bytes.get(at..digit).unwrap_or_default();
            at = digit - before.iter().rev().take_while(|byte| is_word(**byte)).count();
            let (mut stop, mut digits, mut hexes) = (at, 0, 0);
            for byte in bytes.get(at..).unwrap_or_default().iter().take_while(|byte| is_word(**byte)) {
                digits += usize::from(byte.is_ascii_digit());
                hexes += usize::from(is_hex(*byte));
                stop += 1;
            }
            at = self.word(bytes, at, stop, digits, hexes);
        }
    }

    /// A run of letters and digits; where to go on.
    fn word(&mut self, bytes: &[u8], at: usize, stop: usize, digits: usize, hexes: usize) -> usize {
        let len = stop - at;
        if len == 8
            && hexes == 8
            && let Some(words) = uuid(bytes.get(at..).unwrap_or_default())
        {
            self.hole(at, at + 36, Hole::Uuid, &words);
            return at + 36;
        }
        if digits < 2 {
            // One digit is as short as a hole.
        } else if digits == len {
            self.digits(bytes, at, stop);
        } else if hexes == len && len >= 4 {
            let mut start = at;
            for piece in bytes.get(at..stop).unwrap_or_default().chunks(usize::from(HEX_MAX)) {
                let number = piece.iter().fold(0, |number, digit| number << 4 | hex_digit(*digit));
                self.hole(start, start + piece.len(), Hole::Hex(piece.len() as u8), &[number]);
                start += piece.len();
            }
        } else {
            let word = bytes.get(at..stop).unwrap_or_default();
            let leading = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let trailing = word.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            if leading >= 2 {
                self.digits(bytes, at, at + leading);
            }
            if trailing >= 2 {
                self.digits(bytes, stop - trailing, stop);
            }
        }
        stop
    }

    /// A run of decimal digits.
    fn digits(&mut self, bytes: &[u8], at: usize, stop: usize) {
        let (len, run) = (stop - at, bytes.get(at..stop).unwrap_or_default());
        if len < 2 || len > usize::from(DIGITS_MAX) {
            return;
        }
        let number = run.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        let fixed = len == 2 || run.first() == Some(&b'0');
        self.hole(at, stop, if fixed { Hole::Fixed(len as u8) } else { Hole::Decimal }, &[number]);
    }

    /// Text or bytes that have their length before them, at `at`; where they end.
    fn sized(&mut self, at: usize) -> Option<usize> {
        let (len, start) = value::length_at(self.bytes, at)?;
        let end = start.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        let minimal = start - at == varint::len(len as u64);
        let (template, words, from) = (self.template.len(), self.words.len(), self.from);
        if minimal && next_digit(self.bytes.get(..end)?, start).is_some() {
            self.literal_to(at);
            self.template.push(op::BEGIN);
            self.from = start;
            self.text(start, end);
            if self.words.len() > words {
                self.literal_to(end);
                self.template.push(op::END);
            } else {
                self.template.truncate(template);
                self.from = from;
            }
        }
        Some(end)
    }

    /// An encoded value at `at`; where it ends.
    fn value(&mut self, at: usize, depth: usize) -> Option<usize> {
        let next = at + 1;
        match *self.bytes.get(at)? {
            0..=2 => Some(next),
            3 => {
                let eight = self.bytes.get(next..)?.first_chunk()?;
                let number = i64::from_le_bytes(*eight);
                if !(0..16).contains(&number) {
                    self.hole(next, next + 8, Hole::Integer, &[number as u64]);
                }
                Some(next + 8)
            }
            4 | 5 => Some(next + 8),
            6 | 7 => self.sized(next),
            10 if depth > 0 => self.value(next, depth - 1),
            tag @ (8 | 9) if depth > 0 => {
                let (count, mut at) = value::length_at(self.bytes, next)?;
                for _ in 0..count {
                    if tag == 9 {
                        let (len, start) = value::length_at(self.bytes, at)?;
                        at = start.checked_add(len)?;
                    }
                    at = self.value(at, depth - 1)?;
                }
                Some(at)
            }
            _ => None,
        }
    }
}

fn hex_digit(digit: u8) -> u64 {
    u64::from(if digit.is_ascii_digit() { digit - b'0' } else { digit.wrapping_sub(b'a' - 10) })
}

/// The number of a UUID that stands at the beginning of these bytes, and is not a part of something longer.
fn uuid(bytes: &[u8]) -> Option<[u64; 2]> {
    let text: &[u8; 36] = bytes.first_chunk()?;
    let mut words = [0u64; 2];
    let mut count = 0;
    for (at, byte) in text.iter().enumerate() {
        match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            (_, byte) if is_hex(*byte) => {
                let word = words.get_mut(count / 16)?;
                *word = *word << 4 | hex_digit(*byte);
                count += 1;
            }
            _ => return None,
        }
    }
    (!bytes.get(36).is_some_and(|byte| is_word(*byte))).then_some(words)
}

/// What a text is, for the finding of its holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Text, or bytes that may be.
    Text,
    /// An encoded value, if it is one.
    Value,
}

/// A text in a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Put {
    /// Number of its template.
    pub template: u32,
    /// Whether [`Texts::words`] holds what is in its holes.
    pub holed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Template {
    start: usize,
    end: usize,
    holes: (usize, usize),
    escapes: bool,
}

/// The templates of a chunk as it is written.
#[derive(Default)]
pub(crate) struct Texts {
    bytes: Vec<u8>,
    templates: Vec<Template>,
    holes: Vec<Hole>,
    /// Texts without holes.
    exact: Table,
    /// Shapes with holes: those that came once bear no number.
    shapes: Table,
    /// Hashes of texts without holes and of shapes in earlier chunks. What came there as it is comes so again, most
    /// likely; what came in the same shape comes in it again.
    earlier: Table,
    shape: Vec<u8>,
    found: Vec<Hole>,
    /// What is in the holes of the text that was put last.
    pub words: Vec<u64>,
}

impl Texts {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.templates.clear();
        self.holes.clear();
        if self.earlier.len > EARLIER_MAX {
            self.earlier.clear();
        }
        for (hash, _) in self.exact.slots.iter().chain(&self.shapes.slots).filter(|slot| slot.1 != 0) {
            if self.earlier.find(*hash, |_| true).is_none() {
                self.earlier.insert(*hash, ONCE);
            }
        }
        self.exact.clear();
        self.shapes.clear();
    }

    /// Whether the template of that number is these bytes.
    pub fn is(&self, number: u32, bytes: &[u8]) -> bool {
        self.templates.get(number as usize).is_some_and(|template| {
            let known = self.bytes.get(template.start..template.end).unwrap_or_default();
            match template.escapes {
                false => template.holes.0 == template.holes.1 && known == bytes,
                true => template.holes.0 == template.holes.1 && renders_to(known, bytes),
            }
        })
    }

    pub fn put(&mut self, bytes: &[u8], sort: Sort) -> Put {
        let hash = hash(bytes);
        if let Some(template) = self.exact.find(hash, |number| self.is(number, bytes)) {
            return Put { template, holed: false };
        }
        self.words.clear();
        let escapes = needs_escapes(bytes);
        if bytes.len() > 1
            && self.find_holes(bytes, sort, escapes)
            && self.earlier.find(hash, |_| true).is_none()
        {
            let hash = self::hash(&self.shape);
            // Two shapes of one hash that both came once are taken for one, which does no harm.
            let known = |number: u32| {
                self.templates.get(number as usize).is_none_or(|template| {
                    self.bytes.get(template.start..template.end) == Some(self.shape.as_slice())
                })
            };
            match self.shapes.find(hash, known) {
                None if self.earlier.find(hash, |_| true).is_some() => {
                    let template = self.add_shape(escapes);
                    self.shapes.insert(hash, template);
                    return Put { template, holed: true };
                }
                None => self.shapes.insert(hash, ONCE),
                Some(ONCE) => {
                    let template = self.add_shape(escapes);
                    self.shapes.replace(hash, ONCE, template);
                    return Put { template, holed: true };
                }
                Some(template) => return Put { template, holed: true },
            }
        }
        let start = self.bytes.len();
        literal(&mut self.bytes, bytes, escapes);
        let template = self.add(start, (0, 0), escapes);
        self.exact.insert(hash, template);
        Put { template, holed: false }
    }

    fn find_holes(&mut self, bytes: &[u8], sort: Sort, escapes: bool) -> bool {
        self.shape.clear();
        self.found.clear();
        let mut shape = Shape {
            bytes,
            from: 0,
            escapes,
            template: &mut self.shape,
            holes: &mut self.found,
            words: &mut self.words,
        };
        let whole = sort == Sort::Value && shape.value(0, limits::VALUE_DEPTH_MAX) == Some(bytes.len());
        if !whole {
            shape.template.clear();
            shape.holes.clear();
            shape.words.clear();
            shape.from = 0;
            shape.text(0, bytes.len());
        }
        shape.literal_to(bytes.len());
        !self.words.is_empty()
    }

    fn add_shape(&mut self, escapes: bool) -> u32 {
        let (start, first) = (self.bytes.len(), self.holes.len());
        self.bytes.extend_from_slice(&self.shape);
        self.holes.extend_from_slice(&self.found);
        self.add(start, (first, self.holes.len()), escapes)
    }

    fn add(&mut self, start: usize, holes: (usize, usize), escapes: bool) -> u32 {
        self.templates.push(Template { start, end: self.bytes.len(), holes, escapes });
        (self.templates.len() - 1) as u32
    }

    /// Appends the list of templates.
    pub fn write(&self, out: &mut Vec<u8>) {
        for template in &self.templates {
            varint::put(out, (template.end - template.start) as u64);
            out.extend_from_slice(self.bytes.get(template.start..template.end).unwrap_or_default());
        }
    }

    /// Appends what is in the holes of a column's texts: `uses` has the number of each text's template and where
    /// its words begin in `words`.
    pub fn write_holes(&self, uses: &mut [(u32, u32)], words: &[u64], out: &mut Vec<u8>) {
        // In order of the templates; of one, in order of the texts.
        uses.sort_unstable();
        for same in uses.chunk_by(|a, b| a.0 == b.0) {
            let template = same.first().and_then(|(number, _)| self.templates.get(*number as usize));
            let Some((from, to)) = template.map(|template| template.holes) else { continue };
            let mut place = 0;
            for hole in self.holes.get(from..to).unwrap_or_default() {
                for (_, first) in same {
                    hole.put(words.get(*first as usize + place..).unwrap_or_default(), out);
                }
                place += hole.words();
            }
        }
    }
}

/// Hashes of earlier chunks that are remembered, at most.
const EARLIER_MAX: usize = 64 * 1024;

/// Stands for a shape that came once.
const ONCE: u32 = u32::MAX;

fn hash(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let wide = u128::from(hash ^ word) * u128::from(ODD);
        (wide as u64) ^ (wide >> 64) as u64
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(ODD ^ bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
    mix(hash, u64::from_le_bytes(last))
}

/// Hashes and numbers; never more than half full.
#[derive(Default)]
struct Table {
    /// A hash, and the number plus one; 0 where there is nothing.
    slots: Vec<(u64, u64)>,
    len: usize,
}

impl Table {
    fn clear(&mut self) {
        self.slots.fill((0, 0));
        self.len = 0;
    }

    fn places(&self, hash: u64) -> impl Iterator<Item = usize> {
        let mask = self.slots.len().wrapping_sub(1);
        (0..self.slots.len()).map(move |step| (hash as usize).wrapping_add(step) & mask)
    }

    fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        for place in self.places(hash) {
            match self.slots.get(place) {
                Some((_, 0)) | None => return None,
                Some((other, number)) if *other == hash && is((number - 1) as u32) => {
                    return Some((number - 1) as u32);
                }
                Some(_) => {}
            }
        }
        None
    }

    fn insert(&mut self, hash: u64, number: u32) {
        if self.slots.len() < 2 * (self.len + 1) {
            let larger = vec![(0, 0); (4 * self.len).max(512).next_power_of_two()];
            let old = std::mem::replace(&mut self.slots, larger);
            old.into_iter().filter(|slot| slot.1 != 0).for_each(|slot| self.set(slot.0, slot.1));
        }
        self.set(hash, u64::from(number) + 1);
        self.len += 1;
    }

    fn set(&mut self, hash: u64, number: u64) {
        let free = self.places(hash).find(|place| self.slots.get(*place).is_some_and(|slot| slot.1 == 0));
        if let Some(slot) = free.and_then(|place| self.slots.get_mut(place)) {
            *slot = (hash, number);
        }
    }

    fn replace(&mut self, hash: u64, from: u32, to: u32) {
        let wanted = (hash, u64::from(from) + 1);
        let place = self.places(hash).find(|place| self.slots.get(*place) == Some(&wanted));
        if let Some(slot) = place.and_then(|place| self.slots.get_mut(place)) {
            slot.1 = u64::from(to) + 1;
        }
    }
}

#[cfg(test)]
#[path = "texts_tests.rs"]
mod tests;
