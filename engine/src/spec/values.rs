//! The objects of the spec language.
//!
//! Contract: objects are immutable and hold no Starlark values, so they survive freezing and
//! can be used from any thread; what they can do is asked by name ([`Thing`]).

use super::builtins;
use super::call::{Call, Def, Given};
use super::convert;
use super::diagnostics::Problem;
use super::dialect::*;
use super::expect::Expectation;
use super::faults::RuleSpec;
use super::steps;
use super::syscalls::SyscallSpec;
use crate::mock::Mock;
use crate::prng::Key;
use crate::protocol::{Protocol, Verb};
use crate::step::StepResponse;
use crate::topology::Probe;
use allocative::Allocative;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

/// What an object can do.
trait Thing {
    /// An attribute.
    fn attribute<'v>(&self, _name: &str, _heap: Heap<'v>) -> Option<Value<'v>> {
        None
    }
    /// The names of its attributes.
    fn attributes(&self) -> Vec<String> {
        Vec::new()
    }
    /// Called like a function.
    fn call<'v>(&self, _given: Given<'v>, _eval: &mut Evaluator<'v, '_, '_>) -> Result<Value<'v>> {
        Err(Problem::new(format!("{} cannot be called", self.words())).into())
    }
    /// `thing[index]`.
    fn item<'v>(&self, index: Value<'v>, _heap: Heap<'v>) -> Result<Value<'v>> {
        Err(Problem::new(format!("{} has no items (asked for {})", self.words(), index.to_repr())).into())
    }
    /// `x in thing`.
    fn contains(&self, _item: Value<'_>) -> Result<bool> {
        Err(Problem::new(format!("{} holds nothing", self.words())).into())
    }
    /// Two things are equal when this is.
    fn identity(&self) -> String {
        self.words()
    }
    /// How it is printed.
    fn words(&self) -> String;
}

macro_rules! things {
    ($($name:ident = $type:literal;)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.words())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.words())
            }
        }
        starlark_simple_value!($name);
        #[starlark_value(type = $type)]
        impl<'v> StarlarkValue<'v> for $name {
            fn get_attr(&self, name: &str, heap: Heap<'v>) -> Option<Value<'v>> {
                self.attribute(name, heap)
            }
            fn dir_attr(&self) -> Vec<String> {
                self.attributes()
            }
            fn invoke(
                &self,
                _me: Value<'v>,
                args: &Arguments<'v, '_>,
                eval: &mut Evaluator<'v, '_, '_>,
            ) -> Result<Value<'v>> {
                self.call(Given::of(args, eval)?, eval)
            }
            fn at(&self, index: Value<'v>, heap: Heap<'v>) -> Result<Value<'v>> {
                self.item(index, heap)
            }
            fn is_in(&self, other: Value<'v>) -> Result<bool> {
                self.contains(other)
            }
            fn write_hash(&self, hasher: &mut starlark::collections::StarlarkHasher) -> Result<()> {
                self.identity().hash(hasher);
                Ok(())
            }
            fn equals(&self, other: Value<'v>) -> Result<bool> {
                Ok($name::from_value(other).is_some_and(|other| other.identity() == self.identity()))
            }
        }
    )*};
}

things! {
    BuiltinValue = "function";
    MethodValue = "method";
    ModuleValue = "module";
    DeclaredInterface = "interface declaration";
    ServiceValue = "service";
    InterfaceValue = "interface";
    VerbValue = "step";
    MockValue = "mock";
    RuleValue = "rule";
    SyscallValue = "syscall fault";
    AssumptionValue = "fault assumption";
    HealthcheckValue = "healthcheck";
    ExpectationValue = "expectation";
    ResponseValue = "response";
    HeadersValue = "headers";
}

/// A builtin function.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct BuiltinValue(#[allocative(skip)] pub &'static Def);

impl Thing for BuiltinValue {
    fn call<'v>(&self, given: Given<'v>, eval: &mut Evaluator<'v, '_, '_>) -> Result<Value<'v>> {
        Call::run(self.0, None, given, eval)
    }
    fn words(&self) -> String {
        self.0.name.to_owned()
    }
}

/// Whose method a bound method is.
#[derive(Debug, Clone)]
pub enum Receiver {
    /// A mock's service.
    Mock(Arc<ServiceInfo>),
    /// A response's headers.
    Headers(Arc<StepResponse>),
}

/// A method of an object.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct MethodValue {
    #[allocative(skip)]
    receiver: Receiver,
    /// The method.
    #[allocative(skip)]
    pub def: &'static Def,
}

