//! Tables as MySQL declares them, and as SQLite keeps them.
//!
//! Contract: pure. A declared type decides what is stored (checked and brought to one form
//! by [`ColumnType::store`]), how it compares and how a client sees it.
//! Not modelled: generated columns, partitions, full text and spatial indexes (refused); accents in collations; decimals of more than 15 digits.

use super::moment;
use super::session::{Failure, unsupported};
use crate::protocol::mysql::result::{Column, flags, types};
use faultbox_bundle_format::Value;
use rusqlite::types::{Value as Cell, ValueRef};
use serde::{Deserialize, Serialize};
use sqlparser::ast::{self, CharacterLength, DataType, ExactNumberInfo};

/// A declared type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnType {
    /// Integers; `bytes` wide on the wire. `flag` for `TINYINT(1)`, which drivers take for a boolean.
    Int { bytes: u8, unsigned: bool, flag: bool },
    /// `BIT(n)`.
    Bit(u8),
    /// `DECIMAL`.
    Decimal { digits: u8, scale: u8 },
    /// `FLOAT`.
    Float,
    /// `DOUBLE`.
    Double,
    /// Text; `long` for the `TEXT` family, `fixed` for `CHAR`.
    Text { max: u64, long: bool, binary: bool, fixed: bool },
    /// Bytes; `fixed` for `BINARY`.
    Bytes { max: u64, long: bool, fixed: bool },
    /// `DATE`.
    Date,
    /// `DATETIME` and `TIMESTAMP`.
    DateTime { digits: u8, stamp: bool },
    /// `TIME`.
    Time { digits: u8 },
    /// `YEAR`.
    Year,
    /// `JSON`.
    Json,
    /// `ENUM`.
    Enum(Vec<String>),
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnDef {
    /// Its name as declared.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// Whether it refuses NULL.
    pub not_null: bool,
    /// `AUTO_INCREMENT`.
    pub auto: bool,
    /// Default as a SQLite expression.
    pub default: Option<String>,
    /// Default in MySQL's words.
    pub default_words: Option<String>,
    /// `ON UPDATE CURRENT_TIMESTAMP`, with its digits.
    pub on_update: Option<u8>,
    /// Its comment.
    pub comment: String,
}

/// A key over columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its name; `PRIMARY` for the primary one.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// Whether it is unique.
    pub unique: bool,
    /// Made for a foreign key that no other served: it goes when another does.
    #[serde(default)]
    pub implied: bool,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The other table, with its database.
    pub table: String,
    /// The other table's columns.
    pub referred: Vec<String>,
    /// `ON DELETE ... ON UPDATE ...`.
    pub actions: String,
}

/// A check constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Its condition in MySQL's words.
    pub words: String,
    /// Its condition in SQLite's.
    pub sql: String,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDef {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// Its columns, in order.
    pub columns: Vec<ColumnDef>,
    /// Its keys, the primary one first.
    pub keys: Vec<Key>,
    /// Its foreign keys.
    pub foreign: Vec<Foreign>,
    /// Its check constraints.
    pub checks: Vec<Check>,
    /// Its comment.
    pub comment: String,
    /// `AUTO_INCREMENT = n`.
    pub first_id: Option<i64>,
}

/// A name between double quotes.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text between single quotes.
pub fn literal(text: &str) -> String {
    if text.contains('\0') {
        let hex: String = text.bytes().map(|b| format!("{b:02x}")).collect();
        return format!("CAST(x'{hex}' AS TEXT)");
    }
    format!("'{}'", text.replace('\'', "''"))
}

fn exact(info: &ExactNumberInfo) -> (u8, u8) {
    match info {
        ExactNumberInfo::None => (10, 0),
        ExactNumberInfo::Precision(digits) => (*digits as u8, 0),
        ExactNumberInfo::PrecisionAndScale(digits, scale) => (*digits as u8, (*scale).max(0) as u8),
    }
}

