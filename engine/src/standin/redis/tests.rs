//! The stand-in under a real client.

use super::*;
use crate::standin::process::{Control, serve as shell};
use redis::AsyncCommands;
use redis::aio::{ConnectionManager, MultiplexedConnection};
use std::time::Duration;
use tokio::net::TcpListener;

/// A guard against hanging; no test depends on its length.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("this hangs")
}

struct Server {
    port: u16,
    control: Control,
    task: tokio::task::JoinHandle<io::Result<()>>,
    data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start() -> Self {
        Self::over(tempfile::tempdir().unwrap()).await
    }

    async fn over(data: tempfile::TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let options = StandInOptions { data: data.path().to_owned(), listen, env: BTreeMap::new() };
        let standin = open(options).unwrap();
        let socket = data.path().join("control");
        let control = Control::new(&socket);
        let task = tokio::spawn(async move { shell(standin, listener, &socket).await });
        soon(control.ready()).await;
        Server { port: listen.port(), control, task, data }
    }

    fn client(&self, query: &str) -> redis::Client {
        redis::Client::open(format!("redis://127.0.0.1:{}/{query}", self.port)).unwrap()
    }

    async fn connect(&self) -> MultiplexedConnection {
        soon(self.client("").get_multiplexed_async_connection()).await.unwrap()
    }
}

