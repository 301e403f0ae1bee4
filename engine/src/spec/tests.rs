//! Whole specs: the chapter's, and one for each mistake.

use super::*;
use crate::addresses::AddressBook;
use crate::mock::grpc::GrpcAnswer;
use crate::mock::{MockError, SignRequest};
use crate::plan::{Driver, Judgement, Plan};
use crate::step::{StepCall, StepResponse};
use faultbox_bundle_format::{Blame, Body, Class, Ending, Entry, Exchange, Outcome, Payload, Phase, Value};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn load_chapter() -> Plan {
    let addresses = AddressBook::isolated();
    let options = LoadOptions::new(&addresses);
    load(&repository("specs/orders/faultbox.star"), &options).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_chapter_loads_into_its_27_cells() {
    let plan = load_chapter();
    let names: Vec<&str> = plan.cells.iter().map(|cell| cell.name.as_str()).collect();
    let mut expected = vec![
        "test_health_endpoint".to_owned(),
        "test_jwt_protected_endpoint".to_owned(),
        "test_create_order".to_owned(),
    ];
    for scenario in ["order_creation", "order_listing", "health_probe", "login_flow"] {
        for fault in ["db_down", "db_slow", "db_write_fail", "cache_down", "bus_down", "users_unavailable"] {
            expected.push(format!("matrix_{scenario}_{fault}"));
        }
    }
    assert_eq!(names, expected);
}

fn load_text(text: &str) -> Result<Plan, SpecErrors> {
    let mut files = MemoryFiles::default();
    files.insert("a.star", text.as_bytes().to_vec());
    let addresses = AddressBook::isolated();
    let options = LoadOptions { files: Some(&files), ..LoadOptions::new(&addresses) };
    load(Path::new("a.star"), &options)
}

/// Every mistake with what is said about it: `=== name`, the spec, `---`, the message.
#[test]
fn each_mistake_has_its_message() {
    let path = repository("testdata/spec/errors.txt");
    let golden = std::fs::read_to_string(&path).unwrap();
    let mut actual = String::new();
    for section in golden.split("=== ").skip(1) {
        let (name, rest) = section.split_once('\n').unwrap();
        let (spec, _) = rest.split_once("---\n").unwrap();
        let said = match load_text(spec) {
            Ok(_) => "it loads\n".to_owned(),
            Err(errors) => errors.to_string(),
        };
        actual.push_str(&format!("=== {name}\n{spec}---\n{said}\n"));
    }
    if golden != actual {
        // What was said, for a look at the difference (and for taking over what is right).
        let shown = std::env::temp_dir().join("faultbox-spec-errors.txt");
        std::fs::write(&shown, &actual).unwrap();
        panic!("testdata/spec/errors.txt differs from what is said now: {}", shown.display());
    }
}

/// A world that answers steps from a list.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<StepResponse>>,
    calls: Mutex<Vec<StepCall>>,
    assertions: Mutex<Vec<(bool, String, String)>>,
    printed: Mutex<Vec<String>>,
    signed: Mutex<Vec<SignRequest>>,
}

impl Driver for Scripted {
    fn step(&self, call: StepCall) -> StepResponse {
        self.calls.lock().unwrap().push(call);
        self.answers.lock().unwrap().pop_front().unwrap_or_else(|| StepResponse::no_answer("nobody there"))
    }
    fn sign(&self, mock: &str, request: SignRequest) -> Result<String, MockError> {
        self.signed.lock().unwrap().push(request);
        Ok(format!("token-of-{mock}"))
    }
    fn assertion(&self, held: bool, message: &str, location: &str) {
        self.assertions.lock().unwrap().push((held, message.to_owned(), location.to_owned()));
    }
    fn now_unix_s(&self) -> u64 {
        1_700_000_000
    }
    fn print(&self, text: &str) {
        self.printed.lock().unwrap().push(text.to_owned());
    }
    fn entries(&self) -> Vec<Entry> {
        Vec::new()
    }
    fn recover(&self, _within: Duration, attempt: &mut dyn FnMut() -> bool) -> bool {
        (0..3).any(|_| attempt())
    }
}

fn http(status: i64) -> StepResponse {
    StepResponse {
        ok: (200..400).contains(&status),
        status,
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        body: b"{\"id\":7}".to_vec(),
        data: Value::map([("id", Value::Int(7))]),
        duration: Duration::from_millis(12),
        ..StepResponse::default()
    }
}

