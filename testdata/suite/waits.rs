//! `replay --no-wait`: recorded delays are sat through only where they decide what happens; and
//! `replay --virtual-time`, `test --embedded --virtual-time`: they are sat through and cost no time.
//!
//! Method: what the replay says that it skipped and kept, and that it is exact all the same. Nothing is
//! timed.

use super::replays::{inexact, replay};
use super::{cells, code, document, faultbox, record, red, repository, run};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let syncing = waits(&bundle, &["--test", "matrix_syncing_disk_slow"]);
    assert_eq!((&syncing["skipped"], &syncing["as_recorded"]), (&1.into(), &false.into()), "{syncing}");
    assert!(syncing["skipped_ms"].as_u64().unwrap() >= 1_500, "{syncing}");
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

/// What `--virtual-time` skipped of the only cell, which replayed exactly and not a second time.
fn skipped(bundle: &Path, cell: &str) -> Value {
    let (document, exit) = replay(bundle, &["--virtual-time", "--test", cell]);
    assert_eq!((inexact(&document), cells(&document).len(), exit), (Vec::new(), 1, 0));
    let skipped = cells(&document)[0]["virtual_time"].clone();
    assert_eq!(
        (&skipped["as_recorded"], &skipped["real"]),
        (&false.into(), &serde_json::json!({})),
        "{skipped}"
    );
    skipped
}

/// That the clock that stands still was moved over two writes of 3 s each: by jumps, and by what passes while a service
/// works or, on a host with much to do, does not get to it. Each figure is cut to whole milliseconds.
fn assert_two_writes_were_skipped(time: &Value) {
    let [skipped, worked, crept] =
        ["skipped_ms", "worked_ms", "crept_ms"].map(|key| time[key].as_u64().unwrap());
    assert!(skipped >= 2_000 && skipped + worked + crept + 3 > 6_000, "{time}");
}

#[test]
fn waits_that_are_sat_through_cost_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let name = "matrix_order_creation_db_slow";
    let bundle = recorded(dir.path(), "", &[name]);
    let time = skipped(&bundle, name);
    assert_two_writes_were_skipped(&time);
    let (document, _) = replay(&bundle, &["--virtual-time"]);
    assert!(cells(&document)[0]["duration_ms"].as_u64().unwrap() >= 6_000, "by the clock that was skipped");
    let said = run(&["replay", &bundle.display().to_string(), "--virtual-time"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("\n  exact (default policy") && said.contains("ms of waiting\n"), "{said}");
}

/// A service that takes the time itself sees the time that was skipped.
#[test]
fn a_service_that_takes_the_time_sees_what_was_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("waits.fb");
    let (spec, path) = (repository("testdata/waits/waits.star"), bundle.display().to_string());
    let spec = spec.display().to_string();
    let recorded = run(&["test", &spec, "--embedded", "--seed", "1", "--bundle", &path, "--embed"]);
    assert_eq!(code(&recorded), 0, "{}", String::from_utf8_lossy(&recorded.stdout));
    for cell in ["matrix_patient_cache_slow", "matrix_watching_cache_slow"] {
        let time = skipped(&bundle, cell);
        assert!(time["jumps"].as_u64() > Some(0), "{time}");
    }
}

/// Stand-ins and the service under test wait by the same clock while a run is recorded; its bundle replays.
#[test]
fn a_run_is_recorded_without_its_waits() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("waits.fb");
    let cell = "matrix_order_creation_db_slow";
    let (document, exit) = record(&bundle, &["--virtual-time", "--embed", "--test", cell]);
    let time = &document["virtual_time"];
    assert_two_writes_were_skipped(time);
    assert_eq!((&time["real"], exit), (&serde_json::json!({}), 0), "{document}");
    assert!(cells(&document)[0]["duration_ms"].as_u64().unwrap() >= 6_000, "{document}");
    assert_eq!(inexact(&replay(&bundle, &["--virtual-time"]).0), Vec::<String>::new());
    let spec = repository("specs/orders/faultbox.star").display().to_string();
    let elsewhere = run(&["test", &spec, "--virtual-time"]);
    assert_eq!(code(&elsewhere), 2);
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("--virtual-time needs --embedded"));
}

#[test]
fn time_is_skipped_only_where_nobody_waits_for_a_person_or_for_what_is_real() {
    for (more, why) in [
        (&["--depth", "judge"][..], "is for a redrive"),
        (&["--depth", "rerun"], "is for a redrive"),
        (&["--hold", "0"], "--hold waits for somebody"),
        (&["--no-wait"], "give one of them"),
    ] {
        let output = run(&[&["replay", "none.fb", "--virtual-time"], more].concat());
        assert_eq!(code(&output), 2);
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
    }
}

#[test]
fn a_service_that_cannot_be_held_waits_in_real_time_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = recorded(dir.path(), "", &["matrix_login_flow_cache_down"]).display().to_string();
    let replay = |more: &[&str]| {
        let mut command = Command::new(faultbox());
        command.args(["replay", &bundle, "--virtual-time"]).args(more);
        command.env("FAULTBOX_WITHOUT", "wait_killable").output().unwrap()
    };
    let output = replay(&[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 0, "{said}");
    assert!(
        said.contains("\n  api waits in real time: that needs ") && !said.contains("of waiting"),
        "{said}"
    );
    let told = document(&replay(&["--format", "json"]));
    let time = &cells(&told)[0]["virtual_time"];
    assert!(time["real"]["api"].is_string() && time["jumps"] == 0, "{time}");
}

/// Recorded in a time that a service's work does not take, a timeout that is shorter than the work does not come. In real
/// time it does, as on a machine that is slower than the one of the recording; how often is up to the scheduler.
#[test]
fn a_timeout_that_comes_first_on_a_slow_machine_does_not_in_virtual_time() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("waits.fb");
    let (spec, path) = (repository("testdata/waits/waits.star"), bundle.display().to_string());
    let spec = spec.display().to_string();
    let name = "test_hurrying";
    let args =
        ["test", &spec, "--embedded", "--virtual-time", "--seed", "1", "--test", name, "--bundle", &path];
    let recorded = run(&[&args[..], &["--embed"]].concat());
    assert_eq!(code(&recorded), 0, "{}", String::from_utf8_lossy(&recorded.stdout));
    let parted = || {
        let (document, exit) = replay(&bundle, &[]);
        let cell = &cells(&document)[0];
        assert!(cell["in_real_time"].is_null() || (cell["exact"] == true && exit == 0), "{cell}");
        !cell["in_real_time"].is_null()
    };
    assert!((0..30).any(|_| parted()), "in 30 replays the timeout never came first");
}
