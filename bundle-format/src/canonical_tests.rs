//! Goal: what differs between two runs of one seed leaves the digest alone, and nothing else
//! does. Method: one small cell, made twice with other ids, times, ports and orders, then
//! once with each change that means something.

use crate::canonical::{Policy, of_cell, without_durations};
use crate::generated::{Kind, Scanner, bind, fuzz_one, substitute, template};
use crate::redact::Redactor;
use crate::*;
use proptest::prelude::*;

/// 2026-04-23 11:12:34 UTC.
const NEAR: u64 = 1_776_942_754_000_000_000;
const DAY: u64 = 86_400_000_000_000;

fn uuid(n: u64) -> String {
    format!("{n:08x}-1111-4222-8333-{:012x}", n.wrapping_mul(7_919))
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

struct Run {
    id: u64,
    unix_ns: u64,
    port: u16,
    connection: u64,
    entries: Vec<Entry>,
    at: u64,
}

impl Run {
    fn new(id: u64, unix_ns: u64, port: u16) -> Self {
        let mut run = Run { id, unix_ns, port, connection: id, entries: Vec::new(), at: id * 1000 };
        let named = Named { name: "db.main".to_owned(), value: format!("127.0.0.1:{port}") };
        run.push(Phase::Start, "cell", Body::Addresses(vec![named]));
        run
    }

    fn push(&mut self, phase: Phase, stream: &str, body: Body) {
        let seq = self.entries.len() as u64;
        self.at += 10;
        self.entries.push(Entry {
            seq,
            at_ns: self.at,
            cell: 1,
            phase,
            actor: "api".into(),
            stream: stream.to_owned(),
            ordinal: seq,
            cause: None,
            body,
        });
    }

    fn exchange(&mut self, key: &str, request: Value, response: Value) {
        let began = self.at + 10;
        self.overlapping(key, request, response, began, began + 5, Class::Work, false);
    }

    fn retry(&mut self, key: &str, request: Value) {
        let began = self.at + 10;
        self.overlapping(key, request, Value::Null, began, began + 5, Class::Work, true);
    }

    fn overlapping(
        &mut self,
        key: &str,
        request: Value,
        response: Value,
        began_ns: u64,
        ended_ns: u64,
        class: Class,
        repeatable: bool,
    ) {
        let exchange = Exchange {
            protocol: "mysql".into(),
            source: "api".into(),
            interface: "db.main".into(),
            connection: self.connection,
            operation: key.into(),
            key: key.to_owned(),
            class,
            mutating: false,
            repeatable,
            request: Payload::of(&request),
            outcome: Outcome::Answered,
            response: Some(Payload::of(&response)),
            rule: None,
            began_ns,
            ended_ns,
            began_seq: 0,
        };
        self.push(Phase::Scenario, &format!("api>db.main:{key}"), Body::Exchange(exchange));
    }

    fn decision(&mut self, key: &str, fired: bool) {
        let decision = Decision {
            assumption: "db_down".to_owned(),
            index: 0,
            key: key.to_owned(),
            source: "api".to_owned(),
            matched: self.entries.len() as u64,
            draw: 0,
            fired,
            on_sut: true,
        };
        self.push(Phase::Scenario, &format!("db_down#0:{key}"), Body::Decision(decision));
    }

    fn digest(&self) -> [u8; 32] {
        of_cell(&self.entries, self.unix_ns, Policy::Default).digest
    }

    fn strict(&self) -> [u8; 32] {
        of_cell(&self.entries, self.unix_ns, Policy::Strict).digest
    }
}

/// An order that is made: an id, a time, an address, a salt.
fn order(run: &mut Run, sql: &str, column: &str, amount: &str) {
    let id = uuid(run.id);
    let seconds = run.unix_ns / 1_000_000_000;
    let request = Value::map([
        ("sql", text(sql)),
        ("params", Value::List(vec![text(id.clone()), text(amount), Value::Int(seconds as i64 + 3)])),
        ("salt", Value::Int(run.id as i64).volatile()),
    ]);
    let response = Value::map([(column, text(id)), ("at", text(format!("http://127.0.0.1:{}/x", run.port)))]);
    run.exchange("INSERT orders", request, response);
}

fn usual(id: u64, unix_ns: u64, port: u16) -> Run {
    let mut run = Run::new(id, unix_ns, port);
    order(&mut run, "INSERT INTO orders VALUES (?, ?, ?)", "id", "5000.00");
    run
}

#[test]
fn ids_times_ports_and_salts_do_not_matter() {
    let a = usual(1, NEAR, 3306);
    let b = usual(99, NEAR + 400 * DAY, 41_234);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.strict(), b.strict());
    assert_ne!(a.digest(), a.strict(), "the policy is part of the digest");
    let canonical = of_cell(&a.entries, NEAR, Policy::Default);
    let shown = format!("{:?}", canonical.streams);
    assert!(
        shown.contains("<uuid 1>") && shown.contains("<unix-s>") && shown.contains("http://@db.main/x"),
        "{shown}"
    );
}

