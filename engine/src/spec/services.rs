//! Services, interfaces, mocks and health checks: from the language's words to [`crate::topology`].

use super::builtins::check_name;
use super::call::{Call, described, is_callable, scalar_text};
use super::convert;
use super::diagnostics::Problem;
use super::dialect::{DictRef, Result, Value};
use super::faults::{RuleSpec, Verb};
use super::files;
use super::state::{Context, Draft, Load, ServiceDraft};
use super::values::{
    DeclaredInterface, HealthcheckValue, InterfaceInfo, InterfaceValue, MockValue, RuleValue, ServiceInfo,
    ServiceValue,
};
use crate::mock::grpc::{GrpcAnswer, GrpcMock};
use crate::mock::jwt::JwtMock;
use crate::mock::{Mock, MockError};
use crate::protocol::{self, PROTOCOLS};
use crate::supervisor::MEDIATES;
use crate::topology::{Determinism, Healthcheck, Interface, Probe, Remote, Reset, Service, ServiceKind};
use faultbox_bundle_format::Value as Plain;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a health check may take in all, unless it says so.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(60);
/// Attributes of services, which interfaces cannot be called.
const RESERVED: &[&str] = &["name", "service"];

/// `interface(name, protocol, port)`.
pub fn interface<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let name = call.needed_text("name")?;
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !plain || name.is_empty() || RESERVED.contains(&name.as_str()) {
        let message =
            format!("an interface cannot be called \"{name}\": it becomes an attribute of its service");
        return Err(call.problem("name", message).into());
    }
    let wanted = call.needed_text("protocol")?;
    let Some(protocol) = protocol::by_name(&wanted) else {
        let problem = call.problem("protocol", format!("unknown protocol \"{wanted}\""));
        return Err(problem.nearest(&wanted, PROTOCOLS.iter().map(|protocol| protocol.name())).into());
    };
    if call.value("tls").is_some_and(|tls| tls.unpack_bool() != Some(false)) {
        return Err(call.problem("tls", "`tls` is not supported yet").into());
    }
    let port = call.integer("port")?.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let Some(port) = port else {
        let message = format!("`port` is a number from 1 to 65535, not {}", described(call.needed("port")?));
        return Err(call.problem("port", message).into());
    };
    Ok(call.eval.heap().alloc(DeclaredInterface { name, protocol, port }))
}

/// `service(name, binary, *interfaces, ...)`.
pub fn service<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let context = call.context()?;
    let load = context.load("service()")?;
    let name = call.needed_text("name")?;
    let span = call.span();
    let (written, interfaces) = positional(call)?;
    let kind = kind(call, load, &name, written, interfaces.len())?;
    let remote = match &kind {
        ServiceKind::Remote(remote) => Some(remote),
        _ => None,
    };
    let info = declare(call, context, load, (&name, remote), interfaces)?;
    let mut service = Service {
        name: name.clone(),
        kind,
        interfaces: topology_interfaces(&info),
        env: environment(call, load, &name)?,
        args: arguments(call)?,
        depends_on: depends_on(call)?,
        healthcheck: None,
        has_seed: false,
        reset: Reset::Default,
        reuse: call.truth("reuse")?.unwrap_or(false),
        volumes: volumes(call, load)?,
        ports: ports(call, &info)?,
        cwd: call.text("cwd")?.map(|cwd| absolute(load, &file_of(call), &cwd)),
        seccomp: call.truth("seccomp")?.unwrap_or(true),
        determinism: Determinism::default(),
        location: context.line(&span),
    };
    service.healthcheck = healthcheck(call, &service)?;
    let clock = choice(call, &service, "clock", ["real", "virtual"])?;
    let entropy = choice(call, &service, "entropy", ["host", "seeded"])?;
    let pids = own_pids(call, &service)?;
    only_reached(call, &service)?;
    warn_of_literals(load, &service);
    let mut draft = load.draft.borrow_mut();
    let seed = keep(call, &mut draft, "seed")?;
    let reset = keep(call, &mut draft, "reset")?;
    service.has_seed = seed.is_some();
    service.reset = match (call.given("reset"), reset) {
        (_, Some(_)) => Reset::Callable,
        (true, None) => Reset::Leave,
        (false, None) => Reset::Default,
    };
    draft.services.push(ServiceDraft { service, span, seed, reset, clock, entropy, pids });
    Ok(call.eval.heap().alloc(ServiceValue(info)))
}