impl Thing for MethodValue {
    fn call<'v>(&self, given: Given<'v>, eval: &mut Evaluator<'v, '_, '_>) -> Result<Value<'v>> {
        Call::run(self.def, Some(&self.receiver), given, eval)
    }
    fn words(&self) -> String {
        self.def.name.to_owned()
    }
}

/// A protocol's module: step verbs as functions, and what else its name stands for.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct ModuleValue {
    /// Its name.
    pub name: &'static str,
    /// The protocol whose verbs it offers.
    #[allocative(skip)]
    pub protocol: Option<&'static dyn Protocol>,
    /// What it does when it is called itself.
    #[allocative(skip)]
    pub function: Option<&'static Def>,
    /// Further functions.
    #[allocative(skip)]
    pub members: &'static [Def],
    /// A builtin that only the standard library may hand out.
    #[allocative(skip)]
    pub server: Option<&'static Def>,
}

impl Thing for ModuleValue {
    fn attribute<'v>(&self, name: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        if let Some(member) = self.members.iter().chain(self.server).find(|member| member.name == name) {
            return Some(heap.alloc(BuiltinValue(member)));
        }
        let protocol = self.protocol?;
        let verb = protocol.verbs().iter().find(|verb| verb.name == name)?;
        Some(heap.alloc(VerbValue { target: None, protocol, verb }))
    }
    fn attributes(&self) -> Vec<String> {
        let verbs = self.protocol.map_or(&[][..], |protocol| protocol.verbs()).iter().map(|verb| verb.name);
        let members = self.members.iter().chain(self.server).map(|member| member.name);
        members.chain(verbs).map(str::to_owned).collect()
    }
    fn call<'v>(&self, given: Given<'v>, eval: &mut Evaluator<'v, '_, '_>) -> Result<Value<'v>> {
        match self.function {
            Some(function) => Call::run(function, None, given, eval),
            None => Err(Problem::new(format!("{} is a module and cannot be called", self.name)).into()),
        }
    }
    fn words(&self) -> String {
        self.name.to_owned()
    }
}

/// An interface before it belongs to a service.
#[derive(Clone, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct DeclaredInterface {
    /// Its name.
    pub name: String,
    /// Its protocol.
    #[allocative(skip)]
    pub protocol: &'static dyn Protocol,
    /// The declared port.
    pub port: u16,
}

impl Thing for DeclaredInterface {
    fn words(&self) -> String {
        format!("interface(\"{}\", \"{}\", {})", self.name, self.protocol.name(), self.port)
    }
}

/// What the language knows about a service.
#[derive(Debug)]
pub struct ServiceInfo {
    /// Its name.
    pub name: String,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceInfo>,
}

/// What the language knows about an interface of a service.
pub struct InterfaceInfo {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: &'static dyn Protocol,
    /// The declared port.
    pub port: u16,
    /// Where the service itself listens: in a network of its own, or elsewhere.
    pub internal: String,
    /// Where the proxy in front of it listens.
    pub addr: std::net::SocketAddr,
}

impl fmt::Debug for InterfaceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.addr)
    }
}

/// A service.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct ServiceValue(#[allocative(skip)] pub Arc<ServiceInfo>);

impl Thing for ServiceValue {
    fn attribute<'v>(&self, name: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        match name {
            "name" => Some(heap.alloc(self.0.name.as_str())),
            "service" => Some(heap.alloc(ServiceValue(self.0.clone()))),
            _ => {
                let index = self.0.interfaces.iter().position(|interface| interface.name == name)?;
                Some(heap.alloc(InterfaceValue { service: self.0.clone(), index }))
            }
        }
    }
    fn attributes(&self) -> Vec<String> {
        let own = ["name", "service"].into_iter();
        own.chain(self.0.interfaces.iter().map(|i| i.name.as_str())).map(str::to_owned).collect()
    }
    fn words(&self) -> String {
        format!("service(\"{}\")", self.0.name)
    }
}

/// An interface of a service.
#[derive(Clone, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct InterfaceValue {
    /// The service.
    #[allocative(skip)]
    pub service: Arc<ServiceInfo>,
    /// Which of its interfaces.
    pub index: usize,
}

impl InterfaceValue {
    /// What is known about it.
    pub fn info(&self) -> &InterfaceInfo {
        // The index was found in this list and the list never changes.
        &self.service.interfaces[self.index]
    }
}

