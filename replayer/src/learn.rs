//! Learning: what a service makes up anew, told by two recordings of one cell that differ in nothing else.
//!
//! Contract: messages of the two recordings are paired as a replay pairs them; what differs in a pair, is no value
//! that the built-in patterns know and did not come from whom the service had asked, becomes a [`Rule`]. A message
//! without a counterpart, and fields that only one side has, are not learned but told. Nothing is run here.
//! Not modelled: which of two differing words was made up and which follows from a race; both differ.

use faultbox_bundle_format::canonical::{Message, messages, scanner_of};
use faultbox_bundle_format::generated::{self, Kind, Scanner};
use faultbox_bundle_format::learned::{Form, Hole, Piece, Rule, Segment, Side, is_telling, path_text};
use faultbox_bundle_format::{Body, Entry, Phase, Value, split_interface};
use std::collections::BTreeSet;

/// A word of fewer hexadecimal digits may be any other.
const HEX: usize = 6;

/// One recording of a cell.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a> {
    /// Its entries, payloads inline, redacted with one salt for both.
    pub entries: &'a [Entry],
    /// The wall clock at its start, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
}

/// A rule that was learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// The rule.
    pub rule: Rule,
    /// The one that it takes the place of, as it is wider.
    pub instead: Option<Rule>,
    /// What the first recording had in its holes.
    pub first: String,
    /// What the second had.
    pub second: String,
}

/// What two recordings of a cell teach.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Learned {
    /// Rules.
    pub lessons: Vec<Lesson>,
    /// What differs and no rule can say.
    pub puzzles: Vec<String>,
}

/// Learns from two recordings of a cell; `rules` are those that are known already, and then all.
pub fn learn(first: Take<'_>, second: Take<'_>, suts: &BTreeSet<String>, rules: &mut Vec<Rule>) -> Learned {
    let (one, other) = (said(first.entries, suts), said(second.entries, suts));
    let scanners = [scanner_of(first.entries, first.unix_ns), scanner_of(second.entries, second.unix_ns)];
    let mut pupil = Pupil {
        taught: scanners.clone().map(|scanner| scanner.with_rules(rules.iter().cloned())),
        scanners,
        answers: [answers(first.entries, suts), answers(second.entries, suts)],
        rules,
        known: Vec::new(),
        other: other.into_iter().map(Some).collect(),
        learned: Learned::default(),
    };
    pupil.learn(one);
    pupil.learned
}

/// A message that the service sent.
struct Said<'a> {
    message: Message<'a>,
    source: &'a str,
    /// The stable key; empty for what is no request.
    key: &'a str,
    /// When it was sent, as a place in the journal.
    at: u64,
}

/// What services under test sent, in order: requests, and answers to who asked them.
fn said<'a>(entries: &'a [Entry], suts: &BTreeSet<String>) -> Vec<Said<'a>> {
    let of = |message: Message<'a>| {
        let own = suts.contains(split_interface(message.interface).0);
        let (entry, side) = (message.entry, message.side);
        match (&entry.body, side) {
            (Body::Exchange(exchange), Side::Request) if suts.contains(exchange.source.as_str()) => {
                let at = exchange.began_seq;
                Some(Said { message, source: &exchange.source, key: &exchange.key, at })
            }
            (_, Side::Request) => None,
            _ => own.then_some(Said { message, source: "", key: "", at: entry.seq }),
        }
    };
    // What comes after the scenario is not compared, but for the ends of its steps.
    let counts = |said: &Said<'_>| said.message.entry.phase != Phase::Tail || said.message.side == Side::Step;
    let mut found: Vec<Said<'_>> = messages(entries).into_iter().filter_map(of).filter(counts).collect();
    found.sort_by_key(|said| said.at);
    found
}

/// What services under test were answered: when, and all texts in it.
fn answers(entries: &[Entry], suts: &BTreeSet<String>) -> Vec<(u64, String)> {
    let of = |message: Message<'_>| match &message.entry.body {
        Body::Exchange(exchange)
            if message.side == Side::Response && suts.contains(exchange.source.as_str()) =>
        {
            let mut text = String::new();
            texts(&message.value, &mut text);
            Some((message.entry.seq, text))
        }
        _ => None,
    };
    messages(entries).into_iter().filter_map(of).collect()
}

