//! The server side: speaks Redis, with what a [`Responder`] says.
//!
//! Contract: every command is put to the conversation as the request that the proxy would build
//! for it. Session commands, `PING`, `INFO`, ends of subscriptions and empty polls that the conversation knows nothing of
//! are answered here as an idle server would; other unknown commands end the connection. Replies
//! keep the order of commands. While subscribed, the conversation is also asked for "the next
//! message" ([`Subscriptions::next_message`]); its answer is pushed.
//! Not modelled: passwords (any is accepted), client tracking, cluster mode.

use super::codec::{CommandDecoder, Frame};
use super::command::{self, Kind};
use super::session::{self, Asked, Session, Shape, Subscription, Subscriptions};
use super::value;
use crate::link::{Answer, BoxFuture, Conversation, Link, Request, Responder, Stream};
use crate::protocol::ProtocolError;
use crate::virtual_time::Time;
use faultbox_bundle_format::{Class, RuleHit, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

/// The server's version, as far as clients ask.
pub const VERSION: &str = "7.4.0";
/// How long after "no message is known" the question is put again.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How much is read ahead while a command is being answered.
const READ_AHEAD: usize = 1 << 20;

/// Serves one connection.
///
/// # Errors
/// When the client fails or the conversation cuts the connection.
pub async fn serve(
    client: Stream,
    link: Arc<Link>,
    responder: Arc<dyn Responder>,
) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let conversation = responder.converse(&link.source, connection);
    let (reader, writer) = tokio::io::split(client);
    let server = Server {
        link,
        connection,
        conversation,
        state: State { connection, ..State::default() },
        decoder: CommandDecoder::default(),
        out: Vec::new(),
        reader,
        writer,
    };
    server.run().await
}

/// What the server side knows about its client.
#[derive(Default)]
struct State {
    connection: u64,
    /// Negotiated protocol version; 0 until `HELLO` (which is 2).
    version: u8,
    name: String,
    subscriptions: Subscriptions,
}

struct Server {
    link: Arc<Link>,
    connection: u64,
    conversation: Arc<dyn Conversation>,
    state: State,
    decoder: CommandDecoder,
    out: Vec<u8>,
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
}

/// "The next message", asked for the subscriptions of the moment.
struct Await {
    request: Request,
    answer: BoxFuture<'static, Answer>,
}

