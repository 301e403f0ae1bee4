//! Pieces of Markdown.
//!
//! Contract: text that a bundle holds is code, which nothing in it can end.

use crate::terminal::one_line;

/// Text as Markdown's code, which nothing in it can end; in a table, too.
pub fn code(text: &str) -> String {
    let text = one_line(text).replace('|', "\u{2502}");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if longest > 0 { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn nothing_ends_a_piece_of_code() {
        assert_eq!(code("a"), "`a`");
        assert_eq!(code("a`b``c"), "``` a`b``c ```");
        assert_eq!(code("a|b\nc"), "`a\u{2502}b\u{fffd}c`");
    }
}
