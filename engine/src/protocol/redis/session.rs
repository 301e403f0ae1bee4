//! What a connection's commands mean, seen from the commands alone.
//!
//! Contract: proxy and server build requests here and nowhere else. Nothing depends on replies,
//! because a proxy sees pipelined commands before the replies to earlier ones: so both sides give
//! equal requests for equal commands.
//! Not modelled: a `SELECT` that the server refuses or that stands inside a transaction.

use super::codec::Frame;
use super::command::{self, Kind, Volatile};
use super::value;
use crate::link::Request;
use faultbox_bundle_format::{Class, Value, key_template};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// A connection as its commands describe it.
#[derive(Debug, Default)]
pub struct Session {
    db: i64,
    transaction: Option<Vec<Queued>>,
    replies: Replies,
}

#[derive(Debug, Clone)]
struct Queued {
    words: Value,
    key: String,
    mutating: bool,
    volatile: Volatile,
}

/// What `CLIENT REPLY` asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Replies {
    #[default]
    On,
    SkipNext,
    Off,
}

/// How the reply to a command looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// One frame.
    One(Volatile),
    /// The results of a transaction, each volatile in its own way.
    Results(Vec<Volatile>),
    /// One confirmation per name; none named means one per subscription that there is.
    Confirmations(Subscription, Option<usize>),
    /// No reply (`CLIENT REPLY OFF`).
    Silent,
}

/// A command and what is known about it.
#[derive(Debug)]
pub struct Asked {
    /// The request for the link.
    pub request: Request,
    /// How it counts.
    pub kind: Kind,
    /// Its name in capitals.
    pub name: Cow<'static, str>,
    /// How its reply looks.
    pub shape: Shape,
    /// Whether it is queued in a transaction rather than carried out.
    pub queued: bool,
    /// Whether it ends a transaction that had begun (`EXEC`, `DISCARD`).
    pub ends_transaction: bool,
}

/// What a request's body says beside its words.
#[derive(Debug, Default)]
pub struct Beside {
    db: i64,
    /// The commands of the transaction that it ends.
    transaction: Option<Vec<Value>>,
    queued: bool,
}

impl Beside {
    /// The body of a request with these words.
    pub fn body(self, words: &[impl AsRef<[u8]>]) -> Value {
        let (listed, any_order) = list_words(words);
        let mut body = vec![("args".to_owned(), listed)];
        body.extend(any_order.map(|groups| ("any_order".to_owned(), groups)));
        if self.db != 0 {
            body.push(("db".to_owned(), Value::Int(self.db)));
        }
        body.extend(self.transaction.map(|list| ("transaction".to_owned(), Value::List(list))));
        if self.queued {
            body.push(("queued".to_owned(), Value::Bool(true)));
        }
        Value::Map(body)
    }
}

impl Session {
    /// Takes the next command of the connection. `words` must not be empty.
    pub fn ask(&mut self, words: &[impl AsRef<[u8]>]) -> Asked {
        let (mut asked, beside) = self.outline(words);
        asked.request.fields = fields(&asked.name, words);
        asked.request.body = beside.body(words);
        asked
    }

