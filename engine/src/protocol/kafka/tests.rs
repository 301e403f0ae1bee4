//! Real clients through proxy, stand-in and replay.

use super::*;
use crate::clock::RunClock;
use crate::event_sink::MemorySink;
use crate::fault::ActiveFaults;
use crate::fault::rule::{Assumption, Effect, Fields, Matcher, Modifiers, Pattern, Rule, Target};
use crate::journal::Journal;
use crate::link::{Answer, Conversation, InterfaceOptions, Request};
use crate::oracle::SeededOracle;
use crate::protocol::testing::rule_of;
use crate::standin::{StandIn, StandInOptions};
use faultbox_bundle_format::{Body, Class, Decision, Exchange, Outcome, RuleHit, Value};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
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
        Link::new(
            "bus.main",
            "kafka",
            "api",
            advertised,
            options,
            self.journal.clone(),
            faults,
            Arc::default(),
        )
    }

    fn exchanges(&self, operation: &str) -> Vec<Exchange> {
        let body = |entry: faultbox_bundle_format::Entry| match entry.body {
            Body::Exchange(exchange) if exchange.operation == operation => Some(exchange),
            _ => None,
        };
        self.sink.entries().into_iter().filter_map(body).collect()
    }

    fn decisions(&self) -> Vec<Decision> {
        let body = |entry: faultbox_bundle_format::Entry| match entry.body {
            Body::Decision(decision) => Some(decision),
            _ => None,
        };
        self.sink.entries().into_iter().filter_map(body).collect()
    }

    fn activate(&self, rules: Vec<Rule>) {
        // Counters are kept by name.
        let name = format!("a{}", self.journal.position());
        self.faults.activate(Arc::new(Assumption {
            name,
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
    Rule {
        matchers: matchers.iter().map(matcher).collect(),
        source: None,
        share: None,
        modifiers,
        effect,
        words: "rule".into(),
    }
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
    more.iter().for_each(|(k, v)| {
        config.set(*k, *v);
    });
    config.create().unwrap()
}

fn consumer(addr: &str, group: &str, topics: &[&str]) -> StreamConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", addr).set("group.id", group).set("auto.offset.reset", "earliest");
    config
        .set("enable.auto.commit", "false")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "50");
    config.set("topic.metadata.refresh.interval.ms", "200").set("allow.auto.create.topics", "true");
    config
        .set("fetch.wait.max.ms", "100")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "100");
    let consumer: StreamConsumer = config.create().unwrap();
    consumer.subscribe(topics).unwrap();
    consumer
}