fn plan_of(text: &str) -> Plan {
    load_text(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn run(plan: &Plan, cell: &str, answers: Vec<StepResponse>) -> (Judgement, Arc<Scripted>) {
    let driver = Arc::new(Scripted { answers: Mutex::new(answers.into()), ..Scripted::default() });
    let index =
        plan.cells.iter().position(|known| known.name == cell).unwrap_or_else(|| panic!("no cell {cell}"));
    (plan.program.run(index, driver.clone()).judgement, driver)
}

const API: &str = "api = service(\"api\", binary = \"./bin/api\", interface(\"public\", \"http\", 8080))\n";

fn api(rest: &str) -> Plan {
    plan_of(&format!("{API}{rest}"))
}

/// A matrix of one cell, `matrix_ask_down`.
fn matrix(scenario: &str, expectation: &str) -> Plan {
    api(&format!(
        "def ask():\n    {scenario}\ndown = fault_assumption(\"down\", target = api.public, rules = [drop()])\n\
         fault_matrix(scenarios = [ask], faults = [down], default_expect = {expectation})\n"
    ))
}

const ASK: &str = "return step(api.public, \"get\", path = \"/\")";

fn judged(plan: &Plan, answer: StepResponse) -> (Ending, String, Blame) {
    let (judgement, _) = run(plan, "matrix_ask_down", vec![answer]);
    (judgement.ending, judgement.reason, judgement.blame)
}

#[test]
fn a_step_carries_its_arguments_and_its_place() {
    let plan = api(
        "def test_a():\n    r = step(api.public, \"post\", path = \"/orders\", json = {\"n\": [1, 2.5, True, None]}, timeout = \"2s\")\n    \
         assert_eq(r.status_code, 201)\n    assert_eq(r.data[\"id\"], 7)\n    assert_eq(r.headers[\"content-type\"], \"application/json\")\n    \
         assert_true(\"CONTENT-TYPE\" in r.headers and r.headers.get(\"x\", \"-\") == \"-\")\n    \
         assert_true(r.ok and r.error == None and not r.timed_out and r.duration_ms == 12 and r.body == '{\"id\":7}')\n    print(\"done\")\n",
    );
    let (judgement, driver) = run(&plan, "test_a", vec![http(201)]);
    assert_eq!(judgement, Judgement { ending: Ending::Passed, reason: String::new(), blame: Blame::None });
    let calls = driver.calls.lock().unwrap();
    let call = &calls[0];
    assert_eq!(
        (call.service.as_str(), call.interface.as_str(), call.verb.as_str()),
        ("api", "public", "post")
    );
    assert_eq!(call.location, "a.star:3");
    assert_eq!(call.timeout, Some(Duration::from_secs(2)));
    let numbers = vec![Value::Int(1), Value::Float(2.5), Value::Bool(true), Value::Null];
    assert_eq!(call.argument("json"), Some(&Value::map([("n", Value::List(numbers))])));
    assert_eq!(driver.assertions.lock().unwrap().len(), 5);
    assert_eq!(*driver.printed.lock().unwrap(), ["done"]);
}

#[test]
fn a_failed_assertion_says_what_and_where() {
    let plan = api(
        "def test_a():\n    r = api.public.get(path = \"/\")\n    assert_true(r.status_code ==\n        200)\n",
    );
    let (judgement, driver) = run(&plan, "test_a", vec![http(503)]);
    assert_eq!(judgement.ending, Ending::Failed);
    assert_eq!(judgement.blame, Blame::ServiceUnderTest);
    assert_eq!(
        judgement.reason,
        "assert_true(r.status_code == 200); last step api.public.get: status_code=503 (a.star:4)"
    );
    let noted = driver.assertions.lock().unwrap();
    assert_eq!(*noted, [(false, "assert_true(r.status_code == 200)".to_owned(), "a.star:4".to_owned())]);
    let plan = api("def test_a():\n    assert_eq([1], [2], \"items\")\n");
    assert_eq!(run(&plan, "test_a", vec![]).0.reason, "assert_eq: items: [1] != [2] (a.star:3)");
    let plan = api("def test_a():\n    fail(\"no way\")\n");
    let (judgement, _) = run(&plan, "test_a", vec![]);
    assert_eq!((judgement.ending, judgement.reason.as_str()), (Ending::Failed, "fail: no way (a.star:3)"));
}

#[test]
fn a_mistake_at_run_time_is_the_specs_and_has_its_place() {
    let plan = api("def test_a():\n    r = api.public.get(path = \"/\")\n    return r.status_cod\n");
    let (judgement, _) = run(&plan, "test_a", vec![http(200)]);
    assert_eq!((judgement.ending, judgement.blame), (Ending::Error, Blame::Spec));
    assert_eq!(
        judgement.reason,
        "a response has no attribute `status_cod`; did you mean `status_code`? (a.star:4)"
    );
    let plan = api("def test_a():\n    return False\n");
    let (judgement, _) = run(&plan, "test_a", vec![]);
    assert_eq!(
        (judgement.ending, judgement.reason.as_str()),
        (Ending::Failed, "it returned False (a.star:2)")
    );
    let plan =
        api("def test_a():\n    n = 0\n    for i in range(1000000000):\n        n += i\n    return n\n");
    let (judgement, _) = run(&plan, "test_a", vec![]);
    assert_eq!(judgement.ending, Ending::Error, "{}", judgement.reason);
}

#[test]
fn a_violated_expectation_reads_like_the_chapter() {
    let plan = matrix(ASK, "expect_success()");
    let reason = "expect_success: status_code=503 (want < 500)".to_owned();
    assert_eq!(judged(&plan, http(503)), (Ending::Violated, reason, Blame::ServiceUnderTest));
    assert_eq!(judged(&plan, http(404)).0, Ending::Passed);
    let reason = "expect_success: no answer: connection refused (want < 500)".to_owned();
    assert_eq!(judged(&plan, StepResponse::no_answer("connection refused")).1, reason);
}

#[test]
fn a_scenario_that_returns_nothing_does_not_pass() {
    for expectation in ["expect_success()", "expect_hang()", "lambda r: True", "expect_error_within(ms = 1)"]
    {
        let plan = matrix("step(api.public, \"get\", path = \"/\")", expectation);
        let (ending, reason, blame) = judged(&plan, http(200));
        assert_eq!((ending, blame), (Ending::Error, Blame::Spec), "{expectation}: {reason}");
        assert!(reason.starts_with("scenario returned nothing"), "{reason}");
    }
    let (ending, reason, _) = judged(&matrix("return {\"status_code\": 200}", "expect_success()"), http(200));
    assert_eq!(
        (ending, reason.as_str()),
        (Ending::Error, "scenario returned a dict, and expect_success() judges a response")
    );
}

#[test]
fn a_function_that_returns_false_fails() {
    assert_eq!(judged(&matrix(ASK, "lambda r: r.status == 200"), http(200)).0, Ending::Passed);
    let (ending, reason, _) = judged(&matrix(ASK, "lambda r: r.status == 200"), http(503));
    assert_eq!((ending, reason.as_str()), (Ending::Violated, "expectation: the lambda returned False"));
    let (ending, reason, _) = judged(&matrix(ASK, "lambda r: assert_true(r.ok)"), http(503));
    assert_eq!(ending, Ending::Failed, "{reason}");
    let (ending, reason, _) = judged(&matrix(ASK, "lambda r: r.status"), http(200));
    assert_eq!(
        (ending, reason.as_str()),
        (Ending::Error, "expectation lambda returned 200, not True or False")
    );
    let any = "expect_any(expect_status(401), lambda r: r.status == 503)";
    assert_eq!(judged(&matrix(ASK, any), http(503)).0, Ending::Passed);
    assert_eq!(judged(&matrix("return 7", "lambda n: n == 7"), http(503)).0, Ending::Passed);
}

#[test]
fn a_known_failure_does_not_fail_and_its_end_does() {
    let plan = matrix(ASK, "known_failure(expect_success(), \"issue 12\")");
    let (ending, reason, _) = judged(&plan, http(503));
    assert_eq!(ending, Ending::Passed);
    assert_eq!(reason, "known failure: issue 12 (expect_success: status_code=503 (want < 500))");
    let (ending, reason, _) = judged(&plan, http(200));
    assert_eq!(
        (ending, reason.as_str()),
        (Ending::Violated, "known_failure: it passed, and \"issue 12\" is marked as known")
    );
    let plan = matrix("step(api.public, \"get\", path = \"/\")", "known_failure(expect_success(), \"x\")");
    assert_eq!(judged(&plan, http(200)).0, Ending::Error);
}

#[test]
fn seeds_fail_with_the_servers_message_and_read_what_was_loaded() {
    let mut files = MemoryFiles::default();
    let spec = "db = service(\"db\", image = \"mysql:8\", interface(\"main\", \"mysql\", 3306),\n    \
                seed = lambda: mysql.exec(db.main, sql = load_file(\"./sub/schema.sql\")),\n    reset = None)\n";
    files.insert("a.star", spec.as_bytes().to_vec());
    files.insert("sub/schema.sql", b"CREATE TABLE t (id INT)".to_vec());
    let addresses = AddressBook::isolated();
    let options = LoadOptions { files: Some(&files), ..LoadOptions::new(&addresses) };
    let plan = load(Path::new("a.star"), &options).unwrap();
    assert_eq!(
        plan.files.iter().map(|f| (f.path.as_str(), f.role)).collect::<Vec<_>>(),
        [("a.star", "spec"), ("sub/schema.sql", "loaded")]
    );
    assert!(plan.topology.services[0].has_seed);
    assert_eq!(plan.topology.services[0].reset, crate::topology::Reset::Leave);
    let good = StepResponse { ok: true, ..StepResponse::default() };
    let bad = StepResponse::no_answer("Table 't' already exists (1050)");
    let driver = Arc::new(Scripted { answers: Mutex::new(vec![good, bad].into()), ..Scripted::default() });
    assert_eq!(plan.program.seed("db", driver.clone()), Ok(()));
    let sql = driver.calls.lock().unwrap()[0].argument("sql").cloned();
    assert_eq!(sql, Some(Value::text("CREATE TABLE t (id INT)")));
    let error = plan.program.seed("db", driver.clone()).unwrap_err();
    assert_eq!(error, "db.main.exec: error: Table 't' already exists (1050) (a.star:2)");
    assert_eq!(plan.program.reset("db", driver), Ok(()));
}

#[test]
fn tokens_are_signed_by_the_driver() {
    let plan = plan_of(
        "load(\"@faultbox/mocks/jwt.star\", \"jwt\")\nauth = jwt.server(name = \"auth\", interface = interface(\"main\", \
         \"http\", 8090), issuer = \"https://x.invalid\")\ndef test_a():\n    token = auth.sign(claims = {\"sub\": \"u\"}, \
         expires_in = \"1h\")\n    assert_eq(token, \"token-of-auth\")\n",
    );
    let (judgement, driver) = run(&plan, "test_a", vec![]);
    assert_eq!(judgement.ending, Ending::Passed, "{}", judgement.reason);
    let signed = driver.signed.lock().unwrap();
    let expected = SignRequest {
        claims: Value::map([("sub", Value::text("u"))]),
        headers: Value::Null,
        expires_in: Some(Duration::from_secs(3600)),
        now_unix_s: 1_700_000_000,
    };
    assert_eq!(*signed, [expected]);
}

#[test]
fn modules_are_evaluated_once_and_relative_to_each_other() {
    let mut files = MemoryFiles::default();
    files.insert(
        "a.star",
        b"load(\"./lib/b.star\", \"api\", \"ask\")\nload(\"lib/c.star\", \"down\")\n\
        fault_matrix(scenarios = [ask], faults = [down], default_expect = expect_success())\n"
            .to_vec(),
    );
    files.insert(
        "lib/b.star",
        b"api = service(\"api\", interface(\"public\", \"http\", 8080), binary = \"../bin/api\")\n\
        def ask():\n    return step(api.public, \"get\", path = \"/\")\n"
            .to_vec(),
    );
    files.insert(
        "lib/c.star",
        b"load(\"b.star\", \"api\")\n\
        down = fault_assumption(\"down\", target = api.public, rules = [drop()])\n"
            .to_vec(),
    );
    let addresses = AddressBook::isolated();
    let over = vec![("api".to_owned(), "MODE".to_owned(), "x".to_owned())];
    let options = LoadOptions { env: over, files: Some(&files), ..LoadOptions::new(&addresses) };
    let plan = load(Path::new("/specs/a.star"), &options).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(plan.topology.services.len(), 1);
    assert_eq!(plan.topology.services[0].env, [("MODE".to_owned(), "x".to_owned())]);
    match &plan.topology.services[0].kind {
        crate::topology::ServiceKind::Binary { path, .. } => assert_eq!(path, Path::new("/specs/bin/api")),
        other => panic!("{other:?}"),
    }
    assert_eq!(plan.cells[0].name, "matrix_ask_down");
    assert_eq!(judged(&plan, http(200)).0, Ending::Passed);
    let wrong = vec![("apo".to_owned(), "MODE".to_owned(), "x".to_owned())];
    let binaries = vec![("nobody".to_owned(), "/x".into())];
    let options = LoadOptions { env: wrong, binaries, files: Some(&files), ..LoadOptions::new(&addresses) };
    let errors = load(Path::new("/specs/a.star"), &options).err().unwrap().to_string();
    assert_eq!(
        errors,
        "error: --env: no service is called `apo`\n  = did you mean `api`?\n\n\
        error: --binary: no service is called `nobody`\n"
    );
}

#[test]
fn the_language_is_starlark_with_what_specs_need() {
    let plan = plan_of(
        "names = [\"a\", \"b\"]\nif len(names) == 2:\n    limit = 3\nfor name in names:\n    service(name, image = \"x\", env = \
         {\"N\": 1, \"T\": True, \"S\": f\"{name}-{limit}\"})\nassert_eq(\"%s/%d\" % (\"x\", 2), \"x/2\")\npoint = struct(x = 1)\n\
         def pair(a, b):\n    return [a, b]\nassert_eq(pair(b = 1, 2), [2, 1])\ndef test_a():\n    assert_eq(point.x, 1)\n",
    );
    let env = |index: usize| plan.topology.services[index].env.clone();
    let text = |pairs: [(&str, &str); 3]| pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    assert_eq!(env(0), text([("N", "1"), ("T", "true"), ("S", "a-3")]));
    assert_eq!(env(1), text([("N", "1"), ("T", "true"), ("S", "b-3")]));
    assert_eq!(run(&plan, "test_a", vec![]).0.ending, Ending::Passed);
}

#[test]
fn the_chapters_assumptions_are_what_it_says() {
    use crate::fault::{Effect, SyscallAction};
    let plan = load_chapter();
    let assumption = |name: &str| {
        let cell =
            plan.cells.iter().find(|cell| cell.name == format!("matrix_order_creation_{name}")).unwrap();
        cell.assumption.clone().unwrap()
    };
    assert_eq!(assumption("db_down").rules[0].effect, Effect::Drop);
    assert_eq!(assumption("db_slow").rules[0].effect, Effect::Delay(Duration::from_secs(3)));
    let write = assumption("db_write_fail").syscalls[0].clone();
    assert_eq!(
        (write.family.as_str(), write.action, write.inbound),
        ("write", SyscallAction::Deny(5), false)
    );
    let connect = assumption("cache_down").syscalls[0].clone();
    assert_eq!(
        (connect.family.as_str(), connect.action, connect.inbound),
        ("connect", SyscallAction::Deny(111), true)
    );
    match &assumption("users_unavailable").rules[0].effect {
        Effect::Error(fields) => {
            assert_eq!(fields.text("code"), Some("UNAVAILABLE"));
            assert_eq!(fields.text("message"), Some("user-service down"));
        }
        other => panic!("{other:?}"),
    }
    let api = plan.topology.service("api").unwrap();
    let env = |name: &str| api.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(env("DATABASE_URL"), Some("mysql://root:test@127.0.0.1:3306/appdb"));
    assert_eq!(env("OIDC_JWKS_URL"), Some("127.0.0.1:8090/.well-known/jwks.json"));
    assert_eq!(plan.topology.sut().map(|service| service.name.as_str()), Some("api"));
    let files: Vec<(&str, &str)> = plan.files.iter().map(|file| (file.path.as_str(), file.role)).collect();
    assert_eq!(
        files,
        [("faultbox.star", "spec"), ("proto/all_upstreams.pb", "descriptors"), ("schema.sql", "loaded")]
    );
    assert_eq!(plan.cells[3].expectation, "expect_error_within(ms=5000)");
}

#[test]
fn a_scenario_runs_on_many_threads_at_once() {
    let plan = matrix(ASK, "expect_success()");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(judged(&plan, http(200)).0, Ending::Passed);
                }
            });
        }
    });
}

