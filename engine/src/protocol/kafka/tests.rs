//! Real clients through proxy, stand-in and replay.

use super::*;
use crate::clock::RunClock;
use crate::event_sink::MemorySink;
use crate::fault::rule::{Assumption, Effect, Fields, Matcher, Modifiers, Pattern, Rule, Target};
use crate::fault::ActiveFaults;
use crate::journal::Journal;
use crate::link::{Answer, Conversation, InterfaceOptions, Request};
use crate::oracle::SeededOracle;
use crate::standin::{StandIn, StandInOptions};
use faultbox_bundle_format::{Body, Class, Exchange, Outcome, RuleHit, Value};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const GUARD: Duration = Duration::from_secs(30);

struct Tcp(String);

impl Dial for Tcp {
    fn dial(&self) -> BoxFuture<'_, std::io::Result<Stream>> {
        Box::pin(async { Ok(Box::new(TcpStream::connect(&self.0).await?) as Stream) })
    }
}

/// Whatever takes connections at a port of its own; can refuse and cut.
struct Port {
    addr: String,
    refuse: Arc<AtomicBool>,
    tasks: Arc<Mutex<JoinSet<()>>>,
    accept: tokio::task::JoinHandle<()>,
}

impl Port {
    async fn open<F>(make: impl FnOnce(&str) -> F) -> Port
    where
        F: Fn(Stream, u64) -> BoxFuture<'static, ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let serve = make(&addr);
        let (refuse, tasks) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(JoinSet::new())));
        let (refusing, taken) = (refuse.clone(), tasks.clone());
        let accept = tokio::spawn(async move {
            for number in 1.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                if !refusing.load(Ordering::SeqCst) {
                    taken.lock().unwrap().spawn(serve(Box::new(stream), number));
                }
            }
        });
        Port { addr, refuse, tasks, accept }
    }

    fn cut(&self) {
        self.tasks.lock().unwrap().abort_all();
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.accept.abort();
        self.cut();
    }
}

fn options(folder: &tempfile::TempDir, env: &[(&str, &str)]) -> StandInOptions {
    StandInOptions {
        data: folder.path().to_owned(),
        listen: "127.0.0.1:9".parse().unwrap(),
        env: env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
    }
}

async fn broker(standin: Arc<dyn StandIn>) -> Port {
    Port::open(|_| move |stream, number| standin.serve(stream, number)).await
}

struct Recorded {
    sink: Arc<MemorySink>,
    journal: Arc<Journal>,
    faults: Arc<ActiveFaults>,
}

impl Recorded {
    fn new() -> Self {
        let sink = Arc::new(MemorySink::default());
        let journal = Arc::new(Journal::new(sink.clone(), RunClock::start(), Arc::default(), 1, "cell"));
        let faults = ActiveFaults::new(journal.clone(), Arc::new(SeededOracle::new(1)), "api");
        Recorded { sink, journal, faults }
    }

    fn link(&self, advertised: &str) -> Arc<Link> {
        let faults = Some(self.faults.clone());
        let options = Arc::new(InterfaceOptions::default());
        Link::new("bus.main", "kafka", "api", advertised, options, self.journal.clone(), faults, Arc::default())
    }

    fn exchanges(&self, operation: &str) -> Vec<Exchange> {
        let body = |entry: faultbox_bundle_format::Entry| match entry.body {
            Body::Exchange(exchange) if exchange.operation == operation => Some(exchange),
            _ => None,
        };
        self.sink.entries().into_iter().filter_map(body).collect()
    }

    fn activate(&self, rules: Vec<Rule>) {
        self.faults.activate(Arc::new(Assumption {
            name: "a".into(),
            description: String::new(),
            target: Some(Target { service: "bus".into(), interface: None }),
            rules,
            syscalls: Vec::new(),
            parts: Vec::new(),
        }));
    }

    async fn proxy(&self, broker: &Port) -> Port {
        let upstream: Arc<dyn Dial> = Arc::new(Tcp(broker.addr.clone()));
        Port::open(|addr| {
            let link = self.link(addr);
            move |stream, _| {
                let carried = PROTOCOL.proxy(stream, upstream.clone(), link.clone());
                Box::pin(async move { drop(carried.await) })
            }
        })
        .await
    }

