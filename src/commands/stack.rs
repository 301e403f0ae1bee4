//! What `test` and `up` start: the spec loaded, the host looked at, images at hand.

use super::images;
use super::run::{self, Host};
use crate::cli::StackArgs;
use crate::exit_code;
use crate::terminal::notice;
use faultbox_engine::addresses::AddressBook;
use faultbox_engine::os;
use faultbox_engine::plan::Plan;
use faultbox_engine::prng;
use faultbox_engine::runner::live::stand_in_for;
use faultbox_engine::spec::{self, LoadOptions};
use faultbox_engine::topology::ServiceKind;

/// The plan of the spec.
///
/// # Errors
/// The exit code, where the spec or an override is wrong.
pub fn load(args: &StackArgs, addresses: &AddressBook, seed: u64) -> Result<Plan, u8> {
    let usage = |why: String| {
        notice(&format!("faultbox: {why}"));
        exit_code::USAGE
    };
    let options = LoadOptions {
        addresses,
        env: run::env_overrides(&args.env).map_err(usage)?,
        binaries: run::path_overrides("binary", &args.binary).map_err(usage)?,
        seed,
        root: args.root.as_deref(),
        files: None,
    };
    spec::load(&args.spec, &options).map_err(|errors| {
        notice(errors.to_string().trim_end());
        exit_code::USAGE
    })
}

/// The seed that was given, or a fresh one, and where it comes from.
///
/// # Errors
/// The exit code, where none can be drawn.
pub fn seed(args: &StackArgs) -> Result<(u64, &'static str), u8> {
    if let Some(seed) = args.seed {
        return Ok((seed, "cli"));
    }
    prng::fresh_seed().map(|seed| (seed, "generated")).map_err(|error| {
        notice(&format!("faultbox: no seed could be drawn: {error}; give one with --seed"));
        exit_code::HOST
    })
}

/// Makes sure that everything the plan needs can be started here, and says what stands for what.
///
/// # Errors
/// The exit code, where something is lacking.
pub fn make_ready(
    host: &mut Host,
    plan: &Plan,
    args: &StackArgs,
    runtime: &tokio::runtime::Runtime,
) -> Result<(), u8> {
    let services = images::contained(plan, args.embedded);
    runtime.block_on(images::ready(host, &services))?;
    runtime.block_on(images::tell_of_closed(host, plan, &services));
    if !args.embedded {
        images::compare(&args.spec, &host.images.values().collect::<Vec<_>>(), args.locked)?;
    }
    plan.warnings.iter().for_each(|warning| notice(&format!("warning: {warning}")));
    Ok(())
}

/// Names what the host lacks before the first cell.
///
/// # Errors
/// The exit code, where something is lacking.
pub fn check_host(plan: &Plan, args: &StackArgs, host: &Host) -> Result<(), u8> {
    let mut lacking = Vec::new();
    for service in &plan.topology.services {
        match &service.kind {
            // What containers need is looked at next.
            ServiceKind::Image(_) | ServiceKind::Build { .. } if plan.topology.is_sut(&service.name) => {}
            ServiceKind::Build { written, .. } if args.embedded => {
                lacking.push(format!("{}: there is no stand-in for build {written}", service.name));
            }
            ServiceKind::Image(image) if args.embedded => match stand_in_for(image) {
                Some(kind) => notice(&format!(
                    "notice: {}: the embedded {kind} stand-in runs instead of {image}",
                    service.name
                )),
                None => lacking.push(format!(
                    "{}: there is no stand-in for {image} (there are mysql, redis and kafka)",
                    service.name
                )),
            },
            ServiceKind::Image(_) | ServiceKind::Build { .. } | ServiceKind::Remote(_) => {}
            ServiceKind::Binary { path, written } if !os::is_executable(path) => {
                let (name, place) = (&service.name, path.display());
                let given =
                    args.binary.iter().any(|flag| flag.split_once('=').is_some_and(|(to, _)| to == name));
                lacking.push(match given {
                    true => format!("{name}: {place}, given by --binary, is not an executable file"),
                    false => format!(
                        "{name}: {written} is not an executable file ({place}); build it, or give --binary {name}=PATH"
                    ),
                });
            }
            ServiceKind::Binary { .. } | ServiceKind::Mock(_) => {}
        }
    }
    lacking.iter().for_each(|line| notice(&format!("faultbox: {line}")));
    let kernel = host.check_kernel(plan, args.embedded, |service| {
        matches!(service.kind, ServiceKind::Binary { .. }) || service.is_contained()
    });
    if lacking.is_empty() { kernel } else { Err(exit_code::HOST) }
}
