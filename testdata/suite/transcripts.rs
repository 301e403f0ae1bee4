//! Transcripts: what a user sees of whole commands, held word for word.
//!
//! Goal: a change of any output is seen in review: every `testdata/transcripts/*.txt` holds
//! commands and what they print. `FAULTBOX_TRANSCRIPTS=write` runs the commands and writes it anew.
//! Method: a file is one session in one temporary folder. `$ command` goes to `sh` at the top of
//! the repository with `$TMP` (that folder), `$API` (the healthy service) and `faultbox` on its
//! path; stdout follows as it is, stderr with `2> ` before each line, then `exit N`. Lines with
//! `#` before the first command say what the file is about. What differs from run to run is
//! replaced by the rules of [`normal`], in the file and in what is compared alike.

use super::{faultbox, orders_api, repository};
use regex::{Captures, Regex};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The transcripts, in order of their names.
fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository("testdata/transcripts")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "txt")).collect();
    files.sort();
    files
}

/// Runs one command line of a transcript. What it printed, and whether services share the host's
/// loopback here.
fn perform(line: &str, folder: &Path) -> (String, bool) {
    let bin = faultbox().with_file_name("");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(repository("."))
        .env("PATH", path)
        .env("TMP", folder)
        .env("API", orders_api())
        .env_remove("FAULTBOX_BUNDLE_DIR")
        .env_remove("GITHUB_ACTIONS")
        .env_remove("GITHUB_STEP_SUMMARY")
        .env_remove("GITHUB_WORKSPACE")
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for said in String::from_utf8_lossy(&output.stderr).lines() {
        text.push_str(format!("2> {said}").trim_end());
        text.push('\n');
    }
    let code = output.status.code().map_or("by a signal".to_owned(), |code| code.to_string());
    let shared = text.contains("2> notice: services share this host's loopback");
    (format!("{}exit {code}\n", normal(&text, folder)), shared)
}

fn rule(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"))
}

/// Digits of a figure replaced, its column kept where it stands in one.
fn figure(found: &Captures<'_>) -> String {
    let whole = &found[0];
    if found[1].ends_with('"') || found[1].ends_with('=') {
        return whole.to_owned(); // A figure of the spec.
    }
    match found[1].len() {
        0 | 1 => format!("{}#ms", &found[1]),
        _ => format!("{:>width$}", "#ms", width = whole.len()),
    }
}

