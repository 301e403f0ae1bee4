//! What is printed where: results on stdout in the chapter's words, everything else on
//! stderr, a live line above on a terminal.

use faultbox_bundle_format::{Blame, Ending, Verdict};
use std::io::{IsTerminal, Write};

/// Prints a line on stdout; a reader that went away ends nothing.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints a notice on stderr.
pub fn notice(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
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
            let _ = write!(err, "\r\x1b[K[{}/{of}] {name}", done + 1).and_then(|()| err.flush());
        }
    }

    /// Shows what is being waited for.
    pub fn tell(&self, text: &str) {
        if self.live {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
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

/// The lines of one result, as the chapter prints them.
pub fn result(name: &str, verdict: &Verdict, seed: u64) -> String {
    let ms = verdict.scenario_ns / 1_000_000;
    let mut text = format!("--- {}: {name} ({ms}ms, seed={seed}) ---", word(verdict.ending));
    if verdict.ending != Ending::Passed {
        text.push_str(&format!("\n  reason: {}", plain(&verdict.reason)));
        if verdict.blame != Blame::None {
            text.push_str(&format!("\n  whose: {}", whose(verdict.blame)));
        }
    }
    if verdict.unreached {
        let rules: Vec<&str> = verdict.fired.iter().map(|count| count.rule.as_str()).collect();
        text.push_str(&format!("\n  unreached: no fault fired ({})", plain(&rules.join(", "))));
    } else {
        for count in verdict.fired.iter().filter(|count| count.fired == 0) {
            let rule = plain(&count.rule);
            text.push_str(&format!(
                "\n  never fired: {} {rule} on {}",
                count.assumption,
                plain(&count.target)
            ));
        }
    }
    text
}

/// Text without control sequences (what a service printed must not drive the terminal).
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}