fn text_max(length: Option<&CharacterLength>, otherwise: u64) -> u64 {
    match length {
        Some(CharacterLength::IntegerLength { length, .. }) => *length,
        _ => otherwise,
    }
}

impl ColumnType {
    /// From a declaration.
    ///
    /// # Errors
    /// When the stand-in has no such type.
    pub fn declared(declared: &DataType) -> Result<ColumnType, Failure> {
        use DataType as D;
        let int = |bytes, unsigned| ColumnType::Int { bytes, unsigned, flag: false };
        let text = |max, fixed| ColumnType::Text { max, long: false, binary: false, fixed };
        let long = |max| ColumnType::Text { max, long: true, binary: false, fixed: false };
        let blob = |max| ColumnType::Bytes { max, long: true, fixed: false };
        Ok(match declared {
            D::TinyInt(Some(1)) | D::Bool | D::Boolean => {
                ColumnType::Int { bytes: 1, unsigned: false, flag: true }
            }
            D::TinyInt(_) => int(1, false),
            D::TinyIntUnsigned(_) => int(1, true),
            D::SmallInt(_) => int(2, false),
            D::SmallIntUnsigned(_) => int(2, true),
            D::MediumInt(_) => int(3, false),
            D::MediumIntUnsigned(_) => int(3, true),
            D::Int(_) | D::Integer(_) | D::Int4(_) => int(4, false),
            D::IntUnsigned(_) | D::IntegerUnsigned(_) | D::Int4Unsigned(_) => int(4, true),
            D::BigInt(_) | D::Int8(_) | D::Signed | D::SignedInteger => int(8, false),
            D::BigIntUnsigned(_) | D::Int8Unsigned(_) | D::Unsigned | D::UnsignedInteger => int(8, true),
            D::Bit(bits) if bits.is_none_or(|n| (1..64).contains(&n)) => {
                ColumnType::Bit(bits.unwrap_or(1) as u8)
            }
            D::Decimal(i) | D::Numeric(i) | D::Dec(i) | D::DecimalUnsigned(i) | D::DecUnsigned(i) => {
                let (digits, scale) = exact(i);
                ColumnType::Decimal { digits, scale }
            }
            D::Float(_) | D::FloatUnsigned(_) | D::Float4 => ColumnType::Float,
            D::Double(_) | D::DoubleUnsigned(_) | D::Real | D::DoublePrecision | D::Float8 => {
                ColumnType::Double
            }
            D::Char(n) | D::Character(n) => text(text_max(n.as_ref(), 1), true),
            D::Varchar(n) | D::CharVarying(n) | D::CharacterVarying(n) | D::Nvarchar(n) => {
                text(text_max(n.as_ref(), 65_535), false)
            }
            D::TinyText => long(255),
            D::Text => long(65_535),
            D::MediumText => long(16_777_215),
            D::LongText => long(u64::from(u32::MAX)),
            D::Binary(n) => ColumnType::Bytes { max: n.unwrap_or(1), long: false, fixed: true },
            D::Varbinary(n) => {
                let max = match n {
                    Some(ast::BinaryLength::IntegerLength { length }) => *length,
                    _ => 65_535,
                };
                ColumnType::Bytes { max, long: false, fixed: false }
            }
            D::TinyBlob => blob(255),
            D::Blob(_) => blob(65_535),
            D::MediumBlob => blob(16_777_215),
            D::LongBlob => blob(u64::from(u32::MAX)),
            D::Date => ColumnType::Date,
            D::Datetime(n) => ColumnType::DateTime { digits: n.unwrap_or(0).min(6) as u8, stamp: false },
            D::Timestamp(n, _) => ColumnType::DateTime { digits: n.unwrap_or(0).min(6) as u8, stamp: true },
            D::Time(n, _) => ColumnType::Time { digits: n.unwrap_or(0).min(6) as u8 },
            D::JSON => ColumnType::Json,
            D::Enum(members, _) => ColumnType::Enum(
                members
                    .iter()
                    .map(|m| match m {
                        ast::EnumMember::Name(name) | ast::EnumMember::NamedValue(name, _) => name.clone(),
                    })
                    .collect(),
            ),
            D::Custom(name, _) if name.to_string().eq_ignore_ascii_case("year") => ColumnType::Year,
            other => return Err(unsupported(&format!("the type {other}"))),
        })
    }

