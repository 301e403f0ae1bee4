//! A real client through the proxy to the stand-in, recorded, and the same client against
//! the recording.

use super::PROTOCOL;
use crate::clock::RunClock;
use crate::event_sink::MemorySink;
use crate::fault::active::ActiveFaults;
use crate::fault::rule::{Assumption, Effect, Fields, Matcher, Modifiers, Pattern, Rule, Target};
use crate::journal::Journal;
use crate::link::{
    Answer, BoxFuture, Conversation, Dial, InterfaceOptions, Link, Request, Responder, Stream,
};
use crate::oracle::SeededOracle;
use crate::protocol::testing::rule_of;
use crate::protocol::{Protocol, ProtocolError};
use crate::standin::{StandIn, StandInOptions, mysql};
use crate::step::StepCall;
use faultbox_bundle_format::{Body, Class, Exchange, Outcome, Phase, RuleHit, Value};
use mysql_async::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct To(pub SocketAddr);

impl Dial for To {
    fn dial(&self) -> BoxFuture<'_, std::io::Result<Stream>> {
        Box::pin(async { Ok(Box::new(TcpStream::connect(self.0).await?) as Stream) })
    }
}

/// Listens and hands every connection to `each`; a cut resets the connection.
pub(crate) async fn listen<F>(each: impl Fn(Stream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = Result<(), ProtocolError>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(Box::new(stream)));
        }
    });
    address
}

