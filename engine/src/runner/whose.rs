//! Whose a red is where the spec's program can only say that the service under test did not do what was wanted.
//!
//! Contract: pure, over a cell's entries, so a judgement from the recording says the same. Only who is blamed
//! changes, never how the cell ended or why.

use super::TEST;
use crate::fault::Assumption;
use crate::fault::rule::Effect;
use crate::plan::Judgement;
use faultbox_bundle_format::{Blame, Body, Ending, Entry, Phase, RuleHit};

/// The judgement; an injected fault's where the last answer that the scenario got was a rule's own, not the
/// service's.
pub fn settled(
    judgement: Judgement,
    assumption: Option<&Assumption>,
    entries: impl FnOnce() -> Vec<Entry>,
) -> Judgement {
    let red = matches!(judgement.ending, Ending::Failed | Ending::Violated);
    let of_a_rule = || assumption.is_some_and(|assumption| answered_by_a_rule(assumption, &entries()));
    match red && judgement.blame == Blame::ServiceUnderTest && of_a_rule() {
        true => Judgement { blame: Blame::InjectedFault, ..judgement },
        false => judgement,
    }
}

fn answered_by_a_rule(assumption: &Assumption, entries: &[Entry]) -> bool {
    let scenario = entries.iter().filter(|entry| entry.phase == Phase::Scenario);
    let asked = scenario.filter_map(|entry| match &entry.body {
        Body::Exchange(exchange) if exchange.source == TEST => Some(exchange),
        _ => None,
    });
    let last = asked.max_by_key(|exchange| exchange.ended_ns).and_then(|exchange| exchange.rule.as_ref());
    last.is_some_and(|hit| effect(assumption, hit).is_some_and(replaces))
}

fn effect<'a>(assumption: &'a Assumption, hit: &RuleHit) -> Option<&'a Effect> {
    let parts = assumption.flatten();
    let part = parts.into_iter().find(|part| part.name == hit.assumption)?;
    part.rules.get(usize::try_from(hit.index).ok()?).map(|rule| &rule.effect)
}

/// Whether what arrives is not what the service said.
fn replaces(effect: &Effect) -> bool {
    match effect {
        Effect::Error(_)
        | Effect::Respond(_)
        | Effect::Drop
        | Effect::Corrupt
        | Effect::ResetAfter { .. } => true,
        Effect::Delay(_) | Effect::Allow | Effect::Duplicate | Effect::Slow { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::rule::{Modifiers, Rule};
    use faultbox_bundle_format::{Class, Exchange, Outcome, Payload, Value};
    use std::time::Duration;

    fn rule(effect: Effect) -> Rule {
        let (matchers, modifiers) = (Vec::new(), Modifiers::default());
        Rule { matchers, source: None, share: None, modifiers, effect, words: String::new() }
    }

    /// An exchange that ended then, with the rule of that index, if any.
    fn exchange(source: &str, ended_ns: u64, index: Option<u32>) -> Entry {
        let hit = |index| RuleHit { assumption: "f".to_owned(), index, action: String::new() };
        let exchange = Exchange {
            protocol: "http".into(),
            source: source.into(),
            interface: "api.public".into(),
            connection: 1,
            operation: "GET /".into(),
            key: String::new(),
            class: Class::Work,
            mutating: false,
            repeatable: false,
            request: Payload::of(&Value::Null),
            outcome: Outcome::Answered,
            response: None,
            rule: index.map(hit),
            began_ns: 0,
            ended_ns,
            began_seq: 0,
        };
        Entry {
            seq: 0,
            at_ns: ended_ns,
            cell: 1,
            phase: Phase::Scenario,
            actor: source.into(),
            stream: String::new(),
            ordinal: 0,
            cause: None,
            body: Body::Exchange(exchange),
        }
    }

    #[test]
    fn an_injected_fault_is_blamed_for_its_own_words_only() {
        let fault = Assumption {
            name: "f".to_owned(),
            description: String::new(),
            target: None,
            rules: vec![rule(Effect::Drop), rule(Effect::Delay(Duration::from_secs(1)))],
            syscalls: Vec::new(),
            parts: Vec::new(),
        };
        let whose = |ending, blame, fault: Option<&Assumption>, entries: &[Entry]| {
            let judgement = Judgement { ending, reason: "r".to_owned(), blame };
            settled(judgement, fault, || entries.to_vec()).blame
        };
        let (red, sut) = (Ending::Violated, Blame::ServiceUnderTest);
        let dropped = [exchange(TEST, 1, None), exchange(TEST, 3, Some(0)), exchange("api", 4, None)];
        assert_eq!(whose(red, sut, Some(&fault), &dropped), Blame::InjectedFault);
        assert_eq!(whose(red, sut, None, &dropped), sut);
        assert_eq!(whose(Ending::Passed, sut, Some(&fault), &dropped), sut);
        assert_eq!(whose(red, Blame::Spec, Some(&fault), &dropped), Blame::Spec);
        // The last answer was its own: late, or after what was dropped; or what was dropped was between services.
        for own in [
            &[exchange(TEST, 3, Some(1))][..],
            &[exchange(TEST, 3, Some(0)), exchange(TEST, 4, None)],
            &[exchange("api", 3, Some(0))],
            &[exchange(TEST, 3, Some(9))],
            &[],
        ] {
            assert_eq!(whose(red, sut, Some(&fault), own), sut);
        }
    }
}
