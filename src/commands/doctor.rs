//! `faultbox doctor`: what of Faultbox works on this host for this user, and the command that
//! enables each thing that is missing.
//!
//! Contract: asks the same probes and the same judgement (`faultbox_engine::diagnosis`) as a run does,
//! changes nothing, and starts no container.

use super::run;
use crate::cli::Format;
use crate::exit_code;
use crate::terminal::{plain, say};
use faultbox_engine::containers::{self, EngineFacts};
use faultbox_engine::diagnosis::{self, Layer, Missing, State};
use faultbox_engine::supervisor::{Account, Feature, HostFacts, Lack};
use serde_json::{Value, json};

/// Runs the command.
pub fn run(format: Format) -> u8 {
    let (facts, engine) = match look() {
        Ok(found) => found,
        Err(code) => return code,
    };
    let layers = diagnosis::layers(&facts, &engine);
    say(plain(&match format {
        Format::Human => table(&facts, &engine, &layers),
        Format::Json => serde_json::to_string_pretty(&document(&facts, &engine, &layers)).unwrap_or_default(),
    })
    .trim_end());
    if complete(&layers) { exit_code::OK } else { exit_code::HOST }
}

fn look() -> Result<(HostFacts, EngineFacts), u8> {
    // Before there is a runtime: it takes no thread of ours along.
    let (_, facts) = run::look()?;
    let engine = run::runtime()?.block_on(containers::survey());
    Ok((facts, engine))
}

fn complete(layers: &[Layer]) -> bool {
    layers.iter().all(|layer| layer.state == State::Yes)
}

fn user(account: &Account) -> String {
    let name = account.name.as_deref().unwrap_or("nameless");
    format!("{name} (uid {}), groups {}", account.uid, account.groups.join(", "))
}

/// The lines for people: the host, its features, the layers, and what is missing.
fn table(facts: &HostFacts, engine: &EngineFacts, layers: &[Layer]) -> String {
    let mut rows = vec![
        ("user".to_owned(), user(&facts.account)),
        ("kernel".to_owned(), format!("Linux {} {}", facts.kernel, std::env::consts::ARCH)),
    ];
    rows.extend(Feature::ALL.iter().map(|feature| {
        let since = feature.since().map(|since| format!(" ({since})")).unwrap_or_default();
        let state =
            facts.has(*feature).map_or_else(|lack| format!("no: {}", lack.why), |()| "yes".to_owned());
        (format!("{}{since}", feature.title()), state)
    }));
    rows.extend(facts.settings.iter().map(|(name, value)| (name.clone(), value.clone())));
    let version = engine.version.as_ref();
    let engine_state = version.map_or_else(|lack| format!("no: {}", lack.why), Clone::clone);
    rows.push(("container engine".to_owned(), format!("{engine_state} ({})", engine.endpoint)));
    if engine.version.is_ok() {
        let looked =
            engine.look_into.as_ref().map_or_else(|lack| format!("no: {}", lack.why), |()| "yes".to_owned());
        rows.push(("processes of containers".to_owned(), looked));
    }
    rows.push(Default::default());
    rows.extend(layers.iter().map(|layer| (layer.name.to_owned(), layer.state.word().to_owned())));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text: String = rows
        .iter()
        .map(|(name, state)| format!("{name:width$}  {state}").trim_end().to_owned() + "\n")
        .collect();
    text.push_str(&missing(layers));
    text
}

/// What is missing, each once with the layers that it concerns.
fn missing(layers: &[Layer]) -> String {
    let mut told: Vec<(&Missing, String)> = Vec::new();
    for layer in layers {
        for missing in &layer.missing {
            let concerns = format!("  {}: {}\n", layer.name, missing.so);
            match told.iter_mut().find(|(known, _)| known.what == missing.what) {
                Some((_, layers)) => layers.push_str(&concerns),
                None => told.push((missing, concerns)),
            }
        }
    }
    let block = |(missing, concerns): (&Missing, String)| {
        let Missing { what, lack, .. } = missing;
        format!("\nmissing: {what}: {}\n{concerns}  to enable: {}\n", lack.why, lack.enable)
    };
    told.into_iter().map(block).collect()
}

/// The document of `--format json`.
fn document(facts: &HostFacts, engine: &EngineFacts, layers: &[Layer]) -> Value {
    let lack = |lack: Option<&Lack>| {
        (lack.map_or("", |lack| &lack.why).to_owned(), lack.map_or("", |lack| &lack.enable).to_owned())
    };
    let features = Feature::ALL.iter().map(|feature| {
        let has = facts.has(*feature);
        let (why, enable) = lack(has.as_ref().err());
        json!({
            "name": feature.name(),
            "title": feature.title(),
            "since": feature.since(),
            "there": has.is_ok(),
            "why": why,
            "enable": enable,
        })
    });
    let layers_json = layers.iter().map(|layer| {
        let missing = layer.missing.iter().map(|missing| {
            json!({
                "what": missing.what,
                "so": missing.so,
                "why": missing.lack.why,
                "enable": missing.lack.enable,
            })
        });
        json!({
            "name": layer.name,
            "state": layer.state.word(),
            "missing": missing.collect::<Vec<_>>(),
        })
    });
    let (engine_why, engine_enable) = lack(engine.version.as_ref().err());
    let (look_why, look_enable) = lack(engine.look_into.as_ref().err());
    json!({
        "complete": complete(layers),
        "user": { "uid": facts.account.uid, "name": facts.account.name, "groups": facts.account.groups },
        "kernel": { "release": facts.kernel, "architecture": std::env::consts::ARCH },
        "settings": facts.settings,
        "simulated_without": facts.simulated.iter().map(|feature| feature.name()).collect::<Vec<_>>(),
        "features": features.collect::<Vec<_>>(),
        "container_engine": {
            "endpoint": engine.endpoint,
            "there": engine.version.is_ok(),
            "version": engine.version.as_ref().ok(),
            "why": engine_why,
            "enable": engine_enable,
            "processes": { "there": engine.look_into.is_ok(), "why": look_why, "enable": look_enable },
        },
        "layers": layers_json.collect::<Vec<_>>(),
    })
}