impl Server {
    async fn run(mut self) -> Result<(), ProtocolError> {
        let mut session = Session::default();
        let mut push: Option<Await> = None;
        loop {
            match self.decoder.next_command() {
                Ok(Some(words)) if words.is_empty() => {}
                Ok(Some(words)) => {
                    let asked = session.ask(&words);
                    let quits = asked.name == "QUIT";
                    if !self.command(&words, asked).await? {
                        return Ok(());
                    }
                    if quits {
                        self.flush().await?;
                        let _ = self.writer.shutdown().await;
                        return Ok(());
                    }
                }
                Ok(None) => {
                    self.flush().await?;
                    self.await_messages(&mut push);
                    let next = async {
                        match &mut push {
                            Some(push) => (&mut push.answer).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        read = self.reader.read_buf(self.decoder.buffer()) => if read? == 0 {
                            return Ok(());
                        },
                        message = next => if let Some(Await { request, .. }) = push.take() {
                            self.push(request, message)?;
                        },
                    }
                }
                Err(error) => {
                    self.write(&value::error(format!("ERR Protocol error: {error}")));
                    return self.flush().await;
                }
            }
        }
    }

    /// Keeps one question for the next message open while there are subscriptions.
    fn await_messages(&self, push: &mut Option<Await>) {
        if !self.state.subscriptions.any() {
            *push = None;
            return;
        }
        let request = self.state.subscriptions.next_message();
        if push.as_ref().is_some_and(|push| push.request == request) {
            return;
        }
        let conversation = self.conversation.clone();
        let (asked, link) = (request.clone(), self.link.clone());
        let answer = Box::pin(async move {
            loop {
                match conversation.answer(&asked).await.0 {
                    // None is known now; one may be when the cell has gone on.
                    Answer::Unknown | Answer::Nothing => link.time().ask_again(ASK_AGAIN, None).await,
                    known => return known,
                }
            }
        });
        *push = Some(Await { request, answer });
    }

    /// Gives the client a message; the exchange begins and ends with it, as at the proxy.
    fn push(&mut self, request: Request, message: Answer) -> Result<(), ProtocolError> {
        let pending = self.link.ask(self.connection, request);
        match message {
            Answer::Reply(message) => {
                pending.answered_as(Class::Work, &message);
                self.write(&message);
                Ok(())
            }
            _ => {
                pending.dropped();
                Err(ProtocolError::Cut)
            }
        }
    }

    fn write(&mut self, answer: &Value) {
        value::to_frame(answer, self.state.version).encode_into(&mut self.out);
    }

    async fn flush(&mut self) -> Result<(), ProtocolError> {
        if !self.out.is_empty() {
            self.writer.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Answers one command. False: the client went away.
    async fn command(&mut self, words: &[Vec<u8>], asked: Asked) -> Result<bool, ProtocolError> {
        let Asked { mut request, kind, name, shape, queued, .. } = asked;
        if self.state.version >= 3 {
            // Whoever answers may have to know; it is no part of what is asked.
            if let Value::Map(fields) = &mut request.body {
                fields.push(("resp".to_owned(), Value::Int(3).volatile()));
            }
        }
        let class = request.class;
        let idle = if queued { None } else { self.state.idle(&name, kind, words) };
        let idle_wait = matches!(kind, Kind::Wait | Kind::Watch).then(|| waits(&name, words));
        let time = self.link.time();
        let idle_wait = idle_wait.filter(|_| !queued);
        let patient = Patient { inner: &*self.conversation, time, idle_wait };
        let reply_shape = shape.clone();
        let settle = move |answer: Answer| match (answer, idle) {
            (Answer::Reply(_), _) if reply_shape == Shape::Silent => (Answer::Nothing, class),
            (Answer::Unknown, Some(_)) if reply_shape == Shape::Silent => (Answer::Nothing, class),
            (Answer::Unknown, Some(idle)) => (Answer::Reply(session::mark_reply(&reply_shape, idle)), class),
            (Answer::Reply(reply), _) => {
                let class = session::answered_class(kind, class, &reply);
                (Answer::Reply(session::mark_reply(&reply_shape, reply)), class)
            }
            (other, _) => (other, class),
        };
        let answer = {
            let mut answer =
                std::pin::pin!(self.link.converse_as(self.connection, &patient, request, settle));
            let mut ready = tokio::select! {
                biased;
                answer = &mut answer => Some(answer),
                () = std::future::ready(()) => None,
            };
            if ready.is_none() && !self.out.is_empty() {
                // Earlier replies do not wait for this one.
                self.writer.write_all(&self.out).await?;
                self.out.clear();
            }
            loop {
                if let Some(answer) = ready {
                    break answer;
                }
                let room = self.decoder.buffer().len() < READ_AHEAD;
                tokio::select! {
                    biased;
                    answer = &mut answer => ready = Some(answer),
                    read = self.reader.read_buf(self.decoder.buffer()), if room => if read? == 0 {
                        return Ok(false);
                    },
                }
            }
        };
        match answer {
            Answer::Reply(reply) => self.reply(&name, words, &reply),
            Answer::Nothing => {}
            Answer::Cut | Answer::Unknown | Answer::Silence => {
                self.flush().await?;
                return Err(ProtocolError::Cut);
            }
        }
        Ok(true)
    }

    fn reply(&mut self, name: &str, words: &[Vec<u8>], reply: &Value) {
        if let Some(confirmations) = reply.get("confirmations").and_then(Value::as_list) {
            for confirmation in confirmations {
                self.state.subscriptions.confirm(confirmation);
                let items = confirmation.as_list().unwrap_or_default();
                let items = items.iter().map(|item| value::to_frame(item, self.state.version)).collect();
                let frame = if self.state.version >= 3 { Frame::Push(items) } else { Frame::Array(items) };
                frame.encode_into(&mut self.out);
            }
            return;
        }
        if value::error_text(reply).is_none() {
            self.state.follow(name, words);
        }
        self.write(reply);
    }
}

/// Waits as long as an idle server would before it says that there is nothing.
struct Patient<'a> {
    inner: &'a dyn Conversation,
    time: &'a Time,
    idle_wait: Option<Option<Duration>>,
}

impl Conversation for Patient<'_> {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        Box::pin(async move {
            match (self.inner.answer(request).await, self.idle_wait) {
                ((Answer::Unknown, hit), Some(wait)) => {
                    match wait {
                        Some(duration) => self.time.sleep(duration).await,
                        None => std::future::pending().await,
                    }
                    (Answer::Reply(Value::map([("nil", Value::text("array"))])), hit)
                }
                (known, _) => known,
            }
        })
    }
}

/// How long a waiting command waits; `None` is for ever.
pub fn waits(name: &str, words: &[Vec<u8>]) -> Option<Duration> {
    let number = |at: Option<usize>| {
        at.and_then(|at| words.get(at)).and_then(|w| command::text(w).parse::<f64>().ok())
    };
    let seconds = match name {
        "XREAD" | "XREADGROUP" => {
            let block = (1..words.len()).find(|at| command::is(words, *at, "BLOCK"));
            number(block.map(|at| at + 1)).map(|ms| ms / 1000.0)
        }
        "BLMPOP" | "BZMPOP" => number(Some(1)),
        _ => number(words.len().checked_sub(1)),
    };
    seconds.filter(|s| *s > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok())
}