async fn send(producer: &FutureProducer, topic: &str, key: &str, value: &str) -> Result<i64, KafkaError> {
    let headers = OwnedHeaders::new()
        .insert(Header { key: "h", value: Some("1") })
        .insert(Header { key: "h", value: Some("2") });
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
    let record =
        body.get("topics").unwrap().as_list().unwrap()[0].get("partitions").unwrap().as_list().unwrap()[0]
            .get("records")
            .unwrap()
            .as_list()
            .unwrap()[0]
            .clone();
    assert_eq!(record.get("key").unwrap().as_text(), Some("k1"));
    assert_eq!(record.get("value").unwrap().as_text(), Some("event 1"));
    assert_eq!(record.get("headers").unwrap().as_list().unwrap().len(), 2);
    assert!(
        produced.iter().all(|e| e.key == "Produce orders.events/0" && e.class == Class::Work && e.mutating)
    );
    assert!(recording.exchanges("Fetch").iter().all(|e| e.class == Class::Ambient));
    for operation in
        ["ApiVersions", "Metadata", "FindCoordinator", "JoinGroup", "SyncGroup", "InitProducerId"]
    {
        assert!(!recording.exchanges(operation).is_empty(), "{operation}");
    }
    let exchanges: Vec<_> = recording
        .sink
        .entries()
        .into_iter()
        .filter_map(|entry| match entry.body {
            Body::Exchange(exchange) => Some(exchange),
            _ => None,
        })
        .collect();
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

async fn stand_in(folder: &tempfile::TempDir, env: &[(&str, &str)]) -> (Arc<dyn StandIn>, Port) {
    let standin = crate::standin::kafka::open(options(folder, env)).unwrap();
    (standin.clone(), broker(standin).await)
}

fn code(error: KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap()
}

async fn verb(link: &Arc<Link>, addr: &str, verb: &str, arguments: &[(&str, Value)]) -> StepResponse {
    let call = StepCall {
        service: "bus".into(),
        interface: "main".into(),
        verb: verb.into(),
        arguments: arguments.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        timeout: Some(GUARD),
        location: String::new(),
    };
    PROTOCOL.step(Arc::new(Tcp(addr.to_owned())), link.clone(), &call).await
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_on_the_wire_are_the_ones_that_clients_know() {
    let folder = tempfile::tempdir().unwrap();
    let (_, broker) = stand_in(&folder, &[]).await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&broker).await;
    let producer = producer(&proxy.addr, &[("acks", "all")]);
    assert_eq!(send(&producer, "one", "k", "v").await.unwrap(), 0);

    // A retriable error: the client comes again by itself, the broker saw it once.
    let once = Modifiers { times: Some(1), ..Modifiers::default() };
    recording.activate(vec![rule(&[("topic", "one")], error("NOT_LEADER_OR_FOLLOWER"), once)]);
    assert_eq!(send(&producer, "one", "k", "v").await.unwrap(), 1);
    let produced = recording.exchanges("Produce");
    let hit: Vec<_> = produced.iter().map(|e| e.rule.is_some()).collect();
    assert_eq!(hit, [false, true, false]);
    let refused = produced[1].response.as_ref().unwrap().value().unwrap();
    assert!(format!("{refused:?}").contains("NOT_LEADER_OR_FOLLOWER"));

    // A final one reaches the caller; another topic is not concerned.
    let effect = error("TOPIC_AUTHORIZATION_FAILED");
    recording.activate(vec![rule(&[("topic", "one"), ("api", "Produce")], effect, Modifiers::default())]);
    let refused = send(&producer, "one", "k", "v").await.unwrap_err();
    assert_eq!(code(refused), RDKafkaErrorCode::TopicAuthorizationFailed);
    assert_eq!(send(&producer, "two", "k", "v").await.unwrap(), 0);
    recording.faults.deactivate();
    assert_eq!(send(&producer, "one", "k", "v").await.unwrap(), 2);

    // The group's errors, too: a consumer is told to look for its coordinator and does.
    let once = Modifiers { times: Some(1), ..Modifiers::default() };
    recording.activate(vec![rule(&[("group", "g"), ("api", "JoinGroup")], error("NOT_COORDINATOR"), once)]);
    let consumer = consumer(&proxy.addr, "g", &["one"]);
    assert_eq!(next(&consumer).await.2, 0);
    assert!(recording.exchanges("JoinGroup").iter().any(|e| e.rule.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn delay_duplicate_slow_and_no_acknowledgement() {
    let folder = tempfile::tempdir().unwrap();
    let (_, broker) = stand_in(&folder, &[]).await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&broker).await;
    let idempotent = producer(&proxy.addr, &[("enable.idempotence", "true")]);
    let plain = producer(&proxy.addr, &[("acks", "1")]);
    let silent = producer(&proxy.addr, &[("acks", "0")]);
    let only = |effect| vec![rule(&[("api", "Produce")], effect, Modifiers::default())];

    recording.activate(only(Effect::Duplicate));
    // The broker knows an idempotent producer's copy; a plain one's is a second record.
    assert_eq!(send(&idempotent, "t", "k", "a").await.unwrap(), 0);
    assert_eq!(send(&plain, "t", "k", "b").await.unwrap(), 1);
    assert_eq!(send(&plain, "t", "k", "c").await.unwrap(), 3);
    recording.activate(only(Effect::Delay(Duration::from_millis(80))));
    assert_eq!(send(&plain, "t", "k", "d").await.unwrap(), 5);
    let late = recording.exchanges("Produce").pop().unwrap();
    assert!(late.ended_ns - late.began_ns >= 80_000_000);
    recording.activate(only(Effect::Slow { bytes_per_second: 1000 }));
    assert_eq!(send(&plain, "t", "k", "e").await.unwrap(), 6);
    recording.faults.deactivate();
    send(&silent, "t", "k", "f").await.unwrap();

    let link = recording.link(&proxy.addr);
    let read = verb(&link, &proxy.addr, "consume", &[("topic", "t".into()), ("count", Value::Int(8))]).await;
    let values = |response: &StepResponse| {
        let text = |v: &Value| v.get("value").unwrap().as_text().unwrap().to_owned();
        response.data.as_list().unwrap().iter().map(text).collect::<Vec<_>>().join("")
    };
    assert_eq!(values(&read), "abbccdef");
    let unanswered = recording.exchanges("Produce").pop().unwrap();
    assert_eq!(unanswered.outcome, Outcome::OneWay);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_recovers_when_the_broker_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (_, broker) = stand_in(&folder, &[]).await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&broker).await;
    let producer = producer(&proxy.addr, &[("enable.idempotence", "true")]);
    let consumer = consumer(&proxy.addr, "g", &["t"]);
    send(&producer, "t", "k", "before").await.unwrap();
    assert_eq!(next(&consumer).await.1, "before");

    proxy.refuse.store(true, Ordering::SeqCst);
    proxy.cut();
    let sent = send(&producer, "t", "k", "meanwhile");
    let back = async {
        // Refused at least once before it is let in again.
        tokio::task::yield_now().await;
        proxy.refuse.store(false, Ordering::SeqCst);
    };
    let (sent, ()) = tokio::join!(sent, back);
    assert_eq!(sent.unwrap(), 1);
    assert_eq!(next(&consumer).await.1, "meanwhile");

    // One request is dropped by a rule: its connection is cut, the client sends it again.
    let once = Modifiers { times: Some(1), ..Modifiers::default() };
    recording.activate(vec![rule(&[("topic", "t"), ("api", "Produce")], Effect::Drop, once)]);
    assert_eq!(send(&producer, "t", "k", "after").await.unwrap(), 2);
    assert_eq!(next(&consumer).await.1, "after");
    assert!(recording.exchanges("Produce").iter().any(|e| e.outcome == Outcome::Dropped && e.rule.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_and_deleted_and_verbs_read_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (_, broker) = stand_in(&folder, &[("KAFKA_NUM_PARTITIONS", "2")]).await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&broker).await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &proxy.addr).create().unwrap();
    let new = [
        NewTopic::new("three", 3, TopicReplication::Fixed(1)),
        NewTopic::new("no/path", 1, TopicReplication::Fixed(1)),
    ];
    let made = admin.create_topics(&new, &AdminOptions::new()).await.unwrap();
    assert_eq!(made[0], Ok("three".to_owned()));
    assert_eq!(made[1].clone().unwrap_err().1, RDKafkaErrorCode::InvalidTopic);
    let again = admin.create_topics(&new[..1], &AdminOptions::new()).await.unwrap();
    assert_eq!(again[0].clone().unwrap_err().1, RDKafkaErrorCode::TopicAlreadyExists);
    assert_eq!(recording.exchanges("CreateTopics")[0].class, Class::Work);

    let (link, at) = (recording.link(&proxy.addr), proxy.addr.as_str());
    let topic = || ("topic", Value::from("three"));
    let map = Value::map([("id", Value::Int(7))]);
    let headers = Value::map([("trace", "t1".into())]);
    let sent =
        [topic(), ("value", map), ("key", "k".into()), ("headers", headers), ("partition", Value::Int(2))];
    let sent = verb(&link, at, "publish", &sent).await;
    assert!(sent.ok, "{sent:?}");
    assert_eq!(sent.data.get("partition"), Some(&Value::Int(2)));
    let read = verb(&link, at, "consume", &[topic()]).await;
    let read = read.data.as_list().unwrap()[0].clone();
    assert_eq!(read.get("value").unwrap().as_text(), Some("{\"id\":7}"));
    assert_eq!(read.get("headers").unwrap().as_list().unwrap().len(), 1);
    let offsets = verb(&link, at, "offsets", &[topic()]).await;
    let next: Vec<_> = offsets
        .data
        .as_list()
        .unwrap()
        .iter()
        .map(|row| row.get("next").unwrap().as_int().unwrap())
        .collect();
    assert_eq!(next, [0, 0, 1]);
    let wrong =
        verb(&link, at, "publish", &[topic(), ("value", "v".into()), ("partition", Value::Int(9))]).await;
    assert!(!wrong.ok && wrong.error.unwrap().contains("UNKNOWN_TOPIC_OR_PARTITION"));
    PROTOCOL.ready(Tcp(at.to_owned()).dial().await.unwrap(), link.clone()).await.unwrap();

    let deleted = admin.delete_topics(&["three", "never"], &AdminOptions::new()).await.unwrap();
    assert_eq!(deleted[0], Ok("three".to_owned()));
    assert_eq!(deleted[1].clone().unwrap_err().1, RDKafkaErrorCode::UnknownTopicOrPartition);
    // Asked for again, it is made anew: two partitions, nothing in them.
    let offsets = verb(&link, at, "offsets", &[topic()]).await;
    assert_eq!(offsets.data.as_list().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_replay_keeps_a_consumer_in_peace_and_invents_no_answer() {
    let replaying = Recorded::new();
    let server = replaying.replay(Vec::new()).await;
    let consumer = consumer(&server.addr, "g", &["t"]);
    let assigned = async {
        while consumer.assignment().unwrap().count() == 0 {
            // Drives the group membership.
            let polled = tokio::time::timeout(Duration::from_millis(20), consumer.recv()).await;
            assert!(polled.is_err(), "{polled:?}");
        }
    };
    tokio::time::timeout(GUARD, assigned).await.unwrap();
    let producer = producer(&server.addr, &[("message.timeout.ms", "300"), ("enable.idempotence", "true")]);
    assert_eq!(code(send(&producer, "t", "k", "v").await.unwrap_err()), RDKafkaErrorCode::MessageTimedOut);
    assert!(replaying.exchanges("Produce").iter().all(|e| e.outcome == Outcome::Failed));
    assert!(!replaying.exchanges("Heartbeat").is_empty() || !replaying.exchanges("Fetch").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_knows_how_many_partitions_there_were() {
    let folder = tempfile::tempdir().unwrap();
    let (_, broker) = stand_in(&folder, &[("KAFKA_NUM_PARTITIONS", "3")]).await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&broker).await;
    let link = recording.link(&proxy.addr);
    let sent = [("topic", Value::from("t")), ("value", "v".into()), ("partition", Value::Int(2))];
    assert!(verb(&link, &proxy.addr, "publish", &sent).await.ok);
    let consume = [("topic", Value::from("t"))];
    let before = verb(&link, &proxy.addr, "consume", &consume).await;
    let exchanges = recording.sink.entries().into_iter().filter_map(|entry| match entry.body {
        Body::Exchange(exchange) => Some(exchange),
        _ => None,
    });
    let server = Recorded::new().replay(exchanges.collect()).await;
    assert!(verb(&link, &server.addr, "publish", &sent).await.ok);
    let after = verb(&link, &server.addr, "consume", &consume).await;
    assert_eq!(after.data, before.data);
    assert_eq!(after.data.as_list().unwrap().len(), 1);
}

#[test]
fn rules_that_cannot_be_carried_out_are_refused() {
    let check = |matchers: &[(&str, &str)], effect| {
        PROTOCOL.check_rule(&rule(matchers, effect, Modifiers::default()))
    };
    let number = |n| Effect::Error(Fields(vec![("code".into(), Value::Int(n))]));
    assert_eq!(check(&[("topic", "orders.*")], error("NOT_LEADER_OR_FOLLOWER")), Ok(()));
    assert_eq!(check(&[("api", "Fetch")], number(6)), Ok(()));
    assert_eq!(check(&[], Effect::Drop), Ok(()));
    let near = check(&[], error("NOT_LEADER_OR_FOLOWER")).unwrap_err();
    assert_eq!(near.hint.unwrap(), "did you mean \"NOT_LEADER_OR_FOLLOWER\"?");
    for refused in [
        check(&[], number(0)),
        check(&[], number(4711)),
        check(&[], Effect::Error(Fields::default())),
        check(
            &[],
            Effect::Error(Fields(vec![("code".into(), Value::Int(6)), ("errno".into(), Value::Int(1))])),
        ),
        check(&[("table", "orders")], Effect::Drop),
        check(&[("api", "Fetsch")], Effect::Drop),
        check(&[], Effect::Respond(Fields::default())),
        check(&[], Effect::Corrupt),
    ] {
        assert!(refused.is_err(), "{refused:?}");
    }
    for n in -1..=133 {
        if let Some(error) = kafka_protocol::ResponseError::try_from_code(n)
            && !matches!(error, kafka_protocol::ResponseError::Unknown(_))
        {
            let name = message::error_name(n);
            let fields = Fields(vec![("code".into(), Value::text(name.clone()))]);
            assert_eq!(rules::error_code(&fields), Ok(n), "{name}");
        }
    }
}

/// A bare client that writes frames and reads answers.
struct Bare {
    stream: TcpStream,
    framer: codec::Framer,
}

impl Bare {
    async fn to(addr: &str) -> Bare {
        Bare { stream: TcpStream::connect(addr).await.unwrap(), framer: codec::Framer::default() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        tokio::io::AsyncWriteExt::write_all(&mut self.stream, bytes).await.unwrap();
    }

    async fn frame(&mut self) -> Option<bytes::Bytes> {
        loop {
            if let Some(frame) = self.framer.next_frame().unwrap() {
                return Some(frame);
            }
            let read = tokio::io::AsyncReadExt::read_buf(&mut self.stream, self.framer.buffer());
            match tokio::time::timeout(GUARD, read).await.unwrap() {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }
}

fn head(api: i16, version: i16, correlation: i32) -> codec::Head {
    codec::Head { api, version, correlation, client: Some("bare".into()) }
}

fn produce(topic: &str, acks: i16, value: &str) -> kafka_protocol::messages::RequestKind {
    use kafka_protocol::messages::{ProduceRequest, produce_request};
    let record = records::Record {
        value: Some(bytes::Bytes::copy_from_slice(value.as_bytes())),
        ..Default::default()
    };
    let data =
        produce_request::PartitionProduceData::default().with_records(Some(records::encode(&[record])));
    let data = produce_request::TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1000).with_topic_data(vec![data]).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_answered_in_order_whatever_rules_do() {
    let folder = tempfile::tempdir().unwrap();
    let (_, broker) = stand_in(&folder, &[]).await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&broker).await;
    let link = recording.link(&proxy.addr);
    for topic in ["slow", "bad", "quiet", "fine"] {
        assert!(
            verb(&link, &proxy.addr, "publish", &[("topic", topic.into()), ("value", "0".into())]).await.ok
        );
    }
    recording.activate(vec![
        rule(&[("topic", "slow")], Effect::Delay(Duration::from_millis(50)), Modifiers::default()),
        rule(&[("topic", "bad")], error("INVALID_RECORD"), Modifiers::default()),
    ]);
    let mut bare = Bare::to(&proxy.addr).await;
    let mut all = Vec::new();
    // Flexible versions carry their topics elsewhere: rules see them all the same.
    for (n, (topic, acks, version)) in
        [("slow", 1, 9), ("bad", -1, 3), ("quiet", 0, 9), ("fine", 1, 5), ("slow", 1, 3)].iter().enumerate()
    {
        let head = head(0, *version, 100 + n as i32);
        all.extend(codec::encode_request(&head, &produce(topic, *acks, &n.to_string())).unwrap());
    }
    bare.send(&all).await;
    let mut got = Vec::new();
    for _ in 0..4 {
        got.push(codec::response_correlation(&bare.frame().await.unwrap()).unwrap());
    }
    assert_eq!(got, [100, 101, 103, 104]);
    let produced = &recording.exchanges("Produce")[4..];
    let outcomes: Vec<_> = produced.iter().map(|e| (e.key.as_str(), e.rule.is_some(), e.outcome)).collect();
    assert!(outcomes.contains(&("Produce quiet/0", false, Outcome::OneWay)));
    assert!(outcomes.contains(&("Produce fine/0", false, Outcome::Answered)));
    assert_eq!(outcomes.iter().filter(|(_, hit, _)| *hit).count(), 3);
    recording.faults.deactivate();
    let count = |topic: &'static str| {
        let (link, addr) = (link.clone(), proxy.addr.clone());
        async move {
            verb(&link, &addr, "consume", &[("topic", topic.into())]).await.data.as_list().unwrap().len()
        }
    };
    assert_eq!(
        (count("slow").await, count("bad").await, count("quiet").await, count("fine").await),
        (3, 1, 2, 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_decoded_passes_through() {
    // A broker that sends back what it gets.
    let echo = Port::open(|_| {
        |stream: Stream, _| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let (mut reader, mut writer) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            })
        }
    })
    .await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&echo).await;
    let mut bare = Bare::to(&proxy.addr).await;
    // An api of the future: its answer is matched by place, not understood. (Echoed, its first four
    // bytes are the "correlation id": api and version.)
    let mut future = Vec::from(codec::framed(&[3, 231, 0, 1, 3, 231, 0, 1, 9, 9]));
    bare.send(&future).await;
    assert_eq!(bare.frame().await.unwrap().as_ref(), &future[4..]);
    let seen = recording.exchanges("api 999");
    assert_eq!((seen.len(), seen[0].class, seen[0].outcome), (1, Class::Control, Outcome::Answered));
    // No frames at all: a plain pipe from here on, half-closed at the end.
    future = b"\xff\xff\xff\xff this is TLS, say".to_vec();
    bare.send(&future).await;
    tokio::io::AsyncWriteExt::shutdown(&mut bare.stream).await.unwrap();
    let mut back = Vec::new();
    tokio::time::timeout(GUARD, tokio::io::AsyncReadExt::read_to_end(&mut bare.stream, &mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(back, future);
    assert_eq!(recording.exchanges("undecodable")[0].outcome, Outcome::OneWay);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_rule_sees_the_topics_of_a_fetch_session() {
    use kafka_protocol::messages::{FetchRequest, fetch_request};
    let echo = Port::open(|_| {
        |mut stream: Stream, _| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let mut framer = codec::Framer::default();
                while tokio::io::AsyncReadExt::read_buf(&mut stream, framer.buffer())
                    .await
                    .is_ok_and(|n| n > 0)
                {
                    while let Ok(Some(frame)) = framer.next_frame() {
                        let (head, _) = codec::decode_request(&frame).unwrap();
                        let empty = kafka_protocol::messages::FetchResponse::default().with_session_id(7);
                        let answer = codec::encode_response(&head, &empty.into()).unwrap();
                        tokio::io::AsyncWriteExt::write_all(&mut stream, &answer).await.unwrap();
                    }
                }
            })
        }
    })
    .await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&echo).await;
    let mut bare = Bare::to(&proxy.addr).await;
    let partition = || vec![fetch_request::FetchPartition::default()];
    let topic = fetch_request::FetchTopic::default().with_topic(topic_name("t")).with_partitions(partition());
    let full = FetchRequest::default().with_session_epoch(0).with_topics(vec![topic]);
    let more = FetchRequest::default().with_session_id(7).with_session_epoch(1);
    for (n, fetch) in [full, more].into_iter().enumerate() {
        if n == 1 {
            recording.activate(vec![rule(
                &[("topic", "t")],
                error("KAFKA_STORAGE_ERROR"),
                Modifiers::default(),
            )]);
        }
        let head = head(1, 11, n as i32);
        bare.send(&codec::encode_request(&head, &fetch.into()).unwrap()).await;
        let answer = codec::decode_response(&head, &bare.frame().await.unwrap()).unwrap();
        let said = format!("{:?}", message::response_value(&answer));
        assert_eq!(said.contains("KAFKA_STORAGE_ERROR"), n == 1, "{said}");
    }
    let keys: Vec<_> = recording.exchanges("Fetch").into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["Fetch t", "Fetch t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn advertised_addresses_and_versions_are_the_proxys() {
    let folder = tempfile::tempdir().unwrap();
    let (_, broker) = stand_in(&folder, &[]).await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&broker).await;
    let mut bare = Bare::to(&proxy.addr).await;
    let port: i32 = proxy.addr.rsplit_once(':').unwrap().1.parse().unwrap();
    for version in [1, 5, 9] {
        let head = head(3, version, 1);
        let request = kafka_protocol::messages::MetadataRequest::default().with_topics(Some(Vec::new()));
        bare.send(&codec::encode_request(&head, &request.into()).unwrap()).await;
        let answer = codec::decode_response(&head, &bare.frame().await.unwrap()).unwrap();
        let kafka_protocol::messages::ResponseKind::Metadata(answer) = answer else { panic!() };
        assert_eq!(answer.brokers[0].port, port);
    }
    for (version, key_type) in [(0, 0), (4, 0)] {
        let head = head(10, version, 1);
        let request = kafka_protocol::messages::FindCoordinatorRequest::default().with_key_type(key_type);
        let request = match version {
            4 => request.with_coordinator_keys(vec!["g".into()]),
            _ => request.with_key("g".into()),
        };
        bare.send(&codec::encode_request(&head, &request.into()).unwrap()).await;
        let answer = codec::decode_response(&head, &bare.frame().await.unwrap()).unwrap();
        let kafka_protocol::messages::ResponseKind::FindCoordinator(answer) = answer else { panic!() };
        assert_eq!(answer.coordinators.first().map_or(answer.port, |c| c.port), port);
    }
    // A version of ApiVersions that the broker does not know is answered in version 0.
    let head = head(18, 4, 1);
    let request = kafka_protocol::messages::ApiVersionsRequest::default()
        .with_client_software_name("c".into())
        .with_client_software_version("1".into());
    bare.send(&codec::encode_request(&head, &request.into()).unwrap()).await;
    let answer = codec::decode_response(&head, &bare.frame().await.unwrap()).unwrap();
    let kafka_protocol::messages::ResponseKind::ApiVersions(answer) = answer else { panic!() };
    assert_eq!(answer.error_code, 35);
    assert!(answer.api_keys.iter().any(|api| api.api_key == 1 && api.max_version == 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipe_is_an_error_that_the_client_knows() {
    let folder = tempfile::tempdir().unwrap();
    let (_, broker) = stand_in(&folder, &[]).await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&broker).await;
    let producer = producer(&proxy.addr, &[("acks", "all")]);
    send(&producer, "t", "k", "v").await.unwrap();
    let activate = |recipe: &str, more: &str| {
        let call = format!("{recipe}(topic = \"t\"{more})");
        recording.activate(vec![rule_of("kafka", Some(recipe), &call)]);
    };
    // Those that pass: the client comes again by itself, as it does with no other code.
    for (recipe, name) in [
        ("not_leader", "NOT_LEADER_OR_FOLLOWER"),
        ("not_enough_replicas", "NOT_ENOUGH_REPLICAS"),
        ("storage_error", "KAFKA_STORAGE_ERROR"),
    ] {
        activate(recipe, ", times = 1");
        send(&producer, "t", "k", "v").await.expect(recipe);
        let hit = recording.exchanges("Produce").into_iter().rfind(|e| e.rule.is_some()).expect(recipe);
        let refused = hit.response.unwrap().value().unwrap();
        assert!(format!("{refused:?}").contains(name), "{recipe}: {refused:?}");
    }
    // Those that do not.
    for (recipe, known) in [
        ("message_too_large", RDKafkaErrorCode::MessageSizeTooLarge),
        ("topic_not_authorized", RDKafkaErrorCode::TopicAuthorizationFailed),
    ] {
        activate(recipe, "");
        assert_eq!(code(send(&producer, "t", "k", "v").await.unwrap_err()), known, "{recipe}");
    }
    recording.activate(vec![rule_of("kafka", Some("offset_out_of_range"), "offset_out_of_range(times = 1)")]);
    // The client looks for the log's beginning and goes on there.
    assert_eq!(next(&consumer(&proxy.addr, "g", &["t"])).await.2, 0);
    assert!(recording.exchanges("Fetch").iter().any(|fetch| fetch.rule.is_some()));
}

/// Two members of one group in one service: a share of them is one of them, the same throughout.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_strikes_a_share_of_the_members() {
    let folder = tempfile::tempdir().unwrap();
    let (_, broker) = stand_in(&folder, &[]).await;
    let recording = Recorded::new();
    let proxy = recording.proxy(&broker).await;
    let producer = producer(&proxy.addr, &[("acks", "all")]);
    let member = |client: &str, topic: &str| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &proxy.addr).set("group.id", "g").set("client.id", client);
        config.set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        config.set("heartbeat.interval.ms", "100").set("reconnect.backoff.ms", "10");
        let consumer: Arc<StreamConsumer> = Arc::new(config.create().unwrap());
        consumer.subscribe(&[topic]).unwrap();
        consumer
    };
    for topic in ["one", "two"] {
        send(&producer, topic, "k", "v").await.unwrap();
    }
    let members = [member("first", "one"), member("other", "two")];
    // Both are polled all the time: a group waits for each of its members.
    let mut values = members.each_ref().map(|member| {
        let (sender, values) = tokio::sync::mpsc::unbounded_channel();
        let member = member.clone();
        tokio::spawn(async move { while sender.send(next(&member).await.1).is_ok() {} });
        values
    });
    for values in &mut values {
        assert_eq!(values.recv().await.as_deref(), Some("v"));
    }
    let commit = |member: &Arc<StreamConsumer>, topic: &str| {
        let mut next = TopicPartitionList::new();
        next.add_partition_offset(topic, 0, Offset::Offset(1)).unwrap();
        member.commit(&next, CommitMode::Sync)
    };
    let commits = || [commit(&members[0], "one"), commit(&members[1], "two")];
    let both_commit = async || {
        let committing = async {
            while commits().iter().any(Result::is_err) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(GUARD, committing).await.expect("commits");
    };
    both_commit().await;
    let half = "kafka.rebalance(share = \"50%\", members = [\"first\", \"other\"], api = \"OffsetCommit\")";
    recording.activate(vec![rule_of("kafka", None, half)]);
    let struck = commits().map(|commit| match commit {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(code(error), RDKafkaErrorCode::RebalanceInProgress);
            true
        }
    });
    assert_ne!(struck[0], struck[1]);
    let keys: Vec<_> = recording.decisions().iter().map(|d| (d.key.clone(), d.fired)).collect();
    for (name, struck) in ["first", "other"].iter().zip(struck) {
        let key = format!("member {name}");
        assert!(keys.contains(&(key.clone(), struck)) && !keys.contains(&(key, !struck)), "{keys:?}");
    }

    // Who is not named is no member that it is about; a group of another name is another group.
    for nobody in [
        half.replace("\"other\"", "\"third\"").replace("\"first\"", "\"fourth\""),
        half.replace("api =", "group = \"h\", api ="),
    ] {
        recording.activate(vec![rule_of("kafka", None, &nobody)]);
        both_commit().await;
    }

    // All of them lose their heartbeats, and one its coordinator, which it finds again.
    recording.activate(vec![rule_of("kafka", None, "kafka.heartbeat_loss(group = \"g\", times = 2)")]);
    while recording.exchanges("Heartbeat").iter().filter(|e| e.outcome == Outcome::Dropped).count() < 2 {
        tokio::task::yield_now().await;
    }
    recording.activate(vec![rule_of("kafka", None, "kafka.not_coordinator(times = 1, api = \"Heartbeat\")")]);
    let asked = recording.exchanges("FindCoordinator").len();
    while recording.exchanges("FindCoordinator").len() == asked {
        tokio::task::yield_now().await;
    }
    recording.faults.deactivate();
    send(&producer, "one", "k", "again").await.unwrap();
    while values[0].recv().await.as_deref() != Some("again") {}
}
