//! Every spec under `specs/`: recorded, replayed, compared, and read by the independent reader.
//!
//! The folder is walked, so that a new spec is covered by being there. `specs/faultbox` is the
//! library that specs load; it holds no cells.

use super::{cells, code, document, orders_api, red, repository, run, skipped};
use faultbox_bundle_format::{Bundle, Entry};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runnable specs, sorted.
fn specs() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![repository("specs")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("specs/faultbox") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "star") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The cells of each spec without those of the specs that it loads.
fn own_cells(specs: &[PathBuf]) -> BTreeMap<PathBuf, BTreeSet<String>> {
    let list = |spec: &PathBuf| {
        let output = run(&["test", &spec.display().to_string(), "--list"]);
        assert_eq!(code(&output), 0, "{}", spec.display());
        let names = String::from_utf8(output.stdout).unwrap();
        (spec.clone(), names.lines().map(str::to_owned).collect::<BTreeSet<_>>())
    };
    let all: BTreeMap<PathBuf, BTreeSet<String>> = specs.iter().map(list).collect();
    let own = |(spec, names): (&PathBuf, &BTreeSet<String>)| {
        let loaded = all.iter().filter(|(other, theirs)| *other != spec && theirs.is_subset(names));
        let loaded: BTreeSet<&String> = loaded.flat_map(|(_, theirs)| theirs).collect();
        (spec.clone(), names.iter().filter(|name| !loaded.contains(name)).cloned().collect())
    };
    all.iter().map(own).collect()
}

/// Records a spec. The document, and whether every cell passed.
fn record(spec: &Path, bundle: &Path, more: &[&str]) -> Value {
    let (spec, bundle) = (spec.display().to_string(), bundle.display().to_string());
    let api = format!("api={}", orders_api().display());
    let mut arguments = vec!["test", &spec, "--embedded", "--seed", "1", "--binary", &api];
    arguments.extend(["--bundle", &bundle, "--embed", "--format", "json"]);
    arguments.extend(more);
    let output = run(&arguments);
    assert!([0, 1].contains(&code(&output)), "{spec}: {}", String::from_utf8_lossy(&output.stderr));
    document(&output)
}

/// What makes a cell this cell: its name, verdict, reason and digest.
fn summary(cell: &Value) -> [String; 3] {
    ["name", "verdict", "digest"].map(|field| cell[field].as_str().unwrap_or("?").to_owned())
}

fn summaries(document: &Value) -> Vec<[String; 3]> {
    cells(document).iter().map(summary).collect()
}

#[test]
fn every_spec_replays_as_it_was_recorded() {
    let specs = specs();
    assert!(specs.len() >= 2, "specs are missing: {specs:?}");
    for (spec, own) in own_cells(&specs) {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("run.fb");
        let chosen: Vec<&str> = own.iter().flat_map(|name| ["--test", name]).collect();
        let recorded = record(&spec, &bundle, &chosen);
        assert!(!cells(&recorded).is_empty(), "{}: no cells", spec.display());
        if spec.ends_with("orders/faultbox.star") {
            assert_eq!(cells(&recorded).len(), 27);
        }
        let path = bundle.display().to_string();
        for depth in ["redrive", "judge"] {
            let output = run(&["replay", &path, "--depth", depth, "--format", "json"]);
            let replayed = document(&output);
            let inexact: Vec<String> = cells(&replayed)
                .iter()
                .filter(|cell| cell["exact"] != true)
                .map(|cell| format!("{}: {}", cell["name"], cell["divergences"]))
                .collect();
            assert_eq!(inexact, Vec::<String>::new(), "{} {depth}", spec.display());
            assert_eq!(summaries(&replayed), summaries(&recorded), "{} {depth}", spec.display());
            assert_eq!(code(&output), 0, "{} {depth}", spec.display());
        }
        let output = run(&["verify", &path]);
        assert_eq!(code(&output), 0, "{}: {}", spec.display(), String::from_utf8_lossy(&output.stderr));
        the_reader_agrees(&bundle);
    }
}

/// The fields that `--format json` promises.
fn has_the_promised_fields(cell: &Value) {
    let text = ["name", "verdict", "reason", "whose", "digest"];
    assert!(text.iter().all(|field| cell[*field].is_string()), "{cell}");
    assert_eq!(cell["digest"].as_str().map(str::len), Some(64), "{cell}");
    assert!(["duration_ms", "cell_ms"].iter().all(|field| cell[*field].is_u64()), "{cell}");
    assert!(cell["unreached"].is_boolean(), "{cell}");
    for fault in cell["faults"].as_array().unwrap() {
        assert!(["assumption", "rule", "target"].iter().all(|field| fault[*field].is_string()), "{fault}");
        assert!(["matched", "fired"].iter().all(|field| fault[*field].is_u64()), "{fault}");
    }
}

