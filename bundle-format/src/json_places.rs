//! Where scalars stand in a text that is JSON.
//!
//! Contract: pure; says places of bytes, which a parser that makes values of them loses. What is nested too deeply is
//! taken for no JSON. Not modelled: whether scalars are well formed (who asks for their places compares them).
//!
//! Source: RFC 8259.

use crate::learned::Segment;
use crate::limits;
use std::ops::Range;

/// Where the scalars at a path stand in a text; a string without its quotes. What is no JSON has none.
pub(crate) fn scalars(text: &str, path: &[Segment]) -> Vec<Range<usize>> {
    let (mut json, mut found) = (Json { text, at: 0 }, Vec::new());
    let whole = json.value(Some(path), &mut found, 0).is_some() && json.peek().is_none();
    if whole { found } else { Vec::new() }
}

struct Json<'a> {
    text: &'a str,
    at: usize,
}

impl Json<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.as_bytes().get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// Passes a value; what stands at the path in it is added. `path` is none off the path.
    fn value(&mut self, path: Option<&[Segment]>, found: &mut Vec<Range<usize>>, depth: usize) -> Option<()> {
        if depth > limits::VALUE_DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            b'{' => self.object(path, found, depth),
            b'[' => self.array(path, found, depth),
            b'"' => {
                let range = self.string()?;
                if path.is_some_and(<[Segment]>::is_empty) {
                    found.push(range);
                }
                Some(())
            }
            _ => {
                let from = self.at;
                let scalar = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
                self.at += self.text.as_bytes().get(from..)?.iter().take_while(|b| scalar(b)).count();
                let number = self.text.get(from..self.at)?;
                if path.is_some_and(<[Segment]>::is_empty)
                    && number.starts_with(|c: char| c == '-' || c.is_ascii_digit())
                {
                    found.push(from..self.at);
                }
                (self.at > from).then_some(())
            }
        }
    }

    fn object(
        &mut self,
        path: Option<&[Segment]>,
        found: &mut Vec<Range<usize>>,
        depth: usize,
    ) -> Option<()> {
        self.eat(b'{')?;
        if self.eat(b'}').is_some() {
            return Some(());
        }
        loop {
            self.peek()?;
            let (from, key) = (self.at, self.string()?);
            let key: String = serde_json::from_str(self.text.get(from..key.end + 1)?).ok()?;
            self.eat(b':')?;
            let wanted = Segment::Name(key);
            let rest = path.and_then(<[Segment]>::split_first).filter(|(first, _)| **first == wanted);
            self.value(rest.map(|(_, rest)| rest), found, depth + 1)?;
            if self.eat(b',').is_none() {
                return self.eat(b'}');
            }
        }
    }

    fn array(&mut self, path: Option<&[Segment]>, found: &mut Vec<Range<usize>>, depth: usize) -> Option<()> {
        self.eat(b'[')?;
        if self.eat(b']').is_some() {
            return Some(());
        }
        for at in 0.. {
            let leads = |first: &Segment| *first == Segment::Each || *first == Segment::Index(at);
            let rest = path.and_then(<[Segment]>::split_first).filter(|(first, _)| leads(first));
            self.value(rest.map(|(_, rest)| rest), found, depth + 1)?;
            if self.eat(b',').is_none() {
                break;
            }
        }
        self.eat(b']')
    }

    /// Passes a string; where its content stands.
    fn string(&mut self) -> Option<Range<usize>> {
        self.eat(b'"')?;
        let from = self.at;
        loop {
            match self.text.as_bytes().get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let end = self.at;
        self.at += 1;
        Some(from..end)
    }
}
