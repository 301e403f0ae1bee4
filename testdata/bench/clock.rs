//! What a read of the clock costs a service: the host's own, a virtual one, and one that is watched.
//!
//! Method: this executable as a service under the supervisor reads the wall clock and the monotonic clock
//! many times; the three ways take turns, and the median of their rounds is printed. The service measures
//! with its monotonic clock, which is the host's in each way.

use faultbox_engine::clock::RunClock;
use faultbox_engine::determinism::Mediation;
use faultbox_engine::supervisor::{Exit, Isolation, Launch, Output, Quiet, SyscallPolicy, launch};
use nix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

/// Turns of each way.
const ROUNDS: usize = 7;
/// Reads of a clock in a turn.
const READS: u64 = 100_000;
/// A pushed clock's read, nanoseconds.
const AIM_PUSHED: f64 = 10.0;
/// A trapped one's.
const AIM_TRAPPED: f64 = 8000.0;

const WAYS: [&str; 3] = ["native", "virtual", "watched"];

/// The service: prints nanoseconds a read of the wall clock and of the monotonic one.
pub fn guest() {
    let clock = RunClock::start();
    let each = |read: &dyn Fn() -> u64| {
        let began = clock.now_ns();
        (0..READS).for_each(|_| {
            black_box(read());
        });
        (clock.now_ns() - began) as f64 / READS as f64
    };
    // The read itself (clock_gettime(2)), without what a language's library makes of it.
    let read = |id| move || clock_gettime(id).expect("a clock").tv_nsec().cast_unsigned();
    println!("{} {}", each(&read(ClockId::CLOCK_REALTIME)), each(&read(ClockId::CLOCK_MONOTONIC)));
}

/// Prints what a read costs in each way.
pub async fn reads() {
    let mut seen = [(); WAYS.len()].map(|()| (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        for (way, (wall, monotonic)) in WAYS.into_iter().zip(&mut seen) {
            let said = run(way).await;
            let mut figures = said.split_whitespace().map(|figure| figure.parse::<f64>().expect("a figure"));
            wall.extend(figures.next());
            monotonic.extend(figures.next());
        }
    }
    println!("A read of the clock by a service, nanoseconds, median of {ROUNDS} times {READS} reads:");
    for (way, (wall, monotonic)) in WAYS.into_iter().zip(&mut seen) {
        let (wall, monotonic) = (median(wall), median(monotonic));
        let aim = match way {
            "virtual" => format!(" (aim {AIM_PUSHED}{})", if wall < AIM_PUSHED { "" } else { ", MISSED" }),
            "watched" => format!(" (aim {AIM_TRAPPED}{})", if wall < AIM_TRAPPED { "" } else { ", MISSED" }),
            _ => String::new(),
        };
        println!("  {way:<8} wall clock {wall:.1}{aim}, monotonic clock {monotonic:.1}");
    }
}

async fn run(way: &str) -> String {
    let mediation = match way {
        "virtual" => Mediation { clock: Some(Arc::default()), ..Mediation::default() },
        "watched" => Mediation { watched: true, ..Mediation::default() },
        _ => Mediation::default(),
    };
    said(Launch { mediation, ..service(way, &["__clock"]) }, Arc::new(Quiet)).await
}

/// This executable as a service, with these arguments.
pub fn service(name: &str, args: &[&str]) -> Launch {
    let me = std::env::current_exe().expect("this executable");
    Launch {
        service: name.to_owned(),
        launcher: me.clone(),
        program: me,
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        isolation: Isolation::Shared,
        names: Vec::new(),
        listen: Vec::new(),
        declared_ports: Vec::new(),
        families: Default::default(),
        mediation: Mediation::default(),
    }
}

/// What a service says until it ends.
pub async fn said(service: Launch, policy: Arc<dyn SyscallPolicy>) -> String {
    let mut running = launch(service, policy).await.expect("a service");
    let mut output = running.output().expect("its output");
    let mut said = Vec::new();
    while let Some(Output { bytes, .. }) = output.recv().await {
        said.extend(bytes);
    }
    assert_eq!(running.exited().await, Exit::Code(0), "{}", String::from_utf8_lossy(&said));
    String::from_utf8(said).expect("text")
}

/// The one in the middle.
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
