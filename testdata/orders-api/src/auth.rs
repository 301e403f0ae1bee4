//! Who asks: bearer tokens, checked against the issuer's keys.
//!
//! Contract: the issuer's name is what its discovery document says; keys are kept, and fetched again
//! when a token names one that is not known, at most once in [`COOLDOWN`].

use crate::fetch;
use crate::trace::Trace;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, RwLock};
use tokio::time::Instant;

/// How long after fetching the keys an unknown one is simply unknown.
const COOLDOWN: Duration = Duration::from_secs(10);
/// How long after a failed fetch the next request tries again.
const RETRY: Duration = Duration::from_millis(500);
/// No symmetric algorithm: a public key must never be taken for a shared secret.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// What a token says.
#[derive(Debug, Clone, Deserialize)]
pub struct Claims {
    /// Whose it is.
    pub sub: String,
    /// What it permits, separated by spaces.
    #[serde(default)]
    scope: String,
}

impl Claims {
    /// Whether the token permits `scope`.
    pub fn permits(&self, scope: &str) -> bool {
        self.scope.split_ascii_whitespace().any(|s| s == scope)
    }
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Not the issuer's, not valid now, not a token.
    #[error("{0}")]
    Invalid(String),
    /// The issuer's keys could not be had.
    #[error("the issuer's keys are not available")]
    NoKeys,
}

#[derive(Debug)]
struct Issuer {
    name: String,
    keys: JwkSet,
}

#[derive(Debug, Deserialize)]
struct Discovery {
    issuer: String,
}

/// Checks tokens.
#[derive(Debug)]
pub struct Verifier {
    discovery_url: String,
    jwks_url: String,
    issuer: RwLock<Option<Arc<Issuer>>>,
    /// When a fetch last ended, and whether it succeeded. Held while one runs.
    last_fetch: Mutex<Option<(Instant, bool)>>,
}

impl Verifier {
    /// A verifier that knows no keys yet.
    pub fn new(issuer_url: &str, jwks_url: &str) -> Verifier {
        let base = issuer_url.trim_end_matches('/');
        Verifier {
            discovery_url: format!("{base}/.well-known/openid-configuration"),
            jwks_url: jwks_url.to_owned(),
            issuer: RwLock::default(),
            last_fetch: Mutex::default(),
        }
    }

    /// Fetches the keys ahead of the first token.
    pub async fn warm(&self) {
        // A failure is logged where it happens and tried again by the first request.
        let _ = self.refetch(&Trace::begin(), &|_| true).await;
    }

    /// Checks `token`.
    ///
    /// # Errors
    /// When it is not valid, or nobody can tell.
    pub async fn verify(&self, token: &str, trace: &Trace) -> Result<Claims, AuthError> {
        let invalid = |error: jsonwebtoken::errors::Error| AuthError::Invalid(error.to_string());
        let header = decode_header(token).map_err(invalid)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(AuthError::Invalid(format!("algorithm {:?} is not accepted", header.alg)));
        }
        let kid = header.kid.as_deref();
        let known = |issuer: &Issuer| key(&issuer.keys, kid).is_some();
        let kept = self.issuer.read().await.clone();
        let issuer = match kept {
            Some(issuer) if known(&issuer) => issuer,
            _ => self.refetch(trace, &known).await?,
        };
        let jwk = key(&issuer.keys, kid).ok_or_else(|| AuthError::Invalid("unknown key".into()))?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&issuer.name]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        validation.validate_aud = false;
        validation.validate_nbf = true;
        let key = DecodingKey::from_jwk(jwk).map_err(invalid)?;
        decode::<Claims>(token, &key, &validation).map(|data| data.claims).map_err(invalid)
    }

    /// The issuer after a fetch, unless another request has just made one or the last is too recent.
    async fn refetch(
        &self,
        trace: &Trace,
        known: &(dyn Fn(&Issuer) -> bool + Sync),
    ) -> Result<Arc<Issuer>, AuthError> {
        let mut last = self.last_fetch.lock().await;
        let kept = self.issuer.read().await.clone();
        let wait = |good: bool| if good { COOLDOWN } else { RETRY };
        let recent = last.is_some_and(|(at, good)| at.elapsed() < wait(good));
        if recent || kept.as_ref().is_some_and(|issuer| known(issuer)) {
            return kept.ok_or(AuthError::NoKeys);
        }
        let fetched = self.fetch(trace, kept.as_deref()).await;
        *last = Some((Instant::now(), fetched.is_some()));
        if let Some(issuer) = &fetched {
            *self.issuer.write().await = Some(issuer.clone());
        }
        fetched.or(kept).ok_or(AuthError::NoKeys)
    }

    async fn fetch(&self, trace: &Trace, kept: Option<&Issuer>) -> Option<Arc<Issuer>> {
        let issuer = async {
            let name = match kept {
                Some(issuer) => issuer.name.clone(),
                None => {
                    let document = fetch::get(&self.discovery_url, trace).await.map_err(|e| e.to_string())?;
                    serde_json::from_slice::<Discovery>(&document).map_err(|e| e.to_string())?.issuer
                }
            };
            let document = fetch::get(&self.jwks_url, trace).await.map_err(|e| e.to_string())?;
            let keys = serde_json::from_slice::<JwkSet>(&document).map_err(|e| e.to_string())?;
            Ok::<_, String>(Arc::new(Issuer { name, keys }))
        };
        match issuer.await {
            Ok(issuer) => Some(issuer),
            Err(why) => {
                crate::log::warn("no keys from the issuer", serde_json::json!({ "why": why }));
                None
            }
        }
    }
}

/// The key that a token names; the only one where it names none.
fn key<'a>(keys: &'a JwkSet, kid: Option<&str>) -> Option<&'a Jwk> {
    match kid {
        Some(kid) => keys.find(kid),
        None => keys.keys.first().filter(|_| keys.keys.len() == 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_whole_words() {
        let claims = Claims { sub: "user-1".into(), scope: "read:orders write:orders".into() };
        assert!(claims.permits("read:orders") && claims.permits("write:orders"));
        assert!(!claims.permits("orders") && !claims.permits(""));
    }

    #[tokio::test]
    async fn symmetric_and_unsigned_tokens_are_refused_before_any_key_is_fetched() {
        let verifier = Verifier::new("http://127.0.0.1:9", "http://127.0.0.1:9/jwks");
        // {"alg":"HS256","typ":"JWT"} and {"alg":"none"}.
        for header in ["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJhbGciOiJub25lIn0"] {
            let token = format!("{header}.e30.AA");
            let refused = verifier.verify(&token, &Trace::begin()).await;
            assert!(matches!(refused, Err(AuthError::Invalid(_))), "{refused:?}");
        }
        assert!(verifier.last_fetch.lock().await.is_none());
    }
}