pub(crate) fn env() -> BTreeMap<String, String> {
    [("MYSQL_ROOT_PASSWORD", "test"), ("MYSQL_DATABASE", "appdb")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

pub(crate) async fn standin(data: &std::path::Path) -> (Arc<dyn StandIn>, SocketAddr) {
    let listen_on = "127.0.0.1:0".parse().expect("address");
    let options = StandInOptions { data: data.to_owned(), listen: listen_on, env: env() };
    let server = mysql::open(options).expect("stand-in");
    let serving = server.clone();
    let address = listen(move |stream| {
        let served = serving.serve(stream, 0);
        async move {
            served.await;
            Ok(())
        }
    })
    .await;
    (server, address)
}

pub(crate) struct Watched {
    pub address: SocketAddr,
    pub sink: Arc<MemorySink>,
    pub faults: Arc<ActiveFaults>,
    pub link: Arc<Link>,
}

fn watched(
    protocol_link: impl Fn(Arc<Journal>, Arc<ActiveFaults>) -> Arc<Link>,
) -> (Arc<MemorySink>, Arc<ActiveFaults>, Arc<Link>) {
    let sink = Arc::new(MemorySink::default());
    let journal = Arc::new(Journal::new(sink.clone(), RunClock::start(), Arc::default(), 1, "cell"));
    journal.enter(Phase::Scenario);
    let faults = ActiveFaults::new(journal.clone(), Arc::new(SeededOracle::new(1)), "api");
    let link = protocol_link(journal, faults.clone());
    (sink, faults, link)
}

fn link(journal: Arc<Journal>, faults: Arc<ActiveFaults>) -> Arc<Link> {
    let options = InterfaceOptions { env: env(), ..InterfaceOptions::default() };
    Link::new("db.main", "mysql", "api", "db:3306", Arc::new(options), journal, Some(faults), Arc::default())
}

pub(crate) async fn proxied(to: SocketAddr) -> Watched {
    let (sink, faults, link) = watched(link);
    let carried = link.clone();
    let address = listen(move |stream| PROTOCOL.proxy(stream, Arc::new(To(to)), carried.clone())).await;
    Watched { address, sink, faults, link }
}

fn exchanges(sink: &MemorySink) -> Vec<Exchange> {
    let body = |entry: faultbox_bundle_format::Entry| match entry.body {
        Body::Exchange(exchange) => Some(exchange),
        _ => None,
    };
    sink.entries().into_iter().filter_map(body).collect()
}

/// Answers work from a recording, by key, first in first out; knows nothing else.
struct Recorded(Mutex<BTreeMap<String, VecDeque<Exchange>>>);

impl Responder for Recorded {
    fn converse(&self, _: &str, _: u64) -> Arc<dyn Conversation> {
        unreachable!("the tests share one conversation")
    }
}

struct Shared(Arc<Recorded>);

impl Responder for Shared {
    fn converse(&self, _: &str, _: u64) -> Arc<dyn Conversation> {
        self.0.clone()
    }
}

impl Conversation for Recorded {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        let found = self.0.lock().expect("lock").get_mut(&request.key).and_then(VecDeque::pop_front);
        let answer = match found {
            Some(exchange) if exchange.outcome == Outcome::Answered => {
                Answer::Reply(exchange.response.and_then(|r| r.value()).expect("a response"))
            }
            Some(_) => Answer::Cut,
            None => Answer::Unknown,
        };
        Box::pin(async move { (answer, None) })
    }
}

async fn replayed(recording: &[Exchange]) -> (SocketAddr, Arc<MemorySink>) {
    let mut queues: BTreeMap<String, VecDeque<Exchange>> = BTreeMap::new();
    for exchange in recording.iter().filter(|e| e.class == Class::Work) {
        queues.entry(exchange.key.clone()).or_default().push_back(exchange.clone());
    }
    let responder = Arc::new(Recorded(Mutex::new(queues)));
    let (sink, _, link) = watched(link);
    let address =
        listen(move |stream| PROTOCOL.serve(stream, link.clone(), Arc::new(Shared(responder.clone())))).await;
    (address, sink)
}

pub(crate) fn pool(address: SocketAddr) -> mysql_async::Pool {
    mysql_async::Pool::new(format!("mysql://root:test@{address}/appdb").as_str())
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS orders (
    id BIGINT NOT NULL AUTO_INCREMENT, uuid CHAR(36) NOT NULL, customer VARCHAR(64) NOT NULL,
    price DECIMAL(12,2) NOT NULL, status VARCHAR(16) NOT NULL DEFAULT 'open', ratio DOUBLE NULL,
    note VARCHAR(20) NULL, data VARBINARY(16) NULL, created_at DATETIME(6) NOT NULL,
    PRIMARY KEY (id), UNIQUE KEY orders_uuid (uuid), KEY orders_customer (customer, created_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4; -- seed; of two rows
INSERT INTO orders (id, uuid, customer, price, created_at) VALUES
    (1, 'u1', 'user-1', 4200.00, '2024-03-01 08:30:00.000000'),
    (2, 'u;2', 'user-1', 3900.50, '2024-03-02 17:05:12.250000')
ON DUPLICATE KEY UPDATE status = VALUES(status);";

type Row = (i64, String, String, String, Option<f64>, Option<String>, Option<Vec<u8>>, mysql_async::Value);

/// What a service does; the texts of what it saw.
async fn drive(address: SocketAddr) -> Vec<String> {
    let pool = pool(address);
    let mut seen = Vec::new();
    let mut conn = pool.get_conn().await.expect("connect");
    let one: Option<i64> = conn.query_first("SELECT 1").await.expect("select 1");
    seen.push(format!("{one:?}"));
    let insert = "INSERT INTO orders (uuid, customer, price, ratio, note, data, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let when = mysql_async::Value::Date(2024, 5, 6, 7, 8, 9, 123_456);
    let params = ("u3", "user-2", "7000.10", 0.25f64, Option::<String>::None, b"\xff\x00x".to_vec(), when);
    conn.exec_drop(insert, params).await.expect("insert");
    seen.push(format!("{:?} {}", conn.last_insert_id(), conn.affected_rows()));
    let select = "SELECT id, uuid, customer, price, ratio, note, data, created_at FROM orders WHERE price > ? ORDER BY id";
    let rows: Vec<Row> = conn.exec(select, (3950,)).await.expect("select");
    seen.push(format!("{rows:?}"));
    let rows: Vec<Row> = conn.query("SELECT id, uuid, customer, price, ratio, note, data, created_at FROM orders ORDER BY id DESC LIMIT 2").await.expect("text");
    seen.push(format!("{rows:?}"));
    let again = conn
        .exec_drop(
            "INSERT INTO orders (uuid, customer, price, created_at) VALUES (?, 'x', 1, NOW(6))",
            ("u3",),
        )
        .await;
    seen.push(format!("{:?}", again.expect_err("duplicate")));
    let mut tx = conn.start_transaction(mysql_async::TxOpts::default()).await.expect("begin");
    tx.query_drop("UPDATE orders SET status = 'done' WHERE id IN (1, 2)").await.expect("update");
    seen.push(tx.affected_rows().to_string());
    tx.rollback().await.expect("rollback");
    let mut results = conn
        .query_iter("SELECT status FROM orders WHERE id = 1; SELECT count(*), sum(price) FROM orders")
        .await
        .expect("two");
    let first: Vec<String> = results.collect().await.expect("first");
    let second: Vec<(i64, String)> = results.collect().await.expect("second");
    drop(results);
    seen.push(format!("{first:?} {second:?}"));
    let missing: Result<Vec<i64>, _> = conn.query("SELECT id FROM nowhere").await;
    seen.push(format!("{:?}", missing.expect_err("missing")));
    conn.ping().await.expect("ping");
    drop(conn);
    // A second connection of the pool, reset by it.
    let mut conn = pool.get_conn().await.expect("again");
    let two: Option<i64> = conn.query_first("SELECT 1 + 1").await.expect("select");
    seen.push(format!("{two:?}"));
    drop(conn);
    pool.disconnect().await.expect("disconnect");
    seen
}

fn step(verb: &str, sql: &str) -> StepCall {
    StepCall {
        service: "db".into(),
        interface: "main".into(),
        verb: verb.into(),
        arguments: vec![("sql".into(), Value::text(sql))],
        timeout: None,
        location: String::new(),
    }
}

async fn seeded(data: &std::path::Path) -> (Arc<dyn StandIn>, SocketAddr) {
    let (server, address) = standin(data).await;
    let (_, _, link) = watched(link);
    let response = PROTOCOL.step(Arc::new(To(address)), link, &step("exec", SCHEMA)).await;
    assert!(response.ok, "{response:?}");
    (server, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_replays() {
    let data = tempfile::tempdir().expect("tempdir");
    let (server, upstream) = seeded(data.path()).await;
    server.snapshot().expect("snapshot");
    let direct = drive(upstream).await;
    assert!(direct[2].contains("7000.10") && direct[2].contains("2024-05-06 07:08:09.123456"), "{direct:#?}");
    assert!(
        direct[4].contains("1062") && direct[4].contains("'u3' for key 'orders.orders_uuid'"),
        "{direct:#?}"
    );
    assert_eq!(direct[1], "Some(3) 1");
    assert_eq!(direct[5], "2");
    assert!(direct[6].contains(r#"["open"] [(3, "15100.60")]"#), "{direct:#?}");
    assert!(direct[7].contains("1146"), "{direct:#?}");
    server.restore().expect("restore");

    let proxy = proxied(upstream).await;
    let through = drive(proxy.address).await;
    assert_eq!(through, direct);
    let recorded = exchanges(&proxy.sink);
    let work = |list: &[Exchange]| -> Vec<(String, Value, bool)> {
        let work = list.iter().filter(|e| e.class == Class::Work);
        work.map(|e| (e.key.clone(), e.request.value().expect("value").stable(), e.mutating)).collect()
    };
    assert!(recorded.iter().any(|e| e.operation == "START" && e.class == Class::Work), "{recorded:#?}");
    assert!(recorded.iter().all(|e| e.outcome != Outcome::Abandoned && e.outcome != Outcome::Failed));

    let (replay, sink) = replayed(&recorded).await;
    let again = drive(replay).await;
    assert_eq!(again, direct);
    assert_eq!(work(&exchanges(&sink)), work(&recorded));
}

fn rule(matchers: &[(&str, &str)], effect: Effect) -> Rule {
    let matcher = |(field, glob): &(&str, &str)| Matcher {
        field: (*field).to_owned(),
        pattern: Pattern { glob: (*glob).to_owned(), case_sensitive: false },
    };
    Rule {
        matchers: matchers.iter().map(matcher).collect(),
        source: None,
        share: None,
        modifiers: Modifiers::default(),
        effect,
        words: "rule".into(),
    }
}

fn activate(faults: &ActiveFaults, rules: Vec<Rule>) {
    for rule in &rules {
        PROTOCOL.check_rule(rule).expect("a rule that can be carried out");
    }
    faults.activate(Arc::new(Assumption {
        name: "fault".into(),
        description: String::new(),
        target: Some(Target { service: "db".into(), interface: Some("main".into()) }),
        rules,
        syscalls: Vec::new(),
        parts: Vec::new(),
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_act_with_the_protocols_own_codes() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, upstream) = seeded(data.path()).await;
    let proxy = proxied(upstream).await;
    let pool = pool(proxy.address);
    let mut conn = pool.get_conn().await.expect("connect");
    let fields = Fields(vec![("errno".into(), Value::Int(1213))]);
    let row = Value::map([("id", Value::Int(7)), ("name", Value::text("x"))]);
    let answer = Fields(vec![("rows".into(), Value::List(vec![row]))]);
    activate(
        &proxy.faults,
        vec![
            rule(&[("table", "orders"), ("query", "update*")], Effect::Error(fields)),
            rule(&[("query", "select name from nowhere where a = ?")], Effect::Respond(answer)),
            rule(&[("query", "select 2")], Effect::Drop),
        ],
    );
    let error =
        conn.exec_drop("UPDATE orders SET status = ? WHERE id = 1", ("x",)).await.expect_err("deadlock");
    match error {
        mysql_async::Error::Server(e) => assert_eq!((e.code, e.state.as_str()), (1213, "40001")),
        other => panic!("{other}"),
    }
    let row: Option<(i64, String)> =
        conn.query_first("SELECT name FROM nowhere  WHERE a = 5").await.expect("answer");
    assert_eq!(row, Some((7, "x".to_owned())));
    let status: Option<String> =
        conn.exec_first("SELECT status FROM orders WHERE id = ?", (1,)).await.expect("select");
    assert_eq!(status.as_deref(), Some("open"));
    assert!(matches!(conn.query_drop("SELECT 2").await, Err(mysql_async::Error::Io(_))));
    proxy.faults.deactivate();

    let mut conn = pool.get_conn().await.expect("connect");
    let delay = Duration::from_millis(300);
    activate(&proxy.faults, vec![rule(&[], Effect::Delay(delay))]);
    // A delay that is over by the end of the fault: only what the journal says counts.
    conn.query_drop("SELECT 3").await.expect("late");
    conn.query_drop("BEGIN").await.expect("not delayed");
    let list = exchanges(&proxy.sink);
    let of = |key: &str| list.iter().rev().find(|e| e.key == key).expect("exchange").clone();
    let late = of("select ?");
    assert!(late.ended_ns - late.began_ns >= 300_000_000 && late.rule.is_some());
    assert!(of("begin").rule.is_none() && of("begin").class == Class::Work);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_up_is_abandoned() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, upstream) = seeded(data.path()).await;
    let proxy = proxied(upstream).await;
    let mut conn = mysql_async::Conn::from_url(format!("mysql://root:test@{}/appdb", proxy.address))
        .await
        .expect("connect");
    activate(&proxy.faults, vec![rule(&[], Effect::Delay(Duration::from_secs(3600)))]);
    let waiting = tokio::time::timeout(Duration::from_millis(100), conn.query_drop("SELECT 4"));
    assert!(waiting.await.is_err());
    drop(conn);
    let abandoned = async {
        while !exchanges(&proxy.sink).iter().any(|e| e.outcome == Outcome::Abandoned && e.key == "select ?") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), abandoned).await.expect("abandoned");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_plugins_and_both_ways_of_authentication() {
    for full_authentication in [false, true] {
        let passwords = BTreeMap::from([("root".to_owned(), "test".to_owned())]);
        let accounts = super::serve::Accounts { passwords: Some(passwords), full_authentication };
        let (_, _, link) = watched(link);
        let responder = Arc::new(Shared(Arc::new(Recorded(Mutex::default()))));
        let upstream = listen(move |stream| {
            super::serve::run(stream, link.clone(), responder.clone(), accounts.clone())
        })
        .await;
        let proxy = proxied(upstream).await;
        for address in [upstream, proxy.address] {
            let mut conn = mysql_async::Conn::from_url(format!("mysql://root:test@{address}/appdb"))
                .await
                .expect("connect");
            conn.ping().await.expect("ping");
            let wrong = mysql_async::Conn::from_url(format!("mysql://root:nope@{address}/appdb")).await;
            assert!(matches!(wrong, Err(mysql_async::Error::Server(e)) if e.code == 1045));
        }
        // Our own client, too.
        let response =
            PROTOCOL.ready(To(proxy.address).dial().await.expect("dial"), proxy.link.clone()).await;
        assert!(response.is_ok(), "{response:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_tell_rows_and_errors() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, upstream) = seeded(data.path()).await;
    let proxy = proxied(upstream).await;
    let ask = |call: StepCall| {
        let link = proxy.link.clone();
        async move { PROTOCOL.step(Arc::new(To(proxy.address)), link, &call).await }
    };
    let rows = ask(step("query", "SELECT id, price, created_at FROM orders WHERE id = 2")).await;
    let row = Value::map([
        ("id", Value::Int(2)),
        ("price", Value::text("3900.50")),
        ("created_at", Value::text("2024-03-02 17:05:12.250000")),
    ]);
    assert_eq!(rows.data, Value::List(vec![row]));
    let mut call = step("query", "SELECT count(*) AS n FROM orders WHERE uuid = ? AND id > ?");
    call.arguments.push(("params".into(), Value::List(vec![Value::text("u1"), Value::Int(0)])));
    assert_eq!(ask(call).await.data, Value::List(vec![Value::map([("n", Value::Int(1))])]));
    let failed = ask(step("exec", "INSERT INTO orders (uuid, customer, price, created_at) VALUES ('u9','a;b',1,NOW()); INSERT INTO nowhere VALUES (1); SELECT 1")).await;
    assert_eq!((failed.ok, failed.status), (false, 1146));
    assert!(
        failed
            .error
            .as_deref()
            .is_some_and(|e| e.contains("doesn't exist") && e.contains("INSERT INTO nowhere")),
        "{failed:?}"
    );
}

#[test]
fn rules_that_cannot_be_carried_out_are_refused() {
    let fields = |name: &str, value: Value| Fields(vec![(name.to_owned(), value)]);
    for refused in [
        rule(&[("path", "/x")], Effect::Drop),
        rule(&[], Effect::Error(fields("status_code", Value::Int(503)))),
        rule(&[], Effect::Error(fields("errno", Value::Int(0)))),
        rule(&[], Effect::Error(fields("sqlstate", Value::text("4000")))),
        rule(&[], Effect::Respond(fields("rows", Value::Int(1)))),
        rule(&[], Effect::Corrupt),
    ] {
        assert!(PROTOCOL.check_rule(&refused).is_err(), "{refused:?}");
    }
}

mod codec {
    use super::super::fuzz_one;
    use super::super::result::{Column, Reader, Shape, encode, error_value, flags, ok_value, types};
    use super::super::rules::result_set;
    use super::super::wire::{put_message, take_message};
    use bytes::BytesMut;
    use faultbox_bundle_format::Value;
    use proptest::prelude::*;

    fn cell() -> impl Strategy<Value = (Column, Value)> {
        let of = |kind: u8| Column::plain("c", kind);
        prop_oneof![
            any::<i64>().prop_map(move |n| (of(types::LONGLONG), Value::Int(n))),
            any::<i32>().prop_map(move |n| (of(types::LONG), Value::Int(i64::from(n)))),
            any::<i8>().prop_map(move |n| (of(types::TINY), Value::Int(i64::from(n)))),
            (1u64 << 63..u64::MAX).prop_map(move |n| {
                (Column { flags: flags::UNSIGNED, ..of(types::LONGLONG) }, Value::UInt(n))
            }),
            (-1e9f32..1e9).prop_map(move |n| (of(types::FLOAT), Value::Float(f64::from(n)))),
            (-1e300..1e300).prop_map(move |n: f64| (of(types::DOUBLE), Value::Float(n))),
            ".{0,300}".prop_map(move |s| (of(types::VAR_STRING), Value::Text(s))),
            (1000..9999, 1..12, 1..28)
                .prop_map(move |(y, m, d)| (of(types::DATE), Value::Text(format!("{y}-{m:02}-{d:02}")))),
            (1000..9999, 0..59, 0..999_999).prop_map(move |(y, s, f)| {
                (of(types::DATETIME), Value::Text(format!("{y}-01-02 03:04:{s:02}.{f:06}")))
            }),
            (0..838, 1..59, 0..999_999).prop_map(move |(h, s, f)| (
                of(types::TIME),
                Value::Text(format!("-{h:02}:04:{s:02}.{f:06}"))
            )),
            Just((of(types::LONG), Value::Null)),
        ]
    }

    fn read(messages: &[Vec<u8>], shape: Shape, capabilities: u32) -> Value {
        let mut reader = Reader::new(shape, capabilities, Default::default());
        for (index, message) in messages.iter().enumerate() {
            let done = reader.feed(message).expect("a message");
            assert_eq!(done, index + 1 == messages.len());
        }
        reader.finish()
    }

    proptest! {
        #[test]
        fn answers_round_trip(cells in proptest::collection::vec(cell(), 1..12), rows in 0usize..4, eof: bool, tail: bool) {
            let (columns, cells): (Vec<Column>, Vec<Value>) = cells.into_iter().unzip();
            let set = result_set(&columns, vec![cells; rows]);
            let last = if tail { ok_value(3, 1 << 40, 2, 1, "") } else { error_value(1213, "40001", "no") };
            let answer = Value::map([("results", Value::List(vec![set, last]))]);
            let capabilities = if eof { 0 } else { super::super::handshake::caps::DEPRECATE_EOF };
            prop_assert_eq!(read(&encode(&answer, Shape::Binary, capabilities, 0), Shape::Binary, capabilities), answer.clone());
            // In text form every cell is text; from there on it is stable.
            let text = read(&encode(&answer, Shape::Text, capabilities, 0), Shape::Text, capabilities);
            prop_assert_eq!(read(&encode(&text, Shape::Text, capabilities, 0), Shape::Text, capabilities), text);
        }

        #[test]
        fn segments_do_not_matter(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..5)) {
            let mut bytes = Vec::new();
            for payload in &payloads {
                put_message(&mut bytes, &mut 0, payload);
            }
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for byte in bytes {
                buffer.extend_from_slice(&[byte]);
                while let Some(message) = take_message(&mut buffer).expect("message") {
                    got.push(message.payload.to_vec());
                }
            }
            prop_assert_eq!(got, payloads);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), first in 0u8..=0x20) {
            fuzz_one(&bytes);
            let mut command = vec![first];
            command.extend(&bytes);
            fuzz_one(&command);
        }
    }

    #[test]
    fn long_messages_travel_in_frames() {
        for len in [0xff_fffe, 0xff_ffff, 0x100_0000] {
            let payload = vec![7; len];
            let (mut bytes, mut seq) = (Vec::new(), 3);
            put_message(&mut bytes, &mut seq, &payload);
            let mut buffer = BytesMut::from(&bytes[..]);
            let message = take_message(&mut buffer).expect("message").expect("whole");
            assert_eq!((message.payload.len(), buffer.len()), (len, 0));
            assert_eq!(message.seq.wrapping_add(1), seq);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipe_is_an_error_that_the_driver_knows() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, upstream) = seeded(data.path()).await;
    let proxy = proxied(upstream).await;
    let pool = pool(proxy.address);
    let mut conn = pool.get_conn().await.expect("connect");
    for (recipe, code, state) in [
        ("deadlock", 1213, "40001"),
        ("lock_wait_timeout", 1205, "HY000"),
        ("too_many_connections", 1040, "08004"),
        ("read_only", 1290, "HY000"),
        ("disk_full", 1021, "HY000"),
        ("query_interrupted", 1317, "70100"),
    ] {
        let mut rule = rule_of("mysql", Some(recipe), &format!("{recipe}(query = \"update*\", times = 1)"));
        // Counters are kept by name.
        rule.words = recipe.to_owned();
        let name = format!("fault {recipe}");
        proxy.faults.activate(Arc::new(Assumption {
            name,
            description: String::new(),
            target: Some(Target { service: "db".into(), interface: None }),
            rules: vec![rule],
            syscalls: Vec::new(),
            parts: Vec::new(),
        }));
        let update = "UPDATE orders SET status = 'x' WHERE id = 1";
        match conn.query_drop(update).await.expect_err(recipe) {
            mysql_async::Error::Server(e) => {
                assert_eq!((e.code, e.state.as_str()), (code, state), "{recipe}")
            }
            other => panic!("{recipe}: {other}"),
        }
        conn.query_drop(update).await.expect("the second time");
    }
}
