//! Redaction: credentials become tokens before anything is written.
//!
//! Contract: pure and idempotent; equal secrets of one bundle become equal tokens
//! (`<secret NAME#tag>`), so a live message that was redacted with the same salt matches its
//! recording. Known values of [`KNOWN_MIN`] bytes and more are replaced wherever they stand;
//! shorter ones, header credentials, passwords in URLs and private keys by where they stand.
//! Not modelled: secrets in an encoding (base64, hexadecimal, percent) other than the Basic
//! scheme's, secrets inside executables, and values that a service makes up and names itself.

use crate::Value;
use crate::event::{Body, Entry, Named, Payload};
use regex::{Captures, Regex};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

/// Shortest known value that is replaced wherever it stands.
pub const KNOWN_MIN: usize = 8;

/// Rounds of hashing behind a tag: makes trying out guesses dearer, costs a recording little.
const ROUNDS: u32 = 1024;

/// Header and metadata fields whose value is a credential.
const CREDENTIAL_FIELDS: &[&str] =
    &["authorization", "proxy-authorization", "x-api-key", "x-auth-token", "api-key", "x-amz-security-token"];
/// Fields whose value is a list of cookies.
const COOKIE_FIELDS: &[&str] = &["cookie", "set-cookie"];
/// Fields of handshakes and commands that hold a password.
const HANDSHAKE_FIELDS: &[&str] = &["password", "passwd", "auth_response", "sasl_password"];

/// Fields that hold data by position: a row whose second cell is `auth` is no command, and one
/// that begins with `password` is no header.
const DATA_FIELDS: &[&str] = &["rows", "params"];

static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"<secret [A-Za-z0-9_.-]{1,80}#[0-9a-f]{4,32}>").expect("well formed"));
static URL_PASSWORD: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"([A-Za-z][A-Za-z0-9+.-]+://[^\s/:@<>]*):(<secret [^>]*>|[^\s/@]+)@").expect("well formed")
});
static PRIVATE_KEY: LazyLock<Regex> = LazyLock::new(|| {
    let body = r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----";
    Regex::new(body).expect("well formed")
});

/// What stands in every message that has something to replace, besides known values: parts of the
/// names above, and what [`Redactor::text`] looks for.
const SUSPICIOUS: &str = r"(?i-u:auth|api-key|security-token|cookie|passw)|(?-u:PRIVATE KEY-----|://)";

