use super::PROTOCOL;
use crate::fault::rule::Effect;
use crate::link::{Answer, Dial, InterfaceOptions, Request, Stream};
use crate::protocol::Protocol;
use crate::protocol::testing::{Proxied, Scripted, Served, World, recorded};
use crate::step::StepCall;
use faultbox_bundle_format::{Outcome, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn guard<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("hangs")
}

fn world() -> World {
    World::new("tcp", InterfaceOptions::default())
}

/// Through the proxy to a server that echoes in capitals, and may greet.
fn proxied(world: &World, greets: bool) -> Arc<dyn Dial> {
    let responder = Scripted::responder(move |request: &Request| {
        let sent = request.body.get("bytes").and_then(Value::as_text).unwrap_or_default();
        match sent {
            "quit" => Answer::Cut,
            "" if !greets => Answer::Unknown,
            "" => Answer::Reply(Value::map([("bytes", Value::text("hello\n"))])),
            sent => Answer::Reply(Value::map([("bytes", Value::text(sent.to_uppercase()))])),
        }
    });
    let upstream = Arc::new(Served { protocol: &PROTOCOL, link: self::world().link, responder });
    Arc::new(Proxied { protocol: &PROTOCOL, link: world.link.clone(), upstream })
}

async fn hear(stream: &mut Stream, size: usize) -> String {
    let mut bytes = vec![0; size];
    stream.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn drive(dial: &Arc<dyn Dial>, greeting: bool) -> Vec<String> {
    let mut stream = dial.dial().await.unwrap();
    let mut heard = Vec::new();
    if greeting {
        heard.push(hear(&mut stream, 6).await);
    }
    for word in ["one", "two", "one"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        heard.push(hear(&mut stream, 3).await);
    }
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    heard
}

#[tokio::test]
async fn turns_are_recorded_and_replay() {
    guard(async {
        let recording = world();
        let heard = drive(&proxied(&recording, true), true).await;
        assert_eq!(heard, ["hello\n", "ONE", "TWO", "ONE"]);
        while recording.exchanges().len() < 4 {
            tokio::task::yield_now().await;
        }
        let exchanges = recording.exchanges();
        assert_eq!((exchanges[0].operation.as_str(), exchanges.len()), ("greeting", 4));
        let replay = world();
        let replayed: Arc<dyn Dial> = Arc::new(Served {
            protocol: &PROTOCOL,
            link: replay.link.clone(),
            responder: recorded(&exchanges),
        });
        // The tests' responder plays work only: no greeting.
        assert_eq!(drive(&replayed, false).await, &heard[1..]);
        assert_eq!(recording.asked(), replay.asked());
    })
    .await;
}

#[tokio::test]
async fn rules_act() {
    guard(async {
        let world = world();
        let dial = proxied(&world, false);
        let send = |data: &str| StepCall {
            service: "peer".into(),
            interface: "main".into(),
            verb: "expect".into(),
            arguments: vec![
                ("data".into(), Value::text(data)),
                ("text".into(), Value::text(data.to_uppercase())),
            ],
            timeout: Some(Duration::from_secs(5)),
            location: String::new(),
        };
        let got = PROTOCOL.step(dial.clone(), world.link.clone(), &send("abc")).await;
        assert!(got.ok, "{got:?}");
        world.rule(&[], Effect::Delay(Duration::from_millis(150)));
        let got = PROTOCOL.step(dial.clone(), world.link.clone(), &send("abc")).await;
        assert!(got.ok && got.duration >= Duration::from_millis(150), "{got:?}");
        world.rule(&[], Effect::ResetAfter { bytes: 2 });
        let got = PROTOCOL.step(dial.clone(), world.link.clone(), &send("abc")).await;
        assert!(!got.ok && got.body.ends_with(b"AB"), "{got:?}");
        world.rule(&[], Effect::Drop);
        let got = PROTOCOL.step(dial.clone(), world.link.clone(), &send("abc")).await;
        assert!(!got.ok && got.body.is_empty(), "{got:?}");
        assert!(world.exchanges().iter().filter(|e| e.outcome == Outcome::Dropped).count() >= 2);
        world.faults.deactivate();
        let got = PROTOCOL.step(dial.clone(), world.link.clone(), &send("quit")).await;
        assert!(!got.ok);
        PROTOCOL.ready(dial.dial().await.unwrap(), world.link.clone()).await.unwrap();
    })
    .await;
}
