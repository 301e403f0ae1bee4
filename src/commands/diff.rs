//! `faultbox diff`: what differs between two bundles: cells, verdicts, and of each changed cell the first
//! exchange in which they part, field by field.
//!
//! Contract: reads the bundles and nothing else. Cells are compared in their canonical form under the
//! default policy: a bundle that was recorded again and means the same does not differ. Where the
//! digests of a cell are equal, its entries are not read.

use super::diff_page;
use super::test::hex;
use crate::cli::DiffFormat;
use crate::exit_code;
use crate::markdown::code;
use crate::terminal::{self, notice, one_line, say, say_json};
use faultbox_bundle_format::canonical::Policy;
use faultbox_bundle_format::{Body, Bundle, CellSummary, Entry, ReadError, Verdict};
use faultbox_replayer::diff::Difference;
use faultbox_replayer::divergence::Divergence;
use faultbox_replayer::session;
use serde_json::{Value as Json, json};
use std::path::Path;

/// Most fields that are shown of one exchange; JSON has all.
const FIELDS: usize = 8;

/// Runs the command.
pub fn run(a: &Path, b: &Path, format: DiffFormat) -> u8 {
    let compared = Side::open(a).and_then(|a| Side::open(b).map(|b| (a, b)));
    let compared = compared.and_then(|(a, b)| Compared::of(&a, &b).map(|compared| (a, b, compared)));
    match compared {
        Ok((a, b, compared)) => {
            match format {
                DiffFormat::Human => compared.human(&a, &b),
                DiffFormat::Markdown => compared.markdown(&a, &b),
                DiffFormat::Html => say(&diff_page::page(&compared.summary(), &compared.json(&a, &b))),
                DiffFormat::Json => say_json(&compared.json(&a, &b)),
            }
            if compared.differ() { exit_code::FAILED } else { exit_code::OK }
        }
        Err((path, error)) => {
            notice(&format!("faultbox: {path}: {}", one_line(&error.to_string())));
            exit_code::BUNDLE
        }
    }
}

/// An error, and of which bundle.
type Failed = (String, ReadError);

/// One of the two bundles.
struct Side {
    path: String,
    bundle: Bundle,
    unix_ns: u64,
    seed: u64,
}

impl Side {
    fn open(path: &Path) -> Result<Self, Failed> {
        let path_shown = path.display().to_string();
        let failed = |error| (path_shown.clone(), error);
        let bundle = Bundle::open(path).map_err(failed)?;
        let run = bundle.raw_entries(0).map_err(failed)?;
        let started = run.iter().find_map(|entry| match &entry.body {
            Body::RunStarted(started) => Some((started.unix_ns, started.seed)),
            _ => None,
        });
        let (unix_ns, seed) = started.unwrap_or_default();
        Ok(Side { path: path_shown, bundle, unix_ns, seed })
    }

    fn entries(&self, cell: &CellSummary) -> Result<Vec<Entry>, Failed> {
        self.bundle.entries(cell.cell).map_err(|error| (self.path.clone(), error))
    }

    fn line(&self) -> String {
        let cells = counted(self.bundle.cells().len());
        format!("{}: {cells}, seed {}", one_line(&self.path), self.seed)
    }

    fn json(&self) -> Json {
        let digest = self.bundle.digest().map(|digest| hex(&digest));
        json!({ "bundle": self.path, "seed": self.seed, "complete": self.bundle.is_complete(), "digest": digest })
    }
}

/// Where two cells part first.
struct First {
    stream: String,
    at: usize,
    a: Option<String>,
    b: Option<String>,
    fields: Vec<Difference>,
}

/// A cell that is in both and not the same.
struct Changed {
    name: String,
    a: Told,
    b: Told,
    first: Option<First>,
    more: usize,
}

/// A verdict in words.
struct Told {
    word: &'static str,
    reason: String,
}

