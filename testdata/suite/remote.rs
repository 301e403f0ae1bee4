//! `remote=`: a server that runs somewhere else is proxied, faulted and recorded like the others,
//! neither started nor stopped, and not needed by the replay.

use super::{cells, code, document, faultbox, orders_api, reasons, red, repository, run};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

const CELLS: [&str; 3] =
    ["test_create_order", "matrix_order_creation_cache_down", "matrix_order_listing_db_down"];

/// A server that is not Faultbox's to start: here a stand-in that this test starts itself.
struct Elsewhere {
    process: Child,
    port: u16,
}

impl Elsewhere {
    fn redis(folder: &std::path::Path) -> Elsewhere {
        // Free a moment ago; nobody else binds ports here while this suite runs.
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new(faultbox());
        command.args(["__standin", "redis", "--port", &port.to_string(), "--data"]).arg(folder);
        command.arg("--control").arg(folder.join("control"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Elsewhere { process, port }
    }

    fn is_there(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The chapter's spec, its cache being elsewhere.
fn spec(folder: &std::path::Path, address: &str) -> String {
    let copied = Command::new("cp").arg("-r").arg(repository("specs/orders")).arg(folder).status();
    assert!(copied.unwrap().success());
    let path = folder.join("orders/faultbox.star");
    let text = std::fs::read_to_string(&path).unwrap();
    let (declared, reused) =
        ("cache = service(\"cache\", image = \"redis:7-alpine\",", "    reuse = True,\n");
    let (before, after) = text.split_once(declared).expect("the chapter's cache");
    let (probe, patient) = ("tcp(\"localhost:6379\")", "tcp(\"localhost:6379\", timeout = \"2s\")");
    let after = after.replacen(reused, "", 1).replacen(probe, patient, 1);
    let text = format!("{before}cache = service(\"cache\", remote = \"{address}\",{after}");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_server_elsewhere_is_faulted_and_not_needed_to_replay() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("redis");
    std::fs::create_dir(&data).unwrap();
    let elsewhere = Elsewhere::redis(&data);
    let spec = spec(dir.path(), &format!("127.0.0.1:{}", elsewhere.port));
    let (bundle, binary) =
        (dir.path().join("remote.fb").display().to_string(), format!("api={}", orders_api().display()));
    let mut arguments = vec!["test", &spec, "--embedded", "--seed", "1", "--binary", &binary];
    arguments.extend(["--bundle", &bundle, "--format", "json"]);
    arguments.extend(CELLS.iter().flat_map(|cell| ["--test", cell]));
    let recorded = run(&arguments);
    let document_of = document(&recorded);
    assert_eq!(red(&document_of), Vec::<String>::new(), "{}", reasons(&document_of));
    assert_eq!(code(&recorded), 0);
    let fired = |name: &str| {
        let cell = cells(&document_of).iter().find(|cell| cell["name"] == name).unwrap();
        cell["faults"][0]["fired"].as_u64().unwrap()
    };
    assert!(fired("matrix_order_creation_cache_down") > 0);
    assert!(elsewhere.is_there(), "it was stopped");
    let port = elsewhere.port;
    drop(elsewhere);

    // Whoever is at the recorded address now hears nothing of the replay.
    let in_its_place = TcpListener::bind(("127.0.0.1", port)).unwrap();
    in_its_place.set_nonblocking(true).unwrap();
    let replayed = document(&run(&["replay", &bundle, "--format", "json"]));
    let inexact: Vec<_> = cells(&replayed).iter().filter(|cell| cell["exact"] != true).collect();
    assert!(inexact.is_empty() && cells(&replayed).len() == CELLS.len(), "{inexact:#?}");
    let heard = in_its_place.accept().map(|(_, from)| from);
    assert_eq!(heard.map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
    drop(in_its_place);

    let gone = run(&arguments);
    let said = document(&gone);
    // What cannot be set up once is not tried again.
    assert_eq!(red(&said).len(), 1);
    assert!(reasons(&said).contains("cache was not ready within 2s: 127.0.0.1:"), "{}", reasons(&said));
    assert_eq!(code(&gone), 4, "{}", reasons(&said));
}

#[test]
fn what_cannot_be_said_of_a_remote_service_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for (written, part) in [
        ("remote = \"mysql://db:3306\"", "is a host, or host:port"),
        ("remote = \"db\", reuse = True", "Faultbox does not start it"),
        ("remote = \"db:1\", interface(\"second\", \"tcp\", 2)", "names one port"),
        ("remote = \"db\", healthcheck = log(\"ready\")", "what it prints is not seen"),
    ] {
        let path = dir.path().join("remote.star");
        let text = format!(
            "db = service(\"db\", interface(\"main\", \"mysql\", 3306), {written})\ndef test_it(): pass\n"
        );
        std::fs::write(&path, text).unwrap();
        let output = run(&["test", &path.display().to_string(), "--dry-run"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 2, "{written}: {said}");
        assert!(said.contains(part) && said.contains("remote.star:1"), "{written}: {said}");
    }
}
