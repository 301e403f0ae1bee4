//! `faultbox export`: a bundle in the forms of other tools.
//!
//! Contract: reads the bundle and writes one document, on stdout or into a file.

use crate::ci::GitHub;
use crate::cli::{ExportArgs, ExportFormat};
use crate::exit_code;
use crate::export::{Suite, github, har, junit, pcapng, summary};
use crate::terminal::{notice, one_line, say, say_json};
use faultbox_bundle_format::{Bundle, CellSummary, ReadError};
use std::io::{IsTerminal, Write};

/// Runs the command.
pub fn run(args: &ExportArgs) -> u8 {
    match try_run(args) {
        Ok(()) => exit_code::OK,
        Err(code) => code,
    }
}

fn try_run(args: &ExportArgs) -> Result<(), u8> {
    let unreadable = |error: ReadError| {
        notice(&format!("faultbox: {}: {}", args.bundle.display(), one_line(&error.to_string())));
        match error {
            ReadError::NoSuchCell { .. } => exit_code::USAGE,
            _ => exit_code::BUNDLE,
        }
    };
    let bundle = Bundle::open(&args.bundle).map_err(unreadable)?;
    let suite = || Suite::of_bundle(&bundle, &args.bundle.display().to_string());
    let results = matches!(args.format, ExportFormat::Junit | ExportFormat::Github);
    if results && args.cell.is_some() {
        notice("faultbox: results are those of every cell: leave out the CELL");
        return Err(exit_code::USAGE);
    }
    let cells: Vec<&CellSummary> = match &args.cell {
        Some(name) => vec![bundle.cell(name).map_err(unreadable)?],
        None => bundle.cells().iter().collect(),
    };
    match args.format {
        ExportFormat::Junit => {
            let text = junit::document(&suite().map_err(unreadable)?);
            match &args.output {
                None => say(text.trim_end()),
                Some(_) => write(args, text.as_bytes())?,
            }
        }
        ExportFormat::Github => to_github(args, &suite().map_err(unreadable)?)?,
        ExportFormat::Har => {
            let document = har::document(&bundle, &cells).map_err(unreadable)?;
            match &args.output {
                None => say_json(&document),
                Some(_) => {
                    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
                    write(args, format!("{text}\n").as_bytes())?;
                }
            }
        }
        ExportFormat::Pcapng => {
            let written = pcapng::file(&bundle, &cells).map_err(unreadable)?;
            match &args.output {
                Some(_) => write(args, &written.bytes)?,
                None if std::io::stdout().is_terminal() => {
                    notice("faultbox: packets are no text: --output FILE, or into a pipe");
                    return Err(exit_code::USAGE);
                }
                // A reader that went away ends nothing.
                None => drop(std::io::stdout().lock().write_all(&written.bytes)),
            }
            notice(&format!("notice: {} connections", written.connections));
            for (why, count) in &written.left_out {
                notice(&format!("notice: left out {count}x: {}", one_line(why)));
            }
        }
    }
    Ok(())
}

/// Annotations on stdout, and the summary where one is kept.
fn to_github(args: &ExportArgs, suite: &Suite) -> Result<(), u8> {
    let github = GitHub::named();
    github::annotations(suite, |path| github.path(path)).iter().for_each(|line| say(line));
    let text = summary::text(suite);
    match &args.output {
        Some(_) => write(args, text.as_bytes()),
        None => github.summarise(&text).map(|_| ()).map_err(|error| {
            notice(&format!("faultbox: the job summary cannot be written: {error}"));
            exit_code::USAGE
        }),
    }
}

fn write(args: &ExportArgs, bytes: &[u8]) -> Result<(), u8> {
    let Some(path) = &args.output else { return Ok(()) };
    std::fs::write(path, bytes).map_err(|error| {
        notice(&format!("faultbox: cannot write {}: {error}", path.display()));
        exit_code::USAGE
    })
}