impl Told {
    fn of(verdict: Option<&Verdict>) -> Self {
        let word = terminal::mark(verdict.map(|verdict| verdict.ending));
        Told { word, reason: verdict.map(|verdict| verdict.reason.clone()).unwrap_or_default() }
    }

    fn text(&self) -> String {
        match self.reason.is_empty() {
            true => self.word.to_owned(),
            false => format!("{} ({})", self.word, one_line(&self.reason)),
        }
    }
}

#[derive(Default)]
struct Compared {
    only_a: Vec<String>,
    only_b: Vec<String>,
    changed: Vec<Changed>,
    same: usize,
}

impl Compared {
    fn of(a: &Side, b: &Side) -> Result<Self, Failed> {
        let mut compared = Compared::default();
        let named = |side: &Side, name: &str| side.bundle.cells().iter().position(|cell| cell.name == name);
        for cell in a.bundle.cells() {
            let other = named(b, &cell.name).and_then(|place| b.bundle.cells().get(place));
            match other {
                None => compared.only_a.push(cell.name.clone()),
                Some(other) => match changed(a, cell, b, other)? {
                    Some(changed) => compared.changed.push(changed),
                    None => compared.same += 1,
                },
            }
        }
        let new = b.bundle.cells().iter().filter(|cell| named(a, &cell.name).is_none());
        compared.only_b = new.map(|cell| cell.name.clone()).collect();
        Ok(compared)
    }

    fn differ(&self) -> bool {
        !(self.only_a.is_empty() && self.only_b.is_empty() && self.changed.is_empty())
    }

    fn human(&self, a: &Side, b: &Side) {
        say(&format!("A: {}\nB: {}\n", a.line(), b.line()));
        self.only_a.iter().for_each(|name| say(&format!("only in A: {}", one_line(name))));
        self.only_b.iter().for_each(|name| say(&format!("only in B: {}", one_line(name))));
        for cell in &self.changed {
            say(&format!("changed:   {}", one_line(&cell.name)));
            say(&format!("  A: {}\n  B: {}", cell.a.text(), cell.b.text()));
            if let Some(first) = &cell.first {
                say(&format!("  first at {} [{}]:", one_line(&first.stream), first.at));
                first.lines().iter().for_each(|line| say(&format!("    {line}")));
            }
            if cell.more > 0 {
                say(&format!("  and {} more", cell.more));
            }
        }
        say(&self.summary());
    }

    fn summary(&self) -> String {
        let Compared { only_a, only_b, changed, same } = self;
        match self.differ() {
            false => format!("no difference: {} of the same meaning", counted(*same)),
            true => format!(
                "{} changed, {} only in A, {} only in B, {same} the same",
                changed.len(),
                only_a.len(),
                only_b.len()
            ),
        }
    }

    fn markdown(&self, a: &Side, b: &Side) {
        say(&format!("A: {}  \nB: {}\n\n**{}**", code(&a.line()), code(&b.line()), self.summary()));
        if !self.differ() {
            return;
        }
        say("\n| cell | A | B |\n|---|---|---|");
        let row = |name: &str, a: &str, b: &str| say(&format!("| {} | {a} | {b} |", code(name)));
        for cell in &self.changed {
            let side = |told: &Told| match told.reason.is_empty() {
                true => told.word.to_owned(),
                false => format!("{}: {}", told.word, code(&told.reason)),
            };
            row(&cell.name, &side(&cell.a), &side(&cell.b));
        }
        self.only_a.iter().for_each(|name| row(name, "there", "missing"));
        self.only_b.iter().for_each(|name| row(name, "missing", "there"));
        for cell in &self.changed {
            let Some(first) = &cell.first else { continue };
            say(&format!(
                "\n{} first differs at {} [{}]:\n",
                code(&cell.name),
                code(&first.stream),
                first.at
            ));
            first.lines().iter().for_each(|line| say(&format!("- {}", code(line))));
        }
    }

