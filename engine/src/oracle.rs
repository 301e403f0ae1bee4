//! `Oracle`: the source of every choice. The replayer implements it from a bundle.
//!
//! Contract: a choice is drawn here and journaled in the same call of
//! [`crate::journal::Journal::decide`], so an unjournaled decision cannot be written.

use crate::prng::Key;

/// A ratio between 0 and 1, kept as integers: probabilities are never floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// Numerator, at most `of`.
    pub part: u64,
    /// Denominator, at least 1.
    pub of: u64,
}

impl Ratio {
    /// Whether a uniform draw falls below the ratio.
    pub fn admits(self, draw: u64) -> bool {
        // draw / 2^64 < part / of, without rounding.
        u128::from(draw) * u128::from(self.of) < u128::from(self.part) << 64
    }
}

/// What a choice is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question<'a> {
    /// The cell's name.
    pub cell: &'a str,
    /// The assumption whose rule asks.
    pub assumption: &'a str,
    /// Index of the rule in the assumption.
    pub index: u32,
    /// The stable key.
    pub key: &'a str,
    /// Position on this stream, from 0.
    pub draw: u64,
    /// The odds.
    pub ratio: Ratio,
}

/// Makes choices.
pub trait Oracle: Send + Sync {
    /// Whether a rule acts this time.
    fn admits(&self, question: &Question<'_>) -> bool;
}

/// Makes choices from the run's seed.
#[derive(Debug, Clone, Copy)]
pub struct SeededOracle {
    run: Key,
}

impl SeededOracle {
    /// An oracle for a run.
    pub fn new(seed: u64) -> Self {
        SeededOracle { run: Key::of_run(seed) }
    }
}

impl Oracle for SeededOracle {
    fn admits(&self, question: &Question<'_>) -> bool {
        let stream = format!("{}#{}:{}", question.assumption, question.index, question.key);
        question.ratio.admits(self.run.below(question.cell).draw(&stream, question.draw))
    }
}
