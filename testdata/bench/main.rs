//! Requests per second through each proxy with no rule installed.
//!
//! Question: what does a service pay for standing behind a proxy that decodes and journals
//! everything it says? Method: one client on one connection asks one server three ways: directly,
//! through a plain byte-copying proxy, and through ours with a recorder that writes a bundle.
//! Client, proxy and server are processes of their own; the three ways take turns in short rounds,
//! so that they share the machine's noise; figures are ratios of medians over the rounds. At the
//! end the bundle must hold an entry for every request that was made.
//! `cargo bench --workspace --bench proxies [-- NAME...]`. The same executable reads what cells cost
//! out of bundles (`cells`), replays (`redrive`) and runs (`recording`), and what a read of the clock (`clock`) and a
//! trapped syscall (`syscalls`) cost, what real servers pay for a filter (`servers`), and what another recorder of HTTP
//! does (`peer MITMDUMP`), for `.ci/bench`.

mod cells;
mod clients;
mod clock;
mod parts;
mod peer;
mod servers;
mod syscalls;

use clients::{Client, KINDS, Kind};
use faultbox_engine::clock::RunClock;
use parts::Part;
use std::time::Duration;

/// As in the command itself; the other parts have it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of each way.
const ROUNDS: usize = 40;
/// How long one way is measured in a round.
const ROUND: Duration = Duration::from_millis(60);
/// Requests before the first round, of each way.
const WARM: usize = 300;
/// Of direct, on one connection.
const AIM_OF_DIRECT: f64 = 0.6;
/// Of a plain byte-copying proxy.
const AIM_OF_COPY: f64 = 0.75;

/// How the client reaches the server.
const WAYS: [&str; 3] = ["direct", "copy", "proxy"];

/// One way, up and connected.
struct Way {
    client: Client,
    /// In the order in which they end.
    parts: Vec<Part>,
    asked: u64,
    rates: Vec<f64>,
    latencies: Vec<u64>,
}

impl Way {
    async fn open(kind: &'static Kind, way: &str, folder: &std::path::Path) -> Way {
        let middle = match way {
            "copy" => Some(Part::start(&["__copy"])),
            "proxy" => Some(Part::start(&["__proxy", kind.protocol, &folder.display().to_string()])),
            _ => None,
        };
        let data = folder.join(format!("{way}-server"));
        std::fs::create_dir_all(&data).expect("a folder for the server");
        let seen_at = middle.as_ref().map_or(0, |middle| middle.port).to_string();
        let server = Part::start(&["__server", kind.protocol, &data.display().to_string(), &seen_at]);
        let mut parts = Vec::from_iter(middle);
        let port = match parts.first_mut() {
            Some(middle) => {
                middle.tell(&server.port.to_string());
                middle.port
            }
            None => server.port,
        };
        parts.push(server);
        Way::over(Client::connect(kind, port).await, parts)
    }

    fn over(client: Client, parts: Vec<Part>) -> Way {
        Way { client, parts, asked: 0, rates: Vec::new(), latencies: Vec::new() }
    }

    async fn warm(&mut self) {
        for _ in 0..WARM {
            self.client.ask().await;
        }
        self.asked += WARM as u64;
    }

    async fn round(&mut self, clock: &RunClock) {
        let began = clock.now_ns();
        let (mut last, mut count) = (began, 0u64);
        while last - began < ROUND.as_nanos() as u64 {
            self.client.ask().await;
            let now = clock.now_ns();
            self.latencies.push(now - last);
            (last, count) = (now, count + 1);
        }
        self.asked += count;
        self.rates.push((count * self.client.kind.batch) as f64 * 1e9 / (last - began) as f64);
    }

    /// Ends what runs. Says how many entries the proxy's bundle holds.
    fn end(self) -> Option<u64> {
        drop(self.client);
        let ends: Vec<String> = self.parts.into_iter().map(Part::end).collect();
        ends.first().and_then(|end| end.trim().parse().ok())
    }

    fn rate(&mut self) -> f64 {
        median(&mut self.rates)
    }

