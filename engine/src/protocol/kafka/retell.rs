//! Produce, Fetch, CreateTopics and DeleteTopics as frames. Of the other apis a journal has not all fields.
//! Versions are those that were spoken, or older where [`VERSIONS`] ends; batches are cut and compressed anew.

use super::codec::{Head, encode_request, encode_response};
use super::message;
use crate::protocol::retell::{Pieces, Retell};
use faultbox_bundle_format::Value;
use kafka_protocol::messages::{RequestKind, ResponseKind};

/// Api, its key, the lowest and the highest version that is written.
const VERSIONS: &[(&str, i16, i16, i16)] =
    &[("Produce", 0, 3, 7), ("Fetch", 1, 4, 10), ("CreateTopics", 19, 2, 4), ("DeleteTopics", 20, 1, 3)];

/// A connection of Kafka.
#[derive(Default)]
pub struct Retold {
    correlation: i32,
}

impl Retell for Retold {
    fn exchange(&mut self, request: &Value, response: Option<&Value>) -> Result<Pieces, String> {
        let text = |name: &str| request.get(name).and_then(Value::as_text);
        let api = text("api").unwrap_or_default();
        let known = VERSIONS.iter().find(|(name, ..)| *name == api);
        let (_, key, min, max) = known.ok_or_else(|| format!("a journal does not have all of {api}"))?;
        let spoken = request.get("version").and_then(Value::as_int).and_then(|v| i16::try_from(v).ok());
        self.correlation = self.correlation.wrapping_add(1);
        let head = Head {
            api: *key,
            version: spoken.unwrap_or(*max).clamp(*min, *max),
            correlation: self.correlation,
            client: text("client").map(str::to_owned),
        };
        let kind: RequestKind = match api {
            "Produce" => message::produce_request(request).into(),
            "Fetch" => message::fetch_request(request).into(),
            "CreateTopics" => message::create_topics_request(request).into(),
            _ => message::delete_topics_request(request).into(),
        };
        let answer = |value: &Value| -> ResponseKind {
            match api {
                "Produce" => message::produce_response(value).into(),
                "Fetch" => message::fetch_response(value).into(),
                "CreateTopics" => message::create_topics_response(value).into(),
                _ => message::delete_topics_response(value).into(),
            }
        };
        let asked = encode_request(&head, &kind).map_err(|error| error.to_string())?;
        let answered = response.map(|value| encode_response(&head, &answer(value))).transpose();
        let answered = answered.map_err(|error| error.to_string())?.unwrap_or_default();
        Ok(Pieces { before: Vec::new(), request: asked.to_vec(), response: answered.to_vec() })
    }
}
