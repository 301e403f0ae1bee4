//! Commands: bytes to what is asked, and what is asked to a [`Request`].
//!
//! Contract: proxy and server side describe a client's command through the same
//! [`Session`], so that both build equal requests. Statement numbers mean nothing beyond
//! their connection: an execution is described by its SQL and parameters.
//! Not modelled: replication commands and bulk execution (the proxy splices them).

use super::fingerprint::{Fingerprint, Kind, any_order, collapsed, fingerprint, placeholders};
use super::handshake::{Login, caps};
use super::result::{Column, Shape, binary_value, types};
use super::wire::{Decoded, Fields, malformed};
use crate::link::Request;
use faultbox_bundle_format::{Class, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a client can ask.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Goodbye.
    Quit,
    /// Use this database.
    InitDb(String),
    /// Statements as text.
    Query {
        /// The text.
        sql: String,
        /// Query attributes.
        attributes: Vec<(String, Value)>,
    },
    /// The columns of a table (an old command).
    FieldList(String),
    /// Server statistics as text.
    Statistics,
    /// Ends another connection or its statement.
    Kill(u32),
    /// Dumps debug information into the log.
    Debug,
    /// Are you there?
    Ping,
    /// Logs in again.
    ChangeUser(Login),
    /// Prepares a statement.
    Prepare(String),
    /// Executes one.
    Execute {
        /// Its number.
        id: u32,
        /// Its SQL, if it was prepared here.
        sql: Arc<str>,
        /// The parameters.
        params: Vec<Value>,
        /// Query attributes.
        attributes: Vec<(String, Value)>,
    },
    /// A piece of a long parameter; no answer.
    LongData,
    /// Forgets a statement; no answer.
    Close(u32),
    /// Forgets a statement's long data and cursor.
    Reset(u32),
    /// Multi statements on or off.
    SetOption(u16),
    /// Rows of a cursor.
    Fetch {
        /// The statement.
        id: u32,
        /// How many rows at most.
        rows: u32,
    },
    /// Back to a fresh session.
    ResetConnection,
    /// Anything else.
    Other(u8),
}

/// A prepared statement.
#[derive(Debug, Clone, Default)]
pub struct Statement {
    /// Its SQL.
    pub sql: Arc<str>,
    /// How many parameters it has.
    pub params: usize,
    /// Columns of its last execution, for cursors.
    pub columns: Arc<Vec<Column>>,
    print: Option<Arc<Fingerprint>>,
    bound: Vec<(u8, bool)>,
    long: BTreeMap<u16, Vec<u8>>,
}

/// What a connection's commands depend on.
#[derive(Debug, Default)]
pub struct Session {
    /// What both sides can do.
    pub capabilities: u32,
    /// Prepared statements by number.
    pub statements: BTreeMap<u32, Statement>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A statement as text. Some drivers put bytes into it as they are (`_binary'\xff'`): a string that is
/// no text becomes the hexadecimal literal that means the same.
fn statement_text(bytes: &[u8]) -> String {
    if let Ok(sql) = std::str::from_utf8(bytes) {
        return sql.to_owned();
    }
    let mut out = String::with_capacity(bytes.len() * 2);
    let (mut rest, mut plain) = (bytes, 0);
    while let Some(quote) = rest.get(plain) {
        if !matches!(quote, b'\'' | b'"' | b'`') {
            plain += 1;
            continue;
        }
        let (before, string) = rest.split_at(plain);
        out += &String::from_utf8_lossy(before);
        let (length, content) = string_literal(string, *quote);
        let (literal, after) = string.split_at(length);
        match std::str::from_utf8(literal) {
            Err(_) if *quote != b'`' => {
                let hex: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
                // An introducer before it must stay a word of its own.
                out += &format!(" x'{hex}'");
            }
            Ok(text) => out += text,
            Err(_) => out += &String::from_utf8_lossy(literal),
        }
        (rest, plain) = (after, 0);
    }
    out + &String::from_utf8_lossy(rest)
}

/// The length of the string literal that begins here, and the bytes it means.
fn string_literal(bytes: &[u8], quote: u8) -> (usize, Vec<u8>) {
    let (mut at, mut content) = (1, Vec::new());
    while let Some(byte) = bytes.get(at) {
        match (*byte, bytes.get(at + 1)) {
            (b'\\', Some(escaped)) if quote != b'`' => {
                content.push(match escaped {
                    b'0' => 0,
                    b'b' => 8,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'Z' => 26,
                    other => *other,
                });
                at += 2;
            }
            (byte, Some(next)) if byte == quote && *next == quote => {
                content.push(quote);
                at += 2;
            }
            (byte, _) if byte == quote => return (at + 1, content),
            (byte, _) => {
                content.push(byte);
                at += 1;
            }
        }
    }
    (bytes.len(), content)
}

impl Session {
    /// Remembers a prepared statement.
    pub fn prepared(&mut self, id: u32, sql: &str) {
        let print = Some(Arc::new(fingerprint(sql)));
        let params = placeholders(sql);
        let statement = Statement { sql: sql.into(), params, print, ..Statement::default() };
        self.statements.insert(id, statement);
    }