fn texts(value: &Value, out: &mut String) {
    match value {
        Value::Text(text) => out.push_str(text),
        Value::Bytes(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Value::Int(n) => out.push_str(&n.to_string()),
        Value::UInt(n) => out.push_str(&n.to_string()),
        Value::List(items) => items.iter().for_each(|item| texts(item, out)),
        Value::Map(fields) => fields.iter().for_each(|(_, value)| texts(value, out)),
        _ => {}
    }
    out.push('\n');
}

struct Pupil<'a, 'r> {
    scanners: [Scanner; 2],
    /// The same, and they know the rules.
    taught: [Scanner; 2],
    answers: [Vec<(u64, String)>; 2],
    rules: &'r mut Vec<Rule>,
    /// Values of the second recording and those of the first in their place.
    known: Vec<(String, String)>,
    /// Messages of the second recording that have no counterpart yet.
    other: Vec<Option<Said<'a>>>,
    learned: Learned,
}

impl<'a> Pupil<'a, '_> {
    fn learn(&mut self, one: Vec<Said<'a>>) {
        let left: Vec<Said<'a>> = one.into_iter().filter(|said| !self.take_alike(said)).collect();
        for said in left {
            // What was learned meanwhile may have told it.
            if !self.take_alike(&said) {
                self.compare(&said);
            }
        }
        for other in std::mem::take(&mut self.other).into_iter().flatten() {
            self.puzzle(&other, "only the second recording has it");
        }
    }

    fn puzzle(&mut self, said: &Said<'_>, why: &str) {
        let Message { interface, operation, side, .. } = &said.message;
        let what = match side {
            Side::Request => format!("{} asked {interface} for {operation}", said.source),
            Side::Response => format!("{interface} answered {operation}"),
            Side::Step => format!("a step got an answer to {operation} of {interface}"),
        };
        self.learned.puzzles.push(format!("{what}: {why}"));
    }

    fn scanner(&self, which: usize, interface: &str, operation: &str, side: Side) -> Scanner {
        self.taught[which].about(interface, operation, Some(side)).into_owned()
    }

    /// A message of the second recording as the first would have said it.
    fn translated(&self, said: &Said<'_>) -> (Value, String, String) {
        let text = |text: &str| generated::substitute_text(text, &self.known);
        let value = generated::substitute(&said.message.value, &self.known);
        (value, text(said.message.operation), text(said.key))
    }

    /// Whether there is a message of the second recording that says the same; it is taken.
    fn take_alike(&mut self, said: &Said<'_>) -> bool {
        let Message { interface, operation, side, value, .. } = &said.message;
        let scanner = self.scanner(0, interface, operation, *side);
        let (template, key) = (scanner.template(value), scanner.keyed(said.key, value));
        for place in 0..self.other.len() {
            let Some(other) = self.other[place].as_ref().filter(|other| belong(said, other)) else {
                continue;
            };
            let (now, now_operation, now_key) = self.translated(other);
            let live = self.scanner(1, interface, &now_operation, *side);
            if live.template(&now) != template || live.keyed(&now_key, &now) != key {
                continue;
            }
            let pairs = scanner.unify(value, &live, &now).unwrap_or_default();
            let learned =
                pairs.into_iter().filter(|(then, now)| then.kind == Kind::Learned && then.text != now.text);
            self.known.extend(learned.map(|(then, now)| (now.text, then.text)));
            self.other[place] = None;
            return true;
        }
        false
    }

    /// Compares a message with the nearest that is left, and learns what differs.
    fn compare(&mut self, said: &Said<'_>) {
        let mut best: Option<(usize, usize, Differences)> = None;
        for place in 0..self.other.len() {
            let Some(other) = self.other[place].as_ref().filter(|other| belong(said, other)) else {
                continue;
            };
            let (now, now_operation, _) = self.translated(other);
            let found = self.differences(said, &now, &now_operation);
            let cost = found.leaves.len() + 1000 * found.structure.len();
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, place, found));
            }
        }
        let Some((_, place, found)) = best else {
            return self.puzzle(said, "only the first recording has it");
        };
        let Some(other) = self.other[place].take() else { return };
        if let Some(what) = found.structure.first() {
            return self.puzzle(said, what);
        }
        let before = [said.at, other.at];
        let operation = found.operation.clone();
        for leaf in found.leaves {
            self.learn_leaf(said, &operation, leaf, before);
        }
    }

    fn differences(&self, said: &Said<'_>, now: &Value, now_operation: &str) -> Differences {
        let mut found = Differences::default();
        let seen = [0, 1].map(|which| {
            let text = if which == 0 { said.message.operation } else { now_operation };
            self.scanners[which].seen_text("", text)
        });
        match forms(&seen[0], &seen[1]) {
            Some((pieces, _)) => found.operation = pieces,
            None => found.structure.push(format!("the other recording has {now_operation} there")),
        }
        let mut path = Vec::new();
        self.walk(&mut path, "", &said.message.value, now, &mut found);
        found
    }

    /// Adds the fields in which two messages differ beyond what the patterns know.
    fn walk(&self, path: &mut Vec<Segment>, field: &str, a: &Value, b: &Value, found: &mut Differences) {
        let in_field = |which: usize, value: &Value| {
            let fields = Value::map([(field, value.clone())]);
            self.scanners[which].template(&fields)
        };
        if a == b || in_field(0, a) == in_field(1, b) {
            return;
        }
        match (a, b) {
            (Value::Map(a), Value::Map(b)) => {
                let names = |fields: &[(String, Value)]| {
                    fields.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>()
                };
                if a.len() != b.len() || names(a) != names(b) {
                    let (a, b) = (names(a), names(b));
                    let more: Vec<&String> = a.symmetric_difference(&b).collect();
                    let more: Vec<&str> = more.into_iter().map(String::as_str).collect();
                    return found.shape(path, &format!("only one recording has {}", more.join(", ")));
                }
                for (name, value) in a {
                    let Some((_, other)) = b.iter().find(|(other, _)| other == name) else { continue };
                    self.below(path, Segment::Name(name.clone()), name, value, other, found);
                }
            }
            (Value::List(a), Value::List(b)) if a.len() == b.len() => {
                for (at, (value, other)) in a.iter().zip(b).enumerate() {
                    match (value, other) {
                        (Value::List(one), Value::List(two)) => match (one.as_slice(), two.as_slice()) {
                            ([Value::Text(name), value], [Value::Text(same), other]) if name == same => {
                                self.below(path, Segment::Name(name.clone()), name, value, other, found);
                            }
                            _ => self.below(path, Segment::Each, field, value, other, found),
                        },
                        (Value::Map(_), _) => self.below(path, Segment::Each, field, value, other, found),
                        _ => self.below(path, Segment::Index(at), field, value, other, found),
                    }
                }
            }
            (Value::List(a), Value::List(b)) => {
                found.shape(path, &format!("{} items, {} in the other recording", a.len(), b.len()));
            }
            (Value::Text(a), Value::Text(b)) => self.text(path, field, a, b, found),
            (Value::Int(a), Value::Int(b)) => found.leaf(path, &a.to_string(), &b.to_string()),
            (Value::UInt(a), Value::UInt(b)) => found.leaf(path, &a.to_string(), &b.to_string()),
            (Value::Bytes(a), Value::Bytes(b)) if !a.is_empty() && !b.is_empty() => {
                let words = vec![(format!("{} bytes", a.len()), format!("{} bytes", b.len()))];
                let (pieces, texts) = (vec![Piece::Hole(Hole::Any)], [String::new(), String::new()]);
                found.leaves.push(Leaf { path: path.clone(), pieces, words, texts });
            }
            _ => found.shape(path, "it is of another kind in the other recording"),
        }
    }

    fn below(
        &self,
        path: &mut Vec<Segment>,
        segment: Segment,
        field: &str,
        a: &Value,
        b: &Value,
        found: &mut Differences,
    ) {
        path.push(segment);
        self.walk(path, field, a, b, found);
        path.pop();
    }

    fn text(&self, path: &mut Vec<Segment>, field: &str, a: &str, b: &str, found: &mut Differences) {
        if let (Some(one), Some(other)) = (json(a), json(b)) {
            path.push(Segment::Json);
            self.walk(path, field, &one, &other, found);
            path.pop();
            return;
        }
        let (a, b) = (self.scanners[0].seen_text(field, a), self.scanners[1].seen_text(field, b));
        found.leaf(path, &a, &b);
    }

    /// Learns one field, unless what differs in it came from whom the service had asked before.
    fn learn_leaf(&mut self, said: &Said<'_>, operation: &[Piece], leaf: Leaf, before: [u64; 2]) {
        // Short ones stand elsewhere by chance.
        let telling = leaf.words.iter().filter(|(a, b)| is_telling(a) && is_telling(b));
        self.known.extend(telling.map(|(a, b)| (b.clone(), a.clone())));
        let got = |which: usize, word: &str| {
            let earlier = self.answers[which].iter().filter(|(at, _)| *at < before[which]);
            earlier.into_iter().any(|(_, text)| stands_in(text, word))
        };
        if leaf.words.iter().all(|(a, b)| got(0, a) && got(1, b)) {
            // A replay is answered what was recorded.
            return;
        }
        let Message { interface, side, .. } = &said.message;
        let told = |rule: &Rule| {
            rule.finds_at(interface, *side, said.message.operation, &leaf.path)
                && leaf.texts.iter().all(|text| rule.form.fits(text))
        };
        if self.rules.iter().any(told) {
            return;
        }
        let forms = (Form::new(operation.to_vec()), Form::new(leaf.pieces));
        let (Some(operation), Some(form)) = forms else {
            return self.puzzle(said, &format!("{} is too long", path_text(&leaf.path)));
        };
        let mut rule =
            Rule { interface: (*interface).to_owned(), side: *side, operation, path: leaf.path, form };
        let instead = self.rules.iter_mut().find_map(|known| {
            rule = known.widened(&rule)?;
            Some(std::mem::replace(known, rule.clone()))
        });
        if instead.is_none() {
            self.rules.push(rule.clone());
        }
        self.taught = self.scanners.clone().map(|scanner| scanner.with_rules(self.rules.iter().cloned()));
        let all = |of: fn(&(String, String)) -> &str| leaf.words.iter().map(of).collect::<Vec<_>>().join(" ");
        let (first, second) = (all(|(a, _)| a), all(|(_, b)| b));
        let lessons = &mut self.learned.lessons;
        match lessons.iter_mut().find(|lesson| Some(&lesson.rule) == instead.as_ref()) {
            Some(lesson) => lesson.rule = rule,
            None => lessons.push(Lesson { rule, instead, first, second }),
        }
    }
}

