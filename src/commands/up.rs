//! `faultbox up`: what a spec declares, running, without its tests, until somebody has seen enough.

use super::hold::attachable;
use super::run::{self, Host};
use super::stack;
use crate::cli::{Format, UpArgs};
use crate::terminal::{notice, one_line, say, say_json};
use crate::{exit_code, host};
use faultbox_bundle_format::Body;
use faultbox_bundle_format::redact::Redactor;
use faultbox_engine::event_sink::EventSink;
use faultbox_engine::noted::Noted;
use faultbox_engine::oracle::SeededOracle;
use faultbox_engine::plan::Plan;
use faultbox_engine::runner::live::Live;
use faultbox_engine::runner::up::{self, Ended, Standing};
use std::sync::Arc;

/// Runs the command.
pub fn run(args: UpArgs) -> u8 {
    match try_run(&args) {
        Ok(code) | Err(code) => code,
    }
}

fn try_run(args: &UpArgs) -> Result<u8, u8> {
    let mut host = Host::probe()?;
    let addresses = Arc::new(host.addresses());
    let (seed, source) = stack::seed(&args.stack)?;
    let plan = up::only_the_stack(stack::load(&args.stack, &addresses, seed)?);
    stack::check_host(&plan, &args.stack, &host)?;
    let runtime = run::runtime()?;
    stack::make_ready(&mut host, &plan, &args.stack, &runtime)?;
    if args.format == Format::Human {
        say(&format!("Seed: {seed} ({source})\n"));
    }
    let dir = host::RunDir::create().map_err(|error| {
        notice(&format!("faultbox: the temporary folder cannot be used: {error}"));
        exit_code::HOST
    })?;
    let plan = Arc::new(plan);
    let ended = runtime.block_on(async {
        let oracle = Arc::new(SeededOracle::new(seed));
        let redactor = Redactor::new(&[0; 16], run::secrets(&plan));
        let context =
            host.context(seed, redactor, Arc::new(Loud), oracle, &dir, args.stack.embedded, addresses);
        let context = Arc::new(context);
        let live = Live::new(context.clone());
        let ended = up::up(&context, &plan, &live, |standing| tell(args, &plan, standing)).await;
        live.stop().await;
        live.take_notices().iter().for_each(|text| notice(&format!("notice: {text}")));
        ended
    });
    runtime.shutdown_background();
    match ended {
        Ok(Ended::Interrupted) => {
            notice("Everything that was started has ended.");
            Ok(exit_code::OK)
        }
        Ok(Ended::Unasked(why)) => {
            notice(&format!("faultbox: {why}; the rest was ended"));
            Err(exit_code::HOST)
        }
        Err(error) => {
            notice(&format!("faultbox: {error}"));
            Err(exit_code::HOST)
        }
    }
}

/// Prints what services print.
struct Loud;

impl EventSink for Loud {
    fn take(&self, noted: Noted) {
        if let Body::Output(output) = &noted.entry().body {
            for line in String::from_utf8_lossy(&output.bytes).lines() {
                notice(&format!("{} says: {line}", one_line(&output.service)));
            }
        }
    }
}

fn tell(args: &UpArgs, plan: &Plan, standing: &[Standing]) {
    if args.format == Format::Json {
        return say_json(&serde_json::json!({
            "spec": plan.spec,
            "services": standing.iter().map(json).collect::<Vec<_>>(),
        }));
    }
    for service in standing {
        say(&format!("{}: {}", one_line(&service.name), one_line(&what(service))));
        let widest = service.interfaces.iter().map(|i| i.name.len() + i.protocol.len()).max().unwrap_or(0);
        for interface in &service.interfaces {
            let pad = widest - interface.name.len() - interface.protocol.len();
            say(&format!(
                "  {} ({}){:pad$}  {}  past the proxy {}",
                one_line(&interface.name),
                interface.protocol,
                "",
                interface.proxied,
                interface.direct
            ));
        }
    }
    say("\nUp. Ctrl-C ends it.");
}

/// `stand-in mysql, process 12`.
fn what(service: &Standing) -> String {
    let process = match (service.pid, &service.container) {
        (_, Some(container)) => Some(format!("container {container}")),
        (Some(pid), None) if service.local => Some(attachable(pid)),
        (Some(pid), None) => Some(format!("process {pid}")),
        (None, None) => None,
    };
    [Some(service.program.clone()), process].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn json(service: &Standing) -> serde_json::Value {
    let interfaces = service.interfaces.iter().map(|interface| {
        serde_json::json!({
            "name": interface.name,
            "protocol": interface.protocol,
            "proxied": interface.proxied.to_string(),
            "direct": interface.direct.to_string(),
        })
    });
    serde_json::json!({
        "name": service.name,
        "program": service.program,
        "pid": service.pid,
        "container": service.container,
        "interfaces": interfaces.collect::<Vec<_>>(),
    })
}