    /// Decodes a command and remembers what later ones depend on.
    ///
    /// # Errors
    /// When it is cut short or contradicts itself.
    pub fn decode(&mut self, payload: &[u8]) -> Decoded<Command> {
        let mut fields = Fields::new(payload);
        let code = fields.u8()?;
        Ok(match code {
            0x01 => Command::Quit,
            0x02 => Command::InitDb(text(fields.rest())),
            0x03 => {
                let mut attributes = Vec::new();
                if self.capabilities & caps::QUERY_ATTRIBUTES != 0 {
                    let count = usize::try_from(fields.lenenc()?).unwrap_or(usize::MAX);
                    fields.lenenc()?;
                    if count > 0 {
                        (attributes, _) = self.values(&mut fields, None, count)?;
                    }
                }
                Command::Query { sql: statement_text(fields.rest()), attributes }
            }
            0x04 => Command::FieldList(fields.zero_ended_text()),
            0x09 => Command::Statistics,
            0x0c => Command::Kill(fields.int(4)? as u32),
            0x0d => Command::Debug,
            0x0e => Command::Ping,
            0x11 => Command::ChangeUser(Login::decode_change_user(fields.rest(), self.capabilities)?),
            0x16 => Command::Prepare(statement_text(fields.rest())),
            0x17 => self.execute(fields)?,
            0x18 => {
                let (id, index) = (fields.int(4)? as u32, fields.int(2)? as u16);
                if let Some(statement) = self.statements.get_mut(&id) {
                    statement.long.entry(index).or_default().extend_from_slice(fields.rest());
                }
                Command::LongData
            }
            0x19 => {
                let id = fields.int(4)? as u32;
                self.statements.remove(&id);
                Command::Close(id)
            }
            0x1a => {
                let id = fields.int(4)? as u32;
                if let Some(statement) = self.statements.get_mut(&id) {
                    statement.long.clear();
                }
                Command::Reset(id)
            }
            0x1b => Command::SetOption(fields.int(2)? as u16),
            0x1c => Command::Fetch { id: fields.int(4)? as u32, rows: fields.int(4)? as u32 },
            0x1f => {
                self.statements.clear();
                Command::ResetConnection
            }
            other => Command::Other(other),
        })
    }

    fn execute(&mut self, mut fields: Fields<'_>) -> Decoded<Command> {
        let id = fields.int(4)? as u32;
        let flags = fields.u8()?;
        fields.int(4)?;
        let own = self.statements.get(&id).map_or(0, |statement| statement.params);
        let mut count = own;
        if self.capabilities & caps::QUERY_ATTRIBUTES != 0 && (own > 0 || flags & 0x08 != 0) {
            count = usize::try_from(fields.lenenc()?).unwrap_or(usize::MAX);
        }
        let (mut params, mut attributes) = (Vec::new(), Vec::new());
        if count > 0 {
            let (named, bound) = self.values(&mut fields, Some(id), count)?;
            if let Some(statement) = self.statements.get_mut(&id) {
                statement.bound = bound;
                statement.long.clear();
            }
            for (index, (name, value)) in named.into_iter().enumerate() {
                if index < own {
                    params.push(value);
                } else {
                    attributes.push((name, value));
                }
            }
        }
        let sql = self.statements.get(&id).map(|s| s.sql.clone()).unwrap_or_default();
        Ok(Command::Execute { id, sql, params, attributes })
    }

