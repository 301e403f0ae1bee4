//! The names that every spec has: one table of builtins, and the protocols' modules.

use super::call::{Def, Param, keyword, optional, required};
use super::diagnostics::{Problem, nearest};
use super::dialect::{FrozenModule, Globals, Heap, Value};
use super::values::{BuiltinValue, LateCall, ModuleValue};
use super::{expect, faults, late, loads, matrix, services, steps, syscalls};
use crate::protocol;

/// A builtin that takes nothing but the parameters listed.
const fn def(name: &'static str, params: &'static [Param], run: super::call::Run) -> Def {
    Def { name, params, rest: false, extra: false, run }
}

/// What a syscall fault takes: its own parameter, where it acts and when.
const fn scoped(own: Param) -> [Param; 12] {
    [
        own,
        keyword("path"),
        keyword("to"),
        keyword("fd"),
        keyword("process"),
        keyword("side"),
        keyword("nth"),
        keyword("after"),
        keyword("every"),
        keyword("times"),
        keyword("probability"),
        keyword("for_ms"),
    ]
}

const DENY: [Param; 12] = scoped(required("errno"));
const BYTES: [Param; 12] = scoped(required("bytes"));
const KILL: [Param; 12] = scoped(optional("signal"));

/// A builtin that checks further keywords itself.
const fn open(name: &'static str, params: &'static [Param], run: super::call::Run) -> Def {
    Def { name, params, rest: false, extra: true, run }
}

/// A builtin that takes further positional arguments.
const fn many(name: &'static str, params: &'static [Param], run: super::call::Run) -> Def {
    Def { name, params, rest: true, extra: false, run }
}

/// `fault_assumption`, which names syscall families by keyword.
pub static FAULT_ASSUMPTION: Def = open(
    "fault_assumption",
    &[
        required("name"),
        keyword("target"),
        keyword("rules"),
        keyword("monitors"),
        keyword("faults"),
        keyword("description"),
    ],
    faults::fault_assumption,
);

/// `step`.
static STEP: Def = Def {
    name: "step",
    params: &[required("interface"), required("verb")],
    rest: true,
    extra: true,
    run: steps::step,
};

static BUILTINS: &[Def] = &[
    Def {
        name: "service",
        params: &[
            required("name"),
            keyword("binary"),
            keyword("image"),
            keyword("build"),
            keyword("remote"),
            keyword("env"),
            keyword("args"),
            keyword("depends_on"),
            keyword("healthcheck"),
            keyword("seed"),
            keyword("reset"),
            keyword("reuse"),
            keyword("volumes"),
            keyword("ports"),
            keyword("cwd"),
            keyword("seccomp"),
            keyword("clock"),
            keyword("entropy"),
            keyword("pids"),
        ],
        rest: true,
        extra: false,
        run: services::service,
    },
    def(
        "interface",
        &[required("name"), required("protocol"), required("port"), keyword("tls")],
        services::interface,
    ),
    def("kafka_ready", &[required("addr"), keyword("timeout"), keyword("interval")], services::kafka_ready),
    def("ready", &[keyword("timeout"), keyword("interval")], services::ready),
    def("exec", &[required("command"), keyword("timeout"), keyword("interval")], services::exec),
    def("log", &[required("pattern"), keyword("timeout"), keyword("interval")], services::log),
    open("error", &[], faults::error),
    open("response", &[], faults::response),
    open("delay", &[optional("duration"), keyword("delay_ms"), keyword("ms")], faults::delay),
    open("drop", &[], faults::drop),
    open("duplicate", &[], faults::duplicate),
    open("allow", &[], faults::allow),
    open("corrupt", &[], faults::corrupt),
    open("slow", &[optional("bytes_per_second")], faults::slow),
    open("reset_after", &[optional("bytes")], faults::reset_after),
    def("deny", &DENY, syscalls::deny),
    def("partial", &BYTES, syscalls::partial),
    def("enospc_after", &BYTES, syscalls::enospc_after),
    def("kill", &KILL, syscalls::kill),
    def(
        "fault_matrix",
        &[
            keyword("scenarios"),
            keyword("faults"),
            keyword("default_expect"),
            keyword("overrides"),
            keyword("exclude"),
            keyword("monitors"),
            keyword("require_faults_fire"),
            keyword("timeout"),
        ],
        matrix::fault_matrix,
    ),
    def("expect_success", &[], expect::expect_success),
    def("expect_error_within", &[optional("ms")], expect::expect_error_within),
    def("expect_hang", &[], expect::expect_hang),
    many("expect_status", &[], expect::expect_status),
    many("expect_all", &[], expect::expect_all),
    many("expect_any", &[], expect::expect_any),
    def("expect_retries", &[optional("max")], expect::expect_retries),
    def("expect_recovery", &[optional("within")], expect::expect_recovery),
    def("known_failure", &[required("expectation"), required("reason")], expect::known_failure),
    def("assert_true", &[required("cond"), optional("msg")], steps::assert_true),
    def("assert_eq", &[required("a"), required("b"), optional("msg")], steps::assert_eq),
    def("determinism", &[required("level")], services::determinism),
    def("secret", &[required("value"), keyword("name")], loads::secret),
    def("load_file", &[required("path")], loads::load_file),
    def("load_json", &[required("path")], loads::load_json),
    def("load_yaml", &[required("path")], loads::load_yaml),
    Def { name: late::WRAPPER, params: &[required("callee")], rest: false, extra: false, run: wrap },
];

