//! Rules, syscall faults and assumptions: from the language's words to [`crate::fault`].
//!
//! Contract: a rule is made before it is known what it is aimed at, so its arguments are kept
//! with their place and become matchers and parameters once the protocol is known
//! ([`RuleSpec::build`]). What the protocol does not know is refused there.

use super::builtins;
use super::call::{Call, Def, described, items};
use super::convert;
use super::diagnostics::{Argument, Problem, nearest};
use super::dialect::{FileSpan, Result, Value};
use super::state::Draft;
use super::syscalls::{self, SCOPE, SyscallFault};
use super::values::{AssumptionValue, InterfaceValue, MockValue, RuleValue, ServiceValue, SyscallValue};
use crate::fault::{Assumption, Effect, Fields, Matcher, Modifiers, Pattern, Rule, Share, Target};
use crate::oracle::Ratio;
use crate::protocol::kafka::rules::{DISTURBED_BY, disturbance};
use crate::protocol::{PROTOCOLS, Protocol};
use faultbox_bundle_format::Value as Plain;
use std::sync::Arc;
use std::time::Duration;

/// Keywords that say when a rule acts.
pub const MODIFIERS: &[&str] = &["nth", "after", "every", "times", "probability", "for_ms"];
/// Keywords of `error` and `response` that every protocol understands or [`RuleSpec::build`] does.
const COMMON: &[&str] = &["status_code", "status", "drop", "delay_ms"];

/// Which builtin made a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// `error(...)`.
    Error,
    /// `response(...)`.
    Response,
    /// Everything is known already.
    Ready(Effect),
}

/// A rule that is not aimed at anything yet.
#[derive(Debug)]
pub struct RuleSpec {
    /// What it does.
    pub verb: Verb,
    /// Everything else that was given, in order.
    pub given: Vec<(String, Plain)>,
    /// Fields that its builtin adds (`code` of `grpc.unavailable`).
    pub fields: Vec<(String, Plain)>,
    /// The one protocol whose rule it is; `None` where it is for all.
    pub home: Option<&'static str>,
    /// Of `kafka.rebalance` and its like: its name, and which members.
    pub disturbance: Option<(&'static str, Share)>,
    /// When it acts.
    pub modifiers: Modifiers,
    /// Who must ask.
    pub source: Option<String>,
    /// In the language's words.
    pub words: String,
    /// The call that made it.
    pub span: Option<FileSpan>,
}

/// A declared assumption.
pub struct AssumptionDraft {
    /// Its name.
    pub name: String,
    /// What it says it is.
    pub description: String,
    /// What it is aimed at.
    pub target: Option<Target>,
    /// Rules.
    pub rules: Vec<Arc<RuleSpec>>,
    /// Faults of its syscalls.
    pub syscalls: Vec<SyscallFault>,
    /// What it composes: indices of earlier assumptions.
    pub parts: Vec<usize>,
    /// The call that made it.
    pub span: Option<FileSpan>,
}

/// `name(a=1, b="c")` of a call.
pub(super) fn words_of(call: &Call<'_, '_, '_, '_>, name: &str) -> String {
    let params = call.def.params.iter().filter_map(|param| Some((param.name, call.value(param.name)?)));
    let positional = call.def.params.first().filter(|p| p.positional).map(|p| p.name);
    let own = params.map(|(name, value)| match positional == Some(name) {
        true => value.to_repr(),
        false => format!("{name}={}", value.to_repr()),
    });
    let extra = call.extra.iter().map(|(name, value)| format!("{name}={}", value.to_repr()));
    format!("{name}({})", own.chain(extra).collect::<Vec<_>>().join(", "))
}

/// Takes the modifiers and `source` out of a call's keywords; the rest stays as data.
fn rule<'v>(
    call: &mut Call<'_, 'v, '_, '_>,
    name: &str,
    verb: Verb,
    fields: Vec<(String, Plain)>,
) -> Result<Value<'v>> {
    let spec = spec_of(call, name, verb, fields)?;
    Ok(call.eval.heap().alloc(RuleValue(Arc::new(spec))))
}

