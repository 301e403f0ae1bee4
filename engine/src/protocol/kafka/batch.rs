//! A Produce request in its records: one exchange each.
//!
//! Contract: which records a producer puts into one request is timing (`linger.ms`, a background
//! thread), so an exchange is one record on one topic-partition, and the same records give the same
//! exchanges however they travel. Rules are asked once for the request; what they do, they do to every
//! record in it. A request of one record, or with records that cannot be read, stays whole.
//! Not modelled: an answer that fails some records of one partition and not others.

use crate::fault::active::Firing;
use crate::link::{Link, Pending, Request};
use faultbox_bundle_format::Value;
use std::sync::Arc;

/// The open exchanges of one request.
pub struct Batch {
    first: Pending,
    rest: Vec<Pending>,
}

impl Batch {
    /// A request arrived: asks the rules, opens its exchanges.
    pub fn ask(link: &Arc<Link>, connection: u64, request: Request) -> Self {
        let (first, rest) = split(request);
        let first = link.ask(connection, first);
        let rest = rest.into_iter().map(|part| link.receive(connection, part)).collect();
        Batch { first, rest }
    }

    /// The rule that acts on it.
    pub fn firing(&self) -> Option<&Firing> {
        self.first.firing()
    }

    /// The client got this answer, which is put into words when it has to be.
    pub fn answered(self, response: impl FnOnce() -> Value + Send + Sync + 'static) {
        if self.rest.is_empty() {
            return self.first.answered_later(response);
        }
        let response = &response();
        let mut before: Vec<(String, i64)> = Vec::new();
        for pending in std::iter::once(self.first).chain(self.rest) {
            let answer = match place(&pending.request().body) {
                Some(place) => {
                    let index = before.iter().filter(|known| **known == place).count();
                    let answer = part(response, &place, index);
                    before.push(place);
                    answer
                }
                None => response.clone(),
            };
            pending.answered(&answer);
        }
    }

    /// A rule cut the connection instead.
    pub fn dropped(self) {
        self.first.dropped();
        self.rest.into_iter().for_each(Pending::dropped);
    }

    /// The broker failed without an answer.
    pub fn failed(self, why: &str) {
        self.first.failed(why);
        self.rest.into_iter().for_each(|pending| pending.failed(why));
    }

    /// There is no answer.
    pub fn one_way(self) {
        self.first.one_way();
        self.rest.into_iter().for_each(Pending::one_way);
    }
}

/// The requests of the single records. The first one keeps what rules match on.
pub fn split(mut request: Request) -> (Request, Vec<Request>) {
    if request.operation != "Produce" {
        return (request, Vec::new());
    }
    if let Some((topic, partition)) = place(&request.body).filter(|_| is_lone(&request.body)) {
        request.key = format!("Produce {topic}/{partition}");
        return (request, Vec::new());
    }
    let mut bodies = Vec::new();
    for topic in request.body.get("topics").and_then(Value::as_list).unwrap_or_default() {
        for partition in topic.get("partitions").and_then(Value::as_list).unwrap_or_default() {
            let name = topic.get("topic").and_then(Value::as_text).unwrap_or_default().to_owned();
            let number = partition.get("partition").and_then(Value::as_int).unwrap_or_default();
            let key = format!("Produce {name}/{number}");
            match partition.get("records").and_then(Value::as_list) {
                Some(records) if !records.is_empty() => {
                    let alone =
                        |record: &Value| replaced(partition, "records", Value::List(vec![record.clone()]));
                    bodies.extend(records.iter().map(|record| (key.clone(), name.clone(), alone(record))));
                }
                _ => bodies.push((key, name, partition.clone())),
            }
        }
    }
    let mut parts = bodies.into_iter().map(|(key, topic, partition)| {
        let topics =
            Value::map([("topic", Value::Text(topic)), ("partitions", Value::List(vec![partition]))]);
        let body = replaced(&request.body, "topics", Value::List(vec![topics]));
        (key, body)
    });
    let Some((key, body)) = parts.next() else { return (request, Vec::new()) };
    let rest = parts.map(|(key, body)| Request { key, body, ..request.clone() }).collect();
    (request.key, request.body) = (key, body);
    (request, rest)
}

/// Whether a request is one record at most, and so needs no splitting.
fn is_lone(body: &Value) -> bool {
    let Some([topic]) = body.get("topics").and_then(Value::as_list) else { return false };
    let Some([partition]) = topic.get("partitions").and_then(Value::as_list) else { return false };
    partition.get("records").and_then(Value::as_list).is_none_or(|records| records.len() < 2)
}