/// Methods of a token issuer.
pub static ISSUER_METHODS: &[Def] = &[
    def("sign", &[keyword("claims"), keyword("headers"), keyword("expires_in")], steps::sign),
    def("rotate", &[keyword("keep")], steps::rotate),
];

/// Methods of a response's headers.
pub static HEADERS_METHODS: &[Def] = &[
    def("get", &[required("name"), optional("default")], steps::headers_get),
    def("items", &[], steps::headers_items),
];

static TCP_CHECK: Def =
    def("tcp", &[required("addr"), keyword("timeout"), keyword("interval")], services::tcp_check);
static HTTP_CHECK: Def = def(
    "http",
    &[
        required("url"),
        keyword("expect_status"),
        keyword("expect_body"),
        keyword("timeout"),
        keyword("interval"),
    ],
    services::http_check,
);
static JWT_SERVER: Def = def(
    "server",
    &[
        keyword("name"),
        keyword("interface"),
        keyword("issuer"),
        keyword("key_id"),
        keyword("algorithm"),
        keyword("depends_on"),
    ],
    services::jwt_server,
);
static GRPC_SERVER: Def = def(
    "server",
    &[
        keyword("name"),
        keyword("interface"),
        keyword("descriptors"),
        keyword("services"),
        keyword("depends_on"),
    ],
    services::grpc_server,
);

const STATUS: &[Param] = &[optional("message")];

/// gRPC's status codes as rules and answers.
static GRPC_STATUS: &[Def] = &[
    open("cancelled", STATUS, faults::status),
    open("unknown", STATUS, faults::status),
    open("invalid_argument", STATUS, faults::status),
    open("deadline_exceeded", STATUS, faults::status),
    open("not_found", STATUS, faults::status),
    open("already_exists", STATUS, faults::status),
    open("permission_denied", STATUS, faults::status),
    open("resource_exhausted", STATUS, faults::status),
    open("failed_precondition", STATUS, faults::status),
    open("aborted", STATUS, faults::status),
    open("out_of_range", STATUS, faults::status),
    open("unimplemented", STATUS, faults::status),
    open("internal", STATUS, faults::status),
    open("unavailable", STATUS, faults::status),
    open("data_loss", STATUS, faults::status),
    open("unauthenticated", STATUS, faults::status),
];

const MEMBERS: &[Param] = &[keyword("share"), keyword("members")];

/// What a coordinator does to the members of a group, as rules
/// ([`crate::protocol::kafka::rules::DISTURBANCES`]).
static KAFKA_RULES: &[Def] = &[
    open("rebalance", MEMBERS, faults::disturb),
    open("not_coordinator", MEMBERS, faults::disturb),
    open("coordinator_not_available", MEMBERS, faults::disturb),
    open("coordinator_load_in_progress", MEMBERS, faults::disturb),
    open("heartbeat_loss", MEMBERS, faults::disturb),
];

/// Wraps a callee whose late positional arguments have keywords.
fn wrap<'v>(call: &mut super::call::Call<'_, 'v, '_, '_>) -> super::dialect::Result<Value<'v>> {
    let callee = call.slot_value("callee")?;
    let heap: Heap<'v> = call.eval.heap();
    Ok(heap.alloc(LateCall(callee)))
}

fn module(name: &'static str, server: Option<&'static Def>) -> ModuleValue {
    ModuleValue {
        name,
        protocol: protocol::by_name(name),
        function: match name {
            "http" => Some(&HTTP_CHECK),
            "tcp" => Some(&TCP_CHECK),
            _ => None,
        },
        members: match name {
            "grpc" => GRPC_STATUS,
            "kafka" => KAFKA_RULES,
            _ => &[],
        },
        server,
    }
}

/// How a word of the language is called: `expect_retries(max)`; none where there is no such word.
pub fn signature(name: &str) -> Option<String> {
    let def = globally().find(|def| def.name == name).or_else(|| {
        let (module, member) = name.split_once('.')?;
        let members = match module {
            "grpc" => GRPC_STATUS,
            "kafka" => KAFKA_RULES,
            _ => &[],
        };
        members.iter().find(|def| def.name == member)
    })?;
    let parameters = def.params.iter().map(|param| match param.required {
        true => param.name.to_owned(),
        false => format!("{}=", param.name),
    });
    let mut parameters: Vec<String> = parameters.collect();
    if def.rest || def.extra {
        parameters.push("...".to_owned());
    }
    Some(format!("{name}({})", parameters.join(", ")))
}

/// Every word of the language that is called.
pub fn words() -> Vec<&'static str> {
    globally().map(|def| def.name).filter(|name| *name != late::WRAPPER).collect()
}

