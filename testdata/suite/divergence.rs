//! Each class of divergence, built on purpose, is diagnosed as what it is (`docs/divergence.md`).
//!
//! Goal: the cause that a replay names is the one that was built in, and it names the place.
//! Method: a recording of the healthy service with something changed; recordings of services that
//! make a value up or race, driven again as they are.

use super::mutations::mutant;
use super::replays::replay;
use super::{cells, record, record_with, repository, run};
use std::path::Path;

const CELL: &str = "test_create_order";

/// The cause that a replay of the cell names.
fn cause(bundle: &Path, more: &[&str]) -> serde_json::Value {
    diverged(bundle, more)["cause"].clone()
}

/// What a replay of the cell says of it.
fn diverged(bundle: &Path, more: &[&str]) -> serde_json::Value {
    let (document, exit) = replay(bundle, &[&["--test", CELL], more].concat());
    let cell = &cells(&document)[0];
    assert_eq!(cell["exact"], false, "{cell}");
    assert_ne!(exit, 0);
    cell.clone()
}

/// Records the cell with one of the wrong versions of the service.
fn of_mutant(mutation: &str, bundle: &Path) {
    record_with(
        &mutant(),
        bundle,
        &["--env", &format!("api:ORDERS_MUTATION={mutation}"), "--embed", "--test", CELL],
    );
}

#[test]
fn another_service_is_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("healthy.fb");
    record(&bundle, &["--embed", "--test", CELL]);
    let with = format!("api={}", mutant().display());
    assert_eq!(cause(&bundle, &["--with", &with, "--env", "api:ORDERS_MUTATION=query-literal"]), "service");
    // Where it happened: the step, and what the service said until then.
    let path = bundle.display().to_string();
    let output = run(&[
        "replay",
        &path,
        "--test",
        CELL,
        "--with",
        &with,
        "--env",
        "api:ORDERS_MUTATION=query-literal",
    ]);
    let said = String::from_utf8_lossy(&output.stdout);
    for part in
        ["which was not recorded", "    in step 0: post api.public (faultbox.star:", "  cause: the service: "]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn another_spec_is_the_spec() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("healthy.fb");
    record(&bundle, &["--embed", "--test", CELL]);
    let spec = dir.path().join("faultbox.star");
    let text = std::fs::read_to_string(repository("specs/orders/faultbox.star")).unwrap();
    let changed = text.replacen("\"/orders\"", "\"/orders/\"", 9);
    assert_ne!(changed, text);
    std::fs::write(&spec, changed).unwrap();
    super::copy_of_chapter(&["schema.sql", "proto"], dir.path());
    assert_eq!(cause(&bundle, &["--spec", &spec.display().to_string()]), "spec");
}

#[test]
fn a_word_made_up_in_each_run_is_randomness() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("word.fb");
    of_mutant("made-up-word", &bundle);
    let cell = diverged(&bundle, &[]);
    assert_eq!(cell["cause"], "randomness");
    let calls = cell["asked_by"].as_array().unwrap();
    assert!(calls.iter().any(|call| call.as_str().unwrap().starts_with("api: getrandom ")), "{cell}");
}

#[test]
fn what_threads_decide_is_a_race() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("race.fb");
    of_mutant("race", &bundle);
    assert_eq!(cause(&bundle, &[]), "race");
}

#[test]
fn a_file_beside_the_recording_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let (bundle, flag) = (dir.path().join("file.fb"), dir.path().join("customer"));
    std::fs::write(&flag, "before").unwrap();
    let file = format!("api:ORDERS_CUSTOMER_FILE={}", flag.display());
    let mutation = "api:ORDERS_MUTATION=reads-file";
    record_with(&mutant(), &bundle, &["--env", mutation, "--env", &file, "--embed", "--test", CELL]);
    let (document, _) = replay(&bundle, &["--test", CELL]);
    assert_eq!(cells(&document)[0]["exact"], true, "nothing has changed yet");
    std::fs::write(&flag, "after").unwrap();
    assert_eq!(cause(&bundle, &[]), "unknown");
}