/// The answers to the records of one request as the answer to it.
pub fn joined(answers: &[Value]) -> Value {
    let mut topics: Vec<(String, Vec<(i64, Value)>)> = Vec::new();
    for topic in answers.iter().filter_map(|a| a.get("topics").and_then(Value::as_list)).flatten() {
        let name = topic.get("topic").and_then(Value::as_text).unwrap_or_default();
        let at = topics.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            topics.push((name.to_owned(), Vec::new()));
            topics.len() - 1
        });
        let Some((_, partitions)) = topics.get_mut(at) else { continue };
        for answer in topic.get("partitions").and_then(Value::as_list).unwrap_or_default() {
            let number = answer.get("partition").and_then(Value::as_int).unwrap_or_default();
            let fails = |value: &Value| value.get("error_code").and_then(Value::as_int).unwrap_or(0) != 0;
            match partitions.iter_mut().find(|(known, _)| *known == number) {
                // The first record's offset is the batch's, and one failure fails it.
                Some((_, kept)) if fails(answer) && !fails(kept) => *kept = answer.clone(),
                Some(_) => {}
                None => partitions.push((number, answer.clone())),
            }
        }
    }
    let topic = |(name, partitions): (String, Vec<(i64, Value)>)| {
        let partitions = partitions.into_iter().map(|(_, answer)| answer).collect();
        Value::map([("topic", Value::Text(name)), ("partitions", Value::List(partitions))])
    };
    Value::map([("topics", Value::List(topics.into_iter().map(topic).collect()))])
}

/// Topic and partition of a request of one record.
fn place(body: &Value) -> Option<(String, i64)> {
    let topic = body.get("topics")?.as_list()?.first()?;
    let partition = topic.get("partitions")?.as_list()?.first()?;
    Some((topic.get("topic")?.as_text()?.to_owned(), partition.get("partition")?.as_int()?))
}

/// What a response says of the `index`th record that went to this place.
fn part(response: &Value, (name, number): &(String, i64), index: usize) -> Value {
    let topics = response.get("topics").and_then(Value::as_list).unwrap_or_default();
    let topic = topics.iter().find(|t| t.get("topic").and_then(Value::as_text) == Some(name));
    let partitions = topic.and_then(|t| t.get("partitions")).and_then(Value::as_list).unwrap_or_default();
    let own = partitions.iter().filter(|p| p.get("partition").and_then(Value::as_int) == Some(*number));
    let moved = |answer: &Value| match answer.get("base_offset").and_then(Value::as_int) {
        Some(base) if base >= 0 => {
            let offset = base.saturating_add(i64::try_from(index).unwrap_or(i64::MAX));
            replaced(answer, "base_offset", Value::Int(offset).volatile())
        }
        _ => answer.clone(),
    };
    let topic = Value::map([
        ("topic", Value::text(name.as_str())),
        ("partitions", Value::List(own.map(moved).collect())),
    ]);
    Value::map([("topics", Value::List(vec![topic]))])
}

fn replaced(map: &Value, field: &str, value: Value) -> Value {
    let Value::Map(fields) = map else { return map.clone() };
    let replace = |(name, old): &(String, Value)| {
        (name.clone(), if name == field { value.clone() } else { old.clone() })
    };
    Value::Map(fields.iter().map(replace).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use faultbox_bundle_format::Class;

    fn produce(partitions: &[(i64, &[&str])]) -> Request {
        let record = |value: &&str| Value::map([("value", Value::text(*value))]);
        let partition = |(number, records): &(i64, &[&str])| {
            Value::map([
                ("partition", Value::Int(*number)),
                ("records", Value::List(records.iter().map(record).collect())),
            ])
        };
        let topic = Value::map([
            ("topic", Value::text("t")),
            ("partitions", Value::List(partitions.iter().map(partition).collect())),
        ]);
        Request {
            operation: "Produce".into(),
            key: "Produce t".into(),
            fields: vec![("topic", vec!["t".into()])],
            class: Class::Work,
            works: true,
            mutating: true,
            repeatable: true,
            body: Value::map([("acks", Value::Int(-1)), ("topics", Value::List(vec![topic]))]),
        }
    }

    fn all(request: Request) -> Vec<(String, Value)> {
        let (first, rest) = split(request);
        std::iter::once(first).chain(rest).map(|part| (part.key, part.body)).collect()
    }

    #[test]
    fn the_same_records_give_the_same_exchanges() {
        let together = all(produce(&[(0, &["a", "b"]), (1, &["c"])]));
        let apart: Vec<_> = [produce(&[(0, &["a"])]), produce(&[(0, &["b"])]), produce(&[(1, &["c"])])]
            .into_iter()
            .flat_map(all)
            .collect();
        assert_eq!(together, apart);
        assert_eq!(
            together.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
            ["Produce t/0", "Produce t/0", "Produce t/1"]
        );
    }

    #[test]
    fn answers_are_split_and_joined() {
        let partition = |number, code, base| {
            Value::map([
                ("partition", Value::Int(number)),
                ("error_code", Value::Int(code)),
                ("base_offset", Value::Int(base).volatile()),
            ])
        };
        let answer = |partitions: Vec<Value>| {
            let topic = Value::map([("topic", Value::text("t")), ("partitions", Value::List(partitions))]);
            Value::map([("topics", Value::List(vec![topic]))])
        };
        let whole = answer(vec![partition(0, 0, 7), partition(1, 0, 3)]);
        let place = |number| ("t".to_owned(), number);
        let parts = [part(&whole, &place(0), 0), part(&whole, &place(0), 1), part(&whole, &place(1), 0)];
        assert_eq!(parts[1], answer(vec![partition(0, 0, 8)]));
        assert_eq!(joined(&parts), whole);
        let failed = [parts[0].clone(), answer(vec![partition(0, 6, -1)])];
        assert_eq!(joined(&failed), answer(vec![partition(0, 6, -1)]));
    }
}