fn spec_of(
    call: &mut Call<'_, '_, '_, '_>,
    name: &str,
    verb: Verb,
    fields: Vec<(String, Plain)>,
) -> Result<RuleSpec> {
    let words = words_of(call, name);
    let answers = matches!(verb, Verb::Error | Verb::Response);
    let mut spec = RuleSpec {
        verb,
        given: Vec::new(),
        fields,
        home: None,
        disturbance: None,
        modifiers: Modifiers::default(),
        source: None,
        words,
        span: call.span(),
    };
    for (name, value) in std::mem::take(&mut call.extra) {
        let at = |problem: Problem| problem.at(&name);
        if modifier(&mut spec.modifiers, &name, value).map_err(at)? {
            continue;
        }
        match name.as_str() {
            "source" => spec.source = Some(source(value).map_err(at)?),
            "to" if call.def.name == "delay" => {
                spec.given.push((name.clone(), Plain::Text(syscalls::peer(value).map_err(at)?)));
            }
            _ if is_known(&name, answers) || (SCOPE.contains(&&*name) && call.def.name == "delay") => {
                spec.given.push((name.clone(), convert::to_plain(value).map_err(at)?));
            }
            _ => return Err(unknown_keyword(call.def, &name, answers).into()),
        }
    }
    Ok(spec)
}

fn is_known(name: &str, answers: bool) -> bool {
    let matcher = PROTOCOLS.iter().any(|p| p.matchers().contains(&name));
    matcher
        || answers
            && (COMMON.contains(&name) || PROTOCOLS.iter().any(|p| p.effect_parameters().contains(&name)))
}

fn unknown_keyword(builtin: &Def, name: &str, answers: bool) -> Problem {
    let mut right: Vec<&str> = builtin.params.iter().map(|param| param.name).collect();
    right.extend(PROTOCOLS.iter().flat_map(|p| p.matchers()).copied());
    right.extend(MODIFIERS.iter().chain(&["source"]));
    if answers {
        right.extend(COMMON);
        right.extend(PROTOCOLS.iter().flat_map(|p| p.effect_parameters()).copied());
    }
    let mut problem = Problem::new(format!("no rule has a parameter `{name}` ({}())", builtin.name)).at(name);
    problem.hint = nearest(name, right).map(|near| format!("did you mean `{near}`?"));
    problem
}

/// Whether the keyword is a modifier; takes its value if so.
pub(super) fn modifier(modifiers: &mut Modifiers, name: &str, value: Value<'_>) -> Result<bool, Problem> {
    let count = || -> Result<Option<u64>, Problem> {
        let number =
            convert::integer(value).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0 || name == "after");
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::new(format!("`{name}` is a number from 1, not {}", described(value)))),
        }
    };
    match name {
        "nth" => modifiers.nth = count()?,
        "after" => modifiers.after = count()?,
        "every" => modifiers.every = count()?,
        "times" => modifiers.times = count()?,
        "probability" => modifiers.probability = Some(convert::ratio(value)?),
        "for_ms" => modifiers.for_time = Some(convert::millis(value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn source(value: Value<'_>) -> Result<String, Problem> {
    if let Some(service) = ServiceValue::from_value(value) {
        return Ok(service.0.name.clone());
    }
    match value.unpack_str() {
        Some(name) => Ok(name.to_owned()),
        None => Err(Problem::new(format!("`source` is a service, not {}", described(value)))),
    }
}

/// `error(...)`.
pub fn error<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    rule(call, "error", Verb::Error, Vec::new())
}

/// `response(...)`.
pub fn response<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    rule(call, "response", Verb::Response, Vec::new())
}

/// `delay("300ms")`, `delay(delay_ms = 300)`.
pub fn delay<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let millis = ["delay_ms", "ms"].into_iter().filter_map(|name| Some((name, call.value(name)?)));
    let mut given: Vec<Duration> =
        millis.map(|(name, value)| call.blame(name, convert::millis(value))).collect::<Result<_, _>>()?;
    given.extend(call.duration("duration")?);
    match given.as_slice() {
        [duration] => rule(call, "delay", Verb::Ready(Effect::Delay(*duration)), Vec::new()),
        [] => Err(Problem::new("delay() needs a duration")
            .hint("delay(\"300ms\") or delay(delay_ms = 300)")
            .into()),
        _ => Err(Problem::new("delay() got more than one duration").into()),
    }
}

