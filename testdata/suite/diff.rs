//! `faultbox diff`: two recordings that mean the same do not differ, and where they do, the first exchange
//! and its fields are named.

use super::{cells, code, document, record, run};

const CELLS: &[&str] = &["--test", "test_create_order", "--test", "matrix_order_listing_db_down"];

#[test]
fn what_means_the_same_does_not_differ_and_what_does_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    record(&path("a.fb"), CELLS);
    record(&path("again.fb"), CELLS);
    record(&path("one.fb"), &CELLS[..2]);
    record(&path("bug.fb"), &[CELLS, &["--env", "api:ORDERS_BUG=db-poison"]].concat());

    let same = run(&["diff", &text("a.fb"), &text("again.fb"), "--format", "json"]);
    assert_eq!(code(&same), 0, "{}", String::from_utf8_lossy(&same.stdout));
    assert_eq!(document(&same)["same"], cells(&record(&path("c.fb"), CELLS).0).len());

    let fewer = run(&["diff", &text("a.fb"), &text("one.fb"), "--format", "json"]);
    assert_eq!(code(&fewer), 1);
    assert_eq!(document(&fewer)["only_a"], serde_json::json!(["matrix_order_listing_db_down"]));

    let bug = run(&["diff", &text("a.fb"), &text("bug.fb"), "--format", "json"]);
    assert_eq!(code(&bug), 1);
    let document = document(&bug);
    let changed = &document["changed"][0];
    assert_eq!(document["changed"].as_array().map(Vec::len), Some(1), "{document}");
    assert_eq!(changed["name"], "matrix_order_listing_db_down");
    assert_eq!((&changed["a"]["verdict"], &changed["b"]["verdict"]), (&"PASS".into(), &"FAIL".into()));
    assert_eq!(changed["first"]["stream"], "test>api.public:GET /orders", "{changed}");
    let status = &changed["first"]["fields"][0];
    assert_eq!(
        *status,
        serde_json::json!({ "path": "response.status", "a": "503", "b": "504" }),
        "{changed}"
    );
    let words = run(&["diff", &text("a.fb"), &text("bug.fb"), "--format", "markdown"]);
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(words.contains("| `matrix_order_listing_db_down` | PASS | FAIL: `"), "{words}");

    let missing = run(&["diff", &text("a.fb"), &text("none.fb")]);
    assert_eq!(code(&missing), 5);
}
