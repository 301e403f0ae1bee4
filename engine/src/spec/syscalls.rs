//! Syscall faults: `deny`, `partial`, `enospc_after`, `kill`, and `delay` where it is a syscall's.
//!
//! Contract: what a fault is aimed at is known when all services are; what cannot be carried out
//! (an action that its family has no bytes for, a peer of a call that has none, syscalls of a
//! mock) is refused with its place.

use super::builtins;
use super::call::{Call, described};
use super::convert;
use super::diagnostics::Problem;
use super::dialect::{FileSpan, Result, Value};
use super::faults::{self, MODIFIERS, Verb};
use super::state::Draft;
use super::values::{InterfaceValue, MockValue, RuleValue, ServiceValue, SyscallValue};
use crate::fault::{Effect, FdScope, Modifiers, Pattern, SyscallAction, SyscallRule, Target};
use crate::supervisor::{self, Kind};
use crate::topology::ServiceKind;
use faultbox_bundle_format::Value as Plain;
use std::sync::Arc;

/// Keywords that say where a syscall fault acts.
pub const SCOPE: &[&str] = &["path", "to", "fd", "process", "side"];

/// `deny(...)` and its like.
#[derive(Debug)]
pub struct SyscallSpec {
    /// The builtin.
    pub name: &'static str,
    /// What is done.
    pub action: SyscallAction,
    /// In the language's words.
    pub words: String,
    /// Where and when.
    pub scope: SyscallScope,
}

/// Where and when a syscall fault acts.
#[derive(Debug, Clone, Default)]
pub struct SyscallScope {
    modifiers: Modifiers,
    path: Option<String>,
    to: Option<String>,
    fd: Option<FdScope>,
    process: Option<String>,
    side: Option<Side>,
    span: Option<FileSpan>,
}

/// Which end of a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Connects to the target.
    In,
    /// Connects of the target.
    Out,
}

/// A fault of a family's calls.
#[derive(Debug)]
pub struct SyscallFault {
    family: String,
    action: SyscallAction,
    words: String,
    scope: SyscallScope,
}

/// `deny("EIO")`.
pub fn deny<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let name = call.needed_text("errno")?;
    let Some(errno) = supervisor::errno_by_name(&name) else {
        let right = (1..=133).map(supervisor::errno_name).filter(|name| name.starts_with('E'));
        return Err(call.problem("errno", format!("unknown errno \"{name}\"")).nearest(&name, right).into());
    };
    fault(call, SyscallAction::Deny(errno))
}

/// `partial(10)`.
pub fn partial<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    match call.blame("bytes", convert::size(call.needed("bytes")?))? {
        0 => Err(call
            .problem("bytes", "a read of nothing is the end of its file")
            .hint("partial(1) moves one byte, deny(...) none")
            .into()),
        bytes => fault(call, SyscallAction::Partial(bytes)),
    }
}

/// `enospc_after("1MiB")`.
pub fn enospc_after<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let bytes = call.blame("bytes", convert::size(call.needed("bytes")?))?;
    fault(call, SyscallAction::EnospcAfter(bytes))
}

/// `kill("SIGTERM")`, `kill()`.
pub fn kill<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let name = call.text("signal")?.unwrap_or_else(|| "SIGKILL".to_owned());
    let Some(signal) = supervisor::signal_by_name(&name) else {
        let right = supervisor::signal_names();
        let problem = call.problem("signal", format!("unknown signal \"{name}\""));
        return Err(problem.nearest(&name, right).into());
    };
    fault(call, SyscallAction::Kill(signal))
}