/// `drop()`.
pub fn drop<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    rule(call, "drop", Verb::Ready(Effect::Drop), Vec::new())
}

/// `duplicate()`.
pub fn duplicate<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    rule(call, "duplicate", Verb::Ready(Effect::Duplicate), Vec::new())
}

/// `allow()`.
pub fn allow<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    rule(call, "allow", Verb::Ready(Effect::Allow), Vec::new())
}

/// `corrupt()`.
pub fn corrupt<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    rule(call, "corrupt", Verb::Ready(Effect::Corrupt), Vec::new())
}

/// `slow(bytes_per_second=)`.
pub fn slow<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let bytes_per_second = call.blame("bytes_per_second", convert::size(call.needed("bytes_per_second")?))?;
    if bytes_per_second == 0 {
        return Err(call.problem("bytes_per_second", "nothing would ever arrive").hint("drop() cuts").into());
    }
    rule(call, "slow", Verb::Ready(Effect::Slow { bytes_per_second }), Vec::new())
}

/// `reset_after(bytes=)`.
pub fn reset_after<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let bytes = call.blame("bytes", convert::size(call.needed("bytes")?))?;
    rule(call, "reset_after", Verb::Ready(Effect::ResetAfter { bytes }), Vec::new())
}

/// `grpc.unavailable("...")` and its like.
pub fn status<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let code = call.def.name.to_uppercase();
    let message = call.text("message")?.unwrap_or_default();
    let name = format!("grpc.{}", call.def.name);
    let fields = vec![("code".to_owned(), Plain::Text(code)), ("message".to_owned(), Plain::Text(message))];
    let spec = RuleSpec { home: Some("grpc"), ..spec_of(call, &name, Verb::Error, fields)? };
    Ok(call.eval.heap().alloc(RuleValue(Arc::new(spec))))
}

/// `kafka.rebalance(share=)` and its like: what a group's coordinator does to members.
pub fn disturb<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let Some(disturbance) = disturbance(call.def.name) else {
        return Err(Problem::new(format!("kafka has no rule {}", call.def.name)).into());
    };
    let share = Share { ratio: share(call)?, of: members(call)? };
    let (verb, fields) = match disturbance.code {
        Some(code) => (Verb::Error, vec![("code".to_owned(), Plain::Text(code.to_owned()))]),
        None => (Verb::Ready(Effect::Drop), Vec::new()),
    };
    let spec = spec_of(call, &format!("kafka.{}", disturbance.name), verb, fields)?;
    let disturbance = Some((disturbance.name, share));
    let spec = RuleSpec { home: Some("kafka"), disturbance, ..spec };
    Ok(call.eval.heap().alloc(RuleValue(Arc::new(spec))))
}

fn share(call: &Call<'_, '_, '_, '_>) -> Result<Ratio, Problem> {
    let Some(value) = call.value("share") else { return Ok(Ratio { part: 1, of: 1 }) };
    match convert::ratio(value) {
        Ok(ratio) if ratio.part > 0 => Ok(ratio),
        _ => Err(call
            .problem("share", format!("bad share {}", value.to_repr()))
            .hint("a share is a number above 0 up to 1, or a string like \"50%\"")),
    }
}

/// Names of the members that a rule is about: services, or what clients call themselves.
fn members(call: &Call<'_, '_, '_, '_>) -> Result<Vec<String>, Problem> {
    let mut names: Vec<String> = Vec::new();
    for item in call.list("members")? {
        let service = ServiceValue::from_value(item).map(|service| service.0.name.clone());
        let name = service.or(item.unpack_str().filter(|name| !name.is_empty()).map(str::to_owned));
        match name {
            Some(name) if names.contains(&name) => {
                return Err(call.problem("members", format!("{name} stands twice in `members`")));
            }
            Some(name) => names.push(name),
            None => {
                let message =
                    format!("`members` holds services and names of clients, not {}", described(item));
                return Err(call.problem("members", message));
            }
        }
    }
    match call.value("members").is_some() && names.is_empty() {
        true => Err(call.problem("members", "a share of nobody is nothing")),
        false => Ok(names),
    }
}

