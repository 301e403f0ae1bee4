//! The server side: greeting, login, commands; answers come from a conversation.
//!
//! Contract: requests are described exactly as the proxy describes them. Session set-up that
//! the conversation does not know is answered as an idle server would; a statement that it
//! does not know cuts the connection. A statement may be prepared without its columns being
//! known: clients get them with the execution's answer.
//! Not modelled: cursors of our own (a recorded one is served as it was), TLS, compression.

use super::command::{Command, Session, login_request};
use super::crypt;
use super::facts::{Facts, VERSION};
use super::fingerprint::{Kind, fingerprint, placeholders};
use super::handshake::{CACHING_SHA2, Greeting, Login, NATIVE, UTF8MB4, auth_switch, caps, masked, proof};
use super::result::{Column, encode, error_value, ok_value, status, types};
use super::side::Side;
use super::wire::put_message;
use crate::link::{Answer, Conversation, Link, Request, Responder, Stream};
use crate::protocol::ProtocolError;
use faultbox_bundle_format::{Class, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who may log in.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    /// Passwords by user; `None` lets anyone in (mocks, replays).
    pub passwords: Option<BTreeMap<String, String>>,
    /// Whether `caching_sha2_password` always asks for the password itself, as a real server
    /// does at a user's first login.
    pub full_authentication: bool,
}

struct Server {
    client: Side,
    link: Arc<Link>,
    connection: u64,
    conversation: Arc<dyn Conversation>,
    session: Session,
    facts: Facts,
    salt: Vec<u8>,
    next_statement: u32,
}

/// Serves one connection.
///
/// # Errors
/// When the stream fails, holds no MySQL, or the conversation cuts it.
pub async fn run(
    client: Stream,
    link: Arc<Link>,
    responder: Arc<dyn Responder>,
    accounts: Accounts,
) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let seed = [link.journal().clock().now_ns().to_le_bytes(), connection.to_le_bytes()].concat();
    let mut server = Server {
        client: Side::new(client),
        conversation: responder.converse(&link.source, connection),
        link,
        connection,
        session: Session::default(),
        facts: Facts { connection, ..Facts::default() },
        salt: crypt::salt(&seed),
        next_statement: 1,
    };
    if server.handshake(&accounts).await? {
        while server.command(&accounts).await? {}
    }
    Ok(())
}

impl Server {
    async fn handshake(&mut self, accounts: &Accounts) -> Result<bool, ProtocolError> {
        let greeting = Greeting {
            version: VERSION.to_owned(),
            thread: self.connection as u32,
            salt: self.salt.clone(),
            capabilities: caps::OFFERED,
            charset: UTF8MB4,
            status: status::AUTOCOMMIT as u16,
            plugin: CACHING_SHA2.to_owned(),
        };
        let mut seq = 0;
        self.client.put(&mut seq, &greeting.encode()).await?;
        let Some(answer) = self.client.message().await? else { return Ok(false) };
        let login = Login::decode(&answer.payload)?;
        self.session.capabilities = login.capabilities & caps::OFFERED;
        self.log_in("CONNECT", login, accounts, answer.seq.wrapping_add(1)).await
    }

    /// Checks the password, tells the conversation, answers. False ends the connection.
    async fn log_in(
        &mut self,
        operation: &str,
        login: Login,
        accounts: &Accounts,
        mut seq: u8,
    ) -> Result<bool, ProtocolError> {
        if !self.proves(&login, accounts, &mut seq).await? {
            let used = if login.proof.is_empty() { "NO" } else { "YES" };
            let message = format!("Access denied for user '{}' (using password: {used})", login.user);
            self.reply(&error_value(1045, "28000", &message), &Command::Ping, seq, 0).await?;
            return Ok(false);
        }
        let request = login_request(operation, &login);
        let Some(answer) = self.ask(request).await? else { return Ok(false) };
        let answer = match answer {
            Answer::Reply(value) => value,
            Answer::Cut => return Err(ProtocolError::Cut),
            _ => ok_value(0, 0, status::AUTOCOMMIT, 0, ""),
        };
        self.facts.user = login.user;
        self.facts.database = login.database;
        self.reply(&answer, &Command::Ping, seq, 0).await?;
        Ok(answer.get("err").is_none())
    }

    async fn proves(
        &mut self,
        login: &Login,
        accounts: &Accounts,
        seq: &mut u8,
    ) -> Result<bool, ProtocolError> {
        let (mut plugin, mut given) = (login.plugin.clone(), login.proof.clone());
        if plugin != NATIVE && plugin != CACHING_SHA2 {
            plugin = CACHING_SHA2.to_owned();
            self.client.put(seq, &auth_switch(&plugin, &self.salt)).await?;
            let message = self.client.expect().await?;
            *seq = message.seq.wrapping_add(1);
            given = message.payload.to_vec();
            if given == [0] {
                given.clear();
            }
        }
        let known = match &accounts.passwords {
            None => None,
            Some(passwords) => match passwords.get(&login.user) {
                Some(password) => Some(password.as_bytes()),
                None => return Ok(false),
            },
        };
        if plugin == CACHING_SHA2 && accounts.full_authentication && !given.is_empty() {
            let sent = self.whole_password(seq).await?;
            return Ok(known.is_none_or(|password| sent.as_deref() == Some(password)));
        }
        let right = known.is_none_or(|password| proof(&plugin, password, &self.salt) == given);
        if right && plugin == CACHING_SHA2 && !given.is_empty() {
            self.client.put(seq, &[1, 3]).await?;
        }
        Ok(right)
    }

