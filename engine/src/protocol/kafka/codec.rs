//! Bytes to frames and back: length-framed requests and responses of Kafka's protocol.
//!
//! Contract: sans-io; decoders tell a message, "more bytes are needed" and an error apart, never
//! panic, and prove every length before they allocate ([`super::shape`]). A request of an api or a
//! version that is not decoded is [`Decoded::Opaque`]: it can be forwarded, not understood.
//! Not modelled: SASL (its requests are opaque), topic ids on the wire (see `SHAPES`).

use super::shape::{self, Shape};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable};

/// Largest frame that is taken in whole. Brokers allow 100 MiB by default; some are set higher.
pub const FRAME_MAX: usize = 512 << 20;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub String);

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
}

impl Framer {
    /// The buffer to read into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        crate::protocol::with_room(&mut self.buffer)
    }

    /// The next frame without its length; `None` while more bytes are needed.
    ///
    /// # Errors
    /// When what stands there is no length of a frame.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, CodecError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let len = i32::from_be_bytes(*prefix);
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= FRAME_MAX) else {
            return Err(CodecError(format!("{len} is no length of a frame")));
        };
        if self.buffer.len() < 4 + len {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    /// What was read and is not a frame.
    pub fn take_rest(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }
}

/// A frame with its length in front.
pub fn framed(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 4);
    // A frame that was read or built here is below `FRAME_MAX`.
    out.put_i32(i32::try_from(payload.len()).unwrap_or(i32::MAX));
    out.put_slice(payload);
    out.freeze()
}

/// The front of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The api key.
    pub api: i16,
    /// Its version.
    pub version: i16,
    /// Names the request on its connection.
    pub correlation: i32,
    /// What the client calls itself.
    pub client: Option<String>,
}

impl Head {
    /// The api's name.
    pub fn name(&self) -> String {
        match shape::of(self.api) {
            Some(shape) => shape.name.to_owned(),
            None => match ApiKey::try_from(self.api) {
                Ok(key) => format!("{key:?}"),
                Err(()) => format!("api {}", self.api),
            },
        }
    }

    fn shape(&self) -> Option<&'static Shape> {
        shape::of(self.api).filter(|s| self.version >= s.min && self.version <= s.max)
    }
}

/// The body of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// Understood.
    Known(Box<RequestKind>),
    /// An api or a version that is forwarded as it is.
    Opaque,
}

/// Decodes a request.
///
/// # Errors
/// When the frame is no request.
pub fn decode_request(frame: &Bytes) -> Result<(Head, Decoded), CodecError> {
    let mut front = frame.clone();
    if front.remaining() < 8 {
        return Err(CodecError("a request shorter than its header".into()));
    }
    let (api, version, correlation) = (front.get_i16(), front.get_i16(), front.get_i32());
    let mut head = Head { api, version, correlation, client: None };
    let (Some(shape), Ok(key)) = (head.shape(), ApiKey::try_from(api)) else {
        return Ok((head, Decoded::Opaque));
    };
    let mut body = frame.clone();
    let header = RequestHeader::decode(&mut body, key.request_header_version(version)).map_err(wrong)?;
    head.client = header.client_id.map(|id| id.to_string());
    shape::check(api, shape.request, version, &body)?;
    let kind = RequestKind::decode(key, &mut body, version).map_err(wrong)?;
    Ok((head, Decoded::Known(Box::new(kind))))
}

/// Encodes a request, with its length in front.
///
/// # Errors
/// When the message has fields that its version cannot say.
pub fn encode_request(head: &Head, kind: &RequestKind) -> Result<Bytes, CodecError> {
    let key = ApiKey::try_from(head.api).map_err(|()| CodecError(format!("no api {}", head.api)))?;
    let header = RequestHeader::default()
        .with_request_api_key(head.api)
        .with_request_api_version(head.version)
        .with_correlation_id(head.correlation)
        .with_client_id(head.client.clone().map(Into::into));
    let mut out = BytesMut::new();
    header.encode(&mut out, key.request_header_version(head.version)).map_err(wrong)?;
    kind.encode(&mut out, head.version).map_err(wrong)?;
    Ok(framed(&out))
}

/// The correlation id of a response.
///
/// # Errors
/// When the frame is shorter than one.
pub fn response_correlation(frame: &Bytes) -> Result<i32, CodecError> {
    let id = frame.first_chunk::<4>().ok_or_else(|| CodecError("a response without its header".into()))?;
    Ok(i32::from_be_bytes(*id))
}