/// `fault_assumption(...)`.
pub fn fault_assumption<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let load = call.context()?.load("fault_assumption()")?;
    let name = call.needed_text("name")?;
    builtins::check_name(&name).map_err(|problem| call.problem("name", problem.message))?;
    if !call.list("monitors")?.is_empty() {
        return Err(call.problem("monitors", "`monitors` are not supported yet").into());
    }
    let mut draft = AssumptionDraft {
        name: name.clone(),
        description: call.text("description")?.unwrap_or_default(),
        target: call.value("target").map(|value| call.blame("target", target(value))).transpose()?,
        rules: rules(call)?,
        syscalls: Vec::new(),
        parts: parts(call)?,
        span: call.span(),
    };
    for (family, value) in std::mem::take(&mut call.extra) {
        let several = items(value).unwrap_or_else(|| vec![value]);
        if several.is_empty() {
            return Err(Problem::new(format!("`{family}` holds no syscall fault")).at(&family).into());
        }
        for value in several {
            let fault = SyscallFault::of(&family, value).map_err(|problem| problem.at(&family))?;
            draft.syscalls.push(fault);
        }
    }
    let aimed = !draft.rules.is_empty() || !draft.syscalls.is_empty();
    if !aimed && draft.parts.is_empty() {
        let hint = "give `rules`, a syscall such as `write = deny(\"EIO\")`, or `faults` to compose";
        return Err(Problem::new(format!("fault assumption {name} assumes nothing")).hint(hint).into());
    }
    match &draft.target {
        None if aimed => return Err(Problem::new("fault_assumption() needs `target` for its rules").into()),
        Some(_) if !aimed => return Err(call.problem("target", "`target` has no rules to be aimed").into()),
        Some(Target { interface: Some(interface), service }) if !draft.syscalls.is_empty() => {
            let message =
                format!("syscall faults bind to a service, not to its interface {service}.{interface}");
            return Err(call.problem("target", message).hint(format!("target = {service}")).into());
        }
        _ => {}
    }
    let mut plan = load.draft.borrow_mut();
    if let Some(earlier) = plan.assumptions.iter().find(|earlier| earlier.name == name) {
        let place = call.context()?.line(&earlier.span);
        return Err(call
            .problem("name", format!("a fault assumption {name} exists already"))
            .hint(format!("declared at {place}"))
            .into());
    }
    let index = plan.assumptions.len();
    plan.assumptions.push(draft);
    Ok(call.eval.heap().alloc(AssumptionValue { index, name }))
}

fn target(value: Value<'_>) -> Result<Target, Problem> {
    if let Some(interface) = InterfaceValue::from_value(value) {
        let interface_name = Some(interface.info().name.clone());
        return Ok(Target { service: interface.service.name.clone(), interface: interface_name });
    }
    let service = ServiceValue::from_value(value).map(|service| &service.0);
    match service.or(MockValue::from_value(value).map(|mock| &mock.service)) {
        Some(service) => Ok(Target { service: service.name.clone(), interface: None }),
        None => Err(Problem::new(format!(
            "`target` is a service or one of its interfaces, not {}",
            described(value)
        ))),
    }
}

fn rules(call: &Call<'_, '_, '_, '_>) -> Result<Vec<Arc<RuleSpec>>, Problem> {
    let rules = call.list("rules")?.into_iter().map(|item| match RuleValue::from_value(item) {
        Some(rule) => Ok(rule.0.clone()),
        None if SyscallValue::from_value(item).is_some() => {
            let name = SyscallValue::from_value(item).map_or("deny", |fault| fault.0.name);
            let message = format!("{name}() is a syscall fault, not a rule of an interface");
            Err(call.problem("rules", message).hint(format!("write it as `write = {name}(...)`")))
        }
        None => Err(call.problem("rules", format!("`rules` holds rules, not {}", described(item)))),
    });
    rules.collect()
}

fn parts(call: &Call<'_, '_, '_, '_>) -> Result<Vec<usize>, Problem> {
    let parts = call.list("faults")?.into_iter().map(|item| match AssumptionValue::from_value(item) {
        Some(part) => Ok(part.index),
        None => {
            Err(call.problem("faults", format!("`faults` holds fault assumptions, not {}", described(item))))
        }
    });
    parts.collect()
}