/// Of a remote service nothing is started, so that nothing about its start can be said.
fn only_reached(call: &Call<'_, '_, '_, '_>, service: &Service) -> Result<(), Problem> {
    if !matches!(service.kind, ServiceKind::Remote(_)) {
        return Ok(());
    }
    let name = &service.name;
    for keyword in ["args", "volumes", "ports", "cwd", "reuse", "seccomp"] {
        if call.given(keyword) {
            let message = format!("{name} is remote, and Faultbox does not start it: it has no `{keyword}`");
            return Err(call.problem(keyword, message));
        }
    }
    match service.healthcheck.as_ref().map(|check| &check.probe) {
        Some(Probe::Log(_)) => {
            let message = format!("{name} is remote: what it prints is not seen here");
            Err(call.problem("healthcheck", message).hint("tcp(...), http(...) or ready()"))
        }
        _ => Ok(()),
    }
}

/// Positional arguments after the name: perhaps the binary, then interfaces.
fn positional(call: &mut Call<'_, '_, '_, '_>) -> Result<(Option<String>, Vec<DeclaredInterface>), Problem> {
    let mut binary = None;
    let mut interfaces = Vec::new();
    for (index, (argument, value)) in std::mem::take(&mut call.rest).into_iter().enumerate() {
        if let Some(interface) = DeclaredInterface::from_value(value) {
            interfaces.push(interface.clone());
        } else if let (0, Some(path)) = (index, value.unpack_str()) {
            binary = Some(path.to_owned());
        } else {
            let message = format!("service() takes interfaces here, not {}", described(value));
            return Err(Problem::new(message).about(Some(argument)).hint("interface(name, protocol, port)"));
        }
    }
    Ok((binary, interfaces))
}

fn kind(
    call: &Call<'_, '_, '_, '_>,
    load: &Load,
    name: &str,
    positional: Option<String>,
    interfaces: usize,
) -> Result<ServiceKind, Problem> {
    let keyword = call.text("binary")?;
    if positional.is_some() && keyword.is_some() {
        return Err(call.problem("binary", "service() got `binary` twice"));
    }
    let binary = positional.or(keyword);
    let (image, build, remote) = (call.text("image")?, call.text("build")?, call.text("remote")?);
    let over = load.binaries.iter().rev().find(|(service, _)| service == name).map(|(_, path)| path.clone());
    let file = file_of(call);
    match (binary, image, build, remote) {
        (Some(written), None, None, None) => {
            let path = over.unwrap_or_else(|| absolute(load, &file, &written));
            Ok(ServiceKind::Binary { written, path })
        }
        (None, Some(image), None, None) => Ok(ServiceKind::Image(image)),
        (None, None, Some(written), None) => {
            let folder = absolute(load, &file, &written);
            Ok(ServiceKind::Build { written, folder })
        }
        (None, None, None, Some(written)) => {
            let remote = Remote::parse(&written).ok_or_else(|| {
                let message = format!("`remote` is a host, or host:port, not \"{written}\"");
                call.problem("remote", message).hint("remote = \"db.staging:3306\"")
            })?;
            match (remote.port, interfaces) {
                (Some(_), 2..) => {
                    let message = "`remote` names one port, and there are several interfaces";
                    Err(call
                        .problem("remote", message)
                        .hint("give the host alone: each interface has its port"))
                }
                _ => Ok(ServiceKind::Remote(remote)),
            }
        }
        (None, None, None, None) => Err(Problem::new(format!("service {name} says nothing that runs"))
            .hint("give one of `binary`, `image`, `build`, `remote`")),
        _ => Err(Problem::new(format!("service {name} says more than one thing that runs"))
            .hint("give one of `binary`, `image`, `build`, `remote`")),
    }
}

/// The file of the spec that a call stands in.
pub fn file_of(call: &Call<'_, '_, '_, '_>) -> String {
    call.span().map(|span| span.filename().to_owned()).unwrap_or_default()
}

