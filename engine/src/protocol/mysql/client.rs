//! A small client: the step verbs and the readiness probe.
//!
//! Contract: what goes wrong stands in the response, with the server's own number and
//! message and, in a script, the statement. A script runs statement by statement and stops
//! at the first error.
//! Not modelled: connections kept between steps (each step logs in).

use super::command::Session;
use super::crypt;
use super::fingerprint::split;
use super::handshake::{CACHING_SHA2, Greeting, Login, UTF8MB4, caps, masked, proof};
use super::result::{Column, Reader, Shape, flags, types};
use super::side::Side;
use super::wire::{Fields, put_lenenc_bytes};
use crate::link::{InterfaceOptions, Stream};
use crate::protocol::ProtocolError;
use crate::step::StepResponse;
use faultbox_bundle_format::Value;

/// What both verbs can do.
const CAPABILITIES: u32 = caps::LONG_PASSWORD
    | caps::LONG_FLAG
    | caps::PROTOCOL_41
    | caps::TRANSACTIONS
    | caps::SECURE_CONNECTION
    | caps::MULTI_RESULTS
    | caps::PS_MULTI_RESULTS
    | caps::PLUGIN_AUTH
    | caps::PLUGIN_AUTH_LENENC
    | caps::DEPRECATE_EOF;

/// Why the client could not.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The server said no.
    #[error("{message} (errno {errno}, sqlstate {sqlstate})")]
    Server {
        /// Its number.
        errno: i64,
        /// Its SQLSTATE.
        sqlstate: String,
        /// Its words.
        message: String,
    },
}

impl From<super::wire::CodecError> for ClientError {
    fn from(error: super::wire::CodecError) -> Self {
        ClientError::Protocol(error.into())
    }
}

fn server_error(answer: &Value) -> Option<ClientError> {
    let last = answer.get("results").and_then(Value::as_list).and_then(<[_]>::last).unwrap_or(answer);
    let err = last.get("err")?;
    let text = |name: &str| err.get(name).and_then(Value::as_text).unwrap_or_default().to_owned();
    let errno = err.get("errno").and_then(Value::as_int).unwrap_or_default();
    Some(ClientError::Server { errno, sqlstate: text("sqlstate"), message: text("message") })
}

/// User, password and database of an interface, from its service's environment.
fn credentials(options: &InterfaceOptions) -> (String, String, Option<String>) {
    let env = |names: [&str; 2]| names.iter().find_map(|name| options.env.get(*name)).cloned();
    let database = env(["MYSQL_DATABASE", "MARIADB_DATABASE"]);
    let root = env(["MYSQL_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD"]);
    match (root, env(["MYSQL_USER", "MARIADB_USER"])) {
        (None, Some(user)) => {
            (user, env(["MYSQL_PASSWORD", "MARIADB_PASSWORD"]).unwrap_or_default(), database)
        }
        (root, _) => ("root".to_owned(), root.unwrap_or_default(), database),
    }
}

/// A connection that has logged in.
pub struct Client {
    side: Side,
    capabilities: u32,
}

impl Client {
    /// Logs in with the interface's credentials.
    ///
    /// # Errors
    /// When the server cannot be understood or refuses.
    pub async fn connect(stream: Stream, options: &InterfaceOptions) -> Result<Client, ClientError> {
        let mut side = Side::new(stream);
        let first = side.expect().await?;
        if first.payload.first() == Some(&0xff) {
            return Err(refused(&first.payload)?);
        }
        let greeting = Greeting::decode(&first.payload)?;
        let (user, password, database) = credentials(options);
        let wanted = CAPABILITIES | database.as_ref().map_or(0, |_| caps::CONNECT_WITH_DB);
        let plugin =
            if greeting.plugin.is_empty() { CACHING_SHA2.to_owned() } else { greeting.plugin.clone() };
        let login = Login {
            capabilities: wanted & greeting.capabilities,
            charset: if greeting.capabilities & caps::DEPRECATE_EOF != 0 { UTF8MB4 } else { 45 },
            user,
            proof: proof(&plugin, password.as_bytes(), &greeting.salt),
            database,
            plugin: plugin.clone(),
        };
        let mut seq = first.seq.wrapping_add(1);
        side.put(&mut seq, &login.encode()).await?;
        let mut client = Client { side, capabilities: login.capabilities };
        client.authenticate(&password, plugin, greeting.salt).await?;
        Ok(client)
    }