/// Replaces credentials by tokens, and back.
#[derive(Debug, Clone)]
pub struct Redactor {
    key: [u8; 32],
    /// (value, name), longest value first: those that are replaced wherever they stand.
    known: Vec<(String, String)>,
    /// Matches whatever may hold a credential; most messages do not, and are left as they are.
    suspicious: regex::bytes::Regex,
    /// Tags that were made already: each takes many rounds.
    tags: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Redactor {
    /// A redactor for a bundle with this salt ([`crate::Header::salt`]) that knows these (name, value)
    /// secrets: what `secret(...)` gave, and [`Redactor::secrets_of_env`].
    pub fn new(salt: &[u8; 16], known: impl IntoIterator<Item = (String, String)>) -> Self {
        let usable = |(_, value): &(String, String)| value.len() >= KNOWN_MIN && !TOKEN.is_match(value);
        let mut known: Vec<(String, String)> =
            known.into_iter().filter(usable).map(|(name, value)| (value, clean(&name))).collect();
        // The longest first, so that no value is taken for a part of another.
        known.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.cmp(b)));
        known.dedup_by(|a, b| a.0 == b.0);
        let key = blake3::derive_key("faultbox bundle secret tokens 1", salt);
        let literal = |(value, _): &(String, String)| {
            value.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>()
        };
        let mut pattern = SUSPICIOUS.to_owned();
        for value in known.iter().map(literal) {
            pattern.push_str(&format!("|(?-u:{value})"));
        }
        let suspicious = regex::bytes::RegexBuilder::new(&pattern).size_limit(1 << 30).build();
        let suspicious = suspicious.expect("literals are well formed");
        Redactor { key, known, suspicious, tags: Arc::default() }
    }

    /// The secrets that an environment holds: credentials by name, passwords in URLs.
    pub fn secrets_of_env<'a>(env: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
        let mut secrets = Vec::new();
        for (name, value) in env {
            if is_credential(name, value) {
                secrets.push((name.to_owned(), value.to_owned()));
            }
            if let Some(password) = URL_PASSWORD.captures(value).and_then(|found| found.get(2)) {
                secrets.push((format!("{name}.password"), password.as_str().to_owned()));
            }
        }
        secrets
    }

    /// The token of a value.
    pub fn token(&self, name: &str, value: &str) -> String {
        let name =
            self.known.iter().find(|(known, _)| known == value).map_or_else(|| clean(name), |k| k.1.clone());
        format!("<secret {name}#{}>", self.tag(value))
    }

    fn tag(&self, value: &str) -> String {
        let mut tags = self.tags.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(tag) = tags.get(value) {
            return tag.clone();
        }
        let mut hash = blake3::keyed_hash(&self.key, value.as_bytes());
        for _ in 1..ROUNDS {
            hash = blake3::keyed_hash(&self.key, hash.as_bytes());
        }
        let tag: String = hash.as_bytes()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        tags.insert(value.to_owned(), tag.clone());
        tag
    }

    /// Text without credentials.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut out = Cow::Borrowed(text);
        if text.contains("PRIVATE KEY-----") {
            let token = |found: &Captures<'_>| self.token("private-key", &found[0]);
            out = Cow::Owned(PRIVATE_KEY.replace_all(&out, token).into_owned());
        }
        if out.contains("://") {
            let token = |found: &Captures<'_>| match TOKEN.is_match(&found[2]) {
                true => found[0].to_owned(),
                false => format!("{}:{}@", &found[1], self.token("url-password", &found[2])),
            };
            out = Cow::Owned(URL_PASSWORD.replace_all(&out, token).into_owned());
        }
        for (value, name) in &self.known {
            if out.contains(value.as_str()) {
                out = Cow::Owned(out.replace(value.as_str(), &self.token(name, value)));
            }
        }
        out
    }

    /// Bytes without credentials: as text where they are text, else the known values only.
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text(text).into_owned().into_bytes(),
            Err(_) => self.known_only(bytes),
        }
    }

    fn known_only(&self, bytes: &[u8]) -> Vec<u8> {
        self.known.iter().fold(bytes.to_vec(), |bytes, (value, name)| {
            replace_bytes(bytes, value.as_bytes(), || self.token(name, value).into_bytes())
        })
    }

    /// A message without credentials.
    pub fn value(&self, value: &Value) -> Value {
        self.redact("", value)
    }

    fn redact(&self, field: &str, value: &Value) -> Value {
        match value {
            Value::Text(text) => Value::Text(self.field(field, text)),
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Bytes(self.field(field, text).into_bytes()),
                Err(_) if is_one_of(field, HANDSHAKE_FIELDS) => {
                    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    Value::Bytes(self.token(field, &hex).into_bytes())
                }
                Err(_) => Value::Bytes(self.bytes(bytes)),
            },
            Value::List(items) if is_one_of(field, DATA_FIELDS) => {
                Value::List(items.iter().map(|item| self.redact(field, item)).collect())
            }
            // A (name, value) pair: how protocols keep headers that repeat.
            Value::List(items) => match items.as_slice() {
                [Value::Text(name), value] if !is_one_of(name, &["AUTH"]) => {
                    Value::List(vec![items[0].clone(), self.redact(name, value)])
                }
                items => Value::List(self.words(field, items)),
            },
            Value::Map(fields) => Value::Map(
                fields.iter().map(|(k, v)| (self.text(k).into_owned(), self.redact(k, v))).collect(),
            ),
            Value::Volatile(inner) => self.redact(field, inner).volatile(),
            other => other.clone(),
        }
    }

    /// Words of a command: what follows `AUTH` (Redis: alone, or inside `HELLO`) is a user and
    /// a password, or a password.
    fn words(&self, field: &str, items: &[Value]) -> Vec<Value> {
        let word_is = |at: usize, word: &[u8]| {
            items.get(at).and_then(Value::as_bytes).is_some_and(|b| b.eq_ignore_ascii_case(word))
        };
        let auth = match (word_is(0, b"AUTH"), word_is(0, b"HELLO") && word_is(2, b"AUTH")) {
            (true, _) => Some(0),
            (_, hello) => hello.then_some(2),
        };
        let word = |(place, item): (usize, &Value)| match auth {
            Some(at) if place > at && place <= at + 2 => self.redact("password", item),
            _ => self.redact(field, item),
        };
        items.iter().enumerate().map(word).collect()
    }

    /// The text of a field: what its name says it holds, then whatever is known.
    fn field(&self, name: &str, text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        if is_one_of(name, CREDENTIAL_FIELDS) {
            return self.credential(name, text);
        }
        if is_one_of(name, COOKIE_FIELDS) {
            return self.cookies(name, text);
        }
        if is_one_of(name, HANDSHAKE_FIELDS) {
            return self.whole(name, text);
        }
        self.text(text).into_owned()
    }

    /// `Bearer abc` keeps its scheme.
    fn credential(&self, name: &str, text: &str) -> String {
        let name = &name.to_ascii_lowercase();
        match text.split_once(' ') {
            Some((scheme, rest)) if !scheme.starts_with('<') && scheme.len() <= 20 => {
                format!("{scheme} {}", self.whole(name, rest.trim_start()))
            }
            _ => self.whole(name, text),
        }
    }

    /// Cookies keep their names and attributes: a client must still be able to return them.
    fn cookies(&self, field: &str, text: &str) -> String {
        let first_only = field.eq_ignore_ascii_case("set-cookie");
        let part = |(index, part): (usize, &str)| match part.split_once('=') {
            Some((name, value)) if !(value.is_empty() || first_only && index > 0) => {
                format!("{name}={}", self.whole("cookie", value))
            }
            _ => part.to_owned(),
        };
        text.split(';').enumerate().map(part).collect::<Vec<_>>().join(";")
    }

    fn whole(&self, name: &str, text: &str) -> String {
        match TOKEN.find(text).is_some_and(|token| token.as_str() == text) {
            true => text.to_owned(),
            false => self.token(name, text),
        }
    }

    /// Puts known values in the place of their tokens: what a service that runs with its
    /// real credentials must be sent.
    pub fn restore(&self, value: &Value) -> Value {
        let text = |text: &str| {
            let known = |found: &Captures<'_>| {
                let token = &found[0];
                let known = self.known.iter().find(|(value, name)| self.token(name, value) == token);
                known.map_or_else(|| token.to_owned(), |(value, _)| value.clone())
            };
            TOKEN.replace_all(text, known).into_owned()
        };
        match value {
            Value::Text(inner) => Value::Text(text(inner)),
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(inner) => Value::Bytes(text(inner).into_bytes()),
                Err(_) => value.clone(),
            },
            Value::List(items) => Value::List(items.iter().map(|item| self.restore(item)).collect()),
            Value::Map(fields) => {
                Value::Map(fields.iter().map(|(k, v)| (k.clone(), self.restore(v))).collect())
            }
            Value::Volatile(inner) => self.restore(inner).volatile(),
            other => other.clone(),
        }
    }

    /// The entry with its credentials replaced, where it may hold any; most do not, and need no copy.
    /// Looks into everything that [`Redactor::entry`] replaces in.
    pub fn redacted(&self, entry: &Entry) -> Option<Entry> {
        let suspicious = |text: &str| self.suspicious.is_match(text.as_bytes());
        let payload =
            |payload: &Payload| payload.bytes().is_some_and(|bytes| self.suspicious.is_match(bytes));
        let may_hold = match &entry.body {
            Body::Exchange(exchange) => {
                // As a rule the key is the end of the stream's name.
                let key = &exchange.key;
                (!entry.stream.ends_with(key.as_str()) && suspicious(key))
                    || suspicious(&exchange.operation)
                    || payload(&exchange.request)
                    || exchange.response.as_ref().is_some_and(payload)
                    || exchange.rule.as_ref().is_some_and(|rule| suspicious(&rule.action))
            }
            Body::Decision(decision) => suspicious(&decision.key),
            Body::Syscall(call) => {
                suspicious(&call.target) || call.rule.as_ref().is_some_and(|rule| suspicious(&rule.action))
            }
            Body::Output(output) => self.suspicious.is_match(&output.bytes),
            Body::PhaseBegan => false,
            // Whatever else there is, is rare.
            _ => true,
        };
        if !may_hold && !suspicious(&entry.stream) {
            return None;
        }
        let mut copy = entry.clone();
        self.entry(&mut copy);
        Some(copy)
    }

    /// Replaces the credentials of an entry.
    pub fn entry(&self, entry: &mut Entry) {
        self.string(&mut entry.stream);
        match &mut entry.body {
            Body::RunStarted(run) => self.arguments(&mut run.command),
            Body::File(file) => {
                // Executables and descriptors are kept as they are: a changed length breaks them.
                let text = matches!(file.role.as_str(), "spec" | "loaded");
                if let (true, Some(Payload::Inline(bytes))) = (text, &mut file.content) {
                    let redacted = self.known_only(bytes);
                    if redacted != *bytes {
                        file.digest = *blake3::hash(&redacted).as_bytes();
                        *bytes = redacted;
                    }
                }
            }
            Body::HostFact(named) => self.string(&mut named.value),
            Body::ServiceStarted(started) => {
                self.arguments(&mut started.args);
                started.env.iter_mut().for_each(|named| self.variable(named));
            }
            Body::FaultWindow(window) => window.rules.iter_mut().for_each(|rule| self.string(rule)),
            Body::Output(output) => output.bytes = self.bytes(&output.bytes),
            Body::StepStarted(step) => self.payload(&mut step.arguments),
            Body::StepEnded(step) => self.payload(&mut step.response),
            Body::Exchange(exchange) => {
                self.string(&mut exchange.key);
                self.string(&mut exchange.operation);
                self.payload(&mut exchange.request);
                exchange.response.iter_mut().for_each(|response| self.payload(response));
            }
            Body::Decision(decision) => self.string(&mut decision.key),
            Body::Syscall(syscall) => self.string(&mut syscall.target),
            Body::Signed(signed) => self.payload(&mut signed.claims),
            Body::Assertion(assertion) => self.string(&mut assertion.message),
            Body::Verdict(verdict) => self.string(&mut verdict.reason),
            _ => {}
        }
    }

    fn string(&self, text: &mut String) {
        if let Cow::Owned(redacted) = self.text(text) {
            *text = redacted;
        }
    }

    fn variable(&self, named: &mut Named) {
        if is_credential(&named.name, &named.value) {
            named.value = self.whole(&named.name, &named.value);
        } else {
            self.string(&mut named.value);
        }
    }

    /// Arguments: `--env api:PASSWORD=x`, `PASSWORD=x` and `--password x`.
    fn arguments(&self, arguments: &mut [String]) {
        let mut after_flag = None;
        for argument in arguments {
            let flag = argument.strip_prefix("--").map(|flag| flag.replace('-', "_"));
            if let Some(name) = after_flag.take().filter(|_| flag.is_none()) {
                *argument = self.whole(name, argument);
                continue;
            }
            if let Some((name, value)) = argument.split_once('=') {
                let bare = name.rsplit([':', '-']).next().unwrap_or(name);
                if is_credential(bare, value) {
                    *argument = format!("{name}={}", self.whole(bare, value));
                    continue;
                }
            } else if flag.is_some_and(|flag| is_credential(&flag, "x")) {
                after_flag = Some("argument");
            }
            self.string(argument);
        }
    }

    fn payload(&self, payload: &mut Payload) {
        if let Payload::Inline(bytes) = payload
            && self.suspicious.is_match(bytes)
        {
            *bytes = match Value::decode(bytes) {
                Ok(value) => self.value(&value).encode(),
                Err(_) => self.bytes(bytes),
            };
        }
    }
}