impl Thing for InterfaceValue {
    fn attribute<'v>(&self, name: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        let info = self.info();
        match (name, info.protocol.url_scheme()) {
            ("addr", _) => Some(heap.alloc(info.addr.to_string())),
            ("host", _) => Some(heap.alloc(info.addr.ip().to_string())),
            ("port", _) => Some(heap.alloc(i32::from(info.addr.port()))),
            ("internal_addr", _) => Some(heap.alloc(info.internal.as_str())),
            ("name", _) => Some(heap.alloc(info.name.as_str())),
            ("url", Some(scheme)) => Some(heap.alloc(format!("{scheme}://{}", info.addr))),
            _ => {
                let verb = info.protocol.verbs().iter().find(|verb| verb.name == name)?;
                Some(heap.alloc(VerbValue { target: Some(self.clone()), protocol: info.protocol, verb }))
            }
        }
    }
    fn attributes(&self) -> Vec<String> {
        let url = self.info().protocol.url_scheme().map(|_| "url");
        let own = ["addr", "host", "port", "internal_addr", "name"].into_iter().chain(url);
        own.chain(self.info().protocol.verbs().iter().map(|verb| verb.name)).map(str::to_owned).collect()
    }
    fn words(&self) -> String {
        format!("{}.{}", self.service.name, self.info().name)
    }
}

/// A step verb of an interface, or of a protocol's module.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct VerbValue {
    /// The interface; the first argument where there is none.
    #[allocative(skip)]
    pub target: Option<InterfaceValue>,
    /// The protocol whose verb it is.
    #[allocative(skip)]
    pub protocol: &'static dyn Protocol,
    /// The verb.
    #[allocative(skip)]
    pub verb: &'static Verb,
}

impl Thing for VerbValue {
    fn call<'v>(&self, given: Given<'v>, eval: &mut Evaluator<'v, '_, '_>) -> Result<Value<'v>> {
        steps::verb(self.target.as_ref(), self.protocol, self.verb, given, eval)
    }
    fn words(&self) -> String {
        match &self.target {
            Some(target) => format!("{}.{}", target.words(), self.verb.name),
            None => format!("{}.{}", self.protocol.name(), self.verb.name),
        }
    }
}

/// A mock.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct MockValue {
    /// Its service.
    #[allocative(skip)]
    pub service: Arc<ServiceInfo>,
    /// The mock.
    #[allocative(skip)]
    pub mock: Arc<dyn Mock>,
    /// The run's key below its name.
    #[allocative(skip)]
    pub key: Key,
}

impl MockValue {
    fn issues(&self) -> bool {
        self.mock.kind() == "jwt"
    }
}

impl Thing for MockValue {
    fn attribute<'v>(&self, name: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        match name {
            "service" => Some(heap.alloc(ServiceValue(self.service.clone()))),
            "name" => Some(heap.alloc(self.service.name.as_str())),
            "jwks" if self.issues() => {
                let keys = serde_json::from_str(&self.mock.jwks(self.key)?).ok()?;
                Some(convert::from_plain(heap, &convert::from_json(&keys)))
            }
            _ if self.issues() => {
                let def = builtins::ISSUER_METHODS.iter().find(|def| def.name == name)?;
                Some(heap.alloc(MethodValue { receiver: Receiver::Mock(self.service.clone()), def }))
            }
            _ => None,
        }
    }
    fn attributes(&self) -> Vec<String> {
        let methods = if self.issues() { builtins::ISSUER_METHODS } else { &[] };
        let own = ["service", "name"].into_iter().chain(self.issues().then_some("jwks"));
        own.chain(methods.iter().map(|def| def.name)).map(str::to_owned).collect()
    }
    fn words(&self) -> String {
        format!("{}.server(\"{}\")", self.mock.kind(), self.service.name)
    }
}

/// A rule that is not aimed at anything yet.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct RuleValue(#[allocative(skip)] pub Arc<RuleSpec>);

impl Thing for RuleValue {
    fn words(&self) -> String {
        self.0.words.clone()
    }
}

/// `deny(...)` and its like.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct SyscallValue(#[allocative(skip)] pub Arc<SyscallSpec>);

impl Thing for SyscallValue {
    fn words(&self) -> String {
        self.0.words.clone()
    }
}

/// A fault assumption.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct AssumptionValue {
    /// Its number in the spec.
    pub index: usize,
    /// Its name.
    pub name: String,
}

impl Thing for AssumptionValue {
    fn attribute<'v>(&self, name: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        (name == "name").then(|| heap.alloc(self.name.as_str()))
    }
    fn attributes(&self) -> Vec<String> {
        vec!["name".to_owned()]
    }
    fn identity(&self) -> String {
        self.index.to_string()
    }
    fn words(&self) -> String {
        format!("fault_assumption(\"{}\")", self.name)
    }
}

/// A health check whose address is not yet that of a service.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct HealthcheckValue {
    /// Which builtin made it.
    pub name: &'static str,
    /// What is asked.
    #[allocative(skip)]
    pub probe: Probe,
    /// How long it may take in all.
    pub timeout: Duration,
    /// Pause between attempts; `None` lets them grow from short ones.
    pub interval: Option<Duration>,
}

