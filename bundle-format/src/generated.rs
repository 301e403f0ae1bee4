//! Generated values: ids, times and trace ids that a run makes up, found in messages.
//!
//! Contract: pure. [`Scanner::template`] of two messages is equal if and only if they say
//! the same up to generated values; [`Scanner::bind`] then pairs the values, and
//! [`substitute`] puts one side's values into another message. What is no generated value is
//! never touched: numbers far from the clock, signed tokens (JWT), ids that are no UUIDs.
//! Not modelled: values that are generated and look like nothing in particular (random
//! digits), and times further than a day from the run.

use crate::Value;
use crate::event::Named;
use crate::learned::{self, Active, Rule, Side, Sight};
use crate::limits;
use regex::bytes::{Captures, Regex};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

/// What kind of generated value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A UUID (with or without hyphens, or its sixteen bytes).
    Uuid,
    /// A ULID made near the time of the run.
    Ulid,
    /// A document id that begins with the time of the run.
    ObjectId,
    /// The salted hash of a password.
    PasswordHash,
    /// RFC 3339 with `T` and a zone.
    Time,
    /// Date and time with a space, or without a zone.
    DateTime,
    /// The date of the run.
    Date,
    /// An HTTP date.
    HttpDate,
    /// Seconds since the epoch.
    UnixS,
    /// Milliseconds since the epoch.
    UnixMs,
    /// Microseconds since the epoch.
    UnixUs,
    /// Nanoseconds since the epoch.
    UnixNs,
    /// A trace id.
    Trace,
    /// A span id.
    Span,
    /// A port of this machine that no interface has.
    Port,
    /// The token of a secret. Equal in equal values, different in every bundle.
    Secret,
    /// The address of an interface. Its text is `@service.interface`.
    Address,
    /// What a rule found ([`crate::learned`]).
    Learned,
}

impl Kind {
    /// The word in a placeholder.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Uuid => "uuid",
            Kind::Ulid => "ulid",
            Kind::ObjectId => "objectid",
            Kind::PasswordHash => "password-hash",
            Kind::Time => "time",
            Kind::DateTime => "datetime",
            Kind::Date => "date",
            Kind::HttpDate => "http-date",
            Kind::UnixS => "unix-s",
            Kind::UnixMs => "unix-ms",
            Kind::UnixUs => "unix-us",
            Kind::UnixNs => "unix-ns",
            Kind::Trace => "trace",
            Kind::Span => "span",
            Kind::Port => "port",
            Kind::Secret => "secret",
            Kind::Address => "address",
            Kind::Learned => "learned",
        }
    }

    /// Whether equal values of this kind mean that one is the other. Two times are equal by
    /// chance where the clock is coarse, so their equality says nothing.
    fn identifies(self) -> bool {
        matches!(
            self,
            Kind::Uuid
                | Kind::Ulid
                | Kind::ObjectId
                | Kind::PasswordHash
                | Kind::Trace
                | Kind::Span
                | Kind::Secret
        )
    }
}

/// A generated value where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Its kind.
    pub kind: Kind,
    /// The value as it stands there (integers in decimal, binary UUIDs in hexadecimal).
    pub text: String,
    /// What it is a hole for beyond its kind: the name of a secret or of an interface.
    pub name: String,
}

impl Generated {
    /// Whether equal values mean that one is the other: not those of times, nor short ones that were learned.
    pub fn identifies(&self) -> bool {
        self.kind.identifies() || self.kind == Kind::Learned && learned::is_telling(&self.text)
    }

    /// The value without what spelling adds: equal for two spellings of one UUID.
    pub fn identity(&self) -> String {
        match self.kind {
            Kind::Uuid => self.text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect(),
            _ => self.text.clone(),
        }
    }
}

const DAY_NS: i128 = 86_400_000_000_000;