/// Whether two messages can be the same: of one side, one asker, one interface.
fn belong(one: &Said<'_>, other: &Said<'_>) -> bool {
    (one.message.side, one.message.interface, one.source)
        == (other.message.side, other.message.interface, other.source)
        && (one.message.entry.phase == other.message.entry.phase || one.message.side != Side::Request)
}

/// Whether a word stands in a text by itself.
fn stands_in(text: &str, word: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (text.get(..at), text.get(at + word.len()..));
        !inside(before.and_then(|text| text.chars().next_back()))
            && !inside(after.and_then(|text| text.chars().next()))
    })
}

#[derive(Default)]
struct Differences {
    operation: Vec<Piece>,
    leaves: Vec<Leaf>,
    /// What is not a matter of values.
    structure: Vec<String>,
}

/// Words of the first recording and what the second has in their place.
type Words = Vec<(String, String)>;

struct Leaf {
    path: Vec<Segment>,
    pieces: Vec<Piece>,
    /// What stands in the holes: in the first recording, in the second.
    words: Words,
    /// Both texts, as rules see them.
    texts: [String; 2],
}

impl Differences {
    fn shape(&mut self, path: &[Segment], why: &str) {
        let place = path_text(path);
        let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
        self.structure.push(format!("{place}{why}"));
    }

