//! Commands and answers as packets of protocol 4.1. The handshake is one of ours, without a password: a journal
//! has no proofs. Statements are numbered anew.

use super::client::execute;
use super::handshake::{Greeting, Login, NATIVE, UTF8MB4, caps};
use super::result::{Shape, encode, ok_value, status};
use super::wire::put_message;
use crate::protocol::retell::{Piece, Pieces, Retell};
use faultbox_bundle_format::Value;
use std::collections::BTreeMap;

/// What both sides of a connection that is told again can do.
const CAPABILITIES: u32 = caps::LONG_PASSWORD
    | caps::CONNECT_WITH_DB
    | caps::PROTOCOL_41
    | caps::TRANSACTIONS
    | caps::SECURE_CONNECTION
    | caps::MULTI_STATEMENTS
    | caps::MULTI_RESULTS
    | caps::PS_MULTI_RESULTS
    | caps::PLUGIN_AUTH;

/// A connection of MySQL.
#[derive(Default)]
pub struct Retold {
    logged_in: bool,
    statements: BTreeMap<String, u32>,
}

fn message(seq: &mut u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, seq, payload);
    out
}

fn answer(value: &Value, shape: Shape, statement: u32, mut seq: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for payload in encode(value, shape, CAPABILITIES, statement) {
        put_message(&mut out, &mut seq, &payload);
    }
    out
}

/// The greeting; and the login of this user.
fn handshake(user: &str, database: Option<&str>) -> (Vec<u8>, Vec<u8>) {
    let greeting = Greeting {
        version: super::facts::VERSION.to_owned(),
        thread: 1,
        salt: vec![b'.'; 20],
        capabilities: CAPABILITIES,
        charset: UTF8MB4,
        status: status::AUTOCOMMIT as u16,
        plugin: NATIVE.to_owned(),
    };
    let login = Login {
        capabilities: CAPABILITIES,
        charset: UTF8MB4,
        user: user.to_owned(),
        proof: Vec::new(),
        database: Some(database.unwrap_or_default().to_owned()),
        plugin: NATIVE.to_owned(),
    };
    let mut seq = 0;
    let greeting = message(&mut seq, &greeting.encode());
    (greeting, message(&mut seq, &login.encode()))
}

impl Retold {
    /// The number of a statement, which is prepared now if it was not.
    fn statement(&mut self, sql: &str) -> u32 {
        let next = self.statements.len() as u32 + 1;
        *self.statements.entry(sql.to_owned()).or_insert(next)
    }
}

impl Retell for Retold {
    fn exchange(&mut self, request: &Value, response: Option<&Value>) -> Result<Pieces, String> {
        let text = |name: &str| request.get(name).and_then(Value::as_text).unwrap_or_default();
        let (command, sql) = (text("command"), text("sql"));
        if command == "connect" {
            self.logged_in = true;
            let (greeting, login) = handshake(text("user"), request.get("database").and_then(Value::as_text));
            let response = response.map(|value| answer(value, Shape::One, 0, 2)).unwrap_or_default();
            return Ok(Pieces { before: vec![Piece::answered(greeting)], request: login, response });
        }
        let mut before = Vec::new();
        if !self.logged_in {
            // A connection that is older than its cell.
            self.logged_in = true;
            let (greeting, login) = handshake("", None);
            let fine = answer(&ok_value(0, 0, status::AUTOCOMMIT, 0, ""), Shape::One, 0, 2);
            before = vec![Piece::answered(greeting), Piece::asked(login), Piece::answered(fine)];
        }
        let with = |code: u8, rest: &str| [&[code], rest.as_bytes()].concat();
        let (payload, shape, statement) = match command {
            "query" => (with(3, sql), Shape::Text, 0),
            "prepare" => (with(0x16, sql), Shape::Prepare, self.statement(sql)),
            "execute" => {
                let id = self.statement(sql);
                let params = request.get("params").and_then(Value::as_list).unwrap_or_default();
                (execute(id, params), Shape::Binary, id)
            }
            "init_db" => (with(2, text("database")), Shape::One, 0),
            "field_list" => (with(4, &format!("{}\0", text("table"))), Shape::Fields, 0),
            "quit" => (with(1, ""), Shape::One, 0),
            "statistics" => (with(9, ""), Shape::One, 0),
            "ping" => (with(0x0e, ""), Shape::One, 0),
            "reset_connection" => (with(0x1f, ""), Shape::One, 0),
            other => return Err(format!("a journal does not have all of {other}")),
        };
        let response = response.map(|value| answer(value, shape, statement, 1)).unwrap_or_default();
        Ok(Pieces { before, request: message(&mut 0, &payload), response })
    }
}
