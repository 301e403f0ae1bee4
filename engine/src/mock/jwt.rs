//! A mock token issuer: discovery document, JWKS, and signed tokens.
//!
//! Contract: the key pair is made from the seeded key and nothing else, so equal seeds give
//! equal keys, and (without `expires_in`) equal tokens: all signatures are deterministic.
//! The discovery document has the declared issuer and URLs at the address at which it was
//! asked, so that they can be reached.
//! A rotation makes the next key of a sequence that the seed determines; it ends with its cell.
//! Not modelled: token endpoints, encrypted tokens.

use super::{Mock, MockCell, MockError, Rotation, SignRequest};
use crate::link::{Answer, BoxFuture, Conversation, Request, Responder};
use crate::prng::Key;
use crate::protocol::http::json;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use faultbox_bundle_format::{RuleHit, Value};
use jsonwebtoken::{Algorithm, EncodingKey};
use rand_core::Rng;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// 2020-01-01T00:00:00Z.
const ISSUED_AT: i64 = 1_577_836_800;
/// 2100-01-01T00:00:00Z.
const EXPIRES_AT: i64 = 4_102_444_800;
/// Bits of an RSA key.
const RSA_BITS: usize = 2048;

/// A declared issuer.
#[derive(Debug, Clone)]
pub struct JwtMock {
    issuer: String,
    key_id: String,
    algorithm: Algorithm,
}

impl JwtMock {
    /// An issuer with this name that signs with `RS256`, `ES256` or `EdDSA`.
    ///
    /// # Errors
    /// When the algorithm is not one of these.
    pub fn new(issuer: &str, key_id: Option<&str>, algorithm: &str) -> Result<Self, MockError> {
        let algorithm = match algorithm {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            other => {
                return Err(MockError(format!("algorithm {other} is not one of RS256, ES256, EdDSA")));
            }
        };
        let key_id = key_id.unwrap_or("faultbox-1").to_owned();
        Ok(JwtMock { issuer: issuer.to_owned(), key_id, algorithm })
    }

    /// The JWKS document as JSON text: the newest key first.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn key_set(&self, key: Key, rotation: Rotation) -> Result<String, MockError> {
        let published = (rotation.oldest..=rotation.newest).rev();
        let keys = published.map(|number| self.jwk(key, number)).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "keys": keys }).to_string())
    }

    fn jwk(&self, key: Key, number: u32) -> Result<serde_json::Value, MockError> {
        let pair = pair(self.algorithm, numbered(key, number))?;
        let mut jwk = serde_json::Map::new();
        for (name, value) in &pair.public {
            jwk.insert((*name).to_owned(), value.as_str().into());
        }
        jwk.insert("use".to_owned(), "sig".into());
        jwk.insert("alg".to_owned(), algorithm_name(self.algorithm).into());
        jwk.insert("kid".to_owned(), self.id_of(number).into());
        Ok(jwk.into())
    }

    /// The id of the n-th key: the declared one, then `ID.1`, `ID.2`, ...
    fn id_of(&self, number: u32) -> String {
        if number == 0 { self.key_id.clone() } else { format!("{}.{number}", self.key_id) }
    }

    fn discovery(&self, host: &str) -> String {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("http://{host}/.well-known/jwks.json"),
            "authorization_endpoint": format!("http://{host}/authorize"),
            "token_endpoint": format!("http://{host}/token"),
            "userinfo_endpoint": format!("http://{host}/userinfo"),
            "response_types_supported": ["code", "id_token", "token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [algorithm_name(self.algorithm)],
            "scopes_supported": ["openid"],
            "claims_supported": ["sub", "iss", "aud", "exp", "iat"],
        })
        .to_string()
    }
}

/// The key that the n-th pair is made from.
fn numbered(key: Key, number: u32) -> Key {
    if number == 0 { key } else { key.below(&format!("rotation {number}")) }
}

fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "ES256",
        Algorithm::EdDSA => "EdDSA",
        _ => "RS256",
    }
}

