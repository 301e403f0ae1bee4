//! Seeded randomness: ChaCha with random access, and the one read of the host's entropy.
//!
//! Contract: the n-th draw of a stream depends on (seed, cell, stream, n) and nothing else,
//! so a single decision can be checked without the ones before it (design.md section 3).

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A key from which decision streams are derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of a run.
    pub fn of_run(seed: u64) -> Self {
        Key(blake3::derive_key("faultbox 2026 run key", &seed.to_le_bytes()))
    }

    /// The key of whatever is called `name` below this one (a cell, an issuer).
    pub fn below(&self, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(name.as_bytes());
        Key(*hasher.finalize().as_bytes())
    }

    /// The n-th draw of a stream, uniform over u64.
    pub fn draw(&self, stream: &str, n: u64) -> u64 {
        let mut rng = self.below(stream).rng();
        // Two 32-bit words a draw.
        rng.set_word_pos(u128::from(n) * 2);
        rng.next_u64()
    }

    /// A generator for what needs a stream of bytes (key material of mock issuers).
    pub fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.0)
    }
}

/// A seed for a run that was given none, from the host's entropy.
///
/// # Errors
/// When the host's random device cannot be read.
pub fn fresh_seed() -> std::io::Result<u64> {
    // 32 bits: a seed that a person can type again.
    fresh_bytes().map(|bytes| u64::from(u32::from_le_bytes(bytes)))
}

/// Bytes from the host's entropy, for what identifies and decides nothing.
///
/// # Errors
/// When the host's random device cannot be read.
pub fn fresh_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    use std::io::Read;
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
