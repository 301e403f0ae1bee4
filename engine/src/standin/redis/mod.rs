//! The Redis stand-in: a Redis in memory with an append-only file.
//!
//! Contract: speaks through the protocol's own server side ([`crate::protocol::redis::serve`]); this
//! is the conversation that knows the answers. Strings, hashes, lists, sets, sorted sets, expiry,
//! scans, publish/subscribe, transactions with `WATCH`, and blocking pops (served in the order in
//! which they began to wait). See [`store`] for what is on disk when.
//! Not modelled: scripts, streams, cluster, replication, access control, `SELECT` inside a
//! transaction. They are refused with an error that names them.

mod collections;
mod keyspace;
mod sorted;
mod store;
mod strings;
mod table;

#[cfg(test)]
mod tests;

use super::{StandIn, StandInOptions};
use crate::link::{Answer, BoxFuture, Conversation, InterfaceOptions, Link, Request, Responder, Stream};
use crate::protocol::redis::codec::Command;
use crate::protocol::redis::command::{self, Kind};
use crate::protocol::redis::{serve, session, value};
use crate::virtual_time::Time;
use faultbox_bundle_format::{RuleHit, Value};
use keyspace::{count, err, glob, nil_array};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use store::Store;
use tokio::sync::{Notify, mpsc};

/// Opens a Redis stand-in over a data directory.
///
/// # Errors
/// When its file cannot be read or opened.
pub fn open(options: StandInOptions) -> io::Result<Arc<dyn StandIn>> {
    let store = Store::open(&options.data)?;
    let hub = Hub { inner: Mutex::new(Inner::new(store)), changed: Notify::new() };
    let interface = InterfaceOptions { env: options.env, ..InterfaceOptions::default() };
    let link = Link::unobserved("redis", "redis", &options.listen.to_string(), interface, &Time::default());
    Ok(Arc::new(Redis { hub: Arc::new(hub), link }))
}

struct Redis {
    hub: Arc<Hub>,
    link: Arc<Link>,
}

impl StandIn for Redis {
    fn serve(&self, stream: Stream, _: u64) -> BoxFuture<'static, ()> {
        let served = serve::serve(stream, self.link.clone(), Arc::new(self.hub.clone()));
        Box::pin(async move {
            // How a connection ends is its client's business.
            let _ = served.await;
        })
    }

    fn snapshot(&self) -> io::Result<()> {
        self.hub.lock().store.snapshot()
    }

    fn restore(&self) -> io::Result<()> {
        self.hub.lock().store.restore()
    }
}

/// What all connections share.
struct Hub {
    inner: Mutex<Inner>,
    /// Something was put into a list.
    changed: Notify,
}

struct Inner {
    store: Store,
    subscribers: BTreeMap<u64, Subscriber>,
    /// Who waits for which keys, in order of arrival.
    waiting: BTreeMap<u64, (i64, Vec<Vec<u8>>)>,
    tickets: u64,
}

struct Subscriber {
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
    messages: mpsc::UnboundedSender<Value>,
}

impl Inner {
    fn new(store: Store) -> Self {
        Inner { store, subscribers: BTreeMap::new(), waiting: BTreeMap::new(), tickets: 0 }
    }

    fn publish(&self, channel: &[u8], message: &[u8]) -> Value {
        let text = |bytes: &[u8]| Value::text_or_bytes(bytes);
        let mut reached = 0;
        for subscriber in self.subscribers.values() {
            let mut send = |items: Vec<Value>| {
                let push = Value::map([("push", Value::List(items))]);
                reached += usize::from(subscriber.messages.send(push).is_ok());
            };
            if subscriber.channels.contains(channel) {
                send(vec!["message".into(), text(channel), text(message)]);
            }
            for pattern in subscriber.patterns.iter().filter(|pattern| glob(pattern, channel)) {
                send(vec!["pmessage".into(), text(pattern), text(channel), text(message)]);
            }
        }
        count(reached)
    }