static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    let parts = [
        r"(?P<jwt>eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*)",
        r"(?P<secret><secret (?P<name>[A-Za-z0-9_.-]{1,80})#[0-9a-f]{4,32}>)",
        r"(?:(?P<v>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2})",
        r"(?P<uuid>[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[1-8][0-9A-Fa-f]{3}-[89abAB][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12})",
        r"(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?(?P<zone>[Zz]|[+-][0-9]{2}:?[0-9]{2})?)",
        r"(?P<http>(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT)",
        r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})",
        r"(?P<address>(?:127\.0\.0\.1|localhost|\[::1\]):(?P<port>[0-9]{1,5}))",
        r"(?P<simple>[0-9a-f]{12}[147][0-9a-f]{3}[89ab][0-9a-f]{15})",
        r"(?P<hash>(?:\$(?:2[abxy]?|argon2(?:id|i|d)|scrypt|pbkdf2(?:-[a-z0-9]+)?|[156y])|argon2|bcrypt(?:_sha256)?|(?:pbkdf2|scrypt)[a-z0-9_:]*|md5|sha1)\$[A-Za-z0-9./+=,_$-]{28,160})",
        r"(?P<object>[0-9a-f]{24})",
        r"(?P<ulid>[0-7][0-9A-HJKMNP-TV-Z]{25})",
        r"(?P<digits>[0-9]{19}|[0-9]{16}|[0-9]{13}|[0-9]{10})",
    ];
    // Fixed at compile time; a test compiles it.
    Regex::new(&format!("(?-u){}", parts.join("|"))).expect("the pattern is well formed")
});

static HEX_ID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?-u)(?P<trace>[0-9a-fA-F]{32})|(?P<span>[0-9a-fA-F]{16})").expect("well formed")
});

/// Headers and metadata that carry nothing but trace context.
const TRACE_FIELDS: &[&str] = &[
    "traceparent",
    "x-request-id",
    "x-correlation-id",
    "x-trace-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "b3",
    "uber-trace-id",
    "x-cloud-trace-context",
];

/// Fields that only repeat the length of what holds generated values: derived, so left out.
const DERIVED_FIELDS: &[&str] = &["content-length"];

/// Finds generated values near one run's clock and among one cell's addresses.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    unix_ns: u64,
    /// (address, `@service.interface`), longest address first.
    addresses: Vec<(String, String)>,
    /// Where services make values up.
    rules: Arc<Vec<Rule>>,
    /// Those that hold in the message at hand.
    active: Vec<Active>,
    /// Learned values, wherever they stand.
    known: Arc<BTreeSet<String>>,
}

struct Hit {
    start: usize,
    end: usize,
    value: Generated,
}

impl Scanner {
    /// A scanner for a run that began at `unix_ns` (nanoseconds since the Unix epoch).
    pub fn new(unix_ns: u64) -> Self {
        Scanner { unix_ns, ..Scanner::default() }
    }