impl State {
    /// Takes in what an accepted session command changed.
    fn follow(&mut self, name: &str, words: &[Vec<u8>]) {
        match name {
            "HELLO" => {
                self.version = match words.get(1).map(Vec::as_slice) {
                    Some(b"3") => 3,
                    Some(_) => 2,
                    None => self.version,
                };
                if let Some(at) = (2..words.len()).find(|at| command::is(words, *at, "SETNAME")) {
                    self.name = words.get(at + 1).map(|w| command::text(w)).unwrap_or_default();
                }
            }
            "RESET" => *self = State { connection: self.connection, ..State::default() },
            "CLIENT" if command::is(words, 1, "SETNAME") => {
                self.name = words.get(2).map(|w| command::text(w)).unwrap_or_default();
            }
            _ => {}
        }
    }

    /// What an idle server says to what nobody else answers; `None` for what does work.
    fn idle(&self, name: &str, kind: Kind, words: &[Vec<u8>]) -> Option<Value> {
        let ok = || Some(value::status("OK"));
        match name {
            "HELLO" => Some(self.hello(words)),
            "PING" => Some(self.pong(words)),
            "INFO" => Some(Value::text(format!(
                "# Server\r\nredis_version:{VERSION}\r\nredis_mode:standalone\r\n\r\n# Replication\r\nrole:master\r\n"
            ))),
            "CLIENT" => Some(self.client(words)),
            "RESET" => Some(value::status("RESET")),
            "AUTH" | "QUIT" => ok(),
            "SELECT" => match words.get(1).and_then(|w| command::text(w).parse::<u8>().ok()) {
                Some(0..=15) => ok(),
                Some(_) => Some(value::error("ERR DB index is out of range")),
                None => Some(value::error("ERR value is not an integer or out of range")),
            },
            "COMMAND" => Some(match words.get(1).map(|w| command::text(w).to_ascii_uppercase()).as_deref() {
                Some("COUNT") => Value::Int(0),
                Some("DOCS") => value::map(Vec::new()),
                _ => Value::List(Vec::new()),
            }),
            "MONITOR" => ok(),
            "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "SUNSUBSCRIBE" => {
                Some(self.subscriptions.left(Subscription::of(name)?, words))
            }
            "CLUSTER" | "READONLY" | "READWRITE" | "ASKING" => {
                Some(value::error("ERR This instance has cluster support disabled"))
            }
            _ if matches!(kind, Kind::Session | Kind::Takeover) => Some(not_supported(name, words)),
            _ => None,
        }
    }

    fn hello(&self, words: &[Vec<u8>]) -> Value {
        let version = match words.get(1).map(Vec::as_slice) {
            None => self.version.max(2),
            Some(b"2") => 2,
            Some(b"3") => 3,
            Some(other) if command::text(other).parse::<i64>().is_ok() => {
                return value::error("NOPROTO unsupported protocol version");
            }
            Some(_) => return value::error("ERR Protocol version is not an integer or out of range"),
        };
        let facts = value::map(vec![
            "server".into(),
            "redis".into(),
            "version".into(),
            VERSION.into(),
            "proto".into(),
            Value::Int(version.into()),
            "id".into(),
            Value::Int(self.connection as i64),
            "mode".into(),
            "standalone".into(),
            "role".into(),
            "master".into(),
            "modules".into(),
            Value::List(Vec::new()),
        ]);
        // The reply itself is in the version that it agrees to; version 2 flattens it.
        match (version, facts) {
            (2, Value::Map(fields)) => fields.into_iter().next().map(|(_, flat)| flat).unwrap_or_default(),
            (_, facts) => facts,
        }
    }

    fn pong(&self, words: &[Vec<u8>]) -> Value {
        let said = words.get(1).map(|word| Value::text_or_bytes(word));
        if self.version < 3 && self.subscriptions.any() {
            return Value::List(vec!["pong".into(), said.unwrap_or_else(|| "".into())]);
        }
        said.unwrap_or_else(|| value::status("PONG"))
    }

    fn client(&self, words: &[Vec<u8>]) -> Value {
        let sub = words.get(1).map(|w| command::text(w).to_ascii_uppercase()).unwrap_or_default();
        let line = || format!("id={} name={} db=0 resp={}", self.connection, self.name, self.version.max(2));
        match sub.as_str() {
            "SETNAME" | "SETINFO" | "NO-EVICT" | "NO-TOUCH" | "REPLY" => value::status("OK"),
            "GETNAME" if self.name.is_empty() => Value::Null,
            "GETNAME" => Value::text(self.name.as_str()),
            "ID" => Value::Int(self.connection as i64),
            "INFO" | "LIST" => Value::text(line()),
            "TRACKING" if command::is(words, 2, "OFF") => value::status("OK"),
            _ => not_supported("CLIENT", words),
        }
    }
}

/// The error for what nobody here does.
pub fn not_supported(name: &str, words: &[Vec<u8>]) -> Value {
    let sub = words
        .get(1)
        .map(|w| command::text(w))
        .filter(|_| matches!(name, "CLIENT" | "CONFIG" | "OBJECT" | "SCRIPT"));
    let named = sub.map_or_else(|| name.to_owned(), |sub| format!("{name} {sub}"));
    let named: String = named.chars().take(128).collect();
    value::error(format!("ERR unknown command '{named}': not supported by the Faultbox stand-in"))
}
