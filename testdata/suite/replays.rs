//! Replays of cells that are not as they were (`specs` replays all that are): a defect's verdict flipped by the fix, a bundle that must diverge.

use super::{cells, code, document, orders_api, reasons, record, red, run};
use std::path::Path;

fn replay(bundle: &Path, more: &[&str]) -> (serde_json::Value, i32) {
    let bundle = bundle.display().to_string();
    let mut arguments = vec!["replay", &bundle, "--format", "json"];
    arguments.extend(more);
    let output = run(&arguments);
    (document(&output), code(&output))
}

fn inexact(document: &serde_json::Value) -> Vec<String> {
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