    /// The declaration in SQLite.
    fn sqlite(&self) -> &'static str {
        match self {
            ColumnType::Int { .. } | ColumnType::Bit(_) | ColumnType::Year => "INTEGER",
            ColumnType::Decimal { .. } => "NUMERIC",
            ColumnType::Float | ColumnType::Double => "REAL",
            ColumnType::Text { binary: true, .. } | ColumnType::Json => "TEXT",
            ColumnType::Text { .. } | ColumnType::Enum(_) => "TEXT COLLATE NOCASE",
            ColumnType::Bytes { .. } => "BLOB",
            ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Time { .. } => "TEXT",
        }
    }

    /// The declaration in MySQL's words.
    pub fn words(&self) -> String {
        let unsigned = |u: &bool| if *u { " unsigned" } else { "" };
        let digits = |n: &u8| if *n > 0 { format!("({n})") } else { String::new() };
        match self {
            ColumnType::Int { flag: true, .. } => "tinyint(1)".into(),
            ColumnType::Bit(bits) => format!("bit({bits})"),
            ColumnType::Int { bytes, unsigned: u, .. } => {
                let name = match bytes {
                    1 => "tinyint",
                    2 => "smallint",
                    3 => "mediumint",
                    4 => "int",
                    _ => "bigint",
                };
                format!("{name}{}", unsigned(u))
            }
            ColumnType::Decimal { digits, scale } => format!("decimal({digits},{scale})"),
            ColumnType::Float => "float".into(),
            ColumnType::Double => "double".into(),
            ColumnType::Text { fixed: true, max, .. } => format!("char({max})"),
            ColumnType::Text { long: false, max, .. } => format!("varchar({max})"),
            ColumnType::Text { max, .. } => match max {
                255 => "tinytext".into(),
                65_535 => "text".into(),
                16_777_215 => "mediumtext".into(),
                _ => "longtext".into(),
            },
            ColumnType::Bytes { fixed: true, max, .. } => format!("binary({max})"),
            ColumnType::Bytes { long: false, max, .. } => format!("varbinary({max})"),
            ColumnType::Bytes { max, .. } => match max {
                255 => "tinyblob".into(),
                65_535 => "blob".into(),
                16_777_215 => "mediumblob".into(),
                _ => "longblob".into(),
            },
            ColumnType::Date => "date".into(),
            ColumnType::DateTime { digits: n, stamp } => {
                format!("{}{}", if *stamp { "timestamp" } else { "datetime" }, digits(n))
            }
            ColumnType::Time { digits: n } => format!("time{}", digits(n)),
            ColumnType::Year => "year".into(),
            ColumnType::Json => "json".into(),
            ColumnType::Enum(members) => {
                let members: Vec<String> = members.iter().map(|m| literal(m)).collect();
                format!("enum({})", members.join(","))
            }
        }
    }

    /// Wire type, display length, digits after the point.
    fn wire(&self) -> (u8, u32, u8) {
        match self {
            ColumnType::Int { flag: true, .. } => (types::TINY, 1, 0),
            ColumnType::Bit(bits) => (types::BIT, u32::from(*bits), 0),
            ColumnType::Int { bytes: 1, .. } => (types::TINY, 4, 0),
            ColumnType::Int { bytes: 2, .. } => (types::SHORT, 6, 0),
            ColumnType::Int { bytes: 3, .. } => (types::INT24, 9, 0),
            ColumnType::Int { bytes: 4, .. } => (types::LONG, 11, 0),
            ColumnType::Int { .. } => (types::LONGLONG, 20, 0),
            ColumnType::Decimal { digits, scale } => (types::NEWDECIMAL, u32::from(*digits) + 2, *scale),
            ColumnType::Float => (types::FLOAT, 12, 31),
            ColumnType::Double => (types::DOUBLE, 22, 31),
            ColumnType::Text { long: true, max, .. } => {
                (types::BLOB, (*max).min(u64::from(u32::MAX)) as u32, 0)
            }
            ColumnType::Text { max, fixed, .. } => {
                (if *fixed { types::STRING } else { types::VAR_STRING }, (*max as u32).saturating_mul(4), 0)
            }
            ColumnType::Bytes { long: true, max, .. } => (types::BLOB, *max as u32, 0),
            ColumnType::Bytes { max, fixed, .. } => {
                (if *fixed { types::STRING } else { types::VAR_STRING }, *max as u32, 0)
            }
            ColumnType::Date => (types::DATE, 10, 0),
            ColumnType::DateTime { digits, stamp: false } => (types::DATETIME, 26, *digits),
            ColumnType::DateTime { digits, .. } => (types::TIMESTAMP, 26, *digits),
            ColumnType::Time { digits } => (types::TIME, 17, *digits),
            ColumnType::Year => (types::YEAR, 4, 0),
            ColumnType::Json => (types::JSON, u32::MAX, 0),
            ColumnType::Enum(_) => (types::STRING, 64, 0),
        }
    }

    /// A wire column of this type.
    pub fn column(&self, name: &str) -> Column {
        let (kind, length, decimals) = self.wire();
        let textual = matches!(self, ColumnType::Text { .. } | ColumnType::Enum(_) | ColumnType::Json);
        // MySQL marks no number of a table as binary, and Connector/J would take one for bytes.
        let binary = matches!(
            self,
            ColumnType::Bytes { .. }
                | ColumnType::Date
                | ColumnType::DateTime { .. }
                | ColumnType::Time { .. }
                | ColumnType::Json
        );
        let mut bits = if binary { flags::BINARY } else { 0 };
        if matches!(self, ColumnType::Int { unsigned: true, .. } | ColumnType::Bit(_) | ColumnType::Year) {
            bits |= flags::UNSIGNED;
        }
        if matches!(
            self,
            ColumnType::Text { long: true, .. } | ColumnType::Bytes { long: true, .. } | ColumnType::Json
        ) {
            bits |= flags::BLOB;
        }
        Column {
            kind,
            length,
            decimals,
            flags: bits,
            charset: if textual { 255 } else { 63 },
            ..Column::plain(name, kind)
        }
    }

    /// What a client sees of a stored cell.
    pub fn show(&self, cell: ValueRef<'_>) -> Value {
        match (self, cell) {
            (_, ValueRef::Null) => Value::Null,
            (ColumnType::Bit(bits), ValueRef::Integer(n)) => {
                let bytes = n.to_be_bytes();
                let width = usize::from(*bits).div_ceil(8);
                Value::Bytes(bytes[bytes.len().saturating_sub(width)..].to_vec())
            }
            (ColumnType::Decimal { scale, .. }, ValueRef::Integer(n)) => {
                let zeros = "0".repeat(usize::from(*scale));
                Value::Text(if zeros.is_empty() { n.to_string() } else { format!("{n}.{zeros}") })
            }
            (ColumnType::Decimal { scale, .. }, ValueRef::Real(n)) => {
                Value::Text(format!("{n:.*}", usize::from(*scale)))
            }
            (ColumnType::Double | ColumnType::Float, ValueRef::Integer(n)) => Value::Float(n as f64),
            (_, ValueRef::Integer(n)) => Value::Int(n),
            (_, ValueRef::Real(n)) => Value::Float(n),
            (ColumnType::Bytes { .. }, ValueRef::Blob(bytes)) => Value::Bytes(bytes.to_vec()),
            (_, ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => Value::text_or_bytes(bytes),
        }
    }

    /// What is stored for a value given to a column.
    ///
    /// # Errors
    /// What strict mode says of a value that does not fit.
    pub fn store(&self, given: ValueRef<'_>, column: &str) -> Result<Cell, Failure> {
        let text = || match given {
            ValueRef::Null => String::new(),
            ValueRef::Integer(n) => n.to_string(),
            ValueRef::Real(n) => n.to_string(),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        };
        let wrong = |what: &str| {
            Failure::new(
                1366,
                "HY000",
                format!("Incorrect {what} value: '{}' for column '{column}' at row 1", text()),
            )
        };
        let range =
            || Failure::new(1264, "22003", format!("Out of range value for column '{column}' at row 1"));
        let long = || Failure::new(1406, "22001", format!("Data too long for column '{column}' at row 1"));
        let when = |what: &str| {
            Failure::new(
                1292,
                "22007",
                format!("Incorrect {what} value: '{}' for column '{column}' at row 1", text()),
            )
        };
        if given == ValueRef::Null {
            return Ok(Cell::Null);
        }
        Ok(match self {
            ColumnType::Bit(bits) => {
                let n = match given {
                    ValueRef::Integer(n) => n,
                    // A string is its bytes.
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) if bytes.len() <= 7 => {
                        bytes.iter().fold(0, |n, byte| (n << 8) | i64::from(*byte))
                    }
                    _ => return Err(long()),
                };
                if n < 0 || n >> bits != 0 {
                    return Err(long());
                }
                Cell::Integer(n)
            }
            ColumnType::Int { bytes, unsigned, .. } => {
                let n = match given {
                    ValueRef::Integer(n) => n,
                    ValueRef::Real(n) if n.abs() < 9.3e18 => n.round() as i64,
                    ValueRef::Real(_) => return Err(range()),
                    _ => {
                        let text = text();
                        let float = || {
                            text.trim()
                                .parse::<f64>()
                                .ok()
                                .filter(|n| n.abs() < 9.3e18)
                                .map(|n| n.round() as i64)
                        };
                        text.trim().parse().ok().or_else(float).ok_or_else(|| wrong("integer"))?
                    }
                };
                let bits = u32::from(*bytes) * 8;
                let (low, high) = match (unsigned, bits) {
                    (true, 64) => (0, i64::MAX),
                    (true, bits) => (0, (1 << bits) - 1),
                    (false, 64) => (i64::MIN, i64::MAX),
                    (false, bits) => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
                };
                if n < low || n > high {
                    return Err(range());
                }
                Cell::Integer(n)
            }
            ColumnType::Decimal { digits, scale } => {
                decimal(&text(), *digits, *scale).map_err(|problem| match problem {
                    DecimalProblem::NotANumber => wrong("decimal"),
                    DecimalProblem::Range => range(),
                    DecimalProblem::TooLong => unsupported("a decimal of more than 15 digits"),
                })?
            }
            ColumnType::Float => {
                let n: f32 = text().trim().parse().map_err(|_| wrong("float"))?;
                Cell::Real(n.to_string().parse().unwrap_or(f64::from(n)))
            }
            ColumnType::Double => Cell::Real(text().trim().parse().map_err(|_| wrong("double"))?),
            ColumnType::Text { max, fixed, .. } => {
                let mut text = text();
                if *fixed {
                    text.truncate(text.trim_end_matches(' ').len());
                }
                if text.chars().count() as u64 > *max {
                    return Err(long());
                }
                Cell::Text(text)
            }
            ColumnType::Bytes { max, fixed, .. } => {
                let mut bytes = match given {
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
                    _ => text().into_bytes(),
                };
                if bytes.len() as u64 > *max {
                    return Err(long());
                }
                if *fixed {
                    bytes.resize(*max as usize, 0);
                }
                Cell::Blob(bytes)
            }
            ColumnType::Date => {
                Cell::Text(moment::show_date(moment::parse(&text()).ok_or_else(|| when("date"))?))
            }
            ColumnType::DateTime { digits, .. } => {
                let given = moment::parse(&text()).ok_or_else(|| when("datetime"))?;
                Cell::Text(moment::show(moment::round(given, *digits), *digits))
            }
            ColumnType::Time { digits } => {
                let time = moment::parse_time(text().trim()).ok_or_else(|| when("time"))?;
                Cell::Text(moment::show_time(moment::round(time, *digits), *digits))
            }
            ColumnType::Year => Cell::Integer(text().trim().parse().map_err(|_| wrong("integer"))?),
            ColumnType::Json => {
                let parsed: serde_json::Value = serde_json::from_str(&text()).map_err(|e| {
                    Failure::new(
                        3140,
                        "22032",
                        format!("Invalid JSON text: \"{e}\" in value for column '{column}'."),
                    )
                })?;
                let mut out = String::new();
                show_json(&parsed, &mut out);
                Cell::Text(out)
            }
            ColumnType::Enum(members) => {
                let text = text();
                let found = members.iter().find(|m| m.eq_ignore_ascii_case(&text));
                let truncated =
                    || Failure::new(1265, "01000", format!("Data truncated for column '{column}' at row 1"));
                Cell::Text(found.ok_or_else(truncated)?.clone())
            }
        })
    }

    /// Whether what it is compared with must be brought to its form first.
    pub fn coerces(&self) -> bool {
        matches!(
            self,
            ColumnType::Date
                | ColumnType::DateTime { .. }
                | ColumnType::Time { .. }
                | ColumnType::Bytes { .. }
        )
    }
}

