//! Proxy, server and replay together, under a real client library.

use super::PROTOCOL;
use super::command::of;
use super::serve::serve;
use super::value;
use crate::clock::RunClock;
use crate::event_sink::{EventSink, MemorySink};
use crate::fault::ActiveFaults;
use crate::fault::rule::{Assumption, Effect, Fields, Matcher, Modifiers, Pattern, Rule, Target};
use crate::journal::Journal;
use crate::link::{Answer, BoxFuture, Conversation, Dial, Link, Request, Responder, Stream};
use crate::oracle::SeededOracle;
use crate::protocol::Protocol;
use crate::protocol::testing::rule_of;
use crate::standin::{StandIn, StandInOptions};
use crate::step::{StepCall, StepResponse};
use crate::virtual_time::Time;
use faultbox_bundle_format::{Body, Class, Exchange, Outcome, RuleHit, Value};
use redis::AsyncCommands;
use redis::aio::{ConnectionManager, MultiplexedConnection};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::tokio_stream::StreamExt;

/// A guard against hanging; no test depends on its length.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("this hangs")
}

/// Connections to a stand-in in this process.
struct Direct(Arc<dyn StandIn>, AtomicU64);

impl Dial for Direct {
    fn dial(&self) -> BoxFuture<'_, io::Result<Stream>> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let number = self.1.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(self.0.serve(Box::new(theirs), number));
        Box::pin(async { Ok(Box::new(ours) as Stream) })
    }
}