    /// Knows these rules, too.
    pub fn with_rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        for rule in rules {
            if !self.rules.contains(&rule) {
                Arc::make_mut(&mut self.rules).push(rule);
            }
        }
        self
    }

    /// Knows this rule and no other.
    pub fn with_only(self, rule: Rule) -> Self {
        Scanner { rules: Arc::new(vec![rule]), ..self }
    }

    /// The rules that it knows.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Takes these values for made up wherever they stand.
    pub fn knowing(mut self, values: BTreeSet<String>) -> Self {
        self.known = Arc::new(values);
        self
    }

    /// As it sees one message of an exchange or step; where `side` is none, the item of the canonical form.
    pub fn about(&self, interface: &str, operation: &str, side: Option<Side>) -> Cow<'_, Scanner> {
        match learned::active(&self.rules, interface, operation, side, &|text| self.sight("", text)) {
            active if active.is_empty() && self.active.is_empty() => Cow::Borrowed(self),
            active => Cow::Owned(Scanner { active, ..self.clone() }),
        }
    }

    /// What rules find in the message that this scanner is about.
    pub fn learned(&self, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        if !self.active.is_empty() {
            learned::replace(&value.stable(), &self.active, &|text| self.sight("", text), &mut |generated| {
                found.push(generated.text.clone());
                placeholder(generated)
            });
        }
        found
    }

    /// The stable key of a request with holes for what rules find in the request.
    pub fn keyed(&self, key: &str, request: &Value) -> String {
        let mut values = self.learned(request);
        values.iter_mut().for_each(|value| {
            if let Some(held) = learned::in_key(key, value) {
                *value = held;
            }
        });
        learned::replace_known(key, &values, &mut placeholder)
    }

    /// A text with placeholders, their places in it and those of what they stand for; `field` is the field that it
    /// stands in.
    fn sight(&self, field: &str, text: &str) -> Sight {
        let (mut out, mut places, mut from) = (String::with_capacity(text.len()), Vec::new(), 0);
        for hit in self.hits(text.as_bytes(), field) {
            out.push_str(text.get(from..hit.start).unwrap_or_default());
            let begin = out.len();
            out.push_str(&placeholder(&hit.value));
            places.push((begin..out.len(), hit.start..hit.end));
            from = hit.end;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        Sight { text: out, places }
    }

    /// A text as rules see it: with placeholders for what the patterns know; `field` is the field that it stands in.
    pub fn seen_text(&self, field: &str, text: &str) -> String {
        self.sight(field, text).text
    }

    /// The message without its volatile parts, with what `name` says for what was learned.
    fn unlearned(&self, value: &Value, name: &mut dyn FnMut(&Generated) -> String) -> Value {
        let mut value = value.stable();
        if !self.active.is_empty() {
            value = learned::replace(&value, &self.active, &|text| self.sight("", text), name);
        }
        if !self.known.is_empty() {
            value = learned::replace_known_in(&value, &self.known, name);
        }
        value
    }

    /// Knows the addresses of a cell ([`crate::Body::Addresses`]: the interface by name, the
    /// address as value, in either order).
    pub fn with_addresses(mut self, addresses: &[Named]) -> Self {
        for named in addresses {
            let (address, interface) = match is_address(&named.name) {
                true => (&named.name, &named.value),
                false => (&named.value, &named.name),
            };
            let interface = format!("@{}", interface.trim_start_matches('@'));
            self.addresses.push((address.clone(), interface.clone()));
            if let Some(port) = address.strip_prefix("127.0.0.1:") {
                self.addresses.push((format!("localhost:{port}"), interface));
            }
        }
        self.addresses.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.cmp(b)));
        self
    }

    /// The generated values of a message in order, addresses included.
    pub fn scan(&self, value: &Value) -> Vec<Generated> {
        let mut found = Vec::new();
        self.replace(value, &mut |generated| {
            found.push(generated.clone());
            placeholder(generated)
        });
        found
    }

    /// The message with unnumbered holes in the place of generated values and
    /// `@service.interface` in the place of addresses; without volatile and derived parts.
    /// Tokens of secrets stay: in messages of one bundle, equal tokens are equal secrets.
    pub fn template(&self, value: &Value) -> Value {
        self.replace(value, &mut |generated| match generated.kind {
            Kind::Secret => generated.text.clone(),
            _ => placeholder(generated),
        })
    }

    /// The value as it is sent again by who sends the same again: as [`Scanner::template`], but ids stay.
    /// An attempt has another span and another time, not another id.
    pub fn sent_again(&self, value: &Value) -> Value {
        self.replace(value, &mut |generated| match generated.kind {
            Kind::Secret => generated.text.clone(),
            Kind::Uuid | Kind::Ulid | Kind::ObjectId => generated.identity(),
            Kind::Learned if generated.identifies() => generated.identity(),
            _ => placeholder(generated),
        })
    }

    /// As [`Scanner::template`], with what `name` says in the place of each generated value.
    pub fn replace(&self, value: &Value, name: &mut dyn FnMut(&Generated) -> String) -> Value {
        let value = self.unlearned(value, name);
        self.rewrite(&value, "", name)
    }

    /// Text as [`Scanner::replace`] treats it.
    pub fn replace_text(&self, text: &str, name: &mut dyn FnMut(&Generated) -> String) -> String {
        let text = learned::replace_known(text, &*self.known, name);
        String::from_utf8_lossy(&self.rewrite_bytes(text.as_bytes(), "", name)).into_owned()
    }

    /// Pairs of (recorded value, live value) in order, where the two messages are equal up to
    /// generated values; `live` sees the live side. Addresses are not among them. Both must
    /// be redacted with one salt.
    pub fn bind(&self, recorded: &Value, live: &Scanner, now: &Value) -> Option<Vec<(String, String)>> {
        let pairs = self.unify(recorded, live, now)?;
        Some(pairs.into_iter().map(|(a, b)| (a.text, b.text)).collect())
    }

    /// As [`Scanner::bind`], with what they are. Short values that were learned are not among them: they are known
    /// at their place only.
    pub fn unify(
        &self,
        recorded: &Value,
        live: &Scanner,
        now: &Value,
    ) -> Option<Vec<(Generated, Generated)>> {
        if self.template(recorded) != live.template(now) {
            return None;
        }
        let elsewhere = |g: &Generated| match g.kind {
            Kind::Address | Kind::Port | Kind::Secret => false,
            Kind::Learned => g.identifies(),
            _ => true,
        };
        // By position: a value that says little may stand where one that says much did.
        let keep = |g: &Generated| !matches!(g.kind, Kind::Address | Kind::Port | Kind::Secret);
        let recorded = self.scan(recorded).into_iter().filter(keep);
        let now = live.scan(now).into_iter().filter(keep);
        Some(recorded.zip(now).filter(|(a, b)| elsewhere(a) && elsewhere(b)).collect())
    }

    /// Pairs of (this side's address, the other side's) for interfaces that both know: what
    /// [`substitute`] needs to move a recorded answer to a live cell.
    pub fn address_pairs(&self, live: &Scanner) -> Vec<(String, String)> {
        let of = |all: &[(String, String)], interface: &str, local: bool| {
            let found = all.iter().find(|(a, i)| i == interface && a.starts_with("localhost") == local);
            found.map(|(address, _)| address.clone())
        };
        let pair = |(address, interface): &(String, String)| {
            let local = address.starts_with("localhost");
            of(&live.addresses, interface, local).map(|other| (address.clone(), other))
        };
        self.addresses.iter().filter_map(pair).filter(|(a, b)| a != b).collect()
    }

    fn rewrite(&self, value: &Value, field: &str, name: &mut dyn FnMut(&Generated) -> String) -> Value {
        match value {
            Value::Text(text) => {
                let out = self.rewrite_bytes(text.as_bytes(), field, name);
                // Every pattern is ASCII and so is every placeholder: the rest stays UTF-8.
                String::from_utf8(out).map_or_else(|_| value.clone(), Value::Text)
            }
            Value::Bytes(bytes) => match binary_uuid(bytes) {
                Some(uuid) => Value::Text(name(&uuid)),
                None => Value::Bytes(self.rewrite_bytes(bytes, field, name)),
            },
            Value::Int(n) => self.integer(i128::from(*n), value, name),
            Value::UInt(n) => self.integer(i128::from(*n), value, name),
            Value::Float(n) if self.near((n * 1e9) as i128) => {
                let text = format!("{n}");
                Value::Text(name(&Generated { kind: Kind::UnixS, text, name: String::new() }))
            }
            Value::List(items) => Value::List(self.rewrite_list(items, field, name)),
            Value::Map(fields) => {
                let fields = fields.iter().filter(|(k, _)| !is_one_of(k, DERIVED_FIELDS));
                Value::Map(fields.map(|(k, v)| (k.clone(), self.rewrite(v, k, name))).collect())
            }
            Value::Volatile(_) => Value::Null,
            other => other.clone(),
        }
    }

    /// Lists may be (name, value) pairs: how protocols keep headers that repeat.
    fn rewrite_list(
        &self,
        items: &[Value],
        field: &str,
        name: &mut dyn FnMut(&Generated) -> String,
    ) -> Vec<Value> {
        if let [Value::Text(key), value] = items {
            let key_out = self.rewrite(&items[0], "", name);
            return match is_one_of(key, DERIVED_FIELDS) {
                true => vec![key_out, Value::Null],
                false => vec![key_out, self.rewrite(value, key, name)],
            };
        }
        items.iter().map(|item| self.rewrite(item, field, name)).collect()
    }

    fn integer(&self, n: i128, value: &Value, name: &mut dyn FnMut(&Generated) -> String) -> Value {
        match self.unix(n) {
            Some(kind) => Value::Text(name(&Generated { kind, text: n.to_string(), name: String::new() })),
            None => value.clone(),
        }
    }

    fn rewrite_bytes(
        &self,
        bytes: &[u8],
        field: &str,
        name: &mut dyn FnMut(&Generated) -> String,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut from = 0;
        for hit in self.hits(bytes, field) {
            out.extend_from_slice(&bytes[from..hit.start]);
            out.extend_from_slice(name(&hit.value).as_bytes());
            from = hit.end;
        }
        out.extend_from_slice(&bytes[from..]);
        out
    }

    fn hits(&self, bytes: &[u8], field: &str) -> Vec<Hit> {
        let mut hits = Vec::new();
        if bytes.len() < 9 {
            return hits;
        }
        let tracing = is_one_of(field, TRACE_FIELDS);
        let mut at = 0;
        while let Some(found) = PATTERN.captures_at(bytes, at) {
            if hits.len() >= limits::GENERATED_MAX {
                break;
            }
            // Group 0 always takes part in a match.
            let (start, end) = found.get(0).map_or((at, at + 1), |m| (m.start(), m.end()));
            let before = hits.len();
            if found.name("jwt").is_none() {
                self.take(bytes, &found, &mut hits);
            }
            let taken = hits.len() > before || found.name("jwt").is_some();
            at = if taken { hits.last().map_or(end, |hit| hit.end.max(end)) } else { start + 1 };
        }
        if tracing {
            take_trace_ids(bytes, &mut hits);
        }
        hits
    }

    /// Takes what a match is, if its surroundings and the clock agree.
    fn take(&self, bytes: &[u8], found: &Captures<'_>, hits: &mut Vec<Hit>) {
        let mut push = |kind: Kind, group: &str, name: String| {
            if let Some(m) = found.name(group) {
                let text = String::from_utf8_lossy(m.as_bytes()).into_owned();
                let value = Generated { kind, text, name };
                hits.push(Hit { start: m.start(), end: m.end(), value });
            }
        };
        let bounded = |group: &str, inside: fn(u8) -> bool| {
            found.name(group).is_some_and(|m| {
                let before = m.start().checked_sub(1).and_then(|i| bytes.get(i));
                !before.is_some_and(|b| inside(*b)) && !bytes.get(m.end()).is_some_and(|b| inside(*b))
            })
        };
        let digit = |b: u8| b.is_ascii_digit();
        let hex = |b: u8| b.is_ascii_hexdigit();
        let word = |b: u8| b.is_ascii_alphanumeric();
        let text = |group: &str| found.name(group).map(|m| m.as_bytes()).unwrap_or_default();
        if found.name("secret").is_some() {
            push(Kind::Secret, "secret", String::from_utf8_lossy(text("name")).into_owned());
        } else if found.name("trace").is_some() && bounded("v", hex) {
            push(Kind::Trace, "trace", String::new());
            push(Kind::Span, "span", String::new());
        } else if bounded("uuid", hex) || bounded("simple", hex) {
            push(Kind::Uuid, "uuid", String::new());
            push(Kind::Uuid, "simple", String::new());
        } else if bounded("time", digit) && parse_time(text("time")).is_some_and(|t| self.near(t)) {
            let zoned = found.name("zone").is_some() && text("time").get(10) != Some(&b' ');
            push(if zoned { Kind::Time } else { Kind::DateTime }, "time", String::new());
        } else if found.name("http").is_some() && parse_http(text("http")).is_some_and(|t| self.near(t)) {
            push(Kind::HttpDate, "http", String::new());
        } else if bounded("date", digit) && parse_time(text("date")).is_some_and(|t| self.near(t)) {
            push(Kind::Date, "date", String::new());
        } else if let (true, Some(address)) = (bounded("port", digit), found.name("address")) {
            let known = self.addresses.iter().find(|(a, _)| a.as_bytes() == address.as_bytes());
            match known {
                Some((_, interface)) => push(Kind::Address, "address", interface.clone()),
                None if is_ephemeral(text("port")) => push(Kind::Port, "port", String::new()),
                None => {}
            }
        } else if bounded("hash", word) && text("hash").iter().filter(|b| **b == b'$').count() >= 2 {
            push(Kind::PasswordHash, "hash", String::new());
        } else if bounded("object", hex) && object_time(text("object")).is_some_and(|t| self.near(t)) {
            push(Kind::ObjectId, "object", String::new());
        } else if bounded("ulid", word) && ulid_time(text("ulid")).is_some_and(|t| self.near(t)) {
            push(Kind::Ulid, "ulid", String::new());
        } else if bounded("digits", digit)
            && let Some(kind) = number(text("digits")).and_then(|n| self.unix(n))
        {
            push(kind, "digits", String::new());
        }
    }

    fn near(&self, unix_ns: i128) -> bool {
        (unix_ns - i128::from(self.unix_ns)).abs() <= DAY_NS
    }

    /// Which unit makes an integer a time near the run's.
    fn unix(&self, n: i128) -> Option<Kind> {
        let units = [
            (Kind::UnixS, 1_000_000_000),
            (Kind::UnixMs, 1_000_000),
            (Kind::UnixUs, 1_000),
            (Kind::UnixNs, 1),
        ];
        let fits = |(_, unit): &(Kind, i128)| n.checked_mul(*unit).is_some_and(|ns| self.near(ns));
        // Zero is near the epoch only for a run of 1970: no clock at hand, no times.
        let found = units.into_iter().find(fits).map(|(kind, _)| kind);
        found.filter(|_| self.unix_ns > 0)
    }
}