    /// Null bitmap, types if they are sent, values. With query attributes each type has a name.
    #[expect(clippy::type_complexity, reason = "named values, and the types to remember")]
    fn values(
        &self,
        fields: &mut Fields<'_>,
        statement: Option<u32>,
        count: usize,
    ) -> Decoded<(Vec<(String, Value)>, Vec<(u8, bool)>)> {
        if count > 0xffff {
            return malformed("parameter count");
        }
        let statement = statement.and_then(|id| self.statements.get(&id));
        let nulls = fields.bytes(count.div_ceil(8))?;
        let named = self.capabilities & caps::QUERY_ATTRIBUTES != 0;
        let mut bound = statement.map(|s| s.bound.clone()).unwrap_or_default();
        let mut names = vec![String::new(); count];
        if fields.u8()? == 1 {
            bound.clear();
            for name in &mut names {
                let kind = fields.int(2)?;
                bound.push((kind as u8, kind & 0x8000 != 0));
                if named {
                    *name = fields.lenenc_text()?;
                }
            }
        }
        let mut values = Vec::with_capacity(count);
        for (index, name) in names.into_iter().enumerate() {
            let null = nulls.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
            let (kind, unsigned) = bound.get(index).copied().unwrap_or((types::NULL, false));
            let long = statement.and_then(|s| s.long.get(&(index as u16)));
            let value = match long {
                Some(bytes) => Value::text_or_bytes(bytes),
                None if null => Value::Null,
                None => binary_value(fields, kind, unsigned)?,
            };
            values.push((name, value));
        }
        Ok((values, bound))
    }

    /// A statement as a request without what rules look at, and without its body (which
    /// [`Command::body`] makes); any other command as [`Session::describe`] does.
    pub fn outline(&self, command: &Command) -> Request {
        match command {
            Command::Query { sql, .. } => statement_outline(fingerprint(sql)),
            Command::Execute { id, sql, .. } => {
                let print = self.statements.get(id).and_then(|statement| statement.print.as_deref());
                statement_outline(print.cloned().unwrap_or_else(|| fingerprint(sql)))
            }
            other => self.describe(other),
        }
    }

    /// The command as a request.
    pub fn describe(&self, command: &Command) -> Request {
        match command {
            Command::Query { sql, .. } => statement_request(sql, command.body()),
            Command::Execute { sql, .. } => statement_request(sql, command.body()),
            Command::Fetch { id, rows } => {
                let sql = self.statements.get(id).map(|s| s.sql.clone()).unwrap_or_default();
                let mut request = statement_request(&sql, Some(statement_body("fetch", &sql, None, &[])));
                request.operation = "FETCH".into();
                request.key = format!("fetch {}", request.key);
                request.works = false;
                request.repeatable = false;
                if let Value::Map(parts) = &mut request.body {
                    parts.push(("rows".to_owned(), Value::Int(i64::from(*rows))));
                }
                request
            }
            Command::Prepare(sql) => {
                let print = fingerprint(sql);
                let body = [("command", Value::text("prepare")), ("sql", Value::text(sql.as_str()))];
                control("PREPARE", &format!("prepare {}", print.text), Value::map(body))
            }
            Command::InitDb(name) => named("INIT_DB", "init_db", "database", name),
            Command::FieldList(table) => named("FIELD_LIST", "field_list", "table", table),
            Command::ChangeUser(login) => login_request("CHANGE_USER", login),
            Command::Ping => Request { class: Class::Ambient, repeatable: true, ..simple("PING") },
            Command::Statistics => {
                Request { class: Class::Ambient, repeatable: true, ..simple("STATISTICS") }
            }
            Command::Quit => simple("QUIT"),
            Command::Kill(_) => simple("KILL"),
            Command::Debug => simple("DEBUG"),
            Command::LongData => simple("SEND_LONG_DATA"),
            Command::Close(_) => simple("CLOSE"),
            Command::Reset(_) => simple("RESET"),
            Command::SetOption(_) => simple("SET_OPTION"),
            Command::ResetConnection => simple("RESET_CONNECTION"),
            Command::Other(code) => simple(&format!("COM_{code:#04x}")),
        }
    }
}

impl Command {
    /// The body of the request that a statement is; `None` of any other command.
    pub fn body(&self) -> Option<Value> {
        match self {
            Command::Query { sql, attributes } => Some(statement_body("query", sql, None, attributes)),
            Command::Execute { sql, params, attributes, .. } => {
                Some(statement_body("execute", sql, Some(params), attributes))
            }
            _ => None,
        }
    }