#[test]
fn near_identical_changes_matter() {
    let usual = usual(1, NEAR, 3306).digest();
    let sql = "INSERT INTO orders VALUES (?, ?, ?)";
    let with = |sql: &str, column: &str, amount: &str| {
        let mut run = Run::new(1, NEAR, 3306);
        order(&mut run, sql, column, amount);
        run.digest()
    };
    assert_eq!(usual, with(sql, "id", "5000.00"));
    assert_ne!(usual, with("INSERT INTO orders VALUES (?, ?, 1)", "id", "5000.00"), "another literal");
    assert_ne!(usual, with(sql, "order_id", "5000.00"), "another column");
    assert_ne!(usual, with(sql, "id", "5000.01"), "another amount");
    assert_ne!(usual, with(sql, "id", "5000"), "another spelling of the amount");
    let mut missing = Run::new(1, NEAR, 3306);
    missing.exchange("INSERT orders", Value::map([("sql", text(sql))]), Value::Null);
    assert_ne!(usual, missing.digest(), "a missing field");
    let mut more = self::usual(1, NEAR, 3306);
    order(&mut more, sql, "id", "5000.00");
    assert_ne!(usual, more.digest(), "one write more, although it is equal");
    assert_ne!(usual, Run::new(1, NEAR, 3306).digest(), "one write less");
}

#[test]
fn the_id_that_came_back_must_be_the_id_that_went_in() {
    let with = |back: u64| {
        let mut run = Run::new(1, NEAR, 3306);
        run.exchange("INSERT", text(uuid(5)), Value::Null);
        run.exchange("SELECT", text(uuid(5)), text(uuid(back)));
        run.digest()
    };
    assert_ne!(with(5), with(6));
    assert_eq!(with(6), with(7));
}

#[test]
fn order_matters_in_a_stream_and_not_between_streams() {
    let with = |calls: &[(&str, &str)]| {
        let mut run = Run::new(1, NEAR, 3306);
        calls.iter().for_each(|(key, request)| run.exchange(key, text(*request), Value::Null));
        run.digest()
    };
    assert_eq!(with(&[("a", "1"), ("b", "2")]), with(&[("b", "2"), ("a", "1")]));
    assert_ne!(with(&[("a", "1"), ("a", "2")]), with(&[("a", "2"), ("a", "1")]), "swapped calls");
}

#[test]
fn exchanges_that_overlap_have_no_order_and_those_that_do_not_have() {
    let with = |first: &str, second: &str, second_began: u64| {
        let mut run = Run::new(1, NEAR, 3306);
        run.overlapping("GET", text(first), Value::Null, 100, 200, Class::Work, false);
        run.overlapping("GET", text(second), Value::Null, second_began, 300, Class::Work, false);
        (run.digest(), run.strict())
    };
    assert_eq!(with("1", "2", 150).0, with("2", "1", 150).0);
    assert_ne!(with("1", "2", 150).1, with("2", "1", 150).1, "strict keeps the order of arrival");
    assert_ne!(with("1", "2", 200).0, with("2", "1", 200).0);
}