/// Runs a command and gives the reply in words.
async fn say(connection: &mut MultiplexedConnection, words: &str) -> String {
    let mut words = words.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        cmd.arg(word);
    });
    fn show(value: &redis::Value) -> String {
        match value {
            redis::Value::Nil => "nil".to_owned(),
            redis::Value::Int(n) => n.to_string(),
            redis::Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            redis::Value::SimpleString(text) => format!("+{text}"),
            redis::Value::Okay => "+OK".to_owned(),
            redis::Value::Double(n) => format!(",{n}"),
            redis::Value::Array(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            redis::Value::Set(items) => {
                format!("{{{}}}", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            redis::Value::Map(pairs) => {
                let pairs = pairs.iter().map(|(k, v)| format!("{}:{}", show(k), show(v)));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(" "))
            }
            other => format!("{other:?}"),
        }
    }
    match soon(cmd.query_async::<redis::Value>(connection)).await {
        Ok(value) => show(&value),
        Err(error) => format!("-{} {}", error.code().unwrap_or("ERR"), error.detail().unwrap_or_default()),
    }
}

/// Commands and what a Redis of version 2 replies (compared with a real server by hand).
const DIALOGUE: &[(&str, &str)] = &[
    ("SET k v EX 100 NX", "+OK"),
    ("SET k w NX", "nil"),
    ("SET k w XX GET", "v"),
    ("TTL k", "-1"),
    ("SET k w EX 0", "-ERR invalid expire time in 'set' command"),
    ("SET k w FOO", "-ERR syntax error"),
    ("GETSET k x", "w"),
    ("GETDEL k", "x"),
    ("GET k", "nil"),
    ("SETEX e 10 v", "+OK"),
    ("GETEX e PERSIST", "v"),
    ("TTL e", "-1"),
    ("EXPIRE e 100 XX", "0"),
    ("EXPIRE e 100 NX", "1"),
    ("EXPIRE e 50 GT", "0"),
    ("TTL e", "100"),
    ("SET e w KEEPTTL", "+OK"),
    ("TTL e", "100"),
    ("EXPIRE e -1", "1"),
    ("EXISTS e", "0"),
    ("TTL e", "-2"),
    ("INCR n", "1"),
    ("INCRBY n 10", "11"),
    ("DECRBY n 4", "7"),
    ("INCRBYFLOAT n 0.1", "7.1"),
    ("INCR n", "-ERR value is not an integer or out of range"),
    ("SET big 9223372036854775807", "+OK"),
    ("INCR big", "-ERR increment or decrement would overflow"),
    ("MSET a 1 b 2", "+OK"),
    ("MGET a b c", "[1 2 nil]"),
    ("MSETNX a 1 z 2", "0"),
    ("APPEND a 23", "3"),
    ("GETRANGE a 1 -1", "23"),
    ("SETRANGE a 5 x", "6"),
    ("STRLEN a", "6"),
    ("LPUSH a x", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
    ("RPUSH l a b c b a", "5"),
    ("LREM l -1 a", "1"),
    ("LRANGE l 0 -1", "[a b c b]"),
    ("LINSERT l BEFORE c x", "5"),
    ("LSET l 0 A", "+OK"),
    ("LSET l 9 A", "-ERR index out of range"),
    ("LINDEX l -1", "b"),
    ("LPOS l x", "2"),
    ("LTRIM l 1 2", "+OK"),
    ("LRANGE l 0 -1", "[b x]"),
    ("LMOVE l m RIGHT LEFT", "x"),
    ("RPOPLPUSH l m", "b"),
    ("EXISTS l", "0"),
    ("LRANGE m 0 -1", "[b x]"),
    ("LPOP m 5", "[b x]"),
    ("LPUSHX m y", "0"),
    ("HSET h f 1 g 2", "2"),
    ("HSET h f 3 i 4", "1"),
    ("HINCRBY h f 2", "5"),
    ("HINCRBYFLOAT h g 0.5", "2.5"),
    ("HGETALL h", "[f 5 g 2.5 i 4]"),
    ("HKEYS h", "[f g i]"),
    ("HVALS h", "[5 2.5 4]"),
    ("HDEL h f nothing", "1"),
    ("HEXISTS h f", "0"),
    ("HSETNX h g 9", "0"),
    ("HSTRLEN h g", "3"),
    ("HSCAN h 0 MATCH g*", "[0 [g 2.5]]"),
    ("SADD s a b c", "3"),
    ("SADD t b c d", "3"),
    ("SINTER s t", "[b c]"),
    ("SUNION s t", "[a b c d]"),
    ("SDIFF s t", "[a]"),
    ("SINTERSTORE u s t", "2"),
    ("SMISMEMBER u a b", "[0 1]"),
    ("SMOVE s t a", "1"),
    ("SCARD t", "4"),
    ("SREM t a b c d", "4"),
    ("TYPE t", "+none"),
    ("ZADD z 2 b 1 a 3 c", "3"),
    ("ZADD z GT CH 5 a 1 b", "1"),
    ("ZRANGE z 0 -1", "[b c a]"),
    ("ZRANGE z 0 -1 WITHSCORES", "[b 2 c 3 a 5]"),
    ("ZRANGE z (2 +inf BYSCORE LIMIT 0 1", "[c]"),
    ("ZREVRANGEBYSCORE z 5 3 WITHSCORES", "[a 5 c 3]"),
    ("ZRANK z a", "2"),
    ("ZREVRANK z a", "0"),
    ("ZSCORE z a", "5"),
    ("ZINCRBY z 0.5 a", "5.5"),
    ("ZCOUNT z 2 3", "2"),
    ("ZPOPMIN z", "[b 2]"),
    ("ZREMRANGEBYRANK z 0 0", "1"),
    ("ZCARD z", "1"),
    ("RENAME z y", "+OK"),
    ("RENAMENX y h", "0"),
    ("COPY h h2", "1"),
    ("TYPE h2", "+hash"),
    ("DEL h h2 y nothing", "3"),
    ("OBJECT ENCODING a", "embstr"),
    ("GET", "-ERR wrong number of arguments for 'get' command"),
    ("XADD stream * f v", "-ERR unknown command 'XADD': not supported by the Faultbox stand-in"),
    ("EVAL return 0", "-ERR unknown command 'EVAL': not supported by the Faultbox stand-in"),
    ("DEBUG SLEEP 0", "-ERR unknown command 'DEBUG': not supported by the Faultbox stand-in"),
    ("EXEC", "-ERR EXEC without MULTI"),
    ("CONFIG GET maxmemory", "[maxmemory 0]"),
    ("FLUSHALL", "+OK"),
    ("DBSIZE", "0"),
];

#[tokio::test]
async fn it_answers_as_redis_does() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    for (words, reply) in DIALOGUE {
        assert_eq!(say(&mut connection, words).await, *reply, "{words}");
    }
    let mut modern = soon(server.client("?protocol=resp3").get_multiplexed_async_connection()).await.unwrap();
    for (words, reply) in [
        ("HSET h f 1", "1"),
        ("HGETALL h", "{f:1}"),
        ("SADD s a", "1"),
        ("SMEMBERS s", "{a}"),
        ("ZADD z 1.5 a", "1"),
        ("ZSCORE z a", ",1.5"),
        ("ZRANGE z 0 -1 WITHSCORES", "[[a ,1.5]]"),
        ("GET none", "nil"),
        ("BLPOP none 0.01", "nil"),
        ("CONFIG GET save", "{save:}"),
    ] {
        assert_eq!(say(&mut modern, words).await, reply, "{words}");
    }
}

#[tokio::test]
async fn databases_are_apart_and_keys_expire() {
    let server = Server::start().await;
    let mut zero = server.connect().await;
    let mut three = soon(server.client("3").get_multiplexed_async_connection()).await.unwrap();
    say(&mut zero, "SET k zero").await;
    say(&mut three, "SET k three").await;
    assert_eq!(say(&mut zero, "GET k").await, "zero");
    say(&mut zero, "FLUSHDB").await;
    assert_eq!(say(&mut three, "GET k").await, "three");
    say(&mut three, "PEXPIRE k 1").await;
    soon(async { while say(&mut three, "GET k").await != "nil" {} }).await;
    assert_eq!(say(&mut three, "DBSIZE").await, "0");
}

#[tokio::test]
async fn watched_keys_abort_a_transaction() {
    let server = Server::start().await;
    let (mut one, mut other) = (server.connect().await, server.connect().await);
    say(&mut one, "SET k 1").await;
    for (interferes, outcome) in [(true, "nil"), (false, "[2]")] {
        say(&mut one, "WATCH k").await;
        if interferes {
            say(&mut other, "SET k 1").await;
        }
        assert_eq!(say(&mut one, "MULTI").await, "+OK");
        assert_eq!(say(&mut one, "INCR k").await, "+QUEUED");
        assert_eq!(say(&mut other, "GET k").await, "1");
        assert_eq!(say(&mut one, "EXEC").await, outcome);
    }
    say(&mut one, "MULTI").await;
    assert!(say(&mut one, "NOSUCH").await.contains("NOSUCH"));
    assert!(say(&mut one, "EXEC").await.starts_with("-EXECABORT"));
    say(&mut one, "MULTI").await;
    say(&mut one, "SET k 9").await;
    assert_eq!(say(&mut one, "DISCARD").await, "+OK");
    assert_eq!(say(&mut one, "GET k").await, "2");
}

#[tokio::test]
async fn who_waits_longest_is_served_first() {
    let data = tempfile::tempdir().unwrap();
    let hub = Arc::new(Hub {
        inner: Mutex::new(Inner::new(Store::open(data.path()).unwrap())),
        changed: Notify::new(),
    });
    let request = |words: &str| {
        session::Session::default().ask(&command::of(&words.split(' ').collect::<Vec<_>>())).request
    };
    let (first, second, third) = (request("BLPOP q 0"), request("BLPOP r q 0"), request("BRPOP q 0"));
    let clients: Vec<_> = (1..=4).map(|n| hub.converse("", n)).collect();
    let mut waiting =
        [clients[0].answer(&first), clients[1].answer(&second), clients[2].answer(&third)].map(Box::pin);
    for one in &mut waiting {
        // Polled once, it stands in the line.
        tokio::select! {
            biased;
            _ = one => panic!("there is nothing to take yet"),
            () = std::future::ready(()) => {}
        }
    }
    let push = async |words: &str| clients[3].answer(&request(words)).await;
    let [one, two, three] = waiting;
    // Whoever is polled first: the line decides.
    push("RPUSH r only").await;
    let list = |items: &[&str]| {
        (Answer::Reply(Value::List(items.iter().map(|item| Value::text(*item)).collect())), None)
    };
    assert_eq!(soon(two).await, list(&["r", "only"]));
    push("RPUSH q a b").await;
    let (three, one) = soon(async { tokio::join!(biased; three, one) }).await;
    assert_eq!(one, list(&["q", "a"]));
    assert_eq!(three, list(&["q", "b"]));
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_back_after_a_restore() {
    let mut server = Server::start().await;
    let mut manager = soon(ConnectionManager::new(server.client(""))).await.unwrap();
    let _: () = soon(manager.set("seeded", 1)).await.unwrap();
    server.control.snapshot().await.unwrap();
    let _: () = soon(manager.set("later", 1)).await.unwrap();
    server.control.stop().await.unwrap();
    soon(&mut server.task).await.unwrap().unwrap();
    let data = std::mem::replace(&mut server.data, tempfile::tempdir().unwrap());
    let server = Server::over(data).await;
    let mut connection = server.connect().await;
    assert_eq!(say(&mut connection, "MGET seeded later").await, "[1 1]");
    server.control.restore().await.unwrap();
    let mut connection = server.connect().await;
    assert_eq!(say(&mut connection, "MGET seeded later").await, "[1 nil]");
    assert!(say(&mut connection, "INFO").await.contains("db0:keys=1,"));
}

#[tokio::test]
async fn publish_reaches_channels_and_patterns() {
    let server = Server::start().await;
    let mut pubsub = soon(server.client("").get_async_pubsub()).await.unwrap();
    soon(pubsub.subscribe(&["a", "b"])).await.unwrap();
    soon(pubsub.psubscribe("a*")).await.unwrap();
    let mut connection = server.connect().await;
    assert_eq!(say(&mut connection, "PUBLISH a x").await, "2");
    assert_eq!(say(&mut connection, "PUBLISH c x").await, "0");
    assert_eq!(say(&mut connection, "PUBSUB CHANNELS").await, "[a b]");
    assert_eq!(say(&mut connection, "PUBSUB NUMSUB a").await, "[a 1]");
    assert_eq!(say(&mut connection, "PUBSUB NUMPAT").await, "1");
    drop(pubsub);
    soon(async { while say(&mut connection, "PUBLISH a x").await != "0" {} }).await;
    let mut atomic = redis::pipe();
    atomic.atomic().publish("a", "x").set("k", "v");
    let (reached, _): (i64, ()) = soon(atomic.query_async(&mut connection)).await.unwrap();
    assert_eq!(reached, 0);
}