    fn pubsub(&self, words: &[Vec<u8>]) -> Value {
        let all = || self.subscribers.values().flat_map(|s| s.channels.iter());
        match words.get(1).map(|w| command::text(w).to_ascii_uppercase()).unwrap_or_default().as_str() {
            "CHANNELS" => {
                let wanted = |name: &&Vec<u8>| words.get(2).is_none_or(|pattern| glob(pattern, name));
                let names: BTreeSet<&Vec<u8>> = all().filter(wanted).collect();
                keyspace::bulks(names)
            }
            "NUMSUB" => Value::List(
                words
                    .iter()
                    .skip(2)
                    .flat_map(|name| {
                        [keyspace::bulk(name), count(all().filter(|found| *found == name).count())]
                    })
                    .collect(),
            ),
            "NUMPAT" => {
                let patterns = self.subscribers.values().flat_map(|s| s.patterns.iter());
                count(patterns.collect::<BTreeSet<_>>().len())
            }
            _ => serve::not_supported("PUBSUB", words),
        }
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Responder for Arc<Hub> {
    fn converse(&self, _: &str, connection: u64) -> Arc<dyn Conversation> {
        let (messages, inbox) = mpsc::unbounded_channel();
        let subscriber = Subscriber { channels: BTreeSet::new(), patterns: BTreeSet::new(), messages };
        self.lock().subscribers.insert(connection, subscriber);
        Arc::new(Client {
            hub: self.clone(),
            connection,
            state: Mutex::default(),
            inbox: tokio::sync::Mutex::new(inbox),
        })
    }
}

/// One connection.
struct Client {
    hub: Arc<Hub>,
    connection: u64,
    state: Mutex<State>,
    inbox: tokio::sync::Mutex<mpsc::UnboundedReceiver<Value>>,
}

#[derive(Default)]
struct State {
    /// The commands queued since `MULTI`.
    queue: Option<Vec<Command>>,
    /// A command could not be queued.
    spoiled: bool,
    watched: BTreeMap<(i64, Vec<u8>), Option<u64>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.hub.lock().subscribers.remove(&self.connection);
    }
}

impl Conversation for Client {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        Box::pin(async move { (self.respond(request).await, None) })
    }
}

/// Where a command is to be carried out.
#[derive(Clone, Copy)]
struct Place {
    db: i64,
    version: i64,
}