/// Decodes the response to a request.
///
/// # Errors
/// When the frame is no response to it, or the api is not decoded.
pub fn decode_response(head: &Head, frame: &Bytes) -> Result<ResponseKind, CodecError> {
    let (Some(shape), Ok(key)) = (head.shape(), ApiKey::try_from(head.api)) else {
        return Err(CodecError(format!("{} v{} is not decoded", head.name(), head.version)));
    };
    let mut body = frame.clone();
    ResponseHeader::decode(&mut body, key.response_header_version(head.version)).map_err(wrong)?;
    let mut version = head.version;
    // A broker that does not know the version of an ApiVersions request answers in version 0.
    if key == ApiKey::ApiVersions && body.starts_with(&35i16.to_be_bytes()) {
        version = 0;
    }
    shape::check(head.api, shape.response, version, &body)?;
    ResponseKind::decode(key, &mut body, version).map_err(wrong)
}

/// Encodes the response to a request, with its length in front.
///
/// # Errors
/// When the message has fields that the request's version cannot say.
pub fn encode_response(head: &Head, kind: &ResponseKind) -> Result<Bytes, CodecError> {
    let key = ApiKey::try_from(head.api).map_err(|()| CodecError(format!("no api {}", head.api)))?;
    let mut out = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(head.correlation);
    header.encode(&mut out, key.response_header_version(head.version)).map_err(wrong)?;
    let version = match kind {
        ResponseKind::ApiVersions(answer) if answer.error_code == 35 => 0,
        _ => head.version,
    };
    kind.encode(&mut out, version).map_err(wrong)?;
    Ok(framed(&out))
}

fn wrong(error: impl std::fmt::Display) -> CodecError {
    CodecError(format!("{error:#}"))
}

/// Feeds bytes from outside to every decoder of this protocol.
pub fn fuzz_one(bytes: &[u8]) {
    let mut framer = Framer::default();
    framer.buffer().extend_from_slice(bytes);
    while let Ok(Some(frame)) = framer.next_frame() {
        fuzz_frame(&frame);
    }
    fuzz_frame(&Bytes::copy_from_slice(bytes));
}

fn fuzz_frame(frame: &Bytes) {
    if let Ok((head, Decoded::Known(kind))) = decode_request(frame) {
        let _ = super::message::describe(&head, &kind);
        let _ = encode_request(&head, &kind);
    }
    // The first two bytes choose what the rest is a response to.
    if let [api, version, rest @ ..] = frame.as_ref()
        && let Some(shape) = shape::SHAPES.get(usize::from(*api) % shape::SHAPES.len())
    {
        let version = shape.min + i16::from(*version) % (shape.max - shape.min + 1);
        let head = Head { api: shape.api, version, correlation: 0, client: None };
        if let Ok(kind) = decode_response(&head, &Bytes::copy_from_slice(rest)) {
            let _ = super::message::response_value(&kind);
            let _ = encode_response(&head, &kind);
        }
    }
    let _ = super::records::decode_all(frame);
}

#[cfg(test)]
mod tests {
    use super::super::{message, records, rules, topic_name};
    use super::*;
    use kafka_protocol::messages::*;
    use proptest::prelude::*;
    use records::Record;

