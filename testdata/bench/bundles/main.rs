//! What noting, writing, keeping and opening journal entries costs.
//!
//! Questions: what does an actor pay for an entry; how many a second reach the disk; which zstd level
//! and chunk size are worth it; how large is a bundle beside gzip-compressed JSON lines; what does a
//! reviewer wait for in a bundle of ten million entries. Method: entries of the kinds and sizes that
//! the proxies note (`events`), through the real journal and recorder into a file; times of single
//! entries are kept one by one, so that medians are medians; every bundle is read back and counted.
//! `cargo bench --workspace --bench bundles [-- all|noting|sustained|curve|size|reading [BUNDLE...]]`.

mod allocations;
mod events;
mod json;
mod reading;

use events::{Mix, Noter};
use faultbox_bundle_format::redact::Redactor;
use faultbox_bundle_format::writer::Tuning;
use faultbox_bundle_format::{Bundle, BundleWriter, Entry};
use faultbox_engine::clock::RunClock;
use faultbox_engine::event_sink::{EventSink, MemorySink, NullSink};
use faultbox_engine::journal::Journal;
use faultbox_engine::noted::{self, Noted};
use faultbox_recorder::Recorder;
use std::path::Path;
use std::sync::Arc;

/// Entries of one sustained run.
const SUSTAINED: u64 = 2_000_000;
/// Entries of which each is timed.
const TIMED: u64 = 200_000;
/// Entries in a burst; then the actor does something else, as a proxy does.
const BURST: u64 = 64;
/// Entries behind the curve and the sizes.
const SAMPLE: u64 = 100_000;

fn recorder(path: &Path) -> Arc<Recorder> {
    let header = faultbox_recorder::new_header().expect("a header");
    let secrets = [("MYSQL_ROOT_PASSWORD".to_owned(), "correct horse".to_owned())];
    let redactor = Redactor::new(&header.salt, secrets);
    Arc::new(Recorder::create(path, header, redactor).expect("a bundle"))
}

fn journal(sink: Arc<dyn EventSink>) -> Journal {
    Journal::new(sink, RunClock::start(), Arc::default(), 1, "cell")
}

/// Prints the distribution of single times.
fn distribution(what: &str, mut ns: Vec<u64>, allocations: u64) {
    ns.sort_unstable();
    let at = |share: f64| ns[((ns.len() - 1) as f64 * share) as usize];
    let per_entry = allocations as f64 / ns.len() as f64;
    println!(
        "  {what:<46} median {:>5} ns, p99 {:>6} ns, p99.9 {:>7} ns, allocations an entry {per_entry:.3}",
        at(0.5),
        at(0.99),
        at(0.999)
    );
}

/// What the actor pays: for its place in the recorder's queue, and for the whole of noting.
fn noting() {
    println!("Noting, {TIMED} entries in bursts of {BURST}, the time of reading the clock included:");
    let folder = tempfile::tempdir().expect("a folder");
    let clock = RunClock::start();
    let busy = || {
        (0..400u32).fold([0; 32], |hash, n| *blake3::hash(&[&hash[..], &n.to_le_bytes()].concat()).as_bytes())
    };
    for whole in [false, true] {
        let path = folder.path().join(format!("{whole}.fb"));
        let recorder = recorder(&path);
        let journal = journal(recorder.clone());
        let memory = Arc::new(MemorySink::default());
        let making = self::journal(memory.clone());
        let noter = Noter::new(Mix::Proxies);
        let (mut ns, mut allocated) = (Vec::with_capacity(TIMED as usize), 0);
        for burst in 0..TIMED / BURST {
            let numbers = burst * BURST..(burst + 1) * BURST;
            if whole {
                let said: Vec<_> = numbers.map(|n| noter.said(n)).collect();
                let before = allocations::count();
                for said in said {
                    let began = clock.now_ns();
                    journal.note_later(faultbox_bundle_format::Phase::Scenario, said);
                    ns.push(clock.now_ns() - began);
                }
                allocated += allocations::count() - before;
            } else {
                numbers.for_each(|n| noter.note(&making, n));
                let noted: Vec<Noted> =
                    memory.drain().into_iter().map(|entry| noted::later(move || entry)).collect();
                let before = allocations::count();
                for noted in noted {
                    let began = clock.now_ns();
                    recorder.take(noted);
                    ns.push(clock.now_ns() - began);
                }
                allocated += allocations::count() - before;
            }
            std::hint::black_box(busy());
        }
        let count = ns.len() as u64;
        distribution(if whole { "journal and recorder" } else { "recorder alone" }, ns, allocated);
        assert_eq!(count, entries_of(&recorder.finish().expect("a bundle")));
    }
    // The clock and the journal without a recorder, to take off.
    let (journal, noter) = (journal(Arc::new(NullSink)), Noter::new(Mix::Proxies));
    let mut ns = Vec::with_capacity(TIMED as usize);
    for n in 0..TIMED {
        let said = noter.said(n);
        let began = clock.now_ns();
        journal.note_later(faultbox_bundle_format::Phase::Scenario, said);
        ns.push(clock.now_ns() - began);
    }
    distribution("journal that forgets", ns, 0);
    let mut ns = Vec::with_capacity(TIMED as usize);
    for _ in 0..TIMED {
        let began = clock.now_ns();
        ns.push(clock.now_ns() - began);
    }
    distribution("reading the clock", ns, 0);
}