    /// As [`Session::ask`], without what rules look at, and with the body still to be made.
    pub fn outline(&mut self, words: &[impl AsRef<[u8]>]) -> (Asked, Beside) {
        let name = command::name(words);
        let kind = command::kind(words);
        let queued = self.transaction.is_some()
            && !matches!(&*name, "MULTI" | "EXEC" | "DISCARD" | "WATCH" | "RESET" | "QUIT");
        let mut key = command::stable_key(words);
        let mut mutating = matches!(kind, Kind::Write | Kind::Settle | Kind::Wait);
        let mut shape = self.shape(&name, kind, words, queued);
        let mut beside = Beside { db: self.db, transaction: None, queued: false };
        let mut ends_transaction = false;
        let open = self.transaction.is_some();
        match &*name {
            "MULTI" if !open => self.transaction = Some(Vec::new()),
            "EXEC" | "DISCARD" if open => {
                let commands = self.transaction.take().unwrap_or_default();
                ends_transaction = true;
                let keys: Vec<&str> = commands.iter().take(8).map(|c| c.key.as_str()).collect();
                key = format!("{name} [{}]", keys.join("; "));
                if name == "EXEC" {
                    mutating = commands.iter().any(|c| c.mutating);
                    shape = Shape::Results(commands.iter().map(|c| c.volatile).collect());
                }
                beside.transaction = Some(commands.into_iter().map(|c| c.words).collect());
            }
            "SELECT" if !open => {
                let db = words.get(1).and_then(|w| command::text(w.as_ref()).parse().ok());
                self.db = db.unwrap_or(self.db);
            }
            _ => {
                if let (true, Some(commands)) = (queued, &mut self.transaction) {
                    let volatile = command::volatile_reply(words);
                    let (listed, _) = list_words(words);
                    commands.push(Queued { words: listed, key: key.clone(), mutating, volatile });
                    key = format!("MULTI/{key}");
                    mutating = false;
                    beside.queued = true;
                }
            }
        }
        if name == "RESET" {
            *self = Session::default();
        }
        let shape = self.silenced(words, shape);
        let leaves = kind == Kind::Subscribe && name.contains("UNSUB");
        let class = match kind {
            _ if queued => Class::Work,
            // Said in passing: who leaves often closes the connection without the answer.
            _ if leaves => Class::Ambient,
            Kind::Session | Kind::Takeover => Class::Control,
            Kind::Ambient => Class::Ambient,
            // Until they got something.
            Kind::Wait | Kind::Watch => Class::Ambient,
            _ => Class::Work,
        };
        let works = queued
            || !matches!(
                kind,
                Kind::Session | Kind::Takeover | Kind::Ambient | Kind::Transaction | Kind::Subscribe
            );
        let request = Request {
            operation: operation(name.clone(), words),
            key,
            fields: Vec::new(),
            class,
            works,
            mutating,
            repeatable: matches!(kind, Kind::Read | Kind::Settle | Kind::Watch | Kind::Ambient) && !queued,
            body: Value::Null,
        };
        (Asked { request, kind, name, shape, queued, ends_transaction }, beside)
    }

    fn shape(&self, name: &str, kind: Kind, words: &[impl AsRef<[u8]>], queued: bool) -> Shape {
        match Subscription::of(name).filter(|_| kind == Kind::Subscribe && !queued) {
            Some(which) => {
                let named = words.len() - 1;
                Shape::Confirmations(which, (named > 0).then_some(named))
            }
            None if queued => Shape::One(Volatile::Nothing),
            None => Shape::One(command::volatile_reply(words)),
        }
    }

    /// Follows `CLIENT REPLY`.
    fn silenced(&mut self, words: &[impl AsRef<[u8]>], shape: Shape) -> Shape {
        let asks = command::is(words, 0, "CLIENT") && command::is(words, 1, "REPLY");
        let before = self.replies;
        self.replies = match before {
            _ if asks && command::is(words, 2, "OFF") => Replies::Off,
            _ if asks && command::is(words, 2, "ON") => Replies::On,
            Replies::On if asks && command::is(words, 2, "SKIP") => Replies::SkipNext,
            Replies::SkipNext => Replies::On,
            other => other,
        };
        let silent = match before {
            _ if asks => self.replies != Replies::On,
            before => before != Replies::On,
        };
        if silent { Shape::Silent } else { shape }
    }
}

