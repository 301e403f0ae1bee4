//! The size of a bundle beside what people would otherwise keep: one line of JSON an entry,
//! compressed by gzip.

use super::events::{self, Mix};
use faultbox_bundle_format::{Body, Bundle, BundleWriter, Entry, Payload, Value};
use serde_json::{Value as Json, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// Largest share of the JSON lines that a bundle may be.
const AIM: f64 = 1.0 / 3.0;

/// Prints both sizes, for made entries and for those of real bundles.
pub fn sizes(bundles: &[String]) {
    println!("Size of a bundle beside its entries as JSON lines through `gzip -6` (aim {AIM:.2}):");
    for mix in Mix::ALL {
        compare(mix.name(), &events::entries(mix, super::SAMPLE));
    }
    for path in bundles {
        compare(path, &entries(path));
    }
}

/// The entries of a bundle, without files: a line of JSON has no place for an executable.
pub fn entries(path: &str) -> Vec<Entry> {
    let bundle = Bundle::open(path.as_ref()).expect("a bundle");
    let cells = bundle.cells().iter().map(|cell| cell.cell);
    let all = std::iter::once(0).chain(cells).flat_map(|cell| bundle.entries(cell).expect("entries"));
    all.filter(|entry| !matches!(entry.body, Body::File(_))).collect()
}

fn compare(what: &str, entries: &[Entry]) {
    let folder = tempfile::tempdir().expect("a folder");
    let header = faultbox_recorder::new_header().expect("a header");
    let mut writer = BundleWriter::create(&folder.path().join("size.fb"), header).expect("a bundle");
    entries.iter().for_each(|entry| writer.append(entry).expect("an entry"));
    let bundle = std::fs::metadata(writer.finish().expect("a bundle")).expect("a file").len();
    let mut gzip =
        Command::new("gzip").arg("-6").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip");
    let mut input = gzip.stdin.take().expect("a pipe");
    let (plain, squeezed) = std::thread::scope(|scope| {
        let lines = scope.spawn(move || {
            let mut plain = 0;
            for entry in entries {
                let line = format!("{}\n", line(entry));
                plain += line.len();
                input.write_all(line.as_bytes()).expect("gzip takes it");
            }
            plain
        });
        let squeezed = gzip.wait_with_output().expect("gzip").stdout.len();
        (lines.join().expect("lines"), squeezed)
    });
    let ratio = bundle as f64 / squeezed as f64;
    println!(
        "  {what}: {} entries: bundle {bundle}, JSON lines {plain}, gzip {squeezed}: {ratio:.2} of gzip{}",
        entries.len(),
        if ratio <= AIM { "" } else { ", MISSES the aim" }
    );
}

/// An entry as somebody would write it who keeps everything and names every field.
fn line(entry: &Entry) -> Json {
    let body = match &entry.body {
        Body::Exchange(e) => json!({ "exchange": {
            "protocol": e.protocol, "source": e.source, "interface": e.interface, "connection": e.connection,
            "operation": e.operation, "key": e.key, "class": format!("{:?}", e.class), "mutating": e.mutating,
            "repeatable": e.repeatable, "request": payload(&e.request), "outcome": format!("{:?}", e.outcome),
            "response": e.response.as_ref().map(payload),
            "rule": e.rule.as_ref().map(|r| json!({ "assumption": r.assumption, "index": r.index, "action": r.action })),
            "began_ns": e.began_ns, "ended_ns": e.ended_ns, "began_seq": e.began_seq,
        }}),
        Body::Decision(d) => json!({ "decision": {
            "assumption": d.assumption, "index": d.index, "key": d.key, "source": d.source, "matched": d.matched,
            "draw": d.draw, "fired": d.fired, "on_sut": d.on_sut,
        }}),
        Body::Output(o) => json!({ "output": {
            "service": o.service, "stderr": o.stderr, "text": String::from_utf8_lossy(&o.bytes),
        }}),
        Body::StepStarted(s) => json!({ "step_started": {
            "step": s.step, "interface": s.interface, "verb": s.verb, "arguments": payload(&s.arguments),
            "location": s.location,
        }}),
        Body::StepEnded(s) => json!({ "step_ended": { "step": s.step, "response": payload(&s.response) } }),
        Body::ServiceStarted(s) => {
            let env: serde_json::Map<String, Json> =
                s.env.iter().map(|n| (n.name.clone(), n.value.clone().into())).collect();
            json!({ "service_started": {
                "service": s.service, "pid": s.pid, "program": s.program,
                "digest": s.digest.map(|d| blake3::Hash::from(d).to_hex().to_string()), "args": s.args, "env": env,
                "isolated": s.isolated,
            }})
        }
        // The rest is rare.
        other => json!(format!("{other:?}")),
    };
    json!({
        "seq": entry.seq, "at_ns": entry.at_ns, "cell": entry.cell, "phase": format!("{:?}", entry.phase),
        "actor": entry.actor, "stream": entry.stream, "ordinal": entry.ordinal, "cause": entry.cause, "body": body,
    })
}

fn payload(payload: &Payload) -> Json {
    payload.value().map_or(Json::Null, |value| plain(&value))
}

fn plain(value: &Value) -> Json {
    match value.bare() {
        Value::Int(n) => (*n).into(),
        Value::Text(text) => text.clone().into(),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(fields) => Json::Object(fields.iter().map(|(name, v)| (name.clone(), plain(v))).collect()),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
        other => match other.as_bool() {
            Some(flag) => flag.into(),
            None => Json::Null,
        },
    }
}
