//! A service whose clock and dice follow from the seed: two recordings are equal to the letter.
//!
//! Method: one cell of one client, `specs/orders/seeded.star`, with the service in Rust and in Go.

use super::containers;
use super::go::go_api;
use super::replays::{inexact, replay};
use super::{code, document, orders_api, reasons, red, repository, run};
use faultbox_bundle_format::canonical::{self, Policy};
use faultbox_bundle_format::{Body, Bundle, Class, Entry, Payload, Value};
use std::path::Path;

const CELL: &str = "test_orders_are_stamped_by_the_virtual_clock";

fn record(api: &Path, seed: &str, bundle: &Path) -> serde_json::Value {
    let (spec, bundle) = (repository("specs/orders/seeded.star"), bundle.display().to_string());
    let (spec, api) = (spec.display().to_string(), format!("api={}", api.display()));
    let run = run(&[
        "test",
        &spec,
        "--embedded",
        "--test",
        CELL,
        "--seed",
        seed,
        "--binary",
        &api,
        "--bundle",
        &bundle,
        "--embed",
        "--format",
        "json",
    ]);
    let document = document(&run);
    assert_eq!((red(&document), code(&run)), (Vec::new(), 0), "{}", reasons(&document));
    document
}

/// What the recorded cell is: its strict digest, and every request and answer of it as text.
fn recorded(path: &Path) -> (String, Vec<String>) {
    let bundle = Bundle::open(path).unwrap();
    let began = bundle.run_entries().unwrap().into_iter().find_map(|entry| match entry.body {
        Body::RunStarted(run) => Some(run.unix_ns),
        _ => None,
    });
    let entries = bundle.entries(bundle.cell(CELL).unwrap().cell).unwrap();
    let digest = canonical::of_cell(&entries, began.unwrap(), Policy::Strict).digest;
    // Which of two answers to two askers came first is no property of the cell.
    let mut exchanges: Vec<String> = entries.iter().filter_map(exchange).collect();
    exchanges.sort();
    (format!("{digest:02x?}"), exchanges)
}

fn exchange(entry: &Entry) -> Option<String> {
    let Body::Exchange(exchange) = &entry.body else { return None };
    let text = |payload: &Payload| payload.value().map(plain);
    (exchange.class == Class::Work).then(|| {
        let (request, response) = (text(&exchange.request), exchange.response.as_ref().map(text));
        format!("{} {} {request:?} {response:?}", exchange.interface, exchange.key)
    })
}

/// Without what is the bundle's own (the tags of its secrets), what is measured on the real clock (how much
/// of a deadline is left), and the span of a call: the service asks two upstreams side by side, and which of
/// them gets which span is up to its threads. The trace is not.
fn plain(value: Value) -> Value {
    match value {
        Value::Map(pairs) => {
            let kept = pairs.into_iter().filter(|(key, _)| key != "grpc-timeout");
            Value::Map(kept.map(|(key, value)| (key, plain(value))).collect())
        }
        Value::List(values) => Value::List(values.into_iter().map(plain).collect()),
        Value::Volatile(_) => Value::Null,
        Value::Text(text) if text.contains("<secret ") => Value::text("a secret"),
        Value::Text(text) if is_traceparent(&text) => Value::text(&text[..35]),
        other => other,
    }
}

/// `00-TRACE-SPAN-01`: W3C Trace Context, section 3.2.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    text.is_ascii() && text.starts_with("00-") && parts == [2, 32, 16, 2]
}

fn two_recordings_are_equal(api: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let record = |name: &str, seed: &str| {
        let path = dir.path().join(name);
        record(api, seed, &path);
        (path.clone(), recorded(&path))
    };
    let (first_path, first) = record("first.fb", "7");
    let (_, second) = record("second.fb", "7");
    assert!(first.1.len() > 10, "{:?}", first.1);
    assert_eq!(first.1, second.1);
    assert_eq!(first.0, second.0);
    let (_, other) = record("other.fb", "8");
    assert_ne!(first.1, other.1, "another seed makes other ids");
    let (again, exit) = replay(&first_path, &["--strict"]);
    assert_eq!((inexact(&again), exit), (Vec::new(), 0));
}

#[test]
fn two_recordings_of_the_rust_service_are_equal() {
    two_recordings_are_equal(&orders_api());
}

#[test]
fn two_recordings_of_the_go_service_are_equal() {
    if let Some(api) = go_api() {
        two_recordings_are_equal(&api);
    }
}

#[test]
fn a_container_has_a_virtual_clock_as_well() {
    if !containers::ready(&["mariadb"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let app = containers::chapter_in_a_container(dir.path(), "clock = \"virtual\", entropy = \"seeded\"");
    let seeded = app.with_file_name("seeded.star").display().to_string();
    // Its own assertions are about the clock.
    let run = run(&[
        "test",
        &seeded,
        "--embedded",
        "--test",
        CELL,
        "--seed",
        "7",
        "--no-bundle",
        "--format",
        "json",
    ]);
    let document = document(&run);
    assert_eq!((red(&document), code(&run)), (Vec::new(), 0), "{}", reasons(&document));
    containers::forget_builds(&["api"]);
}