    fn leaf(&mut self, path: &[Segment], a: &str, b: &str) {
        match forms(a, b) {
            Some((pieces, words)) => {
                let texts = [a.to_owned(), b.to_owned()];
                self.leaves.push(Leaf { path: path.to_vec(), pieces, words, texts });
            }
            None => self.shape(path, "the two texts are not built alike"),
        }
    }
}

/// The pieces that two texts have in common with holes for the words that differ, and these words. None where they
/// are not built of as many words with the same between them.
fn forms(a: &str, b: &str) -> Option<(Vec<Piece>, Words)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let token = |c: char| c.is_ascii_alphanumeric() || "_+/=.~-".contains(c);
    by_words(a, b, &word, &|a, b| Some(hole_for(a, b))).or_else(|| {
        by_words(a, b, &token, &|a, b| (!a.contains("..") && !b.contains("..")).then_some(Hole::Token))
    })
}

fn by_words(
    a: &str,
    b: &str,
    word: &dyn Fn(char) -> bool,
    hole: &dyn Fn(&str, &str) -> Option<Hole>,
) -> Option<(Vec<Piece>, Words)> {
    let (one, other) = (runs(a, word), runs(b, word));
    if one.len() != other.len() {
        return None;
    }
    let (mut pieces, mut words): (Vec<Piece>, Words) = (Vec::new(), Vec::new());
    for ((is_word, one), (also, other)) in one.into_iter().zip(other) {
        if one == other {
            match pieces.last_mut() {
                Some(Piece::Literal(text)) => text.push_str(one),
                _ => pieces.push(Piece::Literal(one.to_owned())),
            }
        } else if is_word && also {
            pieces.push(Piece::Hole(hole(one, other)?));
            words.push((one.to_owned(), other.to_owned()));
        } else {
            return None;
        }
    }
    Some((pieces, words))
}

