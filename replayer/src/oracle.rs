//! The recorded oracle: choices are read from the journal and checked against the seed.

use crate::divergence::Divergence;
use faultbox_bundle_format::{Body, Entry};
use faultbox_engine::oracle::{Oracle, Question, SeededOracle};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Answers from a journal; what lies beyond it is computed from the seed.
pub struct RecordedOracle {
    seeded: SeededOracle,
    recorded: BTreeMap<(String, u32, String, u64), bool>,
    divergences: Mutex<Vec<Divergence>>,
}

impl RecordedOracle {
    /// An oracle over a cell's entries, recorded with `seed`.
    pub fn new(seed: u64, entries: &[Entry]) -> Self {
        let mut recorded = BTreeMap::new();
        for entry in entries {
            if let Body::Decision(decision) = &entry.body {
                let key = (decision.assumption.clone(), decision.index, decision.key.clone(), decision.draw);
                recorded.insert(key, decision.fired);
            }
        }
        RecordedOracle { seeded: SeededOracle::new(seed), recorded, divergences: Mutex::default() }
    }

    /// Recorded decisions that the seed does not give.
    pub fn divergences(&self) -> Vec<Divergence> {
        self.divergences.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }
}

impl Oracle for RecordedOracle {
    fn admits(&self, question: &Question<'_>) -> bool {
        let seeded = self.seeded.admits(question);
        let key = (question.assumption.to_owned(), question.index, question.key.to_owned(), question.draw);
        match self.recorded.get(&key) {
            // A decision that did not fire may have been held back by a count, not by the draw.
            Some(true) if !seeded => {
                let divergence = Divergence::Decision {
                    rule: format!("{}#{}", question.assumption, question.index),
                    key: question.key.to_owned(),
                    recorded: true,
                };
                self.divergences.lock().unwrap_or_else(|p| p.into_inner()).push(divergence);
                true
            }
            _ => seeded,
        }
    }
}