/// The absolute path of what a file of the spec calls `written`.
fn absolute(load: &Load, file: &str, written: &str) -> PathBuf {
    let folder = load.root.join(file).parent().map(Path::to_path_buf).unwrap_or_default();
    let joined = folder.join(written);
    let joined = std::path::absolute(&joined).unwrap_or(joined);
    let mut clean = PathBuf::new();
    for component in joined.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// Checks a new service's name and interfaces and gives them their addresses.
fn declare(
    call: &Call<'_, '_, '_, '_>,
    context: &Context,
    load: &Load,
    (name, remote): (&str, Option<&Remote>),
    declared: Vec<DeclaredInterface>,
) -> Result<Arc<ServiceInfo>, Problem> {
    check_name(name).map_err(|problem| call.problem("name", problem.message))?;
    if name == "test" || name == "faultbox" {
        return Err(call.problem("name", format!("\"{name}\" stands for Faultbox's own part in a journal")));
    }
    if let Some(earlier) = load.draft.borrow().service(name) {
        let place = context.line(&earlier.span);
        let problem = call.problem("name", format!("a service {name} exists already"));
        return Err(problem.hint(format!("declared at {place}")));
    }
    let mut interfaces: Vec<InterfaceInfo> = Vec::new();
    for interface in declared {
        if interfaces.iter().any(|known| known.name == interface.name) {
            return Err(Problem::new(format!("service {name} has two interfaces called {}", interface.name)));
        }
        if interfaces.iter().any(|known| known.port == interface.port) {
            return Err(Problem::new(format!(
                "service {name} has two interfaces at port {}",
                interface.port
            )));
        }
        let addr = load.addresses.assign(&format!("{name}.{}", interface.name), interface.port);
        let addr =
            addr.map_err(|error| Problem::new(format!("no address for {name}.{}: {error}", interface.name)))?;
        interfaces.push(InterfaceInfo {
            name: interface.name,
            protocol: interface.protocol,
            port: interface.port,
            internal: match remote {
                Some(remote) => remote.address_of(interface.port),
                None => format!("127.0.0.1:{}", interface.port),
            },
            addr,
        });
    }
    Ok(Arc::new(ServiceInfo { name: name.to_owned(), interfaces }))
}

fn topology_interfaces(info: &ServiceInfo) -> Vec<Interface> {
    let interface = |i: &InterfaceInfo| Interface {
        name: i.name.clone(),
        protocol: i.protocol,
        port: i.port,
        addr: i.addr.to_string(),
    };
    info.interfaces.iter().map(interface).collect()
}

fn environment(
    call: &Call<'_, '_, '_, '_>,
    load: &Load,
    name: &str,
) -> Result<Vec<(String, String)>, Problem> {
    let mut env: Vec<(String, String)> = Vec::new();
    for (key, value) in call.named_dict("env")? {
        let text = match InterfaceValue::from_value(value) {
            Some(interface) => {
                let message = format!("`env` {key} is an interface");
                return Err(call.problem("env", message).hint(format!("did you mean `{interface}.addr`?")));
            }
            None => scalar_text(value),
        };
        let text = text
            .ok_or_else(|| call.problem("env", format!("`env` {key} is text, not {}", described(value))))?;
        if key.is_empty() || key.contains(['=', '\0']) || text.contains('\0') {
            return Err(call.problem("env", format!("`env` has no valid variable \"{key}\"")));
        }
        env.push((key, text));
    }
    for (_, key, value) in load.env.iter().filter(|(service, ..)| service == name) {
        env.retain(|(known, _)| known != key);
        env.push((key.clone(), value.clone()));
    }
    Ok(env)
}

fn arguments(call: &Call<'_, '_, '_, '_>) -> Result<Vec<String>, Problem> {
    let text = |item: Value<'_>| {
        scalar_text(item)
            .ok_or_else(|| call.problem("args", format!("`args` holds strings, not {}", described(item))))
    };
    call.list("args")?.into_iter().map(text).collect()
}

fn depends_on(call: &Call<'_, '_, '_, '_>) -> Result<Vec<String>, Problem> {
    let mut names: Vec<String> = Vec::new();
    for item in call.list("depends_on")? {
        let service = ServiceValue::from_value(item).map(|service| service.0.name.clone());
        let mock = MockValue::from_value(item).map(|mock| mock.service.name.clone());
        let name = service.or(mock).or_else(|| item.unpack_str().map(str::to_owned));
        let Some(name) = name else {
            return Err(
                call.problem("depends_on", format!("`depends_on` holds services, not {}", described(item)))
            );
        };
        if names.contains(&name) {
            return Err(call.problem("depends_on", format!("`depends_on` names {name} twice")));
        }
        names.push(name);
    }
    Ok(names)
}

