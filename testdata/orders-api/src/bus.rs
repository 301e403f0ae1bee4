//! The event bus: what happens to orders is published to Kafka, and listened to.
//!
//! Contract: publishing waits [`PUBLISH_LIMIT`] at most; an event that is not delivered by then stays
//! in an outbox in memory, from which [`Bus::drain`] sees to it that it is. Events may be published
//! twice, never lost while the process lives. An event that is listened to is committed once it has been
//! handled; one whose commit fails may come again.

use crate::config::Bug;
use crate::log;
use crate::mutation;
use crate::trace::HEADER;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

const TOPIC: &str = "orders.events";
const GROUP: &str = "orders-api";
/// How long a request waits for its event to be delivered.
const PUBLISH_LIMIT: Duration = Duration::from_secs(1);
/// How long somebody who asks for an event waits until it is handled.
const HANDLED_LIMIT: Duration = Duration::from_secs(5);
/// How many of the last events are known to be handled.
const REMEMBERED: usize = 1000;
const METADATA_ATTEMPTS: usize = 20;
const METADATA_PAUSE: Duration = Duration::from_millis(50);
const GOODBYE: Duration = Duration::from_millis(20);

/// What happened to an order.
#[derive(Debug, Clone)]
pub struct Event {
    /// The order's id: events of one order keep their order.
    pub key: String,
    /// JSON.
    pub payload: String,
    /// The span that it belongs to.
    pub traceparent: String,
}

/// An event that is not known to be delivered.
struct Undelivered {
    event: Event,
    /// The producer still has it and will say what became of it.
    in_flight: Option<DeliveryFuture>,
}

/// The event bus.
pub struct Bus {
    producer: FutureProducer<Context>,
    consumer: Arc<StreamConsumer<Context>>,
    /// The topic that the consumer listens to.
    events: String,
    /// Keys of the last events that were handled.
    handled: watch::Sender<VecDeque<Vec<u8>>>,
    assigned: watch::Receiver<bool>,
    outbox: Mutex<Vec<Undelivered>>,
    /// Whether the producer was last heard to be cut off.
    down: Arc<AtomicBool>,
    seen: AtomicU64,
    blocks: bool,
    stops: bool,
}