    /// A server that answers with these exchanges, as a replay does.
    async fn replay(&self, exchanges: Vec<Exchange>) -> Port {
        let tape: Arc<dyn Responder> = Arc::new(Tape(Arc::new(Mutex::new(queues(exchanges)))));
        Port::open(|addr| {
            let link = self.link(addr);
            move |stream, _| {
                let served = PROTOCOL.serve(stream, link.clone(), tape.clone());
                Box::pin(async move { drop(served.await) })
            }
        })
        .await
    }
}

fn rule(matchers: &[(&str, &str)], effect: Effect, modifiers: Modifiers) -> Rule {
    let matcher = |(field, glob): &(&str, &str)| Matcher {
        field: field.to_string(),
        pattern: Pattern { glob: glob.to_string(), case_sensitive: true },
    };
    Rule { matchers: matchers.iter().map(matcher).collect(), source: None, modifiers, effect, words: "rule".into() }
}

fn error(code: &str) -> Effect {
    Effect::Error(Fields(vec![("code".into(), Value::text(code))]))
}

type Queues = BTreeMap<String, VecDeque<(Value, Answer)>>;

fn queues(exchanges: Vec<Exchange>) -> Queues {
    let mut queues = Queues::new();
    for exchange in exchanges {
        let answer = match exchange.outcome {
            Outcome::Answered => Answer::Reply(exchange.response.unwrap().value().unwrap()),
            Outcome::OneWay => Answer::Nothing,
            _ => continue,
        };
        let request = exchange.request.value().unwrap().stable();
        queues.entry(exchange.key).or_default().push_back((request, answer));
    }
    queues
}

#[derive(Clone)]
struct Tape(Arc<Mutex<Queues>>);

impl Responder for Tape {
    fn converse(&self, _: &str, _: u64) -> Arc<dyn Conversation> {
        Arc::new(self.clone())
    }
}

impl Conversation for Tape {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        let mut queues = self.0.lock().unwrap();
        let queue = queues.entry(request.key.clone()).or_default();
        let mut blank = request.body.stable();
        forget_time(&mut blank);
        let same = |(recorded, _): &(Value, Answer)| {
            let mut recorded = recorded.clone();
            forget_time(&mut recorded);
            recorded == blank
        };
        let found = queue.iter().position(same).and_then(|at| queue.remove(at));
        let answer = found.map_or(Answer::Unknown, |(_, answer)| answer);
        Box::pin(async { (answer, None) })
    }
}

/// Timestamps are generated values: the real tape unifies them.
fn forget_time(value: &mut Value) {
    match value {
        Value::Map(fields) => {
            for (name, value) in fields {
                if name == "timestamp" {
                    *value = Value::Null;
                }
                forget_time(value);
            }
        }
        Value::List(items) => items.iter_mut().for_each(forget_time),
        _ => {}
    }
}

fn producer(addr: &str, more: &[(&str, &str)]) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", addr).set("linger.ms", "0").set("reconnect.backoff.ms", "10");
    config.set("reconnect.backoff.max.ms", "50").set("retry.backoff.ms", "10");
    more.iter().for_each(|(k, v)| drop(config.set(*k, *v)));
    config.create().unwrap()
}

fn consumer(addr: &str, group: &str, topics: &[&str]) -> StreamConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", addr).set("group.id", group).set("auto.offset.reset", "earliest");
    config.set("enable.auto.commit", "false").set("reconnect.backoff.ms", "10").set("reconnect.backoff.max.ms", "50");
    config.set("topic.metadata.refresh.interval.ms", "200").set("allow.auto.create.topics", "true");
    config.set("fetch.wait.max.ms", "100").set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "100");
    let consumer: StreamConsumer = config.create().unwrap();
    consumer.subscribe(topics).unwrap();
    consumer
}

