//! The Kafka stand-in: one broker on disk.
//!
//! Contract: produced batches are kept as received (compression passes through), written with
//! `write(2)` before they are acknowledged; a write that fails is answered with
//! `KAFKA_STORAGE_ERROR` and the broker goes on. Topics are made when first asked for
//! (`KAFKA_NUM_PARTITIONS`, default 1; `KAFKA_AUTO_CREATE_TOPICS_ENABLE=false` turns it off), fetches
//! are long polls, groups rebalance, committed offsets are on disk, a repeated batch of an idempotent
//! producer is recognised. Clients reach it at its listener's address unless
//! `KAFKA_ADVERTISED_LISTENERS` says another (behind a proxy it does not matter: that rewrites it).
//! Not modelled: transactions (refused), several brokers, retention, compaction, ACLs, SASL.

mod log;
mod store;
#[cfg(test)]
mod tests;

use super::{StandIn, StandInOptions};
use crate::link::{BoxFuture, Stream};
use crate::protocol::kafka::groups::Groups;
use crate::protocol::kafka::message::Offset;
use crate::protocol::kafka::server::{self, Backend, Call, Reply, Topic};
use crate::protocol::kafka::{host_and_port, rules, topic_name};
use bytes::Bytes;
use kafka_protocol::ResponseError as E;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsResponse, FetchRequest, FetchResponse,
    ProduceRequest, ProduceResponse, create_topics_response, delete_topics_response, fetch_response,
    produce_response,
};
use std::sync::Arc;
use std::time::Duration;
use store::Store;

/// Opens a Kafka stand-in over a data directory.
///
/// # Errors
/// When what is in the directory cannot be read.
pub fn open(options: StandInOptions) -> std::io::Result<Arc<dyn StandIn>> {
    Ok(Arc::new(Kafka { broker: Arc::new(Broker::open(options)?) }))
}

struct Kafka {
    broker: Arc<Broker>,
}

impl StandIn for Kafka {
    fn serve(&self, stream: Stream, connection: u64) -> BoxFuture<'static, ()> {
        let broker = self.broker.clone();
        Box::pin(async move {
            // How a connection ends is its client's business.
            let _ = server::run(stream, connection, broker).await;
        })
    }

    fn snapshot(&self) -> std::io::Result<()> {
        self.broker.store.snapshot()
    }

    fn restore(&self) -> std::io::Result<()> {
        let committed = self.broker.store.restore()?;
        self.broker.groups.restore(committed);
        Ok(())
    }
}

struct Broker {
    store: Arc<Store>,
    groups: Groups,
    advertised: (String, i32),
    partitions: i32,
    creates: bool,
}

impl Broker {
    fn open(options: StandInOptions) -> std::io::Result<Self> {
        let (store, committed) = Store::open(&options.data)?;
        let store = Arc::new(store);
        let keeper = store.clone();
        let env = |name: &str| options.env.get(name).map(|value| value.trim().to_owned());
        let listeners = env("KAFKA_ADVERTISED_LISTENERS").or_else(|| env("KAFKA_CFG_ADVERTISED_LISTENERS"));
        let told = listeners
            .as_deref()
            .and_then(|all| all.split(',').next()?.split_once("://"))
            .map(|(_, addr)| addr.to_owned());
        let mut listen = options.listen;
        if listen.ip().is_unspecified() {
            listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let partitions =
            env("KAFKA_NUM_PARTITIONS").and_then(|n| n.parse().ok()).filter(|n| *n > 0).unwrap_or(1);
        Ok(Broker {
            groups: Groups::kept(Box::new(move |offsets| keeper.keep_offsets(offsets)), committed),
            store,
            advertised: host_and_port(&told.unwrap_or_else(|| listen.to_string())),
            partitions,
            creates: env("KAFKA_AUTO_CREATE_TOPICS_ENABLE").is_none_or(|value| value != "false"),
        })
    }

    /// What the partitions asked for have, and the number of bytes.
    fn read(&self, request: &FetchRequest) -> (FetchResponse, usize, bool) {
        let (mut total, mut failed) = (0, false);
        let mut left = usize::try_from(request.max_bytes).unwrap_or(0);
        let mut responses = Vec::new();
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for asked in &topic.partitions {
                let max = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(left);
                let data = fetch_response::PartitionData::default()
                    .with_partition_index(asked.partition)
                    .with_aborted_transactions(None)
                    .with_preferred_read_replica((-1).into());
                // The first batch is sent whatever its size, or a client could never get past it.
                let read = match total > 0 && left == 0 {
                    true => self
                        .store
                        .read(&topic.topic, asked.partition, asked.fetch_offset, 0)
                        .map(|(_, end)| (Bytes::new(), end)),
                    false => self.store.read(&topic.topic, asked.partition, asked.fetch_offset, max),
                };
                partitions.push(match read {
                    Ok((records, end)) => {
                        total += records.len();
                        left = left.saturating_sub(records.len());
                        data.with_high_watermark(end)
                            .with_last_stable_offset(end)
                            .with_log_start_offset(0)
                            .with_records(Some(records))
                    }
                    Err(code) => {
                        failed = true;
                        data.with_error_code(code).with_high_watermark(-1).with_records(Some(Bytes::new()))
                    }
                });
            }
            let response = fetch_response::FetchableTopicResponse::default().with_topic(topic.topic.clone());
            responses.push(response.with_partitions(partitions));
        }
        (FetchResponse::default().with_responses(responses), total, failed)
    }
}

impl Backend for Broker {
    fn advertised(&self) -> (String, i32) {
        self.advertised.clone()
    }

    fn groups(&self) -> &Groups {
        &self.groups
    }

