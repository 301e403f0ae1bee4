//! What shells and manuals know of this command: `completions`, `man`, `help`.
//!
//! Contract: made from the command line's own definition; a word of the spec language from the table that calls are
//! checked against, and from the language's page (docs/language.md).

use crate::cli::Cli;
use crate::exit_code;
use crate::terminal::{notice, one_line, say};
use clap::{Command, CommandFactory};
use faultbox_engine::spec;
use std::io::Write;
use std::path::Path;

/// The language's page.
const PAGE: &str = include_str!("../../docs/language.md");

/// Prints a shell's completions.
pub fn completions(shell: clap_complete::Shell) -> u8 {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "faultbox", &mut text);
    // A reader that went away ends nothing.
    let _ = std::io::stdout().lock().write_all(&text);
    exit_code::OK
}

/// Writes a manual page for the whole command, and one for each of its commands.
pub fn man(folder: &Path) -> u8 {
    let written = std::fs::create_dir_all(folder);
    match written.and_then(|()| clap_mangen::generate_to(Cli::command(), folder)) {
        Ok(()) => exit_code::OK,
        Err(error) => {
            notice(&format!("faultbox: cannot write manual pages to {}: {error}", folder.display()));
            exit_code::USAGE
        }
    }
}

/// Prints the help of a command or of a word of the language.
pub fn help(name: Option<&str>) -> u8 {
    let mut command = Cli::command();
    let Some(name) = name else {
        say(command.render_help().to_string().trim_end());
        return exit_code::OK;
    };
    command.build();
    if let Some(command) = command.find_subcommand_mut(name) {
        say(command.render_help().to_string().trim_end());
        return exit_code::OK;
    }
    let name = name.trim_end_matches("()");
    if let Some(signature) = spec::signature(name) {
        say(&format!("{signature}\n"));
        said_of(name).iter().for_each(|text| say(&format!("{text}\n")));
        say("The whole language: docs/language.md");
        return exit_code::OK;
    }
    let words = spec::words();
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set()).map(Command::get_name);
    let near = spec::nearest(name, commands.chain(words.iter().copied()));
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    notice(&format!(
        "faultbox: there is no command and no word of the language named {}{near}",
        one_line(name)
    ));
    exit_code::USAGE
}

/// What the language's page says of a word: rows of its tables and paragraphs that call it.
fn said_of(name: &str) -> Vec<String> {
    let calls = |text: &str| {
        let at = |quote: &str| text.contains(&format!("{quote}{name}("));
        at("`") || at(" ") || at("=")
    };
    let mut said = Vec::new();
    for block in PAGE.split("\n\n") {
        let example = block.starts_with("```");
        if block.starts_with('|') {
            for row in block.lines().filter(|row| calls(row.split(" | ").next().unwrap_or_default())) {
                let cells = row.trim_matches(['|', ' ']).split_once(" | ");
                said.extend(cells.map(|(_, text)| format!("  {}", text.replace(" | ", "; "))));
            }
        } else if calls(block) && !example && !block.starts_with('#') {
            said.push(block.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_a_page() {
        for name in spec::words() {
            assert!(spec::signature(name).is_some(), "{name}");
            assert!(!said_of(name).is_empty(), "nothing is said of {name}");
        }
        assert_eq!(spec::signature("expect_retries").as_deref(), Some("expect_retries(max=)"));
        assert_eq!(spec::signature("grpc.unavailable").as_deref(), Some("grpc.unavailable(message=, ...)"));
        assert_eq!(spec::signature("nothing"), None);
    }

    /// A call in backquotes with names for its arguments names those that there are.
    #[test]
    fn signatures_in_the_page_are_those_of_the_language() {
        let page: String = PAGE.split("```").step_by(2).collect();
        let mut checked = 0;
        for span in page.split('`').skip(1).step_by(2) {
            let Some((name, arguments)) = span.strip_suffix(')').and_then(|span| span.split_once('(')) else {
                continue;
            };
            let Some(signature) = spec::signature(name) else { continue };
            if signature.ends_with("...)") || arguments.contains(['"', '[', '(']) && !arguments.contains("=,")
            {
                continue;
            }
            let known: Vec<&str> = signature
                .trim_end_matches(')')
                .split(['(', ','])
                .skip(1)
                .map(|parameter| parameter.trim().trim_end_matches('='))
                .collect();
            for argument in arguments.split(", ").filter_map(|argument| argument.split('=').next()) {
                let argument = argument.trim();
                let value = argument.is_empty() || argument.starts_with(|c: char| c.is_ascii_digit());
                if !value {
                    assert!(known.contains(&argument), "{span}: {signature}");
                    checked += 1;
                }
            }
        }
        assert!(checked >= 30, "only {checked} are found");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
