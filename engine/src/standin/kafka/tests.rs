//! The stand-in against a real client, over real sockets.

use super::*;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const GUARD: Duration = Duration::from_secs(30);

/// A stand-in that listens; its task ends with it.
struct Listening {
    standin: Arc<dyn StandIn>,
    addr: String,
    accept: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn listen(folder: &tempfile::TempDir, env: &[(&str, &str)]) -> Listening {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    let env = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let standin = open(StandInOptions { data: folder.path().to_owned(), listen, env }).unwrap();
    let serving = standin.clone();
    let accept = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            tasks.spawn(serving.serve(Box::new(stream), 1));
        }
    });
    Listening { standin, addr: listen.to_string(), accept }
}

fn config(addr: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", addr).set("linger.ms", "0").set("auto.offset.reset", "earliest");
    config
        .set("enable.auto.commit", "false")
        .set("heartbeat.interval.ms", "50")
        .set("session.timeout.ms", "6000");
    config.set("fetch.wait.max.ms", "100").set("topic.metadata.refresh.interval.ms", "200");
    config.set("reconnect.backoff.ms", "10").set("allow.auto.create.topics", "true");
    config
}

async fn send(
    producer: &FutureProducer,
    topic: &str,
    partition: i32,
    value: &str,
) -> Result<i64, RDKafkaErrorCode> {
    let record = FutureRecord::<str, str>::to(topic).partition(partition).payload(value);
    let sent = tokio::time::timeout(GUARD, producer.send(record, GUARD)).await.unwrap();
    sent.map(|delivery| delivery.offset).map_err(|(error, _)| error.rdkafka_error_code().unwrap())
}