/// [`Scanner::template`] for a message of a run that began at `near_ns`.
pub fn template(value: &Value, near_ns: u64) -> Value {
    Scanner::new(near_ns).template(value)
}

/// [`Scanner::bind`] for a recorded message and a live one of a run that began at `now_ns`.
pub fn bind(recorded: &Value, live: &Value, near_ns: u64, now_ns: u64) -> Option<Vec<(String, String)>> {
    Scanner::new(near_ns).bind(recorded, &Scanner::new(now_ns), live)
}

/// The unnumbered hole for a generated value.
pub fn placeholder(generated: &Generated) -> String {
    match generated.kind {
        Kind::Address => generated.name.clone(),
        Kind::Secret => format!("<secret {}>", generated.name),
        kind => format!("<{}>", kind.word()),
    }
}

/// Puts live values in the place of recorded ones, wherever they stand: in text, in bytes,
/// as integers, and UUIDs also in their other spellings. The first pair of a value counts.
pub fn substitute(value: &Value, pairs: &[(String, String)]) -> Value {
    match pairs {
        [] => value.clone(),
        _ => put(value, &spelled(pairs)),
    }
}

/// As [`substitute`], in a text.
pub fn substitute_text(text: &str, pairs: &[(String, String)]) -> String {
    put_text(text, &spelled(pairs))
}

