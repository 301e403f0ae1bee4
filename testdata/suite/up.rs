//! `faultbox up`: the stack of a spec without its tests, asked from this host, and gone afterwards.

use super::{code, faultbox, orders_api, repository, run};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a server says to a few bytes; `None` where nobody is there.
fn ask(address: &str, request: &[u8]) -> Option<String> {
    let mut server = TcpStream::connect(address).ok()?;
    server.write_all(request).unwrap();
    let mut said = [0; 512];
    let length = server.read(&mut said).unwrap();
    Some(String::from_utf8_lossy(&said[..length]).into_owned())
}

#[test]
fn a_stack_answers_on_this_host_until_it_is_interrupted_and_leaves_nothing() {
    let (spec, api) = (repository("specs/orders/faultbox.star"), orders_api());
    let mut up = Command::new(faultbox())
        .arg("up")
        .arg(spec)
        .args(["--embedded", "--seed", "1", "--format", "json", "--binary"])
        .arg(format!("api={}", api.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told = up.stdout.take().unwrap();
    let told: Value = serde_json::Deserializer::from_reader(told).into_iter().next().unwrap().unwrap();
    let services = told["services"].as_array().unwrap();
    let service = |name: &str| services.iter().find(|service| service["name"] == name).unwrap();
    let address = |name: &str, way: &str| {
        service(name)["interfaces"][0][way].as_str().unwrap_or_else(|| panic!("{told}")).to_owned()
    };
    assert_eq!(services.len(), 8, "{told}");
    let health = b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\n";
    for way in ["proxied", "direct"] {
        let said = ask(&address("api", way), health).unwrap();
        assert!(said.starts_with("HTTP/1.1 200"), "{way}: {said}");
        let pong = ask(&address("cache", way), b"*1\r\n$4\r\nPING\r\n").unwrap();
        assert_eq!(pong, "+PONG\r\n", "{way}");
        let keys = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: auth\r\n\r\n";
        assert!(ask(&address("auth", way), keys).unwrap().starts_with("HTTP/1.1 200"), "{way}");
    }
    let processes: Vec<String> =
        services.iter().filter_map(|service| Some(format!("/proc/{}", service["pid"].as_u64()?))).collect();
    assert_eq!(processes.len(), 4, "three stand-ins and the service: {told}");
    assert!(processes.iter().all(|process| Path::new(process).exists()), "{processes:?}");

    let folder = std::env::temp_dir().join(format!("faultbox-{}", up.id()));
    assert!(folder.is_dir());
    let killed = Command::new("kill").args(["-INT", &up.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = up.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(&output), 0, "{said}");
    assert!(said.contains("api says: ") && said.contains("Everything that was started has ended."), "{said}");
    assert!(!processes.iter().any(|process| Path::new(process).exists()), "{processes:?}");
    assert!(!folder.exists());
    assert_eq!(ask(&address("api", "proxied"), health), None);
}

#[test]
fn what_cannot_be_started_is_named() {
    let spec = repository("specs/orders/faultbox.star").display().to_string();
    let missing = run(&["up", &spec, "--embedded", "--binary", "api=/nowhere/api"]);
    let said = String::from_utf8_lossy(&missing.stderr);
    assert_eq!(code(&missing), 4, "{said}");
    assert!(said.contains("api: /nowhere/api, given by --binary, is not an executable file"), "{said}");
    let ends = run(&["up", &spec, "--embedded", "--binary", "api=/bin/false"]);
    let said = String::from_utf8_lossy(&ends.stderr);
    assert_eq!(code(&ends), 4, "{said}");
    assert!(said.contains("faultbox: api did not start: it ended at once (exit code 1)"), "{said}");
}