impl Client {
    async fn respond(&self, request: &Request) -> Answer {
        if request.body.get("await").is_some() {
            return match self.inbox.lock().await.recv().await {
                Some(message) => Answer::Reply(message),
                None => Answer::Silence,
            };
        }
        let words = session::words_of(request);
        let field = |name: &str| request.body.get(name).and_then(Value::as_int);
        let place = Place { db: field("db").unwrap_or(0), version: field("resp").unwrap_or(2) };
        let name = command::name(&words);
        let kind = command::kind(&words);
        let allowed = kind == Kind::Subscribe || matches!(&*name, "PING" | "QUIT" | "RESET");
        if place.version < 3 && !allowed && self.subscribed() {
            return Answer::Reply(err(&format!(
                "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
                 in this context",
                name.to_lowercase()
            )));
        }
        if let Some(answer) = self.transaction(&name, place, &words) {
            return answer;
        }
        match kind {
            Kind::Wait => self.wait(&name, place, &words).await,
            _ => self.at_once(&name, kind, place, &words),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn subscribed(&self) -> bool {
        let inner = self.hub.lock();
        inner
            .subscribers
            .get(&self.connection)
            .is_some_and(|s| !s.channels.is_empty() || !s.patterns.is_empty())
    }

    /// `MULTI` to `EXEC`; `None` for a command outside of a transaction.
    fn transaction(&self, name: &str, place: Place, words: &Command) -> Option<Answer> {
        let mut state = self.state();
        let open = state.queue.is_some();
        let reply = match name {
            "MULTI" if open => err("MULTI calls can not be nested"),
            "MULTI" => {
                state.queue = Some(Vec::new());
                keyspace::ok()
            }
            "WATCH" if open => err("WATCH inside MULTI is not allowed"),
            "WATCH" => {
                let inner = self.hub.lock();
                let now = inner.store.now();
                for key in words.iter().skip(1) {
                    let version = inner.store.space().version(place.db, key, now);
                    state.watched.entry((place.db, key.clone())).or_insert(version);
                }
                keyspace::ok()
            }
            "UNWATCH" if !open => {
                state.watched.clear();
                keyspace::ok()
            }
            "EXEC" | "DISCARD" if !open => err(&format!("{name} without MULTI")),
            "DISCARD" => {
                *state = State::default();
                keyspace::ok()
            }
            "EXEC" => self.exec(std::mem::take(&mut *state), place),
            "RESET" => {
                *state = State::default();
                let mut inner = self.hub.lock();
                if let Some(subscriber) = inner.subscribers.get_mut(&self.connection) {
                    subscriber.channels.clear();
                    subscriber.patterns.clear();
                }
                return Some(Answer::Unknown);
            }
            "QUIT" => return Some(Answer::Unknown),
            _ => match &mut state.queue {
                None => return None,
                Some(queue) => match queueable(name, words) {
                    Ok(()) => {
                        queue.push(words.clone());
                        value::status("QUEUED")
                    }
                    Err(error) => {
                        state.spoiled = true;
                        error
                    }
                },
            },
        };
        Some(Answer::Reply(reply))
    }

    fn exec(&self, state: State, place: Place) -> Value {
        if state.spoiled {
            return value::error("EXECABORT Transaction discarded because of previous errors.");
        }
        let mut inner = self.hub.lock();
        let now = inner.store.now();
        let changed = |((db, key), version): (&(i64, Vec<u8>), &Option<u64>)| {
            inner.store.space().version(*db, key, now) != *version
        };
        if state.watched.iter().any(changed) {
            return nil_array();
        }
        let commands = state.queue.unwrap_or_default();
        // Messages go out once the transaction is known to have been carried out.
        let mut published = Vec::new();
        let reached = |inner: &Inner, words: &Command| match words.as_slice() {
            [_, channel, message] => inner.publish(channel, message),
            _ => Value::Int(0),
        };
        let results = inner.store.transact(place.db, place.version, &commands, |_, words| {
            (command::name(words) == "PUBLISH").then(|| {
                published.push(words.clone());
                Value::Int(0)
            })
        });
        let Value::List(mut results) = results else { return results };
        let mut published = published.iter().map(|words| reached(&inner, words));
        for (result, words) in results.iter_mut().zip(&commands) {
            if command::name(words) == "PUBLISH" {
                *result = published.next().unwrap_or_default();
            }
        }
        drop(inner);
        self.hub.changed.notify_waiters();
        Value::List(results)
    }

    /// A command that waits until there is something to take.
    async fn wait(&self, name: &str, place: Place, words: &Command) -> Answer {
        let timeout = words.last().map(|word| keyspace::float(word));
        if let Err(error) = table::find(words) {
            return Answer::Reply(error);
        }
        if !matches!(timeout, Some(Ok(seconds)) if seconds >= 0.0) {
            return Answer::Reply(err("timeout is not a float or out of range"));
        }
        let waiting = Waiting::new(&self.hub, place.db, words);
        let taken = async {
            loop {
                let mut changed = std::pin::pin!(self.hub.changed.notified());
                // From here on a notification is not missed.
                changed.as_mut().enable();
                if let Some(reply) = waiting.attempt(place, words) {
                    return reply;
                }
                changed.await;
            }
        };
        let reply = match serve::waits(name, words) {
            None => taken.await,
            Some(limit) => tokio::time::timeout(limit, taken).await.unwrap_or_else(|_| nil_array()),
        };
        drop(waiting);
        // Who waits behind may take what is left, or what was moved.
        self.hub.changed.notify_waiters();
        Answer::Reply(reply)
    }

    fn at_once(&self, name: &str, kind: Kind, place: Place, words: &Command) -> Answer {
        let mut inner = self.hub.lock();
        let reply = match (kind, name) {
            (Kind::Subscribe, _) => self.subscribe(&mut inner, name, words),
            (_, "PUBLISH") => match words.as_slice() {
                [_, channel, message] => inner.publish(channel, message),
                _ => err("wrong number of arguments for 'publish' command"),
            },
            (_, "PUBSUB") => inner.pubsub(words),
            (_, "INFO") => info(&inner.store),
            (_, "CONFIG") if command::is(words, 1, "GET") => config(words),
            (_, "WAIT") => Value::Int(0),
            (_, "CONFIG") => serve::not_supported("CONFIG", words),
            (Kind::Session, _) | (_, "PING") => return Answer::Unknown,
            (Kind::Takeover, _) => serve::not_supported(name, words),
            _ => inner.store.run(place.db, place.version, words),
        };
        drop(inner);
        if store::writes(words) {
            self.hub.changed.notify_waiters();
        }
        Answer::Reply(reply)
    }

    fn subscribe(&self, inner: &mut Inner, name: &str, words: &Command) -> Value {
        if name.starts_with('S') && name != "SUBSCRIBE" {
            return serve::not_supported(name, words);
        }
        let ends = name.contains("UNSUB");
        if words.len() < 2 && !ends {
            return err(&format!("wrong number of arguments for '{}' command", name.to_lowercase()));
        }
        let Some(subscriber) = inner.subscribers.get_mut(&self.connection) else { return nil_array() };
        let of_patterns = name.starts_with('P');
        let named = match words.get(1..) {
            Some(named) if !named.is_empty() => named.to_vec(),
            _ if of_patterns => subscriber.patterns.iter().cloned().collect(),
            _ => subscriber.channels.iter().cloned().collect(),
        };
        let mut confirmations = Vec::new();
        let kind = Value::Text(name.to_lowercase());
        for channel in &named {
            let set = if of_patterns { &mut subscriber.patterns } else { &mut subscriber.channels };
            if ends {
                set.remove(channel);
            } else {
                set.insert(channel.clone());
            }
            let left = count(subscriber.channels.len() + subscriber.patterns.len());
            confirmations.push(Value::List(vec![kind.clone(), keyspace::bulk(channel), left]));
        }
        if named.is_empty() {
            let left = count(subscriber.channels.len() + subscriber.patterns.len());
            confirmations.push(Value::List(vec![kind, Value::Null, left]));
        }
        Value::map([("confirmations", Value::List(confirmations))])
    }
}

/// Whether a command can be queued in a transaction.
fn queueable(name: &str, words: &Command) -> Result<(), Value> {
    match name {
        "PUBLISH" => table::check_arity(name, words, 3),
        _ => table::find(words).map(drop),
    }
}

/// A place in the line of those who wait.
struct Waiting<'a> {
    hub: &'a Hub,
    ticket: u64,
}

impl<'a> Waiting<'a> {
    fn new(hub: &'a Hub, db: i64, words: &Command) -> Self {
        let mut inner = hub.lock();
        inner.tickets += 1;
        let ticket = inner.tickets;
        // Only where it takes from: `BLMOVE` names a destination, too.
        let keys = command::keys(words).into_iter().map(<[u8]>::to_vec);
        let keys = if command::name(words).contains("POP") && !command::name(words).contains("PUSH") {
            keys.collect()
        } else {
            keys.take(1).collect()
        };
        inner.waiting.insert(ticket, (db, keys));
        Waiting { hub, ticket }
    }

