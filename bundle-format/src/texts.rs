//! The texts of a chunk: each once, and what differs from one to the next apart from what does not.
//!
//! Contract: a text is a number in the chunk's list of templates, and the values of that template's
//! holes. Rendering gives back the bytes that were put in, exactly; which holes a writer makes is its
//! own business (this one makes them where a text of the same shape came before in the chunk).
//! A reader bounds what is rendered before it makes room for it, and panics on nothing.
//! Not modelled: holes that hold anything but numbers.

use crate::limits;
use crate::value;
use crate::varint;

/// What stands in a template for something else. None of them begins a character of UTF-8.
mod op {
    /// Decimal digits of a number.
    pub const DECIMAL: u8 = 0xf8;
    /// As many decimal digits as the next byte says.
    pub const FIXED: u8 = 0xf9;
    /// As many hexadecimal digits as the next byte says.
    pub const HEX: u8 = 0xfa;
    /// A UUID with its hyphens.
    pub const UUID: u8 = 0xfb;
    /// Eight bytes of a signed integer.
    pub const INTEGER: u8 = 0xfc;
    /// The length of what stands up to the end.
    pub const BEGIN: u8 = 0xfd;
    /// The end of what has its length before it.
    pub const END: u8 = 0xfe;
    /// The next byte as it is.
    pub const ESCAPE: u8 = 0xff;
}

/// Digits that a number of 64 bits certainly holds.
const DIGITS_MAX: u8 = 19;
/// Digits of a hexadecimal hole.
const HEX_MAX: u8 = 16;

/// What a hole holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hole {
    Decimal,
    Fixed(u8),
    Hex(u8),
    Uuid,
    Integer,
}

impl Hole {
    /// Numbers that it takes.
    fn words(self) -> usize {
        if self == Hole::Uuid { 2 } else { 1 }
    }

    fn put(self, words: &[u64], out: &mut Vec<u8>) {
        let word = words.first().copied().unwrap_or_default();
        match self {
            Hole::Decimal | Hole::Fixed(_) => varint::put(out, word),
            Hole::Integer => varint::put(out, varint::zigzag(word as i64)),
            Hole::Hex(digits) => {
                let from = 8 - usize::from(digits).div_ceil(2);
                out.extend_from_slice(word.to_be_bytes().get(from..).unwrap_or_default());
            }
            Hole::Uuid => words.iter().take(2).for_each(|word| out.extend_from_slice(&word.to_be_bytes())),
        }
    }

    fn take(self, from: &mut varint::Reader<'_>) -> Result<[u64; 2], String> {
        let one = match self {
            Hole::Decimal => from.number()?,
            Hole::Integer => varint::unzigzag(from.number()?) as u64,
            Hole::Fixed(digits) => {
                let number = from.number()?;
                match number < 10u64.pow(u32::from(digits)) {
                    true => number,
                    false => return Err("a number of more digits than its place".to_owned()),
                }
            }
            Hole::Hex(digits) => {
                let bytes = from.bytes(usize::from(digits).div_ceil(2))?;
                let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
                match digits == HEX_MAX || number >> (4 * u32::from(digits)) == 0 {
                    true => number,
                    false => return Err("a number of more digits than its place".to_owned()),
                }
            }
            Hole::Uuid => {
                let half = |bytes: &[u8]| bytes.iter().fold(0u64, |half, byte| half << 8 | u64::from(*byte));
                return Ok([half(from.bytes(8)?), half(from.bytes(8)?)]);
            }
        };
        Ok([one, 0])
    }

    fn render(self, words: [u64; 2], out: &mut Vec<u8>) {
        match self {
            Hole::Decimal => decimal(words[0], 1, out),
            Hole::Fixed(digits) => decimal(words[0], usize::from(digits), out),
            Hole::Hex(digits) => hex(words[0], digits, out),
            Hole::Integer => out.extend_from_slice(&words[0].to_le_bytes()),
            Hole::Uuid => {
                for (digits, word, shift) in [(8, 0, 32), (4, 0, 16), (4, 0, 0), (4, 1, 48), (12, 1, 0)] {
                    hex(words[word] >> shift, digits, out);
                    if (digits, shift) != (12, 0) {
                        out.push(b'-');
                    }
                }
            }
        }
    }
}

fn decimal(mut number: u64, least: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 || digits.len() - at < least {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[at..]);
}

