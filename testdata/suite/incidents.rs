//! The chapter's four incidents (`specs/orders/incidents.star`) and the recipes of the standard library.
//!
//! Goal: each incident is found in the service that has its defect and survived by the one that has not,
//! whichever half of the fleet the seed strikes; what was recorded replays exactly.
//! Method: the four cells alone, healthy and with each defect in both instances.

use super::containers::{passes, ready};
use super::go::go_api;
use super::replays::{inexact, replay};
use super::{cells, code, document, orders_api, reasons, red, repository, run};
use std::path::Path;

const DATABASE: &str = "matrix_database_flake_db_down";
const PROBE: &str = "matrix_probe_in_a_slow_flake_db_slow";
const USERS: &str = "matrix_orders_without_users_users_unavailable";
const FLEET: &str = "matrix_fleet_handles_events_half_the_fleet_rebalances";

/// The planted defects, each with the incidents that find it.
const DEFECTS: &[(&str, &[&str])] = &[
    ("db-poison", &[DATABASE]),
    ("db-slow-health", &[PROBE]),
    ("auth-cascade", &[USERS]),
    ("bus-block", &[]),
    ("rebalance-stop", &[FLEET]),
];

/// Records the incidents with this service as both instances. The document.
fn record(api: &Path, bundle: &Path, defect: &str, more: &[&str]) -> serde_json::Value {
    let spec = repository("specs/orders/incidents.star").display().to_string();
    let mut arguments: Vec<String> =
        ["test", &spec, "--format", "json", "--embed", "--bundle"].map(str::to_owned).into();
    arguments.push(bundle.display().to_string());
    for instance in ["api", "second"] {
        arguments.extend(["--binary".to_owned(), format!("{instance}={}", api.display())]);
        arguments.extend(["--env".to_owned(), format!("{instance}:ORDERS_BUG={defect}")]);
    }
    for cell in [DATABASE, PROBE, USERS, FLEET] {
        arguments.extend(["--test".to_owned(), cell.to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let output = run(&arguments);
    let document = document(&output);
    assert_eq!(cells(&document).len(), 4);
    assert_eq!(code(&output), i32::from(!red(&document).is_empty()), "{}", reasons(&document));
    document
}

/// Records, compares the reds, replays.
fn turns_red(api: &Path, defect: &str, expected: &[&str], more: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("incidents.fb");
    let recorded = record(api, &bundle, defect, more);
    assert_eq!(red(&recorded), expected, "{defect} {more:?}: {}", reasons(&recorded));
    let (again, exit) = replay(&bundle, &[]);
    assert_eq!(red(&again), expected, "{defect} {more:?}");
    assert_eq!(inexact(&again), Vec::<String>::new(), "{defect} {more:?}");
    assert_eq!(exit, 0);
}

/// The instance whose commits failed.
fn struck(api: &Path, seed: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("struck.fb");
    record(api, &bundle, "", &["--embedded", "--seed", seed]);
    let shown = run(&["inspect", &bundle.display().to_string(), FLEET]);
    let story = String::from_utf8(shown.stdout).unwrap();
    let refused = |instance: &&str| {
        let commit = format!("{instance} -> bus.main: OffsetCommit");
        story.lines().any(|line| line.contains(&commit) && line.contains("REBALANCE_IN_PROGRESS"))
    };
    let both: Vec<&str> = ["api", "second"].into_iter().filter(refused).collect();
    assert_eq!(both.len(), 1, "half of two is one: {story}");
    both[0].to_owned()
}

fn all_incidents(api: &Path) {
    turns_red(api, "", &[], &["--embedded", "--seed", "1"]);
    for (defect, expected) in DEFECTS {
        turns_red(api, defect, expected, &["--embedded", "--seed", "1"]);
    }
}

#[test]
fn the_healthy_service_survives_all_and_each_defect_is_found() {
    all_incidents(&orders_api());
}

#[test]
fn so_does_the_go_service() {
    if let Some(api) = go_api() {
        all_incidents(&api);
    }
}

#[test]
fn whichever_half_of_the_fleet_is_struck_the_defect_is_found() {
    let api = orders_api();
    let first = struck(&api, "1");
    assert_eq!(struck(&api, "1"), first, "one seed, one half");
    let other = (2..20).map(|seed| seed.to_string()).find(|seed| struck(&api, seed) != first);
    let other = other.expect("a seed that strikes the other half");
    turns_red(&api, "rebalance-stop", &[FLEET], &["--embedded", "--seed", &other]);
}

#[test]
fn the_incidents_in_containers() {
    if ready(&["mariadb", "redis", "kafka"]) {
        turns_red(&orders_api(), "", &[], &["--seed", "1"]);
        turns_red(&orders_api(), "rebalance-stop", &[FLEET], &["--seed", "1"]);
    }
}

/// A driver that Rust services use meets ERROR 1114: a refusal (500), not a lost database (503).
#[test]
fn a_full_table_is_recognised_by_the_driver() {
    let dir = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-r".as_ref(), repository("specs/orders").as_os_str(), dir.path().as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    let spec = dir.path().join("orders/full.star");
    let text = "load(\"faultbox.star\", \"api\", \"db\", \"order_creation\")\n\
                load(\"@faultbox/recipes/mysql.star\", \"table_full\")\n\
                full = table_full(db, table = \"orders\")\n\
                fault_matrix(scenarios = [order_creation], faults = [full], default_expect = expect_status(500))\n";
    std::fs::write(&spec, text).unwrap();
    let (bundle, name) = (dir.path().join("full.fb"), "matrix_order_creation_table_full");
    let (spec, bundle) = (spec.display().to_string(), bundle.display().to_string());
    let binary = format!("api={}", orders_api().display());
    let arguments = ["test", &spec, "--embedded", "--seed", "1", "--test", name, "--binary", &binary];
    let output = run(&[&arguments[..], &["--bundle", &bundle, "--format", "json"]].concat());
    assert_eq!(red(&document(&output)), Vec::<String>::new(), "{}", reasons(&document(&output)));
    let story = String::from_utf8(run(&["inspect", &bundle, name]).stdout).unwrap();
    assert!(story.lines().any(|line| line.contains("api says") && line.contains("1114")), "{story}");
}

#[test]
fn the_recipes_that_take_a_service_on_mariadb_and_redis() {
    if ready(&["mariadb", "redis"]) {
        passes("recipes.star");
    }
}

#[test]
fn the_recipes_that_take_a_service_on_mysql() {
    if ready(&["mysql"]) {
        passes("recipes_mysql.star");
    }
}