/// `source:target`, the source absolute.
fn volumes(call: &Call<'_, '_, '_, '_>, load: &Load) -> Result<Vec<String>, Problem> {
    let volume = |written: String| match written.split_once(':') {
        Some((source, target)) if !source.is_empty() && target.starts_with('/') => {
            Ok(format!("{}:{target}", absolute(load, &file_of(call), source).display()))
        }
        _ => Err(call.problem("volumes", format!("`volumes` wants \"source:/target\", not {written:?}"))),
    };
    call.texts("volumes")?.into_iter().map(volume).collect()
}

fn ports(call: &Call<'_, '_, '_, '_>, info: &ServiceInfo) -> Result<Vec<(String, u16)>, Problem> {
    let mut ports = Vec::new();
    for (name, value) in call.named_dict("ports")? {
        let names = info.interfaces.iter().map(|interface| interface.name.as_str());
        if !names.clone().any(|known| known == name) {
            let problem =
                call.problem("ports", format!("`ports` names no interface of {}: {name}", info.name));
            return Err(problem.nearest(&name, names));
        }
        let port = convert::integer(value).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        let port = port.ok_or_else(|| {
            call.problem("ports", format!("`ports` {name} is no port: {}", described(value)))
        })?;
        ports.push((name, port));
    }
    Ok(ports)
}

/// Which of two words a keyword says: whether it is the second.
fn choice(
    call: &Call<'_, '_, '_, '_>,
    service: &Service,
    name: &str,
    words: [&str; 2],
) -> Result<Option<bool>, Problem> {
    let said = is_second(call, name, words)?;
    if said != Some(true) {
        return Ok(said);
    }
    let [_, ours] = words;
    let problem = match () {
        () if service.reuse => {
            let message = format!(
                "{} is kept between cells (`reuse`), and each cell has a {name} of its own",
                service.name
            );
            call.problem(name, message)
        }
        () if matches!(service.kind, ServiceKind::Remote(_)) => {
            call.problem(name, format!("{} is remote: its {name} is its own", service.name))
        }
        () if !MEDIATES => call.problem(name, format!("\"{ours}\" needs an x86-64 machine")),
        () if !service.seccomp => {
            let message =
                format!("{} is declared with seccomp = False, which \"{ours}\" needs", service.name);
            call.problem(name, message)
        }
        () => return Ok(said),
    };
    Err(problem)
}

/// Whether a keyword has the second of two words; `None` where it is not given.
fn is_second(call: &Call<'_, '_, '_, '_>, name: &str, words: [&str; 2]) -> Result<Option<bool>, Problem> {
    let Some(text) = call.text(name)? else { return Ok(None) };
    let [first, second] = words;
    if !words.contains(&text.as_str()) {
        let message = format!("`{name}` is \"{first}\" or \"{second}\", not \"{text}\"");
        return Err(call.problem(name, message).nearest(&text, words));
    }
    Ok(Some(text == second))
}

/// Whether it says that its process ids are its own.
fn own_pids(call: &Call<'_, '_, '_, '_>, service: &Service) -> Result<bool, Problem> {
    if is_second(call, "pids", ["host", "own"])? != Some(true) {
        return Ok(false);
    }
    match service.kind {
        ServiceKind::Binary { .. } => Ok(true),
        ServiceKind::Remote(_) => {
            Err(call.problem("pids", format!("{} is remote: its process ids are its own", service.name)))
        }
        _ => {
            let message =
                format!("{} is no local executable: its process ids are its own anyway", service.name);
            Err(call.problem("pids", message).hint("leave `pids` out"))
        }
    }
}