#[test]
fn overlapping_exchanges_that_look_alike_go_by_their_ids() {
    let with = |first: u64, second: u64| {
        let mut run = Run::new(1, NEAR, 3306);
        run.exchange("A", text(format!("{} then {}", uuid(7), uuid(8))), Value::Null);
        run.overlapping("GET", text(uuid(first)), Value::Null, 5100, 5200, Class::Work, false);
        run.overlapping("GET", text(uuid(second)), Value::Null, 5150, 5300, Class::Work, false);
        run.digest()
    };
    assert_eq!(with(7, 8), with(8, 7));
    assert_ne!(with(7, 8), with(7, 7));
}

#[test]
fn another_secret_does_not_match_and_is_no_repeat() {
    let token =
        |tag: &str| Value::map([("authorization", text(format!("Bearer <secret authorization#{tag}>")))]);
    assert!(bind(&token("00aa11bb"), &token("00aa11bb"), NEAR, NEAR).is_some());
    assert!(bind(&token("00aa11bb"), &token("00aa11bc"), NEAR, NEAR).is_none());
    let with = |tags: &[&str]| {
        let mut run = Run::new(1, NEAR, 3306);
        tags.iter().for_each(|tag| run.retry("GET", token(tag)));
        run.digest()
    };
    assert_eq!(with(&["00aa11bb"]), with(&["99aa11bb", "99aa11bb"]));
    assert_ne!(with(&["00aa11bb"]), with(&["00aa11bb", "00aa11bc"]));
}

#[test]
fn repeats_count_once_only_where_they_are_repeatable() {
    let with = |times: u64, repeatable: bool| {
        let mut run = Run::new(1, NEAR, 3306);
        for n in 0..times {
            // A retry bears another trace id.
            let trace = text(format!("00-{:032x}-{:016x}-01", 0xabc + n, 0xdef + n));
            let request = Value::map([("sql", text("SELECT 1")), ("traceparent", trace)]);
            if repeatable {
                run.retry("SELECT", request)
            } else {
                run.exchange("SELECT", request, Value::Null)
            }
        }
        run
    };
    assert_eq!(with(1, true).digest(), with(4, true).digest());
    assert_ne!(with(1, true).strict(), with(4, true).strict());
    assert_ne!(with(1, false).digest(), with(2, false).digest());
    let canonical = of_cell(&with(4, true).entries, NEAR, Policy::Default);
    assert_eq!(canonical.streams["api>db.main:SELECT"][0].repeats, 4);
}

#[test]
fn decisions_collapse_and_attempts_to_connect_are_counted() {
    let with = |keys: &[(&str, bool)]| {
        let mut run = Run::new(1, NEAR, 3306);
        keys.iter().for_each(|(key, fired)| run.decision(key, *fired));
        run
    };
    let one = with(&[("INSERT", true)]).digest();
    assert_eq!(one, with(&[("INSERT", true), ("INSERT", true)]).digest());
    assert_ne!(one, with(&[("INSERT", false)]).digest());
    assert_ne!(one, with(&[("INSERT", true), ("INSERT", false)]).digest());
    let noisy = with(&[("connection", true), ("INSERT", true), ("connect @db.main", true)]);
    assert_eq!(one, noisy.digest());
    assert_ne!(with(&[("INSERT", true)]).strict(), noisy.strict());
    assert_ne!(one, with(&[("INSERT", true), ("connected", true)]).digest());
}

#[test]
fn decisions_about_ambient_exchanges_are_ambient() {
    let mut quiet = Run::new(1, NEAR, 3306);
    let mut noisy = Run::new(1, NEAR, 3306);
    for run in [&mut quiet, &mut noisy] {
        run.exchange("SELECT", text("x"), Value::Null);
        run.decision("SELECT", true);
    }
    noisy.overlapping("PING", Value::Null, Value::Null, 1, 2, Class::Ambient, true);
    noisy.decision("PING", true);
    assert_eq!(quiet.digest(), noisy.digest());
}

#[test]
fn other_phases_are_not_digested() {
    let mut run = usual(1, NEAR, 3306);
    let before = run.digest();
    let mut entry = run.entries[1].clone();
    for phase in [Phase::Start, Phase::Tail] {
        entry.phase = phase;
        run.entries.push(entry.clone());
    }
    assert_eq!(before, run.digest());
}

