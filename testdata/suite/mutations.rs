//! `exact` is not blind: a recording of the healthy service, re-driven against each wrong version
//! of it (`testdata/mutations`), is never exact; against the right one it is.
//!
//! What each was reported as stands in `docs/mutations.md`, a section for each service, which is
//! compared here and written anew with `FAULTBOX_MUTATIONS=write`.

use super::go::go_api;
use super::replays::replay;
use super::{cells, faultbox, orders_api, record_with, repository};
use regex::Regex;
use std::path::{Path, PathBuf};

/// The Rust service with its wrong versions built in.
pub fn mutant() -> PathBuf {
    let path = faultbox().with_file_name("orders-api-mutant");
    assert!(path.exists(), "{} is missing: run `make mutant`", path.display());
    path
}

/// What a replay of a cell against a wrong version says: where it first parted, `exact` where nowhere.
fn reported(bundle: &Path, cell: &str, mutant: &Path, mutation: &str) -> String {
    let with = format!("api={}", mutant.display());
    let env = format!("api:ORDERS_MUTATION={mutation}");
    let (document, _) = replay(bundle, &["--test", cell, "--with", &with, "--env", &env]);
    let cell = &cells(&document)[0];
    if cell["exact"] == true {
        return "exact".to_owned();
    }
    assert_eq!(cell["cause"], "service", "{mutation}: {cell}");
    let divergences = cell["divergences"].as_array().into_iter().flatten().filter_map(|d| d.as_str());
    let divergences: Vec<&str> = divergences.collect();
    let Some(first) = divergences.first() else { return "only the verdict differs".to_owned() };
    // Calls that are made side by side come in either order: the one that is first in the alphabet.
    let unrecorded = |said: &&&str| said.contains("which was not recorded");
    let told = if unrecorded(&first) { divergences.iter().filter(unrecorded).min() } else { None };
    short(told.unwrap_or(first))
}

/// A divergence without what each run makes up, so long that it can be told from others.
fn short(divergence: &str) -> String {
    let mut text = divergence.to_owned();
    for (pattern, with) in [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d+Z?", "TIME"),
        (r"\b[0-9a-f]{16,32}\b", "HEX"),
        (r"\b\d{13}\b", "MS"),
        // Of `made-up-word`, `race` and `made-up-receipt`.
        (r"'n[0-9a-f]{16}7'", "'WORD'"),
        (r"'[a-h]{8}'", "'LETTERS'"),
        (r"\br[0-9a-z]{9}7\b", "RECEIPT"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
    }
    let text = text.replace('|', "\\|");
    match text.char_indices().nth(150) {
        Some((end, _)) => format!("{} ...", text[..end].trim_end()),
        None => text,
    }
}

/// The wrong versions in a list, and a cell that shows each.
fn listed(list: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(repository("testdata/mutations").join(list)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once(' '));
    pairs.map(|(name, cell)| (name.to_owned(), cell.trim().to_owned())).collect()
}

/// Records the healthy service, re-drives every wrong version, and compares the table of the section.
fn none_is_exact(api: &Path, mutant: &Path, list: &str, heading: &str) {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("healthy.fb");
    let mutations = listed(list);
    let mut shown_by: Vec<&str> = mutations.iter().map(|(_, cell)| cell.as_str()).collect();
    shown_by.sort_unstable();
    shown_by.dedup();
    let mut more = vec!["--embed"];
    more.extend(shown_by.iter().flat_map(|cell| ["--test", cell]));
    record_with(api, &bundle, &more);
    for cell in shown_by {
        assert_eq!(reported(&bundle, cell, mutant, ""), "exact", "{cell}: of the unchanged service");
    }
    let mut table = String::from("| mutation | cell | reported as |\n|---|---|---|\n");
    let mut unseen = Vec::new();
    for (mutation, cell) in &mutations {
        let reported = reported(&bundle, cell, mutant, mutation);
        if reported == "exact" {
            unseen.push(mutation);
        }
        table.push_str(&format!("| `{mutation}` | `{cell}` | {reported} |\n"));
    }
    assert_eq!(unseen, Vec::<&String>::new(), "false `exact`");
    in_the_docs(heading, &table);
}

/// Compares a section of `docs/mutations.md`, or writes it.
fn in_the_docs(heading: &str, table: &str) {
    let path = repository("docs/mutations.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let heading = format!("## {heading}\n\n");
    let began = text.find(&heading).unwrap_or_else(|| panic!("no section {heading}")) + heading.len();
    // The end of the blank line is part of what follows it, where the section is still empty.
    let ended = text[began - 1..].find("\n## ").map_or(text.len(), |at| (began - 1 + at).max(began));
    if std::env::var_os("FAULTBOX_MUTATIONS").is_some_and(|mode| mode == "write") {
        let written = format!("{}{table}{}", &text[..began], &text[ended..]);
        std::fs::write(&path, written).unwrap();
        return;
    }
    assert_eq!(&text[began..ended], table, "docs/mutations.md; FAULTBOX_MUTATIONS=write writes it anew");
}

#[test]
fn no_mutation_of_the_rust_service_replays_exactly() {
    none_is_exact(&orders_api(), &mutant(), "rust.txt", "The service in Rust");
}

#[test]
fn no_mutation_of_the_go_service_replays_exactly() {
    if let Some(api) = go_api() {
        let mutant = api.with_file_name("api-mutant");
        assert!(mutant.exists(), "{} is missing: run `make go`", mutant.display());
        none_is_exact(&api, &mutant, "go.txt", "The service in Go");
    }
}

#[test]
fn there_are_a_hundred() {
    assert!(listed("rust.txt").len() + listed("go.txt").len() >= 100);
}