#[test]
fn depth_is_bounded() {
    let deep = |open: &str, close: &str, n: usize| format!("x = {}1{}\n", open.repeat(n), close.repeat(n));
    for text in [
        deep("(", ")", 5_000),
        deep("[", "]", 201),
        deep("not ", "", 50_000),
        deep("-", "", 50_000),
        deep("", " + 1", 50_000),
        deep("lambda: ", "", 50_000),
        deep("", " if 1 else 1", 50_000),
        format!("x = a{}\n", ".a".repeat(50_000)),
        (0..300).map(|n| format!("{}if 1:\n", " ".repeat(n))).collect(),
    ] {
        let said = load_text(&text).err().map(|errors| errors.0[0].message.clone()).unwrap_or_default();
        assert_eq!(said, "the program nests too deep here", "{}", &text[..60]);
    }
    // Just below the bounds: whatever is said of it, nothing overflows.
    for text in [
        deep("(", ")", 199),
        deep("not ", "", 4_900),
        deep("-", "", 4_900),
        deep("", " + 1", 4_900),
        deep("lambda: ", "", 4_900),
        deep("", " if 1 else 1", 2_400),
        format!("x = \"\"{}\n", ".upper()".repeat(1_600)),
        format!("x = [{}]\n", "(1, \"a\", {\"b\": 2}), ".repeat(500)),
    ] {
        let _ = load_text(&text);
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_front_end_panic(text in "[a-z(),= \\n\\[\\]{}\"'.:*#0-9]{0,80}") {
        fuzz_one(text.as_bytes());
    }
}

#[test]
fn recovery_runs_the_scenario_again() {
    let plan = matrix(ASK, "expect_all(expect_status(503), expect_recovery(within = \"2s\"))");
    let answers = |last| vec![http(503), http(500), http(503), http(last)];
    let (judgement, driver) = run(&plan, "matrix_ask_down", answers(200));
    assert_eq!((judgement.ending, judgement.reason.as_str()), (Ending::Passed, ""));
    assert_eq!(driver.calls.lock().unwrap().len(), 4);
    let (judgement, _) = run(&plan, "matrix_ask_down", answers(503));
    assert_eq!(judgement.reason, "expect_recovery: no success within 2s of the faults' end");
}

#[test]
fn only_what_failed_counts_as_asked_again() {
    let ask = |seq: u64, source: &str, sql: &str, outcome| {
        let exchange = Exchange {
            protocol: "mysql".into(),
            source: source.into(),
            interface: "db.main".into(),
            connection: seq,
            operation: "SELECT".into(),
            key: "select".into(),
            class: Class::Work,
            mutating: false,
            repeatable: true,
            request: Payload::of(&Value::text(sql)),
            outcome,
            response: None,
            rule: None,
            began_ns: 0,
            ended_ns: 0,
            began_seq: seq,
        };
        Entry {
            seq,
            cell: 1,
            phase: Phase::Scenario,
            at_ns: 0,
            actor: source.into(),
            stream: "s".into(),
            ordinal: seq,
            cause: None,
            body: Body::Exchange(exchange),
        }
    };
    let (good, bad) = (Outcome::Answered, Outcome::Failed);
    let entries = [
        ask(1, "api", "a", bad),
        ask(2, "api", "a", bad),
        ask(3, "api", "a", good),
        ask(4, "api", "a", good),
        ask(5, "api", "b", bad),
        ask(6, "test", "b", bad),
    ];
    let most = |entries: &[Entry]| super::expect::most_retried(entries, &["api".to_owned()].into());
    assert_eq!(most(&entries), Some(("SELECT on db.main".to_owned(), 2)));
    assert_eq!(most(&entries[2..]), Some(("SELECT on db.main".to_owned(), 0)));
    assert_eq!(most(&entries[5..]), None);
}

#[test]
fn every_binary_that_nobody_depends_on_is_under_test() {
    let plan = plan_of(
        "helper = service(\"helper\", binary = \"./h\", interface(\"main\", \"tcp\", 9000))\n\
         one = service(\"one\", binary = \"./a\", interface(\"main\", \"tcp\", 9001), depends_on = [helper])\n\
         two = service(\"two\", binary = \"./a\", interface(\"main\", \"tcp\", 9002), depends_on = [helper])\n\
         def test_a():\n    pass\n",
    );
    let names: Vec<&str> = plan.topology.suts().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
}

#[test]
fn a_container_is_under_test_where_nothing_else_could_be_meant() {
    let suts = |services: &str| {
        let plan = plan_of(&format!("{services}\ndef test_a():\n    pass\n"));
        plan.topology.suts().map(|service| service.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let db = "db = service(\"db\", image = \"mysql:8\", interface(\"main\", \"mysql\", 3306))\n";
    let api = |more: &str| format!("{db}api = service(\"api\", {more}, depends_on = [db])\n");
    let http = "interface(\"main\", \"http\", 8080)";
    assert_eq!(suts(db), "", "a server that asks nobody is a dependency");
    assert_eq!(suts(&api(&format!("build = \"./app\", {http}"))), "api");
    assert_eq!(suts(&api("build = \"./app\", interface(\"main\", \"tcp\", 9)")), "api");
    assert_eq!(suts(&api(&format!("image = \"api:1\", {http}"))), "api");
    assert_eq!(suts(&api("image = \"api:1\", interface(\"main\", \"tcp\", 9)")), "api", "it asks another");
    assert_eq!(suts(&api(&format!("image = \"api:1\", {http}, reuse = True"))), "");
    assert_eq!(suts(&format!("web = service(\"web\", image = \"web:1\", {http})")), "web");
    let both = format!(
        "{}other = service(\"other\", binary = \"./x\", {http})",
        api(&format!("image = \"api:1\", {http}"))
    );
    assert_eq!(suts(&both), "other", "what is built here comes first");
    let asked = format!(
        "{}other = service(\"other\", binary = \"./x\", {http}, env = {{\"API\": api.main.addr}})",
        api(&format!("build = \"./app\", {http}"))
    );
    assert_eq!(suts(&asked), "other", "the one that is asked is a dependency");
}

#[test]
fn process_ids_of_its_own_are_for_local_executables() {
    let spec = |what: &str| {
        let http = "interface(\"main\", \"http\", 8080)";
        load_text(&format!("api = service(\"api\", {what}, {http})\ndef test_a():\n    pass\n"))
    };
    let own = |what: &str| {
        spec(what).map(|plan| plan.topology.services[0].determinism.pids).map_err(|e| e.to_string())
    };
    assert_eq!(own("binary = \"./api\", pids = \"own\""), Ok(true));
    assert_eq!(own("binary = \"./api\", pids = \"host\""), Ok(false));
    assert_eq!(own("binary = \"./api\""), Ok(false));
    for (what, why) in [
        ("binary = \"./api\", pids = \"owm\"", "\"own\""),
        ("image = \"api:1\", pids = \"own\"", "no local executable"),
        ("remote = \"api.test\", pids = \"own\"", "remote"),
    ] {
        let said = own(what).unwrap_err();
        assert!(said.contains(why) && said.contains("pids"), "{said}");
    }
}

#[test]
fn an_issuer_has_its_keys_and_changes_them() {
    let plan = plan_of(
        "load(\"@faultbox/mocks/jwt.star\", \"jwt\")\n\
         auth = jwt.server(name = \"auth\", algorithm = \"EdDSA\", interface = interface(\"main\", \"http\", 8090), issuer = \"https://x.invalid\")\n\
         def test_a():\n    assert_eq(auth.jwks[\"keys\"][0][\"kid\"], \"faultbox-1\")\n    assert_eq(auth.rotate(keep = False), \"k.1\")\n",
    );
    let rotated = StepResponse { ok: true, data: Value::text("k.1"), ..StepResponse::default() };
    let (judgement, driver) = run(&plan, "test_a", vec![rotated]);
    assert_eq!(judgement.reason, "");
    let calls = driver.calls.lock().unwrap();
    assert_eq!((calls[0].service.as_str(), calls[0].verb.as_str()), ("auth", crate::mock::ROTATE));
    assert_eq!(calls[0].argument("keep"), Some(&Value::Bool(false)));
}

#[test]
fn a_mocks_function_answers_by_what_it_was_asked() {
    let mut files = MemoryFiles::default();
    let text = "load(\"@faultbox/mocks/grpc.star\", \"grpc\")\n\
        def city(asked):\n    if asked[\"id\"] == 1:\n        return {\"response\": {\"name\": \"Almaty\"}}\n    \
        if asked[\"id\"] == 2:\n        return 7\n    return grpc.not_found(\"no city %d\" % asked[\"id\"])\n\
        geo = grpc.server(name = \"geo\", interface = interface(\"main\", \"grpc\", 9001), descriptors = \"geo.pb\",\n    \
        services = {\"/geo.Cities/GetCity\": city})\n";
    files.insert("a.star", text.as_bytes().to_vec());
    files.insert("geo.pb", crate::protocol::grpc::testing::descriptors());
    let addresses = AddressBook::isolated();
    let options = LoadOptions { files: Some(&files), ..LoadOptions::new(&addresses) };
    let plan = load(Path::new("a.star"), &options).unwrap_or_else(|errors| panic!("{errors}"));
    let ask = |id| plan.program.answer(0, &Value::map([("id", Value::Int(id))]));
    let name = Value::map([("name", Value::text("Almaty"))]);
    assert_eq!(ask(1), Ok(GrpcAnswer::Response(name)));
    assert_eq!(ask(2), Err("an answer is a dict, not 7".to_owned()));
    let missing = GrpcAnswer::Error { code: "NOT_FOUND".into(), message: "no city 3".into() };
    assert_eq!(ask(3), Ok(missing));
}

/// Rules are planned from what the spec comes to, not from its text.
#[test]
fn syscall_faults_made_by_helpers_loops_and_variables_are_planned() {
    use crate::fault::{FdScope, SyscallAction};
    use crate::supervisor::Kind;
    let plan = load_text(
        r#"
db = service("db", image = "mysql:8", interface("main", "mysql", 3306))
api = service("api", binary = "/bin/true", interface("http", "http", 8080), depends_on = [db])
def flaky(call, errno, **where):
    return fault_assumption(call + "_" + errno, target = api, **{call: deny(errno, **where)})
both = [partial(3, nth = 2, fd = "pipe"), delay("5ms", to = db, process = "wor*")]
faults = [flaky(call, errno, to = db) for call in ["send", "connect"] for errno in ["EPIPE"]]
faults.append(fault_assumption("more", target = api, write = both, fsync = kill("SIGTERM"), fallocate = enospc_after("1KiB")))
def scenario():
    return api.http.get(path = "/")
fault_matrix(scenarios = [scenario], faults = [fault_assumption("all", faults = faults)])
"#,
    )
    .unwrap();
    let all = plan.cells[0].assumption.clone().unwrap();
    let rules: Vec<_> = all.flatten().into_iter().flat_map(|part| part.syscalls.clone()).collect();
    let words: Vec<&str> = rules.iter().map(|rule| rule.words.as_str()).collect();
    let wanted = [
        "send = deny(\"EPIPE\", to=service(\"db\"))",
        "connect = deny(\"EPIPE\", to=service(\"db\"))",
        "write = partial(3, fd=\"pipe\", nth=2)",
        "write = delay(\"5ms\", to=service(\"db\"), process=\"wor*\")",
        "fsync = kill(\"SIGTERM\")",
        "fallocate = enospc_after(\"1KiB\")",
    ];
    assert_eq!(words, wanted);
    let to = |n: usize| rules[n].to.as_ref().map(|pattern| pattern.glob.as_str());
    assert_eq!([to(0), to(1), to(2), to(3)], [Some("db"), Some("db"), None, Some("db")]);
    assert!(!rules[1].inbound, "a peer is whom the service itself connects to");
    assert_eq!((rules[2].action, rules[2].fd), (SyscallAction::Partial(3), Some(FdScope::Kind(Kind::Pipe))));
    assert_eq!((rules[2].modifiers.nth, rules[4].action), (Some(2), SyscallAction::Kill(15)));
    assert_eq!(rules[5].action, SyscallAction::EnospcAfter(1024));
    let api = plan.topology.service("api").unwrap();
    let trapped = crate::runner::policy::families(&plan.topology, &[&all], api);
    let trapped: Vec<&str> = trapped.iter().map(String::as_str).collect();
    assert_eq!(trapped, ["connect", "fallocate", "fsync", "send", "write"]);
}