#[test]
fn secrets_are_equal_whatever_the_salt() {
    let with = |salt: u8, first: &str, second: &str| {
        let mut run = Run::new(1, NEAR, 3306);
        for value in [first, second] {
            run.exchange(
                "GET",
                Value::map([("authorization", text(format!("Bearer {value}")))]),
                Value::Null,
            );
        }
        let redactor = Redactor::new(&[salt; 16], []);
        run.entries.iter_mut().for_each(|entry| redactor.entry(entry));
        run.digest()
    };
    assert_eq!(with(1, "hunter2", "hunter2"), with(2, "correct", "correct"));
    assert_ne!(with(1, "hunter2", "hunter2"), with(1, "hunter2", "correct"));
}

#[test]
fn verdict_reason_counts_without_its_durations() {
    assert_eq!(
        without_durations("took 5003ms (want < 5000ms)"),
        without_durations("took 5001.5ms (want < 5000ms)")
    );
    assert_eq!(without_durations("status_code=503 (want < 500)"), "status_code=503 (want < 500)");
    assert_eq!(without_durations("5s"), "<duration>");
    assert_eq!(without_durations("item 5stars"), "item 5stars");
}

fn kinds(value: &Value) -> Vec<Kind> {
    Scanner::new(NEAR).scan(value).into_iter().map(|generated| generated.kind).collect()
}

