//! What is in a bundle, and what is not: credentials nowhere, in no spelling; everything that a
//! stranger needs to see how it was recorded; and nothing that drives a terminal.
//!
//! Method: `testdata/secrets` is a service that is careless with all that it is given. What it was
//! given is looked for in every byte that leaves Faultbox.

use super::{code, document, repository, run, skipped};
use faultbox_bundle_format::{Bundle, fuzzing};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// By where they come from.
const SECRETS: &[(&str, &str)] = &[
    ("secret()", "pay&ment \"S3cr3t\"/0001"),
    ("environment", "t0ken-environment-0002"),
    ("environment, and a cookie", "pw:c00kie:3306"),
    ("URL", "url/secret@0003"),
    ("Go's data source name", "dsn-secret-0004"),
    ("private key", "MIIkeybody0005"),
    ("Authorization", "bearer-secret-0006"),
    ("Cookie", "cookie-secret-0007"),
    ("command line", "flag-secret-0008"),
];

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let whole = bits.len() / 6 * 6;
    let six = |place: usize| usize::from_str_radix(&bits[place..place + 6], 2).unwrap();
    (0..whole).step_by(6).map(|place| char::from(LETTERS[six(place)])).collect()
}

/// A secret in every spelling that services use.
fn needles(secret: &str) -> BTreeSet<String> {
    let percent = |keep: &str| -> String {
        let one = |c: char| match c.is_ascii_alphanumeric() || keep.contains(c) {
            true => c.to_string(),
            false => format!("%{:02X}", c as u32),
        };
        secret.chars().map(one).collect()
    };
    let json = secret.replace('"', "\\\"");
    let mut all = BTreeSet::from([
        secret.to_owned(),
        json.replace('\\', "\\\\").replace('"', "\\\""),
        json,
        percent("-_.~"),
        percent("-_.~").to_ascii_lowercase(),
        percent("-_.~/").replace("%20", "+"),
        secret.replace('&', "&amp;").replace('"', "&quot;"),
    ]);
    // Wherever it begins in what is encoded; without the letters that it shares with its neighbours.
    for before in 0..3 {
        let encoded = base64(&[&vec![0; before][..], secret.as_bytes()].concat());
        let own = &encoded[(before * 8).div_ceil(6)..];
        all.insert(own.to_owned());
        all.insert(own.replace('+', "-").replace('/', "_"));
    }
    all
}

fn holds_none(bytes: &[u8], place: &str) {
    for (origin, secret) in SECRETS {
        for needle in needles(secret) {
            let found = bytes.windows(needle.len()).position(|window| window == needle.as_bytes());
            if let Some(at) = found {
                let around = &bytes[at.saturating_sub(60)..(at + needle.len() + 20).min(bytes.len())];
                panic!("{place}: {needle:?} ({origin}) in {:?}", String::from_utf8_lossy(around));
            }
        }
    }
}

/// Nothing that a terminal acts upon, but new lines and tabs.
fn drives_nothing(bytes: &[u8], place: &str) {
    let text = String::from_utf8_lossy(bytes);
    let drives = |c: &char| c.is_control() && !"\n\t".contains(*c) || ('\u{202a}'..='\u{202e}').contains(c);
    let found = text.chars().find(drives);
    assert_eq!(found, None, "{place}");
}

/// Runs a command; what it printed is clean.
fn clean(arguments: &[&str]) -> Output {
    let output = run(arguments);
    for printed in [&output.stdout, &output.stderr] {
        holds_none(printed, &arguments.join(" "));
        drives_nothing(printed, &arguments.join(" "));
    }
    output
}

/// Records the careless service. None where there is no Python.
fn recorded(folder: &Path, more: &[&str]) -> Option<String> {
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        skipped("no python3");
        return None;
    }
    let bundle = folder.join("leaky.fb").display().to_string();
    let spec = repository("testdata/secrets/leaky.star").display().to_string();
    let flag = "api:EXTRA_TOKEN=flag-secret-0008";
    let mut arguments = vec!["test", &spec, "--embedded", "--seed", "1", "--bundle", &bundle];
    arguments.extend(["--env", flag]);
    arguments.extend(more);
    let output = clean(&arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 1, "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("--- PASS: test_leaks") && said.contains("1 passed, 1 failed"), "{said}");
    Some(bundle)
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn no_credential_is_anywhere_and_the_recording_replays_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = recorded(dir.path(), &[]) else { return };
    let bundle = Bundle::open(Path::new(&path)).unwrap();
    holds_none(&std::fs::read(&path).unwrap(), "the bundle");
    let plain = fuzzing::uncompressed(&bundle).unwrap();
    holds_none(&plain, "the bundle, decompressed");
    // What stands around them is there: they were given, sent, answered and printed.
    for kept in
        ["theme=dark", "Path=/; HttpOnly", "@tcp(db:3306)/app", "<secret payment.base64#", "Basic <secret "]
    {
        let found = plain.windows(kept.len()).any(|window| window == kept.as_bytes());
        assert!(found, "{kept} is gone");
    }
    for cell in ["test_leaks", "test_fails_with_a_secret"] {
        for format in ["human", "json"] {
            assert_eq!(code(&clean(&["inspect", &path, cell, "--format", format])), 0);
        }
    }
    for more in [&["inspect"][..], &["inspect", "--format", "json"], &["inspect", "--secrets"], &["verify"]] {
        let arguments: Vec<&str> =
            more[..1].iter().chain([&path.as_str()]).chain(&more[1..]).copied().collect();
        assert_eq!(code(&clean(&arguments)), 0, "{arguments:?}");
    }
    let folder = dir.path().join("out");
    assert_eq!(code(&clean(&["inspect", &path, "--extract", &folder.display().to_string()])), 0);
    for file in files_below(&folder) {
        holds_none(&std::fs::read(&file).unwrap(), &file.display().to_string());
    }
    let replayed = clean(&["replay", &path, "--format", "json"]);
    let differences = document(&replayed)["cells"].to_string();
    assert_eq!(code(&replayed), 0, "{differences}");
    assert_eq!(document(&replayed)["exact"], 2, "{differences}");
}