/// `determinism(level)`: at L2 the clock and the dice of every local executable follow from the seed; at L1
/// what they ask the host is told of.
pub fn determinism<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    const LEVELS: [&str; 2] = ["L1", "L2"];
    let level = call.needed_text("level")?;
    if !LEVELS.contains(&level.as_str()) {
        let problem = call.problem("level", format!("no level is called \"{level}\""));
        return Err(problem.hint("\"L1\" tells what is not determined, \"L2\" determines it").into());
    }
    if !MEDIATES {
        return Err(call.problem("level", format!("\"{level}\" needs an x86-64 machine")).into());
    }
    let mut draft = call.context()?.load("determinism()")?.draft.borrow_mut();
    draft.watched |= level == "L1";
    draft.seeded |= level == "L2";
    Ok(Value::new_none())
}

/// Keeps `seed` or `reset`.
fn keep(call: &mut Call<'_, '_, '_, '_>, draft: &mut Draft, name: &str) -> Result<Option<usize>, Problem> {
    let Some(callable) = call.callable(name)? else { return Ok(None) };
    if !is_callable(callable)
        || callable.parameters_spec().is_some_and(|spec| !spec.can_fill_with_args(0, &[]))
    {
        return Err(call.problem(name, format!("`{name}` is a function without parameters")));
    }
    Ok(Some(draft.keep(call.eval, callable)))
}

/// A literal that looks like a credential stays in the bundle: say so.
fn warn_of_literals(load: &Load, service: &Service) {
    let mut draft = load.draft.borrow_mut();
    for (name, value) in &service.env {
        let upper = name.to_uppercase();
        let telling = ["PASSWORD", "SECRET", "TOKEN", "CREDENTIAL", "PRIVATE_KEY", "API_KEY", "APIKEY"];
        let secret = draft.secrets.iter().any(|(_, known)| value.contains(known.as_str()));
        if telling.iter().any(|word| upper.contains(word)) && !secret && !value.is_empty() {
            let warning = format!(
                "{}: {name} of {} looks like a credential and stands in the spec as a literal; secret(...) keeps it \
                 out of the bundle",
                service.location, service.name
            );
            draft.warnings.push(warning);
        }
    }
}

fn check<'v>(call: &Call<'_, 'v, '_, '_>, probe: Probe) -> Result<Value<'v>> {
    let value = HealthcheckValue {
        name: call.def.name,
        probe,
        timeout: call.duration("timeout")?.unwrap_or(HEALTHCHECK_TIMEOUT),
        interval: call.duration("interval")?,
    };
    Ok(call.eval.heap().alloc(value))
}

/// `tcp("localhost:3306")`.
pub fn tcp_check<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let port = port_of(call, "addr", &call.needed_text("addr")?)?;
    check(call, Probe::Tcp { port })
}

/// `kafka_ready("localhost:9092")`.
pub fn kafka_ready<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let port = port_of(call, "addr", &call.needed_text("addr")?)?;
    check(call, Probe::Protocol { port: Some(port) })
}

/// `ready()`.
pub fn ready<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    check(call, Probe::Protocol { port: None })
}

/// `http("http://localhost:8080/healthz", expect_status = 200)`.
pub fn http_check<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let url = call.needed_text("url")?;
    let Some(rest) = url.strip_prefix("http://") else {
        let message = format!("\"{url}\" is no http:// address");
        return Err(call.problem("url", message).into());
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let expect_status = match call.integer("expect_status")? {
        None => None,
        Some(status) => match u16::try_from(status).ok().filter(|status| (100..600).contains(status)) {
            Some(status) => Some(status),
            None => return Err(call.problem("expect_status", format!("{status} is no HTTP status")).into()),
        },
    };
    let probe = Probe::Http {
        port: port_of(call, "url", &host)?,
        path: format!("/{path}"),
        expect_status,
        expect_body: call.text("expect_body")?,
    };
    check(call, probe)
}

/// `exec(["redis-cli", "ping"])`.
pub fn exec<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let command = call.texts("command")?;
    if command.is_empty() {
        return Err(call.problem("command", "exec() needs a command").into());
    }
    check(call, Probe::Exec(command))
}

/// `log("ready for connections")`.
pub fn log<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let pattern = call.needed_text("pattern")?;
    if let Err(error) = regex::Regex::new(&pattern) {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
        return Err(call.problem("pattern", format!("bad regular expression: {why}")).into());
    }
    check(call, Probe::Log(pattern))
}

fn port_of(call: &Call<'_, '_, '_, '_>, argument: &str, address: &str) -> Result<u16, Problem> {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    port.ok_or_else(|| {
        call.problem(argument, format!("\"{address}\" has no port")).hint("\"localhost:3306\"")
    })
}