fn operation(name: Cow<'static, str>, words: &[impl AsRef<[u8]>]) -> Cow<'static, str> {
    match (&*name, words.get(1)) {
        ("CLIENT" | "CONFIG" | "COMMAND" | "SCRIPT" | "OBJECT", Some(sub)) => {
            format!("{name} {}", command::text(sub.as_ref()).to_ascii_uppercase()).into()
        }
        _ => name,
    }
}

/// What rules look at in a command.
pub fn fields(name: &str, words: &[impl AsRef<[u8]>]) -> Vec<(&'static str, Vec<String>)> {
    let mut names = vec![name.to_owned(), name.to_ascii_lowercase()];
    if let Some(sub) = words.get(1) {
        let both = format!("{name} {}", command::text(sub.as_ref()));
        names.extend([both.to_ascii_uppercase(), both.to_ascii_lowercase()]);
    }
    let keys = command::keys(words).into_iter().map(command::text).collect();
    vec![("command", names), ("key", keys)]
}

/// The words for the journal: secrets left out, cursors volatile. Where the order of the last words
/// means nothing they are volatile too, and come in an order of their own in the second value: maps and
/// sets of many languages give another order in every process.
fn list_words<W: AsRef<[u8]>>(words: &[W]) -> (Value, Option<Value>) {
    let cursor = command::volatile_word(words);
    let groups = command::any_order(words);
    let from = groups.as_ref().map_or(words.len(), |(from, _)| *from);
    let listed = words.iter().enumerate().map(|(at, word)| match at {
        _ if command::secret_word(words, at) => Value::text("<secret>"),
        at if cursor == Some(at) || at >= from => Value::text_or_bytes(word.as_ref()).volatile(),
        _ => Value::text_or_bytes(word.as_ref()),
    });
    let group =
        |group: &[W]| Value::List(group.iter().map(|word| Value::text_or_bytes(word.as_ref())).collect());
    let sorted = groups.map(|(_, groups)| Value::List(groups.into_iter().map(group).collect()));
    (Value::List(listed.collect()), sorted)
}

/// The words of a request that [`Session::ask`] built.
pub fn words_of(request: &Request) -> Vec<Vec<u8>> {
    words_in(&request.body).map(<[u8]>::to_vec).collect()
}

/// The words in the body of such a request.
pub fn words_in(body: &Value) -> impl Iterator<Item = &[u8]> {
    let words = body.get("args").and_then(Value::as_list).unwrap_or_default();
    words.iter().map(|word| word.as_bytes().unwrap_or_default())
}

/// Marks in a reply what differs between two equal runs.
pub fn mark_reply(shape: &Shape, reply: Value) -> Value {
    match (shape, reply) {
        (Shape::One(volatile), reply) => mark(*volatile, reply),
        (Shape::Results(each), Value::List(results)) => {
            let marks = each.iter().copied().chain(std::iter::repeat(Volatile::Nothing));
            Value::List(
                results.into_iter().zip(marks).map(|(result, volatile)| mark(volatile, result)).collect(),
            )
        }
        (_, reply) => reply,
    }
}

fn mark(volatile: Volatile, reply: Value) -> Value {
    match (volatile, reply) {
        // An error is an outcome, whatever it is about; a mark is made once.
        (_, reply) if value::error_text(&reply).is_some() || matches!(reply, Value::Volatile(_)) => reply,
        (Volatile::All, reply) => reply.volatile(),
        (Volatile::Countdown, Value::Int(n)) if n > 0 => Value::Int(n).volatile(),
        (Volatile::Cursor, Value::List(mut parts)) => {
            let moving = |cursor: &&mut Value| matches!(cursor, Value::Text(text) if text != "0");
            if let Some(cursor) = parts.first_mut().filter(moving) {
                *cursor = std::mem::take(cursor).volatile();
            }
            Value::List(parts)
        }
        (_, reply) => reply,
    }
}

/// The class of an exchange whose command waits: an empty answer is an empty poll.
pub fn answered_class(asked: Kind, class: Class, reply: &Value) -> Class {
    let empty = matches!(value::plain(reply), Value::Null);
    match asked {
        Kind::Wait | Kind::Watch if class == Class::Ambient && !empty => Class::Work,
        _ => class,
    }
}

/// The kinds of subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subscription {
    /// `SUBSCRIBE`
    Channel,
    /// `PSUBSCRIBE`
    Pattern,
    /// `SSUBSCRIBE`
    Shard,
}