    /// The shape of its answer; `None` where there is none.
    pub fn shape(&self) -> Option<Shape> {
        match self {
            Command::Quit | Command::Close(_) | Command::LongData => None,
            Command::Query { .. } => Some(Shape::Text),
            Command::Execute { .. } => Some(Shape::Binary),
            Command::Prepare(_) => Some(Shape::Prepare),
            Command::FieldList(_) => Some(Shape::Fields),
            Command::Fetch { .. } => Some(Shape::Fetch),
            _ => Some(Shape::One),
        }
    }
}

/// The request that a login is.
pub fn login_request(operation: &str, login: &Login) -> Request {
    let body = [
        ("command", Value::text(operation.to_lowercase())),
        ("user", Value::text(login.user.as_str())),
        ("database", login.database.as_deref().map_or(Value::Null, Value::from)),
        ("plugin", Value::text(login.plugin.as_str()).volatile()),
    ];
    let found_rows = login.capabilities & caps::FOUND_ROWS != 0;
    let fields = if found_rows { vec![(FOUND_ROWS, Vec::new())] } else { Vec::new() };
    Request { fields, ..control(operation, &operation.to_lowercase(), Value::map(body)) }
}

/// The field of a login that wants an update's matching rows counted, not its changed ones. (Not
/// in the body: no answer in a recording depends on who asks for it.)
const FOUND_ROWS: &str = "found_rows";

/// Whether a request is a login that wants matching rows counted.
pub fn asks_found_rows(request: &Request) -> bool {
    request.fields.iter().any(|(field, _)| *field == FOUND_ROWS)
}

fn named(operation: &str, command: &str, field: &str, value: &str) -> Request {
    let body = [("command", Value::text(command)), (field, Value::text(value))];
    control(operation, &format!("{command} {value}"), Value::map(body))
}

fn simple(operation: &str) -> Request {
    let command = operation.to_lowercase();
    let body = Value::map([("command", Value::text(command.as_str()))]);
    control(operation, &command, body)
}

fn control(operation: &str, key: &str, body: Value) -> Request {
    Request {
        operation: operation.to_owned().into(),
        key: key.to_owned(),
        fields: Vec::new(),
        class: Class::Control,
        works: false,
        mutating: false,
        repeatable: false,
        body,
    }
}

fn statement_body(
    command: &str,
    sql: &str,
    params: Option<&[Value]>,
    attributes: &[(String, Value)],
) -> Value {
    let print = fingerprint(sql);
    let any_order = any_order(sql, params.unwrap_or_default());
    let told = |value: Value, volatile: bool| if volatile { value.volatile() } else { value };
    let ordered = any_order.is_none();
    let mut body = vec![
        ("command", Value::text(command)),
        ("sql", told(Value::text(sql), !ordered || print.of_savepoint())),
    ];
    if let Some(params) = params {
        body.push(("params", told(Value::List(params.to_vec()), !ordered)));
    }
    if let Some((sql, params)) = any_order {
        let parts = [("sql", Value::Text(sql)), ("params", Value::List(params))];
        body.push(("any_order", Value::map(parts)));
    }
    if !attributes.is_empty() {
        // Tracing lives in attributes: what is in them differs from run to run.
        body.push(("attributes", Value::map(attributes.iter().cloned()).volatile()));
    }
    Value::map(body)
}

fn statement_request(sql: &str, body: Option<Value>) -> Request {
    let print = fingerprint(sql);
    let plain = collapsed(sql);
    Request {
        // A rule may be written as the fingerprint, as the statement, or without its backticks.
        fields: vec![
            ("query", vec![print.text.clone(), plain.clone(), plain.replace('`', "")]),
            ("table", print.tables.clone()),
        ],
        body: body.unwrap_or_default(),
        ..statement_outline(print)
    }
}

fn statement_outline(print: Fingerprint) -> Request {
    Request {
        operation: print.operation.into(),
        key: print.text,
        fields: Vec::new(),
        class: if print.kind == Kind::Session { Class::Control } else { Class::Work },
        works: matches!(print.kind, Kind::Read | Kind::Write),
        mutating: print.mutating,
        repeatable: print.kind == Kind::Read,
        body: Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_a_statement_become_hexadecimal() {
        let sql = b"INSERT INTO `t` VALUES ('a''b', _binary'\\0\xff''\\'\\\\x', \"\xc3\xa9\")";
        assert_eq!(
            statement_text(sql),
            "INSERT INTO `t` VALUES ('a''b', _binary x'00ff27275c78', \"\u{e9}\")"
        );
        assert_eq!(statement_text("SELECT '\u{e9}'".as_bytes()), "SELECT '\u{e9}'");
        // Cut short: still no panic, and nothing is lost.
        for end in 0..sql.len() {
            statement_text(&sql[..end]);
        }
    }
}
