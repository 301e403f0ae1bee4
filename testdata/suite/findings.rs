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

/// Runs differ by what is drawn for them, each can be had again, and who differs is told.
#[test]
fn a_cell_that_comes_out_differently_from_run_to_run_is_told() {
    const RUNS: u64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let small = std::fs::read_to_string(repository("testdata/transcripts/small.star")).unwrap();
    let services = small.split("def listing").next().unwrap();
    let cells_of_it = r#"
now_and_then = fault_assumption("now_and_then", target = api.public, rules = [error(status = 503, probability = "50%")])
fault_matrix(scenarios = [probe], faults = [now_and_then], default_expect = expect_success())

def test_health():
    assert_eq(probe().status_code, 200)
"#;
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (spec, bundle) = (at("runs.star"), at("runs.fb"));
    std::fs::write(&spec, format!("{services}{cells_of_it}")).unwrap();
    let api = format!("api={}", orders_api().display());
    let test = |more: &[&str]| {
        run(&[&["test", &spec, "--seed", "1", "--binary", &api, "--format", "json"][..], more].concat())
    };

    let ran = test(&["--runs", "4", "--bundle", &bundle, "--embed"]);
    assert_eq!(code(&ran), 1, "{}", String::from_utf8_lossy(&ran.stderr));
    let undrawn =
        "notice: nothing is drawn from the seed in 1 of 2 cells: their runs differ only as the services do";
    assert!(
        String::from_utf8_lossy(&ran.stderr).contains(undrawn),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let document = document(&ran);
    let verdicts: Vec<(String, String)> = cells(&document)
        .iter()
        .map(|cell| [&cell["name"], &cell["verdict"]].map(|text| text.as_str().unwrap().to_owned()).into())
        .collect();
    assert_eq!(verdicts.len() as u64, 2 * RUNS);
    assert!(verdicts.iter().all(|(name, verdict)| !name.starts_with("test_health@") || verdict == "passed"));
    let failed: Vec<&str> =
        verdicts.iter().filter(|(_, verdict)| verdict != "passed").map(|(name, _)| name.as_str()).collect();
    let numbers: Vec<u64> =
        failed.iter().map(|name| name.rsplit_once('@').unwrap().1.parse().unwrap()).collect();
    assert!((1..RUNS).contains(&(numbers.len() as u64)), "half of them, as it is drawn: {failed:?}");
    let red = cells(&document).iter().find(|cell| cell["name"] == failed[0]).unwrap();
    assert_eq!(red["whose"], "an injected fault", "no service said 503");
    let flaky = serde_json::json!([{
        "name": "matrix_probe_now_and_then",
        "runs": RUNS,
        "passed": RUNS - numbers.len() as u64,
        "not_passed_in": numbers,
    }]);
    let inspected = super::document(&run(&["inspect", &bundle, "--format", "json"]));
    assert_eq!((&document["flaky"], &inspected["flaky"]), (&flaky, &flaky));
    for form in [&[][..], &["--format", "markdown"]] {
        let said = run(&[&["inspect", &bundle][..], form].concat());
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("matrix_probe_now_and_then passed in "), "{said}");
    }

    // One run again, recorded (a baseline is of cells, not of runs) and replayed; and all of them.
    let reds = at("reds");
    std::fs::write(&reds, "matrix_probe_now_and_then: violated\n").unwrap();
    let again = test(&["--test", failed[0], "--no-bundle", "--baseline", &reds]);
    let again = (code(&again), super::document(&again));
    assert_eq!((again.0, &again.1["baseline"]["known"]), (0, &serde_json::json!([failed[0]])));
    for (chosen, depth, count) in
        [(failed[0], "judge", 1), ("matrix_probe_now_and_then", "judge", RUNS), ("*", "redrive", 2 * RUNS)]
    {
        let replayed = run(&["replay", &bundle, "--test", chosen, "--depth", depth, "--format", "json"]);
        let replayed = super::document(&replayed);
        assert_eq!(cells(&replayed).len() as u64, count, "{chosen}");
        assert!(cells(&replayed).iter().all(|cell| cell["exact"] == true), "{replayed}");
    }
    for wrong in ["0", "1001", "x"] {
        assert_eq!(code(&test(&["--runs", wrong])), 2);
    }
}

/// What a terminal of so many columns shows.
fn on_terminal(columns: u16, arguments: &[&str], env: &str) -> Option<String> {
    let words: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("stty cols {columns}; {env} '{}' {}", super::faultbox().display(), words.join(" "));
    let script =
        std::process::Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").output();
    Some(String::from_utf8(script.ok()?.stdout).unwrap().replace('\r', ""))
}

#[test]
fn a_terminal_gets_colours_and_whole_lines_and_a_pipe_neither() {
    let bundle = repository("testdata/bundles/2.0.fb").display().to_string();
    let Some(shown) = on_terminal(60, &["inspect", &bundle], "") else {
        return super::skipped("inspect on a terminal (no script(1) here)");
    };
    let piped = run(&["inspect", &bundle]);
    let piped = String::from_utf8_lossy(&piped.stdout).into_owned();
    assert!(
        shown.contains("\u{1b}[31mFAIL\u{1b}[0m") && shown.contains("\u{1b}[32mPASS\u{1b}[0m"),
        "{shown}"
    );
    assert!(!piped.contains('\u{1b}') && !piped.contains('\u{2026}'), "{piped}");
    let wide = |text: &str, begin: &str| {
        let lines = text.lines().filter(|line| line.trim_start_matches("\u{1b}[32m").starts_with(begin));
        let plain = |line: &str| line.replace("\u{1b}[32m", "").replace("\u{1b}[0m", "").chars().count();
        lines.map(plain).max().unwrap()
    };
    assert!(wide(&shown, "PASS") <= 60 && wide(&piped, "PASS") > 60, "{shown}\n{piped}");
    let plain = on_terminal(60, &["inspect", &bundle], "NO_COLOR=1").unwrap();
    assert!(!plain.contains('\u{1b}') && plain.contains('\u{2026}'), "{plain}");
}
