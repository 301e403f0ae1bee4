//! Health checks: whether a service that was started is ready. They bypass the proxies.

use super::SetupError;
use crate::link::{BoxFuture, Dial, InterfaceOptions, Link};
use crate::protocol::{self, Protocol};
use crate::step::StepCall;
use crate::topology::{Healthcheck, Interface, Probe, Service};
use crate::virtual_time::Time;
use faultbox_bundle_format::Value;
use std::sync::Arc;
use std::time::Duration;

/// What is asked of a service that declares no health check.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Pauses between attempts, where the spec gives none, are this part of the time that has gone by:
/// a service is seen ready soon after it is, however long that takes it.
const PART: u32 = 16;
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
/// Where an attempt is a process of its own.
const SHORTEST_AFTER_COMMAND: Duration = Duration::from_millis(20);
/// A server that starts for long is not to be worn out by attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Runs a command where the service is; `Err` says how it failed.
pub type Exec<'a> = &'a (dyn Fn(Vec<String>) -> BoxFuture<'a, Result<(), String>> + Send + Sync);

/// Runs a command on this host.
pub fn exec_here(command: Vec<String>) -> BoxFuture<'static, Result<(), String>> {
    Box::pin(async move {
        let Some((program, args)) = command.split_first() else { return Err("an empty command".to_owned()) };
        match tokio::process::Command::new(program).args(args).status().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{program}: {status}")),
            Err(error) => Err(format!("{program}: {error}")),
        }
    })
}

/// Waits until the service is ready.
///
/// # Errors
/// When it is not ready in time; the reason is that of the last attempt.
pub async fn wait_ready(
    service: &Service,
    way: &(dyn Fn(u16) -> Arc<dyn Dial> + Send + Sync),
    log: &(dyn Fn() -> Vec<u8> + Send + Sync),
    exec: Exec<'_>,
    time: &Time,
) -> Result<(), SetupError> {
    let default =
        Healthcheck { probe: Probe::Protocol { port: None }, timeout: DEFAULT_TIMEOUT, interval: None };
    let check = service.healthcheck.as_ref().unwrap_or(&default);
    let began = time.now();
    let deadline = began + check.timeout;
    let shortest = match check.probe {
        Probe::Exec(_) => SHORTEST_AFTER_COMMAND,
        _ => SHORTEST_PAUSE,
    };
    let mut before = None;
    loop {
        let late = time.now() + LONGEST_PAUSE >= deadline;
        let attempt = time.timeout_at(deadline, once(service, &check.probe, way, log, exec, time)).await;
        let why = match attempt {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            // One that had no time to be answered says less than the one before it.
            Err(_) => before.filter(|_| late).unwrap_or_else(|| "no answer".to_owned()),
        };
        let pause = ((time.now() - began) / PART).clamp(shortest, LONGEST_PAUSE);
        let pause = check.interval.unwrap_or(pause);
        if time.now() + pause >= deadline {
            return Err(SetupError::NotReady { service: service.name.clone(), limit: check.timeout, why });
        }
        time.sleep(pause).await;
        before = Some(why);
    }
}

async fn once(
    service: &Service,
    probe: &Probe,
    way: &(dyn Fn(u16) -> Arc<dyn Dial> + Send + Sync),
    log: &(dyn Fn() -> Vec<u8> + Send + Sync),
    exec: Exec<'_>,
    time: &Time,
) -> Result<(), String> {
    match probe {
        Probe::Tcp { port } => speak(service, Some(*port), way, time).await,
        Probe::Protocol { port } => speak(service, *port, way, time).await,
        Probe::Http { port, path, expect_status, expect_body } => {
            let response = http_get(*port, path, way(*port), time).await;
            if response.status == 0 {
                return Err(response.error.unwrap_or_else(|| "no answer".to_owned()));
            }
            let wanted = expect_status
                .map_or((200..300).contains(&response.status), |s| response.status == i64::from(s));
            if !wanted {
                return Err(format!("{path} answered {}", response.status));
            }
            let body = String::from_utf8_lossy(&response.body);
            match expect_body {
                Some(text) if !body.contains(text) => Err(format!("{path} does not say {text:?}")),
                _ => Ok(()),
            }
        }
        Probe::Exec(command) => {
            let _busy = time.busy();
            exec(command.clone()).await
        }
        Probe::Log(pattern) => {
            let pattern = regex::Regex::new(pattern).map_err(|error| error.to_string())?;
            let text = log();
            match String::from_utf8_lossy(&text).lines().any(|line| pattern.is_match(line)) {
                true => Ok(()),
                false => Err(format!("no line of output matches {pattern}")),
            }
        }
    }
}

async fn speak(
    service: &Service,
    port: Option<u16>,
    way: &(dyn Fn(u16) -> Arc<dyn Dial> + Send + Sync),
    time: &Time,
) -> Result<(), String> {
    for interface in service.interfaces.iter().filter(|i| port.is_none_or(|port| port == i.port)) {
        let stream = way(interface.port).dial().await.map_err(|error| error.to_string())?;
        let link = unobserved(service, interface, time);
        interface.protocol.ready(stream, link).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn unobserved(service: &Service, interface: &Interface, time: &Time) -> Arc<Link> {
    let options =
        InterfaceOptions { env: service.env.iter().cloned().collect(), ..InterfaceOptions::default() };
    let name = format!("{}.{}", service.name, interface.name);
    Link::unobserved(&name, interface.protocol.name(), &interface.addr, options, time)
}

async fn http_get(port: u16, path: &str, dial: Arc<dyn Dial>, time: &Time) -> crate::step::StepResponse {
    let http: &dyn Protocol = &protocol::http::PROTOCOL;
    let link = Link::unobserved(
        "health.check",
        http.name(),
        &format!("127.0.0.1:{port}"),
        InterfaceOptions::default(),
        time,
    );
    let call = StepCall {
        service: "health".to_owned(),
        interface: "check".to_owned(),
        verb: "get".to_owned(),
        arguments: vec![("path".to_owned(), Value::text(path))],
        timeout: None,
        location: String::new(),
    };
    http.step(dial, link, &call).await
}
