//! The proxy: one connection of a client to the real broker, with rules in between.
//!
//! Contract: requests go upstream in order and at once; answers come back in order, each closed in
//! the journal before its last byte is given to the client. No lockstep: any number of requests may
//! be in flight, Produce with `acks=0` has no answer. Bytes that are no frames of this protocol turn
//! the connection into a plain pipe, noted as one `undecodable` exchange.
//! Not modelled: TLS and SASL (their bytes pass through).

use super::batch::Batch;
use super::codec::{self, Decoded, Framer, Head};
use super::{host_and_port, message, rules, shape};
use crate::fault::rule::Effect;
use crate::link::{Dial, Link, Request, Stream};
use crate::protocol::ProtocolError;
use bytes::Bytes;
use faultbox_bundle_format::{Class, Value};
use kafka_protocol::messages::fetch_request::FetchTopic;
use kafka_protocol::messages::{FetchRequest, RequestKind, ResponseKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Requests that may be in flight on one connection before no more are read.
const IN_FLIGHT: usize = 1024;

/// What the client waits for next.
enum Slot {
    /// The broker's answer.
    Upstream { head: Head, opaque: bool, pending: Batch, manner: Manner },
    /// An answer of a rule.
    Local { pending: Batch, value: Value, bytes: Bytes },
    /// The broker's answer to a copy that the client knows nothing of.
    Discard,
    /// From here on bytes pass as they are.
    Pipe,
}

/// How an answer is given.
#[derive(Debug, Default)]
struct Manner {
    delay: Option<Duration>,
    bytes_per_second: Option<u64>,
    reset_after: Option<u64>,
    /// Whether the delay begins when the answer is there (long polls) or when the request came.
    after_answer: bool,
    began_ns: u64,
}

/// Carries one connection to its end.
///
/// # Errors
/// When the network fails or a rule cuts the connection.
pub async fn run(client: Stream, upstream: Arc<dyn Dial>, link: Arc<Link>) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let server = upstream.dial().await?;
    let (client_reader, client_writer) = tokio::io::split(client);
    let (server_reader, server_writer) = tokio::io::split(server);
    let (slots, queue) = mpsc::channel(IN_FLIGHT);
    let gone = CancellationToken::new();
    let requests =
        Requests { link: link.clone(), connection, server: server_writer, slots, session: Vec::new() };
    let responses = Responses {
        link,
        server: server_reader,
        client: client_writer,
        framer: Framer::default(),
        held: None,
        gone: gone.clone(),
    };
    let mut requests = std::pin::pin!(requests.run(client_reader));
    let mut responses = std::pin::pin!(responses.run(queue));
    tokio::select! {
        ended = &mut responses => ended,
        ended = &mut requests => {
            ended?;
            gone.cancel();
            responses.await
        }
    }
}

struct Requests {
    link: Arc<Link>,
    connection: u64,
    server: WriteHalf<Stream>,
    slots: mpsc::Sender<Slot>,
    /// What the connection's fetch session fetches: later requests of it name changes only.
    session: Vec<FetchTopic>,
}