/// Pairs in every spelling.
fn spelled(pairs: &[(String, String)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut spelled: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (from, to) in pairs {
        for (from, to) in spellings(from, to) {
            if !from.is_empty() && !spelled.iter().any(|(known, _)| *known == from) {
                spelled.push((from, to));
            }
        }
    }
    // The longest first, so that a value is not taken for its own beginning.
    spelled.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
    spelled
}

fn put_text(text: &str, pairs: &[(Vec<u8>, Vec<u8>)]) -> String {
    String::from_utf8(put_bytes(text.as_bytes(), pairs)).unwrap_or_else(|_| text.to_owned())
}

fn put(value: &Value, pairs: &[(Vec<u8>, Vec<u8>)]) -> Value {
    let integer = |n: String| {
        let found = pairs.iter().find(|(from, _)| from == n.as_bytes());
        found.and_then(|(_, to)| std::str::from_utf8(to).ok()?.parse::<i128>().ok())
    };
    match value {
        Value::Text(text) => Value::Text(put_text(text, pairs)),
        Value::Bytes(bytes) => Value::Bytes(put_bytes(bytes, pairs)),
        Value::Int(n) => {
            integer(n.to_string()).and_then(|n| i64::try_from(n).ok()).map_or(Value::Int(*n), Value::Int)
        }
        Value::UInt(n) => {
            integer(n.to_string()).and_then(|n| u64::try_from(n).ok()).map_or(Value::UInt(*n), Value::UInt)
        }
        Value::List(items) => Value::List(items.iter().map(|item| put(item, pairs)).collect()),
        Value::Map(fields) => Value::Map(fields.iter().map(|(k, v)| (k.clone(), put(v, pairs))).collect()),
        Value::Volatile(inner) => put(inner, pairs).volatile(),
        other => other.clone(),
    }
}

fn put_bytes(bytes: &[u8], pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let digit_before = at > 0 && bytes[at - 1].is_ascii_digit();
        let fits = |(from, _): &&(Vec<u8>, Vec<u8>)| {
            let digits = from.iter().all(u8::is_ascii_digit);
            rest.starts_with(from)
                && !(digits && (digit_before || rest.get(from.len()).is_some_and(u8::is_ascii_digit)))
        };
        match pairs.iter().find(fits) {
            Some((from, to)) => {
                out.extend_from_slice(to);
                at += from.len();
            }
            None => {
                out.push(rest[0]);
                at += 1;
            }
        }
    }
    out
}