enum DecimalProblem {
    NotANumber,
    Range,
    TooLong,
}

fn decimal(text: &str, digits: u8, scale: u8) -> Result<Cell, DecimalProblem> {
    let text = text.trim();
    let plain = text.trim_start_matches(['-', '+']);
    let simple = !plain.is_empty()
        && plain.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && plain.matches('.').count() <= 1;
    let (whole, fraction) = if simple {
        let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
        (whole.trim_start_matches('0').to_owned(), fraction.to_owned())
    } else {
        let n: f64 = text.parse().map_err(|_| DecimalProblem::NotANumber)?;
        let shown = format!("{:.*}", usize::from(scale), n.abs());
        let (whole, fraction) = shown.split_once('.').unwrap_or((&shown, ""));
        (whole.trim_start_matches('0').to_owned(), fraction.to_owned())
    };
    // Scaled to an integer, rounded half away from zero.
    let scale = usize::from(scale);
    let kept: String = fraction.chars().chain(std::iter::repeat('0')).take(scale).collect();
    let up = fraction.as_bytes().get(scale).is_some_and(|b| *b >= b'5');
    if whole.len() + scale > 15 && (whole.len() + kept.trim_end_matches('0').len()) > 15 {
        return Err(if whole.len() > usize::from(digits) - scale {
            DecimalProblem::Range
        } else {
            DecimalProblem::TooLong
        });
    }
    let scaled: i128 = format!("0{whole}{kept}").parse().map_err(|_| DecimalProblem::NotANumber)?;
    let scaled = scaled + i128::from(up);
    if scaled >= 10i128.pow(u32::from(digits)) {
        return Err(DecimalProblem::Range);
    }
    let sign = if text.starts_with('-') && scaled != 0 { "-" } else { "" };
    let unit = 10i128.pow(scale as u32);
    let (whole, rest) = (scaled / unit, scaled % unit);
    if scale == 0 {
        return format!("{sign}{whole}").parse().map(Cell::Integer).map_err(|_| DecimalProblem::Range);
    }
    let number: f64 =
        format!("{sign}{whole}.{rest:0scale$}").parse().map_err(|_| DecimalProblem::NotANumber)?;
    Ok(Cell::Real(number))
}