    async fn authenticate(
        &mut self,
        password: &str,
        mut plugin: String,
        mut salt: Vec<u8>,
    ) -> Result<(), ClientError> {
        let mut key_asked = false;
        loop {
            let message = self.side.expect().await?;
            let mut seq = message.seq.wrapping_add(1);
            match (message.payload.first(), message.payload.get(1)) {
                (Some(0), _) => return Ok(()),
                (Some(0xff), _) => return Err(refused(&message.payload)?),
                (Some(0xfe), _) => {
                    let mut fields = Fields::new(&message.payload[1..]);
                    plugin = fields.zero_ended_text();
                    salt = fields.rest().to_vec();
                    salt.truncate(20);
                    self.side.put(&mut seq, &proof(&plugin, password.as_bytes(), &salt)).await?;
                }
                (Some(1), Some(3)) if !key_asked => {}
                (Some(1), Some(4)) if plugin == CACHING_SHA2 && !key_asked => {
                    key_asked = true;
                    self.side.put(&mut seq, &[2]).await?;
                }
                (Some(1), Some(_)) if key_asked => {
                    let plain = masked(password.as_bytes(), &salt);
                    let sealed = crypt::encrypt(&message.payload[1..], &plain, &salt);
                    let sealed =
                        sealed.ok_or_else(|| ProtocolError::Malformed("mysql: the server's key".into()))?;
                    self.side.put(&mut seq, &sealed).await?;
                }
                _ => {
                    return Err(ProtocolError::Malformed(format!("mysql: authentication by {plugin}")).into());
                }
            }
        }
    }

    /// Sends a command and reads its answer.
    ///
    /// # Errors
    /// When the connection fails or the server says no.
    pub async fn ask(&mut self, payload: &[u8], shape: Shape) -> Result<(Value, Option<u32>), ClientError> {
        let mut seq = 0;
        self.side.put(&mut seq, payload).await?;
        let mut reader = Reader::new(shape, self.capabilities, Default::default());
        while !reader.feed(&self.side.expect().await?.payload)? {}
        let statement = reader.statement;
        let answer = reader.finish();
        match server_error(&answer) {
            Some(error) => Err(error),
            None => Ok((answer, statement)),
        }
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn run(&mut self, sql: &str, params: &[Value]) -> Result<Value, ClientError> {
        if params.is_empty() {
            let payload = [&[3], sql.as_bytes()].concat();
            return Ok(self.ask(&payload, Shape::Text).await?.0);
        }
        let payload = [&[0x16], sql.as_bytes()].concat();
        let (_, statement) = self.ask(&payload, Shape::Prepare).await?;
        let mut session = Session::default();
        session.prepared(0, sql);
        let wants = session.statements.get(&0).map_or(0, |s| s.params);
        if wants != params.len() {
            let why =
                format!("the statement has {wants} placeholders, {} parameters were given", params.len());
            return Err(ProtocolError::Malformed(why).into());
        }
        let payload = execute(statement.unwrap_or_default(), params);
        Ok(self.ask(&payload, Shape::Binary).await?.0)
    }

    /// Asks whether the server is there.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn ping(&mut self) -> Result<(), ClientError> {
        self.ask(&[0x0e], Shape::One).await.map(|_| ())
    }

    /// Says goodbye.
    pub async fn quit(mut self) {
        // The server may have gone already: nobody needs to know.
        let _ = self.side.put(&mut 0, &[1]).await;
    }
}

fn refused(payload: &[u8]) -> Result<ClientError, ClientError> {
    let mut reader = Reader::new(Shape::Text, 0, Default::default());
    reader.feed(payload)?;
    Ok(server_error(&reader.finish()).unwrap_or(ClientError::Protocol(ProtocolError::Cut)))
}

/// `COM_STMT_EXECUTE` of this statement.
pub fn execute(statement: u32, params: &[Value]) -> Vec<u8> {
    let mut out = vec![0x17];
    out.extend_from_slice(&statement.to_le_bytes());
    out.extend_from_slice(&[0, 1, 0, 0, 0]);
    let mut nulls = vec![0u8; params.len().div_ceil(8)];
    let (mut kinds, mut values) = (Vec::new(), Vec::new());
    for (index, param) in params.iter().enumerate() {
        let kind: u16 = match param.bare() {
            Value::Null => {
                nulls[index / 8] |= 1 << (index % 8);
                u16::from(types::NULL)
            }
            Value::Bool(b) => {
                values.push(u8::from(*b));
                u16::from(types::TINY)
            }
            Value::Int(n) => {
                values.extend_from_slice(&n.to_le_bytes());
                u16::from(types::LONGLONG)
            }
            Value::UInt(n) => {
                values.extend_from_slice(&n.to_le_bytes());
                u16::from(types::LONGLONG) | 0x8000
            }
            Value::Float(n) => {
                values.extend_from_slice(&n.to_le_bytes());
                u16::from(types::DOUBLE)
            }
            other => {
                put_lenenc_bytes(&mut values, &super::result::shown(other));
                u16::from(types::VAR_STRING)
            }
        };
        kinds.extend_from_slice(&kind.to_le_bytes());
    }
    out.extend_from_slice(&nulls);
    out.push(1);
    out.extend_from_slice(&kinds);
    out.extend_from_slice(&values);
    out
}

