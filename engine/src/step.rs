//! Steps: what the test driver asks of an interface, and what it gets.

use faultbox_bundle_format::Value;
use std::time::Duration;

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepCall {
    /// The service.
    pub service: String,
    /// Its interface.
    pub interface: String,
    /// The verb (`get`, `query`, `publish`).
    pub verb: String,
    /// Arguments by name, checked against the protocol's verbs at the call.
    pub arguments: Vec<(String, Value)>,
    /// How long to wait; `None` leaves it to what is left of the cell's time.
    pub timeout: Option<Duration>,
    /// `file:line` in the spec.
    pub location: String,
}

impl StepCall {
    /// An argument by name.
    pub fn argument(&self, name: &str) -> Option<&Value> {
        self.arguments.iter().find(|(k, _)| k == name).map(|(_, v)| v)
    }
}

/// What a step got.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepResponse {
    /// The protocol's own success.
    pub ok: bool,
    /// HTTP status, gRPC status, SQL errno; 0 where no answer came.
    pub status: i64,
    /// Headers or metadata, in order.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub body: Vec<u8>,
    /// The decoded body: JSON, rows, a Redis reply.
    pub data: Value,
    /// Why there is no (good) answer.
    pub error: Option<String>,
    /// Whether the step waited in vain.
    pub timed_out: bool,
    /// How long it took.
    pub duration: Duration,
}

impl StepResponse {
    /// No answer came.
    pub fn no_answer(error: impl Into<String>) -> Self {
        StepResponse { error: Some(error.into()), ..StepResponse::default() }
    }

    /// As a map for the journal; the duration is volatile.
    pub fn to_value(&self) -> Value {
        let headers = self.headers.iter().map(|(k, v)| (k.clone(), Value::text(v.clone())));
        Value::map([
            ("ok", Value::Bool(self.ok)),
            ("status", Value::Int(self.status)),
            ("headers", Value::map(headers)),
            ("body", Value::text_or_bytes(&self.body)),
            ("data", self.data.clone()),
            ("error", self.error.clone().map_or(Value::Null, Value::Text)),
            ("timed_out", Value::Bool(self.timed_out)),
            ("duration_ms", Value::Int(self.duration.as_millis() as i64).volatile()),
        ])
    }

    /// The inverse of [`StepResponse::to_value`].
    pub fn from_value(value: &Value) -> Self {
        let text = |v: &Value| v.as_text().unwrap_or_default().to_owned();
        let headers = value.get("headers").and_then(Value::as_map).unwrap_or_default();
        let millis = value.get("duration_ms").and_then(Value::as_int).unwrap_or_default();
        StepResponse {
            ok: value.get("ok").and_then(Value::as_bool).unwrap_or_default(),
            status: value.get("status").and_then(Value::as_int).unwrap_or_default(),
            headers: headers.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
            body: value.get("body").and_then(Value::as_bytes).unwrap_or_default().to_vec(),
            data: value.get("data").cloned().unwrap_or_default(),
            error: value.get("error").and_then(Value::as_text).map(str::to_owned),
            timed_out: value.get("timed_out").and_then(Value::as_bool).unwrap_or_default(),
            duration: Duration::from_millis(u64::try_from(millis).unwrap_or_default()),
        }
    }
}
