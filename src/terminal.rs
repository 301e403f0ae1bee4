//! What is printed where: results on stdout in the chapter's words, everything else on
//! stderr, a live line above on a terminal.
//!
//! Contract: nothing that is printed, wherever it came from, has a sequence that drives a terminal or
//! turns its text around: the two doors to stdout and stderr replace them.

use crate::screen::Screen;
use faultbox_bundle_format::{Blame, Body, Ending, Entry, Verdict};
use faultbox_engine::runner::{CLOCK_FACT, CREPT, PROVES_NOTHING, asked_host};
use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Prints a line on stdout; a reader that went away ends nothing.
pub fn say(text: &str) {
    print_line(&plain(text));
}

/// The door: what is printed here has been made harmless.
fn print_line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints what has a result, its word in colour where there are colours.
pub fn say_result(ending: Option<Ending>, text: &str) {
    print_line(&Screen::stdout().marked(&plain(text), mark(ending), ending));
}

/// Prints one line of a list, with its result's word where it has one; on a terminal, what is longer is cut.
pub fn say_row(result: Option<Option<Ending>>, line: &str) {
    let screen = Screen::stdout();
    let line = screen.cut(&plain(line).replace(['\t', '\n'], " "));
    let marked = result.map(|ending| screen.marked(&line, mark(ending), ending));
    print_line(&marked.unwrap_or(line));
}

/// Prints a text; on a terminal, what is longer than its lines goes on set in by so many columns.
pub fn say_broken(text: &str, set_in: usize) {
    print_line(&Screen::stdout().broken(&plain(text), set_in));
}

/// Prints a document on stdout. What could drive a terminal is escaped as JSON has it, so that a
/// reader gets it back.
pub fn say_json(document: &serde_json::Value) {
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    // Outside of strings there is nothing of the kind but newlines.
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match drives_terminals(c) {
            true => {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
            false => out.push(c),
        }
    }
    say(&out);
}

/// Prints a notice on stderr.
pub fn notice(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(text));
}

/// A line that is overwritten as the run goes on; nothing where stderr is no terminal.
pub struct Progress {
    live: bool,
}

impl Progress {
    /// A progress line.
    pub fn new() -> Self {
        Progress { live: std::io::stderr().is_terminal() }
    }

    /// Shows what runs now.
    pub fn show(&self, done: usize, of: usize, name: &str) {
        if self.live {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[K[{}/{of}] {}", done + 1, one_line(name)).and_then(|()| err.flush());
        }
    }

    /// Shows what is being waited for.
    pub fn tell(&self, text: &str) {
        if self.live {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[K{}", one_line(text)).and_then(|()| err.flush());
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.live {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
        }
    }
}

/// The word for a result.
pub fn word(ending: Ending) -> &'static str {
    match ending {
        Ending::Passed => "PASS",
        Ending::Failed | Ending::Violated => "FAIL",
        Ending::Inconclusive => "INCONCLUSIVE",
        Ending::Error => "ERROR",
    }
}

/// The same where there may be none.
pub fn mark(ending: Option<Ending>) -> &'static str {
    ending.map_or("no verdict", word)
}

/// Whose failure it is, in words.
pub fn whose(blame: Blame) -> &'static str {
    match blame {
        Blame::None => "nobody's",
        Blame::ServiceUnderTest => "the service under test",
        Blame::Dependency => "a dependency",
        Blame::InjectedFault => "an injected fault",
        Blame::Faultbox => "Faultbox or the host",
        Blame::Spec => "the spec",
    }
}

/// The line that replays a cell.
pub fn replay_line(bundle: &Path, cell: &str, seed: u64) -> String {
    let (bundle, cell) = (quoted(&bundle.display().to_string()), quoted(cell));
    format!("faultbox replay {bundle} --test {cell} --seed {seed}")
}

/// The lines of one result, as the chapter prints them.
pub fn result(name: &str, verdict: &Verdict, seed: u64) -> String {
    let ms = verdict.scenario_ns / 1_000_000;
    let mut text = format!("--- {}: {} ({ms}ms, seed={seed}) ---", word(verdict.ending), one_line(name));
    if verdict.ending != Ending::Passed {
        text.push_str(&format!("\n  reason: {}", set_in(&verdict.reason, 4)));
        if verdict.blame != Blame::None {
            text.push_str(&format!("\n  whose: {}", whose(verdict.blame)));
        }
    } else if !verdict.reason.is_empty() {
        // Of what passes, only a red that is known has something to say.
        text.push_str(&format!("\n  {}", set_in(&verdict.reason, 4)));
    }
    if verdict.unreached {
        let rules: Vec<&str> = verdict.fired.iter().map(|count| count.rule.as_str()).collect();
        text.push_str(&format!("\n  unreached: no fault fired ({})", plain(&rules.join(", "))));
    } else {
        for count in verdict.fired.iter().filter(|count| count.fired == 0) {
            let rule = plain(&count.rule);
            text.push_str(&format!(
                "\n  never fired: {} {rule} on {}",
                plain(&count.assumption),
                plain(&count.target)
            ));
        }
    }
    text
}

