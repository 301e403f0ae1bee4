//! `faultbox clean`: remove every container of ours.

use super::run;
use crate::exit_code;
use crate::terminal::{notice, say};
use faultbox_engine::containers::Engine;

/// Runs the command.
pub fn run() -> u8 {
    let runtime = match run::runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let cleaned = runtime.block_on(async {
        let engine = Engine::connect().await?;
        engine.clean().await
    });
    match cleaned {
        Ok(removed) => {
            for container in &removed {
                let kept = if container.kept { ", kept by --keep" } else { "" };
                say(&format!(
                    "removed {} ({}, {}{kept})",
                    container.name, container.service, container.image
                ));
            }
            say(&format!("{} removed", removed.len()));
            exit_code::OK
        }
        Err(error) => {
            notice(&format!("faultbox: {error}"));
            exit_code::HOST
        }
    }
}
