//! Unsigned LEB128, and what reads it.
//!
//! Contract: a number has one encoding, the shortest; another one is refused. Nothing is read beyond the end.

/// Appends a number.
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes that a number takes.
pub(crate) fn len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros()).div_ceil(7) as usize
}

/// A signed number as one that is small where it is near zero.
pub(crate) fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

/// What [`zigzag`] was given.
pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Reads bytes from the front.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or("a column ends early")?;
        self.0 = rest;
        Ok(bytes)
    }

    pub fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for (place, byte) in self.0.iter().take(10).enumerate() {
            let seven = u64::from(byte & 0x7f);
            number |= seven << (7 * place);
            if byte & 0x80 == 0 {
                let shortest = place == 0 || *byte != 0;
                let fits = place < 9 || *byte <= 1;
                self.0 = self.0.get(place + 1..).unwrap_or_default();
                return if shortest && fits {
                    Ok(number)
                } else {
                    Err("a number that is not written as it should be".to_owned())
                };
            }
        }
        Err("a number without an end".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_has_one_encoding() {
        for bad in [
            &[0x80, 0][..],
            &[0x80],
            &[],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert!(Reader::of(bad).number().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_read_back(number in any::<u64>(), shift in 0u32..64) {
            let number = number >> shift;
            let mut out = Vec::new();
            put(&mut out, number);
            prop_assert_eq!(out.len(), len(number));
            let mut reader = Reader::of(&out);
            prop_assert_eq!(reader.number().unwrap(), number);
            prop_assert!(reader.is_empty());
            prop_assert_eq!(zigzag(unzigzag(number)), number);
        }
    }
}
