//! The chapter with the service in Go: another runtime, other client libraries, the same verdicts.

use super::chapter::{defects_turn_their_cells_red, healthy};
use super::{repository, skipped};
use std::path::PathBuf;

/// The service in Go, where it is built.
pub fn go_api() -> Option<PathBuf> {
    let api = repository("testdata/orders-api-go/bin/api");
    if !api.exists() {
        skipped("the Go service is not built: `make go` needs a Go toolchain");
        return None;
    }
    Some(api)
}

#[test]
fn the_go_service_passes_all_27_and_replays_exactly() {
    if let Some(api) = go_api() {
        healthy(&api);
    }
}

#[test]
fn each_defect_of_the_go_service_turns_exactly_its_cells_red() {
    if let Some(api) = go_api() {
        defects_turn_their_cells_red(&api);
    }
}
