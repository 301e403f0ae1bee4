//! The RSA step of `caching_sha2_password` over plain TCP.
//!
//! Contract: whatever a client sends, decryption gives bytes or nothing. The key pair is
//! made once a process; it hides a password from nobody but a reader of the wire, as the
//! real one does on a connection without TLS.

use rsa::pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding};
use rsa::rand_core::{CryptoRng, Error, RngCore};
use rsa::{Oaep, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use std::sync::OnceLock;

/// Bytes that look random, from a seed.
struct Stream(blake3::OutputReader);

impl RngCore for Stream {
    fn next_u32(&mut self) -> u32 {
        let mut four = [0; 4];
        self.fill_bytes(&mut four);
        u32::from_le_bytes(four)
    }
    fn next_u64(&mut self) -> u64 {
        let mut eight = [0; 8];
        self.fill_bytes(&mut eight);
        u64::from_le_bytes(eight)
    }
    fn fill_bytes(&mut self, to: &mut [u8]) {
        self.0.fill(to);
    }
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(to);
        Ok(())
    }
}
impl CryptoRng for Stream {}

fn stream(seed: &[u8]) -> Stream {
    Stream(blake3::Hasher::new().update(b"faultbox mysql").update(seed).finalize_xof())
}

fn key() -> Option<&'static RsaPrivateKey> {
    static KEY: OnceLock<Option<RsaPrivateKey>> = OnceLock::new();
    // 1024 bits are made in a moment and hold any password a test uses.
    KEY.get_or_init(|| RsaPrivateKey::new(&mut stream(b"key"), 1024).ok()).as_ref()
}

/// Our public key as PEM.
pub fn public_key() -> Option<String> {
    RsaPublicKey::from(key()?).to_public_key_pem(LineEnding::LF).ok()
}

/// What was encrypted to our key.
pub fn decrypt(bytes: &[u8]) -> Option<Vec<u8>> {
    key()?.decrypt(Oaep::new::<Sha1>(), bytes).ok()
}

/// Encrypts to a server's key; `seed` is the salt of the connection.
pub fn encrypt(pem: &[u8], bytes: &[u8], seed: &[u8]) -> Option<Vec<u8>> {
    let pem = std::str::from_utf8(pem).ok()?;
    let key = RsaPublicKey::from_public_key_pem(pem.trim()).ok()?;
    key.encrypt(&mut stream(seed), Oaep::new::<Sha1>(), bytes).ok()
}

/// Twenty bytes of salt, none of them zero or above 127.
pub fn salt(seed: &[u8]) -> Vec<u8> {
    let mut bytes = [0; 20];
    stream(seed).fill_bytes(&mut bytes);
    bytes.iter().map(|b| b % 93 + 33).collect()
}