#[test]
fn what_was_redacted_is_listed_with_its_places() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = recorded(dir.path(), &[]) else { return };
    let listed = document(&clean(&["inspect", &path, "--secrets", "--format", "json"]));
    let secrets = listed["secrets"].as_array().unwrap();
    let places = |name: &str| -> Vec<(Value, String)> {
        let of = secrets.iter().filter(|secret| secret["name"] == name);
        let place = |place: &Value| (place["cell"].clone(), place["where"].as_str().unwrap().to_owned());
        of.flat_map(|secret| secret["places"].as_array().unwrap()).map(place).collect()
    };
    for (name, cell, place) in [
        ("payment", Value::Null, "file leaky.star: content"),
        ("payment", "test_leaks".into(), "api: environment PAYMENT"),
        ("payment", "test_leaks".into(), "api: arguments"),
        ("payment", "test_leaks".into(), "api says: line"),
        ("payment", "test_fails_with_a_secret".into(), "verdict: reason"),
        ("EXTRA_TOKEN", Value::Null, "command line"),
        ("authorization", "test_leaks".into(), "test -> api.public GET /leak: request headers authorization"),
        ("cookie", "test_leaks".into(), "test -> api.public GET /leak: request headers cookie"),
    ] {
        assert!(
            places(name).contains(&(cell.clone(), place.to_owned())),
            "{name} {cell} {place}: {:?}",
            places(name)
        );
    }
    let text = String::from_utf8(clean(&["inspect", &path, "--secrets"]).stdout).unwrap();
    assert!(text.contains("\n<secret payment#") && text.contains("\n  the run: command line\n"), "{text}");
}

#[test]
fn a_bundle_holds_what_a_stranger_needs() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = recorded(dir.path(), &[]) else { return };
    let folder = dir.path().join("out");
    let output = clean(&["inspect", &path, "--extract", &folder.display().to_string()]);
    let said = String::from_utf8(output.stdout).unwrap();
    let below =
        |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    for file in ["run.json", "manifest.txt", "files/leaky.star", "bin/api", "logs/test_leaks/api.out"] {
        assert!(said.lines().any(|line| line.ends_with(file)), "{file} is not named:\n{said}");
        below(file);
    }
    // The executable is the recorded one, and can be executed.
    let script = std::fs::read(repository("testdata/secrets/leaky.py")).unwrap();
    assert_eq!(std::fs::read(folder.join("bin/api")).unwrap(), script);
    let digest = blake3::hash(&script).to_hex().to_string();
    assert!(below("manifest.txt").contains(&format!("{digest} \"binary\"")), "{}", below("manifest.txt"));
    let facts: Value = serde_json::from_str(&below("run.json")).unwrap();
    assert_eq!(facts["tool_version"], env!("CARGO_PKG_VERSION"));
    let command: Vec<&str> =
        facts["command"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert!(command.starts_with(&["test"]) && command.contains(&"--embedded"), "{command:?}");
    let host = facts["host"].as_array().unwrap();
    let kernel = host.iter().find(|fact| fact["name"] == "kernel").unwrap()["value"].as_str().unwrap();
    assert!(!kernel.is_empty());
    assert_eq!(facts["cells"][1]["verdict"], "failed");
    // Every line has its time, in order.
    let log = below("logs/test_leaks/api.err");
    let times: Vec<f64> =
        log.lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
    assert!(!times.is_empty() && times.is_sorted(), "{log}");
}

#[test]
fn no_executable_is_kept_where_none_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = recorded(dir.path(), &["--no-embed"]) else { return };
    let files = Bundle::open(Path::new(&path)).unwrap().files().unwrap();
    let script = std::fs::read(repository("testdata/secrets/leaky.py")).unwrap();
    let stored = files.iter().find(|file| file.role == "binary").unwrap();
    assert_eq!((stored.digest, &stored.content), (*blake3::hash(&script).as_bytes(), &None));
    // Where the file is still there, it replays all the same.
    assert_eq!(code(&clean(&["replay", &path, "--test", "test_leaks"])), 0);
    let both = run(&["test", "x.star", "--embed", "--no-embed"]);
    assert_eq!(code(&both), 2);
}
