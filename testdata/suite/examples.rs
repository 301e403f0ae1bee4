//! Every example of the spec language in the documentation is one that Faultbox takes.
//!
//! Method: each block ```` ```python ```` of `docs/*.md` and `README.md`, and in `docs/language.md` each call in backquotes
//! that is no signature, is loaded. One rule for fragments: what declares a service stands alone; everything else comes
//! after the chapter's spec, whose services and scenarios it may name. Keywords of `fault_assumption` come in one. A block that
//! has services and cells of its own is a whole spec: it runs, embedded, with the example's service.

use super::{code, orders_api, repository, run};
use regex::Regex;
use std::path::{Path, PathBuf};

/// An example and where it stands.
struct Example {
    place: String,
    text: String,
}

fn pages() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(repository("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.push(repository("README.md"));
    pages.sort();
    pages
}

fn blocks() -> Vec<Example> {
    let mut found = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        let mut open: Option<Example> = None;
        for (number, line) in (1..).zip(text.lines()) {
            match (&mut open, line.trim_end()) {
                (None, "```python") => {
                    open = Some(Example { place: format!("{name}:{number}"), text: String::new() });
                }
                (Some(_), "```") => found.extend(open.take()),
                (Some(example), line) => example.text.push_str(&format!("{line}\n")),
                (None, _) => {}
            }
        }
        assert!(open.is_none(), "{name}: a block without an end");
    }
    found
}

/// Calls in backquotes in the language's page that are no signatures: what is written in them is a value.
fn inline() -> Vec<Example> {
    let page = std::fs::read_to_string(repository("docs/language.md")).unwrap();
    let page = Regex::new("(?s)```.*?```").unwrap().replace_all(&page, "").into_owned();
    let span = Regex::new("`([^`]+)`").unwrap();
    // Dots that stand for more, parameters without a value, `<word>`, names alone.
    let signature =
        Regex::new(r"[,(\[] ?\.\.\.[\])]|=,|=\)|= \.\.\.|<\w+>|\*|\([a-z_]*\)$|\(([a-z_]+, )+[a-z_]+\)|^\.")
            .unwrap();
    let spans = span.captures_iter(&page).map(|found| found[1].replace('\n', " "));
    let calls = spans.filter(|text| text.contains('(') && text.ends_with([')', '}']));
    let known = ["drop()", "duplicate()", "ready()", "expect_success()", "expect_hang()"];
    let given = calls.filter(|text| known.contains(&text.as_str()) || !signature.is_match(text));
    given.map(|text| Example { place: format!("language.md: `{text}`"), text }).collect()
}

/// A fragment as a spec.
fn wrapped(text: &str) -> String {
    let chapter = std::fs::read_to_string(repository("specs/orders/faultbox.star")).unwrap();
    let keyword = Regex::new(r"^(\w+) = \w+\(").unwrap();
    let first = text.lines().next().unwrap_or_default();
    if text.contains("service(") {
        let cells =
            if text.contains("def test_") { "" } else { "\ndef test_example():\n    assert_true(True)\n" };
        return format!("{text}{cells}");
    }
    let own = match text.contains('\n') {
        true => text.to_owned(),
        false if keyword.is_match(first) => format!("fault_assumption(\"example\", target = db, {text})\n"),
        false if text.starts_with("load(") => format!("{text}\n"),
        false => format!("example = {text}\n"),
    };
    // Loads come first in a file.
    let (loads, rest): (Vec<&str>, Vec<&str>) = own.lines().partition(|line| line.starts_with("load("));
    format!("{}\n{chapter}\n{}\n", loads.join("\n"), rest.join("\n"))
}

/// A folder with what examples name.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    super::copy_of_chapter(&["schema.sql", "proto"], dir.path());
    std::fs::write(dir.path().join("my.cnf"), "[mysqld]\n").unwrap();
    dir
}

/// What is wrong with a spec, if anything is.
fn refused(dir: &Path, text: &str) -> Option<String> {
    let spec = dir.join("example.star");
    std::fs::write(&spec, text).unwrap();
    let output = run(&["test", &spec.display().to_string(), "--dry-run"]);
    (code(&output) != 0).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_example_loads() {
    let dir = folder();
    let (blocks, inline) = (blocks(), inline());
    assert!(blocks.len() >= 9, "only {} blocks are found", blocks.len());
    assert!(inline.len() >= 15, "only {} inline examples are found", inline.len());
    let all = blocks.iter().chain(&inline);
    let wrong: Vec<String> = all
        .filter_map(|example| {
            Some(format!("{}\n{}", example.place, refused(dir.path(), &wrapped(&example.text))?))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_that_is_a_whole_spec_passes() {
    let whole = |example: &Example| example.text.contains("service(") && example.text.contains("def test_");
    let examples: Vec<Example> = blocks().into_iter().filter(whole).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let dir = folder();
        let spec = dir.path().join("example.star");
        std::fs::write(&spec, &example.text).unwrap();
        let api = format!("api={}", orders_api().display());
        let spec = spec.display().to_string();
        let output = run(&["test", &spec, "--embedded", "--seed", "1", "--binary", &api, "--no-bundle"]);
        assert_eq!(code(&output), 0, "{}\n{}", example.place, String::from_utf8_lossy(&output.stdout));
    }
}