async fn read(consumer: &StreamConsumer, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    while got.len() < count {
        if let Ok(message) = tokio::time::timeout(GUARD, consumer.recv()).await.expect("a message") {
            got.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
        }
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_batches_pass_through_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = listen(&folder, &[]).await;
    let mut want = Vec::new();
    // What librdkafka was built with; unknown ones it refuses itself.
    for codec in ["none", "gzip", "snappy", "lz4"] {
        let producer: FutureProducer = config(&broker.addr).set("compression.type", codec).create().unwrap();
        let value = format!("{codec} ").repeat(50);
        assert_eq!(send(&producer, "t", 0, &value).await, Ok(want.len() as i64));
        want.push(value);
    }
    for restarted in [false, true] {
        if restarted {
            broker = listen(&folder, &[]).await;
        }
        let consumer: StreamConsumer =
            config(&broker.addr).set("group.id", format!("g{restarted}")).create().unwrap();
        consumer.subscribe(&["t"]).unwrap();
        assert_eq!(read(&consumer, want.len()).await, want);
        consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    }
    // Committed offsets survive, too.
    broker = listen(&folder, &[]).await;
    let consumer: BaseConsumer = config(&broker.addr).set("group.id", "gfalse").create().unwrap();
    let mut asked = rdkafka::TopicPartitionList::new();
    asked.add_partition("t", 0);
    let found =
        tokio::task::spawn_blocking(move || consumer.committed_offsets(asked, GUARD).unwrap()).await.unwrap();
    assert_eq!(found.find_partition("t", 0).unwrap().offset(), rdkafka::Offset::Offset(want.len() as i64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shares_partitions_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let broker = listen(&folder, &[("KAFKA_NUM_PARTITIONS", "2")]).await;
    let producer: FutureProducer = config(&broker.addr).create().unwrap();
    send(&producer, "t", 0, "a").await.unwrap();
    let member = || {
        let consumer: StreamConsumer = config(&broker.addr).set("group.id", "g").create().unwrap();
        consumer.subscribe(&["t"]).unwrap();
        consumer
    };
    let has = async |consumer: &StreamConsumer, count: usize| {
        while consumer.assignment().unwrap().count() != count {
            // Polling is what drives the membership.
            let _ = tokio::time::timeout(Duration::from_millis(20), consumer.recv()).await;
        }
    };
    let first = member();
    tokio::time::timeout(GUARD, has(&first, 2)).await.unwrap();
    let second = member();
    let both = async { tokio::join!(has(&first, 1), has(&second, 1)) };
    tokio::time::timeout(GUARD, both).await.unwrap();
    // The second leaves: the first has all again.
    tokio::task::spawn_blocking(move || drop(second)).await.unwrap();
    tokio::time::timeout(GUARD, has(&first, 2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_member_is_given_up() {
    let groups = Groups::default();
    let join = |member: &str, session: u64| crate::protocol::kafka::groups::Join {
        group: "g".into(),
        member: member.into(),
        instance: None,
        client: "c".into(),
        session: Duration::from_millis(session),
        rebalance: Duration::from_secs(60),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"m"))],
        id_first: false,
    };
    let first = groups.join(join("", 30)).await.unwrap();
    let own = groups.sync(
        "g",
        first.generation,
        &first.member,
        vec![(first.member.clone(), Bytes::from_static(b"all"))],
    );
    assert_eq!(own.await.unwrap().2, Bytes::from_static(b"all"));
    assert_eq!(groups.heartbeat("g", first.generation, &first.member), Ok(()));
    // The second waits for the first to come to the rebalance; it never does.
    let second = tokio::time::timeout(GUARD, groups.join(join("", 60_000))).await.unwrap().unwrap();
    assert_eq!((second.generation, &second.leader, second.members.len()), (2, &second.member, 1));
    assert_eq!(groups.heartbeat("g", first.generation, &first.member), Err(E::UnknownMemberId.code()));
    let (generation, member) = (second.generation, second.member.as_str());
    assert_eq!(groups.heartbeat("g", generation - 1, member), Err(E::IllegalGeneration.code()));
    assert_eq!(groups.commit("g", generation, member, Vec::new()), Err(E::RebalanceInProgress.code()));
    assert_eq!(groups.delete("g"), Err(E::NonEmptyGroup.code()));
    assert_eq!(groups.leave("g", member, None), Ok(()));
    assert_eq!(groups.describe("g").state, "Empty");
    assert_eq!(groups.delete("g"), Ok(()));
    // A new member must first take the id that it is given.
    let mut named = join("", 1000);
    named.id_first = true;
    let (code, id) = groups.join(named).await.unwrap_err();
    assert_eq!(code, E::MemberIdRequired.code());
    assert_eq!(groups.join(join(&id, 1000)).await.unwrap().member, id);
    assert_eq!(groups.join(join("stranger", 1000)).await.unwrap_err().0, E::UnknownMemberId.code());
}

/// Makes `topic`, by request.
async fn create(config: &ClientConfig, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let asked = [NewTopic::new(topic, 1, TopicReplication::Fixed(1))];
    let options = AdminOptions::new().request_timeout(Some(GUARD));
    let made = tokio::time::timeout(GUARD, admin.create_topics(&asked, &options)).await.unwrap();
    assert_eq!(made.unwrap(), [Ok(topic.to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_restore() {
    let folder = tempfile::tempdir().unwrap();
    let broker = listen(&folder, &[]).await;
    // Topics are made by request only: a producer goes on asking for those it has
    // written to, and where asking makes them it makes them after a restore as well.
    let mut config = config(&broker.addr);
    config.set("allow.auto.create.topics", "false");
    // Not an idempotent one: it would notice that records it wrote are gone.
    let producer = || -> FutureProducer { config.create().unwrap() };
    create(&config, "seeded").await;
    send(&producer(), "seeded", 0, "s").await.unwrap();
    broker.standin.snapshot().unwrap();
    for _ in 0..2 {
        create(&config, "new").await;
        let writer = producer();
        send(&writer, "seeded", 0, "x").await.unwrap();
        send(&writer, "new", 0, "x").await.unwrap();
        broker.standin.restore().unwrap();
        let fresh = producer();
        assert_eq!(send(&fresh, "seeded", 0, "again").await, Ok(1));
        broker.standin.restore().unwrap();
        let metadata = fresh.client().fetch_metadata(None, GUARD).unwrap();
        let names: Vec<_> = metadata.topics().iter().map(|t| t.name()).collect();
        assert_eq!(names, ["seeded"]);
    }
    // Without a snapshot: nothing.
    let empty = tempfile::tempdir().unwrap();
    let broker = listen(&empty, &[]).await;
    config.set("bootstrap.servers", &broker.addr);
    create(&config, "t").await;
    let producer: FutureProducer = config.create().unwrap();
    send(&producer, "t", 0, "x").await.unwrap();
    broker.standin.restore().unwrap();
    let metadata = producer.client().fetch_metadata(None, GUARD).unwrap();
    assert_eq!(metadata.topics().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_refused_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let broker = listen(&folder, &[]).await;
    let producer: FutureProducer = config(&broker.addr).set("transactional.id", "tx").create().unwrap();
    let begun = tokio::task::spawn_blocking(move || producer.init_transactions(GUARD)).await.unwrap();
    let error = begun.unwrap_err().rdkafka_error_code().unwrap();
    assert_eq!(error, RDKafkaErrorCode::TransactionalIdAuthorizationFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_is_told_and_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let broker = listen(&folder, &[]).await;
    let producer: FutureProducer = config(&broker.addr).create().unwrap();
    send(&producer, "good", 0, "x").await.unwrap();
    // A folder that cannot be made: a file is in its way.
    std::fs::write(folder.path().join("topics/bad"), "").unwrap();
    let metadata = producer.client().fetch_metadata(Some("bad"), GUARD).unwrap();
    let error = metadata.topics()[0].error().map(RDKafkaErrorCode::from);
    assert_eq!(error, Some(RDKafkaErrorCode::KafkaStorageError));
    let consumer: StreamConsumer = config(&broker.addr).set("group.id", "g").create().unwrap();
    consumer.subscribe(&["good"]).unwrap();
    assert_eq!(read(&consumer, 1).await, ["x"]);
}
