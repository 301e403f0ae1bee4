//! How a text is spelled inside others: escaped in JSON, in a URL or in HTML, or as base64.
//!
//! Contract: pure; gives patterns for the `regex` crate's byte mode. A pattern matches the text in
//! any mixture of those spellings, or the part of its base64 that what stands around it cannot change.
//! Not modelled: hexadecimal, encryption, compression, and escapes of plain letters and digits.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Shortest part of a base64 text that is taken for what it encodes.
const FRAGMENT_MIN: usize = 8;

/// A pattern for the text in any spelling.
pub fn any(text: &str) -> String {
    let mut out = "(?-u:".to_owned();
    for c in text.chars() {
        let mut utf8 = [0; 4];
        let bytes = c.encode_utf8(&mut utf8).as_bytes();
        if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c);
            continue;
        }
        let each = |word: fn(&u8) -> String| bytes.iter().map(word).collect::<String>();
        out.push_str("(?:");
        out.push_str(&each(|byte| format!("\\x{byte:02x}")));
        out.push('|');
        out.push_str(&each(|byte| format!("%(?i:{byte:02x})")));
        if let Ok(unit) = u16::try_from(u32::from(c)) {
            out.push_str(&format!("|\\\\+u(?i:{unit:04x})"));
        }
        let more = match c {
            ' ' => r"|\+",
            // Text in JSON in text in JSON is escaped twice, and so on.
            '"' => r#"|\\+"|&quot;|&#34;"#,
            '\\' => r"|\\+",
            '/' => r"|\\+/",
            '\n' => r"|\\+n",
            '\r' => r"|\\+r",
            '\t' => r"|\\+t",
            '&' => "|&amp;",
            '<' => "|&lt;",
            '>' => "|&gt;",
            '\'' => "|&#39;|&apos;",
            _ => "",
        };
        out.push_str(more);
        out.push(')');
    }
    out.push(')');
    out
}

/// A pattern for what of the text's base64 does not depend on what stands before and after it, at each
/// of the three places where it can begin; none where that is too short to tell.
pub fn base64(text: &str) -> Option<String> {
    let fragment = |before: usize| {
        let padded = [&vec![0; before][..], text.as_bytes()].concat();
        let encoded = encode(&padded);
        // What shares a character with a neighbour is left out.
        let from = [0, 2, 3].get(before).copied().unwrap_or_default();
        let end = padded.len() / 3 * 4 + [0, 1, 2].get(padded.len() % 3).copied().unwrap_or_default();
        encoded.get(from..end).filter(|part| part.len() >= FRAGMENT_MIN).map(either_alphabet)
    };
    let fragments: Vec<String> = (0..3).filter_map(fragment).collect();
    (!fragments.is_empty()).then(|| format!("(?-u:{})", fragments.join("|")))
}

/// `+` and `/` are `-` and `_` in URLs.
fn either_alphabet(text: &str) -> String {
    text.replace('+', "[+-]").replace('/', "[/_]")
}

/// Base64 without padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..=three.len() {
            let index = (bits >> (18 - 6 * place)) & 0x3f;
            out.push(char::from(ALPHABET.get(index as usize).copied().unwrap_or_default()));
        }
    }
    out
}

/// Whether a byte can stand in base64, of either alphabet.
pub fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

/// What base64 of either alphabet says, padded or not; what is over at its end is left out.
pub fn decode(text: &[u8]) -> Vec<u8> {
    let six = |byte: &u8| match byte {
        b'-' => Some(62),
        b'_' => Some(63),
        other => ALPHABET.iter().position(|known| known == other).map(|place| place as u32),
    };
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for value in text.iter().filter_map(six) {
        (bits, held) = (bits << 6 | value, held + 6);
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    out
}

/// What `%40` and its like stand for.
pub fn percent_decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::bytes::Regex;

    fn found(pattern: &str, text: &str) -> bool {
        Regex::new(pattern).unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn every_spelling_is_found() {
        let pattern = super::any("p@ss \"wörd\"/1");
        for text in [
            "p@ss \"wörd\"/1",
            "p%40ss%20%22w%C3%B6rd%22%2f1",
            "p%40ss+%22w%c3%b6rd%22/1",
            r#"p@ss \"w\u00f6rd\"\/1"#,
            r#"p@ss \\\"w\\u00F6rd\\\"\\/1"#,
            "p@ss &quot;wörd&quot;/1",
        ] {
            assert!(found(&pattern, text), "{text}");
        }
        assert!(!found(&pattern, "p@ss wörd/1"));
    }

    proptest! {
        #[test]
        fn base64_is_found_wherever_it_begins(
            before in proptest::collection::vec(0u8..=255, 0..20),
            after in proptest::collection::vec(0u8..=255, 0..20),
        ) {
            let secret = "correct horse?>";
            let whole = [&before[..], secret.as_bytes(), &after].concat();
            let encoded = encode(&whole);
            let pattern = base64(secret).unwrap();
            prop_assert!(found(&pattern, &encoded));
            prop_assert!(found(&pattern, &encoded.replace('+', "-").replace('/', "_")));
            prop_assert_eq!(decode(encoded.as_bytes()), whole);
        }

        #[test]
        fn any_text_gives_patterns(text in ".{0,40}") {
            prop_assert!(found(&super::any(&text), &text));
            if let Some(pattern) = base64(&text) {
                prop_assert!(found(&pattern, &encode(text.as_bytes())));
            }
            percent_decoded(&text);
        }
    }
}
