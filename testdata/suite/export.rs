//! `faultbox export` and `test --junit`, each read by a real reader of the format: JUnit by junitparser, HAR by
//! haralyzer, pcapng by tshark, which must find the protocols in it and nothing wrong; and what a step of GitHub
//! Actions is told.
//!
//! Method: cells of the chapter with a planted defect are recorded once. The Python readers lie where
//! `.ci/setup tests` puts them.

use super::{code, faultbox, record, repository, run, skipped};
use std::path::{Path, PathBuf};
use std::process::Command;

const CELLS: &[&str] = &[
    "--env",
    "api:ORDERS_BUG=db-poison",
    "--test",
    "test_create_order",
    "--test",
    "matrix_order_listing_db_down",
    "--test",
    "matrix_login_flow_users_unavailable",
];

fn recorded(folder: &Path) -> PathBuf {
    let bundle = folder.join("a.fb");
    let (document, exit) = record(&bundle, CELLS);
    assert_eq!((exit, super::red(&document)), (1, vec!["matrix_order_listing_db_down".to_owned()]));
    bundle
}

fn export(format: &str, bundle: &Path, output: &Path) {
    let done = run(&["export", format, &bundle.display().to_string(), "-o", &output.display().to_string()]);
    assert_eq!(code(&done), 0, "{}", String::from_utf8_lossy(&done.stderr));
}

/// What a Python reader printed.
fn python(script: &str, file: &Path) -> Option<String> {
    let python = repository("target/readers/bin/python");
    if !python.exists() {
        skipped("files of other formats by Python readers (.ci/setup tests was not run)");
        return None;
    }
    let output = Command::new(python).args(["-c", script]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

const JUNIT: &str = "
import sys, junitparser
xml = junitparser.JUnitXml.fromfile(sys.argv[1])
for suite in xml:
    print(suite.tests, suite.failures, suite.errors, suite.skipped)
    for case in suite:
        print(case.name, case.classname, [type(r).__name__ + ': ' + r.message for r in case.result])
";

const HAR: &str = "
import sys, haralyzer
for page in haralyzer.HarParser.from_file(sys.argv[1]).pages:
    for entry in page.entries:
        print(page.page_id, entry.request.method, entry.request.url.split('/', 3)[3], entry.response.status)
";

#[test]
fn files_are_what_their_readers_read() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = recorded(folder.path());
    let at = |name: &str| folder.path().join(name);

    export("junit", &bundle, &at("a.xml"));
    if let Some(read) = python(JUNIT, &at("a.xml")) {
        assert!(read.starts_with("3 1 0 0\n"), "{read}");
        let red =
            "matrix_order_listing_db_down order_listing ['Failure: expect_error_within: status_code=504";
        assert!(read.contains(red), "{read}");
    }
    export("har", &bundle, &at("a.har"));
    if let Some(read) = python(HAR, &at("a.har")) {
        assert!(read.contains("test_create_order POST orders 201\n"), "{read}");
        assert!(read.contains("matrix_order_listing_db_down GET orders 504\n"), "{read}");
    }
    export("pcapng", &bundle, &at("a.pcapng"));
    wireshark(&at("a.pcapng"));

    let results = run(&["export", "junit", &bundle.display().to_string(), "test_create_order"]);
    assert_eq!(code(&results), 2, "results are of every cell");
}

fn tshark(file: &Path, arguments: &[&str]) -> String {
    let output =
        Command::new("tshark").arg("-r").arg(file).args(arguments).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn wireshark(file: &Path) {
    if Command::new("tshark").arg("--version").output().is_err() {
        return skipped("packets by Wireshark (no tshark here)");
    }
    let sums = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
    let wrong = "_ws.malformed || tcp.checksum.status == 0 || ip.checksum.status == 0 || tcp.analysis.flags";
    assert_eq!(tshark(file, &[&sums[..], &["-Y", wrong]].concat()), "");
    let fields = |filter: &str, field: &str| tshark(file, &["-Y", filter, "-T", "fields", "-e", field]);
    let queries = fields("mysql.query", "mysql.query");
    assert!(queries.contains("INSERT INTO orders"), "{queries}");
    let commands = fields("resp", "resp.bulk_string.value");
    assert!(!commands.is_empty(), "no commands of Redis");
    assert!(fields("kafka.api_key == 0", "kafka.topic_name").contains("orders.events"), "no Produce request");
    let calls = fields("http2 && grpc", "http2.headers.path");
    assert!(calls.contains("/inDriver.users.UserService/Get"), "{calls}");
    assert!(fields("http.request", "http.request.method").contains("POST"), "no request over HTTP");
    let streams = fields("tcp.flags.syn == 1 && tcp.flags.ack == 0", "tcp.stream");
    let ends = fields("tcp.flags.fin == 1 || tcp.flags.reset == 1", "tcp.stream");
    let distinct = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(distinct(&streams), distinct(&ends), "every stream begins and ends");
}

#[test]
fn a_step_of_github_actions_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary.md");
    let api = format!("api={}", super::orders_api().display());
    let spec = repository("testdata/transcripts/small.star").display().to_string();
    let output = Command::new(faultbox())
        .args(["test", &spec, "--seed", "1", "--binary", &api, "--no-bundle"])
        .args(["--test", "test_health", "--test", "test_wants_*"])
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_WORKSPACE", repository(""))
        .env("GITHUB_STEP_SUMMARY", &summary)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let annotations: Vec<&str> = said.lines().filter(|line| line.starts_with("::")).collect();
    assert_eq!(
        annotations,
        [
            "::error file=testdata/transcripts/small.star,line=45,title=test_wants_the_impossible%3A failed::assert_eq: \
          200 != 418; last step api.public.get: status_code=200 (small.star:45)"
        ],
        "{said}"
    );
    let text = std::fs::read_to_string(&summary).unwrap();
    assert!(text.starts_with("## Faultbox: 1 passed, 1 failed\n"), "{text}");
}