    /// Microseconds that this share of the requests stayed below.
    fn latency(&mut self, share: f64) -> f64 {
        self.latencies.sort_unstable();
        self.latencies[(self.latencies.len() as f64 * share) as usize] as f64 / 1000.0
    }
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

async fn measure(kind: &'static Kind) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clock = RunClock::start();
    let mut ways = Vec::new();
    for way in WAYS {
        let mut way = Way::open(kind, way, folder.path()).await;
        way.warm().await;
        ways.push(way);
    }
    for _ in 0..ROUNDS {
        for way in &mut ways {
            way.round(&clock).await;
            if let Some(middle) = way.parts.first_mut() {
                middle.next_round();
            }
        }
    }
    let rates: Vec<f64> = ways.iter_mut().map(Way::rate).collect();
    let (of_direct, of_copy) = (rates[2] / rates[0], rates[2] / rates[1]);
    let mut line = format!("  {:<26}", kind.name);
    for (way, name) in ways.iter_mut().zip(WAYS) {
        let figures = (way.rate(), way.latency(0.5), way.latency(0.99));
        line += &format!("{name} {:>7.0} ({:.0}, {:.0})  ", figures.0, figures.1, figures.2);
    }
    println!(
        "{line}of direct {of_direct:.2}, of copy {of_copy:.2}  (copy of direct {:.2})",
        rates[1] / rates[0]
    );
    let proxy = ways.pop().expect("three ways");
    let asked = proxy.asked * kind.batch;
    ways.into_iter().for_each(|way| {
        way.end();
    });
    let noted = proxy.end().expect("the proxy says how many entries its bundle holds");
    assert!(noted >= asked, "{}: {asked} requests and only {noted} entries", kind.name);
    let mut missed = Vec::new();
    if of_direct < AIM_OF_DIRECT {
        missed.push(format!("{} of direct {of_direct:.2} (aim {AIM_OF_DIRECT})", kind.name));
    }
    if of_copy < AIM_OF_COPY {
        missed.push(format!("{} of copy {of_copy:.2} (aim {AIM_OF_COPY})", kind.name));
    }
    missed
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.split_first() {
        Some((first, paths)) if first == "cells" => return cells::around(paths),
        Some((first, paths)) if first == "redrive" => return cells::redrive(paths),
        Some((first, paths)) if first == "recording" => return cells::recording(paths),
        // Before there is any other thread.
        Some((first, _)) if first == "__launch" => {
            let _ = faultbox_engine::supervisor::launcher_main();
            return;
        }
        Some((first, _)) if first == "__clock" => return clock::guest(),
        Some((first, paths)) if first == "__writes" => return syscalls::guest(paths),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    if args.first().is_some_and(|arg| arg.starts_with("__")) {
        return parts::run(&runtime, &args);
    }
    if args.first().is_some_and(|arg| arg == "clock") {
        return runtime.block_on(clock::reads());
    }
    if args.first().is_some_and(|arg| arg == "syscalls") {
        return runtime.block_on(syscalls::writes());
    }
    if let Some(("servers", programs)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return runtime.block_on(servers::measure(programs));
    }
    if let ["peer", program] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let program = program.to_owned();
        let measured = runtime.spawn(async move { peer::measure(&program).await });
        return runtime.block_on(measured).expect("a measurement");
    }
    let kinds = KINDS.iter().filter(|kind| args.is_empty() || args.iter().any(|arg| kind.name.contains(arg)));
    println!("Requests per second on one connection (p50, p99 in microseconds), no rule, journal on:");
    let mut missed = Vec::new();
    for kind in kinds {
        // On a worker, where a service's own code runs.
        missed.extend(runtime.block_on(runtime.spawn(measure(kind))).expect("a measurement"));
    }
    match missed.is_empty() {
        true => {
            println!("  all meet the aims: {AIM_OF_DIRECT} of direct, {AIM_OF_COPY} of a byte-copying proxy")
        }
        false => println!("  below the aims: {}", missed.join("; ")),
    }
}
