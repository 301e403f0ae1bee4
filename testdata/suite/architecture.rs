//! What the design holds fixed, held by a test: the direction of the crates, where `unsafe`
//! may stand, and that the engine does not know that it is replaying.

use super::repository;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Allowed edges (design.md section 2). Dependencies for tests count as well.
const EDGES: &[(&str, &str)] = &[
    ("faultbox", "faultbox-bundle-format"),
    ("faultbox", "faultbox-engine"),
    ("faultbox", "faultbox-recorder"),
    ("faultbox", "faultbox-replayer"),
    ("faultbox-engine", "faultbox-bundle-format"),
    ("faultbox-recorder", "faultbox-bundle-format"),
    ("faultbox-recorder", "faultbox-engine"),
    ("faultbox-replayer", "faultbox-bundle-format"),
    ("faultbox-replayer", "faultbox-engine"),
];

#[test]
fn crates_depend_in_one_direction() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(repository("."))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut found = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            if on.starts_with("faultbox") && name != "faultbox-fuzz" {
                found.insert((name.to_owned(), on.to_owned()));
            }
        }
    }
    let allowed: BTreeSet<_> = EDGES.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    assert!(!found.is_empty());
    assert_eq!(found.difference(&allowed).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn unsafe_stands_in_one_place_and_every_block_says_why() {
    let mut files = Vec::new();
    for folder in ["bundle-format/src", "engine/src", "engine/shim", "recorder/src", "replayer/src", "src"] {
        sources(&repository(folder), &mut files);
    }
    assert!(files.len() > 50, "found only {} files", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let blocks = text.matches("unsafe {").count() + text.matches("unsafe fn").count();
        // The shim has no crates, so it has a file of its own for this.
        if file.ends_with("supervisor/sys.rs") || file.ends_with("shim/sys.rs") {
            assert!(
                text.matches("SAFETY:").count() >= text.matches("unsafe {").count(),
                "{}",
                file.display()
            );
        } else {
            assert_eq!(blocks, 0, "unsafe in {}", file.display());
        }
    }
}

#[test]
fn the_engine_does_not_ask_whether_it_is_replaying() {
    let mut files = Vec::new();
    sources(&repository("engine/src"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap().to_lowercase();
        for word in ["is_replay", "replaying {", "if replay", "bundle::open", "bundlewriter"] {
            assert!(!text.contains(word), "{word:?} in {}", file.display());
        }
    }
}