fn entries_of(path: &Path) -> u64 {
    Bundle::open(path).and_then(|bundle| bundle.verify()).expect("a whole bundle").entries
}

/// Entries a second from the first note to the bundle's name, as fast as actors can note them.
fn sustained() {
    println!("Sustained, {SUSTAINED} entries from the first note until the bundle has its name:");
    let folder = tempfile::tempdir().expect("a folder");
    let clock = RunClock::start();
    for mix in Mix::ALL {
        for actors in [1, 2] {
            let path = folder.path().join("sustained.fb");
            let recorder = recorder(&path);
            let journal = journal(recorder.clone());
            let began = clock.now_ns();
            std::thread::scope(|scope| {
                for actor in 0..actors {
                    let (journal, share) = (&journal, SUSTAINED / actors);
                    scope.spawn(move || {
                        let noter = Noter::new(mix);
                        (actor * share..(actor + 1) * share).for_each(|n| noter.note(journal, n));
                    });
                }
            });
            let noted = clock.now_ns() - began;
            let path = recorder.finish().expect("a bundle");
            let took = clock.now_ns() - began;
            let bytes = std::fs::metadata(&path).expect("a file").len();
            println!(
                "  {:<10} {actors} actors: {:>5.2} million a second (noting alone took {:.0}%), {:.1} bytes an entry",
                mix.name(),
                SUSTAINED as f64 * 1e3 / took as f64,
                noted as f64 * 100.0 / took as f64,
                bytes as f64 / SUSTAINED as f64
            );
            assert_eq!(entries_of(&path), SUSTAINED);
        }
    }
}

/// The same entries at each level and chunk size: what they cost one core, and the file's length.
fn curve(bundles: &[String]) {
    println!(
        "Level and chunk size, {SAMPLE} entries of the mix `proxies`, medians of 5: ns an entry, bytes an entry:"
    );
    let entries: Vec<Arc<Entry>> = events::entries(Mix::Proxies, SAMPLE).into_iter().map(Arc::new).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let clock = RunClock::start();
    let sizes = [16, 32, 64, 128, 256, 512, 1024];
    println!("  level {}", sizes.map(|kib| format!("{kib:>12} KiB")).concat());
    for level in [-3, 1, 2, 3, 4, 5, 6, 9] {
        let mut line = format!("  {level:>5} ");
        for kib in sizes {
            let mut ns: Vec<u64> = Vec::new();
            let mut bytes = 0;
            for _ in 0..5 {
                let path = folder.path().join("curve.fb");
                let header = faultbox_recorder::new_header().expect("a header");
                let tuning = Tuning { level, level_unhurried: level, chunk: kib * 1024 };
                let mut writer =
                    BundleWriter::<Arc<Entry>>::create_with(&path, header, tuning).expect("a bundle");
                let began = clock.now_ns();
                entries.iter().for_each(|entry| writer.take(entry.clone()).expect("an entry"));
                writer.flush().expect("the rest");
                ns.push(clock.now_ns() - began);
                bytes = std::fs::metadata(writer.finish().expect("a bundle")).expect("a file").len();
            }
            ns.sort_unstable();
            line += &format!("{:>6.0} /{:>6.1} ", ns[2] as f64 / SAMPLE as f64, bytes as f64 / SAMPLE as f64);
        }
        println!("{line}");
    }
    for path in bundles {
        let entries = json::entries(path);
        let sizes = [1, 2, 3, 6, 9, 12, 19].map(|level| {
            let header = faultbox_recorder::new_header().expect("a header");
            let tuning = Tuning { level, level_unhurried: level, ..Tuning::default() };
            let at = folder.path().join("level.fb");
            let mut writer = BundleWriter::<Entry>::create_with(&at, header, tuning).expect("a bundle");
            let began = clock.now_ns();
            entries.iter().for_each(|entry| writer.append(entry).expect("an entry"));
            let bytes = std::fs::metadata(writer.finish().expect("a bundle")).expect("a file").len();
            format!("level {level}: {bytes} bytes, {:.0} ms", (clock.now_ns() - began) as f64 / 1e6)
        });
        println!("  {path}: {}", sizes.join("; "));
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let (what, bundles) = args.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    match (what, bundles) {
        ("__write", [path]) => return reading::write(path.as_ref()),
        ("__read", [path]) => return reading::read(path.as_ref()),
        _ => {}
    }
    let wanted = |name: &str| matches!(what, "" | "all") || what == name;
    if wanted("noting") {
        noting();
    }
    if wanted("sustained") {
        sustained();
    }
    if wanted("curve") {
        curve(bundles);
    }
    if wanted("size") {
        json::sizes(bundles);
    }
    if wanted("reading") {
        reading::measure();
    }
}