impl Requests {
    async fn run(mut self, mut client: ReadHalf<Stream>) -> Result<(), ProtocolError> {
        let mut framer = Framer::default();
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => self.request(frame).await?,
                Ok(None) => {
                    if client.read_buf(framer.buffer()).await? == 0 {
                        // What is left is half a request: the broker shall see it as the client sent it.
                        self.server.write_all(&framer.take_rest()).await?;
                        return Ok(self.server.shutdown().await?);
                    }
                }
                Err(error) => {
                    self.undecodable(&error.to_string()).await?;
                    self.server.write_all(&framer.take_rest()).await?;
                    tokio::io::copy(&mut client, &mut self.server).await?;
                    return Ok(self.server.shutdown().await?);
                }
            }
        }
    }

    async fn undecodable(&mut self, why: &str) -> Result<(), ProtocolError> {
        let request = Request {
            operation: "undecodable".into(),
            key: "undecodable".into(),
            fields: Vec::new(),
            class: Class::Control,
            works: false,
            mutating: false,
            repeatable: true,
            body: Value::map([("why", Value::text(why))]),
        };
        let pending = self.link.ask(self.connection, request);
        if pending.firing().is_some_and(|f| f.effect == Effect::Drop) {
            pending.dropped();
            return Err(ProtocolError::Cut);
        }
        pending.one_way();
        self.push(Slot::Pipe).await
    }

    async fn push(&mut self, slot: Slot) -> Result<(), ProtocolError> {
        // The other half ended: so does this one, with its verdict.
        self.slots.send(slot).await.map_err(|_| ProtocolError::Io(std::io::ErrorKind::BrokenPipe.into()))
    }

    async fn request(&mut self, frame: Bytes) -> Result<(), ProtocolError> {
        let (head, decoded) = match codec::decode_request(&frame) {
            Ok(decoded) => decoded,
            // Framed, so its answer can be told apart all the same.
            Err(_) => match frame.first_chunk::<8>() {
                Some([a, b, c, d, e, f, g, h]) => {
                    let (api, version) = (i16::from_be_bytes([*a, *b]), i16::from_be_bytes([*c, *d]));
                    let correlation = i32::from_be_bytes([*e, *f, *g, *h]);
                    (Head { api, version, correlation, client: None }, Decoded::Opaque)
                }
                None => return Ok(self.server.write_all(&codec::framed(&frame)).await?),
            },
        };
        let kind = match decoded {
            Decoded::Known(kind) => Some(self.whole_session(*kind)),
            Decoded::Opaque => None,
        };
        let request = match &kind {
            Some(kind) => message::describe(&head, kind),
            None => message::opaque(&head, &frame),
        };
        let answered = !matches!(&kind, Some(RequestKind::Produce(produce)) if produce.acks == 0);
        let pending = Batch::ask(&self.link, self.connection, request);
        let mut manner = Manner {
            after_answer: matches!(kind, Some(RequestKind::Fetch(_))),
            began_ns: self.link.journal().clock().now_ns(),
            ..Manner::default()
        };
        let mut copies = 1;
        match pending.firing().map(|firing| firing.effect.clone()) {
            None | Some(Effect::Allow | Effect::Respond(_) | Effect::Corrupt) => {}
            Some(Effect::Error(fields)) => {
                let code = rules::error_code(&fields).unwrap_or(-1);
                let kind = kind.as_ref().filter(|_| answered);
                let answer = kind.and_then(|kind| rules::error_response(kind, code, fields.text("message")));
                let encoded = answer.and_then(|a| {
                    Some((message::response_value(&a), codec::encode_response(&head, &a).ok()?))
                });
                let Some((value, bytes)) = encoded else {
                    // No place for an error in the answer (or no answer): a broker closes the connection.
                    pending.dropped();
                    return Err(ProtocolError::Cut);
                };
                return self.push(Slot::Local { pending, value, bytes }).await;
            }
            Some(Effect::Delay(delay)) if answered => manner.delay = Some(delay),
            Some(Effect::Delay(delay)) => self.link.pause(delay).await,
            Some(Effect::Drop) => {
                pending.dropped();
                return Err(ProtocolError::Cut);
            }
            Some(Effect::Duplicate) => copies = 2,
            Some(Effect::Slow { bytes_per_second }) => manner.bytes_per_second = Some(bytes_per_second),
            Some(Effect::ResetAfter { bytes }) => manner.reset_after = Some(bytes),
        }
        if answered {
            self.push(Slot::Upstream { head, opaque: kind.is_none(), pending, manner }).await?;
            if copies == 2 {
                self.push(Slot::Discard).await?;
            }
        } else {
            pending.one_way();
        }
        for _ in 0..copies {
            self.server.write_all(&codec::framed(&frame)).await?;
        }
        Ok(())
    }

    /// A request of a running fetch session with everything that the session fetches in it.
    fn whole_session(&mut self, kind: RequestKind) -> RequestKind {
        let RequestKind::Fetch(mut fetch) = kind else { return kind };
        if fetch.session_epoch <= 0 {
            self.session = fetch.topics.clone();
            return RequestKind::Fetch(fetch);
        }
        self.update_session(&fetch);
        fetch.topics = self.session.clone();
        RequestKind::Fetch(fetch)
    }

    fn update_session(&mut self, fetch: &FetchRequest) {
        for forgotten in &fetch.forgotten_topics_data {
            for topic in self.session.iter_mut().filter(|t| t.topic == forgotten.topic) {
                topic.partitions.retain(|p| !forgotten.partitions.contains(&p.partition));
            }
        }
        for changed in &fetch.topics {
            match self.session.iter_mut().find(|t| t.topic == changed.topic) {
                None => self.session.push(changed.clone()),
                Some(topic) => {
                    topic
                        .partitions
                        .retain(|p| changed.partitions.iter().all(|c| c.partition != p.partition));
                    topic.partitions.extend(changed.partitions.iter().cloned());
                }
            }
        }
        self.session.retain(|topic| !topic.partitions.is_empty());
    }
}

