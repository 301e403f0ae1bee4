//! What stdout is to whoever reads it: a terminal of so many columns, with colours or without, or something else.
//!
//! Contract: where it is no terminal, text stays as it is, whole and without a sequence. Colours only repeat what words
//! say; `NO_COLOR` (no-color.org) and `TERM=dumb` take them away.

use faultbox_bundle_format::Ending;
use faultbox_engine::supervisor::columns;
use std::io::IsTerminal;
use std::sync::OnceLock;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Fewer columns are taken for no answer.
const NARROWEST: usize = 20;

/// What stdout is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Screen {
    colours: bool,
    /// Of a terminal.
    columns: Option<usize>,
}

impl Screen {
    /// Stdout, as it is when it is first asked for.
    pub fn stdout() -> Self {
        static STDOUT: OnceLock<Screen> = OnceLock::new();
        *STDOUT.get_or_init(|| {
            let out = std::io::stdout();
            let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
            let plain = set("NO_COLOR").is_some() || set("TERM").is_none_or(|term| term == "dumb");
            match out.is_terminal() {
                true => Screen::terminal(columns(&out), !plain),
                false => Screen::default(),
            }
        })
    }

    fn terminal(columns: Option<u16>, colours: bool) -> Self {
        Screen { colours, columns: columns.map(usize::from).filter(|columns| *columns >= NARROWEST) }
    }

    /// The text with the first place where it says the word in the colour of what that means.
    pub fn marked(self, text: &str, word: &str, ending: Option<Ending>) -> String {
        let colour = match ending {
            Some(Ending::Passed) => "32",
            Some(Ending::Failed | Ending::Violated) => "31",
            _ => "33",
        };
        match text.split_once(word) {
            Some((before, after)) if self.colours => format!("{before}\x1b[{colour}m{word}\x1b[0m{after}"),
            _ => text.to_owned(),
        }
    }

    /// A line, cut where the terminal ends.
    pub fn cut(self, line: &str) -> String {
        let fits = |columns: &usize| line.width() <= *columns;
        let Some(columns) = self.columns.filter(|columns| !fits(columns)) else { return line.to_owned() };
        let (head, _) = line.split_at(end(line, columns - 1));
        format!("{}\u{2026}", head.trim_end())
    }

    /// A text, broken where the terminal ends; what goes on is set in by so many columns.
    pub fn broken(self, text: &str, set_in: usize) -> String {
        let Some(columns) = self.columns else { return text.to_owned() };
        // Of a narrow terminal, half is for the text.
        let set_in = set_in.min(columns / 2);
        let mut lines = Vec::new();
        // Of a tab nobody knows how wide it is.
        for line in text.replace('\t', " ").split('\n') {
            let (mut rest, mut indent) = (line, 0);
            loop {
                let (head, tail) = rest.split_at(end(rest, columns - indent));
                lines.push(format!("{:indent$}{head}", ""));
                if tail.is_empty() {
                    break;
                }
                (rest, indent) = (tail, set_in);
            }
        }
        lines.join("\n")
    }
}

/// Where in a line so many columns end, in bytes; at least one character's worth.
fn end(line: &str, columns: usize) -> usize {
    let mut used = 0;
    for (at, c) in line.char_indices() {
        used += c.width().unwrap_or(1);
        if used > columns && at > 0 {
            return at;
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_terminal_gets_everything_and_no_sequence() {
        let pipe = Screen::default();
        let long = "PASS ".repeat(100);
        assert_eq!(pipe.cut(&long), long);
        assert_eq!(pipe.broken(&long, 4), long);
        assert_eq!(pipe.marked(&long, "PASS", Some(Ending::Passed)), long);
        let plain = Screen::terminal(Some(80), false);
        assert_eq!(plain.marked("PASS a", "PASS", Some(Ending::Passed)), "PASS a");
        assert_eq!(Screen::terminal(Some(3), false).cut(&long), long, "no terminal is that narrow");
    }

    #[test]
    fn a_terminals_columns_are_kept_to() {
        let screen = Screen::terminal(Some(20), true);
        assert_eq!(screen.cut("exactly twenty wide."), "exactly twenty wide.");
        assert_eq!(screen.cut("more than twenty wide"), "more than twenty wi\u{2026}");
        assert_eq!(screen.cut(&"\u{6f22}".repeat(11)), format!("{}\u{2026}", "\u{6f22}".repeat(9)));
        let text = format!("{}\nshort", "0123456789".repeat(4));
        let broken = "01234567890123456789\n    0123456789012345\n    6789\nshort";
        assert_eq!(screen.broken(&text, 4), broken);
        assert_eq!(screen.broken("a\tb", 4), "a b");
        let indented = screen.broken(&"x".repeat(45), 50);
        assert!(
            indented.lines().skip(1).all(|line| line.starts_with("          x") && line.width() <= 20),
            "{indented}"
        );
    }

    #[test]
    fn colours_repeat_what_words_say() {
        let screen = Screen::terminal(None, true);
        let marked = |word, ending| screen.marked(&format!("--- {word}: a"), word, ending);
        assert_eq!(marked("FAIL", Some(Ending::Violated)), "--- \u{1b}[31mFAIL\u{1b}[0m: a");
        assert_eq!(marked("PASS", Some(Ending::Passed)), "--- \u{1b}[32mPASS\u{1b}[0m: a");
        assert_eq!(marked("no verdict", None), "--- \u{1b}[33mno verdict\u{1b}[0m: a");
        assert_eq!(screen.marked("none here", "PASS", None), "none here");
    }
}