fn show_json(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                *out += if index > 0 { ", " } else { "" };
                show_json(item, out);
            }
            out.push(']');
        }
        serde_json::Value::Object(fields) => {
            // MySQL keeps keys by length, then by bytes.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| (name.len(), name.as_bytes().to_vec()));
            out.push('{');
            for (index, (name, item)) in fields.into_iter().enumerate() {
                *out += if index > 0 { ", " } else { "" };
                *out += &serde_json::Value::from(name.as_str()).to_string();
                *out += ": ";
                show_json(item, out);
            }
            out.push('}');
        }
        other => *out += &other.to_string(),
    }
}

impl TableDef {
    /// The table's name in SQLite.
    pub fn stored(&self) -> String {
        format!("{}.{}", self.database, self.name)
    }

    /// A column by name, whatever its case.
    pub fn column(&self, name: &str) -> Option<&ColumnDef> {
        self.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// The primary key's columns.
    pub fn primary(&self) -> &[String] {
        self.keys.iter().find(|k| k.name == "PRIMARY").map_or(&[], |k| &k.columns)
    }

    /// The unique key over these columns.
    pub fn unique_key(&self, columns: &[String]) -> Option<&Key> {
        self.keys.iter().find(|k| {
            k.unique
                && k.columns.len() == columns.len()
                && k.columns.iter().zip(columns).all(|(a, b)| a.eq_ignore_ascii_case(b))
        })
    }

    /// The statements that make it in SQLite.
    ///
    /// # Errors
    /// When SQLite cannot keep it so.
    pub fn create(&self) -> Result<Vec<String>, Failure> {
        let list = |names: &[String]| names.iter().map(|n| quote(n)).collect::<Vec<_>>().join(", ");
        let auto = self.columns.iter().find(|c| c.auto);
        if let Some(auto) = auto
            && !(self.primary().len() == 1 && self.primary()[0].eq_ignore_ascii_case(&auto.name))
        {
            return Err(unsupported("AUTO_INCREMENT on a column that is not the primary key"));
        }
        let mut parts = Vec::new();
        for column in &self.columns {
            let mut part = format!("{} {}", quote(&column.name), column.kind.sqlite());
            if column.auto {
                part += " PRIMARY KEY AUTOINCREMENT";
            } else if column.not_null {
                part += " NOT NULL";
            }
            if let Some(default) = &column.default {
                part += &format!(" DEFAULT ({default})");
            }
            parts.push(part);
        }
        if auto.is_none() && !self.primary().is_empty() {
            parts.push(format!("PRIMARY KEY ({})", list(self.primary())));
        }
        for key in &self.foreign {
            let (table, columns) = (quote(&key.table), list(&key.columns));
            parts.push(format!(
                "FOREIGN KEY ({columns}) REFERENCES {table} ({}) {}",
                list(&key.referred),
                key.actions
            ));
        }
        for check in &self.checks {
            parts.push(format!("CONSTRAINT {} CHECK ({})", quote(&check.name), check.sql));
        }
        let stored = quote(&self.stored());
        let mut statements = vec![format!("CREATE TABLE {stored} ({})", parts.join(", "))];
        for key in self.keys.iter().filter(|k| k.name != "PRIMARY") {
            let unique = if key.unique { "UNIQUE " } else { "" };
            let name = quote(&format!("{}.{}", self.stored(), key.name));
            statements.push(format!("CREATE {unique}INDEX {name} ON {stored} ({})", list(&key.columns)));
        }
        if let (Some(first), Some(_)) = (self.first_id, auto) {
            let name = literal(&self.stored());
            statements
                .push(format!("INSERT INTO sqlite_sequence (name, seq) VALUES ({name}, {})", first - 1));
        }
        Ok(statements)
    }

    /// `SHOW CREATE TABLE`.
    pub fn words(&self) -> String {
        let list = |names: &[String]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(",");
        let mut lines: Vec<String> = self.columns.iter().map(ColumnDef::words).collect();
        for key in &self.keys {
            lines.push(match (key.name.as_str(), key.unique) {
                ("PRIMARY", _) => format!("  PRIMARY KEY ({})", list(&key.columns)),
                (name, true) => format!("  UNIQUE KEY `{name}` ({})", list(&key.columns)),
                (name, false) => format!("  KEY `{name}` ({})", list(&key.columns)),
            });
        }
        for key in &self.foreign {
            let actions = key.actions();
            let space = if actions.is_empty() { "" } else { " " };
            lines.push(format!(
                "  CONSTRAINT `{}` FOREIGN KEY ({}) REFERENCES `{}` ({}){space}{actions}",
                key.name,
                list(&key.columns),
                key.referred_table().1,
                list(&key.referred),
            ));
        }
        for check in &self.checks {
            lines.push(format!("  CONSTRAINT `{}` CHECK ({})", check.name, check.words));
        }
        let comment = match self.comment.as_str() {
            "" => String::new(),
            comment => format!(" COMMENT={}", literal(comment)),
        };
        format!(
            "CREATE TABLE `{}` (\n{}\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci{comment}",
            self.name,
            lines.join(",\n")
        )
    }
}

impl ColumnDef {
    /// Its line in `SHOW CREATE TABLE`.
    fn words(&self) -> String {
        let mut words = format!("  `{}` {}", self.name, self.kind.words());
        let stamp = matches!(self.kind, ColumnType::DateTime { stamp: true, .. });
        words += match (self.not_null, stamp) {
            (true, _) => " NOT NULL",
            (false, true) => " NULL",
            (false, false) => "",
        };
        let long = matches!(
            self.kind,
            ColumnType::Text { long: true, .. } | ColumnType::Bytes { long: true, .. } | ColumnType::Json
        );
        match &self.default_words {
            Some(default) => words += &format!(" DEFAULT {default}"),
            None if !self.not_null && !long => words += " DEFAULT NULL",
            None => {}
        }
        if let Some(digits) = self.on_update {
            words += &format!(" ON UPDATE {}", now_words(digits));
        }
        words += if self.auto { " AUTO_INCREMENT" } else { "" };
        if !self.comment.is_empty() {
            words += &format!(" COMMENT {}", literal(&self.comment));
        }
        words
    }