/// A result as steps show it: rows as a list of maps, or the counts.
pub(crate) fn data(answer: &Value) -> Value {
    let last = answer.get("results").and_then(Value::as_list).and_then(<[_]>::last).unwrap_or(answer);
    if let Some(set) = last.get("resultset") {
        let columns = set.get("columns").and_then(Value::as_list).unwrap_or_default();
        let columns: Vec<Column> = columns.iter().map(Column::from_value).collect();
        let rows = set.get("rows").and_then(Value::as_list).unwrap_or_default();
        let row = |row: &Value| {
            let cells = row.as_list().unwrap_or_default().iter();
            Value::map(
                columns.iter().zip(cells).map(|(column, cell)| (column.name.clone(), typed(column, cell))),
            )
        };
        return Value::List(rows.iter().map(row).collect());
    }
    let count = |name: &str| last.get("ok").and_then(|ok| ok.get(name)).cloned().unwrap_or(Value::Int(0));
    Value::map([("affected", count("affected")), ("last_insert_id", count("last_insert_id"))])
}

/// Numbers are numbers; decimals stay text, which keeps every digit.
fn typed(column: &Column, cell: &Value) -> Value {
    let Some(text) = cell.as_text() else { return cell.clone() };
    match column.kind {
        types::TINY | types::SHORT | types::LONG | types::LONGLONG | types::INT24 | types::YEAR => {
            let unsigned = column.flags & flags::UNSIGNED != 0;
            let whole = text.parse().map(Value::Int).ok();
            whole
                .or_else(|| text.parse().map(Value::UInt).ok().filter(|_| unsigned))
                .unwrap_or_else(|| cell.clone())
        }
        types::FLOAT | types::DOUBLE => text.parse().map_or_else(|_| cell.clone(), Value::Float),
        _ => cell.clone(),
    }
}

fn failed(error: &ClientError, statement: Option<&str>) -> StepResponse {
    let words = match statement {
        Some(sql) => format!("{error}; in statement: {}", sql.chars().take(200).collect::<String>()),
        None => error.to_string(),
    };
    let status = match error {
        ClientError::Server { errno, .. } => *errno,
        ClientError::Protocol(_) => 0,
    };
    StepResponse { status, ..StepResponse::no_answer(words) }
}

/// Carries out `query` or `exec`.
pub async fn step(
    stream: Stream,
    options: &InterfaceOptions,
    script: bool,
    sql: &str,
    params: &[Value],
) -> StepResponse {
    let mut client = match Client::connect(stream, options).await {
        Ok(client) => client,
        Err(error) => return failed(&error, None),
    };
    let statements = if script { split(sql) } else { vec![sql] };
    if statements.len() > 1 && !params.is_empty() {
        return StepResponse::no_answer("a script of several statements takes no params");
    }
    let mut last = Value::map([("affected", Value::Int(0)), ("last_insert_id", Value::Int(0))]);
    for statement in statements {
        match client.run(statement, params).await {
            Ok(answer) => last = data(&answer),
            Err(error) => return failed(&error, script.then_some(statement)),
        }
    }
    client.quit().await;
    StepResponse { ok: true, data: last, ..StepResponse::default() }
}

/// Whether the server serves: it lets us in, or refuses our password, which only a server
/// that serves can.
///
/// # Errors
/// When it does not yet.
pub async fn ready(stream: Stream, options: &InterfaceOptions) -> Result<(), ProtocolError> {
    let words = |error: ClientError| match error {
        ClientError::Protocol(error) => error,
        other => ProtocolError::Malformed(other.to_string()),
    };
    match Client::connect(stream, options).await {
        Ok(mut client) => {
            client.ping().await.map_err(words)?;
            client.quit().await;
            Ok(())
        }
        Err(ClientError::Server { errno: 1045, .. }) => Ok(()),
        Err(error) => Err(words(error)),
    }
}
