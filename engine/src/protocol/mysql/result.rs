//! Results: OK, ERR, result sets in text and in binary form, to [`Value`] and back.
//!
//! Contract: sans I/O. [`Reader`] follows one command's answer message by message and says
//! when it is complete; what it gathered is one [`Value`] that [`encode`] turns back into
//! messages, in whichever form (text or binary) the command asks for. Lengths are computed
//! when encoding, so a value whose texts were replaced encodes as well.
//! Not modelled: rows beyond [`ROWS_KEPT`] bytes of one answer are forwarded but not kept
//! (the answer is then marked `truncated` and replays without them).

use super::handshake::caps;
use super::wire::{Decoded, Fields, malformed, put_lenenc, put_lenenc_bytes};
use faultbox_bundle_format::Value;
use std::sync::Arc;

/// So many bytes of rows are kept of one answer: bundles are for reading.
pub const ROWS_KEPT: usize = 64 << 20;

/// Status flags.
pub mod status {
    #![expect(missing_docs, reason = "the names are MySQL's own")]
    pub const IN_TRANS: u64 = 1;
    pub const AUTOCOMMIT: u64 = 2;
    pub const MORE_RESULTS: u64 = 8;
    pub const CURSOR_EXISTS: u64 = 0x40;
    pub const LAST_ROW_SENT: u64 = 0x80;
    pub const SESSION_STATE_CHANGED: u64 = 0x4000;
}

/// Column types on the wire.
pub mod types {
    #![expect(missing_docs, reason = "the names are MySQL's own")]
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const NULL: u8 = 6;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const BIT: u8 = 16;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
}

/// Column flags.
pub mod flags {
    #![expect(missing_docs, reason = "the names are MySQL's own")]
    pub const NOT_NULL: u64 = 1;
    pub const PRIMARY_KEY: u64 = 2;
    pub const UNIQUE_KEY: u64 = 4;
    pub const BLOB: u64 = 16;
    pub const UNSIGNED: u64 = 32;
    pub const BINARY: u64 = 128;
    pub const AUTO_INCREMENT: u64 = 512;
}

/// Which answer a command gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// OK, ERR or text rows, several times.
    Text,
    /// The same with binary rows.
    Binary,
    /// What `COM_STMT_PREPARE` gets.
    Prepare,
    /// Column definitions, as `COM_FIELD_LIST` gets.
    Fields,
    /// Rows of a cursor.
    Fetch,
    /// One message, whatever it is.
    One,
}

fn int(n: u64) -> Value {
    i64::try_from(n).map_or(Value::UInt(n), Value::Int)
}

/// An error as a [`Value`].
pub fn error_value(errno: i64, sqlstate: &str, message: &str) -> Value {
    let parts = [
        ("errno", Value::Int(errno)),
        ("sqlstate", Value::text(sqlstate)),
        ("message", Value::text(message)),
    ];
    Value::map([("err", Value::map(parts))])
}

/// An OK as a [`Value`].
pub fn ok_value(affected: u64, last_insert_id: u64, status: u64, warnings: u64, info: &str) -> Value {
    let mut parts = vec![
        ("affected", int(affected)),
        ("last_insert_id", int(last_insert_id)),
        ("status", int(status)),
        ("warnings", int(warnings)),
    ];
    if !info.is_empty() {
        parts.push(("info", Value::text(info)));
    }
    Value::map([("ok", Value::map(parts))])
}

fn decode_err(payload: &[u8]) -> Decoded<Value> {
    let mut fields = Fields::new(payload);
    fields.u8()?;
    let errno = fields.int(2)? as i64;
    let rest = fields.rest();
    let (state, message) = match rest.split_first() {
        Some((b'#', after)) if after.len() >= 5 => after.split_at(5),
        _ => (&b"HY000"[..], rest),
    };
    let state = String::from_utf8_lossy(state);
    Ok(error_value(errno, &state, &String::from_utf8_lossy(message)))
}

