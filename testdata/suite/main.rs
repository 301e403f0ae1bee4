//! The suite: the built commands against the example specs, as a user runs them.
//!
//! Goal: what the README and the issue promise about whole runs: the chapter passes, each
//! planted defect turns exactly its cells red, every recorded cell replays exactly, runs with
//! one seed are equal, mutations are seen, and mistakes get one clear line.
//! Method: `faultbox` and `orders-api` from the same build directory; bundles in a temporary
//! folder; documents of `--format json` are compared, never timings.

mod architecture;
mod browser;
mod chapter;
mod containers;
mod crash;
mod determinism;
mod diff;
mod divergence;
mod doctor;
mod examples;
mod export;
mod findings;
mod git;
mod go;
mod incidents;
mod init;
mod learn;
mod mistakes;
mod mutations;
mod remote;
mod replays;
mod report;
mod secrets;
mod shared;
mod specs;
mod syscalls;
mod transcripts;
mod up;
mod waits;
mod week;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command under test.
pub fn faultbox() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_faultbox"))
}

/// The healthy service, built beside the command.
pub fn orders_api() -> PathBuf {
    let path = faultbox().with_file_name("orders-api");
    assert!(path.exists(), "{} is missing: run `make build`", path.display());
    path
}

/// Says that something was not tested, and why. In CI everything is there: a skip is a failure.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
    println!("skipped: {why}");
}

/// A path in the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Copies these files and folders of the chapter's spec.
pub fn copy_of_chapter(names: &[&str], folder: &Path) {
    let command =
        Command::new("cp").arg("-r").args(names).arg(folder).current_dir(repository("specs/orders")).status();
    assert!(command.unwrap().success());
}

/// Runs the command with these arguments.
pub fn run(arguments: &[&str]) -> Output {
    let output = Command::new(faultbox()).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{}: {error}", faultbox().display()))
}

/// The exit code of a run.
pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// The document that a run printed.
pub fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "no document: {error}\nexit {}\nstdout: {}\nstderr: {}",
            code(output),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// Records the chapter's spec with the built service. Returns the document and exit code.
pub fn record(bundle: &Path, more: &[&str]) -> (Value, i32) {
    record_with(&orders_api(), bundle, more)
}

/// Records the chapter's spec with this service.
pub fn record_with(api: &Path, bundle: &Path, more: &[&str]) -> (Value, i32) {
    let spec = repository("specs/orders/faultbox.star");
    let api = format!("api={}", api.display());
    let (spec, bundle) = (spec.display().to_string(), bundle.display().to_string());
    let mut arguments = vec![
        "test",
        &spec,
        "--embedded",
        "--seed",
        "1",
        "--binary",
        &api,
        "--bundle",
        &bundle,
        "--format",
        "json",
    ];
    arguments.extend(more);
    let output = run(&arguments);
    (document(&output), code(&output))
}

/// The cells of a document.
pub fn cells(document: &Value) -> &Vec<Value> {
    document["cells"].as_array().unwrap_or_else(|| panic!("no cells in {document}"))
}

/// Names of the cells that did not pass, sorted.
pub fn red(document: &Value) -> Vec<String> {
    let not_passed = cells(document).iter().filter(|cell| cell["verdict"] != "passed");
    let mut names: Vec<String> =
        not_passed.map(|cell| cell["name"].as_str().unwrap_or("?").to_owned()).collect();
    names.sort();
    names
}

/// What a document says of its reds, for a failing assertion.
pub fn reasons(document: &Value) -> String {
    let lines = cells(document).iter().filter(|cell| cell["verdict"] != "passed");
    lines.map(|cell| format!("{} {}: {}\n", cell["name"], cell["verdict"], cell["reason"])).collect()
}
