//! Redaction: secrets become tokens before they reach the disk.
//!
//! Contract: pure; the same secret gives the same token in one bundle, so requests still
//! match. A token is `<secret NAME#TAG>`; TAG is 40 bits of a BLAKE3 hash keyed by the
//! bundle's salt. Values of [`KNOWN_MIN`] bytes and more are replaced wherever they stand,
//! shorter ones by field. Redacting twice changes nothing.
//! Not modelled: secrets that nobody declared and that stand in no field known to hold one.
//! The salt lies in the bundle: tags keep honest readers from seeing a secret, they do not
//! protect one that can be guessed.

use crate::{Body, Entry, Payload, Value};

/// Length from which a known value is replaced wherever it stands.
pub const KNOWN_MIN: usize = 8;

/// Fields (headers, metadata) whose value is always a secret.
const SECRET_FIELDS: &[&str] =
    &["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"];

/// Parts of a variable's name that say that it holds a credential.
const SECRET_NAMES: &[&str] =
    &["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "ACCESS_KEY", "CREDENTIAL"];

/// Whether an environment variable of that name looks like a credential.
pub fn is_secret_name(name: &str) -> bool {
    let upper = name.to_uppercase();
    SECRET_NAMES.iter().any(|part| upper.contains(part))
}

/// Replaces secrets by tokens.
#[derive(Debug, Clone)]
pub struct Redactor {
    key: [u8; 32],
    /// Name and value, longest value first, each at least [`KNOWN_MIN`] long.
    known: Vec<(String, String)>,
}

impl Redactor {
    /// A redactor for a bundle with this salt, knowing these (name, value) secrets.
    pub fn new(salt: &[u8; 16], known: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut known: Vec<(String, String)> =
            known.into_iter().filter(|(_, value)| value.len() >= KNOWN_MIN).collect();
        known.sort_by(|(_, a), (_, b)| b.len().cmp(&a.len()).then(a.cmp(b)));
        known.dedup_by(|(_, a), (_, b)| a == b);
        Redactor { key: blake3::derive_key("faultbox 2026 secret tokens", salt), known }
    }

    /// The secrets that an environment holds: credentials by name, passwords in URLs.
    pub fn secrets_of_env<'a>(env: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
        let mut secrets = Vec::new();
        for (name, value) in env {
            if is_secret_name(name) {
                secrets.push((name.to_owned(), value.to_owned()));
            } else if let Some((before, after)) = url_password(value) {
                secrets.push((name.to_owned(), value[before..after].to_owned()));
            }
        }
        secrets
    }

    /// The token of a secret.
    pub fn token(&self, name: &str, value: &str) -> String {
        let tag = blake3::keyed_hash(&self.key, value.as_bytes());
        let tag: String = tag.as_bytes()[..5].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("<secret {name}#{tag}>")
    }

    /// Replaces the secrets of an entry.
    pub fn entry(&self, entry: &mut Entry) {
        match &mut entry.body {
            Body::ServiceStarted(started) => {
                for variable in &mut started.env {
                    variable.value = self.variable(&variable.name, &variable.value);
                }
            }
            Body::RunStarted(run) => run.command.iter_mut().for_each(|word| *word = self.text(word)),
            Body::Output(output) => {
                if let Ok(text) = std::str::from_utf8(&output.bytes) {
                    let redacted = self.text(text);
                    if redacted != text {
                        output.bytes = redacted.into_bytes();
                    }
                }
            }
            Body::StepStarted(step) => self.payload(&mut step.arguments),
            Body::StepEnded(step) => self.payload(&mut step.response),
            Body::Exchange(exchange) => {
                self.payload(&mut exchange.request);
                if let Some(response) = &mut exchange.response {
                    self.payload(response);
                }
            }
            Body::Assertion(assertion) => assertion.message = self.text(&assertion.message),
            Body::Verdict(verdict) => verdict.reason = self.text(&verdict.reason),
            _ => {}
        }
    }

    /// Replaces the secrets of a value.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::Text(text) => Value::Text(self.text(text)),
            Value::Bytes(bytes) => Value::Bytes(self.bytes(bytes)),
            Value::List(items) => Value::List(items.iter().map(|item| self.value(item)).collect()),
            Value::Map(fields) => {
                let field = |(name, value): &(String, Value)| (name.clone(), self.field(name, value));
                Value::Map(fields.iter().map(field).collect())
            }
            Value::Volatile(inner) => Value::Volatile(Box::new(self.value(inner))),
            other => other.clone(),
        }
    }

    fn payload(&self, payload: &mut Payload) {
        if let Some(value) = payload.value() {
            *payload = Payload::of(&self.value(&value));
        }
    }

    fn field(&self, name: &str, value: &Value) -> Value {
        let lower = name.to_ascii_lowercase();
        if !SECRET_FIELDS.contains(&lower.as_str()) {
            return self.value(value);
        }
        match value {
            Value::Text(text) if !text.starts_with("<secret ") => Value::Text(self.token(&lower, text)),
            Value::List(items) => Value::List(items.iter().map(|item| self.field(name, item)).collect()),
            Value::Volatile(inner) => Value::Volatile(Box::new(self.field(name, inner))),
            other => other.clone(),
        }
    }

    fn variable(&self, name: &str, value: &str) -> String {
        if value.starts_with("<secret ") {
            value.to_owned()
        } else if is_secret_name(name) {
            self.token(name, value)
        } else if let Some((before, after)) = url_password(value) {
            format!("{}{}{}", &value[..before], self.token(name, &value[before..after]), &value[after..])
        } else {
            self.text(value)
        }
    }

    fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.known {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), &self.token(name, value));
            }
        }
        match private_key(&text) {
            Some((before, after)) => {
                format!("{}{}{}", &text[..before], self.token("private-key", &text[before..after]), &text[after..])
            }
            None => text,
        }
    }

    fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (name, value) in &self.known {
            let token = self.token(name, value).into_bytes();
            while let Some(at) = bytes.windows(value.len()).position(|window| window == value.as_bytes()) {
                bytes.splice(at..at + value.len(), token.iter().copied());
            }
        }
        bytes
    }
}