    /// `EXTRA` of `information_schema.columns`.
    pub fn extra(&self) -> String {
        let computed = self.default_words.as_ref().is_some_and(|d| !d.starts_with(['\'', 'b']));
        let mut words = Vec::new();
        if self.auto {
            words.push("auto_increment".to_owned());
        }
        if computed {
            words.push("DEFAULT_GENERATED".to_owned());
        }
        if let Some(digits) = self.on_update {
            words.push(format!("on update {}", now_words(digits)));
        }
        words.join(" ")
    }
}

/// `CURRENT_TIMESTAMP` with its digits.
pub fn now_words(digits: u8) -> String {
    if digits == 0 { "CURRENT_TIMESTAMP".to_owned() } else { format!("CURRENT_TIMESTAMP({digits})") }
}

impl Foreign {
    /// The other table's database and name.
    pub fn referred_table(&self) -> (&str, &str) {
        self.table.split_once('.').unwrap_or(("", &self.table))
    }

    /// What happens on `DELETE` or `UPDATE`.
    pub fn rule(&self, on: &str) -> &'static str {
        let start = format!("ON {on} ");
        let rest = self.actions.split_once(&start).map_or("", |(_, rest)| rest);
        ["CASCADE", "RESTRICT", "SET NULL", "SET DEFAULT"]
            .into_iter()
            .find(|rule| rest.starts_with(rule))
            .unwrap_or("NO ACTION")
    }

    /// Its actions as MySQL shows them: what happens anyway goes unsaid.
    fn actions(&self) -> String {
        ["DELETE", "UPDATE"]
            .into_iter()
            .filter(|on| self.rule(on) != "NO ACTION")
            .map(|on| format!("ON {on} {}", self.rule(on)))
            .collect::<Vec<_>>()
            .join(" ")
    }
}