/// Whether a variable looks like a credential: by its name, unless its name or its value says
/// that it is a place, a number or a switch.
pub fn is_credential(name: &str, value: &str) -> bool {
    const TELLING: &[&str] = &[
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "PWD",
        "PASS",
        "SECRET",
        "SECRETS",
        "TOKEN",
        "CREDENTIAL",
        "CREDENTIALS",
        "KEY",
        "APIKEY",
        "DSN",
        "AUTH",
    ];
    const PLACES: &[&str] = &[
        "URL", "URI", "ADDR", "ADDRESS", "HOST", "PORT", "FILE", "PATH", "DIR", "ISSUER", "AUDIENCE", "TTL",
        "TIMEOUT", "ID", "NAME", "PREFIX", "PUBLIC", "EXPIRY", "METHOD", "MODE", "TYPE", "ENABLED", "EMPTY",
    ];
    let name = name.to_ascii_uppercase();
    if name == "PWD" || name == "OLDPWD" || value.is_empty() {
        return false;
    }
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let telling =
        words.clone().any(|w| TELLING.contains(&w) || w.ends_with("PASSWORD") || w.ends_with("SECRET"));
    let place = words.any(|word| PLACES.contains(&word));
    let switch = matches!(value, "true" | "false" | "yes" | "no" | "on" | "off" | "0" | "1");
    telling && !place && !switch && !is_plain_address(value)
}

