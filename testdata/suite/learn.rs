//! `faultbox learn`: values that a service makes up in a shape that says nothing, in JSON, in SQL parameters and
//! text, in a protobuf field, in a Redis key and in a Kafka record.
//!
//! Goal: without the side file a replay diverges, with it the replay is exact, and whatever else differs is still
//! seen. Method: the wrong version `made-up-receipt` of the service, alone and with others.

use super::mutations::mutant;
use super::replays::{inexact, replay};
use super::{cells, code, document, repository, run};
use faultbox_bundle_format::Bundle;
use std::path::{Path, PathBuf};

const CELL: &str = "test_create_order";
const MADE_UP: &str = "api:ORDERS_MUTATION=made-up-receipt";

/// The chapter's spec in a folder of its own.
fn copied(folder: &Path) -> PathBuf {
    super::copy_of_chapter(&["faultbox.star", "schema.sql", "proto"], folder);
    folder.join("faultbox.star")
}

/// A command about the cell of that spec, with the service that makes receipts up.
fn command(word: &str, spec: &Path, more: &[&str]) -> std::process::Output {
    let (spec, api) = (spec.display().to_string(), format!("api={}", mutant().display()));
    let stack =
        [word, &spec, "--embedded", "--seed", "1", "--binary", &api, "--env", MADE_UP, "--test", CELL];
    run(&[&stack[..], more].concat())
}

fn record(spec: &Path, bundle: &Path) {
    let bundle = bundle.display().to_string();
    let output = command("test", spec, &["--bundle", &bundle, "--embed"]);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn what_was_learned_replays_exactly_and_nothing_else_is_overlooked() {
    let dir = tempfile::tempdir().unwrap();
    let spec = copied(dir.path());
    let (before, after) = (dir.path().join("before.fb"), dir.path().join("after.fb"));
    record(&spec, &before);
    let (document, exit) = replay(&before, &["--test", CELL]);
    assert_eq!(cells(&document)[0]["exact"], false, "no pattern knows the receipts");
    assert_ne!(exit, 0);

    let learned = command("learn", &spec, &[]);
    let said = String::from_utf8_lossy(&learned.stdout);
    assert_eq!(code(&learned), 0, "{said}");
    let side_file = dir.path().join("faultbox.volatile");
    let lines = std::fs::read_to_string(&side_file).unwrap();
    for rule in [
        "api.public  response  \"POST /orders\"  body:json.receipt  {word}",
        "balance-api.main  request  /inDriver.balance.BalanceService/Get  message.subject  user-1:{word}",
        "bus.main  request  Produce  topics[].partitions[].records[].value:json.receipt  {word}",
        "cache.main  request  DEL  args[1]  lock:{word}",
        "db.main  request  INSERT  params[1]  {word}",
    ] {
        assert!(lines.lines().any(|line| line.starts_with(rule)), "{rule}\n{lines}");
    }
    // What follows from a value that was learned before needs no line: the SELECT's text, the event's customer.
    assert_eq!(lines.lines().filter(|line| !line.starts_with('#')).count(), 5, "{lines}");

    record(&spec, &after);
    let verified = run(&["verify", &after.display().to_string()]);
    assert_eq!(code(&verified), 0, "{}", String::from_utf8_lossy(&verified.stderr));
    // From the bundle alone.
    std::fs::remove_file(&spec).unwrap();
    std::fs::remove_file(&side_file).unwrap();
    for more in [&[][..], &["--strict"], &["--no-wait"]] {
        let (again, exit) = replay(&after, &[&["--test", CELL], more].concat());
        assert_eq!(inexact(&again), Vec::<String>::new(), "{more:?}");
        assert_eq!(exit, 0);
    }
    for other in [
        "query-price",
        "query-literal",
        "event-field",
        "event-customer",
        "grpc-balance-subject",
        "grpc-field",
        "http-price",
        "query-customer",
        "cache-not-invalidated",
    ] {
        let env = format!("{MADE_UP},{other}");
        let (again, exit) = replay(&after, &["--test", CELL, "--env", &env]);
        assert_eq!(cells(&again)[0]["exact"], false, "{other} is overlooked");
        assert_ne!(exit, 0);
    }
}

#[test]
fn a_second_lesson_changes_nothing_and_the_hands_lines_stay() {
    let dir = tempfile::tempdir().unwrap();
    let spec = copied(dir.path());
    let side_file = dir.path().join("faultbox.volatile");
    let by_hand = "# Ours.\ndb.main request INSERT params[1] {hex} # too narrow\ncache.main request FLUSHALL args[1] {any}\n";
    std::fs::write(&side_file, by_hand).unwrap();
    let first = command("learn", &spec, &["--format", "json"]);
    assert_eq!(code(&first), 0);
    let first = document(&first);
    let lessons = cells(&first)[0]["learned"].as_array().unwrap();
    let widened: Vec<_> = lessons.iter().filter(|lesson| lesson["instead"].is_string()).collect();
    assert_eq!(widened.len(), 1, "{first}");
    let lines = std::fs::read_to_string(&side_file).unwrap();
    assert!(
        lines.starts_with("# Ours.\n") && lines.contains("cache.main request FLUSHALL args[1] {any}\n"),
        "{lines}"
    );
    assert!(
        lines.contains("db.main  request  INSERT  params[1]  {word}") && !lines.contains("{hex}"),
        "{lines}"
    );
    let second = command("learn", &spec, &[]);
    assert_eq!(code(&second), 0);
    assert!(String::from_utf8_lossy(&second.stdout).contains("nothing new; it stays as it is"));
    assert_eq!(std::fs::read_to_string(&side_file).unwrap(), lines);
}

/// In a run of every cell; of a part of them nothing can be said.
#[test]
fn a_line_that_finds_nothing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let spec = dir.path().join("small.star");
    std::fs::copy(repository("testdata/transcripts/small.star"), &spec).unwrap();
    std::fs::write(dir.path().join("small.volatile"), "api.public response \"GET /nowhere\" body {any}\n")
        .unwrap();
    let path = spec.display().to_string();
    for word in ["test", "learn"] {
        let api = format!("api={}", super::orders_api().display());
        let mut arguments = vec![word, &path, "--seed", "1", "--binary", &api];
        arguments.extend((word == "test").then_some("--no-bundle"));
        let output = run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("small.volatile:1: this line found nothing: api.public"), "{word}: {said}");
    }
    let wrong = "api.pubilc response \"GET /nowhere\" body {any}\n";
    std::fs::write(dir.path().join("small.volatile"), wrong).unwrap();
    let output = run(&["test", &path, "--dry-run"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(&output), 2);
    assert!(said.contains("small.volatile:1:1") && said.contains("did you mean `api.public`?"), "{said}");
}

/// What is in the bundle is the side file as it was read.
#[test]
fn the_side_file_is_part_of_the_bundles_spec_tree() {
    let dir = tempfile::tempdir().unwrap();
    let spec = copied(dir.path());
    std::fs::write(dir.path().join("faultbox.volatile"), "db.main request INSERT params[1] {any}\n").unwrap();
    let bundle = dir.path().join("tree.fb");
    record(&spec, &bundle);
    let files = Bundle::open(&bundle).unwrap().files().unwrap();
    assert!(files.iter().any(|file| file.path == "faultbox.volatile" && file.role == "loaded"));
}
