//! What cells cost beside their scenarios: from bundles, and from what `replay` printed.

use faultbox_bundle_format::{Body, Bundle, ServiceStarted, own_start_ns};
use std::collections::BTreeMap;
use std::path::Path;

/// Set-up and tear-down of a cell, milliseconds.
const LIMIT_MS: f64 = 150.0;

/// One recorded cell, milliseconds.
struct Cell {
    whole: f64,
    /// All but the scenario and what the service under test itself needs to start.
    around: f64,
    /// Whether a container or stand-in had to start.
    cold: bool,
}

fn cells(path: &str) -> BTreeMap<String, Cell> {
    let bundle = Bundle::open(Path::new(path)).expect("a bundle");
    let mut cells = BTreeMap::new();
    for summary in bundle.cells() {
        let Some(verdict) = &summary.verdict else { continue };
        let entries = bundle.entries(summary.cell).expect("entries");
        let own = own_start_ns(&entries);
        let other = |started: &ServiceStarted| started.digest.is_none() && started.pid != 0;
        let cold = entries.iter().any(|e| matches!(&e.body, Body::ServiceStarted(started) if other(started)));
        let ms = |ns: u64| ns as f64 / 1e6;
        let around = ms(verdict.cell_ns.saturating_sub(verdict.scenario_ns + own));
        cells.insert(summary.name.clone(), Cell { whole: ms(verdict.cell_ns), around, cold });
    }
    cells
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `cells BUNDLE [OTHER]`: set-up and tear-down of each run, and the time of the first against the other's.
pub fn around(paths: &[String]) {
    let runs: Vec<_> = paths.iter().map(|path| cells(path)).collect();
    for (path, run) in paths.iter().zip(&runs) {
        let warm: Vec<f64> = run.values().filter(|cell| !cell.cold).map(|cell| cell.around).collect();
        let name = Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (count, most) = (warm.len(), warm.iter().copied().fold(0.0, f64::max));
        let above = warm.iter().filter(|around| **around > LIMIT_MS).count();
        println!(
            "  {name}: set-up and tear-down beside the service's own start: median {:.0}ms, most {most:.0}ms \
             (limit {LIMIT_MS:.0}ms, above it: {above} of {count} cells in which nothing else had to start)",
            median(warm)
        );
        for (name, cell) in run.iter().filter(|(_, cell)| !cell.cold && cell.around > LIMIT_MS) {
            println!("    {name}: {:.0}ms", cell.around);
        }
    }
    if let [one, other] = runs.as_slice() {
        let both: Vec<_> = one
            .iter()
            .filter_map(|(name, cell)| Some((cell, other.get(name)?)))
            .filter(|(one, other)| !one.cold && !other.cold)
            .collect();
        let (of_one, of_other): (f64, f64) =
            both.iter().fold((0.0, 0.0), |sum, (a, b)| (sum.0 + a.whole, sum.1 + b.whole));
        println!(
            "  the {} cells in which nothing had to start in either: {of_one:.0}ms against {of_other:.0}ms, ratio {:.2}",
            both.len(),
            of_one / of_other
        );
    }
}

/// What a cell took one way and the other, milliseconds.
#[derive(Default)]
struct Times {
    before: Vec<f64>,
    after: Vec<f64>,
}

/// Each cell of what `test` or `replay` printed.
fn printed(path: &str) -> Vec<(String, serde_json::Value)> {
    let text = std::fs::read_to_string(path).expect("what a run printed");
    let document: serde_json::Value = serde_json::from_str(&text).expect("a document");
    let cells = document["cells"].as_array().expect("cells");
    cells.iter().map(|cell| (cell["name"].as_str().expect("a name").to_owned(), cell.clone())).collect()
}

/// `recording PLAIN.json... -- RECORDED.json...`: each cell's median over the runs without a bundle against its
/// median over those with one.
pub fn recording(paths: &[String]) {
    let mut cells = BTreeMap::<String, Times>::new();
    let mut recorded = false;
    for path in paths {
        if path == "--" {
            recorded = true;
            continue;
        }
        for (name, cell) in printed(path) {
            let times = cells.entry(name).or_default();
            let times = if recorded { &mut times.after } else { &mut times.before };
            times.push(cell["cell_ms"].as_f64().expect("a time"));
        }
    }
    against("whole cells", ["without a bundle", "with one"], cells);
}

/// `redrive REPLAY.json...`: each cell's median over the replays against its median over the recordings,
/// whole, and beside what the service under test itself took to start.
pub fn redrive(paths: &[String]) {
    let (mut whole, mut beside) = (BTreeMap::<String, Times>::new(), BTreeMap::<String, Times>::new());
    for path in paths {
        for (name, cell) in printed(path) {
            let time = |field: &str| cell[field].as_f64().expect("a time");
            let times = whole.entry(name.clone()).or_default();
            times.before.push(time("recorded_cell_ms"));
            times.after.push(time("cell_ms"));
            let times = beside.entry(name).or_default();
            times.before.push(time("recorded_cell_ms") - time("recorded_start_ms"));
            times.after.push(time("cell_ms") - time("start_ms"));
        }
    }
    for (what, cells) in [("whole cells", whole), ("beside the service's own start", beside)] {
        against(&format!("{what}, medians of {}", paths.len()), ["recorded", "replayed"], cells);
    }
}

fn against(what: &str, [before, after]: [&str; 2], cells: BTreeMap<String, Times>) {
    let medians: Vec<_> =
        cells.into_iter().map(|(name, times)| (name, median(times.before), median(times.after))).collect();
    let (was, now) = medians.iter().fold((0.0, 0.0), |sum, (_, was, now)| (sum.0 + was, sum.1 + now));
    let slower: Vec<_> = medians.iter().filter(|(_, was, now)| now > was).collect();
    println!(
        "  {what}: {} cells, {was:.0}ms {before}, {now:.0}ms {after}, ratio {:.2}; {} slower",
        medians.len(),
        now / was,
        slower.len(),
    );
    for (name, was, now) in slower {
        println!("    {name}: {was:.0}ms, {now:.0}ms");
    }
}
