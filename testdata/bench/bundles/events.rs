//! Entries as proxies note them: exchanges with what was asked and answered, decisions, output.
//! They differ from one to the next as those of a service under load do, and come out the same in
//! every run.

use faultbox_bundle_format::{
    Body, Class, Decision, Entry, Exchange, Outcome, Output, Payload, Phase, Value,
};
use faultbox_engine::event_sink::MemorySink;
use faultbox_engine::journal::{Journal, Place, Said};
use std::sync::Arc;

/// What the entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Of ten: two of HTTP, three of MySQL, three of Redis, a decision, a line of output.
    Proxies,
    /// Pipelined Redis commands.
    Redis,
    /// Decisions of rules.
    Decisions,
}

impl Mix {
    pub const ALL: [Mix; 3] = [Mix::Proxies, Mix::Redis, Mix::Decisions];

    pub fn name(self) -> &'static str {
        match self {
            Mix::Proxies => "proxies",
            Mix::Redis => "redis",
            Mix::Decisions => "decisions",
        }
    }
}

/// What an entry says.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Http,
    Mysql,
    Redis,
    Decision,
    Output,
}

/// Notes entries of a mix.
pub struct Noter {
    mix: Mix,
    source: Arc<str>,
}

impl Noter {
    pub fn new(mix: Mix) -> Self {
        Noter { mix, source: "api".into() }
    }

    /// What is said as the n-th.
    pub fn said(&self, n: u64) -> Event {
        let kind = match (self.mix, n % 10) {
            (Mix::Redis, _) | (_, 5..8) => Kind::Redis,
            (Mix::Decisions, _) | (_, 8) => Kind::Decision,
            (_, 0..2) => Kind::Http,
            (_, 2..5) => Kind::Mysql,
            _ => Kind::Output,
        };
        let kind = if self.mix == Mix::Decisions { Kind::Decision } else { kind };
        Event { n, kind, source: self.source.clone() }
    }

    pub fn note(&self, journal: &Journal, n: u64) {
        journal.note_later(Phase::Scenario, self.said(n));
    }
}

/// The first entries of a mix, in words.
pub fn entries(mix: Mix, count: u64) -> Vec<Entry> {
    let memory = Arc::new(MemorySink::default());
    let journal = super::journal(memory.clone());
    let noter = Noter::new(mix);
    (0..count).for_each(|n| noter.note(&journal, n));
    memory.drain()
}

/// Something that happened; its words are made by whoever reads it first.
pub struct Event {
    n: u64,
    kind: Kind,
    source: Arc<str>,
}

/// Numbers that do not repeat soon and look like nothing.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n ^ (n >> 27)
}

impl Event {
    fn key(&self) -> &'static str {
        match self.kind {
            Kind::Http => ["POST /orders", "GET /orders/{id}"][(self.n / 10 % 2) as usize],
            Kind::Mysql => {
                ["select * from orders where id = ?", "insert into orders ( user , price ) values ( ? , ? )"]
                    [(self.n / 10 % 2) as usize]
            }
            Kind::Redis => ["GET user:*", "SET user:*"][(self.n % 2) as usize],
            Kind::Decision => "select * from orders where id = ?",
            Kind::Output => "stdout",
        }
    }

    fn interface(&self) -> &'static str {
        match self.kind {
            Kind::Http => "payments.public",
            Kind::Mysql => "db.main",
            Kind::Redis => "cache.main",
            _ => "api",
        }
    }

    fn exchange(&self, place: &Place) -> Exchange {
        let r = mixed(self.n);
        let id = r % 1_000_000;
        let (protocol, operation, request, response) = match self.kind {
            Kind::Http => {
                let headers = |extra: String| {
                    let pair = |a: &str, b: String| Value::List(vec![Value::text(a), Value::text(b)]);
                    Value::List(vec![
                        pair("content-type", "application/json".to_owned()),
                        pair("x-request-id", format!("{r:016x}")),
                        pair("content-length", extra),
                    ])
                };
                let body = format!("{{\"user\":\"user-{id}\",\"price\":{},\"city\":\"Almaty\"}}", r % 9000);
                let request = Value::map([
                    ("method", Value::text("POST")),
                    ("path", Value::text(format!("/orders/{id}"))),
                    ("headers", headers(body.len().to_string())),
                    ("body", Value::text(body.clone())),
                ]);
                let response = Value::map([
                    ("status", Value::Int(200)),
                    ("headers", headers(body.len().to_string())),
                    ("body", Value::text(body)),
                ]);
                ("http", "POST /orders", request, response)
            }
            Kind::Mysql => {
                let request = Value::map([
                    ("command", Value::text("query")),
                    ("sql", Value::text(format!("SELECT * FROM orders WHERE id = {id}"))),
                ]);
                let row = vec![
                    Value::Int(id as i64),
                    Value::text(format!("user-{}", r % 5000)),
                    Value::Int((r % 9000) as i64),
                ];
                let columns = ["id", "user", "price"].map(Value::text).to_vec();
                let response = Value::map([
                    ("columns", Value::List(columns)),
                    ("rows", Value::List(vec![Value::List(row)])),
                ]);
                ("mysql", "SELECT", request, response)
            }
            _ => {
                let words = vec![Value::text("GET"), Value::text(format!("user:{id}"))];
                ("redis", "GET", Value::List(words), Value::text(format!("value-{:x}", r % 100_000)))
            }
        };
        Exchange {
            protocol: protocol.into(),
            source: (*self.source).into(),
            interface: self.interface().into(),
            connection: self.n % 8,
            operation: operation.into(),
            key: self.key().to_owned(),
            class: Class::Work,
            mutating: false,
            repeatable: true,
            request: Payload::of(&request),
            outcome: Outcome::Answered,
            response: Some(Payload::of(&response)),
            rule: None,
            began_ns: place.at_ns().saturating_sub(r % 100_000),
            ended_ns: place.at_ns(),
            began_seq: self.n,
        }
    }
}

impl Said for Event {
    fn stream(&self, name: &mut String) {
        match self.kind {
            Kind::Output => name.extend([&*self.source, " stdout"]),
            Kind::Decision => name.extend(["decision slow#0:", self.key()]),
            _ => {
                let parts = [&*self.source, ">", self.interface(), ":", self.key()];
                name.reserve_exact(parts.iter().map(|part| part.len()).sum());
                name.extend(parts);
            }
        }
    }

    fn entry(self, place: Place) -> Entry {
        let mut stream = String::new();
        self.stream(&mut stream);
        let r = mixed(self.n);
        let body = match self.kind {
            Kind::Decision => Body::Decision(Decision {
                assumption: "slow".to_owned(),
                index: 0,
                key: self.key().to_owned(),
                source: self.source.to_string(),
                matched: self.n,
                draw: self.n,
                fired: r.is_multiple_of(10),
                on_sut: true,
            }),
            Kind::Output => Body::Output(Output {
                service: self.source.to_string(),
                stderr: false,
                bytes: format!(
                    "{{\"level\":\"info\",\"message\":\"request\",\"path\":\"/orders/{}\",\"status\":200,\"took_us\":{}}}\n",
                    r % 1_000_000,
                    r % 977
                )
                .into_bytes(),
            }),
            _ => Body::Exchange(self.exchange(&place)),
        };
        place.entry((*self.source).into(), stream, None, body)
    }
}

/// A bundle of one small cell.
pub fn small(path: &std::path::Path) {
    let recorder = super::recorder(path);
    let journal = super::journal(recorder.clone());
    let noter = Noter::new(Mix::Proxies);
    (0..100).for_each(|n| noter.note(&journal, n));
    recorder.finish().expect("a bundle");
}
