//! What of Faultbox works on a host: its layers, from what was found out about the host.
//!
//! Contract: pure. A layer that does not work, or not fully, says why and what would enable the rest;
//! `test`, `replay` and `doctor` all judge a host by this.

use crate::containers::EngineFacts;
use crate::supervisor::{Feature, HostFacts, Lack, MEDIATES};

/// How much of a layer there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// All of it.
    Yes,
    /// It works, but slower or with less.
    Partly,
    /// Nothing of it.
    No,
}

impl State {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            State::Yes => "yes",
            State::Partly => "partly",
            State::No => "no",
        }
    }
}

/// One thing that a layer misses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is not to be had.
    pub what: String,
    /// What follows from that.
    pub so: &'static str,
    /// Why, and the command.
    pub lack: Lack,
}

/// One of Faultbox's layers on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its name.
    pub name: &'static str,
    /// How much of it there is.
    pub state: State,
    /// What it misses; nothing where all of it is there.
    pub missing: Vec<Missing>,
}

impl Layer {
    fn of(name: &'static str, missing: Vec<(State, Missing)>) -> Self {
        let state = missing.iter().map(|(state, _)| *state).max().unwrap_or(State::Yes);
        Layer { name, state, missing: missing.into_iter().map(|(_, missing)| missing).collect() }
    }
}

/// What syscall faults cannot do without.
pub const TRAPS: [Feature; 3] = [Feature::Notify, Feature::Continue, Feature::ReadMemory];

/// What makes them fast and undisturbed.
pub const FAST_TRAPS: [Feature; 2] = [Feature::WaitKillable, Feature::SyncWakeUp];

/// What services that share the host's loopback need: their ports are bound elsewhere for them.
pub const SHARED: [Feature; 4] =
    [Feature::Notify, Feature::Continue, Feature::ReadMemory, Feature::TakeDescriptor];

/// What holding waits cannot do without: a call that a signal restarts would begin to wait anew.
pub const HOLDS: [Feature; 5] =
    [Feature::Notify, Feature::Continue, Feature::ReadMemory, Feature::TakeDescriptor, Feature::WaitKillable];

/// All layers, in the order of the documentation.
pub fn layers(facts: &HostFacts, engine: &EngineFacts) -> Vec<Layer> {
    vec![
        Layer::of("protocol rules", services(facts)),
        Layer::of("syscall faults", traps(facts)),
        Layer::of("isolation", isolation(facts)),
        Layer::of("containers", containers(engine)),
        Layer::of("syscall faults in containers", traps_in_containers(facts, engine)),
        Layer::of("replay", replay(facts)),
    ]
}

/// What keeps local services from starting: nothing where they have networks of their own.
pub fn cannot_start(facts: &HostFacts) -> Vec<Missing> {
    match facts.has(Feature::NetworkNamespace) {
        Ok(()) => Vec::new(),
        Err(lack) => {
            let mut missing = lacking(facts, &SHARED, "a port cannot be bound elsewhere");
            if !missing.is_empty() {
                let so = "services share the host's loopback";
                missing.insert(0, named(Feature::NetworkNamespace, so, lack));
            }
            missing
        }
    }
}

/// What keeps syscall faults from working.
pub fn cannot_trap(facts: &HostFacts) -> Vec<Missing> {
    lacking(facts, &TRAPS, "syscalls cannot be faulted")
}

/// What keeps the waits of local services from being held, so that time can be skipped.
pub fn cannot_hold(facts: &HostFacts) -> Vec<Missing> {
    if !MEDIATES {
        let lack = Lack { why: "the processor is no x86-64".to_owned(), enable: "another host".to_owned() };
        let what = "a clock of a service's own".to_owned();
        return vec![Missing { what, so: "time is not skipped", lack }];
    }
    lacking(facts, &HOLDS, "time is not skipped")
}

/// What syscall faults make do without here; empty where they cannot work at all.
pub fn traps_slowly(facts: &HostFacts) -> Vec<Missing> {
    let missing = facts.lacks(&FAST_TRAPS).into_iter();
    let so = |feature| match feature {
        Feature::WaitKillable => "a signal restarts a trapped call, which is decided anew",
        _ => "each trapped call takes several times as long",
    };
    missing.map(|(feature, lack)| named(feature, so(feature), lack)).collect()
}

fn lacking(facts: &HostFacts, features: &[Feature], so: &'static str) -> Vec<Missing> {
    let mut missing = facts.lacks(features);
    if let Some(trap) = missing.iter().position(|(feature, _)| *feature == Feature::Notify) {
        // The others could not be tried without it.
        missing = vec![missing.swap_remove(trap)];
    }
    missing.into_iter().map(|(feature, lack)| named(feature, so, lack)).collect()
}

fn named(feature: Feature, so: &'static str, lack: Lack) -> Missing {
    Missing { what: feature.title().to_owned(), so, lack }
}

fn with(state: State, missing: Vec<Missing>) -> Vec<(State, Missing)> {
    missing.into_iter().map(|missing| (state, missing)).collect()
}

fn services(facts: &HostFacts) -> Vec<(State, Missing)> {
    with(State::No, cannot_start(facts))
}

