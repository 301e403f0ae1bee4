//! A bundle as text that is the same for every recording that means the same: for `git diff`.
//!
//! Contract: a function of what canonical forms keep: no times, ports, generated ids, tags of secrets, names of
//! files. Cells in their order, streams in order of their names, a field a line.

use crate::baseline::untagged;
use crate::report::tree;
use crate::terminal::{self, one_line, plain};
use faultbox_bundle_format::canonical::{self, Policy};
use faultbox_bundle_format::{Bundle, CellSummary, Ending, ReadError};

/// Bytes of one exchange that are shown.
const ITEM: usize = 16_384;

/// The text.
///
/// # Errors
/// When the bundle is damaged.
pub fn text(bundle: &Bundle) -> Result<String, ReadError> {
    let started = crate::export::run_started(bundle)?;
    let (spec, seed, unix_ns) =
        started.map_or((String::new(), 0, 0), |started| (started.spec, started.seed, started.unix_ns));
    let mut out = format!("spec {}\nseed {seed}\n", one_line(&spec));
    if !bundle.is_complete() {
        out.push_str("incomplete\n");
    }
    for cell in bundle.cells() {
        out.push_str(&format!("\ncell {}\n", one_line(&cell.name)));
        head(cell, &mut out);
        let canonical = canonical::of_cell(&bundle.entries(cell.cell)?, unix_ns, Policy::Default);
        for (name, items) in &canonical.streams {
            out.push_str(&format!("  {}\n", one_line(&untagged(name))));
            for item in items {
                let told = untagged(&tree::text(&item.value, ITEM));
                for line in told.lines() {
                    out.push_str(&format!("    {}\n", line.trim_end()));
                }
            }
        }
    }
    Ok(plain(&out).into_owned())
}

fn head(cell: &CellSummary, out: &mut String) {
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            out.push_str(&format!("  {name}: {}\n", one_line(&untagged(text))));
        }
    };
    line("wants", &cell.expectation);
    let Some(verdict) = &cell.verdict else { return line("verdict", "none") };
    line("verdict", terminal::word(verdict.ending));
    line("reason", &canonical::without_durations(&verdict.reason));
    if verdict.ending != Ending::Passed {
        line("whose", terminal::whose(verdict.blame));
    }
    // Whether a fault met something that the service does beside its work is timing.
    for count in &verdict.fired {
        line("fault", &format!("{} {} on {}", count.assumption, count.rule, count.target));
    }
}