impl Mock for JwtMock {
    fn kind(&self) -> &'static str {
        "jwt"
    }

    fn responder(&self, cell: &MockCell) -> Arc<dyn Responder> {
        // The key is made here and not when somebody first asks: RSA takes its time. Why it
        // cannot be made is said to whoever asks.
        let _ = pair(self.algorithm, cell.key);
        Arc::new(Issuer { mock: self.clone(), cell: cell.clone() })
    }

    fn jwks(&self, key: Key) -> Option<String> {
        self.key_set(key, Rotation::default()).ok()
    }

    fn rotate(&self, cell: &MockCell, keep: bool) -> Result<String, MockError> {
        let number = cell.rotation().newest + 1;
        pair(self.algorithm, numbered(cell.key, number))?;
        let mut rotation = cell.rotation();
        rotation.newest = number;
        if !keep {
            rotation.oldest = number;
        }
        Ok(self.id_of(number))
    }

    fn sign(&self, cell: &MockCell, request: &SignRequest) -> Result<String, MockError> {
        let number = cell.rotation().newest;
        let serde_json::Value::Object(given) = json::to_json(&request.claims) else {
            return Err(MockError("claims are written as a dict".to_owned()));
        };
        let (issued, expires) = match request.expires_in {
            None => (ISSUED_AT, EXPIRES_AT),
            Some(lifetime) => {
                let now = i64::try_from(request.now_unix_s).unwrap_or(i64::MAX);
                (now, now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)))
            }
        };
        let mut claims = serde_json::Map::new();
        claims.insert("iss".to_owned(), self.issuer.as_str().into());
        claims.insert("iat".to_owned(), issued.into());
        claims.insert("exp".to_owned(), expires.into());
        claims.extend(given);
        let mut header = serde_json::Map::new();
        header.insert("typ".to_owned(), "JWT".into());
        header.insert("alg".to_owned(), algorithm_name(self.algorithm).into());
        header.insert("kid".to_owned(), self.id_of(number).into());
        match json::to_json(&request.headers) {
            serde_json::Value::Object(extra) => header.extend(extra),
            serde_json::Value::Null => {}
            _ => return Err(MockError("headers are written as a dict".to_owned())),
        }
        let part = |part: serde_json::Map<String, serde_json::Value>| {
            URL_SAFE_NO_PAD.encode(serde_json::Value::Object(part).to_string())
        };
        let message = format!("{}.{}", part(header), part(claims));
        let pair = pair(self.algorithm, numbered(cell.key, number))?;
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &pair.private, self.algorithm);
        let signature = signature.map_err(|e| MockError(format!("cannot sign: {e}")))?;
        Ok(format!("{message}.{signature}"))
    }
}