/// `host:port` or a URL without a password.
fn is_plain_address(value: &str) -> bool {
    let url = value.contains("://");
    let port =
        value.rsplit_once(':').is_some_and(|(host, port)| !host.contains(':') && port.parse::<u16>().is_ok());
    port || url
}

/// A name that can stand in a token.
fn clean(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
    let name: String = name.chars().take(80).map(plain).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn replace_bytes(bytes: Vec<u8>, from: &[u8], to: impl Fn() -> Vec<u8>) -> Vec<u8> {
    if from.is_empty() || !bytes.windows(from.len()).any(|window| window == from) {
        return bytes;
    }
    let to = to();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    while let Some((first, after)) = rest.split_first() {
        match rest.strip_prefix(from) {
            Some(after) => {
                out.extend_from_slice(&to);
                rest = after;
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Named, Phase, ServiceStarted};

    fn redactor() -> Redactor {
        Redactor::new(
            &[7; 16],
            [("API".to_owned(), "correct horse".to_owned()), ("SHORT".to_owned(), "abc".to_owned())],
        )
    }

    #[test]
    fn known_values_go_wherever_they_stand_and_short_ones_do_not() {
        let redactor = redactor();
        let value = Value::map([("body", Value::text("say correct horse to abc"))]);
        let redacted = redactor.value(&value);
        let text = redacted.get("body").and_then(Value::as_text).unwrap_or_default().to_owned();
        assert!(text.starts_with("say <secret API#") && text.ends_with("> to abc"), "{text}");
        assert_eq!(redactor.value(&redacted), redacted);
    }

    #[test]
    fn messages_that_are_left_as_they_are_hold_nothing() {
        let redactor = redactor();
        let mut values: Vec<Value> = [CREDENTIAL_FIELDS, COOKIE_FIELDS, HANDSHAKE_FIELDS]
            .concat()
            .into_iter()
            .flat_map(|name| [name.to_owned(), name.to_ascii_uppercase()])
            .flat_map(|name| {
                let secret = Value::text("a=secret");
                let pair = Value::List(vec![Value::text(name.as_str()), secret.clone()]);
                [Value::map([(name.as_str(), secret)]), Value::map([("headers", Value::List(vec![pair]))])]
            })
            .collect();
        values.push(Value::map([("auth_response", Value::Bytes(vec![0xff, 1, 2]))]));
        values.push(Value::List(vec![Value::text("auth"), Value::text("x")]));
        values.push(Value::text("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----"));
        values.push(Value::text("mysql://root:hidden@db/app"));
        values.push(Value::Bytes([&[0xff][..], b"correct horse"].concat()));
        for value in &values {
            let mut payload = Payload::of(value);
            redactor.payload(&mut payload);
            assert_ne!(redactor.value(value), *value, "{value:?}");
            assert_eq!(payload, Payload::of(&redactor.value(value)));
        }
        let plain =
            Value::map([("sql", Value::text("SELECT 1")), ("rows", Value::List(vec![Value::Int(1)]))]);
        let mut payload = Payload::of(&plain);
        redactor.payload(&mut payload);
        assert_eq!(payload, Payload::of(&plain));
        assert!(!redactor.suspicious.is_match(&plain.encode()), "it is left as it is");
    }

    #[test]
    fn headers_keep_their_equality() {
        let redactor = redactor();
        let header = |text: &str| redactor.value(&Value::map([("Authorization", Value::text(text))]));
        assert_eq!(header("Bearer a"), header("Bearer a"));
        assert_ne!(header("Bearer a"), header("Bearer b"));
        assert!(format!("{:?}", header("Bearer a")).contains("Bearer <secret authorization#"));
    }

    #[test]
    fn environments_lose_credentials_and_url_passwords() {
        let named = |name: &str, value: &str| Named { name: name.to_owned(), value: value.to_owned() };
        let mut entry = Entry {
            seq: 0,
            at_ns: 0,
            cell: 0,
            phase: Phase::Run,
            actor: String::new(),
            stream: String::new(),
            ordinal: 0,
            cause: None,
            body: Body::ServiceStarted(ServiceStarted {
                service: "db".to_owned(),
                pid: 1,
                program: String::new(),
                digest: None,
                args: Vec::new(),
                env: vec![
                    named("MYSQL_ROOT_PASSWORD", "test"),
                    named("DATABASE_URL", "mysql://root:test@127.0.0.1:3306/appdb"),
                    named("PLAIN", "test"),
                ],
                isolated: true,
            }),
        };
        redactor().entry(&mut entry);
        let Body::ServiceStarted(started) = &entry.body else { panic!("another body") };
        assert!(started.env[0].value.starts_with("<secret MYSQL_ROOT_PASSWORD#"));
        assert!(started.env[1].value.starts_with("mysql://root:<secret url-password#"));
        assert!(started.env[1].value.ends_with("@127.0.0.1:3306/appdb"));
        assert_eq!(started.env[2].value, "test");
    }

    #[test]
    fn passwords_of_commands_go() {
        let shown = |words: &[&str]| {
            let list = Value::List(words.iter().map(|word| Value::text(*word)).collect());
            format!("{:?}", redactor().value(&list))
        };
        assert!(!shown(&["AUTH", "pw1"]).contains("pw1"));
        assert!(!shown(&["auth", "user", "pw1"]).contains("pw1"));
        assert!(!shown(&["HELLO", "3", "AUTH", "user", "pw1"]).contains("pw1"));
        assert!(shown(&["SET", "pw1", "x"]).contains("pw1"));
        assert!(shown(&["SET", "auth", "pw1"]).contains("pw1"));
    }

    #[test]
    fn rows_and_parameters_are_no_commands() {
        let cells = |words: &[&str]| Value::List(words.iter().map(|word| Value::text(*word)).collect());
        let rows = Value::List(vec![cells(&["3", "auth", "0001_initial"]), cells(&["password", "varchar"])]);
        let answer = Value::map([("resultset", Value::map([("rows", rows)]))]);
        assert_eq!(redactor().value(&answer), answer);
        let asked = Value::map([("params", cells(&["auth", "user"]))]);
        assert_eq!(redactor().value(&asked), asked);
        // What is known is known in a row too.
        let known = Value::map([("rows", Value::List(vec![cells(&["correct horse"])]))]);
        assert_ne!(redactor().value(&known), known);
    }

    #[test]
    fn variables_that_only_sound_like_credentials_stay() {
        for (name, value) in [
            ("TOKEN_URL", "http://auth/token"),
            ("OIDC_ISSUER", "https://idp.test/"),
            ("PWD", "/home/x"),
            ("KEY_PREFIX", "orders:"),
            ("AUTH_ENABLED", "true"),
            ("KEYBOARD", "us"),
            ("JWT_PUBLIC_KEY", "MFkw"),
            ("AUTH", "127.0.0.1:9000"),
        ] {
            assert!(!is_credential(name, value), "{name}={value}");
        }
        for name in
            ["DB_PASSWORD", "MYSQL_ROOT_PASSWORD", "STRIPE_API_KEY", "TOKEN", "clientSecret", "PGPASSWORD"]
        {
            assert!(is_credential(name, "x"), "{name}");
        }
    }

    #[test]
    fn private_keys_go() {
        let text = "x -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- y";
        let redacted = redactor().value(&Value::text(text));
        let redacted = redacted.as_text().unwrap_or_default().to_owned();
        assert!(
            !redacted.contains("MIIE")
                && redacted.starts_with("x <secret private-key#")
                && redacted.ends_with(" y")
        );
    }
}