    /// Takes what there is, unless somebody has waited longer for one of its keys.
    fn attempt(&self, place: Place, words: &Command) -> Option<Value> {
        let mut inner = self.hub.lock();
        let (db, keys) = inner.waiting.get(&self.ticket)?.clone();
        let earlier = |key: &Vec<u8>| {
            let mut before = inner.waiting.range(..self.ticket);
            before.any(|(_, (other, others))| *other == db && others.contains(key))
        };
        let ready = |key: &&Vec<u8>| {
            let entry = inner.store.space().dbs.get(&db).and_then(|keys| keys.get(*key));
            entry.is_some_and(|entry| !matches!(&entry.data, keyspace::Data::List(items) if items.is_empty()))
        };
        let key = keys.iter().filter(ready).find(|key| !earlier(key))?;
        let one = match words.as_slice() {
            [name, .., timeout] if keys.len() > 1 => vec![name.clone(), key.clone(), timeout.clone()],
            _ => words.clone(),
        };
        match inner.store.run(place.db, place.version, &one) {
            // The key had expired.
            nothing if matches!(value::plain(&nothing), Value::Null) => None,
            reply => Some(reply),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.hub.lock().waiting.remove(&self.ticket);
    }
}

fn info(store: &Store) -> Value {
    let mut text = format!(
        "# Server\r\nredis_version:{}\r\nredis_mode:standalone\r\nuptime_in_seconds:{}\r\n\r\n# Persistence\r\nloading:0\r\naof_enabled:1\r\n\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n# Keyspace\r\n",
        serve::VERSION,
        store.uptime(),
    );
    for (db, keys) in store.space().dbs.iter().filter(|(_, keys)| !keys.is_empty()) {
        let expires = keys.values().filter(|entry| entry.expires.is_some()).count();
        text.push_str(&format!("db{db}:keys={},expires={expires},avg_ttl=0\r\n", keys.len()));
    }
    Value::Text(text)
}

fn config(words: &Command) -> Value {
    const KNOWN: &[(&str, &str)] = &[
        ("appendonly", "yes"),
        ("databases", "16"),
        ("maxmemory", "0"),
        ("maxmemory-policy", "noeviction"),
        ("notify-keyspace-events", ""),
        ("save", ""),
        ("timeout", "0"),
    ];
    let wanted =
        |name: &str| words.iter().skip(2).any(|pattern| glob(&pattern.to_ascii_lowercase(), name.as_bytes()));
    let found = KNOWN.iter().filter(|(name, _)| wanted(name));
    value::map(found.flat_map(|(name, text)| [Value::text(*name), Value::text(*text)]).collect())
}