fn encode_err(err: &Value) -> Vec<u8> {
    let errno = err.get("errno").and_then(Value::as_int).unwrap_or(1105) as u16;
    let state = err.get("sqlstate").and_then(Value::as_text).unwrap_or("HY000");
    let message = err.get("message").and_then(Value::as_bytes).unwrap_or_default();
    let mut out = vec![0xff];
    out.extend_from_slice(&errno.to_le_bytes());
    out.push(b'#');
    out.extend(state.bytes().chain(std::iter::repeat(b'0')).take(5));
    out.extend_from_slice(message);
    out
}

/// An OK message (also in its guise as the end of rows). Returns the value and the status.
fn decode_ok(payload: &[u8], capabilities: u32) -> Decoded<(Value, u64)> {
    let mut fields = Fields::new(payload);
    fields.u8()?;
    let affected = fields.lenenc()?;
    let last_id = fields.lenenc()?;
    let flags = fields.int(2)?;
    let warnings = fields.int(2)?;
    let (mut info, mut session) = (String::new(), None);
    if capabilities & caps::SESSION_TRACK != 0 && !fields.is_empty() {
        info = fields.lenenc_text()?;
        if flags & status::SESSION_STATE_CHANGED != 0 && !fields.is_empty() {
            session = Some(fields.lenenc_bytes()?.to_vec());
        }
    } else if !fields.is_empty() {
        // Documented as the rest of the message; servers send it with its length.
        let rest = fields.rest();
        let mut sized = Fields::new(rest);
        let exact = sized.lenenc_bytes().ok().filter(|_| sized.is_empty());
        info = String::from_utf8_lossy(exact.unwrap_or(rest)).into_owned();
    }
    let kept = flags & !status::MORE_RESULTS;
    let mut value = ok_value(affected, last_id, kept, warnings, &info);
    if let (Value::Map(outer), Some(session)) = (&mut value, session)
        && let Some((_, Value::Map(inner))) = outer.first_mut()
    {
        inner.push(("session".to_owned(), Value::Bytes(session).volatile()));
    }
    Ok((value, flags))
}

fn encode_ok(header: u8, ok: &Value, more: bool, capabilities: u32) -> Vec<u8> {
    let number = |name: &str| number(ok.get(name));
    let session = ok.get("session").and_then(Value::as_bytes).unwrap_or_default();
    let info = ok.get("info").and_then(Value::as_bytes).unwrap_or_default();
    let mut flags = number("status");
    if more {
        flags |= status::MORE_RESULTS;
    }
    if session.is_empty() {
        flags &= !status::SESSION_STATE_CHANGED;
    }
    let mut out = vec![header];
    put_lenenc(&mut out, number("affected"));
    put_lenenc(&mut out, number("last_insert_id"));
    out.extend_from_slice(&(flags as u16).to_le_bytes());
    out.extend_from_slice(&(number("warnings") as u16).to_le_bytes());
    if capabilities & caps::SESSION_TRACK != 0 {
        if !info.is_empty() || !session.is_empty() {
            put_lenenc_bytes(&mut out, info);
        }
        if !session.is_empty() {
            put_lenenc_bytes(&mut out, session);
        }
    } else if !info.is_empty() {
        put_lenenc_bytes(&mut out, info);
    }
    out
}

fn number(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::UInt(n)) => *n,
        Some(other) => other.as_int().map_or(0, |n| n as u64),
        None => 0,
    }
}

/// What the encoder needs of a column definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name shown.
    pub name: String,
    /// The name in the table.
    pub org_name: String,
    /// The table's alias.
    pub table: String,
    /// The table.
    pub org_table: String,
    /// The database.
    pub schema: String,
    /// Collation.
    pub charset: u16,
    /// Display length.
    pub length: u32,
    /// Type, one of [`types`].
    pub kind: u8,
    /// See [`flags`].
    pub flags: u64,
    /// Digits after the point.
    pub decimals: u8,
}

