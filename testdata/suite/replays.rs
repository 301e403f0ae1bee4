//! Replays of cells that are not as they were (`specs` replays all that are): a defect's verdict
//! flipped by the fix, a bundle that must diverge.

use super::{cells, code, document, orders_api, reasons, record, red, repository, run};
use std::path::Path;

/// Replays a bundle. The document and exit code.
pub fn replay(bundle: &Path, more: &[&str]) -> (serde_json::Value, i32) {
    let bundle = bundle.display().to_string();
    let mut arguments = vec!["replay", &bundle, "--format", "json"];
    arguments.extend(more);
    let output = run(&arguments);
    (document(&output), code(&output))
}

/// The cells that did not replay exactly, with where they went another way.
pub fn inexact(document: &serde_json::Value) -> Vec<String> {
    let inexact = cells(document).iter().filter(|cell| cell["exact"] != true);
    inexact.map(|cell| format!("{}: {}", cell["name"], cell["divergences"])).collect()
}

/// Records one cell with a defect, replays it, and replays it against the service without.
fn flips(defect: &str, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("defect.fb");
    record(&bundle, &["--env", &format!("api:ORDERS_BUG={defect}"), "--test", name]);
    let (again, exit) = replay(&bundle, &["--test", name]);
    assert_eq!(red(&again), [name], "{}", reasons(&again));
    assert_eq!(inexact(&again), Vec::<String>::new());
    assert_eq!(exit, 0);
    let with = format!("api={}", orders_api().display());
    let (fixed, exit) = replay(&bundle, &["--test", name, "--with", &with, "--env", "api:ORDERS_BUG="]);
    assert_eq!(red(&fixed), Vec::<String>::new(), "{}", reasons(&fixed));
    assert_eq!(cells(&fixed)[0]["recorded_verdict"], "violated");
    assert_eq!(exit, 1);
}

#[test]
fn db_slow_health_replays_exactly_and_the_fix_flips_its_verdict() {
    flips("db-slow-health", "matrix_health_probe_db_slow");
}

#[test]
fn bus_block_replays_exactly_and_the_fix_flips_its_verdict() {
    flips("bus-block", "matrix_order_creation_bus_down");
}

#[test]
fn db_poison_replays_exactly_and_the_fix_flips_its_verdict() {
    flips("db-poison", "matrix_order_listing_db_down");
}

/// The recording ends before the calls that the fix makes: nothing can answer them, and the replay
/// says what does. Run again with everything, the fix flips the verdict.
#[test]
fn a_fix_that_asks_more_than_was_recorded_is_told_to_run_everything() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("cascade.fb");
    let name = "matrix_order_listing_users_unavailable";
    record(&bundle, &["--env", "api:ORDERS_BUG=auth-cascade", "--test", name]);
    let path = bundle.display().to_string();
    let with = format!("api={}", orders_api().display());
    let fixed = ["--test", name, "--with", &with, "--env", "api:ORDERS_BUG="];
    let output = run(&[&["replay", &path][..], &fixed].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("which was not recorded") && said.contains("--depth rerun"), "{said}");
    let (again, _) = replay(&bundle, &[&fixed[..], &["--depth", "rerun"]].concat());
    assert_eq!(red(&again), Vec::<String>::new(), "{}", reasons(&again));
}

#[test]
fn the_canary_diverges() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("canary.fb");
    let name = "matrix_order_listing_users_unavailable";
    record(&bundle, &["--embed", "--test", name]);
    let (document, code) = replay(&bundle, &["--test", name, "--env", "api:ORDERS_BUG=auth-cascade"]);
    assert_eq!(cells(&document)[0]["exact"], false);
    assert_eq!(cells(&document)[0]["reproduced"], false);
    assert_eq!(code, 1);
}

/// Two instances are driven again, and the driver's own question to the database after their writes is
/// answered at once: what was asked of a service that runs is nothing to wait for.
#[test]
fn a_fleet_replays_exactly_with_steps_to_its_database() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, api) = (repository("specs/orders/fleet.star"), orders_api());
    let (spec, api) = (spec.display().to_string(), api.display().to_string());
    let bundle = dir.path().join("fleet.fb");
    let name = "test_fleet_writes_beside_each_other";
    let (first, second) = (format!("api={api}"), format!("second={api}"));
    let recorded = run(&[
        "test",
        &spec,
        "--embedded",
        "--seed",
        "1",
        "--test",
        name,
        "--binary",
        &first,
        "--binary",
        &second,
        "--bundle",
        &bundle.display().to_string(),
        "--embed",
        "--format",
        "json",
    ]);
    assert_eq!(red(&document(&recorded)), Vec::<String>::new(), "{}", reasons(&document(&recorded)));
    let (again, exit) = replay(&bundle, &["--test", name]);
    assert_eq!(inexact(&again), Vec::<String>::new());
    assert_eq!(exit, 0);
    // The other instance is under test as well: with a defect it is seen.
    let (bad, exit) = replay(&bundle, &["--test", name, "--env", "second:ORDERS_BUG=auth-cascade"]);
    assert_eq!(cells(&bad)[0]["exact"], false);
    assert_ne!(exit, 0);
}

/// The service is there to be looked at while the scenario waits, and what comes of it afterwards is what
/// was recorded.
#[test]
fn a_held_replay_names_a_living_process_and_goes_on_exactly() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("held.fb");
    let name = "test_create_order";
    record(&bundle, &["--embed", "--test", name]);
    let mut command = Command::new(super::faultbox());
    command.arg("replay").arg(&bundle).args(["--test", name, "--hold", "0", "--format", "json"]);
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut held = streams.spawn().unwrap();
    let mut said = BufReader::new(held.stderr.take().unwrap()).lines().map(Result::unwrap);
    let before = said.next().unwrap();
    assert!(before.starts_with("held before step 0: post api.public (faultbox.star:"), "{before}");
    let process = said.next().unwrap();
    let pid = process.trim().strip_prefix("api: process ").and_then(|rest| rest.split(';').next()).unwrap();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("KAFKA_BROKERS="), "{pid} is another process");
    assert!(said.next().unwrap().contains("Enter goes on"));
    held.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = held.wait_with_output().unwrap();
    assert_eq!(inexact(&document(&output)), Vec::<String>::new());
    assert_eq!(code(&output), 0);

    let path = bundle.display().to_string();
    let judged = run(&["replay", &path, "--hold", "0", "--depth", "judge"]);
    assert_eq!(code(&judged), 2);
    let beyond = run(&["replay", &path, "--hold", "9"]);
    assert!(String::from_utf8_lossy(&beyond.stderr).contains("without a step 9"));
    assert_eq!(code(&beyond), 0);
}