fn fault<'v>(call: &mut Call<'_, 'v, '_, '_>, action: SyscallAction) -> Result<Value<'v>> {
    let name = call.def.name;
    let words = faults::words_of(call, name);
    let mut scope = SyscallScope { span: call.span(), ..SyscallScope::default() };
    for name in MODIFIERS {
        if let Some(value) = call.value(name) {
            call.blame(name, faults::modifier(&mut scope.modifiers, name, value))?;
        }
    }
    for name in SCOPE {
        let Some(value) = call.value(name) else { continue };
        let plain = match *name {
            "to" => call.blame(name, peer(value))?,
            _ => call.text(name)?.unwrap_or_default(),
        };
        call.blame(name, scope.take(name, plain))?;
    }
    Ok(call.eval.heap().alloc(SyscallValue(Arc::new(SyscallSpec { name, action, words, scope }))))
}

/// A service, an interface or a pattern of addresses, as a pattern.
pub fn peer(value: Value<'_>) -> Result<String, Problem> {
    if let Some(interface) = InterfaceValue::from_value(value) {
        return Ok(format!("{}.{}", interface.service.name, interface.info().name));
    }
    let service = ServiceValue::from_value(value).map(|service| &service.0);
    match service.or(MockValue::from_value(value).map(|mock| &mock.service)) {
        Some(service) => Ok(service.name.clone()),
        None => value.unpack_str().map(str::to_owned).ok_or_else(|| {
            let message = format!("`to` is a service, an interface or an address, not {}", described(value));
            Problem::new(message)
        }),
    }
}

impl SyscallScope {
    fn take(&mut self, name: &str, value: String) -> Result<(), Problem> {
        match name {
            "path" => self.path = Some(value),
            "to" => self.to = Some(value),
            "process" => self.process = Some(value),
            "fd" if value == "any" => self.fd = Some(FdScope::Any),
            "fd" => {
                let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == value) else {
                    let right: Vec<&str> = Kind::ALL.map(Kind::name).into_iter().chain(["any"]).collect();
                    let problem = Problem::new(format!("no descriptor is a \"{value}\"")).at("fd");
                    let kinds = format!("kinds: {}", right.join(", "));
                    return Err(problem.hint(kinds).nearest(&value, right));
                };
                self.fd = Some(FdScope::Kind(kind));
            }
            "side" => {
                self.side = Some(match value.as_str() {
                    "in" => Side::In,
                    "out" => Side::Out,
                    _ => return Err(Problem::new("`side` is \"in\" or \"out\"")),
                });
            }
            _ => return Err(Problem::new(format!("a syscall has no `{name}`")).at(name)),
        }
        Ok(())
    }
}

impl SyscallFault {
    /// What `family = value` says.
    ///
    /// # Errors
    /// When there is no such family, or the value is nothing that can be done to it.
    pub fn of(family: &str, value: Value<'_>) -> Result<Self, Problem> {
        known(family)?;
        let made = |action, words: &str, scope| SyscallFault {
            family: family.to_owned(),
            action,
            words: format!("{family} = {words}"),
            scope,
        };
        if let Some(fault) = SyscallValue::from_value(value).map(|fault| &fault.0) {
            return Ok(made(fault.action, &fault.words, fault.scope.clone()));
        }
        let Some(rule) = RuleValue::from_value(value).map(|rule| &rule.0) else {
            let message = format!("`{family}` is a syscall fault, not {}", described(value));
            let hint = format!("{family} = deny(\"EIO\") or {family} = delay(\"30ms\")");
            return Err(Problem::new(message).hint(hint));
        };
        let Verb::Ready(Effect::Delay(duration)) = rule.verb else {
            let message = format!("{} cannot be done to a syscall", rule.words);
            let hint = "deny(...), delay(...), partial(...), enospc_after(...) and kill(...) can";
            return Err(Problem::new(message).hint(hint));
        };
        let here = |problem: Problem, name: &str| problem.at(name).in_call(&rule.span);
        let mut scope = SyscallScope {
            modifiers: rule.modifiers.clone(),
            span: rule.span.clone(),
            ..SyscallScope::default()
        };
        for (name, value) in &rule.given {
            match value {
                Plain::Text(text) => scope.take(name, text.clone()).map_err(|problem| here(problem, name))?,
                _ => return Err(here(Problem::new(format!("`{name}` is a string")), name)),
            }
        }
        if rule.source.is_some() {
            return Err(here(Problem::new("a syscall fault has no `source`"), "source"));
        }
        Ok(made(SyscallAction::Delay(duration), &rule.words, scope))
    }