fn hex(number: u64, digits: u8, out: &mut Vec<u8>) {
    let digit = |n: u8| b"0123456789abcdef"[usize::from(n & 15)];
    out.extend((0..digits).rev().map(|place| digit((number >> (4 * u32::from(place))) as u8)));
}

/// One piece of a template.
enum Piece<'a> {
    Literal(&'a [u8]),
    Hole(Hole),
    Begin,
    End,
}

/// The pieces of a template, checked as they are read.
struct Pieces<'a> {
    rest: &'a [u8],
    sized: bool,
}

impl<'a> Pieces<'a> {
    fn of(rest: &'a [u8]) -> Self {
        Pieces { rest, sized: false }
    }

    fn next(&mut self) -> Result<Option<Piece<'a>>, String> {
        let Some((first, rest)) = self.rest.split_first() else {
            return match self.sized {
                true => Err("a template ends before its end".to_owned()),
                false => Ok(None),
            };
        };
        if *first < op::DECIMAL {
            let len = self.rest.iter().position(|byte| *byte >= op::DECIMAL).unwrap_or(self.rest.len());
            let (literal, rest) = self.rest.split_at(len);
            self.rest = rest;
            return Ok(Some(Piece::Literal(literal)));
        }
        self.rest = rest;
        let mut operand = |most: u8| match self.rest.split_first() {
            Some((operand, rest)) if (1..=most).contains(operand) => {
                self.rest = rest;
                Ok(*operand)
            }
            _ => Err("a template with a wrong hole".to_owned()),
        };
        let piece = match *first {
            op::DECIMAL => Piece::Hole(Hole::Decimal),
            op::FIXED => Piece::Hole(Hole::Fixed(operand(DIGITS_MAX)?)),
            op::HEX => Piece::Hole(Hole::Hex(operand(HEX_MAX)?)),
            op::UUID => Piece::Hole(Hole::Uuid),
            op::INTEGER => Piece::Hole(Hole::Integer),
            op::BEGIN if !self.sized => {
                self.sized = true;
                Piece::Begin
            }
            op::END if self.sized => {
                self.sized = false;
                Piece::End
            }
            op::ESCAPE => {
                let (byte, rest) = self.rest.split_at_checked(1).ok_or("a template ends in an escape")?;
                if byte.first().is_none_or(|byte| *byte < op::DECIMAL) {
                    return Err("a template escapes what needs none".to_owned());
                }
                self.rest = rest;
                Piece::Literal(byte)
            }
            _ => return Err("a template whose lengths are nested".to_owned()),
        };
        Ok(Some(piece))
    }
}

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

/// The templates of a chunk as it is read.
pub(crate) struct Templates<'a> {
    templates: Vec<(&'a [u8], Vec<Hole>)>,
    /// Bytes that may yet be rendered.
    left: usize,
}

impl<'a> Templates<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut from = varint::Reader::of(bytes);
        let mut templates = Vec::new();
        while !from.is_empty() {
            let len = from.number()?;
            let template = from.bytes(usize::try_from(len).unwrap_or(usize::MAX))?;
            let (mut pieces, mut holes) = (Pieces::of(template), Vec::new());
            while let Some(piece) = pieces.next()? {
                if let Piece::Hole(hole) = piece {
                    holes.push(hole);
                }
            }
            templates.push((template, holes));
        }
        Ok(Templates { templates, left: limits::CHUNK_TEXT_MAX })
    }

    /// The texts of a column, and the numbers of their templates.
    pub fn take(
        &mut self,
        count: usize,
        from: &mut varint::Reader<'_>,
    ) -> Result<Vec<(u32, Vec<u8>)>, String> {
        let (mut places, mut known) = (Vec::new(), 0);
        for _ in 0..count {
            let place = from.number()?;
            if place > known {
                return Err("templates of a column that are out of order".to_owned());
            }
            known = known.max(place + 1);
            places.push(place as usize);
        }
        let (mut mine, mut expected) = (Vec::new(), 0i64);
        for _ in 0..known {
            let number = expected.checked_add(varint::unzigzag(from.number()?));
            let number = number.and_then(|number| u32::try_from(number).ok());
            let number = number.filter(|number| (*number as usize) < self.templates.len());
            let number = number.ok_or("a text whose template is not there")?;
            expected = i64::from(number) + 1;
            mine.push(number);
        }
        let numbers: Vec<u32> =
            places.iter().map(|place| mine.get(*place).copied().unwrap_or_default()).collect();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|place| numbers.get(*place).copied());
        let mut texts: Vec<(u32, Vec<u8>)> = numbers.iter().map(|number| (*number, Vec::new())).collect();
        for same in order.chunk_by(|a, b| numbers.get(*a) == numbers.get(*b)) {
            let number = same.first().and_then(|place| numbers.get(*place)).copied().unwrap_or_default();
            let Some((template, holes)) = self.templates.get(number as usize) else { continue };
            let mut words = Vec::new();
            for hole in holes {
                for _ in same {
                    words.push(hole.take(from)?);
                }
            }
            for (turn, place) in same.iter().enumerate() {
                let mut mine = words.iter().skip(turn).step_by(same.len());
                let Some((_, text)) = texts.get_mut(*place) else { continue };
                render(template, &mut mine, text)?;
                let left = self.left.checked_sub(text.len());
                self.left = left.ok_or("texts of more bytes than a chunk may have")?;
            }
        }
        Ok(texts)
    }
}

