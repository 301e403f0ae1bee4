//! Redaction: credentials become tokens before anything is written.
//!
//! Contract: pure and idempotent; equal secrets of one bundle become equal tokens
//! (`<secret NAME#tag>`), so a live message that was redacted with the same salt matches its
//! recording. Known values of [`KNOWN_MIN`] bytes and more are replaced wherever they stand, escaped
//! for JSON, URLs or HTML and inside base64 too; shorter ones, header credentials, passwords in URLs
//! and private keys by where they stand. A token is put right where a service has escaped it:
//! that is what a replay, which runs with the tokens in place of the secrets, sends.
//! Not modelled: secrets in hexadecimal, inside executables, in pieces that are journaled apart, and
//! values that a service makes up and names itself.

use crate::Value;
use crate::event::{Body, Entry, Name, Named, Payload, StoredFile, Verdict};
use crate::spelling;
use regex::{Captures, Regex, bytes};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

/// Shortest known value that is replaced wherever it stands.
pub const KNOWN_MIN: usize = 8;

/// Rounds of hashing behind a tag: makes trying out guesses dearer, costs a recording little.
const ROUNDS: u32 = 1024;

/// Tags that are kept once made: a service can be sent another credential with each request.
const TAGS_KEPT: usize = 4096;

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

static TOKEN: LazyLock<Regex> = LazyLock::new(|| pattern(r"<secret [A-Za-z0-9_.-]{1,80}#[0-9a-f]{4,32}>"));
/// A token that a service has escaped.
static ESCAPED_TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i-u)(?:\\+u003c|%(?:25)*3c|&(?:amp;)*lt;|<)secret(?: |\+|%(?:25)*20)([A-Za-z0-9_.-]{1,80})(?:#|%(?:25)*23)([0-9a-f]{4,32})(?:\\+u003e|%(?:25)*3e|&(?:amp;)*gt;|>)",
    )
});
static URL_PASSWORD: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"([A-Za-z][A-Za-z0-9+.-]+://[^\s/:@<>]*):(<secret [^>]*>|[^\s/@]+)@"));
/// Go's and PHP's data source names have no scheme. What comes after the `(` of another one is no part of its user.
static DSN_PASSWORD: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"([^\s:/@"'<>(]*):([^\s@"'<>]+)(@(?:tcp|unix)\()"#));
static QUERY_PASSWORD: LazyLock<Regex> = LazyLock::new(|| {
    let names = "password|passwd|pwd|secret|client_secret|token|access_token|refresh_token|id_token|api_key|apikey|\
                 auth|sig|signature";
    pattern(&format!(r"(?i-u)((?:^|[?&;])(?:{names})=)((?:[A-Za-z0-9+/=_.~!*-]|%[0-9A-F]{{2}})+)"))
});
static PRIVATE_KEY: LazyLock<Regex> = LazyLock::new(|| {
    // One that is cut off is as private as far as it goes.
    pattern(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)")
});
/// A header in a text: a log line, a dumped request.
static HEADER: LazyLock<Regex> = LazyLock::new(|| {
    let schemes = "bearer|basic|token|digest|negotiate|apikey";
    pattern(&format!(
        r#"(?i-u)(\b(?:proxy-)?authorization["'\\]*\s*[:=]\s*["'\\]*(?:{schemes})\s+)([A-Za-z0-9+/=_.~:-]{{4,}})"#
    ))
});
static BEARER: LazyLock<Regex> = LazyLock::new(|| pattern(r"((?i-u:\bbearer)\s+)(eyJ[A-Za-z0-9_.-]{8,})"));
static COOKIES: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"((?i-u:\b(?:set-)?cookie))(["'\\]*:\s*["'\\]*)([^\r\n"'\\]+)"#));

fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("well formed")
}

/// What stands in every text that has something to replace, besides known values: parts of the
/// names above, and what [`Redactor::text`] looks for.
const SUSPICIOUS: &str = r"(?i-u:auth|api-key|security-token|cookie|passw|bearer|secret|pwd=|token=|api_?key=|sig(?:nature)?=)|(?-u:PRIVATE KEY-----|://|@tcp\(|@unix\()";

/// A value that is replaced wherever it stands.
#[derive(Debug, Clone)]
struct Known {
    value: String,
    name: String,
    /// The value in any spelling.
    spelled: bytes::Regex,
    /// What of its base64 does not depend on what stands around it.
    encoded: Option<bytes::Regex>,
}

impl Known {
    fn new(name: &str, value: String) -> Self {
        let (spelled, encoded) = (spelling::any(&value), spelling::base64(&value));
        let encoded = encoded.map(|encoded| byte_pattern(&encoded));
        Known { name: clean(name), spelled: byte_pattern(&spelled), encoded, value }
    }
}

/// The base64 of what every token begins with, as it is and in a URL.
static ENCODED_TOKEN: LazyLock<bytes::Regex> = LazyLock::new(|| {
    let begins = ["<secret ", "%3Csecret%20"].map(|text| spelling::base64(text).unwrap_or_default());
    byte_pattern(&begins.join("|"))
});

fn byte_pattern(pattern: &str) -> bytes::Regex {
    bytes::RegexBuilder::new(pattern).size_limit(1 << 30).build().expect("literals are well formed")
}

/// Replaces credentials by tokens, and back.
#[derive(Debug, Clone)]
pub struct Redactor {
    key: [u8; 32],
    /// Longest value first: no value is taken for a part of another.
    known: Arc<Vec<Known>>,
    /// Matches whatever may hold a credential; most messages do not, and are left as they are.
    suspicious: bytes::Regex,
    /// Tags that were made already: each takes many rounds.
    tags: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Redactor {
    /// A redactor for a bundle with this salt ([`crate::Header::salt`]) that knows these (name, value)
    /// secrets: what `secret(...)` gave, and [`Redactor::secrets_of_env`].
    pub fn new(salt: &[u8; 16], known: impl IntoIterator<Item = (String, String)>) -> Self {
        let usable =
            |(_, value): &(String, String)| value.len() >= KNOWN_MIN && !ESCAPED_TOKEN.is_match(value);
        let mut known: Vec<(String, String)> = known.into_iter().filter(usable).collect();
        known.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then((&a.1, &a.0).cmp(&(&b.1, &b.0))));
        known.dedup_by(|a, b| a.1 == b.1);
        let known: Vec<Known> = known.into_iter().map(|(name, value)| Known::new(&name, value)).collect();
        let key = blake3::derive_key("faultbox bundle secret tokens 1", salt);
        let mut suspicious = format!("{SUSPICIOUS}|{}", ENCODED_TOKEN.as_str());
        for known in &known {
            for part in std::iter::once(&known.spelled).chain(&known.encoded) {
                suspicious.push('|');
                suspicious.push_str(part.as_str());
            }
        }
        Redactor { key, known: Arc::new(known), suspicious: byte_pattern(&suspicious), tags: Arc::default() }
    }

    /// The secrets that an environment holds: credentials by name, passwords in URLs.
    pub fn secrets_of_env<'a>(env: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
        let mut secrets = Vec::new();
        for (name, value) in env {
            if is_credential(name, value) {
                secrets.push((name.to_owned(), value.to_owned()));
            }
            for pattern in [&URL_PASSWORD, &DSN_PASSWORD, &QUERY_PASSWORD] {
                for password in pattern.captures_iter(value).filter_map(|found| found.get(2)) {
                    // As it stands in the URL, and as it is sent to the server.
                    let written = password.as_str().to_owned();
                    let meant = spelling::percent_decoded(&written);
                    let more = (meant != written).then_some(meant);
                    let name = format!("{name}.password");
                    secrets.extend(std::iter::once(written).chain(more).map(|value| (name.clone(), value)));
                }
            }
        }
        secrets
    }

    /// The token of a value.
    pub fn token(&self, name: &str, value: &str) -> String {
        let known = self.known.iter().find(|known| known.value == value);
        let name = known.map_or_else(|| clean(name), |known| known.name.clone());
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
        if tags.len() >= TAGS_KEPT {
            tags.clear();
        }
        tags.insert(value.to_owned(), tag.clone());
        tag
    }

    /// Text without credentials.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.suspicious.is_match(text.as_bytes()) {
            return Cow::Borrowed(text);
        }
        let mut out = ESCAPED_TOKEN.replace_all(text, "<secret $1#$2>").into_owned();
        // Known values match whole characters only, so text stays text.
        out = String::from_utf8(self.known_only(out.as_bytes())).unwrap_or(out);
        let token = |found: &Captures<'_>| self.token("private-key", &found[0]);
        out = PRIVATE_KEY.replace_all(&out, token).into_owned();
        let token = |found: &Captures<'_>| match TOKEN.is_match(&found[2]) {
            true => found[0].to_owned(),
            false => format!("{}:{}@", &found[1], self.token("url-password", &found[2])),
        };
        out = URL_PASSWORD.replace_all(&out, token).into_owned();
        let token = |found: &Captures<'_>| {
            format!("{}:{}{}", &found[1], self.token("url-password", &found[2]), &found[3])
        };
        out = DSN_PASSWORD.replace_all(&out, token).into_owned();
        let token = |found: &Captures<'_>| format!("{}{}", &found[1], self.token("url-password", &found[2]));
        out = QUERY_PASSWORD.replace_all(&out, token).into_owned();
        let token = |found: &Captures<'_>| format!("{}{}", &found[1], self.token("authorization", &found[2]));
        out = HEADER.replace_all(&out, token).into_owned();
        out = BEARER.replace_all(&out, token).into_owned();
        let cookies = |found: &Captures<'_>| {
            format!("{}{}{}", &found[1], &found[2], self.cookies(&found[1], &found[3]))
        };
        Cow::Owned(COOKIES.replace_all(&out, cookies).into_owned())
    }

    /// Bytes without credentials: as text where they are text, else the known values only.
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text(text).into_owned().into_bytes(),
            Err(_) => self.known_only(bytes),
        }
    }

    /// Without known values in any spelling, and without base64 that has one of them or a token in it:
    /// what a bundle keeps of a spec's files.
    pub fn known_only(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = self.spelled(bytes.to_vec());
        for known in self.known.iter() {
            if let Some(encoded) = &known.encoded {
                // A token that is decoded wrongly is still none of the value.
                let raw = |run: &[u8]| (known.name.clone(), String::from_utf8_lossy(run).into_owned());
                out = self.encoded(out, encoded, |run| Some(self.meant(run).unwrap_or_else(|| raw(run))));
            }
        }
        self.encoded(out, &ENCODED_TOKEN, |run| self.meant(run))
    }

    /// Known values in any spelling.
    fn spelled(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for known in self.known.iter() {
            if known.spelled.is_match(&bytes) {
                let token = self.token(&known.name, &known.value);
                bytes = known.spelled.replace_all(&bytes, bytes::NoExpand(token.as_bytes())).into_owned();
            }
        }
        bytes
    }

    /// What base64 says with tokens in the place of secrets, and the name of the first: equal for what
    /// a service makes of a secret and what it makes of its token.
    fn meant(&self, run: &[u8]) -> Option<(String, String)> {
        // What stands before it may be letters too.
        (0..4).find_map(|skip| {
            let decoded = self.spelled(spelling::decode(run.get(skip..)?));
            let decoded = String::from_utf8_lossy(&decoded);
            let meant = ESCAPED_TOKEN.replace_all(&decoded, "<secret $1#$2>");
            let token = TOKEN.find(&meant)?.as_str().strip_prefix("<secret ")?;
            let name = token.split_once('#')?.0.to_owned();
            Some((name, meant.into_owned()))
        })
    }

    /// Replaces whole runs of base64 around what a pattern finds; `meant` gives the name and what the
    /// tag is made of, if the run is to be replaced.
    fn encoded(
        &self,
        bytes: Vec<u8>,
        fragment: &bytes::Regex,
        meant: impl Fn(&[u8]) -> Option<(String, String)>,
    ) -> Vec<u8> {
        let (mut out, mut done) = (Vec::new(), 0);
        for found in fragment.find_iter(&bytes) {
            let (Some(before), Some(after)) = (bytes.get(done..found.start()), bytes.get(found.end()..))
            else {
                continue; // Inside the run before.
            };
            let start = found.start() - before.iter().rev().take_while(|b| spelling::is_base64(**b)).count();
            let mut end = found.end() + after.iter().take_while(|b| spelling::is_base64(**b)).count();
            end += bytes.iter().skip(end).take(2).take_while(|b| **b == b'=').count();
            let Some((name, value)) = bytes.get(start..end).and_then(&meant) else { continue };
            out.extend_from_slice(bytes.get(done..start).unwrap_or_default());
            let name = if name.ends_with(".base64") { name } else { format!("{name}.base64") };
            out.extend_from_slice(self.token(&name, &value).as_bytes());
            done = end;
        }
        if done == 0 {
            return bytes;
        }
        out.extend_from_slice(bytes.get(done..).unwrap_or_default());
        out
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
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") && !rest.contains('<') => {
                let meant = self.meant(rest.trim().as_bytes()).map(|(_, meant)| meant);
                format!("{scheme} {}", self.token(name, &meant.unwrap_or_else(|| rest.trim().to_owned())))
            }
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
                let known = self.known.iter().find(|known| self.token(&known.name, &known.value) == token);
                known.map_or_else(|| token.to_owned(), |known| known.value.clone())
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
        for (_, piece) in pieces(entry) {
            match piece {
                Piece::Text(text) => self.string(text),
                Piece::Name(name) => self.string(name),
                Piece::Bytes(bytes) => *bytes = self.bytes(bytes),
                Piece::Payload(payload) => self.payload(payload),
                Piece::Arguments(arguments) => self.arguments(arguments),
                Piece::Variable(named) => self.variable(named),
                Piece::File(file) => self.file(file),
            }
        }
    }

    /// Replaces the credentials of a result.
    pub fn verdict(&self, verdict: &mut Verdict) {
        self.string(&mut verdict.reason);
        verdict.fired.iter_mut().for_each(|count| self.string(&mut count.rule));
    }

    fn file(&self, file: &mut StoredFile) {
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

    fn string<T: AsRef<str> + From<String>>(&self, text: &mut T) {
        if let Cow::Owned(redacted) = self.text(text.as_ref()) {
            *text = redacted.into();
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
            let rest = argument.strip_prefix("--env=").unwrap_or(argument);
            if let Some((name, value)) = rest.split_once('=') {
                let prefix = argument.strip_suffix(rest).unwrap_or_default();
                // A name may have a password in it, and what a token is called says nothing about what
                // stands after it.
                let name = self.text(name);
                let named = TOKEN.replace_all(&name, "");
                let bare = named.rsplit([':', '-']).next().unwrap_or_default();
                if is_credential(bare, value) {
                    *argument = format!("{prefix}{name}={}", self.whole(bare, value));
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
    // What ends a word that is several in one, as in `clientSecret`.
    const ENDINGS: &[&str] = &["PASSWORD", "PASSWD", "SECRET", "TOKEN", "APIKEY", "SECRETKEY", "ACCESSKEY"];
    // Names that leave no doubt, whatever the value looks like.
    const PLAIN: &[&str] = &["PASSWORD", "PASSWD", "PASSPHRASE", "PWD", "PASS", "SECRET"];
    let name = name.to_ascii_uppercase();
    if name == "PWD" || name == "OLDPWD" || value.is_empty() {
        return false;
    }
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let ends = |word: &str, with: &[&str]| with.iter().any(|ending| word.ends_with(ending));
    let telling = words.clone().any(|word| TELLING.contains(&word) || ends(word, ENDINGS));
    let plain = words.clone().any(|word| ends(word, PLAIN));
    let place = words.any(|word| PLACES.contains(&word));
    let switch = matches!(value, "true" | "false" | "yes" | "no" | "on" | "off" | "0" | "1");
    telling && !place && !switch && (plain || !is_plain_address(value))
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

/// A value with its tokens escaped where they stand in a URL: a service takes it apart, and its replay runs
/// with the tokens in place of the secrets.
pub fn escaped_in_url(value: &str) -> Cow<'_, str> {
    match value.contains("://") {
        true => TOKEN.replace_all(value, |found: &Captures<'_>| {
            let percent = |c: char| match c {
                '<' => "%3C".to_owned(),
                ' ' => "%20".to_owned(),
                '#' => "%23".to_owned(),
                '>' => "%3E".to_owned(),
                other => other.to_string(),
            };
            found[0].chars().map(percent).collect::<String>()
        }),
        false => Cow::Borrowed(value),
    }
}

/// A part of an entry in which credentials can stand.
enum Piece<'a> {
    Text(&'a mut String),
    Name(&'a mut Name),
    Bytes(&'a mut Vec<u8>),
    Payload(&'a mut Payload),
    Arguments(&'a mut Vec<String>),
    Variable(&'a mut Named),
    File(&'a mut StoredFile),
}

/// The parts of an entry in which credentials can stand, with words for what they are.
fn pieces(entry: &mut Entry) -> Vec<(&'static str, Piece<'_>)> {
    let mut all = vec![("stream", Piece::Text(&mut entry.stream))];
    match &mut entry.body {
        Body::RunStarted(run) => all.push(("command line", Piece::Arguments(&mut run.command))),
        Body::File(file) => all.push(("content", Piece::File(file))),
        Body::HostFact(named) => all.push(("fact", Piece::Text(&mut named.value))),
        Body::CellStarted(started) => all.push(("expectation", Piece::Text(&mut started.expectation))),
        Body::ServiceStarted(started) => {
            all.push(("program", Piece::Text(&mut started.program)));
            all.push(("arguments", Piece::Arguments(&mut started.args)));
            all.extend(started.env.iter_mut().map(|named| ("environment", Piece::Variable(named))));
        }
        Body::FaultWindow(window) => {
            all.extend(window.rules.iter_mut().map(|rule| ("rule", Piece::Text(rule))));
        }
        Body::Output(output) => all.push(("line", Piece::Bytes(&mut output.bytes))),
        Body::StepStarted(step) => all.push(("arguments", Piece::Payload(&mut step.arguments))),
        Body::StepEnded(step) => all.push(("response", Piece::Payload(&mut step.response))),
        Body::Exchange(exchange) => {
            all.push(("key", Piece::Text(&mut exchange.key)));
            all.push(("operation", Piece::Name(&mut exchange.operation)));
            all.push(("request", Piece::Payload(&mut exchange.request)));
            all.extend(exchange.response.iter_mut().map(|response| ("response", Piece::Payload(response))));
            all.extend(exchange.rule.iter_mut().map(|rule| ("rule", Piece::Text(&mut rule.action))));
        }
        Body::Decision(decision) => all.push(("key", Piece::Text(&mut decision.key))),
        Body::Syscall(syscall) => {
            all.push(("target", Piece::Text(&mut syscall.target)));
            all.extend(syscall.rule.iter_mut().map(|rule| ("rule", Piece::Text(&mut rule.action))));
        }
        Body::Signed(signed) => all.push(("claims", Piece::Payload(&mut signed.claims))),
        Body::Assertion(assertion) => all.push(("message", Piece::Text(&mut assertion.message))),
        Body::Verdict(verdict) => {
            all.push(("reason", Piece::Text(&mut verdict.reason)));
            all.extend(verdict.fired.iter_mut().map(|count| ("rule", Piece::Text(&mut count.rule))));
        }
        Body::Unknown(unknown) => all.push(("bytes", Piece::Bytes(&mut unknown.bytes))),
        // Names of the spec, numbers, and nothing.
        Body::Addresses(_)
        | Body::PhaseBegan
        | Body::ServiceReady(_)
        | Body::ServiceExited(_)
        | Body::RunEnded(_) => {}
    }
    all
}

/// Where a token stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Redacted {
    /// The name in the token: where the secret came from.
    pub name: String,
    /// The token's tag: equal for equal secrets.
    pub tag: String,
    /// Where in the entry, in words: `environment DB_PASSWORD of api`.
    pub place: String,
}

/// Every token in an entry, in order. Payloads have to be at hand.
pub fn redacted(entry: &Entry) -> Vec<Redacted> {
    let mut entry = entry.clone();
    let subject = subject(&entry.body);
    let mut found = Vec::new();
    for (word, piece) in pieces(&mut entry) {
        // It repeats the key.
        if word == "stream" {
            continue;
        }
        let place = format!("{subject}{word}");
        match piece {
            Piece::Text(text) => tokens(text, &place, &mut found),
            Piece::Name(name) => tokens(name, &place, &mut found),
            Piece::Bytes(bytes) => tokens(&String::from_utf8_lossy(bytes), &place, &mut found),
            Piece::Payload(payload) => match payload.value() {
                Some(value) => tokens_of(&value, &place, &mut found),
                None => {
                    tokens(&String::from_utf8_lossy(payload.bytes().unwrap_or_default()), &place, &mut found)
                }
            },
            Piece::Arguments(all) => all.iter().for_each(|word| tokens(word, &place, &mut found)),
            Piece::Variable(named) => tokens(&named.value, &format!("{place} {}", named.name), &mut found),
            Piece::File(file) if matches!(file.role.as_str(), "spec" | "loaded") => {
                let content = file.content.as_ref().and_then(Payload::bytes).unwrap_or_default();
                tokens(&String::from_utf8_lossy(content), &place, &mut found);
            }
            Piece::File(_) => {}
        }
    }
    found
}

/// What an entry is about, for the place of a token in it.
fn subject(body: &Body) -> String {
    match body {
        Body::File(file) => format!("file {}: ", file.path),
        Body::HostFact(fact) => format!("{}: ", fact.name),
        Body::ServiceStarted(started) => format!("{}: ", started.service),
        Body::FaultWindow(window) => format!("fault {}: ", window.assumption),
        Body::Output(output) => format!("{} says: ", output.service),
        Body::StepStarted(step) => format!("step {} {}: ", step.verb, step.interface),
        Body::StepEnded(step) => format!("step {}: ", step.step),
        Body::Exchange(e) => format!("{} -> {} {}: ", e.source, e.interface, e.operation),
        Body::Decision(decision) => format!("decision of {}: ", decision.assumption),
        Body::Syscall(call) => format!("{} {}: ", call.service, call.name),
        Body::Signed(signed) => format!("token of {}: ", signed.service),
        Body::Assertion(assertion) => format!("assertion at {}: ", assertion.location),
        Body::Verdict(_) => "verdict: ".to_owned(),
        _ => String::new(),
    }
}

fn tokens(text: &str, place: &str, found: &mut Vec<Redacted>) {
    for token in TOKEN.find_iter(text) {
        let inside = token.as_str().trim_start_matches("<secret ").trim_end_matches('>');
        if let Some((name, tag)) = inside.split_once('#') {
            found.push(Redacted { name: name.to_owned(), tag: tag.to_owned(), place: place.to_owned() });
        }
    }
}

fn tokens_of(value: &Value, place: &str, found: &mut Vec<Redacted>) {
    match value.bare() {
        Value::Text(text) => tokens(text, place, found),
        Value::Bytes(bytes) => tokens(&String::from_utf8_lossy(bytes), place, found),
        Value::List(items) => match items.as_slice() {
            [Value::Text(name), value @ (Value::Text(_) | Value::Bytes(_))] => {
                tokens(name, place, found);
                tokens_of(value, &format!("{place} {name}"), found);
            }
            items => items.iter().for_each(|item| tokens_of(item, place, found)),
        },
        Value::Map(fields) => {
            for (name, value) in fields {
                tokens(name, place, found);
                tokens_of(value, &format!("{place} {name}"), found);
            }
        }
        _ => {}
    }
}

/// What a service prints, kept back until its lines are whole: a secret that comes in two pieces would
/// be seen in neither.
#[derive(Debug, Default)]
pub struct WholeLines(Vec<u8>);

impl WholeLines {
    /// Longest unfinished line that is kept back, in bytes.
    const HELD_MAX: usize = 1 << 20;

    /// Takes what was printed and gives the whole lines that there are now.
    pub fn push(&mut self, printed: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(printed);
        let whole = self.0.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut whole = if self.0.len() - whole > Self::HELD_MAX { self.0.len() } else { whole };
        // A private key is many lines.
        if self.0.len() <= Self::HELD_MAX
            && let Some(key) = OPEN_KEY.find_iter(&self.0).last()
            && !CLOSED_KEY.is_match(self.0.get(key.end()..).unwrap_or_default())
        {
            whole = whole.min(key.start());
        }
        let rest = self.0.split_off(whole);
        std::mem::replace(&mut self.0, rest)
    }

    /// What is left when nothing more comes.
    pub fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

static OPEN_KEY: LazyLock<bytes::Regex> =
    LazyLock::new(|| byte_pattern("-----BEGIN [A-Z ]*PRIVATE KEY-----"));
static CLOSED_KEY: LazyLock<bytes::Regex> =
    LazyLock::new(|| byte_pattern("-----END [A-Z ]*PRIVATE KEY-----"));

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
            actor: "".into(),
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
    fn arguments_that_hold_a_url_lose_what_is_secret_once_and_for_all() {
        let redactor = redactor();
        for argument in ["db://root:hunter22@t6=1:/appdb", "db://root:hunter22@password=hunter22"] {
            let mut arguments = [argument.to_owned()];
            redactor.arguments(&mut arguments);
            assert!(!arguments[0].contains("hunter22"), "{}", arguments[0]);
            let once = arguments.clone();
            redactor.arguments(&mut arguments);
            assert_eq!(arguments, once);
        }
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
    fn a_service_with_tokens_says_the_same_as_one_with_secrets() {
        let redactor = redactor();
        let token = redactor.token("API", "correct horse");
        let encode = crate::spelling::encode;
        let says = |secret: &str| {
            let json = secret.replace('<', "\\u003c").replace('>', "\\u003e");
            let percent = secret.replace('<', "%3C").replace('>', "%3E").replace('#', "%23");
            let body = format!(
                "{secret} {json} {} {} {} x{}",
                percent.replace(' ', "%20"),
                percent.replace(' ', "+"),
                encode(format!("user:{secret}").as_bytes()),
                encode(format!("ab{secret}").as_bytes()).replace('+', "-").replace('/', "_"),
            );
            let url = escaped_in_url(&format!("redis://u:{secret}@h/0")).into_owned();
            let body = format!("{body} {url} {} {}", encode(url.as_bytes()), url.replace('%', "%25"));
            Value::map([
                ("authorization", Value::text(format!("Basic {}", encode(format!("u:{secret}").as_bytes())))),
                ("cookie", Value::text(format!("sid={secret}; theme=dark"))),
                ("query", Value::text(format!("a=b&token={secret}"))),
                ("body", Value::text(body)),
                ("log", Value::text(format!("Authorization: Basic {}", encode(secret.as_bytes())))),
            ])
        };
        let recorded = redactor.value(&says("correct horse"));
        assert_eq!(redactor.value(&says(&token)), recorded);
        // What replays knows nothing but tokens.
        assert_eq!(Redactor::new(&[7; 16], []).value(&says(&token)), recorded);
        let shown = format!("{recorded:?}");
        assert!(!shown.contains("correct") && !shown.contains("horse"), "{shown}");
        assert!(
            shown.contains("<secret API.base64#") && shown.contains("Basic <secret authorization#"),
            "{shown}"
        );
    }

    #[test]
    fn a_token_in_a_url_can_be_taken_apart_and_is_the_same_token() {
        let redactor = redactor();
        let url = redactor.text("redis://u:correct horse@h:1/0").into_owned();
        let escaped = escaped_in_url(&url);
        assert!(
            escaped.starts_with("redis://u:%3Csecret%20API%23") && escaped.ends_with("%3E@h:1/0"),
            "{escaped}"
        );
        assert_eq!(redactor.text(&escaped), url);
        let known = Redactor::secrets_of_env([("URL", &*escaped)]);
        assert_eq!(Redactor::new(&[7; 16], known).text(&escaped), url);
        assert_eq!(escaped_in_url("plain <secret A#12345678>"), "plain <secret A#12345678>");
    }

    #[test]
    fn credentials_in_texts_go() {
        for (text, gone, left) in [
            ("> Authorization: Bearer abcdef.12", "abcdef", "Authorization: Bearer <secret authorization#"),
            (r#"{"authorization":"Basic dTpw"}"#, "dTpw", r#"Basic <secret authorization#"#),
            ("with bearer eyJhbGciOi.abc.def", "eyJ", "bearer <secret authorization#"),
            ("Set-Cookie: sid=abc; Path=/", "abc", "; Path=/"),
            ("root:hidden@tcp(db:3306)/app", "hidden", "@tcp(db:3306)/app"),
            ("u:p@tcp(:hidden@tcp(h)/d", "hidden", "@tcp(h)/d"),
            ("/login?user=u&password=hidden&x=1", "hidden", "&x=1"),
            ("password=hid%20den", "hid%20", "password=<secret url-password#"),
            ("-----BEGIN EC PRIVATE KEY-----\nMIIcut", "MII", "<secret private-key#"),
        ] {
            let redacted = redactor().text(text).into_owned();
            assert!(!redacted.contains(gone) && redacted.contains(left), "{redacted}");
            assert_eq!(redactor().text(&redacted), redacted);
        }
        for text in ["SELECT * FROM users WHERE password=? AND token = $1", "a bearer token is missing"] {
            assert_eq!(redactor().text(text), text);
        }
    }

    #[test]
    fn passwords_are_known_as_they_are_written_and_as_they_are_meant() {
        let secrets = Redactor::secrets_of_env([
            ("CACHE_URL", "redis://u:p%40ssw0rd@h:1,redis://u:another@h:2"),
            ("DB_PASSWORD", "host:3306"),
            ("authToken", "abc"),
            ("AUTH", "127.0.0.1:9000"),
        ]);
        let values: Vec<&str> = secrets.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["p%40ssw0rd", "p@ssw0rd", "another", "host:3306", "abc"]);
    }

    #[test]
    fn a_secret_that_is_printed_in_two_pieces_is_seen() {
        let mut lines = WholeLines::default();
        assert_eq!(lines.push(b"one\ncorrect "), b"one\n");
        assert_eq!(lines.push(b"horse\nrest"), b"correct horse\n");
        assert_eq!(lines.push(b"\n-----BEGIN PRIVATE KEY-----\nMII\n"), b"rest\n");
        assert_eq!(lines.push(b"MII\n"), b"");
        let key = lines.push(b"-----END PRIVATE KEY-----\nlast");
        assert!(key.starts_with(b"-----BEGIN") && key.ends_with(b"-----\n"));
        assert_eq!(lines.end(), b"last");
        // What never ends is let go.
        let endless = "x".repeat(WholeLines::HELD_MAX + 1);
        assert_eq!(lines.push(endless.as_bytes()).len(), endless.len());
    }

    #[test]
    fn what_was_redacted_is_listed_with_its_place() {
        let mut entry = Entry {
            seq: 0,
            at_ns: 0,
            cell: 1,
            phase: Phase::Scenario,
            actor: "".into(),
            stream: String::new(),
            ordinal: 0,
            cause: None,
            body: Body::Signed(crate::Signed {
                service: "auth".to_owned(),
                claims: Payload::of(&Value::map([("sub", Value::text("is correct horse"))])),
            }),
        };
        assert_eq!(redacted(&entry), []);
        redactor().entry(&mut entry);
        let found = redacted(&entry);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].place.as_str()), ("API", "token of auth: claims sub"));
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