/// A key pair: for signing, and as the members of a JWK.
struct Pair {
    private: EncodingKey,
    public: Vec<(&'static str, String)>,
}

/// The pair of a seeded key. Made once per process: an RSA key takes its time.
fn pair(algorithm: Algorithm, key: Key) -> Result<Arc<Pair>, MockError> {
    type Cache = Mutex<BTreeMap<(&'static str, [u8; 32]), Arc<Pair>>>;
    static CACHE: Cache = Mutex::new(BTreeMap::new());
    let mut id = [0; 32];
    key.rng().fill_bytes(&mut id);
    let id = (algorithm_name(algorithm), id);
    // Held while the key is made: two that need the same key must not make it twice.
    let mut cache = CACHE.lock().unwrap_or_else(|p| p.into_inner());
    if let Some(pair) = cache.get(&id) {
        return Ok(pair.clone());
    }
    let mut rng = Seeded(key.rng());
    let pair = match algorithm {
        Algorithm::ES256 => es256(&mut rng),
        Algorithm::EdDSA => eddsa(&mut rng),
        _ => rs256(&mut rng),
    };
    let pair = Arc::new(pair.map_err(|e| MockError(format!("cannot make a key: {e}")))?);
    cache.insert(id, pair.clone());
    Ok(pair)
}

fn rs256(rng: &mut Seeded) -> Result<Pair, String> {
    use rsa::pkcs1::EncodeRsaPrivateKey;
    use rsa::traits::PublicKeyParts;
    let key = rsa::RsaPrivateKey::new(rng, RSA_BITS).map_err(|e| e.to_string())?;
    let der = key.to_pkcs1_der().map_err(|e| e.to_string())?;
    let public = vec![
        ("kty", "RSA".to_owned()),
        ("n", URL_SAFE_NO_PAD.encode(key.n().to_bytes_be())),
        ("e", URL_SAFE_NO_PAD.encode(key.e().to_bytes_be())),
    ];
    Ok(Pair { private: EncodingKey::from_rsa_der(der.as_bytes()), public })
}

fn es256(rng: &mut Seeded) -> Result<Pair, String> {
    use p256::elliptic_curve::sec1::ToEncodedPoint;
    use p256::pkcs8::EncodePrivateKey;
    let key = p256::SecretKey::random(rng);
    let der = key.to_pkcs8_der().map_err(|e| e.to_string())?;
    let point = key.public_key().to_encoded_point(false);
    let (Some(x), Some(y)) = (point.x(), point.y()) else {
        return Err("a public key without coordinates".to_owned());
    };
    let public = vec![
        ("kty", "EC".to_owned()),
        ("crv", "P-256".to_owned()),
        ("x", URL_SAFE_NO_PAD.encode(x)),
        ("y", URL_SAFE_NO_PAD.encode(y)),
    ];
    Ok(Pair { private: EncodingKey::from_ec_der(der.as_bytes()), public })
}

fn eddsa(rng: &mut Seeded) -> Result<Pair, String> {
    use ed25519_dalek::pkcs8::EncodePrivateKey;
    let mut secret = [0; 32];
    rng.0.fill_bytes(&mut secret);
    let key = ed25519_dalek::SigningKey::from_bytes(&secret);
    let der = key.to_pkcs8_der().map_err(|e| e.to_string())?;
    let public = vec![
        ("kty", "OKP".to_owned()),
        ("crv", "Ed25519".to_owned()),
        ("x", URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes())),
    ];
    Ok(Pair { private: EncodingKey::from_ed_der(der.as_bytes()), public })
}

/// The seeded generator in the shape that the key crates (an older `rand_core`) ask for.
struct Seeded(rand_chacha::ChaCha8Rng);

impl rsa::rand_core::RngCore for Seeded {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill_bytes(dest);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

impl rsa::rand_core::CryptoRng for Seeded {}

/// Answers HTTP requests as the issuer.
#[derive(Clone)]
struct Issuer {
    mock: JwtMock,
    cell: MockCell,
}

impl Issuer {
    async fn respond(&self, request: &Request) -> Value {
        let text = |name: &str| request.body.get(name).and_then(Value::as_text).unwrap_or_default();
        let reading = matches!(text("method"), "GET" | "HEAD");
        match text("path") {
            "/.well-known/openid-configuration" if reading => {
                let headers = request.body.get("headers");
                let host = headers.and_then(|headers| headers.get("host")).and_then(Value::as_text);
                document(200, self.mock.discovery(host.unwrap_or("localhost")))
            }
            "/.well-known/jwks.json" if reading => {
                let (mock, key, rotation) = (self.mock.clone(), self.cell.key, *self.cell.rotation());
                // Making an RSA key takes long enough to hold up a worker thread.
                match tokio::task::spawn_blocking(move || mock.key_set(key, rotation)).await {
                    Ok(Ok(jwks)) => document(200, jwks),
                    Ok(Err(problem)) => document(500, json!({ "error": problem.0 }).to_string()),
                    Err(_) => document(500, json!({ "error": "the key could not be made" }).to_string()),
                }
            }
            path => document(404, json!({ "error": format!("nothing at {path}") }).to_string()),
        }
    }
}

fn document(status: i64, body: String) -> Value {
    Value::map([
        ("status", Value::Int(status)),
        ("headers", Value::map([("content-type", Value::text("application/json"))])),
        ("body", Value::Text(body)),
    ])
}

impl Responder for Issuer {
    fn converse(&self, _source: &str, _connection: u64) -> Arc<dyn Conversation> {
        Arc::new(self.clone())
    }
}

impl Conversation for Issuer {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        Box::pin(async move { (Answer::Reply(self.respond(request).await), None) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{DecodingKey, Validation};
    use std::time::Duration;

    fn sign(mock: &JwtMock, cell: &MockCell, expires_in: Option<Duration>) -> String {
        let claims = Value::map([("sub", Value::text("user-1")), ("scope", Value::text("read:orders"))]);
        let request = SignRequest { claims, headers: Value::Null, expires_in, now_unix_s: 2_000_000_000 };
        mock.sign(cell, &request).unwrap()
    }

    fn verify(mock: &JwtMock, cell: &MockCell, token: &str) -> Option<serde_json::Value> {
        let set: JwkSet = serde_json::from_str(&mock.key_set(cell.key, *cell.rotation()).unwrap()).unwrap();
        let header = jsonwebtoken::decode_header(token).unwrap();
        let jwk = set.find(header.kid.as_deref().unwrap())?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&["https://issuer.invalid"]);
        let decoding = DecodingKey::from_jwk(jwk).unwrap();
        Some(jsonwebtoken::decode::<serde_json::Value>(token, &decoding, &validation).unwrap().claims)
    }

    fn cell(seed: u64) -> MockCell {
        MockCell::new(&Key::of_run(seed), "auth", Arc::new(crate::plan::NoProgram))
    }

    #[test]
    fn tokens_verify_against_the_served_keys_and_are_equal_in_every_run() {
        let key = &cell(7);
        for algorithm in ["RS256", "ES256", "EdDSA"] {
            let mock = JwtMock::new("https://issuer.invalid", None, algorithm).unwrap();
            let token = sign(&mock, key, None);
            let claims = verify(&mock, key, &token).unwrap();
            assert_eq!(claims["sub"], "user-1");
            assert_eq!(claims["iat"], ISSUED_AT);
            assert_eq!(claims["exp"], EXPIRES_AT);
            assert_eq!(token, sign(&mock, key, None), "{algorithm}");
            let later = sign(&mock, key, Some(Duration::from_secs(60)));
            assert_eq!(verify(&mock, key, &later).unwrap()["exp"], 2_000_000_060_i64);
        }
    }

    #[test]
    fn another_key_signs_otherwise() {
        let mock = JwtMock::new("https://issuer.invalid", Some("k"), "EdDSA").unwrap();
        let (one, other) = (cell(1), cell(2));
        assert_ne!(mock.jwks(one.key).unwrap(), mock.jwks(other.key).unwrap());
        assert_ne!(sign(&mock, &one, None), sign(&mock, &other, None));
        assert!(JwtMock::new("i", None, "HS256").is_err());
    }

    #[test]
    fn a_rotated_issuer_signs_with_the_new_key_and_publishes_what_was_asked() {
        let mock = JwtMock::new("https://issuer.invalid", Some("k"), "EdDSA").unwrap();
        let cell = cell(1);
        let before = sign(&mock, &cell, None);
        assert_eq!(mock.rotate(&cell, true).unwrap(), "k.1");
        let between = sign(&mock, &cell, None);
        assert_eq!(jsonwebtoken::decode_header(&between).unwrap().kid.as_deref(), Some("k.1"));
        assert!(verify(&mock, &cell, &before).is_some() && verify(&mock, &cell, &between).is_some());
        assert_eq!(mock.rotate(&cell, false).unwrap(), "k.2");
        assert!(verify(&mock, &cell, &before).is_none() && verify(&mock, &cell, &between).is_none());
        assert!(verify(&mock, &cell, &sign(&mock, &cell, None)).is_some());
    }
}