    fn record() -> impl Strategy<Value = Record> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
        let headers = proptest::collection::vec(("[a-b]{0,2}", bytes()), 0..3);
        (0i64..1 << 40, bytes(), bytes(), headers).prop_map(|(timestamp, key, value, headers)| Record {
            offset: 0,
            timestamp,
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers: headers
                .into_iter()
                .map(|(k, v)| (Bytes::from(k.into_bytes()), v.map(Bytes::from)))
                .collect(),
        })
    }

    fn batch() -> impl Strategy<Value = Vec<Record>> {
        (0i64..1 << 40, proptest::collection::vec(record(), 1..5)).prop_map(|(base, mut records)| {
            records.iter_mut().enumerate().for_each(|(n, record)| record.offset = base + n as i64);
            records
        })
    }

    fn produce(records: &[Record], acks: i16) -> RequestKind {
        let data = produce_request::PartitionProduceData::default()
            .with_index(3)
            .with_records(Some(records::encode(records)));
        let topic = produce_request::TopicProduceData::default()
            .with_name(topic_name("orders.events"))
            .with_partition_data(vec![data]);
        ProduceRequest::default().with_acks(acks).with_timeout_ms(5).with_topic_data(vec![topic]).into()
    }

    /// One request of every api that is decoded.
    fn requests() -> Vec<(i16, RequestKind)> {
        let fetch = fetch_request::FetchTopic::default()
            .with_topic(topic_name("t"))
            .with_partitions(vec![fetch_request::FetchPartition::default().with_partition(1)]);
        let forgotten =
            fetch_request::ForgottenTopic::default().with_topic(topic_name("u")).with_partitions(vec![1, 2]);
        let list = list_offsets_request::ListOffsetsTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![list_offsets_request::ListOffsetsPartition::default().with_timestamp(-2)]);
        let commit = offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![offset_commit_request::OffsetCommitRequestPartition::default()]);
        let create = create_topics_request::CreatableTopic::default()
            .with_name(topic_name("t"))
            .with_assignments(vec![
                create_topics_request::CreatableReplicaAssignment::default().with_broker_ids(vec![1.into()]),
            ])
            .with_configs(vec![create_topics_request::CreatableTopicConfig::default().with_name("c".into())]);
        let join = join_group_request::JoinGroupRequestProtocol::default()
            .with_name("range".into())
            .with_metadata(Bytes::from_static(b"m"));
        let sync = sync_group_request::SyncGroupRequestAssignment::default().with_member_id("m".into());
        let group =
            offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(GroupId("g".into()));
        let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name("t")));
        vec![
            (0, produce(&[Record::default()], -1)),
            (1, FetchRequest::default().with_topics(vec![fetch]).into()),
            (1, FetchRequest::default().with_forgotten_topics_data(vec![forgotten]).into()),
            (2, ListOffsetsRequest::default().with_topics(vec![list]).into()),
            (3, MetadataRequest::default().with_topics(Some(vec![asked])).into()),
            (3, MetadataRequest::default().with_topics(None).into()),
            (8, OffsetCommitRequest::default().with_topics(vec![commit]).into()),
            (9, OffsetFetchRequest::default().with_topics(None).into()),
            (9, OffsetFetchRequest::default().with_groups(vec![group]).into()),
            (10, FindCoordinatorRequest::default().into()),
            (11, JoinGroupRequest::default().with_protocols(vec![join]).into()),
            (12, HeartbeatRequest::default().into()),
            (13, LeaveGroupRequest::default().into()),
            (14, SyncGroupRequest::default().with_assignments(vec![sync]).into()),
            (15, DescribeGroupsRequest::default().with_groups(vec![GroupId("g".into())]).into()),
            (16, ListGroupsRequest::default().into()),
            (
                18,
                ApiVersionsRequest::default()
                    .with_client_software_name("c".into())
                    .with_client_software_version("1".into())
                    .into(),
            ),
            (19, CreateTopicsRequest::default().with_topics(vec![create]).into()),
            (20, DeleteTopicsRequest::default().with_topic_names(vec![topic_name("t")]).into()),
            (22, InitProducerIdRequest::default().into()),
            (42, DeleteGroupsRequest::default().with_groups_names(vec![GroupId("g".into())]).into()),
            (60, DescribeClusterRequest::default().into()),
        ]
    }

    #[test]
    fn every_api_and_version_is_walked_decoded_and_encoded_again() {
        let mut seen = std::collections::BTreeSet::new();
        for (api, kind) in requests() {
            let shape = shape::of(api).unwrap();
            for version in shape.min..=shape.max {
                let head = Head { api, version, correlation: 7, client: Some("me".into()) };
                // Some versions cannot say what the example says.
                let Ok(bytes) = encode_request(&head, &kind) else { continue };
                let (again, decoded) =
                    decode_request(&bytes.slice(4..)).unwrap_or_else(|e| panic!("{head:?}: {e}"));
                assert_eq!(again, head);
                let Decoded::Known(decoded) = decoded else { panic!("{head:?} is opaque") };
                assert_eq!(encode_request(&head, &decoded).unwrap(), bytes, "{head:?}");
                seen.insert((api, version));
                let Some(answer) = rules::error_response(&decoded, 6, Some("why")) else { continue };
                let Ok(bytes) = encode_response(&head, &answer) else { continue };
                let decoded =
                    decode_response(&head, &bytes.slice(4..)).unwrap_or_else(|e| panic!("{head:?}: {e}"));
                assert_eq!(encode_response(&head, &decoded).unwrap(), bytes, "{head:?}");
            }
        }
        let missing: Vec<_> = shape::SHAPES
            .iter()
            .flat_map(|s| (s.min..=s.max).map(|v| (s.api, v)))
            .filter(|pair| !seen.contains(pair))
            .collect();
        assert_eq!(missing, []);
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_anything_is_allocated() {
        // Metadata version 1 with 2^31 - 1 topics.
        let mut frame = vec![0, 3, 0, 1, 0, 0, 0, 9, 0xff, 0xff];
        frame.extend(i32::MAX.to_be_bytes());
        assert!(decode_request(&Bytes::from(frame)).is_err());
        // Produce response version 10 with a tagged array of as many endpoints.
        let head = Head { api: 0, version: 10, correlation: 0, client: None };
        let frame = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(decode_response(&head, &Bytes::copy_from_slice(&frame)).is_err());
    }

    #[test]
    fn what_is_not_decoded_is_opaque() {
        let frame = |api: i16, version: i16| {
            let mut bytes = BytesMut::new();
            bytes.put_i16(api);
            bytes.put_i16(version);
            bytes.put_i32(5);
            bytes.put_slice(b"whatever");
            bytes.freeze()
        };
        for (api, version) in [(1, 13), (0, 13), (36, 2), (71, 0), (999, 3)] {
            let (head, decoded) = decode_request(&frame(api, version)).unwrap();
            assert_eq!((head.correlation, decoded), (5, Decoded::Opaque));
        }
        assert!(decode_request(&Bytes::from_static(b"short")).is_err());
    }

    proptest! {
        #[test]
        fn frames_come_out_the_same_byte_by_byte(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5)) {
            let mut framer = Framer::default();
            let mut got = Vec::new();
            for byte in frames.iter().flat_map(|frame| framed(frame)) {
                framer.buffer().extend_from_slice(&[byte]);
                while let Some(frame) = framer.next_frame().unwrap() {
                    got.push(frame.to_vec());
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(framer.take_rest().is_empty());
        }

        #[test]
        fn produced_records_survive_request_value_and_fetch(batch in batch(), version in 3i16..=12) {
            let head = Head { api: 0, version, correlation: 1, client: None };
            let kind = produce(&batch, -1);
            let bytes = encode_request(&head, &kind).unwrap();
            let (_, decoded) = decode_request(&bytes.slice(4..)).unwrap();
            prop_assert_eq!(&decoded, &Decoded::Known(Box::new(kind.clone())));
            prop_assert_eq!(records::decode_all(&records::encode(&batch)).unwrap(), batch.clone());
            // A fetch that brings them: to a value, and from that value to equal records.
            let data = fetch_response::PartitionData::default().with_records(Some(records::encode(&batch)));
            let topic = fetch_response::FetchableTopicResponse::default().with_topic(topic_name("t")).with_partitions(vec![data]);
            let response = ResponseKind::Fetch(FetchResponse::default().with_responses(vec![topic]));
            let again = message::fetch_response(&message::response_value(&response));
            let got = again.responses[0].partitions[0].records.clone().unwrap();
            prop_assert_eq!(records::decode_all(&got).unwrap(), batch);
        }

        #[test]
        fn truncated_requests_never_panic(batch in batch(), version in 3i16..=12, cut in any::<prop::sample::Index>()) {
            let head = Head { api: 0, version, correlation: 1, client: Some("me".into()) };
            let bytes = encode_request(&head, &produce(&batch, 1)).unwrap();
            let cut = cut.index(bytes.len());
            let mut framer = Framer::default();
            framer.buffer().extend_from_slice(&bytes[..cut]);
            prop_assert_eq!(framer.next_frame(), Ok(None));
            fuzz_one(&bytes[..cut]);
            if cut > 12 {
                prop_assert!(decode_request(&bytes.slice(4..cut)).is_err());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_one(&bytes);
        }

        #[test]
        fn no_flipped_byte_makes_it_panic(batch in batch(), version in 3i16..=12, at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let head = Head { api: 0, version, correlation: 1, client: None };
            let mut bytes = encode_request(&head, &produce(&batch, 1)).unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            fuzz_one(&bytes);
        }

        #[test]
        fn bytes_after_any_known_header_never_panic(which in 0usize..64, body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let shape = &shape::SHAPES[which % shape::SHAPES.len()];
            for version in shape.min..=shape.max {
                let mut frame = BytesMut::new();
                frame.put_i16(shape.api);
                frame.put_i16(version);
                frame.put_i32(1);
                frame.put_i16(-1);
                frame.put_slice(&body);
                fuzz_one(&frame);
                let head = Head { api: shape.api, version, correlation: 0, client: None };
                let _ = decode_response(&head, &Bytes::copy_from_slice(&body));
            }
        }
    }
}