/// The health check of a service; its address names a declared port.
fn healthcheck(call: &Call<'_, '_, '_, '_>, service: &Service) -> Result<Option<Healthcheck>, Problem> {
    let Some(value) = call.value("healthcheck") else { return Ok(None) };
    let Some(check) = HealthcheckValue::from_value(value) else {
        let message =
            format!("`healthcheck` is tcp(...), http(...), ready() or the like, not {}", described(value));
        return Err(call.problem("healthcheck", message));
    };
    let port = match &check.probe {
        Probe::Tcp { port } | Probe::Http { port, .. } | Probe::Protocol { port: Some(port) } => Some(*port),
        _ => None,
    };
    if let Some(port) = port {
        let interface = service.interfaces.iter().find(|interface| interface.port == port);
        let Some(interface) = interface else {
            let ports: Vec<String> =
                service.interfaces.iter().map(|i| format!("{} at {}", i.name, i.port)).collect();
            let problem =
                call.problem("healthcheck", format!("{} declares no interface at port {port}", service.name));
            return Err(problem.hint(format!("it declares {}", ports.join(", "))));
        };
        if check.name == "kafka_ready" && interface.protocol.name() != "kafka" {
            let message = format!(
                "{}.{} speaks {}, not kafka",
                service.name,
                interface.name,
                interface.protocol.name()
            );
            return Err(call.problem("healthcheck", message));
        }
    }
    Ok(Some(Healthcheck { probe: check.probe.clone(), timeout: check.timeout, interval: check.interval }))
}

/// What `jwt.server` and `grpc.server` share.
fn mock_service<'v>(
    call: &mut Call<'_, 'v, '_, '_>,
    kind: &'static str,
    protocol: &str,
    make: impl FnOnce(&mut Call<'_, 'v, '_, '_>, &Load) -> Result<Arc<dyn Mock>, Problem>,
) -> Result<Value<'v>> {
    let context = call.context()?;
    let load = context.load(&format!("{kind}.server()"))?;
    let name = call.needed_text("name")?;
    let span = call.span();
    let value = call.needed("interface")?;
    let Some(interface) = DeclaredInterface::from_value(value).cloned() else {
        let message = format!("`interface` is an interface(...), not {}", described(value));
        return Err(call.problem("interface", message).into());
    };
    if interface.protocol.name() != protocol {
        let message = format!("{kind}.server() speaks {protocol}, not {}", interface.protocol.name());
        return Err(call.problem("interface", message).into());
    }
    let mock = make(call, load)?;
    let info = declare(call, context, load, (&name, None), vec![interface])?;
    let key = load.run_key.below(&name);
    let service = Service {
        name,
        kind: ServiceKind::Mock(mock.clone()),
        interfaces: topology_interfaces(&info),
        env: Vec::new(),
        args: Vec::new(),
        depends_on: depends_on(call)?,
        healthcheck: None,
        has_seed: false,
        reset: Reset::Leave,
        reuse: false,
        volumes: Vec::new(),
        ports: Vec::new(),
        cwd: None,
        seccomp: false,
        determinism: Determinism::default(),
        location: context.line(&span),
    };
    let draft =
        ServiceDraft { service, span, seed: None, reset: None, clock: None, entropy: None, pids: false };
    load.draft.borrow_mut().services.push(draft);
    Ok(call.eval.heap().alloc(MockValue { service: info, mock, key }))
}

/// `jwt.server(name=, interface=, issuer=, key_id=, algorithm=)`.
pub fn jwt_server<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    mock_service(call, "jwt", "http", |call, _| {
        let issuer = call.needed_text("issuer")?;
        let key_id = call.text("key_id")?;
        let algorithm = call.text("algorithm")?.unwrap_or_else(|| "RS256".to_owned());
        match JwtMock::new(&issuer, key_id.as_deref(), &algorithm) {
            Ok(mock) => Ok(Arc::new(mock) as Arc<dyn Mock>),
            Err(MockError(why)) => {
                let argument = if why.contains("algorithm") { "algorithm" } else { "issuer" };
                Err(call.problem(argument, why))
            }
        }
    })
}