impl Subscription {
    /// By the name of a command or of a confirmation.
    pub fn of(name: &str) -> Option<Self> {
        let is = |names: [&str; 2]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
        match () {
            () if is(["subscribe", "unsubscribe"]) => Some(Subscription::Channel),
            () if is(["psubscribe", "punsubscribe"]) => Some(Subscription::Pattern),
            () if is(["ssubscribe", "sunsubscribe"]) => Some(Subscription::Shard),
            () => None,
        }
    }
}

/// The subscriptions of a connection, followed by their confirmations.
#[derive(Debug, Default, Clone)]
pub struct Subscriptions(BTreeSet<(Subscription, Vec<u8>)>);

/// What a frame that nobody asked for says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// A subscription begins or ends.
    Confirmation,
    /// A message, or another push.
    Message,
}

impl Subscriptions {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// How many confirmations an unsubscription without names gets.
    pub fn expected(&self, which: Subscription) -> usize {
        self.0.iter().filter(|(kind, _)| *kind == which).count().max(1)
    }

    /// What a server says to an unsubscription (`words`) when all that it knows is who is subscribed to what.
    pub fn left(&self, which: Subscription, words: &[impl AsRef<[u8]>]) -> Value {
        let command = command::name(words).to_ascii_lowercase();
        let mut left = self.clone();
        let mut names: Vec<Vec<u8>> = words.iter().skip(1).map(|word| word.as_ref().to_vec()).collect();
        if names.is_empty() {
            names = self.0.iter().filter(|(kind, _)| *kind == which).map(|(_, name)| name.clone()).collect();
        }
        let confirm = |channel: Value, left: &Self| {
            // Channels and patterns are counted together, shards apart.
            let shard = which == Subscription::Shard;
            let count = left.0.iter().filter(|(kind, _)| (*kind == Subscription::Shard) == shard).count();
            Value::List(vec![Value::text(command.as_str()), channel, Value::Int(count as i64)])
        };
        let mut confirmations = Vec::new();
        for name in names {
            let channel = Value::text_or_bytes(&name);
            left.0.remove(&(which, name));
            confirmations.push(confirm(channel, &left));
        }
        if confirmations.is_empty() {
            confirmations.push(confirm(Value::Null, &left));
        }
        Value::map([("confirmations", Value::List(confirmations))])
    }

    /// Forgets all (`RESET`).
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether the frame comes outside of the order of replies, and as what. `within` is true
    /// while the answer to a subscription command is due.
    pub fn unasked(&self, frame: &Frame, within: bool) -> Option<Unasked> {
        let (items, push) = match frame {
            Frame::Push(items) => (items, true),
            Frame::Array(items) if self.any() || within => (items, false),
            _ => return None,
        };
        let kind = match items.first() {
            Some(Frame::Bulk(kind)) => kind.as_slice(),
            _ => return push.then_some(Unasked::Message),
        };
        let confirms = std::str::from_utf8(kind).ok().and_then(Subscription::of).is_some();
        if confirms && items.len() == 3 && (push || within) {
            return Some(Unasked::Confirmation);
        }
        let message = matches!(kind, b"message" | b"pmessage" | b"smessage");
        (push || message && self.any()).then_some(Unasked::Message)
    }

    /// Takes a confirmation (as [`value::of_frame`] gives it, or its items) into account.
    pub fn confirm(&mut self, confirmation: &Value) {
        let items = match value::plain(confirmation) {
            Value::List(items) => items,
            _ => return,
        };
        let (Some(name), Some(channel)) = (items.first().and_then(Value::as_text), items.get(1)) else {
            return;
        };
        let (Some(which), Some(channel)) = (Subscription::of(name), channel.as_bytes()) else { return };
        let entry = (which, channel.to_vec());
        if name.to_ascii_lowercase().contains("unsub") {
            self.0.remove(&entry);
        } else {
            self.0.insert(entry);
        }
    }