impl Column {
    /// A column without a table.
    pub fn plain(name: &str, kind: u8) -> Self {
        let textual = matches!(kind, types::VAR_STRING | types::STRING | types::BLOB);
        Column {
            name: name.to_owned(),
            org_name: String::new(),
            table: String::new(),
            org_table: String::new(),
            schema: String::new(),
            charset: if textual { 255 } else { 63 },
            length: if textual { 1024 } else { 21 },
            kind,
            flags: if textual { 0 } else { flags::BINARY },
            decimals: if matches!(kind, types::FLOAT | types::DOUBLE | types::VAR_STRING) { 31 } else { 0 },
        }
    }

    fn decode(payload: &[u8]) -> Decoded<Column> {
        let mut fields = Fields::new(payload);
        fields.lenenc_bytes()?;
        let schema = fields.lenenc_text()?;
        let table = fields.lenenc_text()?;
        let org_table = fields.lenenc_text()?;
        let name = fields.lenenc_text()?;
        let org_name = fields.lenenc_text()?;
        fields.lenenc()?;
        Ok(Column {
            name,
            org_name,
            table,
            org_table,
            schema,
            charset: fields.int(2)? as u16,
            length: fields.int(4)? as u32,
            kind: fields.u8()?,
            flags: fields.int(2)?,
            decimals: fields.u8()?,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        for text in ["def", &self.schema, &self.table, &self.org_table, &self.name, &self.org_name] {
            put_lenenc_bytes(&mut out, text.as_bytes());
        }
        out.push(0x0c);
        out.extend_from_slice(&self.charset.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.push(self.kind);
        out.extend_from_slice(&(self.flags as u16).to_le_bytes());
        out.push(self.decimals);
        out.extend_from_slice(&[0, 0]);
        out
    }

    /// As a [`Value`].
    pub fn to_value(&self) -> Value {
        let texts = [
            ("name", &self.name),
            ("org_name", &self.org_name),
            ("table", &self.table),
            ("org_table", &self.org_table),
            ("schema", &self.schema),
        ];
        let numbers = [
            ("charset", u64::from(self.charset)),
            ("length", u64::from(self.length)),
            ("type", u64::from(self.kind)),
            ("flags", self.flags),
            ("decimals", u64::from(self.decimals)),
        ];
        let texts = texts.into_iter().map(|(name, text)| (name, Value::text(text.as_str())));
        Value::map(texts.chain(numbers.into_iter().map(|(name, n)| (name, int(n)))))
    }

    /// The inverse of [`Column::to_value`]; what is missing is empty.
    pub fn from_value(value: &Value) -> Column {
        let text = |name: &str| value.get(name).and_then(Value::as_text).unwrap_or_default().to_owned();
        let number = |name: &str| number(value.get(name));
        Column {
            name: text("name"),
            org_name: text("org_name"),
            table: text("table"),
            org_table: text("org_table"),
            schema: text("schema"),
            charset: number("charset") as u16,
            length: number("length") as u32,
            kind: number("type") as u8,
            flags: number("flags"),
            decimals: number("decimals") as u8,
        }
    }
}

fn text_row(payload: &[u8], columns: usize) -> Decoded<Value> {
    let mut fields = Fields::new(payload);
    let mut cells = Vec::with_capacity(columns.min(4096));
    for _ in 0..columns {
        let mut ahead = fields.clone();
        if ahead.u8()? == 0xfb {
            fields = ahead;
            cells.push(Value::Null);
        } else {
            cells.push(Value::text_or_bytes(fields.lenenc_bytes()?));
        }
    }
    Ok(Value::List(cells))
}

fn binary_row(payload: &[u8], columns: &[Column]) -> Decoded<Value> {
    let mut fields = Fields::new(payload);
    fields.u8()?;
    let nulls = fields.bytes((columns.len() + 9) / 8)?;
    let mut cells = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        let bit = index + 2;
        let null = nulls.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
        let unsigned = column.flags & flags::UNSIGNED != 0;
        cells.push(if null { Value::Null } else { binary_value(&mut fields, column.kind, unsigned)? });
    }
    Ok(Value::List(cells))
}

/// Reads one binary value (of a row or a parameter).
///
/// # Errors
/// When it is cut short or of a type that no server sends.
pub fn binary_value(fields: &mut Fields<'_>, kind: u8, unsigned: bool) -> Decoded<Value> {
    let whole = |len: usize, n: u64| {
        let shift = 64 - 8 * len as u32;
        if unsigned { int(n) } else { Value::Int((n << shift) as i64 >> shift) }
    };
    Ok(match kind {
        types::TINY => whole(1, fields.int(1)?),
        types::SHORT | types::YEAR => whole(2, fields.int(2)?),
        types::LONG | types::INT24 => whole(4, fields.int(4)?),
        types::LONGLONG => whole(8, fields.int(8)?),
        types::FLOAT => Value::Float(f64::from(f32::from_bits(fields.int(4)? as u32))),
        types::DOUBLE => Value::Float(f64::from_bits(fields.int(8)?)),
        types::NULL => Value::Null,
        types::DATE | types::DATETIME | types::TIMESTAMP => {
            let bytes = fields.lenenc_bytes()?;
            Value::Text(date_text(bytes, kind)?)
        }
        types::TIME => Value::Text(time_text(fields.lenenc_bytes()?)?),
        _ => Value::text_or_bytes(fields.lenenc_bytes()?),
    })
}

fn date_text(bytes: &[u8], kind: u8) -> Decoded<String> {
    let mut fields = Fields::new(bytes);
    if bytes.is_empty() {
        let zero = if kind == types::DATE { "0000-00-00" } else { "0000-00-00 00:00:00" };
        return Ok(zero.to_owned());
    }
    let mut text = format!("{:04}-{:02}-{:02}", fields.int(2)?, fields.u8()?, fields.u8()?);
    if !fields.is_empty() {
        text += &format!(" {:02}:{:02}:{:02}", fields.u8()?, fields.u8()?, fields.u8()?);
    }
    if !fields.is_empty() {
        text += &format!(".{:06}", fields.int(4)?);
    }
    Ok(text)
}

fn time_text(bytes: &[u8]) -> Decoded<String> {
    let mut fields = Fields::new(bytes);
    if bytes.is_empty() {
        return Ok("00:00:00".to_owned());
    }
    let sign = if fields.u8()? == 0 { "" } else { "-" };
    let days = fields.int(4)?;
    let hours = days * 24 + fields.int(1)?;
    let mut text = format!("{sign}{hours:02}:{:02}:{:02}", fields.u8()?, fields.u8()?);
    if !fields.is_empty() {
        text += &format!(".{:06}", fields.int(4)?);
    }
    Ok(text)
}

/// The digits groups of `2024-03-01 08:30:00.25`: numbers, and the fraction as microseconds.
fn digit_groups(text: &str) -> (Vec<u64>, Option<u32>) {
    let (head, fraction) = match text.split_once('.') {
        Some((head, fraction)) => (head, Some(fraction)),
        None => (text, None),
    };
    let groups = head.split(|c: char| !c.is_ascii_digit()).filter(|g| !g.is_empty());
    let groups = groups.map(|g| g.parse().unwrap_or(0)).collect();
    let micros = fraction.map(|fraction| {
        let six: String =
            fraction.chars().filter(char::is_ascii_digit).chain("000000".chars()).take(6).collect();
        six.parse().unwrap_or(0)
    });
    (groups, micros)
}

fn put_date(out: &mut Vec<u8>, text: &str) {
    let (groups, micros) = digit_groups(text);
    let part = |index: usize| groups.get(index).copied().unwrap_or(0);
    if groups.iter().all(|n| *n == 0) && micros.is_none() {
        return out.push(0);
    }
    out.push(if micros.is_some() {
        11
    } else if groups.len() > 3 {
        7
    } else {
        4
    });
    out.extend_from_slice(&(part(0) as u16).to_le_bytes());
    out.extend([part(1) as u8, part(2) as u8]);
    if groups.len() > 3 || micros.is_some() {
        out.extend([part(3) as u8, part(4) as u8, part(5) as u8]);
    }
    if let Some(micros) = micros {
        out.extend_from_slice(&micros.to_le_bytes());
    }
}

fn put_time(out: &mut Vec<u8>, text: &str) {
    let (groups, micros) = digit_groups(text);
    let part = |index: usize| groups.get(index).copied().unwrap_or(0);
    if groups.iter().all(|n| *n == 0) && micros.is_none() {
        return out.push(0);
    }
    out.push(if micros.is_some() { 12 } else { 8 });
    out.push(u8::from(text.starts_with('-')));
    out.extend_from_slice(&((part(0) / 24) as u32).to_le_bytes());
    out.extend([(part(0) % 24) as u8, part(1) as u8, part(2) as u8]);
    if let Some(micros) = micros {
        out.extend_from_slice(&micros.to_le_bytes());
    }
}

/// A value as the text that MySQL would show.
pub fn shown(value: &Value) -> Vec<u8> {
    match value.bare() {
        Value::Bool(b) => vec![if *b { b'1' } else { b'0' }],
        Value::Int(n) => n.to_string().into_bytes(),
        Value::UInt(n) => n.to_string().into_bytes(),
        Value::Float(n) => n.to_string().into_bytes(),
        Value::Text(text) => text.clone().into_bytes(),
        Value::Bytes(bytes) => bytes.clone(),
        _ => Vec::new(),
    }
}

fn put_binary(out: &mut Vec<u8>, value: &Value, kind: u8) {
    let text = || String::from_utf8_lossy(&shown(value)).into_owned();
    let whole = || match value.bare() {
        Value::UInt(n) => *n,
        Value::Int(n) => *n as u64,
        Value::Bool(b) => u64::from(*b),
        Value::Float(n) => *n as i64 as u64,
        _ => {
            let text = text();
            text.parse::<i64>().map(|n| n as u64).or_else(|_| text.parse::<u64>()).unwrap_or(0)
        }
    };
    let float = || match value.bare() {
        Value::Float(n) => *n,
        _ => text().parse().unwrap_or(0.0),
    };
    match kind {
        types::TINY => out.push(whole() as u8),
        types::SHORT | types::YEAR => out.extend_from_slice(&(whole() as u16).to_le_bytes()),
        types::LONG | types::INT24 => out.extend_from_slice(&(whole() as u32).to_le_bytes()),
        types::LONGLONG => out.extend_from_slice(&whole().to_le_bytes()),
        types::FLOAT => out.extend_from_slice(&(float() as f32).to_le_bytes()),
        types::DOUBLE => out.extend_from_slice(&float().to_le_bytes()),
        types::DATE | types::DATETIME | types::TIMESTAMP => put_date(out, &text()),
        types::TIME => put_time(out, &text()),
        _ => put_lenenc_bytes(out, &shown(value)),
    }
}

fn encode_row(row: &Value, columns: &[Column], binary: bool) -> Vec<u8> {
    let cells = row.as_list().unwrap_or_default();
    let cell = |index: usize| cells.get(index).map_or(&Value::Null, Value::bare);
    let mut out = Vec::new();
    if !binary {
        for index in 0..columns.len() {
            match cell(index) {
                Value::Null => out.push(0xfb),
                value => put_lenenc_bytes(&mut out, &shown(value)),
            }
        }
        return out;
    }
    out.push(0);
    let mut nulls = vec![0u8; (columns.len() + 9) / 8];
    for index in (0..columns.len()).filter(|index| *cell(*index) == Value::Null) {
        nulls[(index + 2) / 8] |= 1 << ((index + 2) % 8);
    }
    out.extend_from_slice(&nulls);
    for (index, column) in columns.iter().enumerate() {
        if *cell(index) != Value::Null {
            put_binary(&mut out, cell(index), column.kind);
        }
    }
    out
}

enum State {
    Begin,
    Columns(u64),
    ColumnsEnd,
    Rows,
    Prepared { params: u64, columns: u64, ended: bool },
    Done,
}

/// One result of an answer. Result sets are put into words when they are asked for.
enum Gathered {
    Value(Value),
    Rows { columns: Arc<Vec<Column>>, rows: Vec<Value>, status: u64, warnings: u64, truncated: bool },
}

impl Gathered {
    fn value(self) -> Value {
        let (columns, rows, status, warnings, truncated) = match self {
            Gathered::Value(value) => return value,
            Gathered::Rows { columns, rows, status, warnings, truncated } => {
                (columns, rows, status, warnings, truncated)
            }
        };
        let mut parts = vec![
            ("columns", Value::List(columns.iter().map(Column::to_value).collect())),
            ("rows", Value::List(rows)),
            ("status", int(status)),
            ("warnings", int(warnings)),
        ];
        if truncated {
            parts.push(("truncated", Value::Bool(true)));
        }
        Value::map([("resultset", Value::map(parts))])
    }
}

/// Follows one answer.
pub struct Reader {
    shape: Shape,
    capabilities: u32,
    state: State,
    columns: Arc<Vec<Column>>,
    params: Vec<Column>,
    rows: Vec<Value>,
    kept: usize,
    truncated: bool,
    results: Vec<Gathered>,
    /// The statement's number, after a prepare.
    pub statement: Option<u32>,
}

impl Reader {
    /// A reader for an answer of this shape; `columns` are those of a cursor.
    pub fn new(shape: Shape, capabilities: u32, columns: Arc<Vec<Column>>) -> Self {
        let state = match shape {
            Shape::Fetch => State::Rows,
            Shape::Fields => State::Columns(u64::MAX),
            _ => State::Begin,
        };
        Reader {
            shape,
            capabilities,
            state,
            columns,
            params: Vec::new(),
            rows: Vec::new(),
            kept: 0,
            truncated: false,
            results: Vec::new(),
            statement: None,
        }
    }

    /// The columns of the last result set.
    pub fn columns(&self) -> &Arc<Vec<Column>> {
        &self.columns
    }

    /// Takes the next message; true when the answer is complete.
    ///
    /// # Errors
    /// When the message cannot stand here.
    pub fn feed(&mut self, payload: &[u8]) -> Decoded<bool> {
        let first = *payload.first().ok_or_else(|| super::wire::CodecError("empty answer".into()))?;
        if first == 0xff && self.shape != Shape::One {
            self.results.push(Gathered::Value(decode_err(payload)?));
            self.state = State::Done;
            return Ok(true);
        }
        let deprecate_eof = self.capabilities & caps::DEPRECATE_EOF != 0;
        match self.state {
            State::Begin => self.begin(first, payload)?,
            State::Columns(left) => {
                if self.shape == Shape::Fields && first == 0xfe && payload.len() < 9 {
                    self.end_rows(payload)?;
                } else {
                    Arc::make_mut(&mut self.columns).push(Column::decode(payload)?);
                    self.state = match left - 1 {
                        0 if deprecate_eof => State::Rows,
                        0 => State::ColumnsEnd,
                        left => State::Columns(left),
                    };
                }
            }
            State::ColumnsEnd => {
                self.state = State::Rows;
                let mut fields = Fields::new(payload);
                fields.bytes(3.min(payload.len()))?;
                if fields.int(2)? & status::CURSOR_EXISTS != 0 {
                    self.end_rows(payload)?;
                }
            }
            State::Rows => {
                let limit = if deprecate_eof { 0xff_ffff } else { 9 };
                if first == 0xfe && payload.len() < limit {
                    self.end_rows(payload)?;
                } else {
                    self.row(payload)?;
                }
            }
            State::Prepared { params, columns, ended } => self.prepared(payload, params, columns, ended)?,
            State::Done => return malformed("answer: it goes on after its end"),
        }
        Ok(matches!(self.state, State::Done))
    }

    fn begin(&mut self, first: u8, payload: &[u8]) -> Decoded<()> {
        match self.shape {
            Shape::One => {
                let value = match first {
                    0 if payload.len() >= 7 => decode_ok(payload, self.capabilities)?.0,
                    0xff => decode_err(payload)?,
                    0xfe if payload.len() < 9 => ok_value(
                        0,
                        0,
                        Fields::new(payload.get(3..).unwrap_or_default()).int(2).unwrap_or(2),
                        0,
                        "",
                    ),
                    _ => Value::map([("text", Value::text_or_bytes(payload))]),
                };
                self.results.push(Gathered::Value(value));
                self.state = State::Done;
            }
            Shape::Prepare => {
                let mut fields = Fields::new(payload);
                fields.u8()?;
                self.statement = Some(fields.int(4)? as u32);
                let columns = fields.int(2)?;
                let params = fields.int(2)?;
                self.state = State::Prepared { params, columns, ended: true };
                self.prepared_next();
            }
            _ if first == 0 => {
                let (value, flags) = decode_ok(payload, self.capabilities)?;
                self.results.push(Gathered::Value(value));
                self.after(flags);
            }
            _ if first == 0xfb => return malformed("answer: the server asks for a local file"),
            _ => {
                let mut fields = Fields::new(payload);
                let count = fields.lenenc()?;
                if count == 0 || count > 4096 || !fields.is_empty() {
                    return malformed("column count");
                }
                self.columns = Arc::default();
                self.state = State::Columns(count);
            }
        }
        Ok(())
    }

    fn prepared(&mut self, payload: &[u8], params: u64, columns: u64, ended: bool) -> Decoded<()> {
        let deprecate_eof = self.capabilities & caps::DEPRECATE_EOF != 0;
        self.state = if !ended {
            State::Prepared { params, columns, ended: true }
        } else if params > 0 {
            self.params.push(Column::decode(payload)?);
            State::Prepared { params: params - 1, columns, ended: params > 1 || deprecate_eof }
        } else {
            Arc::make_mut(&mut self.columns).push(Column::decode(payload)?);
            let columns = columns.saturating_sub(1);
            State::Prepared { params, columns, ended: columns > 0 || deprecate_eof }
        };
        self.prepared_next();
        Ok(())
    }

    fn prepared_next(&mut self) {
        if let State::Prepared { params: 0, columns: 0, ended: true } = self.state {
            let list = |columns: &[Column]| Value::List(columns.iter().map(Column::to_value).collect());
            let parts = [("params", list(&self.params)), ("columns", list(&self.columns))];
            self.results.push(Gathered::Value(Value::map([("prepared", Value::map(parts))])));
            self.state = State::Done;
        }
    }

    fn row(&mut self, payload: &[u8]) -> Decoded<()> {
        self.kept += payload.len();
        if self.kept > ROWS_KEPT {
            self.truncated = true;
            return Ok(());
        }
        let binary = self.shape != Shape::Text;
        let row =
            if binary { binary_row(payload, &self.columns) } else { text_row(payload, self.columns.len()) }?;
        self.rows.push(row);
        Ok(())
    }

    fn end_rows(&mut self, payload: &[u8]) -> Decoded<()> {
        // The end is an OK in another guise, or the older EOF: header, warnings, status.
        let (flags, warnings) = if payload.len() < 7 {
            let mut fields = Fields::new(payload);
            fields.u8()?;
            let warnings = fields.int(2).unwrap_or(0);
            (fields.int(2).unwrap_or(status::AUTOCOMMIT), warnings)
        } else {
            let (ok, flags) = decode_ok(payload, self.capabilities)?;
            (flags, number(ok.get("ok").and_then(|ok| ok.get("warnings"))))
        };
        self.results.push(Gathered::Rows {
            columns: self.columns.clone(),
            rows: std::mem::take(&mut self.rows),
            status: flags & !(status::MORE_RESULTS | status::SESSION_STATE_CHANGED),
            warnings,
            truncated: std::mem::take(&mut self.truncated),
        });
        self.after(if self.shape == Shape::Fetch { 0 } else { flags });
        Ok(())
    }

    fn after(&mut self, flags: u64) {
        let more = flags & status::MORE_RESULTS != 0 && self.shape != Shape::Fields;
        self.state = if more { State::Begin } else { State::Done };
    }

    /// What was gathered: one result, or `{results: [...]}`.
    pub fn finish(mut self) -> Value {
        match self.results.len() {
            1 => self.results.remove(0).value(),
            _ => {
                let results = self.results.into_iter().map(Gathered::value);
                Value::map([("results", Value::List(results.collect()))])
            }
        }
    }
}

/// The messages of an answer.
pub fn encode(answer: &Value, shape: Shape, capabilities: u32, statement: u32) -> Vec<Vec<u8>> {
    let single = [answer.clone()];
    let results = match answer.get("results").and_then(Value::as_list) {
        Some(results) => results,
        None => &single,
    };
    let mut out = Vec::new();
    for (index, result) in results.iter().enumerate() {
        let more = index + 1 < results.len();
        if let Some(err) = result.get("err") {
            out.push(encode_err(err));
            // An error ends an answer; what was recorded after it cannot be.
            break;
        } else if let Some(set) = result.get("resultset") {
            encode_set(&mut out, set, shape, capabilities, more);
        } else if let Some(prepared) = result.get("prepared") {
            encode_prepared(&mut out, prepared, capabilities, statement);
        } else if let Some(text) = result.get("text").and_then(Value::as_bytes) {
            out.push(text.to_vec());
        } else {
            let none = Value::map([("status", int(status::AUTOCOMMIT))]);
            out.push(encode_ok(0, result.get("ok").unwrap_or(&none), more, capabilities));
        }
    }
    out
}

fn eof(set: &Value, more: bool) -> Vec<u8> {
    let flags = number(set.get("status")) | if more { status::MORE_RESULTS } else { 0 };
    let mut out = vec![0xfe];
    out.extend_from_slice(&(number(set.get("warnings")) as u16).to_le_bytes());
    out.extend_from_slice(&(flags as u16).to_le_bytes());
    out
}

fn encode_set(out: &mut Vec<Vec<u8>>, set: &Value, shape: Shape, capabilities: u32, more: bool) {
    let deprecate_eof = capabilities & caps::DEPRECATE_EOF != 0;
    let columns = set.get("columns").and_then(Value::as_list).unwrap_or_default();
    let columns: Vec<Column> = columns.iter().map(Column::from_value).collect();
    if matches!(shape, Shape::Text | Shape::Binary) {
        let mut count = Vec::new();
        put_lenenc(&mut count, columns.len() as u64);
        out.push(count);
    }
    if shape != Shape::Fetch {
        out.extend(columns.iter().map(|column| {
            let mut encoded = column.encode();
            if shape == Shape::Fields {
                encoded.push(0xfb);
            }
            encoded
        }));
        let cursor = number(set.get("status")) & status::CURSOR_EXISTS != 0;
        if !deprecate_eof && shape != Shape::Fields {
            out.push(eof(set, more));
            if cursor {
                return;
            }
        }
    }
    let rows = set.get("rows").and_then(Value::as_list).unwrap_or_default();
    let binary = shape != Shape::Text;
    out.extend(rows.iter().map(|row| encode_row(row, &columns, binary)));
    out.push(if deprecate_eof { encode_ok(0xfe, set, more, capabilities) } else { eof(set, more) });
}

fn encode_prepared(out: &mut Vec<Vec<u8>>, prepared: &Value, capabilities: u32, statement: u32) {
    let list = |name: &str| prepared.get(name).and_then(Value::as_list).unwrap_or_default();
    let (params, columns) = (list("params"), list("columns"));
    let mut head = vec![0];
    head.extend_from_slice(&statement.to_le_bytes());
    head.extend_from_slice(&(columns.len() as u16).to_le_bytes());
    head.extend_from_slice(&(params.len() as u16).to_le_bytes());
    head.extend_from_slice(&[0, 0, 0]);
    out.push(head);
    for definitions in [params, columns] {
        out.extend(definitions.iter().map(|column| Column::from_value(column).encode()));
        if !definitions.is_empty() && capabilities & caps::DEPRECATE_EOF == 0 {
            out.push(vec![0xfe, 0, 0, 2, 0]);
        }
    }
}