fn globally() -> impl Iterator<Item = &'static Def> {
    BUILTINS.iter().chain([&FAULT_ASSUMPTION, &STEP])
}

/// A global of a spec by name.
pub fn global<'v>(name: &str, heap: Heap<'v>) -> Option<Value<'v>> {
    if let Some(builtin) = globally().find(|def| def.name == name) {
        return Some(heap.alloc(BuiltinValue(builtin)));
    }
    let protocol = protocol::PROTOCOLS.iter().find(|protocol| protocol.name() == name)?;
    Some(heap.alloc(module(protocol.name(), None)))
}

/// The globals of a spec.
pub fn globals() -> Globals {
    let mut globals = super::dialect::standard_globals();
    for builtin in globally() {
        globals.set(builtin.name, BuiltinValue(builtin));
    }
    for protocol in protocol::PROTOCOLS {
        globals.set(protocol.name(), module(protocol.name(), None));
    }
    globals.build()
}

/// The globals of the standard library: faults, and what the library hands out.
pub fn library_globals() -> Globals {
    let mut globals = super::dialect::standard_globals();
    for builtin in BUILTINS
        .iter()
        .filter(|def| ["error", "deny", "enospc_after"].contains(&def.name))
        .chain([&FAULT_ASSUMPTION])
    {
        globals.set(builtin.name, BuiltinValue(builtin));
    }
    globals.set("native_grpc", module("grpc", Some(&GRPC_SERVER)));
    let jwt =
        ModuleValue { name: "jwt", protocol: None, function: None, members: &[], server: Some(&JWT_SERVER) };
    globals.set("native_jwt", jwt);
    globals.build()
}

/// The standard library, embedded.
const LIBRARY: &[(&str, &str)] = &[
    ("@faultbox/mocks/grpc.star", include_str!("../../../specs/faultbox/mocks/grpc.star")),
    ("@faultbox/mocks/jwt.star", include_str!("../../../specs/faultbox/mocks/jwt.star")),
    ("@faultbox/recipes/kafka.star", include_str!("../../../specs/faultbox/recipes/kafka.star")),
    ("@faultbox/recipes/mysql.star", include_str!("../../../specs/faultbox/recipes/mysql.star")),
    ("@faultbox/recipes/redis.star", include_str!("../../../specs/faultbox/recipes/redis.star")),
];

/// A file of the standard library.
///
/// # Errors
/// When there is none of that name, with the nearest.
pub fn library(path: &str) -> Result<&'static str, Problem> {
    let found = LIBRARY.iter().find(|(name, _)| *name == path).map(|(_, text)| *text);
    found.ok_or_else(|| {
        let names = LIBRARY.iter().map(|(name, _)| *name);
        Problem::new(format!("the standard library has no \"{path}\"")).nearest(path, names)
    })
}

/// Whether a public symbol of a module is the one asked for; the nearest if not.
pub fn check_symbol(module: &FrozenModule, path: &str, symbol: &str) -> Result<(), Problem> {
    let names: Vec<String> = module.names().map(|name| name.as_str().to_owned()).collect();
    if names.iter().any(|name| name == symbol) {
        return Ok(());
    }
    let mut problem = Problem::new(format!("\"{path}\" has no `{symbol}`"));
    if let Some(near) = nearest(symbol, names.iter().map(String::as_str)) {
        problem = problem.hint(format!("did you mean `{near}`?"));
    }
    Err(problem)
}

/// Names become parts of cell names, streams and file names: no surprises in them.
///
/// # Errors
/// When it is empty or holds something else than letters, digits, `_`, `-`.
pub fn check_name(name: &str) -> Result<(), Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !name.is_empty() && name.chars().all(plain) {
        true => Ok(()),
        false => Err(Problem::new(format!("\"{name}\" is no name: letters, digits, `_` and `-`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_in_the_language_page() {
        let page = include_str!("../../../docs/language.md");
        let names = globally().map(|def| def.name);
        let methods = ISSUER_METHODS.iter().map(|def| def.name);
        for name in names.filter(|name| *name != late::WRAPPER).chain(methods) {
            assert!(page.contains(&format!("{name}(")), "{name} is missing");
        }
        for rule in protocol::kafka::rules::DISTURBANCES {
            assert!(KAFKA_RULES.iter().any(|def| def.name == rule.name), "{} has no builtin", rule.name);
            assert!(page.contains(&format!("kafka.{}(", rule.name)), "kafka.{} is missing", rule.name);
        }
        let recipes = LIBRARY.iter().filter(|(path, _)| path.contains("/recipes/"));
        for recipe in recipes.flat_map(|(_, text)| text.lines()).filter_map(|line| line.strip_prefix("def "))
        {
            let name = recipe.split('(').next().unwrap_or_default();
            assert!(page.contains(&format!("`{name}`")), "the recipe {name} is missing");
        }
        for protocol in protocol::PROTOCOLS {
            assert!(page.contains(&format!("`{}`", protocol.name())), "{} is missing", protocol.name());
        }
    }
}