    /// The rule, once all services are known.
    ///
    /// # Errors
    /// What cannot be carried out.
    pub fn build(&self, draft: &Draft, target: &Target) -> Result<SyscallRule, Problem> {
        let SyscallFault { family, action, words, scope } = self;
        let here = |problem: Problem| problem.in_call(&scope.span);
        let side = scope.side.or(scope.to.as_ref().map(|_| Side::Out));
        let inbound = family == "connect" && draft.inbound(&target.service, side);
        self.fits(inbound).map_err(here)?;
        let service = draft.service(&target.service).map(|draft| &draft.service);
        if let Some(service) = service.filter(|_| !inbound) {
            let why = match service.kind {
                ServiceKind::Mock(_) => Some("is a mock and makes no syscalls of its own"),
                ServiceKind::Remote(_) => Some("is remote: its syscalls are out of reach"),
                _ if !service.seccomp => Some("is declared with seccomp = False"),
                _ => None,
            };
            if let Some(why) = why {
                return Err(here(Problem::new(format!("{words}: {} {why}", service.name))));
            }
        }
        let pattern = |text: &Option<String>| text.clone().map(|glob| Pattern { glob, case_sensitive: true });
        Ok(SyscallRule {
            family: family.clone(),
            path: pattern(&scope.path),
            to: pattern(&scope.to),
            fd: scope.fd,
            process: pattern(&scope.process),
            action: *action,
            inbound,
            modifiers: scope.modifiers.clone(),
            words: words.clone(),
        })
    }

    /// Whether the family's calls have what the fault is about.
    fn fits(&self, inbound: bool) -> Result<(), Problem> {
        let SyscallFault { family, action, scope, .. } = self;
        let refuse = |message: String, name: &str| Err(Problem::new(message).at(name));
        match action {
            SyscallAction::Partial(_) if !supervisor::moves_bytes(family) => {
                let problem = Problem::new(format!("`{family}` moves no bytes"));
                return Err(problem.hint("partial(...) is for read, write, recv and send"));
            }
            SyscallAction::EnospcAfter(_) if !supervisor::takes_space(family) => {
                let problem = Problem::new(format!("`{family}` takes no space on a disk"));
                return Err(problem.hint("enospc_after(...) is for write and fallocate"));
            }
            _ => {}
        }
        if scope.side.is_some() && family != "connect" {
            return refuse(format!("only `connect` has two sides, not `{family}`"), "side");
        }
        if scope.path.is_some() && !supervisor::has_path(family) {
            return refuse(format!("`{family}` has no path"), "path");
        }
        if scope.to.is_some() && inbound {
            return refuse("connects to the target go to the target".to_owned(), "to");
        }
        if scope.to.is_some() && !supervisor::has_peer(family) {
            return refuse(format!("`{family}` has no peer"), "to");
        }
        if scope.fd.is_some() && !supervisor::has_descriptor(family) {
            return refuse(format!("`{family}` has no descriptor"), "fd");
        }
        Ok(())
    }
}

fn known(family: &str) -> Result<(), Problem> {
    if supervisor::family_calls(family).is_some() {
        return Ok(());
    }
    let own = builtins::FAULT_ASSUMPTION.params.iter().map(|param| param.name);
    let right: Vec<&str> = own.chain(supervisor::family_names()).collect();
    let problem = Problem::new(format!("unknown parameter or syscall family `{family}`"));
    let families = supervisor::families().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    Err(problem.hint(format!("families: {families}")).nearest(family, right))
}