impl RuleSpec {
    /// The rule on an interface of this protocol.
    ///
    /// # Errors
    /// What the protocol cannot carry out, with its place.
    pub fn build(&self, protocol: &dyn Protocol) -> Result<Rule, Problem> {
        let here = |problem: Problem| problem.in_call(&self.span);
        if let Some(home) = self.home.filter(|home| *home != protocol.name()) {
            let message =
                format!("{} is a rule for {home}, and this interface speaks {}", self.words, protocol.name());
            return Err(here(Problem::new(message).hint("error(...) takes the protocol's own codes")));
        }
        let mut matchers = Vec::new();
        let mut fields = self.fields.clone();
        for (name, value) in &self.given {
            let answers = matches!(self.verb, Verb::Error | Verb::Response);
            let parameter = answers && !self.fields.iter().any(|(own, _)| own == name);
            match parameter.then(|| field_name(protocol, name, value)).flatten() {
                Some(field) => fields.push((field.to_owned(), value.clone())),
                None if protocol.matchers().contains(&name.as_str()) => {
                    matchers.push(matcher(protocol, name, value).map_err(here)?);
                }
                None => return Err(here(foreign(protocol, self, name))),
            }
        }
        if let Some((name, _)) = &self.disturbance {
            let pattern = Pattern { glob: (*name).to_owned(), case_sensitive: true };
            matchers.push(Matcher { field: DISTURBED_BY.to_owned(), pattern });
        }
        let effect = self.effect(fields).map_err(here)?;
        let rule = Rule {
            matchers,
            source: self.source.clone(),
            share: self.disturbance.as_ref().map(|(_, share)| share.clone()),
            modifiers: self.modifiers.clone(),
            effect,
            words: self.words.clone(),
        };
        match protocol.check_rule(&rule) {
            Ok(()) => Ok(rule),
            Err(found) => {
                let mut problem =
                    here(Problem::new(found.message)).about(found.argument.map(Argument::Named));
                problem.hint = found.hint;
                Err(problem)
            }
        }
    }

    fn effect(&self, fields: Vec<(String, Plain)>) -> Result<Effect, Problem> {
        if let Verb::Ready(effect) = &self.verb {
            return Ok(effect.clone());
        }
        let truth = |value: &Plain| value.as_bool().filter(|_| matches!(value, Plain::Bool(_)));
        let (mut kept, mut dropped, mut delay) = (Vec::new(), false, None);
        let mut zero = false;
        for (name, value) in fields {
            match name.as_str() {
                "drop" => {
                    dropped =
                        truth(&value).ok_or_else(|| Problem::new("`drop` is True or False").at("drop"))?;
                }
                "delay_ms" => {
                    let ms = value.as_int().and_then(|ms| u64::try_from(ms).ok());
                    let ms =
                        ms.ok_or_else(|| Problem::new("`delay_ms` is an integer from 0").at("delay_ms"))?;
                    delay = Some(ms);
                }
                "status_code" | "status" if value.as_int() == Some(0) => zero = true,
                _ => kept.push((name, value)),
            }
        }
        if dropped {
            return match (kept.first(), delay) {
                (None, None) => Ok(Effect::Drop),
                (Some((name, _)), _) => {
                    Err(Problem::new(format!("a dropped request has no `{name}`")).at(name))
                }
                (None, Some(_)) => Err(Problem::new("a dropped request has no `delay_ms`").at("delay_ms")),
            };
        }
        if zero {
            let problem = Problem::new("status 0 is no answer").at("status_code");
            return Err(problem.hint("error(status_code = 0, drop = True) refuses or cuts the connection"));
        }
        match (kept.is_empty(), delay) {
            (true, Some(ms)) if self.verb == Verb::Response => Ok(Effect::Delay(Duration::from_millis(ms))),
            (true, None) if self.verb == Verb::Response => {
                Err(Problem::new(format!("{} does not say what is answered", self.words)))
            }
            // Whether an error may go without a code is the protocol's to say.
            (_, delay) => {
                kept.extend(
                    delay
                        .map(|ms| ("delay_ms".to_owned(), Plain::Int(i64::try_from(ms).unwrap_or(i64::MAX)))),
                );
                Ok(if self.verb == Verb::Error {
                    Effect::Error(Fields(kept))
                } else {
                    Effect::Respond(Fields(kept))
                })
            }
        }
    }
}