/// A pair in every spelling that the two sides share.
fn spellings(from: &str, to: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = vec![(from.as_bytes().to_vec(), to.as_bytes().to_vec())];
    let plain = |s: &str| {
        let hex: String = s.chars().filter(|c| *c != '-').collect();
        (hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then(|| hex.to_ascii_lowercase())
    };
    if let (Some(a), Some(b)) = (plain(from), plain(to)) {
        for spell in [hyphened as fn(&str) -> String, str::to_owned] {
            let (x, y) = (spell(&a), spell(&b));
            all.push((x.to_ascii_uppercase().into_bytes(), y.to_ascii_uppercase().into_bytes()));
            all.push((x.into_bytes(), y.into_bytes()));
        }
        all.push((unhex(&a), unhex(&b)));
    }
    all
}

fn hyphened(hex: &str) -> String {
    let part = |a: usize, b: usize| hex.get(a..b).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |b: u8| (b as char).to_digit(16).unwrap_or_default() as u8;
    hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Sixteen bytes that are a random or time-based UUID and no text.
fn binary_uuid(bytes: &[u8]) -> Option<Generated> {
    let sixteen: &[u8; 16] = bytes.try_into().ok()?;
    let version = sixteen[6] >> 4;
    let fits = matches!(version, 1 | 4 | 7) && sixteen[8] >> 6 == 0b10;
    if !fits || std::str::from_utf8(bytes).is_ok() {
        return None;
    }
    let text = sixteen.iter().map(|b| format!("{b:02x}")).collect();
    Some(Generated { kind: Kind::Uuid, text, name: String::new() })
}

/// Hexadecimal ids in a field that holds nothing else: there, they are trace ids even where
/// they look like something else by chance.
fn take_trace_ids(bytes: &[u8], hits: &mut Vec<Hit>) {
    for found in HEX_ID.captures_iter(bytes) {
        let trace = found.name("trace").map(|m| (Kind::Trace, m));
        let Some((kind, m)) = trace.or_else(|| found.name("span").map(|m| (Kind::Span, m))) else { continue };
        hits.retain(|hit| hit.end <= m.start() || m.end() <= hit.start);
        let text = String::from_utf8_lossy(m.as_bytes()).into_owned();
        let value = Generated { kind, text, name: String::new() };
        hits.push(Hit { start: m.start(), end: m.end(), value });
    }
    hits.sort_by_key(|hit| hit.start);
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// Ports that Linux gives to outgoing connections by default.
fn is_ephemeral(port: &[u8]) -> bool {
    number(port).is_some_and(|n| (32_768..=60_999).contains(&n))
}

fn number(digits: &[u8]) -> Option<i128> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn object_time(hex: &[u8]) -> Option<i128> {
    let seconds = i128::from_str_radix(std::str::from_utf8(hex.get(..8)?).ok()?, 16).ok()?;
    Some(seconds * 1_000_000_000)
}

fn ulid_time(text: &[u8]) -> Option<i128> {
    const ALPHABET: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digit = |b: &u8| ALPHABET.iter().position(|a| a == b);
    let millis = text.get(..10)?.iter().try_fold(0i128, |sum, b| Some(sum * 32 + digit(b)? as i128))?;
    Some(millis * 1_000_000)
}

/// `YYYY-MM-DD`, with or without a time and a zone, as nanoseconds since the epoch.
fn parse_time(text: &[u8]) -> Option<i128> {
    let two = |at: usize| number(text.get(at..at + 2)?);
    let (year, month, day) = (number(text.get(..4)?)?, two(5)?, two(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let mut seconds = days(year, month, day) * 86_400;
    if text.len() >= 19 {
        seconds += two(11)? * 3600 + two(14)? * 60 + two(17)?;
        let rest = &text[19..];
        if let Some(at) = rest.iter().rposition(|b| matches!(b, b'+' | b'-')) {
            let zone: Vec<u8> = rest[at + 1..].iter().copied().filter(u8::is_ascii_digit).collect();
            let offset = number(zone.get(..2)?)? * 3600 + number(zone.get(2..4)?)? * 60;
            seconds -= if rest[at] == b'+' { offset } else { -offset };
        }
    }
    Some(seconds * 1_000_000_000)
}

/// `Tue, 24 Nov 2026 00:43:06 GMT` as nanoseconds since the epoch.
fn parse_http(text: &[u8]) -> Option<i128> {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let two = |at: usize| number(text.get(at..at + 2)?);
    let name = text.get(8..11)?;
    let month = MONTHS.chunks(3).position(|m| m == name)? as i128 + 1;
    let day = days(number(text.get(12..16)?)?, month, two(5)?);
    Some((day * 86_400 + two(17)? * 3600 + two(20)? * 60 + two(23)?) * 1_000_000_000)
}

/// Days from the Unix epoch to a date of the Gregorian calendar. The year is taken to begin
/// in March, so that the leap day is its last.
fn days(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

/// Fuzz entry point: scanning and substituting any bytes never panics, and a message
/// always matches itself.
pub fn fuzz_one(bytes: &[u8]) {
    let value = Value::text_or_bytes(bytes);
    let scanner = Scanner::new(1_795_480_000_000_000_000);
    let pairs = scanner.bind(&value, &scanner, &value);
    let Some(pairs) = pairs else { panic!("a message does not match itself") };
    assert_eq!(substitute(&value, &pairs), value, "binding a message to itself changes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salted_hashes_of_passwords_are_generated() {
        let of = |text: &str| Scanner::new(0).scan(&Value::text(text));
        for hash in [
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21l$RdescudvJCsgt3ub+b1dWRWJTmaaJObG",
            "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc",
            "md5$Wm1TFrzcSXNhBkRMJ5oQGz$1c1a6a1b3c6b0e0a7f9d1e2c3b4a5968",
            "pbkdf2_sha256$870000$k3YhBqYkV0aU$mM0tWYFvh7Jv1j4m5qjYt8qE2b3x7Yl1aB3dE5fG7hI=",
            "scrypt:32768:8:1$Zt2aNf5bQwEr$0123456789abcdef0123456789abcdef",
        ] {
            let found = of(&format!("VALUES ('{hash}', 1)"));
            assert_eq!(found.len(), 1, "{hash}: {found:?}");
            assert_eq!((found[0].kind, found[0].text.as_str()), (Kind::PasswordHash, hash));
        }
        for other in ["md5 $5", "$1$x", "a price of $2 and of $30", "md5$1c1a6a1b3c6b0e0a7f9d1e2c3b4a5968"] {
            assert_eq!(of(other), [], "{other}");
        }
    }
}
