//! Divergence: where a replay and its recording part ways, for people.

use crate::diff::Difference;
use faultbox_bundle_format::{Phase, Value};
use std::fmt;

/// A recorded request near to one that was not recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// What it asked.
    pub operation: String,
    /// Whether its answer had been given already.
    pub spent: bool,
    /// Where it differs.
    pub differences: Vec<Difference>,
}

/// One point where replay and recording differ.
#[derive(Debug, Clone, PartialEq)]
pub enum Divergence {
    /// The service asked something that it did not ask in the recording.
    Unexpected {
        /// Who asked.
        source: String,
        /// Whom.
        interface: String,
        /// What.
        operation: String,
        /// The request without its volatile parts.
        request: Value,
        /// What was recorded, nearest first.
        nearest: Vec<Nearest>,
        /// When.
        phase: Phase,
    },
    /// A request came before a mutating one that had completed before it.
    Order {
        /// Whom it asked.
        interface: String,
        /// What it asked.
        operation: String,
        /// What had not come yet.
        missing: String,
    },
    /// A stream of the scenario differs from the recorded one.
    Stream {
        /// The stream (`api>db.main:SELECT ...`).
        stream: String,
        /// Position in it, from 0.
        at: usize,
        /// What was recorded there, if anything.
        recorded: Option<String>,
        /// What the replay had there, if anything.
        replayed: Option<String>,
        /// Field by field, where both are there.
        differences: Vec<Difference>,
        /// The entry of the recording, if there is one.
        recorded_seq: Option<u64>,
        /// The entry of the replay, if there is one.
        replayed_seq: Option<u64>,
    },
    /// A decision that the seed does not give.
    Decision {
        /// The rule.
        rule: String,
        /// What it was about.
        key: String,
        /// What the journal says.
        recorded: bool,
    },
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Divergence::Unexpected { source, interface, operation, nearest, .. } => {
                write!(f, "{source} asked {interface} for {operation}, which was not recorded")?;
                if let Some(nearest) = nearest.first() {
                    let spent = if nearest.spent { " (already answered once)" } else { "" };
                    write!(f, "; nearest: {}{spent}", nearest.operation)?;
                    for difference in nearest.differences.iter().take(3) {
                        write!(f, ", {difference}")?;
                    }
                }
                Ok(())
            }
            Divergence::Order { interface, operation, missing } => {
                write!(f, "{operation} on {interface} came before {missing}, which had completed before it")
            }
            Divergence::Stream { stream, at, recorded, replayed, differences, .. } => {
                write!(f, "{stream} [{at}]: ")?;
                match (recorded, replayed) {
                    (Some(recorded), None) => write!(f, "recorded {recorded}, not seen in the replay"),
                    (None, Some(replayed)) => write!(f, "{replayed} was not recorded"),
                    (Some(recorded), Some(_)) if !differences.is_empty() => {
                        write!(f, "{recorded} differs")?;
                        for difference in differences.iter().take(5) {
                            write!(f, ", {difference}")?;
                        }
                        Ok(())
                    }
                    (Some(recorded), Some(replayed)) => write!(f, "recorded {recorded}, replayed {replayed}"),
                    (None, None) => write!(f, "differs"),
                }
            }
            Divergence::Decision { rule, key, recorded } => {
                write!(
                    f,
                    "decision of {rule} about {key}: the journal says {recorded}, the seed says otherwise"
                )
            }
        }
    }
}
