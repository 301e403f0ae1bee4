//! What real servers pay for a filter on `write` while no rule is active: Redis asked by `redis-benchmark`, MariaDB
//! asked by `sysbench`.
//!
//! Method: each server runs twice as a service, once without a filter and once with every call of the family `write`
//! trapped and let pass; both are up together, on sockets of their own, and take turns. Figures are what the client
//! says, medians of the rounds.

use super::clock::{median, service};
use faultbox_engine::supervisor::{Launch, Quiet, Running, launch};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Turns of each way.
const ROUNDS: usize = 5;
/// Transactions of `sysbench` in a turn, of 20 statements each, from four threads.
const TRANSACTIONS: &str = "400";
/// What `redis-benchmark`'s 50 clients ask before they wait for an answer, and how much in a turn.
const PIPELINES: [(&str, &str); 2] = [("1", "100000"), ("16", "1000000")];
/// How often a server that starts is asked whether it has.
const OFTEN: Duration = Duration::from_millis(50);

/// A server, up.
struct Up {
    running: Running,
    socket: PathBuf,
}

impl Up {
    /// Starts a server and waits until its socket is there.
    async fn start(program: &str, args: &[String], socket: PathBuf, filtered: bool) -> Up {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let families = if filtered { ["write".to_owned()].into() } else { Default::default() };
        let program = std::fs::canonicalize(program).expect("a program");
        let mut running = launch(Launch { program, families, ..service("server", &args) }, Arc::new(Quiet))
            .await
            .expect("a server");
        let mut output = running.output().expect("its output");
        // Nobody reads it; it must not be in its way.
        tokio::spawn(async move { while output.recv().await.is_some() {} });
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(OFTEN).await;
        }
        Up { running, socket }
    }

    async fn end(self) {
        self.running.stop(Duration::from_secs(10)).await;
    }
}

/// What a client prints.
fn said(program: &str, args: &[&str]) -> String {
    let said = Command::new(program).args(args).output().expect("a client");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&said.stderr));
    text
}

fn line(what: &str, plain: &mut [f64], filtered: &mut [f64]) {
    let (plain, filtered) = (median(plain), median(filtered));
    println!("  {what:<34} {plain:>8.0} without a filter, {filtered:>8.0} under it: {:.2}", filtered / plain);
}

/// Prints both servers' figures. `programs`: `redis-server`, `redis-benchmark`, `mariadbd`, `sysbench`.
pub async fn measure(programs: &[String]) {
    let [redis, redis_benchmark, mariadb, sysbench] = programs else {
        panic!("wanted: REDIS_SERVER REDIS_BENCHMARK MARIADBD SYSBENCH");
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!(
        "Servers with each call of the family write trapped and no rule active, a second, median of {ROUNDS}:"
    );
    ask_redis(redis, redis_benchmark, folder.path()).await;
    ask_mariadb(mariadb, sysbench, folder.path()).await;
}

async fn ask_redis(server: &str, client: &str, folder: &Path) {
    let mut ways = Vec::new();
    for filtered in [false, true] {
        let socket = folder.join(format!("redis-{filtered}"));
        let args = ["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"];
        let args: Vec<String> =
            args.map(str::to_owned).into_iter().chain([socket.display().to_string()]).collect();
        ways.push(Up::start(server, &args, socket, filtered).await);
    }
    for (pipeline, requests) in PIPELINES {
        // By command: the rates without a filter and with one.
        let mut rates = [("SET", [Vec::new(), Vec::new()]), ("GET", [Vec::new(), Vec::new()])];
        for _ in 0..ROUNDS {
            for (way, up) in ways.iter().enumerate() {
                let socket = up.socket.display().to_string();
                let args = ["-s", &socket, "-t", "set,get", "-n", requests, "-P", pipeline, "--csv"];
                let csv = said(client, &args);
                for (command, rates) in &mut rates {
                    let begins = format!("\"{command}\",\"");
                    let rate = csv
                        .lines()
                        .find_map(|line| line.strip_prefix(&begins)?.split('"').next()?.parse().ok());
                    rates[way].push(rate.expect("a rate"));
                }
            }
        }
        for (command, [plain, filtered]) in &mut rates {
            line(&format!("Redis {command}, {pipeline} at a time, requests"), plain, filtered);
        }
    }
    for up in ways {
        up.end().await;
    }
}

async fn ask_mariadb(server: &str, client: &str, folder: &Path) {
    let mut ways = Vec::new();
    for filtered in [false, true] {
        let data = folder.join(format!("mariadb-{filtered}"));
        // A folder is a database.
        std::fs::create_dir_all(data.join("sbtest")).expect("a folder");
        let socket = data.join("socket");
        let args = [
            "--no-defaults".to_owned(),
            "--user=root".to_owned(),
            format!("--datadir={}", data.display()),
            format!("--socket={}", socket.display()),
            "--skip-networking".to_owned(),
            "--skip-grant-tables".to_owned(),
        ];
        ways.push(Up::start(server, &args, socket, filtered).await);
    }
    let ask = |up: &Up, what: &str| {
        let socket = format!("--mysql-socket={}", up.socket.display());
        let events = format!("--events={TRANSACTIONS}");
        let args =
            ["oltp_read_write", &socket, "--mysql-user=root", "--table-size=1000", "--threads=4", "--time=0"];
        said(client, &[&args[..], &[&events, what]].concat())
    };
    for up in &ways {
        ask(up, "prepare");
    }
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (up, rates) in ways.iter().zip(&mut rates) {
            let text = ask(up, "run");
            let per = text.lines().find(|line| line.trim_start().starts_with("transactions:"));
            let rate = per.and_then(|line| line.split_once('(')?.1.split_whitespace().next()?.parse().ok());
            rates.push(rate.expect("a rate"));
        }
    }
    let [plain, filtered] = &mut rates;
    line("MariaDB oltp_read_write, transactions", plain, filtered);
    for up in ways {
        up.end().await;
    }
}
