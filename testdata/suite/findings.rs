//! What cells say of themselves beside their verdicts: `inspect` shows it in every form.
//!
//! Method: cells that pass and could not have failed, each in its way, beside ones that could.

use super::{cells, code, document, orders_api, repository, run};

const CELLS: &str = r#"
def test_discards():
    probe()

def test_asserts():
    assert_eq(probe().status_code, 200)

def test_returns_a_truth():
    return probe().ok

def test_returns_what_nobody_judges():
    return probe()

slower = fault_assumption("slower", target = api.public, rules = [delay("1ms")])

def looks_at_nothing(response):
    pass

def looks(response):
    assert_true(response.ok)

def probing():
    return probe()

fault_matrix(
    scenarios = [probe, probing],
    faults = [slower],
    default_expect = expect_any(expect_success(), expect_error_within(ms = 99999999999), expect_hang()),
    overrides = {(probing, slower): looks_at_nothing},
)

def third():
    return probe()

fault_matrix(scenarios = [third], faults = [slower], default_expect = looks)
"#;

#[test]
fn cells_that_cannot_fail_are_told_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let small = std::fs::read_to_string(repository("testdata/transcripts/small.star")).unwrap();
    let services = small.split("def listing").next().unwrap();
    let (spec, bundle) = (dir.path().join("cells.star"), dir.path().join("cells.fb"));
    std::fs::write(&spec, format!("{services}{CELLS}\ndeterminism(\"L1\")\n")).unwrap();
    let (spec, bundle) = (spec.display().to_string(), bundle.display().to_string());
    let api = format!("api={}", orders_api().display());
    let ran = run(&["test", &spec, "--seed", "1", "--binary", &api, "--bundle", &bundle, "--format", "json"]);
    assert_eq!(code(&ran), 0, "{}", String::from_utf8_lossy(&ran.stderr));

    let expected = [
        ("test_discards", Some("it asserts nothing and returns nothing")),
        ("test_asserts", None),
        ("test_returns_a_truth", None),
        ("test_returns_what_nobody_judges", Some("nothing judges what it returns, and it asserts nothing")),
        ("matrix_probe_slower", Some("holds whatever the answer is, and without one")),
        ("matrix_probing_slower", Some("expectation looks_at_nothing returned nothing and asserted nothing")),
        ("matrix_third_slower", None),
    ];
    let inspected = document(&run(&["inspect", &bundle, "--format", "json"]));
    for document in [&document(&ran), &inspected] {
        for (name, why) in expected {
            let cell = cells(document).iter().find(|cell| cell["name"] == name).unwrap();
            let said: Vec<&str> =
                cell["proves_nothing"].as_array().unwrap().iter().map(|why| why.as_str().unwrap()).collect();
            match why {
                Some(why) => assert!(said.len() == 1 && said[0].ends_with(why), "{name}: {said:?}"),
                None => assert!(said.is_empty(), "{name}: {said:?}"),
            }
            assert!(
                !cell["not_determined"].as_array().unwrap().is_empty(),
                "{name}: L1 has something to say"
            );
            assert_eq!(cell["clock_moved_by_itself"], false);
        }
    }
    for more in
        [&[][..], &["--format", "markdown"], &["test_discards"], &["test_discards", "--format", "markdown"]]
    {
        let said = run(&[&["inspect", &bundle][..], more].concat());
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        for part in
            ["proves nothing: it asserts nothing and returns nothing", "not determined: api asked the host: "]
        {
            assert!(said.contains(part), "{more:?}: {part}: {said}");
        }
    }
}