/// A stand-in behind a proxy, or a bundle in its place.
struct Rig {
    port: u16,
    sink: Arc<MemorySink>,
    faults: Arc<ActiveFaults>,
    dial: Option<Arc<dyn Dial>>,
    link: Arc<Link>,
    server: tokio::task::JoinHandle<()>,
    _data: tempfile::TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Rig {
    async fn live() -> Self {
        let data = tempfile::tempdir().unwrap();
        let options = StandInOptions {
            data: data.path().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            env: BTreeMap::new(),
        };
        let dial: Arc<dyn Dial> =
            Arc::new(Direct(crate::standin::redis::open(options).unwrap(), AtomicU64::new(1)));
        Self::over(data, Some(dial), None).await
    }

    async fn through(dial: Arc<dyn Dial>) -> Self {
        Self::over(tempfile::tempdir().unwrap(), Some(dial), None).await
    }

    async fn replay(recorded: Vec<Exchange>) -> Self {
        let recorded = Arc::new(Recorded::new(recorded));
        Self::over(tempfile::tempdir().unwrap(), None, Some(recorded)).await
    }

    async fn over(
        data: tempfile::TempDir,
        dial: Option<Arc<dyn Dial>>,
        recorded: Option<Arc<Recorded>>,
    ) -> Self {
        let sink = Arc::new(MemorySink::default());
        let to: Arc<dyn EventSink> = sink.clone();
        let journal = Arc::new(Journal::new(to, RunClock::start(), Arc::default(), 1, "cell"));
        let faults = ActiveFaults::new(journal.clone(), Arc::new(SeededOracle::new(1)), "api");
        let some = Some(faults.clone());
        let link = Link::new(
            "cache.main",
            "redis",
            "api",
            "127.0.0.1:1",
            Arc::default(),
            journal,
            some,
            Arc::default(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (served, upstream) = (link.clone(), dial.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (link, upstream, recorded) = (served.clone(), upstream.clone(), recorded.clone());
                tokio::spawn(async move {
                    match (upstream, recorded) {
                        (Some(upstream), _) => PROTOCOL.proxy(Box::new(stream), upstream, link).await,
                        (None, Some(recorded)) => PROTOCOL.serve(Box::new(stream), link, recorded).await,
                        (None, None) => Ok(()),
                    }
                });
            }
        });
        Rig { port, sink, faults, dial, link, server, _data: data }
    }

    fn client(&self, resp3: bool) -> redis::Client {
        let query = if resp3 { "?protocol=resp3" } else { "" };
        redis::Client::open(format!("redis://127.0.0.1:{}/{query}", self.port)).unwrap()
    }

    async fn connect(&self, resp3: bool) -> MultiplexedConnection {
        soon(self.client(resp3).get_multiplexed_async_connection()).await.unwrap()
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    fn fault(&self, effect: Effect, matchers: &[(&str, &str)]) {
        self.fault_with(effect, matchers, Modifiers::default());
    }

    fn fault_with(&self, effect: Effect, matchers: &[(&str, &str)], modifiers: Modifiers) {
        let matchers = matchers.iter().map(|(field, glob)| Matcher {
            field: (*field).to_owned(),
            pattern: Pattern { glob: (*glob).to_owned(), case_sensitive: true },
        });
        let rule = Rule {
            matchers: matchers.collect(),
            source: None,
            share: None,
            modifiers,
            effect,
            words: "rule".to_owned(),
        };
        PROTOCOL.check_rule(&rule).unwrap();
        self.faults.activate(Arc::new(Assumption {
            name: "bad".to_owned(),
            description: String::new(),
            target: Some(Target { service: "cache".to_owned(), interface: Some("main".to_owned()) }),
            rules: vec![rule],
            syscalls: Vec::new(),
            parts: Vec::new(),
        }));
    }

    fn exchanges(&self) -> Vec<Exchange> {
        let entries = self.sink.entries().into_iter();
        entries.filter_map(|entry| if let Body::Exchange(e) = entry.body { Some(e) } else { None }).collect()
    }

    fn work(&self) -> Vec<Exchange> {
        self.exchanges().into_iter().filter(|e| e.class == Class::Work).collect()
    }

    async fn step(&self, verb: &str, arguments: &[(&str, Value)]) -> StepResponse {
        let call = StepCall {
            service: "cache".to_owned(),
            interface: "main".to_owned(),
            verb: verb.to_owned(),
            arguments: arguments.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
            timeout: None,
            location: String::new(),
        };
        soon(PROTOCOL.step(self.dial.clone().unwrap(), self.link.clone(), &call)).await
    }
}

/// A bundle, as simple as it can be: recorded answers by key and content, first in first out.
#[derive(Clone)]
struct Recorded(Arc<Mutex<Vec<Exchange>>>);

impl Recorded {
    fn new(mut recorded: Vec<Exchange>) -> Self {
        recorded.retain(|e| e.class == Class::Work);
        Recorded(Arc::new(Mutex::new(recorded)))
    }
}

impl Responder for Recorded {
    fn converse(&self, _: &str, _: u64) -> Arc<dyn Conversation> {
        Arc::new(self.clone())
    }
}

impl Conversation for Recorded {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        let mut queue = self.0.lock().unwrap();
        let body = request.body.stable();
        let same = |e: &Exchange| e.key == request.key && e.request.value().unwrap().stable() == body;
        let answer = match queue.iter().position(same) {
            None => Answer::Unknown,
            Some(at) => match queue.remove(at) {
                Exchange { outcome: Outcome::Answered, response: Some(response), .. } => {
                    Answer::Reply(response.value().unwrap())
                }
                Exchange { outcome: Outcome::OneWay, .. } => Answer::Nothing,
                _ => Answer::Cut,
            },
        };
        Box::pin(async move { (answer, None) })
    }
}

fn cmd(words: &str) -> redis::Cmd {
    let mut words = words.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    for word in words {
        cmd.arg(word);
    }
    cmd
}

const EXERCISE: &str = "SET order:3f2504e0-4f89-41d3-9a0c-0305e82c3301 x EX 1000
GET order:3f2504e0-4f89-41d3-9a0c-0305e82c3301
TTL order:3f2504e0-4f89-41d3-9a0c-0305e82c3301
GET nothing
INCR n
INCR n
INCRBYFLOAT n 0.5
APPEND s abc
LPUSH list a b c
LRANGE list 0 -1
LPOP list 2
LPOP none 2
BLPOP list 0
BLPOP list 0.01
HSET h f 1 g 2
HGETALL h
HMGET h f zzz
SADD set m1 m2
SMEMBERS set
SISMEMBER set m1
ZADD z 1.5 a 2 b
ZSCORE z a
ZRANGE z 0 -1 WITHSCORES
LPUSH s no
EVAL return 0
DBSIZE
KEYS *
SCAN 0 MATCH h*
TYPE z
EXISTS h s none
ECHO hello
OBJECT ENCODING h
CONFIG GET maxmemory
DEL h s
RENAME none other
SET nx 1 NX
SET nx 2 NX
PING
EXPIRE nx 1000";

/// Everything that a client sees, in words.
async fn exercise(rig: &Rig, resp3: bool) -> Vec<String> {
    let mut seen = Vec::new();
    let mut connection = rig.connect(resp3).await;
    for words in EXERCISE.lines() {
        let reply: redis::RedisResult<redis::Value> = soon(cmd(words).query_async(&mut connection)).await;
        seen.push(format!("{words} -> {reply:?}"));
    }
    let mut pipe = redis::pipe();
    for n in 0..20 {
        pipe.cmd("SET").arg(format!("p:{n}")).arg(vec![255u8, n]).cmd("GET").arg(format!("p:{n}"));
    }
    let reply: redis::RedisResult<redis::Value> = soon(pipe.query_async(&mut connection)).await;
    seen.push(format!("{reply:?}"));
    let mut atomic = redis::pipe();
    atomic.atomic().incr("n2", 1).cmd("PTTL").arg("nx").hset("h2", "f", "v").cmd("HGETALL").arg("h2");
    let reply: redis::RedisResult<redis::Value> = soon(atomic.query_async(&mut connection)).await;
    seen.push(format!("{reply:?}"));
    let mut bad = redis::pipe();
    bad.atomic().incr("n2", 1).cmd("NOSUCH").arg("nx");
    let reply: redis::RedisResult<redis::Value> = soon(bad.query_async(&mut connection)).await;
    seen.push(format!("{reply:?}"));
    seen
}

#[tokio::test]
async fn a_client_sees_the_same_from_a_bundle() {
    for resp3 in [false, true] {
        let live = Rig::live().await;
        let seen = exercise(&live, resp3).await;
        for (part, want) in [("GET order", "x"), ("LPOP list 2", "c"), ("EVAL", "not supported")] {
            assert!(
                seen.iter().any(|line| line.starts_with(part) && line.contains(want)),
                "{part}: {seen:#?}"
            );
        }
        let recorded = live.exchanges();
        let replay = Rig::replay(recorded.clone()).await;
        let again = exercise(&replay, resp3).await;
        assert_eq!(again, seen, "resp3={resp3}");
        let stable = |e: &Exchange| {
            (e.key.clone(), e.class, e.outcome, e.mutating, e.request.value().unwrap().stable())
        };
        let requests: Vec<_> = live.work().iter().map(stable).collect();
        assert_eq!(replay.work().iter().map(stable).collect::<Vec<_>>(), requests);
        let responses = |rig: &Rig| -> Vec<Value> {
            rig.work()
                .iter()
                .filter_map(|e| e.response.as_ref())
                .map(|r| r.value().unwrap().stable())
                .collect()
        };
        assert_eq!(responses(&replay), responses(&live));
        assert!(recorded.iter().any(|e| e.key == "GET order:{}"));
        let poll = recorded.iter().filter(|e| e.operation == "BLPOP").map(|e| e.class).collect::<Vec<_>>();
        assert_eq!(poll, [Class::Work, Class::Ambient], "an empty poll is ambient");
        assert!(recorded.iter().any(|e| e.operation == "CLIENT SETINFO" && e.class == Class::Control));
    }
}

#[tokio::test]
async fn messages_are_pushed_live_and_from_a_bundle() {
    let listen = async |rig: &Rig, publish: bool| {
        let mut pubsub = soon(rig.client(false).get_async_pubsub()).await.unwrap();
        soon(pubsub.subscribe("news")).await.unwrap();
        soon(pubsub.psubscribe("ne*")).await.unwrap();
        if publish {
            let mut other = rig.connect(false).await;
            for n in 0..3 {
                let reached: i64 = soon(other.publish("news", n)).await.unwrap();
                assert_eq!(reached, 2);
            }
        }
        let mut seen = Vec::new();
        let mut messages = pubsub.on_message();
        while seen.len() < 6 {
            let message = soon(messages.next()).await.unwrap();
            seen.push((message.get_channel_name().to_owned(), message.get_payload::<String>().unwrap()));
        }
        drop(messages);
        soon(pubsub.unsubscribe("news")).await.unwrap();
        seen
    };
    let live = Rig::live().await;
    let seen = listen(&live, true).await;
    let replay = Rig::replay(live.exchanges()).await;
    assert_eq!(listen(&replay, false).await, seen);
    let pushes = |rig: &Rig| -> Vec<Value> {
        let pushes = rig.work().into_iter().filter(|e| e.key == "push news ne*");
        pushes.map(|e| e.response.unwrap().value().unwrap()).collect()
    };
    assert_eq!(pushes(&live).len(), 6);
    assert_eq!(pushes(&replay), pushes(&live));
}

#[tokio::test]
async fn version_3_pushes_share_a_connection_with_commands() {
    let rig = Rig::live().await;
    let (sender, mut pushes) = tokio::sync::mpsc::unbounded_channel();
    let config = redis::AsyncConnectionConfig::new().set_push_sender(sender);
    let client = rig.client(true);
    let mut connection = soon(client.get_multiplexed_async_connection_with_config(&config)).await.unwrap();
    soon(connection.subscribe("a")).await.unwrap();
    let _: () = soon(connection.set("k", "v")).await.unwrap();
    let reached: i64 = soon(connection.publish("a", "hi")).await.unwrap();
    assert_eq!(reached, 1);
    let kinds = [soon(pushes.recv()).await.unwrap().kind, soon(pushes.recv()).await.unwrap().kind];
    assert_eq!(kinds, [redis::PushKind::Subscribe, redis::PushKind::Message]);
    let value: String = soon(connection.get("k")).await.unwrap();
    assert_eq!(value, "v");
    soon(connection.unsubscribe("a")).await.unwrap();
    let value: String = soon(connection.get("k")).await.unwrap();
    assert_eq!(value, "v");
}

fn error(message: &str) -> Effect {
    Effect::Error(Fields(vec![("message".to_owned(), message.into())]))
}

fn response(value: Value) -> Effect {
    Effect::Respond(Fields(vec![("value".to_owned(), value)]))
}

#[tokio::test]
async fn rules_answer_in_the_protocols_own_words() {
    let rig = Rig::live().await;
    let mut connection = rig.connect(true).await;
    let _: () = soon(connection.set("k", "real")).await.unwrap();
    rig.fault(error("LOADING Redis is loading"), &[("command", "GET")]);
    // In a pipeline the answer made here takes its place between the server's.
    let mut pipe = redis::pipe();
    pipe.cmd("STRLEN").arg("k").cmd("GET").arg("k").cmd("EXISTS").arg("k");
    let reply: redis::RedisResult<(i64, String, i64)> = soon(pipe.query_async(&mut connection)).await;
    let refused = reply.unwrap_err();
    assert_eq!(refused.code(), Some("LOADING"));
    let refused = soon(connection.get::<_, String>("k")).await.unwrap_err();
    assert_eq!(refused.kind(), redis::ErrorKind::Server(redis::ServerErrorKind::BusyLoading));
    assert_eq!(soon(connection.strlen::<_, i64>("k")).await.unwrap(), 4);
    rig.fault(response(Value::map([("a", Value::Int(1))])), &[("key", "k")]);
    let map: BTreeMap<String, i64> = soon(cmd("HGETALL k").query_async(&mut connection)).await.unwrap();
    assert_eq!(map, BTreeMap::from([("a".to_owned(), 1)]));
    rig.fault(response(Value::Null), &[("key", "k*")]);
    assert_eq!(soon(connection.get::<_, Option<String>>("k")).await.unwrap(), None);
    rig.faults.deactivate();
    assert_eq!(soon(connection.get::<_, String>("k")).await.unwrap(), "real");
    let fired = rig.work().into_iter().filter(|e| e.rule.is_some()).count();
    assert_eq!(fired, 4);
}

#[tokio::test]
async fn drop_cuts_after_what_came_before() {
    let rig = Rig::live().await;
    rig.fault(Effect::Drop, &[("command", "get")]);
    let mut raw = rig.raw().await;
    raw.write_all(b"SET a 1\r\nGET a\r\nSET a 2\r\n").await.unwrap();
    let mut seen = Vec::new();
    let _ = soon(raw.read_to_end(&mut seen)).await;
    assert_eq!(String::from_utf8_lossy(&seen), "+OK\r\n");
    rig.faults.deactivate();
    let mut manager = soon(ConnectionManager::new(rig.client(false))).await.unwrap();
    assert_eq!(soon(manager.get::<_, i64>("a")).await.unwrap(), 1, "what came after the cut never arrived");
    rig.fault(Effect::Drop, &[]);
    assert!(soon(manager.get::<_, i64>("a")).await.unwrap_err().is_connection_dropped());
    let outcomes: Vec<_> =
        rig.exchanges().into_iter().filter(|e| e.operation == "GET").map(|e| e.outcome).collect();
    assert_eq!(outcomes[..2], [Outcome::Dropped, Outcome::Answered]);
}

#[tokio::test]
async fn a_delay_holds_its_own_connection_and_ends_with_the_fault() {
    let rig = Rig::live().await;
    let mut slow = rig.connect(false).await;
    let mut quick = rig.connect(false).await;
    let hour = Duration::from_secs(3600);
    rig.fault(Effect::Delay(hour), &[("command", "INCR*")]);
    let incr = tokio::spawn(async move { slow.incr::<_, _, i64>("n", 1).await });
    // It was forwarded at once; only its answer is held.
    soon(async {
        while quick.get::<_, Option<i64>>("n").await.unwrap() != Some(1) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!incr.is_finished());
    rig.faults.deactivate();
    assert_eq!(soon(incr).await.unwrap().unwrap(), 1);
    // A client that goes away abandons what it waits for.
    rig.fault(Effect::Delay(hour), &[("command", "INCR*")]);
    let mut raw = rig.raw().await;
    raw.write_all(b"INCR n\r\n").await.unwrap();
    soon(async {
        while quick.get::<_, Option<i64>>("n").await.unwrap() != Some(2) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(raw);
    soon(async {
        while !rig.exchanges().iter().any(|e| e.outcome == Outcome::Abandoned) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn transactions_meet_rules_as_redis_would() {
    for resp3 in [false, true] {
        let rig = Rig::live().await;
        let mut connection = rig.connect(resp3).await;
        let mut atomic = redis::pipe();
        atomic.atomic().incr("a", 1).cmd("GET").arg("b").incr("c", 1);
        rig.fault(error("OOM no memory"), &[("command", "GET")]);
        let refused: redis::RedisResult<redis::Value> = soon(atomic.query_async(&mut connection)).await;
        assert!(refused.unwrap_err().to_string().contains("OOM"));
        rig.fault(response("made up".into()), &[("key", "b")]);
        let results: (i64, String, i64) = soon(atomic.query_async(&mut connection)).await.unwrap();
        assert_eq!(results, (1, "made up".to_owned(), 1), "the aborted one changed nothing");
        rig.fault(error("READONLY no"), &[("command", "EXEC")]);
        let refused: redis::RedisResult<redis::Value> = soon(atomic.query_async(&mut connection)).await;
        assert!(refused.is_err(), "{refused:?}");
        rig.faults.deactivate();
        assert_eq!(soon(connection.get::<_, i64>("a")).await.unwrap(), 1);
        let exec =
            rig.work().into_iter().filter(|e| e.operation == "EXEC").map(|e| e.key).collect::<Vec<_>>();
        assert_eq!(exec, ["EXEC [INCRBY a; GET b; INCRBY c]"; 3]);
    }
}

#[tokio::test]
async fn a_duplicate_reaches_the_server_twice_and_the_client_once() {
    let rig = Rig::live().await;
    let mut connection = rig.connect(false).await;
    rig.fault(Effect::Duplicate, &[("command", "INCR*")]);
    assert_eq!(soon(connection.incr::<_, _, i64>("n", 1)).await.unwrap(), 1);
    assert_eq!(soon(connection.get::<_, i64>("n")).await.unwrap(), 2);
}

#[tokio::test]
async fn answers_can_be_slow_damaged_or_cut_short() {
    let rig = Rig::live().await;
    let mut connection = rig.connect(false).await;
    let _: () = soon(connection.set("k", "abcdefgh")).await.unwrap();
    rig.fault(Effect::Slow { bytes_per_second: 1000 }, &[("command", "GET")]);
    assert_eq!(soon(connection.get::<_, String>("k")).await.unwrap(), "abcdefgh");
    rig.fault(Effect::Corrupt, &[("command", "GET")]);
    assert_eq!(soon(connection.get::<_, String>("k")).await.unwrap(), "abcddfgh");
    rig.fault(Effect::ResetAfter { bytes: 9 }, &[("command", "GET")]);
    let mut raw = rig.raw().await;
    raw.write_all(b"GET k\r\n").await.unwrap();
    let mut seen = Vec::new();
    let _ = soon(raw.read_to_end(&mut seen)).await;
    assert_eq!(String::from_utf8_lossy(&seen), "$8\r\nabcde");
    let damaged = rig.work().into_iter().filter(|e| e.operation == "GET").nth(1).unwrap();
    assert_eq!(damaged.response.unwrap().value().unwrap(), "abcddfgh".into());
}

/// An upstream that says what it is told and keeps what it hears.
struct Script(Mutex<Option<tokio::io::DuplexStream>>);

impl Script {
    fn open() -> (Arc<dyn Dial>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        (Arc::new(Script(Mutex::new(Some(ours)))), theirs)
    }
}

impl Dial for Script {
    fn dial(&self) -> BoxFuture<'_, io::Result<Stream>> {
        let stream = self.0.lock().unwrap().take();
        Box::pin(async move {
            match stream {
                Some(stream) => Ok(Box::new(stream) as Stream),
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

async fn hears(stream: &mut (impl AsyncReadExt + Unpin), bytes: &str) {
    let mut seen = vec![0; bytes.len()];
    soon(stream.read_exact(&mut seen)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), bytes);
}

#[tokio::test]
async fn what_is_not_resp_passes_unread() {
    let (dial, mut server) = Script::open();
    let rig = Rig::through(dial).await;
    let mut client = rig.raw().await;
    client.write_all(b"PING\r\n*1\r\n:what\r\nGET a\r\n").await.unwrap();
    hears(&mut server, "PING\r\n*1\r\n:what\r\nGET a\r\n").await;
    server.write_all(b"+PONG\r\n\x00\x01garbage").await.unwrap();
    hears(&mut client, "+PONG\r\n\x00\x01garbage").await;
    client.write_all(b"more").await.unwrap();
    hears(&mut server, "more").await;
    let operations: Vec<_> = rig.exchanges().into_iter().map(|e| e.operation).collect();
    assert_eq!(operations, ["undecodable", "PING"]);
}

#[tokio::test]
async fn server_bytes_that_are_not_resp_pass_too() {
    let (dial, mut server) = Script::open();
    let rig = Rig::through(dial).await;
    let mut client = rig.raw().await;
    client.write_all(b"GET a\r\n").await.unwrap();
    hears(&mut server, "GET a\r\n").await;
    server.write_all(b"HTTP/1.1 400\r\n").await.unwrap();
    hears(&mut client, "HTTP/1.1 400\r\n").await;
    client.write_all(b"GET b\r\n").await.unwrap();
    hears(&mut server, "GET b\r\n").await;
    server.write_all(b"x").await.unwrap();
    hears(&mut client, "x").await;
}

#[tokio::test]
async fn monitors_half_closed_and_silenced_connections_pass() {
    let (dial, mut server) = Script::open();
    let rig = Rig::through(dial).await;
    let mut client = rig.raw().await;
    client.write_all(b"GET a\r\nMONITOR\r\n").await.unwrap();
    hears(&mut server, "GET a\r\nMONITOR\r\n").await;
    server.write_all(b"$1\r\nx\r\n+OK\r\n+1.2 [0 127.0.0.1:1] \"GET\"\r\n").await.unwrap();
    hears(&mut client, "$1\r\nx\r\n+OK\r\n+1.2 [0 127.0.0.1:1] \"GET\"\r\n").await;

    let rig = Rig::live().await;
    let mut client = rig.raw().await;
    client.write_all(b"\r\nSET a 1\r\nCLIENT REPLY SKIP\r\nSET a 2\r\nGET a\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let mut seen = Vec::new();
    soon(client.read_to_end(&mut seen)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), "+OK\r\n$1\r\n2\r\n");
    let outcomes: Vec<_> = rig.work().into_iter().map(|e| e.outcome).collect();
    assert!(outcomes.contains(&Outcome::OneWay));
}

#[tokio::test]
async fn a_server_that_goes_away_fails_what_it_owes() {
    let (dial, mut server) = Script::open();
    let rig = Rig::through(dial).await;
    let mut client = rig.raw().await;
    client.write_all(b"GET a\r\n").await.unwrap();
    hears(&mut server, "GET a\r\n").await;
    drop(server);
    let mut seen = Vec::new();
    let _ = soon(client.read_to_end(&mut seen)).await;
    assert_eq!(rig.work()[0].outcome, Outcome::Failed);
    // And one that cannot be reached fails what is asked first.
    let mut client = rig.raw().await;
    client.write_all(b"GET b\r\n").await.unwrap();
    let _ = soon(client.read_to_end(&mut seen)).await;
    assert!(seen.is_empty());
    assert_eq!(rig.work()[1].outcome, Outcome::Failed);
}

#[tokio::test]
async fn huge_values_and_deep_pipelines_pass() {
    let rig = Rig::live().await;
    let mut connection = rig.connect(false).await;
    let huge = vec![7u8; 8 << 20];
    let _: () = soon(connection.set("huge", &huge)).await.unwrap();
    assert!(soon(connection.get::<_, Vec<u8>>("huge")).await.unwrap() == huge);
    // A client that reads nothing until it has written everything.
    let mut raw = rig.raw().await;
    let commands = "INCR n\r\n".repeat(20_000);
    soon(raw.write_all(commands.as_bytes())).await.unwrap();
    let mut seen = Vec::new();
    raw.shutdown().await.unwrap();
    soon(raw.read_to_end(&mut seen)).await.unwrap();
    assert!(seen.ends_with(b":20000\r\n"));
}

#[tokio::test]
async fn steps_and_readiness() {
    let rig = Rig::live().await;
    let key = || ("key", Value::text("k"));
    assert!(rig.step("set", &[key(), ("value", "v".into())]).await.ok);
    assert_eq!(rig.step("get", &[key()]).await.data, "v".into());
    rig.step("hset", &[("key", "h".into()), ("mapping", Value::map([("f", Value::Int(1))]))]).await;
    assert_eq!(rig.step("hgetall", &[("key", "h".into())]).await.data, Value::map([("f", Value::text("1"))]));
    let failed = rig.step("lpush", &[key(), ("value", "x".into())]).await;
    assert!(!failed.ok && failed.error.unwrap().starts_with("WRONGTYPE"));
    let args = Value::List(vec!["STRLEN".into(), "k".into()]);
    assert_eq!(rig.step("command", &[("args", args)]).await.data, Value::Int(1));
    assert!(rig.step("get", &[]).await.error.unwrap().contains("key"));
    let stream = rig.dial.as_ref().unwrap().dial().await.unwrap();
    soon(PROTOCOL.ready(stream, rig.link.clone())).await.unwrap();
    let (dial, mut server) = Script::open();
    server.write_all(b"-LOADING wait\r\n").await.unwrap();
    let refused = PROTOCOL.ready(dial.dial().await.unwrap(), rig.link.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("LOADING"));
}

/// What a mock would do: answers one command, knows nothing else.
struct OnlyGet;

impl Responder for OnlyGet {
    fn converse(&self, _: &str, _: u64) -> Arc<dyn Conversation> {
        Arc::new(OnlyGet)
    }
}

impl Conversation for OnlyGet {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        let known = request.operation == "GET";
        let answer =
            if known { Answer::Reply(value::map(vec!["a".into(), Value::Null])) } else { Answer::Unknown };
        Box::pin(async move { (answer, None) })
    }
}

#[tokio::test]
async fn a_server_answers_sessions_itself_and_cuts_what_nobody_knows() {
    let (mut client, theirs) = tokio::io::duplex(1 << 16);
    let link = Link::unobserved("cache.main", "redis", "", Default::default(), &Time::default());
    let served = tokio::spawn(serve(Box::new(theirs), link, Arc::new(OnlyGet)));
    client.write_all(b"PING\r\nSELECT 99\r\nHELLO 9\r\nGET a\r\nCLIENT SETNAME me\r\n").await.unwrap();
    hears(&mut client, "+PONG\r\n-ERR DB index is out of range\r\n-NOPROTO unsupported protocol version\r\n")
        .await;
    hears(&mut client, "*2\r\n$1\r\na\r\n$-1\r\n+OK\r\n").await;
    client.write_all(b"HELLO 3\r\nCLIENT GETNAME\r\nGET a\r\nBLPOP q 0.01\r\nSET a 1\r\n").await.unwrap();
    let mut seen = Vec::new();
    soon(client.read_to_end(&mut seen)).await.unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.starts_with("%7\r\n$6\r\nserver\r\n"), "{seen}");
    assert!(seen.ends_with("$2\r\nme\r\n%1\r\n$1\r\na\r\n_\r\n_\r\n"), "{seen}");
    assert!(soon(served).await.unwrap().is_err());
}

#[test]
fn secrets_never_reach_the_journal() {
    let mut session = super::session::Session::default();
    let request = session.ask(&of(&["CONFIG", "SET", "requirepass", "hunter22"])).request;
    assert!(!format!("{request:?}").contains("hunter22"));
}

#[tokio::test]
async fn each_recipe_is_an_error_that_the_client_knows() {
    let rig = Rig::live().await;
    let mut connection = rig.connect(false).await;
    for (recipe, code) in [
        ("out_of_memory", "OOM"),
        ("read_only_replica", "READONLY"),
        ("loading", "LOADING"),
        ("snapshot_failed", "MISCONF"),
        ("busy_script", "BUSY"),
    ] {
        let rule = rule_of("redis", Some(recipe), &format!("{recipe}(command = \"SET\")"));
        rig.faults.activate(Arc::new(Assumption {
            name: recipe.to_owned(),
            description: String::new(),
            target: Some(Target { service: "cache".to_owned(), interface: None }),
            rules: vec![rule],
            syscalls: Vec::new(),
            parts: Vec::new(),
        }));
        let refused: redis::RedisResult<()> = soon(connection.set("k", "v")).await;
        assert_eq!(refused.unwrap_err().code(), Some(code), "{recipe}");
        let read: redis::RedisResult<Option<String>> = soon(connection.get("k")).await;
        assert_eq!(read.unwrap(), None, "{recipe}");
    }
}