struct Responses {
    link: Arc<Link>,
    server: ReadHalf<Stream>,
    client: WriteHalf<Stream>,
    framer: Framer,
    /// A frame that was read and is the answer to a later request.
    held: Option<Bytes>,
    gone: CancellationToken,
}

impl Responses {
    async fn run(mut self, mut queue: mpsc::Receiver<Slot>) -> Result<(), ProtocolError> {
        let ended = self.answer_all(&mut queue).await;
        // Whatever is still waited for gets no answer any more.
        queue.close();
        while let Ok(slot) = queue.try_recv() {
            if let Slot::Upstream { pending, .. } = slot {
                fail(pending, &self.gone);
            }
        }
        ended
    }

    async fn answer_all(&mut self, queue: &mut mpsc::Receiver<Slot>) -> Result<(), ProtocolError> {
        loop {
            let slot = tokio::select! {
                slot = queue.recv() => slot,
                read = self.server.read_buf(self.framer.buffer()) => match read? {
                    0 => return self.end().await,
                    _ => continue,
                },
            };
            match slot {
                // The client has ended; what the broker still says is for it to say.
                None => return self.pipe().await,
                Some(Slot::Pipe) => return self.pipe().await,
                Some(Slot::Discard) => {
                    if self.frame().await?.is_none() {
                        return self.end().await;
                    }
                }
                Some(Slot::Local { pending, value, bytes }) => {
                    pending.answered(move || value);
                    self.client.write_all(&bytes).await?;
                }
                Some(Slot::Upstream { head, opaque, pending, manner }) => {
                    match self.frame().await {
                        // Some requests have no answer; of those that are not decoded only the next
                        // answer tells.
                        Ok(Some(frame))
                            if opaque && codec::response_correlation(&frame) != Ok(head.correlation) =>
                        {
                            pending.one_way();
                            self.held = Some(frame);
                        }
                        Ok(Some(frame)) => self.answer(head, opaque, pending, manner, frame).await?,
                        Ok(None) => {
                            fail(pending, &self.gone);
                            return self.end().await;
                        }
                        Err(error) => {
                            fail(pending, &self.gone);
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    async fn answer(
        &mut self,
        head: Head,
        opaque: bool,
        pending: Batch,
        manner: Manner,
        frame: Bytes,
    ) -> Result<(), ProtocolError> {
        let (decoded, bytes) = match codec::decode_response(&head, &frame) {
            Ok(mut kind) if !opaque => {
                let changed = rewrite(&mut kind, &self.link.advertised);
                let encoded = if changed { codec::encode_response(&head, &kind).ok() } else { None };
                (Some(kind), encoded.unwrap_or_else(|| codec::framed(&frame)))
            }
            _ => (None, codec::framed(&frame)),
        };
        let value = move || match decoded {
            Some(kind) => message::response_value(&kind),
            None => Value::map([("frame", Value::Bytes(frame.to_vec()).volatile())]),
        };
        if let Some(delay) = manner.delay {
            let spent = match manner.after_answer {
                true => Duration::ZERO,
                false => {
                    let now = self.link.journal().clock().now_ns();
                    Duration::from_nanos(now.saturating_sub(manner.began_ns))
                }
            };
            tokio::select! {
                () = self.link.pause(delay.saturating_sub(spent)) => {}
                // Dropped unanswered: the exchange is abandoned.
                () = self.gone.cancelled() => return Ok(()),
            }
        }
        if let Some(limit) = manner.reset_after {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            if limit < bytes.len() {
                pending.dropped();
                self.client.write_all(bytes.get(..limit).unwrap_or_default()).await?;
                self.client.flush().await?;
                return Err(ProtocolError::Cut);
            }
        }
        let Some(rate) = manner.bytes_per_second else {
            pending.answered(value);
            return Ok(self.client.write_all(&bytes).await?);
        };
        let chunk = usize::try_from(rate.div_ceil(10)).unwrap_or(usize::MAX).max(1);
        let (mut rest, mut last) = (bytes, Some((pending, value)));
        while !rest.is_empty() {
            let now = rest.split_to(chunk.min(rest.len()));
            self.link.pause(Duration::from_millis(100)).await;
            if rest.is_empty()
                && let Some((pending, value)) = last.take()
            {
                pending.answered(value);
            }
            self.client.write_all(&now).await?;
        }
        Ok(())
    }

    /// The broker's next frame; `None` at its end.
    async fn frame(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        loop {
            match self.framer.next_frame() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {
                    if self.server.read_buf(self.framer.buffer()).await? == 0 {
                        return Ok(None);
                    }
                }
                Err(error) => {
                    // Not ours to judge: the client gets what the broker said.
                    let rest = self.framer.take_rest();
                    self.client.write_all(&rest).await?;
                    return Err(ProtocolError::Malformed(error.to_string()));
                }
            }
        }
    }

    async fn pipe(&mut self) -> Result<(), ProtocolError> {
        let rest = self.framer.take_rest();
        self.client.write_all(&rest).await?;
        tokio::io::copy(&mut self.server, &mut self.client).await?;
        self.end().await
    }

    async fn end(&mut self) -> Result<(), ProtocolError> {
        let rest = self.framer.take_rest();
        self.client.write_all(&rest).await?;
        Ok(self.client.shutdown().await?)
    }
}

fn fail(pending: Batch, gone: &CancellationToken) {
    // Where the client went first, nobody failed it: dropping the exchange notes it as abandoned.
    if !gone.is_cancelled() {
        pending.failed("the broker closed the connection");
    }
}

/// Puts the interface's own address in place of brokers' and caps versions. True if anything changed.
fn rewrite(kind: &mut ResponseKind, advertised: &str) -> bool {
    let (host, port) = host_and_port(advertised);
    match kind {
        ResponseKind::Metadata(response) => {
            for broker in &mut response.brokers {
                (broker.host, broker.port) = (host.clone().into(), port);
            }
            !response.brokers.is_empty()
        }
        ResponseKind::DescribeCluster(response) => {
            for broker in &mut response.brokers {
                (broker.host, broker.port) = (host.clone().into(), port);
            }
            !response.brokers.is_empty()
        }
        ResponseKind::FindCoordinator(response) => {
            // Where there is none the port is no port, and stays it.
            if response.port > 0 {
                (response.host, response.port) = (host.clone().into(), port);
            }
            for coordinator in response.coordinators.iter_mut().filter(|c| c.port > 0) {
                (coordinator.host, coordinator.port) = (host.clone().into(), port);
            }
            true
        }
        ResponseKind::Produce(response) => {
            for endpoint in &mut response.node_endpoints {
                (endpoint.host, endpoint.port) = (host.clone().into(), port);
            }
            !response.node_endpoints.is_empty()
        }
        ResponseKind::ApiVersions(response) => {
            for api in &mut response.api_keys {
                if let Some(shape) = shape::of(api.api_key) {
                    api.max_version = api.max_version.min(shape.max).max(api.min_version);
                }
            }
            true
        }
        _ => false,
    }
}
