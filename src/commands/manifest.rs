//! `faultbox inspect --manifest`: what a bundle's index says, for a first look at a large file.
//!
//! Contract: of a finished bundle only header, footer and index are read; of an unfinished one the
//! index is made anew, which reads all of it.

use super::test::{hex, verdict_json};
use crate::cli::Format;
use crate::terminal::{mark, one_line, say, say_json};
use faultbox_bundle_format::Bundle;
use std::path::Path;

/// Prints it.
pub fn show(path: &Path, bundle: &Bundle, format: Format) {
    match format {
        Format::Human => human(path, bundle),
        Format::Json => say_json(&json(path, bundle)),
    }
}

fn version(bundle: &Bundle) -> (String, Option<String>) {
    let header = bundle.header();
    let tool = (header.tool != Default::default()).then(|| header.tool.to_string());
    (format!("{}.{}", header.major, header.minor), tool)
}

fn human(path: &Path, bundle: &Bundle) {
    let (format, tool) = version(bundle);
    let tool = tool.map(|tool| format!(", written by faultbox {tool}")).unwrap_or_default();
    say(&format!("{}: bundle format {format}{tool}", path.display()));
    match bundle.digest() {
        Some(digest) => say(&format!("digest:  {}", hex(&digest))),
        None => say("incomplete: the run that wrote it was cut short"),
    }
    let index = bundle.index();
    say(&format!(
        "{} cells, {} entries, {} payloads, {} records of unknown kinds\n",
        index.cells.len(),
        bundle.entry_count(),
        index.blobs.len(),
        index.unknown.len()
    ));
    for cell in bundle.cells() {
        let mark = mark(cell.verdict.as_ref().map(|verdict| verdict.ending));
        let digest = cell.digest().map(|digest| hex(&digest)).unwrap_or_default();
        say(format!("{mark:<12} {:<45} {digest}", one_line(&cell.name)).trim_end());
    }
}

fn json(path: &Path, bundle: &Bundle) -> serde_json::Value {
    let cells = bundle.cells().iter().map(|cell| match &cell.verdict {
        Some(verdict) => verdict_json(&cell.name, verdict),
        None => serde_json::json!({ "name": cell.name, "verdict": "incomplete" }),
    });
    let (format, tool) = version(bundle);
    serde_json::json!({
        "bundle": path.display().to_string(),
        "format": format,
        "tool_version": tool,
        "complete": bundle.is_complete(),
        "digest": bundle.digest().map(|digest| hex(&digest)),
        "entries": bundle.entry_count(),
        "payloads": bundle.index().blobs.len(),
        "unknown": bundle.index().unknown.iter().map(|frame| frame.kind).collect::<Vec<_>>(),
        "cells": cells.collect::<Vec<_>>(),
    })
}