    /// The request that stands for "the next message": its answer is the message.
    pub fn next_message(&self) -> Request {
        let names: Vec<String> = self.0.iter().map(|(_, name)| command::text(name)).collect();
        let mut templates: Vec<String> = names.iter().map(|name| key_template::of(name)).collect();
        templates.dedup();
        templates.truncate(8);
        Request {
            operation: "push".into(),
            key: format!("push {}", templates.join(" ")).trim_end().to_owned(),
            fields: Vec::new(),
            class: Class::Ambient,
            works: false,
            mutating: false,
            repeatable: false,
            body: Value::map([("await", Value::List(names.into_iter().map(Value::Text).collect()))]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::redis::command::of;

    fn ask(session: &mut Session, words: &str) -> Asked {
        session.ask(&of(&words.split(' ').collect::<Vec<_>>()))
    }

    #[test]
    fn a_transaction_is_told_by_its_commands() {
        let mut session = Session::default();
        assert_eq!(ask(&mut session, "MULTI").request.class, Class::Work);
        let queued = ask(&mut session, "SET order:12345 x");
        assert!(queued.queued && queued.request.works && !queued.request.mutating);
        assert_eq!(queued.request.key, "MULTI/SET order:{}");
        ask(&mut session, "PTTL order:12345");
        let exec = ask(&mut session, "EXEC");
        assert!(exec.request.mutating && !exec.request.works && exec.ends_transaction);
        assert_eq!(exec.request.key, "EXEC [SET order:{}; PTTL order:{}]");
        assert_eq!(exec.shape, Shape::Results(vec![Volatile::Nothing, Volatile::Countdown]));
        let results = mark_reply(&exec.shape, Value::List(vec![value::status("OK"), Value::Int(500)]));
        assert_eq!(results.stable(), Value::List(vec![value::status("OK"), Value::Null]));
        assert!(!ask(&mut session, "SET a b").queued);
    }

    #[test]
    fn fields_of_a_hash_match_in_any_order() {
        let mut session = Session::default();
        let one = ask(&mut session, "HSET h b 2 a 1").request;
        let other = ask(&mut session, "HSET h a 1 b 2").request;
        assert_eq!(one.body.stable(), other.body.stable());
        // What is carried out is what was asked.
        assert_eq!(words_of(&one), of(&["HSET", "h", "b", "2", "a", "1"]));
        let changed = ask(&mut session, "HSET h a 2 b 1").request;
        assert_ne!(one.body.stable(), changed.body.stable());
        // The later of two wins: here the order means something.
        assert_eq!(ask(&mut session, "HSET h a 1 a 2").request.body.get("any_order"), None);
        assert_ne!(
            ask(&mut session, "RPUSH l a b").request.body.stable(),
            ask(&mut session, "RPUSH l b a").request.body.stable()
        );
        let scores =
            ["ZADD z CH 1 a 2 b", "ZADD z CH 2 b 1 a"].map(|words| ask(&mut session, words).request.body);
        assert_eq!(scores[0].stable(), scores[1].stable());
    }

    #[test]
    fn databases_and_secrets() {
        let mut session = Session::default();
        ask(&mut session, "SELECT 3");
        let get = ask(&mut session, "GET a");
        assert_eq!(get.request.body.get("db").and_then(Value::as_int), Some(3));
        let auth = ask(&mut session, "HELLO 3 AUTH default hunter22 SETNAME x");
        assert!(!format!("{:?}", auth.request).contains("hunter22"));
        assert!(!format!("{:?}", ask(&mut session, "AUTH hunter22").request).contains("\"hunter22"));
        ask(&mut session, "RESET");
        assert_eq!(ask(&mut session, "GET a").request.body.get("db"), None);
    }

    #[test]
    fn client_reply_silences() {
        let mut session = Session::default();
        let mut silent = |words: &str| ask(&mut session, words).shape == Shape::Silent;
        assert!(!silent("GET a"));
        assert!(silent("CLIENT REPLY SKIP"));
        assert!(silent("GET a"));
        assert!(!silent("GET a"));
        assert!(silent("CLIENT REPLY OFF"));
        assert!(silent("GET a"));
        assert!(!silent("CLIENT REPLY ON"));
        assert!(!silent("GET a"));
    }
}
