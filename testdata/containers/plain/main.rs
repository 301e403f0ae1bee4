//! A service without a C library or a shell around it: compiled to a static program, alone in its
//! image. The tests compile it; it is no part of the workspace.
//!
//! `/status` who it is and what it is under, `/write` writes a file, `/ask` asks the Redis at
//! `UPSTREAM`, `/via` asks another one of its kind at `RELAY` to do so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("its port");
    for stream in listener.incoming().flatten() {
        // One that sends nothing sensible gets nothing.
        std::thread::spawn(move || serve(stream));
    }
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let answer = match request.split(' ').nth(1) {
        Some("/status") => status(),
        Some("/write") => std::fs::write("/data/written", "x").map(|()| "written".to_owned()),
        Some("/ask") => ask(),
        Some("/via") => via(),
        _ => Ok("plain".to_owned()),
    };
    let (code, body) = match answer {
        Ok(body) => ("200 OK", body),
        Err(error) => ("500 Internal Server Error", format!("os error {:?}", error.raw_os_error())),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {code}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

fn status() -> std::io::Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let wanted = ["Uid:", "NoNewPrivs:", "Seccomp:", "Seccomp_filters:"];
    let lines = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(lines.map(words).collect::<Vec<_>>().join("\n"))
}

fn upstream(name: &str) -> std::io::Result<TcpStream> {
    TcpStream::connect(std::env::var(name).map_err(std::io::Error::other)?)
}

fn ask() -> std::io::Result<String> {
    let mut redis = upstream("UPSTREAM")?;
    redis.write_all(b"*2\r\n$3\r\nGET\r\n$4\r\nword\r\n")?;
    let mut answer = BufReader::new(redis).lines();
    let mut line = || answer.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()));
    line()?;
    line()
}

fn via() -> std::io::Result<String> {
    let mut relay = upstream("RELAY")?;
    relay.write_all(b"GET /ask HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    relay.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::from_raw_os_error(71)),
    }
}
