//! `replay --no-wait`: recorded delays are sat through only where they decide what happens.
//!
//! Method: what the replay says that it skipped and kept, and that it is exact all the same. Nothing is
//! timed.

use super::replays::{inexact, replay};
use super::{cells, code, record, red, repository, run};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A recording of these cells with a defect.
fn recorded(folder: &Path, bug: &str, tests: &[&str]) -> PathBuf {
    let bundle = folder.join("waits.fb");
    let env = format!("api:ORDERS_BUG={bug}");
    let mut more = vec!["--env", &env, "--embed"];
    more.extend(tests.iter().flat_map(|test| ["--test", test]));
    record(&bundle, &more);
    bundle
}

/// What came of the waits of the only cell, which replayed exactly.
fn waits(bundle: &Path, more: &[&str]) -> Value {
    let (document, exit) = replay(bundle, &[&["--no-wait"], more].concat());
    assert_eq!(inexact(&document), Vec::<String>::new());
    assert_eq!((cells(&document).len(), exit), (1, 0));
    cells(&document)[0]["waits"].clone()
}

#[test]
fn delays_that_decide_nothing_are_skipped_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = recorded(dir.path(), "", &["matrix_order_creation_db_slow"]);
    let skipped = waits(&bundle, &[]);
    // Two writes, 3 s each.
    assert_eq!((&skipped["skipped"], &skipped["kept"]), (&2.into(), &0.into()), "{skipped}");
    assert_eq!(skipped["as_recorded"], false, "{skipped}");
    assert!(skipped["skipped_ms"].as_u64().unwrap() >= 5_900, "{skipped}");
    let said = run(&["replay", &bundle.display().to_string(), "--no-wait"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    // Whether the service asked something twice meanwhile is not what this is about.
    assert!(said.contains("\n  exact (default policy"), "{said}");
    assert!(said.contains("\n  skipped 2 recorded waits ("), "{said}");
    let (with, _) = replay(&bundle, &[]);
    assert_eq!(cells(&with)[0]["waits"], Value::Null, "only where it was asked for");
}

#[test]
fn a_delay_that_the_service_gave_up_on_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let name = "matrix_health_probe_db_slow";
    let bundle = recorded(dir.path(), "db-slow-health", &[name]);
    let (document, exit) = replay(&bundle, &["--no-wait"]);
    assert_eq!((red(&document), inexact(&document), exit), (vec![name.to_owned()], Vec::new(), 0));
    let kept = &cells(&document)[0]["waits"];
    assert_eq!((&kept["skipped"], &kept["kept"]), (&0.into(), &1.into()), "{kept}");
}

/// A spec that asks how long a step took gets what it would have taken; a service that takes the time
/// itself cannot be told, so its cell is driven with its waits after all.
#[test]
fn durations_count_what_was_skipped_and_what_hangs_on_the_time_itself_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("waits.fb");
    let (spec, path) = (repository("testdata/waits/waits.star"), bundle.display().to_string());
    let recorded = run(&[
        "test",
        &spec.display().to_string(),
        "--embedded",
        "--seed",
        "1",
        "--bundle",
        &path,
        "--embed",
    ]);
    assert_eq!(code(&recorded), 0, "{}", String::from_utf8_lossy(&recorded.stdout));
    let patient = waits(&bundle, &["--test", "matrix_patient_cache_slow"]);
    assert_eq!((&patient["skipped"], &patient["as_recorded"]), (&1.into(), &false.into()), "{patient}");
    let watching = waits(&bundle, &["--test", "matrix_watching_cache_slow"]);
    assert_eq!((&watching["skipped"], &watching["as_recorded"]), (&0.into(), &true.into()), "{watching}");
    let said = run(&["replay", &path, "--no-wait", "--test", "matrix_watching_cache_slow"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("\n  exact (default policy)\n  waited as recorded: "), "{said}");
}

#[test]
fn only_a_redrive_can_do_without_waiting() {
    for depth in ["judge", "rerun"] {
        let output = run(&["replay", "none.fb", "--no-wait", "--depth", depth]);
        assert_eq!(code(&output), 2);
        assert!(String::from_utf8_lossy(&output.stderr).contains("--no-wait is for a redrive"));
    }
}