async fn send(producer: &FutureProducer, topic: &str, key: &str, value: &str) -> Result<i64, KafkaError> {
    let headers = OwnedHeaders::new().insert(Header { key: "h", value: Some("1") }).insert(Header { key: "h", value: Some("2") });
    let record = FutureRecord::to(topic).key(key).payload(value).headers(headers);
    let sent = tokio::time::timeout(GUARD, producer.send(record, GUARD)).await.expect("a delivery report");
    sent.map(|delivery| delivery.offset).map_err(|(error, _)| error)
}

async fn next(consumer: &StreamConsumer) -> (String, String, i64) {
    loop {
        let message = tokio::time::timeout(GUARD, consumer.recv()).await.expect("a message");
        // A topic in the making and a broker that is away are said as errors, and pass.
        let Ok(message) = message else { continue };
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
        return (text(message.key()), text(message.payload()), message.offset());
    }
}

/// Sends three events, reads them in a group, commits; what the client saw.
async fn business(addr: &str) -> Vec<(String, String, i64)> {
    let producer = producer(addr, &[("enable.idempotence", "true"), ("acks", "all")]);
    let mut seen = Vec::new();
    for n in 0..3 {
        let offset = send(&producer, "orders.events", &format!("k{n}"), &format!("event {n}")).await.unwrap();
        seen.push(("sent".to_owned(), n.to_string(), offset));
    }
    let consumer = consumer(addr, "readers", &["orders.events"]);
    for _ in 0..3 {
        seen.push(next(&consumer).await);
    }
    consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    let committed = consumer.committed(GUARD).unwrap();
    let offset = committed.find_partition("orders.events", 0).unwrap().offset();
    seen.push(("committed".into(), String::new(), offset.to_raw().unwrap()));
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_client_does_the_same_against_the_stand_in_and_its_recording() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing answers at the advertised address: only behind the proxy can this work.
    let env = [("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://127.0.0.1:1")];
    let broker = broker(crate::standin::kafka::open(options(&folder, &env)).unwrap()).await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&broker).await;
    let seen = business(&proxy.addr).await;
    let expected = |n: i64| (format!("k{n}"), format!("event {n}"), n);
    assert_eq!(seen[3..6], [expected(0), expected(1), expected(2)]);
    assert_eq!(seen[6].2, 3);

    let produced = recording.exchanges("Produce");
    assert_eq!(produced.len(), 3);
    let body = produced[1].request.value().unwrap();
    let record = body.get("topics").unwrap().as_list().unwrap()[0].get("partitions").unwrap().as_list().unwrap()[0]
        .get("records").unwrap().as_list().unwrap()[0].clone();
    assert_eq!(record.get("key").unwrap().as_text(), Some("k1"));
    assert_eq!(record.get("value").unwrap().as_text(), Some("event 1"));
    assert_eq!(record.get("headers").unwrap().as_list().unwrap().len(), 2);
    assert!(produced.iter().all(|e| e.key == "Produce orders.events" && e.class == Class::Work && e.mutating));
    assert!(recording.exchanges("Fetch").iter().all(|e| e.class == Class::Ambient));
    for operation in ["ApiVersions", "Metadata", "FindCoordinator", "JoinGroup", "SyncGroup", "InitProducerId"] {
        assert!(!recording.exchanges(operation).is_empty(), "{operation}");
    }
    let exchanges: Vec<_> = recording.sink.entries().into_iter().filter_map(|entry| match entry.body {
        Body::Exchange(exchange) => Some(exchange),
        _ => None,
    }).collect();
    drop((proxy, broker));

    let replaying = Recorded::new();
    let server = replaying.replay(exchanges).await;
    assert_eq!(business(&server.addr).await, seen);
    let requests = |recorded: &Recorded| {
        let stable = |e: &Exchange| {
            let mut value = e.request.value().unwrap().stable();
            forget_time(&mut value);
            (e.key.clone(), value)
        };
        recorded.exchanges("Produce").iter().map(stable).collect::<Vec<_>>()
    };
    assert_eq!(requests(&replaying), requests(&recording));
}
