//! What the tests of protocols share: pipes, scripted responders, recording and replaying.

use crate::event_sink::MemorySink;
use crate::fault::active::ActiveFaults;
use crate::fault::rule::{Assumption, Effect, Matcher, Modifiers, Pattern, Rule, Target};
use crate::journal::Journal;
use crate::link::{
    Answer, BoxFuture, Conversation, Dial, InterfaceOptions, Link, Request, Responder, Stream,
};
use crate::oracle::SeededOracle;
use crate::protocol::Protocol;
use faultbox_bundle_format::{Body, Class, Exchange, Outcome, Phase, RuleHit, Value};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Answers by a function.
pub(crate) struct Scripted<F>(Arc<F>);

impl<F: Fn(&Request) -> Answer + Send + Sync + 'static> Scripted<F> {
    pub(crate) fn responder(answer: F) -> Arc<dyn Responder> {
        Arc::new(Scripted(Arc::new(answer)))
    }
}

impl<F: Fn(&Request) -> Answer + Send + Sync + 'static> Responder for Scripted<F> {
    fn converse(&self, _: &str, _: u64) -> Arc<dyn Conversation> {
        Arc::new(Scripted(self.0.clone()))
    }
}

impl<F: Fn(&Request) -> Answer + Send + Sync> Conversation for Scripted<F> {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        Box::pin(async move { ((self.0)(request), None) })
    }
}

/// Answers with what was recorded, by key, first in first out.
pub(crate) fn recorded(exchanges: &[Exchange]) -> Arc<dyn Responder> {
    let mut queues: BTreeMap<String, VecDeque<(Outcome, Option<Value>)>> = BTreeMap::new();
    for e in exchanges.iter().filter(|e| e.class == Class::Work) {
        let response = e.response.as_ref().and_then(|r| r.value());
        queues.entry(e.key.clone()).or_default().push_back((e.outcome, response));
    }
    let queues = Mutex::new(queues);
    Scripted::responder(move |request: &Request| {
        match queues.lock().unwrap().get_mut(&request.key).and_then(VecDeque::pop_front) {
            Some((Outcome::Answered, Some(response))) => Answer::Reply(response),
            Some((Outcome::Dropped | Outcome::Failed, _)) => Answer::Cut,
            Some((Outcome::Abandoned, _)) => Answer::Silence,
            Some((Outcome::OneWay, _)) => Answer::Nothing,
            _ => Answer::Unknown,
        }
    })
}

/// A journal that can be read.
pub(crate) struct World {
    pub(crate) sink: Arc<MemorySink>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) link: Arc<Link>,
    pub(crate) faults: Arc<ActiveFaults>,
}

impl World {
    pub(crate) fn new(protocol: &'static str, options: InterfaceOptions) -> World {
        let sink = Arc::new(MemorySink::default());
        let clock = crate::clock::RunClock::start();
        let journal = Arc::new(Journal::new(sink.clone(), clock, Arc::default(), 1, "cell"));
        journal.enter(Phase::Scenario);
        let faults = ActiveFaults::new(journal.clone(), Arc::new(SeededOracle::new(1)), "api");
        let link = Link::new(
            "peer.main",
            protocol,
            "api",
            "127.0.0.1:9000",
            Arc::new(options),
            journal.clone(),
            Some(faults.clone()),
            Arc::default(),
        );
        World { sink, journal, link, faults }
    }

    /// Makes one rule on the interface active.
    pub(crate) fn rule(&self, matchers: &[(&str, &str)], effect: Effect) {
        let matchers = matchers
            .iter()
            .map(|(field, glob)| Matcher {
                field: (*field).to_owned(),
                pattern: Pattern { glob: (*glob).to_owned(), case_sensitive: true },
            })
            .collect();
        let rule = Rule {
            matchers,
            source: None,
            share: None,
            modifiers: Modifiers::default(),
            effect,
            words: "rule".into(),
        };
        self.faults.activate(Arc::new(Assumption {
            name: "fault".into(),
            description: String::new(),
            target: Some(Target { service: "peer".into(), interface: Some("main".into()) }),
            rules: vec![rule],
            syscalls: vec![],
            parts: vec![],
        }));
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        let bodies = self.sink.entries().into_iter().map(|entry| entry.body);
        bodies.filter_map(|body| if let Body::Exchange(e) = body { Some(e) } else { None }).collect()
    }

    /// (key, request without what is volatile) of every exchange that does work.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        let work = self.exchanges().into_iter().filter(|e| e.class == Class::Work);
        work.map(|e| (e.key.clone(), e.request.value().unwrap().stable())).collect()
    }
}

/// Connections to a server of ours, each served in a task.
pub(crate) struct Served {
    pub(crate) protocol: &'static dyn Protocol,
    pub(crate) link: Arc<Link>,
    pub(crate) responder: Arc<dyn Responder>,
}

impl Dial for Served {
    fn dial(&self) -> BoxFuture<'_, std::io::Result<Stream>> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(1 << 16);
            tokio::spawn(self.protocol.serve(Box::new(far), self.link.clone(), self.responder.clone()));
            Ok(Box::new(near) as Stream)
        })
    }
}

/// Connections through the proxy, each carried in a task.
pub(crate) struct Proxied {
    pub(crate) protocol: &'static dyn Protocol,
    pub(crate) link: Arc<Link>,
    pub(crate) upstream: Arc<dyn Dial>,
}

impl Dial for Proxied {
    fn dial(&self) -> BoxFuture<'_, std::io::Result<Stream>> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(1 << 16);
            tokio::spawn(self.protocol.proxy(Box::new(far), self.upstream.clone(), self.link.clone()));
            Ok(Box::new(near) as Stream)
        })
    }
}

/// A dial of a TCP address.
pub(crate) struct Tcp(pub std::net::SocketAddr);

impl Dial for Tcp {
    fn dial(&self) -> BoxFuture<'_, std::io::Result<Stream>> {
        Box::pin(async move { Ok(Box::new(tokio::net::TcpStream::connect(self.0).await?) as Stream) })
    }
}

/// The rule that `call` makes, a call of this recipe of the standard library or of a module of the
/// language, on a service `target` that speaks the protocol.
pub(crate) fn rule_of(protocol: &str, recipe: Option<&str>, call: &str) -> Rule {
    let load = recipe.map(|name| format!("load(\"@faultbox/recipes/{protocol}.star\", \"{name}\")\n"));
    let text = format!(
        "{}target = service(\"target\", interface(\"main\", \"{protocol}\", 1), image = \"x\")\n\
         fault = fault_assumption(\"fault\", target = target.main, rules = [{call}])\n\
         def scenario():\n    return step(target.main, \"{}\")\n\
         fault_matrix(scenarios = [scenario], faults = [fault], default_expect = expect_success())\n",
        load.unwrap_or_default(),
        match protocol {
            "mysql" => "query\", sql = \"SELECT 1",
            "redis" => "get\", key = \"k",
            _ => "offsets\", topic = \"t",
        },
    );
    let mut files = crate::spec::MemoryFiles::default();
    files.insert("a.star", text.into_bytes());
    let addresses = crate::addresses::AddressBook::isolated();
    let options =
        crate::spec::LoadOptions { files: Some(&files), ..crate::spec::LoadOptions::new(&addresses) };
    let plan = crate::spec::load(std::path::Path::new("a.star"), &options);
    let plan = plan.unwrap_or_else(|errors| panic!("{call}: {errors}"));
    plan.cells[0].assumption.as_ref().unwrap().rules[0].clone()
}