    fn topics<'a>(
        &'a self,
        _: &'a Call,
        names: Option<Vec<String>>,
        create: bool,
    ) -> BoxFuture<'a, Vec<Topic>> {
        Box::pin(async move {
            let names = names.unwrap_or_else(|| self.store.names());
            let create = create && self.creates;
            let topic = |name: String| {
                if create
                    && self.store.partitions(&name).is_none()
                    && let Err(error) = self.store.create(&name, self.partitions)
                {
                    return Topic { name, partitions: 0, error };
                }
                match self.store.partitions(&name) {
                    Some(partitions) => Topic { name, partitions, error: 0 },
                    None => Topic { name, partitions: 0, error: E::UnknownTopicOrPartition.code() },
                }
            };
            names.into_iter().map(topic).collect()
        })
    }

    fn produce<'a>(&'a self, _: &'a Call, request: &'a ProduceRequest) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            if !matches!(request.acks, -1..=1) {
                return Reply::send(rules::produce_error(request, E::InvalidRequiredAcks.code(), None));
            }
            let (store, owned) = (self.store.clone(), request.clone());
            // A write may be slow, on purpose even: not on a thread that others need.
            let append = move || {
                let mut responses = Vec::new();
                for topic in &owned.topic_data {
                    let partition = |p: &kafka_protocol::messages::produce_request::PartitionProduceData| {
                        let records = p.records.clone().unwrap_or_default();
                        let (code, base) = match store.append(&topic.name, p.index, &records) {
                            Ok(base) => (0, base),
                            Err(code) => (code, -1),
                        };
                        produce_response::PartitionProduceResponse::default()
                            .with_index(p.index)
                            .with_error_code(code)
                            .with_base_offset(base)
                            .with_log_append_time_ms(-1)
                            .with_log_start_offset(if code == 0 { 0 } else { -1 })
                    };
                    let partitions = topic.partition_data.iter().map(partition).collect();
                    let response =
                        produce_response::TopicProduceResponse::default().with_name(topic.name.clone());
                    responses.push(response.with_partition_responses(partitions));
                }
                ProduceResponse::default().with_responses(responses)
            };
            let Ok(response) = tokio::task::spawn_blocking(append).await else { return Reply::Cut };
            let failed =
                response.responses.iter().flat_map(|t| &t.partition_responses).any(|p| p.error_code != 0);
            match (request.acks, failed) {
                // The only way to say so to one who waits for nothing.
                (0, true) => Reply::Cut,
                (0, false) => Reply::Nothing,
                _ => Reply::send(response),
            }
        })
    }

    fn fetch<'a>(&'a self, _: &'a Call, request: &'a FetchRequest) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
            let enough = usize::try_from(request.min_bytes).unwrap_or(0);
            let poll = async {
                loop {
                    let grown = self.store.grown();
                    let (response, bytes, failed) = self.read(request);
                    if failed || bytes >= enough {
                        return response;
                    }
                    grown.await;
                }
            };
            match tokio::time::timeout(wait, poll).await {
                Ok(response) => Reply::send(response),
                Err(_) => Reply::send(self.read(request).0),
            }
        })
    }

    fn list_offsets<'a>(&'a self, _: &'a Call, asked: Vec<(String, i32, i64)>) -> BoxFuture<'a, Vec<Offset>> {
        let one = |(topic, partition, timestamp): (String, i32, i64)| {
            let found = self.store.offset(&topic, partition, timestamp);
            let (error_code, timestamp, offset) = match found {
                Ok((timestamp, offset)) => (0, timestamp, offset),
                Err(code) => (code, -1, -1),
            };
            Offset { topic, partition, timestamp, offset, error_code, ..Offset::default() }
        };
        let found = asked.into_iter().map(one).collect();
        Box::pin(async move { found })
    }

    fn create_topics<'a>(&'a self, call: &'a Call, request: &'a CreateTopicsRequest) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let one = |t: &kafka_protocol::messages::create_topics_request::CreatableTopic| {
                let assigned = i32::try_from(t.assignments.len()).unwrap_or(0);
                let partitions = match t.num_partitions {
                    -1 if assigned > 0 => assigned,
                    -1 => self.partitions,
                    n => n,
                };
                let made = match t.replication_factor {
                    _ if self.store.partitions(&t.name).is_some() => Err(E::TopicAlreadyExists.code()),
                    2.. => Err(E::InvalidReplicationFactor.code()),
                    _ if request.validate_only && partitions > 0 => Ok(()),
                    _ => self.store.create(&t.name, partitions),
                };
                let result = create_topics_response::CreatableTopicResult::default()
                    .with_name(t.name.clone())
                    .with_error_code(made.err().unwrap_or(0));
                if call.head.version >= 5 {
                    result.with_num_partitions(partitions).with_replication_factor(1)
                } else {
                    result
                }
            };
            Reply::send(CreateTopicsResponse::default().with_topics(request.topics.iter().map(one).collect()))
        })
    }

    fn delete_topics<'a>(&'a self, _: &'a Call, names: Vec<String>) -> BoxFuture<'a, Reply> {
        let one = |name: String| {
            let deleted = self.store.delete(&name);
            self.groups.forget_topic(&name);
            delete_topics_response::DeletableTopicResult::default()
                .with_name(Some(topic_name(&name)))
                .with_error_code(deleted.err().unwrap_or(0))
        };
        let responses = names.into_iter().map(one).collect();
        Box::pin(async move { Reply::send(DeleteTopicsResponse::default().with_responses(responses)) })
    }

    fn producer_id(&self) -> i64 {
        self.store.next_producer()
    }
}
