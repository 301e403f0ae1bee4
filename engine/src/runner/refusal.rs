//! What a stand-in refused: the likeliest reason of a red that was run with `--embedded`.
//!
//! Contract: pure, over a cell's entries; words for people, of bounded length. Finds what says of
//! itself that it is a stand-in's refusal, so a replay from the recording says the same.

use faultbox_bundle_format::{Body, Entry, Exchange, Phase, Value};

/// What every refusal of a stand-in says of itself.
const SAYS: &str = "the Faultbox stand-in";

/// How much of a statement is shown, in characters.
const SHOWN: usize = 160;

/// The last thing of a scenario that a stand-in refused: what was asked, and why not.
pub fn last(entries: &[Entry]) -> Option<String> {
    let scenario = entries.iter().rev().filter(|entry| entry.phase == Phase::Scenario);
    scenario
        .filter_map(|entry| if let Body::Exchange(e) = &entry.body { Some(e) } else { None })
        .find_map(words)
}

fn words(exchange: &Exchange) -> Option<String> {
    let response = exchange.response.as_ref()?.value()?;
    let why = refusal(&response)?;
    let asked = exchange.request.value().and_then(|body| asked(&body));
    let asked = asked.unwrap_or_else(|| exchange.operation.to_string());
    Some(format!("{} refused {}: {}", exchange.interface, short(&asked), short(why)))
}

fn asked(body: &Value) -> Option<String> {
    if let Some(sql) = body.get("sql").and_then(Value::as_text) {
        return Some(sql.to_owned());
    }
    let args = body.get("args").and_then(Value::as_list)?;
    Some(args.iter().filter_map(Value::as_text).collect::<Vec<_>>().join(" "))
}

/// The text of an answer that says so. (Rows of a result are data.)
fn refusal(value: &Value) -> Option<&str> {
    match value.bare() {
        Value::Text(text) if text.contains(SAYS) => Some(text),
        Value::List(items) => items.iter().find_map(refusal),
        Value::Map(fields) => fields.iter().filter(|(name, _)| name != "rows").find_map(|(_, v)| refusal(v)),
        _ => None,
    }
}

fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::mysql::result::error_value;
    use faultbox_bundle_format::{Class, Outcome, Payload};

    fn entry(phase: Phase, sql: &str, answer: &Value) -> Entry {
        let exchange = Exchange {
            protocol: "mysql".into(),
            source: "api".into(),
            interface: "db.main".into(),
            connection: 1,
            operation: "SELECT".into(),
            key: String::new(),
            class: Class::Work,
            mutating: false,
            repeatable: false,
            request: Payload::of(&Value::map([("sql", Value::text(sql).volatile())])),
            outcome: Outcome::Answered,
            response: Some(Payload::of(answer)),
            rule: None,
            began_ns: 0,
            ended_ns: 0,
            began_seq: 0,
        };
        Entry {
            seq: 0,
            at_ns: 0,
            cell: 1,
            phase,
            actor: "api".into(),
            stream: String::new(),
            ordinal: 0,
            cause: None,
            body: Body::Exchange(exchange),
        }
    }

    #[test]
    fn the_last_refusal_of_the_scenario_is_named() {
        let no = |what: &str| {
            error_value(1235, "42000", &format!("not supported by the Faultbox stand-in: {what}"))
        };
        let data = Value::map([("rows", Value::List(vec![Value::text(SAYS)]))]);
        let entries = [
            entry(Phase::Scenario, "SELECT SOUNDEX(1)", &no("SOUNDEX")),
            entry(Phase::Scenario, &format!("SELECT\n  RANK() {}", "x".repeat(300)), &no("RANK")),
            entry(Phase::Scenario, "SELECT 1", &data),
            entry(Phase::Tail, "SELECT 2", &no("late")),
        ];
        let said = last(&entries).expect("a refusal");
        assert!(said.starts_with("db.main refused SELECT RANK() xxx"), "{said}");
        assert!(
            said.ends_with("x...: not supported by the Faultbox stand-in: RANK") && said.len() < 300,
            "{said}"
        );
        assert_eq!(last(&entries[2..]), None);
    }
}
