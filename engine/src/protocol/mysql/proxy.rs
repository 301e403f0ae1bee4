//! The proxy: raw bytes in both directions, messages on the side.
//!
//! Contract: bytes are forwarded unchanged except for the greeting's capability bits (no TLS,
//! no compression, no `LOCAL INFILE` through the proxy; lengths stay). Full authentication of
//! `caching_sha2_password` therefore happens with the server's RSA key and passes through.
//! An exchange is journaled before the last message of its answer reaches the client.
//! Anything that cannot be followed (a client that insists on TLS, replication) is spliced.
//! Not modelled: several commands sent ahead are carried out one after the other.

use super::command::{Command, Session, login_request};
use super::handshake::{Login, strip};
use super::result::{Reader, Shape, encode};
use super::rules;
use super::side::Side;
use super::wire::{Message, put_message};
use crate::fault::rule::Effect;
use crate::link::{Dial, Link, Pending, Request, Stream};
use crate::protocol::ProtocolError;
use faultbox_bundle_format::{Class, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Rows are passed on in pieces of this size.
const PIECE: usize = 16 << 10;

struct Proxy {
    client: Side,
    server: Side,
    link: Arc<Link>,
    connection: u64,
    session: Session,
}

/// What became of a connection after a command.
enum Next {
    Command,
    Close,
    Splice(&'static str),
}

/// Carries one connection.
///
/// # Errors
/// When one of the streams fails or a rule cuts.
pub async fn run(client: Stream, upstream: Arc<dyn Dial>, link: Arc<Link>) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let server = match upstream.dial().await {
        Ok(stream) => stream,
        Err(error) => {
            let request = login_request("CONNECT", &Login::default());
            link.ask(connection, request).failed(&error.to_string());
            return Err(error.into());
        }
    };
    let (client, server) = (Side::new(client), Side::new(server));
    let mut proxy = Proxy { client, server, link, connection, session: Session::default() };
    let mut next = proxy.handshake().await?;
    loop {
        match next {
            Next::Command => next = proxy.command().await?,
            Next::Close => return Ok(()),
            Next::Splice(why) => return proxy.splice(why).await,
        }
    }
}

impl Proxy {
    async fn handshake(&mut self) -> Result<Next, ProtocolError> {
        let greeting = tokio::select! {
            greeting = self.server.message() => greeting?,
            () = self.client.gone() => return Ok(Next::Close),
        };
        let Some(greeting) = greeting else { return Ok(Next::Close) };
        let mut raw = greeting.raw.to_vec();
        let Ok(offered) = strip(&mut raw) else {
            self.client.send(&greeting.raw).await?;
            // An error (too many connections, host blocked) is a fine first message.
            return Ok(if greeting.payload.first() == Some(&0xff) {
                Next::Close
            } else {
                Next::Splice("greeting")
            });
        };
        self.client.send(&raw).await?;
        let Some(answer) = self.client.message().await? else { return Ok(Next::Close) };
        let Ok(login) = Login::decode(&answer.payload) else {
            self.server.send(&answer.raw).await?;
            return Ok(Next::Splice("login"));
        };
        self.session.capabilities = login.capabilities & offered;
        let pending = self.link.ask(self.connection, login_request("CONNECT", &login));
        self.authenticate(pending, &answer).await
    }

    /// Passes messages in both directions until the server says yes or no.
    async fn authenticate(&mut self, pending: Pending, first: &Message) -> Result<Next, ProtocolError> {
        if matches!(pending.firing().map(|f| &f.effect), Some(Effect::Drop)) {
            pending.dropped();
            return Err(ProtocolError::Cut);
        }
        self.server.send(&first.raw).await?;
        loop {
            tokio::select! {
                message = self.server.message() => {
                    let Some(message) = message? else {
                        pending.failed("the server closed the connection");
                        return Ok(Next::Close);
                    };
                    if !matches!(message.payload.first(), Some(0 | 0xff)) {
                        self.client.send(&message.raw).await?;
                        continue;
                    }
                    let mut reader = Reader::new(Shape::One, self.session.capabilities, Arc::default());
                    match reader.feed(&message.payload) {
                        Ok(_) => pending.answered(&reader.finish()),
                        Err(error) => pending.failed(&error.to_string()),
                    }
                    self.client.send(&message.raw).await?;
                    return Ok(if message.payload.first() == Some(&0) { Next::Command } else { Next::Close });
                }
                message = self.client.message() => {
                    let Some(message) = message? else { return Ok(Next::Close) };
                    self.server.send(&message.raw).await?;
                }
            }
        }
    }

    async fn command(&mut self) -> Result<Next, ProtocolError> {
        let message = tokio::select! {
            message = self.client.message() => message?,
            message = self.server.message() => {
                // Unasked: the server says why it closes.
                let Some(message) = message? else { return Ok(Next::Close) };
                self.client.send(&message.raw).await?;
                return Ok(Next::Command);
            }
        };
        let Some(message) = message else {
            self.server.write.shutdown().await?;
            return Ok(Next::Close);
        };
        let command = self.session.decode(&message.payload);
        let command = match command {
            Ok(Command::LongData) => {
                self.server.send(&message.raw).await?;
                return Ok(Next::Command);
            }
            Ok(Command::Other(_)) | Err(_) => {
                self.server.send(&message.raw).await?;
                return Ok(Next::Splice("command"));
            }
            Ok(command) => Arc::new(command),
        };
        let pending = self.ask(&command);
        let effect = pending.firing().map(|firing| firing.effect.clone());
        let Some(shape) = command.shape() else {
            if effect == Some(Effect::Drop) {
                pending.dropped();
                return Err(ProtocolError::Cut);
            }
            self.server.send(&message.raw).await?;
            pending.one_way();
            return Ok(if *command == Command::Quit { Next::Close } else { Next::Command });
        };
        let invented = match &effect {
            Some(Effect::Drop) => {
                pending.dropped();
                return Err(ProtocolError::Cut);
            }
            Some(Effect::Error(fields)) => Some(rules::error_answer(fields)),
            Some(Effect::Respond(fields)) => Some(rules::answer(fields)),
            _ => None,
        };
        if let Some(answer) = invented {
            let mut out = Vec::new();
            let mut seq = message.seq.wrapping_add(1);
            for payload in encode(&answer, shape, self.session.capabilities, 0) {
                put_message(&mut out, &mut seq, &payload);
            }
            pending.answered(&answer);
            self.client.send(&out).await?;
            return Ok(Next::Command);
        }
        if matches!(*command, Command::ChangeUser(_)) {
            self.session.statements.clear();
            return self.authenticate(pending, &message).await;
        }
        if effect == Some(Effect::Duplicate) {
            self.server.send(&message.raw).await?;
            let mut reader = self.reader(&command, shape);
            while !reader.feed(&self.server.expect().await?.payload)? {}
        }
        self.server.send(&message.raw).await?;
        self.answer(pending, &command, shape, effect).await
    }

    /// Opens the exchange. Where no rule looks, what was asked is put into words later.
    fn ask(&self, command: &Arc<Command>) -> Pending {
        if self.link.watched() || !matches!(**command, Command::Query { .. } | Command::Execute { .. }) {
            return self.link.ask(self.connection, self.session.describe(command));
        }
        let mut pending = self.link.ask(self.connection, self.session.outline(command));
        let command = command.clone();
        pending.revise_later(move || command.body().unwrap_or_default());
        pending
    }

    fn reader(&self, command: &Command, shape: Shape) -> Reader {
        let columns = match command {
            Command::Fetch { id, .. } => self.session.statements.get(id).map(|s| s.columns.clone()),
            _ => None,
        };
        Reader::new(shape, self.session.capabilities, columns.unwrap_or_default())
    }

    /// Reads the server's answer, passes it on as it comes except for its end, journals it,
    /// passes on its end.
    async fn answer(
        &mut self,
        pending: Pending,
        command: &Command,
        shape: Shape,
        effect: Option<Effect>,
    ) -> Result<Next, ProtocolError> {
        let hold = matches!(effect, Some(Effect::Delay(_) | Effect::ResetAfter { .. } | Effect::Slow { .. }));
        let mut reader = self.reader(command, shape);
        let mut held = Vec::new();
        loop {
            let message = tokio::select! {
                message = self.server.message() => message,
                () = self.client.gone() => return Ok(Next::Close),
            };
            let Ok(Some(message)) = message else {
                pending.failed("the server closed the connection");
                self.client.send(&held).await?;
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
            };
            let fed = reader.feed(&message.payload);
            if held.len() >= PIECE && !hold {
                self.client.send(&std::mem::take(&mut held)).await?;
            }
            held.extend_from_slice(&message.raw);
            match fed {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    pending.failed(&error.to_string());
                    self.client.send(&held).await?;
                    return Ok(Next::Splice("answer"));
                }
            }
        }
        self.remember(command, &reader);
        match effect {
            Some(Effect::Delay(duration)) => {
                let link = self.link.clone();
                tokio::select! {
                    () = link.pause(duration) => {}
                    () = self.client.gone() => return Ok(Next::Close),
                }
            }
            Some(Effect::Slow { bytes_per_second }) => {
                held = self.slowly(held, bytes_per_second).await?;
            }
            Some(Effect::ResetAfter { bytes }) if (bytes as usize) < held.len() => {
                self.client.send(&held[..bytes as usize]).await?;
                pending.dropped();
                return Err(ProtocolError::Cut);
            }
            _ => {}
        }
        pending.answered_later(move || reader.finish());
        self.client.send(&held).await?;
        Ok(Next::Command)
    }

    fn remember(&mut self, command: &Command, reader: &Reader) {
        match command {
            Command::Prepare(sql) => {
                if let Some(id) = reader.statement {
                    self.session.prepared(id, sql);
                }
            }
            Command::Execute { id, .. } => {
                if let Some(statement) = self.session.statements.get_mut(id) {
                    statement.columns = reader.columns().clone();
                }
            }
            _ => {}
        }
    }

    /// All but the last byte, twenty pieces a second; the last byte comes back.
    async fn slowly(&mut self, bytes: Vec<u8>, rate: u64) -> Result<Vec<u8>, ProtocolError> {
        let piece = usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1);
        let nanos = (piece as u64).saturating_mul(1_000_000_000) / rate.max(1);
        let (body, last) = bytes.split_at(bytes.len().saturating_sub(1));
        for part in body.chunks(piece) {
            self.link.pause(Duration::from_nanos(nanos)).await;
            self.client.send(part).await?;
        }
        Ok(last.to_vec())
    }

    /// Gives up on understanding: bytes only, from here on.
    async fn splice(mut self, why: &str) -> Result<(), ProtocolError> {
        let request = Request {
            operation: "undecodable".into(),
            key: "undecodable".to_owned(),
            fields: Vec::new(),
            class: Class::Control,
            works: false,
            mutating: false,
            repeatable: false,
            body: Value::map([("where", Value::text(why))]),
        };
        self.link.ask(self.connection, request).one_way();
        let (ahead, behind) = (self.client.buffer.split(), self.server.buffer.split());
        self.server.send(&ahead).await?;
        self.client.send(&behind).await?;
        let (mut client, mut server) = (self.client, self.server);
        let there = async {
            tokio::io::copy(&mut client.read, &mut server.write).await?;
            server.write.shutdown().await
        };
        let back = async {
            tokio::io::copy(&mut server.read, &mut client.write).await?;
            client.write.shutdown().await
        };
        tokio::try_join!(there, back)?;
        Ok(())
    }
}