#[test]
fn each_generated_value_is_found_as_what_it_is() {
    let found = |s: &str| kinds(&text(s));
    assert_eq!(found("order 3f2504e0-4f89-41d3-9a0c-0305e82c3301 made"), [Kind::Uuid]);
    assert_eq!(found(r#"{"id":"3f2504e04f8941d39a0c0305e82c3301"}"#), [Kind::Uuid]);
    assert_eq!(found("2026-04-23T11:12:34.123456Z"), [Kind::Time]);
    assert_eq!(found("2026-04-23T13:12:34+02:00"), [Kind::Time]);
    assert_eq!(found("2026-04-23T11:12:34"), [Kind::DateTime]);
    assert_eq!(found("VALUES ('2026-04-23 11:12:34.5')"), [Kind::DateTime]);
    assert_eq!(found("day 2026-04-23"), [Kind::Date]);
    assert_eq!(found("Thu, 23 Apr 2026 11:12:36 GMT"), [Kind::HttpDate]);
    assert_eq!(found("orders:1776942754123:list"), [Kind::UnixMs]);
    assert_eq!(found("t=1776942754"), [Kind::UnixS]);
    assert_eq!(found("t=1776942754000111"), [Kind::UnixUs]);
    assert_eq!(found("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), [Kind::Trace, Kind::Span]);
    assert_eq!(kinds(&Value::Int(1_776_942_754_123)), [Kind::UnixMs]);
    assert_eq!(kinds(&Value::UInt(1_776_942_754_000_000_001)), [Kind::UnixNs]);
    let header = Value::map([("X-B3-TraceId", text("4bf92f3577b34da6a3ce929d0e0e4736"))]);
    assert_eq!(kinds(&header), [Kind::Trace]);
    let mut protobuf = vec![0x0a, 36];
    protobuf.extend_from_slice(uuid(3).as_bytes());
    protobuf.extend_from_slice(&[0x10, 0xff, 0x01]);
    assert_eq!(kinds(&Value::Bytes(protobuf)), [Kind::Uuid]);
    assert_eq!(
        kinds(&Value::Bytes(vec![
            0x3f, 0x25, 4, 0xe0, 0x4f, 0x89, 0x41, 0xd3, 0x9a, 0xc, 3, 5, 0xe8, 0x2c, 0x33, 1
        ])),
        [Kind::Uuid]
    );
}

#[test]
fn what_is_not_generated_is_left_alone() {
    for plain in [
        "5000.00",
        "169",
        "SELECT 1",
        "2020-01-01T00:00:00Z",
        "2100-01-01 00:00:00",
        "1577836800",
        "4102444800",
        "4111111111111111",
        "+49 1776942754999",
        "order-123",
        "deadbeef",
        "00000000-0000-0000-0000-000000000000",
        "eyJhbGciOiJSUzI1NiJ9.eyJpYXQiOjE3NzY5NDI3NTQsImp0aSI6IjNmMjUwNGUwIn0.c2ln-1776942754_3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "4bf92f3577b34da6a3ce929d0e0e473",
        "127.0.0.1:8080",
        "v1.2.3",
    ] {
        let value = text(plain);
        let found = kinds(&value);
        if plain.starts_with('+') {
            assert_eq!(found, [Kind::UnixMs], "a number that is the time cannot be told from it");
        } else {
            assert_eq!(found, [], "{plain}");
            assert_eq!(template(&value, NEAR), value);
        }
    }
    assert_eq!(kinds(&Value::Int(169)), []);
    assert_eq!(kinds(&Value::Int(500_000)), []);
}

#[test]
fn a_live_request_binds_to_its_recording_and_the_answer_follows() {
    let message = |id: u64, ns: u64| {
        Value::map([
            ("sql", text(format!("INSERT INTO o VALUES ('{}', 169)", uuid(id)))),
            ("ms", Value::Int((ns / 1_000_000) as i64)),
            ("content-length", text(format!("{}", id * 37))),
        ])
    };
    let later = NEAR + 30 * DAY;
    let (recorded, live) = (message(1, NEAR), message(2, later + 5_000_000));
    let pairs = bind(&recorded, &live, NEAR, later).expect("equal up to generated values");
    assert_eq!(pairs[0], (uuid(1), uuid(2)));
    let answer = Value::map([
        (
            "rows",
            Value::List(vec![
                text(uuid(1).to_uppercase()),
                Value::Int((NEAR / 1_000_000) as i64),
                Value::Int(169),
            ]),
        ),
        ("raw", Value::Bytes([b"\x0a\x24", uuid(1).as_bytes(), b"\xff"].concat())),
    ]);
    let sent = substitute(&answer, &pairs);
    let rows = sent.get("rows").and_then(Value::as_list).expect("rows");
    assert_eq!(rows[0], text(uuid(2).to_uppercase()));
    assert_eq!(rows[1], Value::Int(((later + 5_000_000) / 1_000_000) as i64));
    assert_eq!(rows[2], Value::Int(169));
    assert_eq!(sent.get("raw"), Some(&Value::Bytes([b"\x0a\x24", uuid(2).as_bytes(), b"\xff"].concat())));
    assert!(bind(&recorded, &text("other"), NEAR, later).is_none());
}

#[test]
fn numbers_are_not_replaced_inside_longer_numbers() {
    let pairs = [("1776942754".to_owned(), "1779534754".to_owned())];
    assert_eq!(substitute(&text("1776942754123 1776942754"), &pairs), text("1776942754123 1779534754"));
}

proptest! {
    #[test]
    fn any_message_matches_itself(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_one(&bytes);
    }

    #[test]
    fn other_ids_never_matter_and_other_words_always_do(
        a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), before in "[a-z ]{0,12}", after in "[a-z '\",]{0,12}", word in "[a-z]{1,8}",
    ) {
        let id = |bytes: [u8; 16]| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
        };
        // A letter before or after may be a hexadecimal digit: then it is no UUID.
        let message = |id: String| text(format!("{before} {id}{}{after}", ' '));
        let (one, two) = (message(id(a)), message(id(b)));
        prop_assert_eq!(template(&one, NEAR), template(&two, NEAR));
        let pairs = bind(&one, &two, NEAR, NEAR).unwrap();
        prop_assert_eq!(substitute(&one, &pairs), two.clone());
        let other = text(format!("{}{word}", two.as_text().unwrap()));
        prop_assert_ne!(template(&one, NEAR), template(&other, NEAR));
    }

    #[test]
    fn times_near_the_run_are_holes_and_others_are_not(offset in -2_000_000_000i64..2_000_000_000) {
        let seconds = (NEAR / 1_000_000_000) as i64 + offset;
        let expected: &[Kind] = if offset.abs() <= 86_400 { &[Kind::UnixS] } else { &[] };
        prop_assert_eq!(kinds(&Value::Int(seconds)), expected);
    }
}