/// Where the password of a URL stands (`scheme://user:password@host`), where it has one.
fn url_password(text: &str) -> Option<(usize, usize)> {
    let authority = text.find("://")? + 3;
    let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |at| authority + at);
    let at = authority + text[authority..end].rfind('@')?;
    let colon = authority + text[authority..at].find(':')?;
    (colon + 1 < at).then_some((colon + 1, at))
}

/// Where a PEM private key stands.
fn private_key(text: &str) -> Option<(usize, usize)> {
    let begin = text.match_indices("-----BEGIN ").find(|(at, _)| {
        text[*at..].lines().next().is_some_and(|line| line.ends_with("PRIVATE KEY-----"))
    })?;
    let end = text[begin.0..].find("-----END ")? + begin.0;
    let close = text[end + 9..].find("-----")? + end + 9 + 5;
    Some((begin.0, close))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Named, Phase, ServiceStarted};

    fn redactor() -> Redactor {
        Redactor::new(&[7; 16], [("API".to_owned(), "correct horse".to_owned()), ("SHORT".to_owned(), "abc".to_owned())])
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
    fn headers_keep_their_equality() {
        let redactor = redactor();
        let header = |text: &str| redactor.value(&Value::map([("Authorization", Value::text(text))]));
        assert_eq!(header("Bearer a"), header("Bearer a"));
        assert_ne!(header("Bearer a"), header("Bearer b"));
        assert!(!format!("{:?}", header("Bearer a")).contains("Bearer"));
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
        assert!(started.env[1].value.starts_with("mysql://root:<secret DATABASE_URL#"));
        assert!(started.env[1].value.ends_with("@127.0.0.1:3306/appdb"));
        assert_eq!(started.env[2].value, "test");
    }

    #[test]
    fn private_keys_go() {
        let text = "x -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- y";
        let redacted = redactor().value(&Value::text(text));
        let redacted = redacted.as_text().unwrap_or_default().to_owned();
        assert!(!redacted.contains("MIIE") && redacted.starts_with("x <secret private-key#") && redacted.ends_with(" y"));
    }
}
