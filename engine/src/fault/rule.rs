//! Rules: pure data about what to do to which request or syscall.
//!
//! Contract: made by the spec language, checked against the protocol at load
//! ([`crate::protocol::Protocol::check_rule`]), consulted in order; the first that acts wins.

use crate::oracle::Ratio;
use crate::supervisor::Kind;
use faultbox_bundle_format::Value;
use std::time::Duration;

/// Named parameters of an effect as the spec gave them (`errno`, `sqlstate`, `message`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fields(pub Vec<(String, Value)>);

impl Fields {
    /// A parameter by name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v)
    }
    /// A text parameter by name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_text)
    }
    /// An integer parameter by name.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(Value::as_int)
    }
}

/// A text pattern: `*` stands for anything; without one the whole text must be equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// As written in the spec (normalised by the protocol where it says so).
    pub glob: String,
    /// Whether case matters.
    pub case_sensitive: bool,
}

impl Pattern {
    /// Whether the text matches.
    pub fn matches(&self, text: &str) -> bool {
        if self.case_sensitive {
            glob(self.glob.as_bytes(), text.as_bytes())
        } else {
            glob(self.glob.to_lowercase().as_bytes(), text.to_lowercase().as_bytes())
        }
    }
}

/// `*` matches any run of bytes. Linear in practice: one backtrack point is enough.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// One matcher of a rule: any value of the request's field must match the pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// Name of the field (`query`, `topic`, ...), one of the protocol's.
    pub field: String,
    /// The pattern.
    pub pattern: Pattern,
}

/// Which members of a consumer group a rule is about: a share of them, drawn from the seed and the
/// same for as long as the fault is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// How many of them.
    pub ratio: Ratio,
    /// Names of services or clients: that share of these, rounded up. Where there are none, each
    /// client is drawn for itself.
    pub of: Vec<String>,
}

impl Share {
    /// The decision's key for who asks; `None` where the asker is none of those that it is a share of.
    /// Never the id that the broker made: that is another one in every run.
    pub fn member(&self, source: &str, client: &str) -> Option<String> {
        let named = |name: &&str| self.of.iter().any(|member| member == name);
        match self.of.is_empty() {
            true => Some(member_key(&format!("{source}/{client}"))),
            false => [source, client].into_iter().find(named).map(member_key),
        }
    }
}

/// The key of decisions about a member of a consumer group.
pub fn member_key(name: &str) -> String {
    format!("member {name}")
}

/// When a matching rule acts. Counting is per asking service, in arrival order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Modifiers {
    /// Only the n-th match, from 1.
    pub nth: Option<u64>,
    /// Only matches after the n-th.
    pub after: Option<u64>,
    /// Only every n-th match.
    pub every: Option<u64>,
    /// At most so many times.
    pub times: Option<u64>,
    /// Only with this probability, drawn per stable key.
    pub probability: Option<Ratio>,
    /// Only so long after the fault became active.
    pub for_time: Option<Duration>,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answers with the protocol's error (fields: the protocol's codes).
    Error(Fields),
    /// Answers with what the rule says instead of what the service says.
    Respond(Fields),
    /// The real answer, late.
    Delay(Duration),
    /// No answer: the connection is cut; where every request would be, new ones are refused.
    Drop,
    /// Lets it pass, shielding it from later rules.
    Allow,
    /// Sends the request twice.
    Duplicate,
    /// The answer at most so fast.
    Slow {
        /// Bytes a second.
        bytes_per_second: u64,
    },
    /// Flips bytes of the answer.
    Corrupt,
    /// Cuts the connection after so many bytes of the answer.
    ResetAfter {
        /// Bytes that still arrive.
        bytes: u64,
    },
}

/// A rule on an interface.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// All must match; none means every request that does work (`drop`: everything).
    pub matchers: Vec<Matcher>,
    /// Which service asks; `None` is anyone.
    pub source: Option<String>,
    /// Which members of a consumer group; `None` where membership does not matter.
    pub share: Option<Share>,
    /// When it acts.
    pub modifiers: Modifiers,
    /// What it does.
    pub effect: Effect,
    /// The rule in the language's words (`response(delay_ms=3000)`).
    pub words: String,
}

/// What a syscall rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyscallAction {
    /// The call fails with this errno.
    Deny(i32),
    /// The call is made after a pause, or what a later rule says is done then.
    Delay(Duration),
    /// The call moves at most so many bytes.
    Partial(u64),
    /// Calls that ask for more than so many bytes in all get what is left of them, then ENOSPC.
    EnospcAfter(u64),
    /// The process gets this signal instead of its call.
    Kill(i32),
}

/// The descriptors that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdScope {
    /// All.
    Any,
    /// Those of a kind.
    Kind(Kind),
}

/// A rule on a service's syscalls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallRule {
    /// The family (`write`, `connect`, ...).
    pub family: String,
    /// Only targets whose resolved path matches.
    pub path: Option<Pattern>,
    /// Only peers of which a name or an address matches.
    pub to: Option<Pattern>,
    /// Only descriptors of this kind; without it and without `path` and `to`, `write`, `read` and
    /// `fsync` mean regular files.
    pub fd: Option<FdScope>,
    /// Only executables or threads of this name.
    pub process: Option<Pattern>,
    /// What it does.
    pub action: SyscallAction,
    /// `connect` only: true for connects *to* the target, false for the target's own.
    pub inbound: bool,
    /// When it acts.
    pub modifiers: Modifiers,
    /// The rule in the language's words (`write = deny(EIO)`).
    pub words: String,
}

/// What an assumption is aimed at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The service.
    pub service: String,
    /// One of its interfaces, for rules of a protocol.
    pub interface: Option<String>,
}

/// One fault assumption, composed ones flattened into `parts`.
#[derive(Debug, Clone, PartialEq)]
pub struct Assumption {
    /// Its name.
    pub name: String,
    /// What it says it is.
    pub description: String,
    /// What `rules` and `syscalls` are aimed at (`None` where it only composes).
    pub target: Option<Target>,
    /// Rules on the target's interface (or on each of the service's).
    pub rules: Vec<Rule>,
    /// Rules on the target's syscalls. Their indices follow those of `rules`.
    pub syscalls: Vec<SyscallRule>,
    /// Composed assumptions.
    pub parts: Vec<Assumption>,
}

impl Assumption {
    /// This assumption and all that it composes, each once, outermost first.
    pub fn flatten(&self) -> Vec<&Assumption> {
        let mut all = vec![self];
        for part in &self.parts {
            all.extend(part.flatten());
        }
        all
    }
}