impl Bus {
    /// Producer and consumer; both connect in the background.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn new(brokers: &str, events: Option<String>, bug: Option<Bug>) -> KafkaResult<Arc<Bus>> {
        let (sender, assigned) = watch::channel(false);
        let assignment = Arc::new(sender);
        let down = Arc::new(AtomicBool::new(false));
        let context = |role, down| Context { role, down, assignment: assignment.clone() };
        let producer = config(brokers)
            // Not idempotent: the outbox sends again what it does not know to have arrived, so consumers
            // must know an event by its id anyway.
            .set("acks", mutation::pick("event-acks", "all", "1"))
            .set("linger.ms", "0")
            .create_with_context(context("producer", down.clone()))?;
        let consumer: StreamConsumer<Context> = config(brokers)
            .set("group.id", GROUP)
            // A group that has committed nothing has handled nothing.
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("allow.auto.create.topics", "true")
            .set("session.timeout.ms", "6000")
            // Who waits for the others to rejoin waits so long.
            .set("heartbeat.interval.ms", "300")
            .create_with_context(context("consumer", Arc::default()))?;
        Ok(Arc::new(Bus {
            producer,
            consumer: Arc::new(consumer),
            events: events.unwrap_or_else(|| TOPIC.to_owned()),
            handled: watch::Sender::default(),
            assigned,
            outbox: Mutex::default(),
            down,
            seen: AtomicU64::new(0),
            blocks: bug == Some(Bug::BusBlock),
            stops: bug == Some(Bug::RebalanceStop),
        }))
    }

    /// Waits until the producer knows the topics (asking for one creates it), joins the consumer group,
    /// and waits for a part of the topic. The group is joined whether or not the bus answers.
    pub async fn warm(&self) {
        self.wait_leader(TOPIC.to_owned()).await;
        if self.events != TOPIC {
            self.wait_leader(self.events.clone()).await;
        }
        if let Err(error) = self.consumer.subscribe(&[&self.events]) {
            log::warn("no consumer", json!({ "why": error.to_string() }));
        }
        self.wait_assigned(true).await;
    }

    async fn wait_leader(&self, topic: String) {
        for _ in 0..METADATA_ATTEMPTS {
            let (producer, topic) = (self.producer.clone(), topic.clone());
            let asked = tokio::task::spawn_blocking(move || {
                let metadata = producer.client().fetch_metadata(Some(&topic), PUBLISH_LIMIT)?;
                let has_leader = |t: &MetadataTopic| !t.partitions().is_empty() && t.error().is_none();
                Ok::<_, KafkaError>(metadata.topics().iter().all(has_leader))
            });
            match asked.await {
                // A topic that has just been made may have no leader yet.
                Ok(Ok(false)) => tokio::time::sleep(METADATA_PAUSE).await,
                Ok(Ok(true)) | Err(_) => break,
                Ok(Err(error)) => {
                    log::warn("no event bus yet", json!({ "why": error.to_string() }));
                    break;
                }
            }
        }
    }

    async fn wait_assigned(&self, wanted: bool) {
        // The sender lives as long as the consumer.
        let _ = self.assigned.clone().wait_for(|assigned| *assigned == wanted).await;
    }

    /// Publishes an event; whether it is known to have arrived.
    pub async fn publish(&self, event: Event) -> bool {
        let mut delivery = match self.enqueue(&event) {
            Ok(delivery) => delivery,
            Err(error) => return self.keep(event, None, &error.to_string()),
        };
        // ORDERS_BUG=bus-block: no limit.
        let limit = if self.blocks { Duration::MAX } else { PUBLISH_LIMIT };
        match tokio::time::timeout(limit, &mut delivery).await {
            Ok(Ok(Ok(_))) => self.arrived(),
            Ok(Ok(Err((error, _)))) => self.keep(event, None, &error.to_string()),
            Ok(Err(_)) => self.keep(event, None, "the producer is gone"),
            Err(_) => self.keep(event, Some(delivery), "no acknowledgement in time"),
        }
    }

    /// Looks after the outbox: what has arrived leaves it, what has failed is sent again.
    pub async fn drain(&self) {
        let waiting = std::mem::take(&mut *self.outbox.lock().unwrap_or_else(PoisonError::into_inner));
        for mut undelivered in waiting {
            undelivered.in_flight = match undelivered.in_flight.take() {
                None => self.enqueue(&undelivered.event).ok(),
                Some(mut delivery) => match tokio::time::timeout(Duration::ZERO, &mut delivery).await {
                    Ok(Ok(Ok(_))) => {
                        self.arrived();
                        log::info(
                            "event delivered from the outbox",
                            json!({ "order": undelivered.event.key }),
                        );
                        continue;
                    }
                    Ok(_) => None,
                    Err(_) => Some(delivery),
                },
            };
            self.outbox.lock().unwrap_or_else(PoisonError::into_inner).push(undelivered);
        }
    }

    /// Handles what arrives, for ever.
    pub async fn listen(&self) {
        loop {
            match self.consumer.recv().await {
                Ok(message) => {
                    let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
                    let offset = message.offset();
                    log::info(
                        "event seen",
                        json!({ "topic": message.topic(), "offset": offset, "seen": seen }),
                    );
                    let committed = self.commit(&message).await;
                    self.remember(message.key().unwrap_or_default());
                    if let Err(error) = committed {
                        log::warn("commit", json!({ "offset": offset, "why": error.to_string() }));
                        // ORDERS_BUG=rebalance-stop: takes it for the end.
                        if self.stops {
                            return;
                        }
                    }
                }
                Err(error) => self.consumer.context().failed(&error),
            }
        }
    }

    /// Whether the event with this key has been handled here; waits for it for [`HANDLED_LIMIT`] at most.
    pub async fn handles(&self, key: &str) -> bool {
        let mut handled = self.handled.subscribe();
        let known = handled.wait_for(|keys| keys.iter().any(|known| known == key.as_bytes()));
        tokio::time::timeout(HANDLED_LIMIT, known).await.is_ok()
    }

    fn remember(&self, key: &[u8]) {
        self.handled.send_modify(|keys| {
            if keys.len() == REMEMBERED {
                keys.pop_front();
            }
            keys.push_back(key.to_owned());
        });
    }

    async fn commit(&self, message: &BorrowedMessage<'_>) -> KafkaResult<()> {
        let mut next = TopicPartitionList::new();
        next.add_partition_offset(
            message.topic(),
            message.partition(),
            Offset::Offset(message.offset() + 1),
        )?;
        let consumer = self.consumer.clone();
        let committing = tokio::task::spawn_blocking(move || consumer.commit(&next, CommitMode::Sync));
        // It is cut off only when the process ends.
        committing.await.unwrap_or(Ok(()))
    }

    /// Leaves the consumer group, so that the next member need not wait for this one's session to end.
    pub async fn leave(self: &Arc<Self>) {
        let bus = self.clone();
        // It fails only where the task cannot be run, and then there is nobody to tell.
        let _ = tokio::task::spawn_blocking(move || bus.consumer.unsubscribe()).await;
        self.wait_assigned(false).await;
        // librdkafka says goodbye in the background and not when it has.
        tokio::time::sleep(GOODBYE).await;
    }

    fn enqueue(&self, event: &Event) -> Result<DeliveryFuture, KafkaError> {
        let mut headers = OwnedHeaders::new().insert(Header {
            key: "content-type",
            value: Some(mutation::pick("event-content-type", "application/json", "text/plain")),
        });
        if !mutation::is_on("event-header-missing") {
            headers = headers.insert(Header { key: HEADER, value: Some(event.traceparent.as_str()) });
        }
        let mut record = FutureRecord::to(mutation::pick("event-topic", TOPIC, "orders.created"))
            .key(mutation::pick("event-key", event.key.as_str(), "order"))
            .payload(mutation::pick("event-empty", event.payload.as_str(), ""))
            .headers(headers);
        if mutation::is_on("event-key-missing") {
            record.key = None;
        }
        self.producer.send_result(record).map_err(|(error, _)| error)
    }

    fn arrived(&self) -> bool {
        self.down.store(false, Ordering::Relaxed);
        true
    }

    fn keep(&self, event: Event, in_flight: Option<DeliveryFuture>, why: &str) -> bool {
        log::warn("event kept in the outbox", json!({ "order": event.key, "why": why }));
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.push(Undelivered { event, in_flight });
        false
    }
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "orders-api")
        .set("broker.address.family", "v4")
        // Half of it is also what librdkafka lets pass between two connections that it opens unasked.
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "500")
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Error);
    config
}

/// What librdkafka tells: said once when the bus goes away, not at every attempt to reach it.
struct Context {
    role: &'static str,
    down: Arc<AtomicBool>,
    assignment: Arc<watch::Sender<bool>>,
}

impl Context {
    fn failed(&self, error: &KafkaError) {
        if !self.down.swap(true, Ordering::Relaxed) {
            log::warn("event bus", json!({ "role": self.role, "why": error.to_string() }));
        }
    }
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, error: KafkaError, _reason: &str) {
        self.failed(&error);
    }
}

impl ConsumerContext for Context {
    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                self.down.store(false, Ordering::Relaxed);
                self.assignment.send_replace(partitions.count() > 0);
            }
            Rebalance::Revoke(_) => {
                self.assignment.send_replace(false);
            }
            Rebalance::Error(error) => self.failed(error),
        }
    }
}
