//! Time that is skipped, as programs see it.
//!
//! Goal: a wait costs no time, ends by what it waits for where that comes first, and waits end in their order.
//! Nothing is timed: a guest waits for hours, and a test that hangs fails.

use super::{Lines, compiled, plan, whole_output};
use faultbox_engine::determinism::Mediation;
use faultbox_engine::supervisor::{Exit, Launch, Quiet, Running, launch, this_process};
use faultbox_engine::virtual_time::{Elsewhere, Time, VirtualTime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const HOUR: Duration = Duration::from_secs(3600);

/// The guest in this mode; time is skipped while this process rests and nothing is said to be under way elsewhere.
fn guest(mode: &str, flags: &[&str]) -> (Launch, Arc<VirtualTime>, Arc<AtomicBool>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let program = compiled(dir.path(), "waits", &[&["-pthread"], flags].concat());
    let busy = Arc::new(AtomicBool::new(false));
    let (elsewhere, here) = (busy.clone(), this_process());
    let rests: Elsewhere =
        Box::new(move |keepers| (!elsewhere.load(Ordering::SeqCst)).then(|| here(keepers)).flatten());
    let time = VirtualTime::new(rests);
    let mediation = Mediation { time: Some(time.clone()), ..Mediation::default() };
    let args = vec![mode.to_owned()];
    (Launch { program, args, mediation, declared_ports: vec![7000], ..plan(&[]) }, time, busy, dir)
}

/// All that the guest says, waited for by this time.
async fn output_in(time: &Arc<VirtualTime>, running: &mut Running) -> String {
    Time::skipping(time.clone()).timeout(HOUR * 1000, whole_output(running)).await.unwrap()
}

pub async fn waits_cost_no_time() {
    for flags in [&[][..], &["-static"]] {
        let (launched, time, _busy, _dir) = guest("all", flags);
        let skipping = time.skip();
        let mut running = launch(launched, Arc::new(Quiet)).await.unwrap();
        let said = output_in(&time, &mut running).await;
        drop(skipping);
        let said: Vec<&str> = said.lines().collect();
        assert_eq!(
            said,
            [
                "nanosleep 0: 1 1 1 1 1",
                "clock_nanosleep 0: 1 1 1 1 1",
                "clock_nanosleep of the day 0: 1 1 1 1 1",
                "poll 0: 1 1 1 1 1",
                "ppoll 0: 1 1 1 1 1",
                "select 0: 1 1 1 1 1",
                "epoll_wait 0: 1 1 1 1 1",
                "sem_timedwait -1: 1 1 1 1 1",
                "pthread_cond_timedwait 1: 1 1 1 1 1",
                "timerfd 8: 1 1 1 1 1",
                "timerfd at an instant 8: 1 1 1 1 1",
            ],
            "{flags:?}"
        );
        assert!(time.sum().skipped > HOUR * 10, "{:?}", time.sum().skipped);
        assert_eq!((time.real(), running.trouble()), (Default::default(), None));
    }
}

pub async fn waits_end_in_their_order() {
    let (launched, time, _busy, _dir) = guest("order", &[]);
    let _skipping = time.skip();
    let mut running = launch(launched, Arc::new(Quiet)).await.unwrap();
    assert_eq!(output_in(&time, &mut running).await, "1\n2\n3\nbackwards 0\n");
}

pub async fn what_comes_wins_over_the_time() {
    let (launched, time, busy, _dir) = guest("input", &[]);
    busy.store(true, Ordering::SeqCst);
    let _skipping = time.skip();
    let mut running = launch(launched, Arc::new(Quiet)).await.unwrap();
    let mut lines = Lines::of(&mut running);
    assert_eq!(lines.next().await, "listens");
    let mut stream = running.dial(7000).dial().await.unwrap();
    assert_eq!(lines.next().await, "poll 1: 0 0 0 0 0");
    stream.write_all(b"x").await.unwrap();
    assert_eq!(lines.next().await, "epoll_wait 1: 0 0 0 0 0");
    assert_eq!(lines.next().await, "event 1 7 byte 1");
    assert_eq!((running.exited().await, time.sum().skipped), (Exit::Code(0), Duration::ZERO));
}

pub async fn a_signal_ends_a_wait_and_a_timer_that_sends_one_ends_the_skipping() {
    let (launched, time, busy, _dir) = guest("signals", &[]);
    busy.store(true, Ordering::SeqCst);
    let mut running = launch(launched, Arc::new(Quiet)).await.unwrap();
    let mut lines = Lines::of(&mut running);
    assert_eq!(lines.next().await, "waits");
    // One that comes before it waits ends nothing: then another one is sent.
    let ended = loop {
        running.signal(libc::SIGUSR1);
        if let Ok(line) = tokio::time::timeout(Duration::from_millis(20), lines.next()).await {
            break line;
        }
    };
    assert_eq!(ended, "nanosleep 1: 0 0 0 0 0");
    assert_eq!(lines.next().await, "sets an alarm");
    assert_eq!(running.exited().await, Exit::Code(0));
    let real: Vec<(String, String)> = time.real().into_iter().collect();
    assert_eq!(real, [("guest".to_owned(), "it uses timers that send signals".to_owned())]);
}