/// `grpc.server(name=, interface=, descriptors=, services=)`.
pub fn grpc_server<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    mock_service(call, "grpc", "grpc", |call, load| {
        let written = call.needed_text("descriptors")?;
        let path = files::resolve(&file_of(call), &written);
        let read = path.and_then(|path| Ok((load.files.read(&path)?, path)));
        let (descriptors, path) =
            read.map_err(|why| call.problem("descriptors", format!("cannot read \"{written}\": {why}")))?;
        call.context().map_err(|_| Problem::new("a mock outside a spec"))?.shared.keep(
            &path,
            "descriptors",
            &descriptors,
        );
        let mut answers = Vec::new();
        for (method, value) in call.named_dict("services")? {
            let answer = answer(value, Some(call)).map_err(|problem| {
                let about = call.problem("services", format!("{method}: {}", problem.message));
                Problem { hint: problem.hint, ..about }
            })?;
            answers.push((method, answer));
        }
        match GrpcMock::new(descriptors, answers) {
            Ok(mock) => Ok(Arc::new(mock) as Arc<dyn Mock>),
            Err(MockError(why)) => {
                let about_method = why.starts_with('/');
                Err(call.problem(if about_method { "services" } else { "descriptors" }, why))
            }
        }
    })
}

/// What a method of a gRPC mock answers. Where a mock is declared (`call`) a function may stand
/// for the answer.
///
/// # Errors
/// When it is no answer.
pub fn answer<'v>(value: Value<'v>, call: Option<&mut Call<'_, 'v, '_, '_>>) -> Result<GrpcAnswer, Problem> {
    if let Some(rule) = RuleValue::from_value(value) {
        return status_answer(&rule.0);
    }
    if let (true, Some(call)) = (is_callable(value), call) {
        if value.parameters_spec().is_some_and(|spec| !spec.can_fill_with_args(1, &[])) {
            return Err(Problem::new("a mock's function takes one argument, the request"));
        }
        let context = call.context().map_err(|_| Problem::new("a mock outside a spec"))?;
        let number = context.load("a mock")?.draft.borrow_mut().keep(call.eval, value);
        return Ok(GrpcAnswer::Function(number));
    }
    let hint = "{\"response\": {...}}, {\"responses\": [...]} or {\"error\": grpc.unavailable(\"...\")}";
    let Some(dict) = DictRef::from_value(value) else {
        return Err(Problem::new(format!("an answer is a dict, not {}", described(value))).hint(hint));
    };
    let entries: Vec<(Value<'_>, Value<'_>)> = dict.iter().collect();
    let [(key, value)] = entries.as_slice() else {
        return Err(Problem::new("an answer has one entry").hint(hint));
    };
    match key.unpack_str() {
        Some("response") => Ok(GrpcAnswer::Response(convert::to_plain(*value)?)),
        Some("responses") => match convert::to_plain(*value)? {
            Plain::List(items) => Ok(GrpcAnswer::Responses(items)),
            _ => Err(Problem::new("\"responses\" is a list of messages")),
        },
        Some("error") => match RuleValue::from_value(*value) {
            Some(rule) => status_answer(&rule.0),
            None => Err(Problem::new(format!(
                "\"error\" is grpc.unavailable(...) or the like, not {}",
                described(*value)
            ))),
        },
        _ => Err(Problem::new(format!("an answer has no {}", key.to_repr())).hint(hint)),
    }
}

/// `grpc.unavailable("...")` as an answer.
fn status_answer(rule: &RuleSpec) -> Result<GrpcAnswer, Problem> {
    let field = |name: &str| {
        let value = rule.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        value.and_then(Plain::as_text).map(str::to_owned)
    };
    let plain = rule.given.is_empty() && rule.source.is_none() && rule.modifiers == Default::default();
    match (&rule.verb, field("code"), plain) {
        (Verb::Error, Some(code), true) => {
            Ok(GrpcAnswer::Error { code, message: field("message").unwrap_or_default() })
        }
        (Verb::Error, Some(_), false) => {
            Err(Problem::new(format!("{} has conditions, and an answer has none", rule.words))
                .hint("put it into the `rules` of a fault assumption"))
        }
        _ => Err(Problem::new(format!("{} is no answer", rule.words)).hint("grpc.unavailable(\"...\")")),
    }
}