/// The text without what differs from run to run and from host to host.
fn normal(text: &str, folder: &Path) -> String {
    let mut text = text.to_owned();
    // A seed that was drawn stands in the name of the bundle and in the commands as well.
    if let Some(found) = rule(r"Seed: (\d+) \(generated\)").captures(&text) {
        text = text.replace(&found[1].to_owned(), "<seed>");
    }
    // Places.
    for (place, name) in [(folder.to_owned(), "$TMP"), (orders_api(), "$API"), (repository(""), "")] {
        text = text.replace(&place.display().to_string(), name);
    }
    let plain: &[(&str, &str)] = &[
        // A host without network namespaces says so; everything else is the same there.
        (r"(?m)^2> notice: services share this host's loopback.*\n", ""),
        (r"(?m)^2> notice: (names of services do not resolve|syscall faults work without) .*\n", ""),
        // What the service prints is its own business, but for the line with which it gives up.
        (r"(?m)^.* says: .*\n", ""),
        (r#"(?m)^ +\{"time":"[^"]*","level":"\w+","message":"(?:[^c"]|ca[^n"])[^"]*".*\n"#, ""),
        (r"\d{4}-\d\d-\d\d[T ]\d\d[:-]\d\d[:-]\d\d(\.\d+)?( UTC|Z)?", "<time>"),
        (r"\b[0-9a-f]{64}\b", "<digest>"),
        (r"(<secret [^#>]*#)[0-9a-f]+", "$1<token>"),
        (r#""((?:\w+_ms|at_ns|seq|interrupted_at))": \d+"#, "\"$1\": #"),
        (r"\d+ bytes from byte \d+", "# bytes from byte #"),
        (r"at byte \d+", "at byte #"),
        (r"\d+ entries, \d+ payloads", "# entries, # payloads"),
        (r"(?m)^(  not shown: )\d+( .*, )\d+( .*, )\d+( .*)$", "$1#$2#$3#$4"),
        (
            r"(?m)^  (kernel|\w+ namespaces|seccomp .*|architecture|privilege|(?:memory|descriptors) of services): .*$",
            "  $1: <host>",
        ),
        (r"(: (?:GET|POST) \S+) \{.*, answered", "$1 {...}, answered"),
        (r", \d+ repeated requests?", ""),
        (r"127\.0\.0\.1:\d+  past the proxy 127\.0\.0\.1:\d+", "<address>  past the proxy <address>"),
        (r"\b(process|gdb -p|dlv attach) \d+", "$1 <pid>"),
    ];
    for (pattern, with) in plain {
        text = rule(pattern).replace_all(&text, *with).into_owned();
    }
    rule(r#"(["=]|[ ]+|\b)\d+(?:\.\d+)?ms\b"#).replace_all(&text, figure).into_owned()
}

/// A transcript with every command performed anew; none where this host cannot show what it is about.
fn performed(written: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut text: String =
        written.lines().take_while(|line| !line.starts_with("$ ")).map(|line| format!("{line}\n")).collect();
    for line in written.lines().filter_map(|line| line.strip_prefix("$ ")) {
        if !text.ends_with("\n\n") {
            text.push('\n');
        }
        let (printed, shared) = perform(line, folder.path());
        if shared && written.contains("Only where services have networks of their own") {
            return None;
        }
        text.push_str(&format!("$ {line}\n{printed}"));
    }
    Some(text)
}

/// Where two texts part, for a failing assertion.
fn difference(written: &str, now: &str) -> String {
    let mut command = "";
    for (number, (was, is)) in written.lines().chain(["<end>"]).zip(now.lines().chain(["<end>"])).enumerate()
    {
        if was.starts_with("$ ") {
            command = was;
        }
        if was != is {
            return format!("line {}, under `{command}`:\n  written: {was}\n  now:     {is}", number + 1);
        }
    }
    "in its last lines".to_owned()
}

#[test]
fn every_transcript_is_as_it_was_written() {
    let write = std::env::var("FAULTBOX_TRANSCRIPTS").is_ok_and(|value| value == "write");
    let one = |path: &PathBuf| {
        let written = std::fs::read_to_string(path).unwrap();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(now) = performed(&written) else {
            println!("skipped: {name}: no network namespaces here");
            return None;
        };
        if write {
            std::fs::write(path, &now).unwrap();
            return None;
        }
        (written != now).then(|| format!("{name}: {}", difference(&written, &now)))
    };
    // The sessions mostly wait, and know nothing of each other.
    let files = files();
    assert!(files.len() >= 5, "transcripts are missing: {files:?}");
    let changed: Vec<String> = std::thread::scope(|scope| {
        let sessions: Vec<_> = files.iter().map(|path| scope.spawn(|| one(path))).collect();
        sessions.into_iter().filter_map(|session| session.join().unwrap()).collect()
    });
    assert!(
        changed.is_empty(),
        "{}\n(if this is as it should be: FAULTBOX_TRANSCRIPTS=write)",
        changed.join("\n\n")
    );
}

#[test]
fn the_rules_replace_what_differs_and_keep_the_rest() {
    let folder = Path::new("/tmp/x1");
    for (text, wanted) in [
        ("--- PASS: a (12ms, seed=1) ---\n", "--- PASS: a (#ms, seed=1) ---\n"),
        ("FAIL  a      5ms  delay(\"50ms\") 1x\n", "FAIL  a      #ms  delay(\"50ms\") 1x\n"),
        ("FAIL  a   6051ms  delay(\"50ms\") 1x\n", "FAIL  a      #ms  delay(\"50ms\") 1x\n"),
        ("answered 200 after 0.47ms\n", "answered 200 after #ms\n"),
        ("Bundle: /tmp/x1/run-2026-04-23T11-12-34-1.fb\n", "Bundle: $TMP/run-<time>-1.fb\n"),
        ("Seed: 77 (generated)\nx (1ms, seed=77)\n", "Seed: <seed> (generated)\nx (#ms, seed=<seed>)\n"),
        ("  api says: hello\nyes\n", "yes\n"),
        ("status 503 is not 200\n", "status 503 is not 200\n"),
    ] {
        assert_eq!(normal(text, folder), wanted);
    }
}