/// The parameter of the protocol that a keyword names; `status` and `status_code` are one.
fn field_name<'a>(protocol: &dyn Protocol, name: &'a str, value: &Plain) -> Option<&'a str> {
    let known = |name: &str| protocol.effect_parameters().contains(&name);
    match name {
        "drop" | "delay_ms" => Some(name),
        _ if known(name) => Some(name),
        "status" if known("status_code") => Some("status_code"),
        "status_code" if known("status") => Some("status"),
        // `error(status_code = 0, drop = True)` means no answer whatever the protocol.
        "status" | "status_code" if value.as_int() == Some(0) => Some(name),
        _ => None,
    }
}

fn foreign(protocol: &dyn Protocol, rule: &RuleSpec, name: &str) -> Problem {
    let answers = matches!(rule.verb, Verb::Error | Verb::Response);
    let mut right: Vec<&str> = protocol.matchers().to_vec();
    if answers {
        right.extend(protocol.effect_parameters());
    }
    let problem = Problem::new(format!("rules on {} have no `{name}`", protocol.name())).at(name);
    problem.nearest(name, right)
}

fn matcher(protocol: &dyn Protocol, field: &str, value: &Plain) -> Result<Matcher, Problem> {
    let Some(text) = value.as_text() else {
        return Err(Problem::new(format!("`{field}` is a string, `*` standing for anything")).at(field));
    };
    let case_sensitive =
        !matches!(field, "method" | "host" | "header" | "query" | "table" | "command" | "api" | "metadata");
    let glob = protocol.normalised(field, text);
    Ok(Matcher { field: field.to_owned(), pattern: Pattern { glob, case_sensitive } })
}

impl AssumptionDraft {
    /// The assumption, once all services are known.
    ///
    /// # Errors
    /// Everything in it that cannot be carried out.
    pub fn build(&self, draft: &Draft) -> Result<Assumption, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut rules = Vec::new();
        let mut syscalls = Vec::new();
        if let Some(target) = &self.target {
            for rule in &self.rules {
                match self.rule(draft, target, rule) {
                    Ok(rule) => rules.push(rule),
                    Err(problem) => problems.push(problem),
                }
            }
            for fault in &self.syscalls {
                match fault.build(draft, target) {
                    Ok(rule) => syscalls.push(rule),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        let mut parts = Vec::new();
        for part in self.parts.iter().filter_map(|index| draft.assumptions.get(*index)) {
            // A part's own problems are reported where it is built itself.
            if let Ok(part) = part.build(draft) {
                parts.push(part);
            }
        }
        match problems.is_empty() {
            true => Ok(Assumption {
                name: self.name.clone(),
                description: self.description.clone(),
                target: self.target.clone(),
                rules,
                syscalls,
                parts,
            }),
            false => Err(problems),
        }
    }

    fn rule(&self, draft: &Draft, target: &Target, rule: &RuleSpec) -> Result<Rule, Problem> {
        if let Some(source) = &rule.source
            && draft.service(source).is_none()
            && source != "test"
        {
            let names = draft.services.iter().map(|draft| draft.service.name.as_str());
            let problem = Problem::new(format!("no service is called `{source}`")).at("source");
            return Err(problem.in_call(&rule.span).nearest(source, names));
        }
        let service = draft.service(&target.service).map(|draft| &draft.service);
        let interfaces = service.map(|service| service.interfaces.as_slice()).unwrap_or_default();
        let aimed =
            interfaces.iter().filter(|i| target.interface.as_ref().is_none_or(|name| *name == i.name));
        let mut built = None;
        for interface in aimed {
            built = Some(rule.build(interface.protocol)?);
        }
        if let Some(share) = built.as_mut().and_then(|rule| rule.share.as_mut()).filter(|s| s.of.is_empty()) {
            share.of = draft.fleet(&target.service);
        }
        built.ok_or_else(|| {
            Problem::new(format!("{} has no interface for {}", target.service, rule.words))
                .in_call(&rule.span)
        })
    }
}