#[test]
fn documents_have_the_promised_fields_and_a_torn_bundle_is_read_alike() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("run.fb");
    let spec = repository("testdata/transcripts/small.star");
    let recorded =
        record(&spec, &bundle, &["--test", "matrix_probe_*", "--test", "test_wants_the_impossible"]);
    let path = bundle.display().to_string();
    assert_eq!(recorded["seed"], 1);
    assert_eq!(recorded["bundle"].as_str(), Some(path.as_str()));
    assert_eq!((&recorded["passed"], &recorded["failed"]), (&2.into(), &1.into()));
    let red = cells(&recorded).iter().find(|cell| cell["verdict"] == "failed").unwrap();
    assert!(red["replay"].as_str().unwrap().starts_with("faultbox replay "), "{red}");
    let inspected = document(&run(&["inspect", &path, "--format", "json"]));
    let detail = document(&run(&["inspect", &path, "matrix_probe_slow", "--format", "json"]));
    let replayed = document(&run(&["replay", &path, "--depth", "judge", "--format", "json"]));
    for document in [&recorded, &inspected, &detail, &replayed] {
        cells(document).iter().for_each(has_the_promised_fields);
    }
    assert_eq!(summaries(&inspected), summaries(&recorded));
    assert_eq!(summaries(&replayed), summaries(&recorded));
    for cell in cells(&replayed) {
        assert!(cell["exact"].is_boolean() && cell["reproduced"].is_boolean(), "{cell}");
        assert!(cell["divergences"].is_array() && cell["recorded_verdict"].is_string(), "{cell}");
    }
    let entries = cells(&detail)[0]["entries"].as_array().unwrap();
    assert!(!entries.is_empty());
    for entry in entries {
        assert!(["phase", "actor", "what"].iter().all(|field| entry[*field].is_string()), "{entry}");
        assert!(["seq", "at_ns"].iter().all(|field| entry[*field].is_u64()), "{entry}");
    }
    let said =
        entries.iter().any(|entry| entry["what"].as_str().is_some_and(|what| what.contains(" says: {")));
    assert!(said, "no whole line of the service's output");
    let whole = std::fs::read(&bundle).unwrap();
    let torn = dir.path().join("torn.fb");
    std::fs::write(&torn, &whole[..whole.len() - 40]).unwrap();
    the_reader_agrees(&torn);
}

/// `testdata/reader/read_bundle.py`, written from FORMAT.md alone, reads what we read.
fn the_reader_agrees(bundle: &Path) {
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        return skipped("no python3");
    }
    let path = bundle.display().to_string();
    let reader = repository("testdata/reader/read_bundle.py");
    let output = Command::new("python3").arg(reader).args([&path, "--entries"]).output().unwrap();
    let (read, trouble) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{path}: {trouble}");
    let inspected = document(&run(&["inspect", &path, "--format", "json"]));
    let whole = if inspected["complete"] == true { "complete" } else { "incomplete" };
    let mut wanted = vec![format!("format 2.0, {whole}, {} cells", cells(&inspected).len())];
    wanted.extend(cells(&inspected).iter().map(as_the_reader_prints));
    wanted.extend(entries_as_the_reader_prints(bundle));
    let lines: Vec<&str> = read.lines().collect();
    assert_eq!(lines, wanted, "{path}");
}

/// Every entry: where it belongs, and what kind it is.
fn entries_as_the_reader_prints(bundle: &Path) -> Vec<String> {
    let bundle = Bundle::open(bundle).unwrap();
    let cells = std::iter::once(0).chain(bundle.cells().iter().map(|cell| cell.cell));
    let mut entries: Vec<Entry> = cells.flat_map(|cell| bundle.raw_entries(cell).unwrap()).collect();
    entries.sort_by_key(|entry| entry.seq);
    let line = |entry: &Entry| {
        let body = format!("{:?}", entry.body);
        let kind = body.split('(').next().unwrap();
        let Entry { seq, at_ns, cell, phase, actor, stream, ordinal, .. } = entry;
        format!("{seq} {at_ns} {cell} {phase:?} {actor} {stream} {ordinal} {kind}")
    };
    entries.iter().map(line).collect()
}

fn as_the_reader_prints(cell: &Value) -> String {
    let text = |field: &str| cell[field].as_str().unwrap_or("?").to_owned();
    if text("verdict") == "incomplete" {
        return format!("{}: no verdict", text("name"));
    }
    let faults = cell["faults"].as_array().unwrap().iter().map(|fault| {
        let word = |field: &str| fault[field].as_str().unwrap_or("?").to_owned();
        format!("{} on {} {}x", word("rule"), word("target"), fault["fired"])
    });
    let faults = faults.collect::<Vec<_>>().join(", ");
    let [name, verdict, digest] = summary(cell);
    let fired = if faults.is_empty() { String::new() } else { format!(" [{faults}]") };
    let reason = if text("reason").is_empty() { String::new() } else { format!(" {}", text("reason")) };
    format!("{name}: {verdict} {digest}{fired}{reason}")
}

/// A spec reads what is above it when it may, and its bundle holds all of that.
#[test]
fn files_above_the_spec_are_read_with_a_root_and_replayed_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shop/specs");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(dir.path().join("shop/shared.star"), "GREETING = load_file(\"words.txt\")\n").unwrap();
    std::fs::write(dir.path().join("shop/words.txt"), "hello").unwrap();
    let spec = folder.join("above.star");
    let text = "load(\"../shared.star\", \"GREETING\")\n\
                def test_greeting(): assert_eq(GREETING, load_file(\"../words.txt\"), \"read twice\")\n";
    std::fs::write(&spec, text).unwrap();
    let (spec, root) = (spec.display().to_string(), dir.path().join("shop").display().to_string());
    let refused = run(&["test", &spec, "--list"]);
    assert_eq!(code(&refused), 2);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--root"), "{refused:?}");
    let elsewhere =
        run(&["test", &spec, "--list", "--root", &folder.join("..").join("specs").display().to_string()]);
    assert_eq!(code(&elsewhere), 2);

    let bundle = dir.path().join("above.fb").display().to_string();
    let recorded = run(&["test", &spec, "--root", &root, "--seed", "1", "--bundle", &bundle]);
    assert_eq!(code(&recorded), 0, "{recorded:?}");
    std::fs::remove_dir_all(dir.path().join("shop")).unwrap();
    let judged = run(&["replay", &bundle, "--depth", "judge", "--format", "json"]);
    assert_eq!(code(&judged), 0, "{judged:?}");
    assert_eq!(red(&document(&judged)), Vec::<String>::new());
}
