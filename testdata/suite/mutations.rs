//! `exact` is not blind: a recording of the healthy service, re-driven against each wrong version
//! of it (`testdata/mutations`), is never exact; against the right one it is.

use super::{cells, document, faultbox, record, repository, run};
use std::path::{Path, PathBuf};

/// The service with its wrong versions built in.
pub fn mutant() -> PathBuf {
    let path = faultbox().with_file_name("orders-api-mutant");
    assert!(path.exists(), "{} is missing: run `make mutant`", path.display());
    path
}

fn is_exact(bundle: &Path, cell: &str, mutation: &str) -> bool {
    let (bundle, with) = (bundle.display().to_string(), format!("api={}", mutant().display()));
    let env = format!("api:ORDERS_MUTATION={mutation}");
    let output =
        run(&["replay", &bundle, "--test", cell, "--with", &with, "--env", &env, "--format", "json"]);
    cells(&document(&output))[0]["exact"] == true
}

#[test]
fn no_mutation_replays_exactly_and_none_at_all_does() {
    let list = std::fs::read_to_string(repository("testdata/mutations/list.txt")).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let mutations: Vec<(&str, &str)> =
        lines.filter_map(|line| line.split_once(' ')).map(|(name, cell)| (name, cell.trim())).collect();
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("healthy.fb");
    record(&bundle, &["--embed"]);
    let mut shown_by: Vec<&str> = mutations.iter().map(|(_, cell)| *cell).collect();
    shown_by.sort_unstable();
    shown_by.dedup();
    for cell in shown_by {
        assert!(is_exact(&bundle, cell, ""), "{cell}: the unchanged service is not exact");
    }
    let unseen: Vec<_> = mutations.iter().filter(|(name, cell)| is_exact(&bundle, cell, name)).collect();
    assert_eq!(unseen, Vec::<&(&str, &str)>::new(), "false `exact`");
}