fn traps(facts: &HostFacts) -> Vec<(State, Missing)> {
    let missing = with(State::No, cannot_trap(facts));
    // Without traps it does not matter how fast they would be.
    if missing.is_empty() { with(State::Partly, traps_slowly(facts)) } else { missing }
}

fn isolation(facts: &HostFacts) -> Vec<(State, Missing)> {
    let network = lacking(facts, &[Feature::NetworkNamespace], "services share the host's loopback");
    if !network.is_empty() {
        return with(State::No, network);
    }
    let names = lacking(facts, &[Feature::MountNamespace], "names of services do not resolve inside");
    with(State::Partly, names)
}

fn containers(engine: &EngineFacts) -> Vec<(State, Missing)> {
    let missing = |lack: &Lack| Missing {
        what: "container engine".to_owned(),
        so: "services by image= need --embedded",
        lack: lack.clone(),
    };
    with(State::No, engine.version.as_ref().err().map(missing).into_iter().collect())
}

fn traps_in_containers(facts: &HostFacts, engine: &EngineFacts) -> Vec<(State, Missing)> {
    let mut missing = containers(engine);
    missing.extend(traps(facts));
    let closed = engine.version.as_ref().ok().and(engine.look_into.as_ref().err());
    missing.extend(closed.map(|lack| {
        let what = "processes of containers".to_owned();
        let so = "a cell that faults a container's syscalls ends in an error";
        (State::No, Missing { what, so, lack: lack.clone() })
    }));
    missing
}

fn replay(facts: &HostFacts) -> Vec<(State, Missing)> {
    let start = services(facts);
    if !start.is_empty() {
        // What judges recorded steps starts no service.
        let judged = |(_, missing): (State, Missing)| {
            (State::Partly, Missing { so: "no service can be driven; --depth judge works", ..missing })
        };
        return start.into_iter().map(judged).collect();
    }
    let so = "ports differ from the recording's, and nothing keeps the service from the network";
    let mut missing = with(State::Partly, lacking(facts, &[Feature::NetworkNamespace], so));
    let driven = "a cell with syscall faults on a local service cannot be driven";
    missing.extend(with(State::Partly, lacking(facts, &TRAPS, driven)));
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Account;

    fn lack() -> Lack {
        Lack { why: "why".to_owned(), enable: "enable".to_owned() }
    }

    fn host(without: &[Feature]) -> HostFacts {
        let has = |feature: &Feature| if without.contains(feature) { Err(lack()) } else { Ok(()) };
        let features = Feature::ALL.iter().map(|feature| (*feature, has(feature))).collect();
        HostFacts::new(Account::default(), features)
    }

    fn engine(version: bool, look: bool) -> EngineFacts {
        EngineFacts {
            endpoint: "unix:///x".to_owned(),
            version: if version { Ok("20.10".to_owned()) } else { Err(lack()) },
            look_into: if look { Ok(()) } else { Err(lack()) },
        }
    }

    /// The states of all layers by their first letters, in order.
    fn states(without: &[Feature], version: bool, look: bool) -> String {
        let layers = layers(&host(without), &engine(version, look));
        for layer in &layers {
            assert_eq!(layer.state == State::Yes, layer.missing.is_empty(), "{layer:?}");
        }
        layers.iter().filter_map(|layer| layer.state.word().chars().next()).collect()
    }

    #[test]
    fn each_layer_stands_on_its_own_features() {
        use Feature::*;
        // protocol rules, syscall faults, isolation, containers, syscall faults in them, replay
        for (without, version, look, wanted) in [
            (&[][..], true, true, "yyyyyy"),
            (&[AddDescriptor], true, true, "yyyyyy"),
            (&[UserNamespace], true, true, "yyyyyy"),
            (&[], true, false, "yyyyny"),
            (&[], false, false, "yyynny"),
            (&[SyncWakeUp], true, true, "ypyypy"),
            (&[WaitKillable, SyncWakeUp], true, true, "ypyypy"),
            (&[Notify, WaitKillable], true, true, "ynyynp"),
            (&[Continue], true, true, "ynyynp"),
            (&[ReadMemory], true, true, "ynyynp"),
            (&[TakeDescriptor], true, true, "yyyyyy"),
            (&[MountNamespace], true, true, "yypyyy"),
            (&[NetworkNamespace, MountNamespace], true, true, "yynyyp"),
            (&[NetworkNamespace, TakeDescriptor], true, true, "nynyyp"),
            (&[NetworkNamespace, Notify], true, true, "nnnynp"),
        ] {
            assert_eq!(states(without, version, look), wanted, "{without:?} {version} {look}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_command() {
        let layers = layers(&host(&[Feature::ReadMemory]), &engine(true, true));
        let missing = &layers[1].missing[0];
        assert_eq!((missing.what.as_str(), &missing.lack), ("memory of services", &lack()));
        assert_eq!(lack().to_string(), "why; to enable: enable");
        let missing = cannot_trap(&host(&[Feature::Continue, Feature::ReadMemory]));
        assert_eq!(missing.len(), 2);
        let missing = cannot_trap(&host(&[Feature::Notify, Feature::Continue, Feature::ReadMemory]));
        assert_eq!(
            missing.iter().map(|one| one.what.as_str()).collect::<Vec<_>>(),
            ["seccomp user notification"]
        );
    }
}