/// What a cell says of itself beside its verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What services asked the host: service, what.
    pub undetermined: Vec<(String, String)>,
    /// That a virtual clock did not stand still, in words.
    pub crept: Vec<String>,
    /// Why what judged it could not have failed.
    pub proves_nothing: Vec<String>,
}

impl Findings {
    /// Out of a cell's entries.
    pub fn of(entries: &[Entry]) -> Self {
        let mut found = Findings::default();
        for entry in entries {
            let Body::HostFact(fact) = &entry.body else { continue };
            if let Some((service, what)) = asked_host(fact) {
                found.undetermined.push((one_line(service), one_line(what)));
            } else if fact.name == CLOCK_FACT && fact.value.contains(CREPT) {
                found.crept.push(one_line(&fact.value));
            } else if fact.name == PROVES_NOTHING && !found.proves_nothing.contains(&fact.value) {
                found.proves_nothing.push(one_line(&fact.value));
            }
        }
        found
    }

    /// A line each.
    pub fn lines(&self) -> Vec<String> {
        let asked = self.undetermined.iter();
        let asked = asked.map(|(service, what)| format!("not determined: {service} asked the host: {what}"));
        let crept = self.crept.iter().map(|said| format!("{CLOCK_FACT}: {said}"));
        let nothing = self.proves_nothing.iter().map(|why| format!("{PROVES_NOTHING}: {why}"));
        asked.chain(crept).chain(nothing).collect()
    }

    /// Adds them to a document about the cell.
    pub fn put_into(&self, document: &mut serde_json::Value) {
        let Some(fields) = document.as_object_mut() else { return };
        let asked = self.undetermined.iter();
        let asked = asked.map(|(service, what)| serde_json::json!({ "service": service, "asked": what }));
        fields.insert("not_determined".to_owned(), asked.collect());
        fields.insert("clock_moved_by_itself".to_owned(), (!self.crept.is_empty()).into());
        fields.insert(
            "proves_nothing".to_owned(),
            self.proves_nothing.iter().map(String::as_str).collect::<serde_json::Value>(),
        );
    }
}

/// Text without control sequences (what a service printed must not drive the terminal).
pub fn plain(text: &str) -> Cow<'_, str> {
    match text.contains(drives_terminals) {
        true => Cow::Owned(text.replace(drives_terminals, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// The same for a name or what else has one line: it cannot look like a line of ours.
pub fn one_line(text: &str) -> String {
    text.replace(|c: char| drives_terminals(c) || matches!(c, '\n' | '\t'), "\u{fffd}")
}

/// Text that may have several lines, the further ones set in by so many columns that none looks like a
/// line of ours.
pub fn set_in(text: &str, columns: usize) -> String {
    plain(text).replace('\n', &format!("\n{:columns$}", ""))
}

/// A word of a command line that somebody will copy.
pub fn quoted(word: &str) -> String {
    let word = one_line(word);
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./@:=,+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Whether a character moves the cursor, begins a sequence that does, or changes the order in which
/// its neighbours are seen.
fn drives_terminals(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    turns || c.is_control() && c != '\n' && c != '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drives_the_terminal() {
        let hostile = "a\u{1b}[2Jb\u{9b}31mc\rd\u{8}e\u{202e}f\u{7}g\u{2066}h\0";
        let shown = plain(hostile);
        assert_eq!(shown.chars().filter(|c| c.is_ascii_lowercase()).collect::<String>(), "abmcdefgh");
        assert!(!shown.contains(drives_terminals), "{shown:?}");
        assert_eq!(plain("two\n\tlines, äöü 漢字"), "two\n\tlines, äöü 漢字");
        assert_eq!(one_line("a\nPASS b"), "a\u{fffd}PASS b");
        assert_eq!(set_in("a\nPASS b", 4), "a\n    PASS b");
        assert_eq!(quoted("matrix_a_b"), "matrix_a_b");
        assert_eq!(quoted("a'; rm -rf ~\n"), "'a'\\''; rm -rf ~\u{fffd}'");
    }
}
