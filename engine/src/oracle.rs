//! `Oracle`: the source of every choice. The replayer implements it from a bundle.
//!
//! Contract: a choice is drawn here and journaled in the same call of
//! [`crate::journal::Journal::decide`], so an unjournaled decision cannot be written.

use crate::fault::rule::member_key;
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

    /// That share of so many, rounded up.
    pub fn of_these(self, count: usize) -> usize {
        let share = (count as u128 * u128::from(self.part)).div_ceil(u128::from(self.of.max(1)));
        usize::try_from(share).unwrap_or(usize::MAX)
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
    /// Names of the members that it is a share of: exactly that share of them is chosen, rounded up.
    /// Empty where each key is drawn for itself.
    pub of: &'a [String],
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
        let cell = self.run.below(question.cell);
        let draw = |key: &str| {
            cell.draw(&format!("{}#{}:{key}", question.assumption, question.index), question.draw)
        };
        let own = draw(question.key);
        if question.of.is_empty() {
            return question.ratio.admits(own);
        }
        let keys = question.of.iter().map(|name| member_key(name));
        let before = keys.filter(|key| (draw(key), key.as_str()) < (own, question.key)).count();
        before < question.ratio.of_these(question.of.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(seed: u64, of: &[&str], ratio: Ratio) -> Vec<String> {
        let oracle = SeededOracle::new(seed);
        let of: Vec<String> = of.iter().map(|name| (*name).to_owned()).collect();
        let chosen = |name: &&String| {
            let key = member_key(name);
            let question =
                Question { cell: "c", assumption: "a", index: 0, key: &key, draw: 0, ratio, of: &of };
            oracle.admits(&question)
        };
        of.iter().filter(chosen).cloned().collect()
    }

    #[test]
    fn a_share_of_members_is_exactly_that_share_and_the_seed_says_who() {
        let half = Ratio { part: 50, of: 100 };
        let fleet = ["api", "second", "third", "fourth"];
        let mut ever: Vec<String> = Vec::new();
        for seed in 0..40 {
            let now = struck(seed, &fleet, half);
            assert_eq!((now.len(), &now), (2, &struck(seed, &fleet, half)), "seed {seed}");
            // Of an odd number the larger half.
            assert_eq!(struck(seed, &fleet[..3], half).len(), 2);
            assert_eq!(struck(seed, &fleet[..2], half).len(), 1);
            assert_eq!(struck(seed, &fleet, Ratio { part: 1, of: 1 }).len(), 4);
            assert_eq!(struck(seed, &fleet, Ratio { part: 1, of: 1000 }).len(), 1);
            ever.extend(now);
        }
        for name in fleet {
            let times = ever.iter().filter(|struck| *struck == name).count();
            assert!((10..=30).contains(&times), "{name} was struck {times} of 40 times");
        }
    }
}