fn render<'w>(
    template: &[u8],
    words: &mut impl Iterator<Item = &'w [u64; 2]>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let mut pieces = Pieces::of(template);
    let mut begun = 0;
    while let Some(piece) = pieces.next()? {
        match piece {
            Piece::Literal(bytes) => out.extend_from_slice(bytes),
            Piece::Hole(hole) => hole.render(words.next().copied().unwrap_or_default(), out),
            Piece::Begin => begun = out.len(),
            Piece::End => {
                let mut len = Vec::new();
                varint::put(&mut len, (out.len() - begun) as u64);
                out.splice(begun..begun, len);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Goal: every text reads back as it was, and texts of one shape share a template. Method: texts by columns
    //! of one, some made of what the finder of holes looks for.

    use super::*;
    use crate::Value;
    use proptest::prelude::*;

    /// Puts texts into one column; the templates' number, and what reads back.
    fn through(texts: &[Vec<u8>], sort: Sort) -> (usize, Vec<Vec<u8>>) {
        let (mut made, mut column, mut uses, mut words) =
            (Texts::default(), Vec::new(), Vec::new(), Vec::new());
        let mut order = Vec::new();
        for text in texts {
            let put = made.put(text, sort);
            let place = order.iter().position(|number| *number == put.template).unwrap_or(order.len());
            if place == order.len() {
                order.push(put.template);
            }
            varint::put(&mut column, place as u64);
            if put.holed {
                uses.push((put.template, words.len() as u32));
                words.extend_from_slice(&made.words);
            }
        }
        order.iter().fold(0, |expected, number| {
            varint::put(&mut column, varint::zigzag(i64::from(*number) - expected));
            i64::from(*number) + 1
        });
        made.write_holes(&mut uses, &words, &mut column);
        let mut templates = Vec::new();
        made.write(&mut templates);
        let mut read = Templates::read(&templates).unwrap();
        let mut reader = varint::Reader::of(&column);
        let back = read.take(texts.len(), &mut reader).unwrap();
        assert!(reader.is_empty(), "something is left over");
        (read.templates.len(), back.into_iter().map(|(_, text)| text).collect())
    }

    #[test]
    fn texts_of_one_shape_share_a_template() {
        let hash = |n: u64| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let shapes: [&dyn Fn(u64) -> String; 7] = [
            &|n| format!("GET /orders/{}", 100 + n),
            &|n| format!("took {}.{:03}s of user{}", 10 + n, n, 1000 + n),
            &|n| format!("2026-11-{:02}T02:{:02}:59Z", 10 + n, n),
            &|n| {
                format!(
                    "00-{:032x}-{:016x}-01",
                    0xa1b2_c3d4_e5f6_a7b8 + u128::from(n),
                    0xdead_beef_0000_000a + n
                )
            },
            &|n| format!("id=7ad72518-1111-4222-8333-{:012x}", n + 0xabc),
            &|n| format!("127.0.0.1:{}", 32_768 + n),
            &|n| {
                format!(
                    "etag \"{:0>8}\"",
                    hash(n).get(..8).unwrap_or("0a1b2c3d").replace(|c: char| c.is_alphabetic(), "1a")
                )
            },
        ];
        for shape in &shapes[..6] {
            let texts: Vec<Vec<u8>> = (0..50).map(|n| shape(n).into_bytes()).collect();
            let (templates, back) = through(&texts, Sort::Text);
            assert_eq!(back, texts);
            assert!(templates <= 3, "{templates} templates for {}", shape(0));
        }
        let texts: Vec<Vec<u8>> = (0..50).map(|n| shapes[6](n).into_bytes()).collect();
        assert_eq!(through(&texts, Sort::Text).1, texts);
    }

    #[test]
    fn values_of_one_shape_share_a_template() {
        let value = |n: i64| {
            let row =
                vec![Value::Int(n * 1000 - 77), Value::text(format!("user-{}", 10 + n)), Value::Float(0.5)];
            Value::map([
                ("sql", Value::text(format!("SELECT {} FROM t", 1000 + n))),
                ("rows", Value::List(vec![Value::List(row)])),
                ("raw", Value::Bytes(vec![0xff, 0xf8, b'1', b'2', 0xfd])),
                ("id", Value::UInt(u64::MAX).volatile()),
            ])
        };
        let texts: Vec<Vec<u8>> = (0..50).map(|n| value(n).encode()).collect();
        let (templates, back) = through(&texts, Sort::Value);
        assert_eq!(back, texts);
        assert!(templates <= 3, "{templates} templates");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let bad: [&[u8]; 12] = [
            &[op::FIXED, 0],
            &[op::FIXED, 20],
            &[op::FIXED],
            &[op::HEX, 17],
            &[op::HEX],
            &[op::END],
            &[op::BEGIN],
            &[op::BEGIN, op::BEGIN, op::END, op::END],
            &[op::ESCAPE],
            &[op::ESCAPE, b'a'],
            &[b'a', op::BEGIN, b'b'],
            &[op::BEGIN, op::END, op::END],
        ];
        for template in bad {
            let mut list = vec![template.len() as u8];
            list.extend_from_slice(template);
            assert!(Templates::read(&list).is_err(), "{template:x?}");
        }
        assert!(Templates::read(&[5, b'a']).is_err(), "longer than what is there");
        // A value that does not fit its hole.
        for (template, value) in
            [(&[2, op::FIXED, 2], &[0, 0, 100][..]), (&[2, op::HEX, 3], &[0, 0, 0x10, 0])]
        {
            let mut templates = Templates::read(template).unwrap();
            assert!(templates.take(1, &mut varint::Reader::of(value)).is_err());
        }
    }

    #[test]
    fn small_columns_cannot_be_put_together_to_much() {
        let mut list = Vec::new();
        varint::put(&mut list, 1 << 20);
        list.resize(list.len() + (1 << 20), b'a');
        let mut templates = Templates::read(&list).unwrap();
        let refused = templates.take(65, &mut varint::Reader::of(&[0; 66])).unwrap_err();
        assert!(refused.contains("more bytes"), "{refused}");
    }

    fn words() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[0-9]{1,22}".prop_map(String::into_bytes),
            "[0-9a-f]{1,40}".prop_map(String::into_bytes),
            "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(String::into_bytes),
            "[a-zA-Z /:.-]{0,6}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_texts_read_back(texts in proptest::collection::vec(words(), 0..40), values in any::<bool>()) {
            let sort = if values { Sort::Value } else { Sort::Text };
            prop_assert_eq!(through(&texts, sort).1, texts);
        }

        #[test]
        fn any_values_read_back(parts in proptest::collection::vec((words(), any::<i64>(), 0i64..20), 0..20)) {
            let value = |(text, large, small): &(Vec<u8>, i64, i64)| {
                let items = vec![Value::text_or_bytes(text), Value::Int(*large), Value::Int(*small)];
                Value::map([("a", Value::List(items)), ("b", Value::Bytes(text.clone()).volatile())]).encode()
            };
            let texts: Vec<Vec<u8>> = parts.iter().map(value).collect();
            prop_assert_eq!(through(&texts, Sort::Value).1, texts);
        }

        #[test]
        fn any_columns_are_answered(list in proptest::collection::vec(any::<u8>(), 0..60), column in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(mut templates) = Templates::read(&list) {
                let _ = templates.take(5, &mut varint::Reader::of(&column));
            }
        }
    }
}