    /// Asks for the password itself; the client encrypts it to our key.
    async fn whole_password(&mut self, seq: &mut u8) -> Result<Option<Vec<u8>>, ProtocolError> {
        self.client.put(seq, &[1, 4]).await?;
        let mut message = self.client.expect().await?;
        if message.payload[..] == [2] {
            *seq = message.seq.wrapping_add(1);
            let mut key = vec![1];
            key.extend(crypt::public_key().unwrap_or_default().bytes());
            self.client.put(seq, &key).await?;
            message = self.client.expect().await?;
        }
        *seq = message.seq.wrapping_add(1);
        let plain = crypt::decrypt(&message.payload).map(|bytes| masked_back(&bytes, &self.salt));
        Ok(plain)
    }

    /// Asks the conversation; `None` when the client has gone meanwhile.
    async fn ask(&mut self, request: Request) -> Result<Option<Answer>, ProtocolError> {
        tokio::select! {
            answer = self.link.converse(self.connection, &*self.conversation, request) => Ok(Some(answer)),
            () = self.client.gone() => Ok(None),
        }
    }

    async fn reply(
        &mut self,
        answer: &Value,
        to: &Command,
        mut seq: u8,
        statement: u32,
    ) -> Result<(), ProtocolError> {
        let Some(shape) = to.shape() else { return Ok(()) };
        let mut out = Vec::new();
        for payload in encode(answer, shape, self.session.capabilities, statement) {
            put_message(&mut out, &mut seq, &payload);
        }
        self.client.send(&out).await
    }

    /// Carries out one command. False ends the connection.
    async fn command(&mut self, accounts: &Accounts) -> Result<bool, ProtocolError> {
        let Some(message) = self.client.message().await? else { return Ok(false) };
        let seq = message.seq.wrapping_add(1);
        let command = match self.session.decode(&message.payload) {
            Ok(Command::LongData) => return Ok(true),
            Ok(Command::Other(code)) => {
                let refusal = error_value(1047, "08S01", &format!("Unknown command {code:#04x}"));
                self.reply(&refusal, &Command::Ping, seq, 0).await?;
                return Ok(true);
            }
            Ok(command) => command,
            Err(error) => {
                let refusal = error_value(1835, "HY000", &format!("Malformed communication packet: {error}"));
                self.reply(&refusal, &Command::Ping, seq, 0).await?;
                return Ok(false);
            }
        };
        if let Command::ChangeUser(login) = command {
            self.session.statements.clear();
            return self.log_in("CHANGE_USER", login, accounts, seq).await;
        }
        let request = self.session.describe(&command);
        if command.shape().is_none() {
            self.link.ask(self.connection, request).one_way();
            return Ok(command != Command::Quit);
        }
        let class = request.class;
        let Some(answer) = self.ask(request).await? else { return Ok(false) };
        let value = match answer {
            Answer::Reply(value) => value,
            Answer::Nothing => return Ok(true),
            Answer::Unknown if class != Class::Work => self.idle_answer(&command),
            Answer::Unknown | Answer::Cut | Answer::Silence => return Err(ProtocolError::Cut),
        };
        let id = self.remember(&command, &value);
        self.reply(&value, &command, seq, id).await?;
        Ok(true)
    }

    /// Keeps what later commands depend on; the number of a statement just prepared.
    fn remember(&mut self, command: &Command, answer: &Value) -> u32 {
        if answer.get("err").is_some() {
            return 0;
        }
        match command {
            Command::Prepare(sql) => {
                let id = self.next_statement;
                self.next_statement = id.wrapping_add(1).max(1);
                self.session.prepared(id, sql);
                return id;
            }
            Command::InitDb(name) => self.facts.database = Some(name.clone()),
            Command::Query { sql, .. } => {
                let sql = sql.trim().trim_end_matches(';');
                if let Some((word, name)) = sql.split_once(char::is_whitespace)
                    && word.eq_ignore_ascii_case("use")
                {
                    self.facts.database = Some(name.trim().trim_matches('`').to_owned());
                }
            }
            _ => {}
        }
        0
    }

    /// What a server says about itself to a statement that sets up a session.
    fn session_fact(&self, sql: &str) -> Option<Value> {
        let asks = fingerprint(sql).kind == Kind::Session;
        asks.then(|| self.facts.answer(sql)).flatten()
    }

    /// What an idle server answers.
    fn idle_answer(&self, command: &Command) -> Value {
        let fine = ok_value(0, 0, status::AUTOCOMMIT, 0, "");
        match command {
            Command::Prepare(sql) => unprepared(sql),
            Command::Query { sql, .. } => self.session_fact(sql).unwrap_or(fine),
            Command::Execute { sql, .. } => self.session_fact(sql).unwrap_or(fine),
            Command::Statistics => Value::map([("text", Value::text("Uptime: 1  Threads: 1  Questions: 1"))]),
            Command::FieldList(_) => {
                Value::map([("resultset", Value::map([("columns", Value::List(vec![]))]))])
            }
            _ => fine,
        }
    }
}

/// The answer to a prepare of which only the SQL is known.
pub fn unprepared(sql: &str) -> Value {
    let params = vec![Column::plain("?", types::VAR_STRING).to_value(); placeholders(sql)];
    let parts = [("params", Value::List(params)), ("columns", Value::List(Vec::new()))];
    Value::map([("prepared", Value::map(parts))])
}

fn masked_back(bytes: &[u8], salt: &[u8]) -> Vec<u8> {
    let mut plain = masked(bytes, salt);
    // `masked` adds a zero byte of its own; the client's stands before it.
    plain.truncate(bytes.len());
    if plain.last() == Some(&0) {
        plain.pop();
    }
    plain
}