    fn json(&self, a: &Side, b: &Side) -> Json {
        let changed = self.changed.iter().map(|cell| {
            let first = cell.first.as_ref().map(First::json);
            json!({
                "name": cell.name,
                "a": { "verdict": cell.a.word, "reason": cell.a.reason },
                "b": { "verdict": cell.b.word, "reason": cell.b.reason },
                "first": first,
                "more": cell.more,
            })
        });
        json!({
            "a": a.json(),
            "b": b.json(),
            "differ": self.differ(),
            "only_a": self.only_a,
            "only_b": self.only_b,
            "changed": changed.collect::<Vec<_>>(),
            "same": self.same,
        })
    }
}

impl First {
    fn lines(&self) -> Vec<String> {
        let side = |label: &Option<String>| label.as_deref().map_or("nothing".to_owned(), one_line);
        let mut lines = match (&self.a, &self.b) {
            (Some(a), Some(b)) if a == b => vec![one_line(a)],
            (a, b) => vec![format!("A: {}", side(a)), format!("B: {}", side(b))],
        };
        let field = |d: &Difference| {
            format!("{}: {} -> {}", one_line(&d.path), one_line(&d.recorded), one_line(&d.now))
        };
        lines.extend(self.fields.iter().take(FIELDS).map(field));
        let more = self.fields.len().saturating_sub(FIELDS);
        if more > 0 {
            lines.push(format!("and {more} more fields"));
        }
        lines
    }

    fn json(&self) -> Json {
        let fields = self.fields.iter().map(|d| json!({ "path": d.path, "a": d.recorded, "b": d.now }));
        json!({
            "stream": self.stream,
            "at": self.at,
            "a": self.a,
            "b": self.b,
            "fields": fields.collect::<Vec<_>>(),
        })
    }
}

/// What changed in a cell, if anything did.
fn changed(
    a: &Side,
    cell_a: &CellSummary,
    b: &Side,
    cell_b: &CellSummary,
) -> Result<Option<Changed>, Failed> {
    // All zeros: the recorder was not given one.
    let digest = cell_a.digest().filter(|digest| *digest != [0; 32]);
    if digest.is_some() && digest == cell_b.digest() {
        return Ok(None);
    }
    let (entries_a, entries_b) = (a.entries(cell_a)?, b.entries(cell_b)?);
    let found = session::compare(&entries_a, a.unix_ns, &entries_b, b.unix_ns, Policy::Default);
    let ended = |cell: &CellSummary| cell.verdict.as_ref().map(|verdict| verdict.ending);
    if found.is_empty() && ended(cell_a) == ended(cell_b) {
        return Ok(None);
    }
    let exchange = |entries: &[Entry], seq: &Option<u64>| {
        entries.iter().any(|entry| Some(entry.seq) == *seq && matches!(entry.body, Body::Exchange(_)))
    };
    // What was on the wire says more than what followed from it, and what one side lacks more than what
    // differs. A's come first, in its order: the numbers of the two journals are not comparable.
    let place = |divergence: &Divergence| match divergence {
        Divergence::Stream { recorded_seq, replayed_seq, .. } => {
            let wire = exchange(&entries_a, recorded_seq) || exchange(&entries_b, replayed_seq);
            let both = recorded_seq.is_some() && replayed_seq.is_some();
            (!wire, both, recorded_seq.is_none(), recorded_seq.or(*replayed_seq))
        }
        _ => (true, true, true, None),
    };
    let more = found.len().saturating_sub(1);
    let first = found.into_iter().min_by_key(place).and_then(|divergence| match divergence {
        Divergence::Stream { stream, at, recorded, replayed, differences, .. } => {
            Some(First { stream, at, a: recorded, b: replayed, fields: differences })
        }
        _ => None,
    });
    let (told_a, told_b) = (Told::of(cell_a.verdict.as_ref()), Told::of(cell_b.verdict.as_ref()));
    Ok(Some(Changed { name: cell_a.name.clone(), a: told_a, b: told_b, first, more }))
}

fn counted(cells: usize) -> String {
    if cells == 1 { "1 cell".to_owned() } else { format!("{cells} cells") }
}
