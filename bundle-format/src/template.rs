//! Templates: texts with holes, and what stands in these.
//!
//! Contract: a template and the values of its holes give back the bytes of a text, exactly. A reader checks
//! templates as it takes them, bounds what they are put together to, and panics on nothing.
//! Not modelled: holes that hold anything but numbers.

use crate::limits;
use crate::varint;

/// What stands in a template for something else. None of them begins a character of UTF-8.
pub(crate) mod op {
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
pub(crate) const DIGITS_MAX: u8 = 19;
/// Digits of a hexadecimal hole.
pub(crate) const HEX_MAX: u8 = 16;

/// What a hole holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hole {
    Decimal,
    Fixed(u8),
    Hex(u8),
    Uuid,
    Integer,
}

impl Hole {
    /// Numbers that it takes.
    pub fn words(self) -> usize {
        if self == Hole::Uuid { 2 } else { 1 }
    }

    pub fn put(self, words: &[u64], out: &mut Vec<u8>) {
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

/// The templates of a chunk as it is read.
pub(crate) struct Templates<'a> {
    pub templates: Vec<(&'a [u8], Vec<Hole>)>,
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
