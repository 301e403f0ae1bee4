//! The chapter's 27 results: healthy, with each planted defect, twice with one seed.

use super::replays::{inexact, replay};
use super::{cells, orders_api, reasons, record, record_with, red};
use std::collections::BTreeMap;
use std::path::Path;

/// Scenarios that use what a fault is aimed at: these cells must show it firing.
const REACHED: &[&str] = &[
    "matrix_order_creation_db_down",
    "matrix_order_creation_db_slow",
    "matrix_order_creation_db_write_fail",
    "matrix_order_creation_cache_down",
    "matrix_order_creation_bus_down",
    "matrix_order_listing_db_down",
    "matrix_order_listing_db_slow",
    "matrix_order_listing_cache_down",
    "matrix_login_flow_users_unavailable",
];

/// The planted defects, each with the cells that it turns red.
pub const DEFECTS: &[(&str, &[&str])] = &[
    (
        "db-poison",
        &[
            "matrix_order_creation_db_down",
            "matrix_order_creation_db_write_fail",
            "matrix_order_listing_db_down",
        ],
    ),
    ("db-slow-health", &["matrix_health_probe_db_slow"]),
    ("auth-cascade", &["matrix_order_creation_users_unavailable", "matrix_order_listing_users_unavailable"]),
    ("bus-block", &["matrix_order_creation_bus_down"]),
];

/// Each defect of a service turns exactly its cells red.
pub fn defects_turn_their_cells_red(api: &Path) {
    for (name, expected) in DEFECTS {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("defect.fb");
        let (document, code) = record_with(api, &bundle, &["--env", &format!("api:ORDERS_BUG={name}")]);
        assert_eq!(red(&document), *expected, "{name}: {}", reasons(&document));
        assert_eq!(code, 1);
    }
}

/// A healthy service passes all 27, every fault that a scenario can meet fires, and all replay exactly.
pub fn healthy(api: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("healthy.fb");
    let (document, code) = record_with(api, &bundle, &["--embed"]);
    assert_eq!(red(&document), Vec::<String>::new(), "{}", reasons(&document));
    assert_eq!(cells(&document).len(), 27);
    assert_eq!(code, 0);
    for name in REACHED {
        let cell = cells(&document).iter().find(|cell| cell["name"] == *name).unwrap();
        let fired: u64 =
            cell["faults"].as_array().unwrap().iter().map(|f| f["fired"].as_u64().unwrap()).sum();
        assert!(fired > 0, "{name}: its fault never fired: {cell}");
        assert_eq!(cell["unreached"], false, "{name}");
    }
    let (replayed, code) = replay(&bundle, &[]);
    assert_eq!(inexact(&replayed), Vec::<String>::new());
    assert_eq!((cells(&replayed).len(), code), (27, 0));
}

#[test]
fn a_bundle_of_the_chapter_can_live_in_a_pull_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small.fb");
    let (document, code) = record_with(&orders_api(), &path, &[]);
    assert_eq!((cells(&document).len(), code), (27, 0), "{}", reasons(&document));
    let bundle = faultbox_bundle_format::Bundle::open(&path).unwrap();
    let of_cell = |cell: u32| -> u64 {
        let chunks = bundle.index().chunks.iter().map(|chunk| chunk.frame).filter(|frame| frame.cell == cell);
        chunks.map(|frame| frame.total).sum()
    };
    let mut sizes: Vec<u64> = bundle.cells().iter().map(|cell| of_cell(cell.cell)).collect();
    sizes.sort_unstable();
    let (whole, median) = (std::fs::metadata(&path).unwrap().len(), sizes[13]);
    println!("{whole} bytes, a median cell {median}");
    assert!(whole < 2 << 20 && median < 50 << 10, "{whole} bytes, cells {sizes:?}");
}

#[test]
fn the_healthy_service_passes_all_27() {
    healthy(&orders_api());
}

#[test]
fn each_defect_turns_exactly_its_cells_red() {
    defects_turn_their_cells_red(&orders_api());
}

#[test]
fn ten_runs_with_one_seed_are_equal() {
    let dir = tempfile::tempdir().unwrap();
    let mut digests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for run in 0..10 {
        let (document, _) = record(&dir.path().join(format!("{run}.fb")), &[]);
        for cell in cells(&document) {
            let digest = cell["digest"].as_str().unwrap().to_owned();
            let seen = digests.entry(cell["name"].as_str().unwrap().to_owned()).or_default();
            if !seen.contains(&digest) {
                seen.push(digest);
            }
        }
    }
    let unequal: Vec<_> = digests.iter().filter(|(_, seen)| seen.len() > 1).collect();
    assert!(unequal.is_empty(), "cells whose digest differs between runs: {unequal:?}");
    assert_eq!(digests.len(), 27);
}

#[test]
fn the_canary_is_red_throughout() {
    let spec = super::repository("specs/canary/must_fail.star").display().to_string();
    let api = format!("api={}", super::orders_api().display());
    let output =
        super::run(&["test", &spec, "--no-bundle", "--seed", "1", "--binary", &api, "--format", "json"]);
    let document = super::document(&output);
    assert_eq!(super::code(&output), 1);
    assert_eq!(
        red(&document),
        ["matrix_forgets_to_return_slow", "matrix_probe_slow", "test_false_assertion", "test_wrong_status"]
    );
}
