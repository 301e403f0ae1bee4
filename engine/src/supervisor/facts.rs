//! What is known of a host: facts, however they were found out.

use super::features::{Feature, Lack};
use std::collections::BTreeMap;

/// What this host permits this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The kernel's release.
    pub kernel: String,
    /// Who asks.
    pub account: Account,
    /// The settings that decide about features, as far as the host has them.
    pub settings: BTreeMap<String, String>,
    /// What is left out on purpose.
    pub simulated: Vec<Feature>,
    features: BTreeMap<Feature, Result<(), Lack>>,
}

/// A user and their groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// Their name, where they have one.
    pub name: Option<String>,
    /// Names of their groups; numbers where a group has none.
    pub groups: Vec<String>,
}

impl HostFacts {
    /// Facts as a probe would have found them.
    pub fn new(account: Account, features: BTreeMap<Feature, Result<(), Lack>>) -> Self {
        let (kernel, settings, simulated) = Default::default();
        HostFacts { kernel, account, settings, simulated, features }
    }

    /// Whether the feature is there.
    ///
    /// # Errors
    /// Why it is not, and what would enable it.
    pub fn has(&self, feature: Feature) -> Result<(), Lack> {
        let unknown =
            || Err(Lack { why: "it was not tried".to_owned(), enable: "faultbox doctor".to_owned() });
        self.features.get(&feature).cloned().unwrap_or_else(unknown)
    }

    /// Those of these features that are not there.
    pub fn lacks(&self, features: &[Feature]) -> Vec<(Feature, Lack)> {
        features.iter().filter_map(|feature| Some((*feature, self.has(*feature).err()?))).collect()
    }
}
