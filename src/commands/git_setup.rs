//! `faultbox git-setup`: `git diff` shows what bundles mean.
//!
//! Contract: adds one line to `.gitattributes` at the top of the repository and one setting to this clone's
//! configuration; run again, it changes nothing. The line is for everybody, the setting for this clone alone: git
//! takes no programs from a repository.

use crate::exit_code;
use crate::terminal::{notice, say};
use std::path::Path;
use std::process::Command;

/// What `.gitattributes` says of bundles.
const ATTRIBUTES: &str = "*.fb -text diff=faultbox";
/// The setting that names the program.
const SETTING: &str = "diff.faultbox.textconv";

/// Runs the command.
pub fn run() -> u8 {
    match set_up() {
        Ok(lines) => {
            lines.iter().for_each(|line| say(line));
            exit_code::OK
        }
        Err(why) => {
            notice(&format!("faultbox: {why}"));
            exit_code::USAGE
        }
    }
}

fn set_up() -> Result<Vec<String>, String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let path = Path::new(&top).join(".gitattributes");
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let mut said = Vec::new();
    match before.lines().any(|line| line.trim() == ATTRIBUTES) {
        true => said.push(format!(".gitattributes has it: {ATTRIBUTES}")),
        false => {
            let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
            std::fs::write(&path, format!("{before}{gap}{ATTRIBUTES}\n"))
                .map_err(|error| format!("{}: {error}", path.display()))?;
            said.push(format!(".gitattributes: {ATTRIBUTES} (commit it)"));
        }
    }
    let program = std::env::current_exe().map_err(|error| format!("its own executable: {error}"))?;
    let program = program.display().to_string().replace('\'', r"'\''");
    let value = format!("'{program}' inspect --format text");
    git(&["config", "--local", SETTING, &value])?;
    said.push(format!(
        "git config {SETTING}: {value} (this clone; others run `faultbox git-setup` in theirs)"
    ));
    Ok(said)
}

fn git(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git").args(arguments).output().map_err(|error| format!("git: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("git {}: {}", arguments.join(" "), text(&output.stderr))),
    }
}