/// A text as runs of what belongs to words and what does not.
fn runs<'t>(text: &'t str, word: &dyn Fn(char) -> bool) -> Vec<(bool, &'t str)> {
    let mut found = Vec::new();
    let mut from = 0;
    let mut inside = text.chars().next().is_some_and(word);
    for (at, c) in text.char_indices() {
        if word(c) != inside {
            found.push((inside, &text[from..at]));
            (from, inside) = (at, !inside);
        }
    }
    if from < text.len() {
        found.push((inside, &text[from..]));
    }
    found
}

/// The narrowest hole that both words fit, and words like them.
fn hole_for(a: &str, b: &str) -> Hole {
    let all = |fits: fn(&u8) -> bool| a.bytes().chain(b.bytes()).all(|byte| fits(&byte));
    match () {
        () if all(u8::is_ascii_digit) => Hole::Number,
        () if a.len() >= HEX && b.len() >= HEX && all(u8::is_ascii_hexdigit) => Hole::Hex,
        () => Hole::Word,
    }
}

/// What a text says that is a JSON object or list; strings as they are spelled there.
fn json(text: &str) -> Option<Value> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    (document.is_object() || document.is_array()).then(|| spelled(&document))
}

fn spelled(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(n) => Value::Int(n),
            None => Value::text(n.to_string()),
        },
        serde_json::Value::String(_) => {
            let text = value.to_string();
            Value::text(text.get(1..text.len() - 1).unwrap_or_default())
        }
        serde_json::Value::Array(items) => Value::List(items.iter().map(spelled).collect()),
        serde_json::Value::Object(fields) => {
            Value::map(fields.iter().map(|(name, value)| (name.as_str(), spelled(value))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faultbox_bundle_format::{Class, Exchange, Outcome, Payload, StepEnded, StepStarted};

    fn entry(seq: u64, body: Body) -> Entry {
        let phase = Phase::Scenario;
        let (actor, stream) = ("api".into(), format!("s{seq}"));
        Entry { seq, at_ns: seq, cell: 1, phase, actor, stream, ordinal: 0, cause: None, body }
    }

    fn exchange(seq: u64, source: &str, interface: &str, request: Value, response: Value) -> Entry {
        let exchange = Exchange {
            protocol: "http".into(),
            source: source.into(),
            interface: interface.into(),
            connection: 1,
            operation: "GET /".into(),
            key: "GET /".to_owned(),
            class: Class::Work,
            mutating: false,
            repeatable: false,
            request: Payload::of(&request),
            outcome: Outcome::Answered,
            response: Some(Payload::of(&response)),
            rule: None,
            began_ns: seq,
            ended_ns: seq,
            began_seq: seq,
        };
        entry(seq, Body::Exchange(exchange))
    }

    /// A service that asks for a number, and answers with it, a receipt and a nonce of its own.
    fn take(number: i64, receipt: &str, nonce: &str) -> Vec<Entry> {
        let body = format!(r#"{{"number":{number},"receipt":"{receipt}","nonce":"{nonce}"}}"#);
        let answer = Value::map([("body", Value::text(body))]);
        let (interface, verb) = ("api.public".to_owned(), "get".to_owned());
        let arguments = Payload::of(&Value::Null);
        let started = StepStarted { step: 0, interface, verb, arguments, location: String::new() };
        vec![
            entry(1, Body::StepStarted(started)),
            exchange(2, "api", "db.main", Value::Null, Value::map([("n", Value::Int(number))])),
            exchange(3, "test", "api.public", Value::Null, answer.clone()),
            entry(4, Body::StepEnded(StepEnded { step: 0, response: Payload::of(&answer) })),
        ]
    }

    fn taught(first: &[Entry], second: &[Entry]) -> (Vec<String>, Vec<String>) {
        let suts = BTreeSet::from(["api".to_owned()]);
        let [first, second] = [first, second].map(|entries| Take { entries, unix_ns: 1 });
        let learned = learn(first, second, &suts, &mut Vec::new());
        (learned.lessons.iter().map(|lesson| lesson.rule.to_string()).collect(), learned.puzzles)
    }

    #[test]
    fn what_the_service_was_answered_is_not_learned_and_a_step_repeats_what_is_known() {
        let (rules, puzzles) = taught(&take(4, "ra1g03ik4a7", "k3"), &take(5, "rmpyvaf5u97", "x9"));
        let public = "api.public  response  \"GET /\"  body:json";
        let step = "api.public  step  get  body:json";
        // The receipt is known in the step as well; the nonce is too short for that.
        assert_eq!(
            rules,
            [
                format!("{public}.receipt  {{word}}"),
                format!("{public}.nonce  {{word}}"),
                format!("{step}.nonce  {{word}}"),
            ]
        );
        assert_eq!(puzzles, Vec::<String>::new());
        assert_eq!(taught(&take(4, "a1", "b2"), &take(4, "a1", "b2")), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_is_no_matter_of_values_is_told() {
        let first = take(4, "ra1g03ik4a7", "k3");
        let (rules, puzzles) = taught(&first, &first[..2]);
        assert_eq!(rules, Vec::<String>::new());
        assert_eq!(puzzles.len(), 2, "{puzzles:?}");
        assert!(puzzles[0].ends_with("only the first recording has it"), "{puzzles:?}");
    }

    #[test]
    fn texts_are_taken_apart_by_words_and_then_by_longer_ones() {
        let of = |a: &str, b: &str| {
            forms(a, b).map(|(pieces, words)| (Form::new(pieces).unwrap().to_string(), words.len()))
        };
        assert_eq!(of("id-12 x", "id-9 x"), Some(("id-{number} x".to_owned(), 1)));
        assert_eq!(of("a {b} c1", "a {b} c2"), Some(("a {{b} {word}".to_owned(), 1)));
        assert_eq!(of("t=00ff00", "t=aabb11"), Some(("t={hex}".to_owned(), 1)));
        assert_eq!(of("'a+b/c=='", "'abc/de+f=='"), Some(("'{token}'".to_owned(), 1)));
        assert_eq!(of("one two", "one two three"), None);
    }
}