impl Thing for HealthcheckValue {
    fn words(&self) -> String {
        format!("{}(...)", self.name)
    }
}

/// What a cell expects.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct ExpectationValue(#[allocative(skip)] pub Arc<Expectation>);

impl Thing for ExpectationValue {
    fn words(&self) -> String {
        self.0.words()
    }
}

/// What a step got.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct ResponseValue {
    /// The response.
    #[allocative(skip)]
    pub response: Arc<StepResponse>,
    /// The protocol's name.
    pub protocol: &'static str,
}

/// Attributes of a response.
const RESPONSE: &[&str] =
    &["status", "status_code", "headers", "body", "data", "ok", "error", "duration_ms", "timed_out"];

impl Thing for ResponseValue {
    fn attribute<'v>(&self, name: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        let response = &self.response;
        Some(match name {
            "status" | "status_code" => heap.alloc(response.status),
            "headers" => heap.alloc(HeadersValue(response.clone())),
            "body" => heap.alloc(String::from_utf8_lossy(&response.body).into_owned()),
            "data" => convert::from_plain(heap, &response.data),
            "ok" => Value::new_bool(response.ok),
            "error" => response.error.as_deref().map_or_else(Value::new_none, |error| heap.alloc(error)),
            "duration_ms" => heap.alloc(i64::try_from(response.duration.as_millis()).unwrap_or(i64::MAX)),
            "timed_out" => Value::new_bool(response.timed_out),
            _ => return None,
        })
    }
    fn attributes(&self) -> Vec<String> {
        RESPONSE.iter().map(|name| (*name).to_owned()).collect()
    }
    fn identity(&self) -> String {
        format!("{:p}", Arc::as_ptr(&self.response))
    }
    fn words(&self) -> String {
        format!("response({})", steps::summary(self.protocol, &self.response))
    }
}

/// A response's headers; names without regard to case.
#[derive(ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub struct HeadersValue(#[allocative(skip)] pub Arc<StepResponse>);

impl Thing for HeadersValue {
    fn attribute<'v>(&self, name: &str, heap: Heap<'v>) -> Option<Value<'v>> {
        let def = builtins::HEADERS_METHODS.iter().find(|def| def.name == name)?;
        Some(heap.alloc(MethodValue { receiver: Receiver::Headers(self.0.clone()), def }))
    }
    fn attributes(&self) -> Vec<String> {
        builtins::HEADERS_METHODS.iter().map(|def| def.name.to_owned()).collect()
    }
    fn item<'v>(&self, index: Value<'v>, heap: Heap<'v>) -> Result<Value<'v>> {
        let name = index.unpack_str().unwrap_or_default();
        match header(&self.0, name) {
            Some(text) => Ok(heap.alloc(text)),
            None => Err(Problem::new(format!("the response has no header `{name}`"))
                .nearest(name, self.0.headers.iter().map(|(name, _)| name.as_str()))
                .into()),
        }
    }
    fn contains(&self, item: Value<'_>) -> Result<bool> {
        Ok(item.unpack_str().is_some_and(|name| header(&self.0, name).is_some()))
    }
    fn identity(&self) -> String {
        format!("{:p}", Arc::as_ptr(&self.0))
    }
    fn words(&self) -> String {
        let headers = self.0.headers.iter().map(|(name, text)| format!("{name}: {text}"));
        format!("{{{}}}", headers.collect::<Vec<_>>().join(", "))
    }
}

/// A header of a response, repeated ones joined by commas.
pub fn header(response: &StepResponse, name: &str) -> Option<String> {
    let values = response.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    let values: Vec<&str> = values.map(|(_, text)| text.as_str()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// A callee whose late positional arguments have keywords ([`super::late`]).
#[derive(Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative, Trace)]
pub struct LateCall<'v>(pub Value<'v>);

impl fmt::Display for LateCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_repr())
    }
}

impl<'v> AllocValue<'v> for LateCall<'v> {
    fn alloc_value(self, heap: Heap<'v>) -> Value<'v> {
        heap.alloc_complex_no_freeze(self)
    }
}

#[starlark_value(type = "call")]
impl<'v> StarlarkValue<'v> for LateCall<'v> {
    fn invoke(
        &self,
        _me: Value<'v>,
        args: &Arguments<'v, '_>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> Result<Value<'v>> {
        let given = Given::of(args, eval)?;
        if let Some(builtin) = BuiltinValue::from_value(self.0) {
            return builtin.call(given, eval);
        }
        let named: Vec<(&str, Value<'v>)> =
            given.named.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        eval.eval_function(self.0, &given.positional, &named)
    }
}
