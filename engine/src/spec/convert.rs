//! Between Starlark values and the engine's: plain trees, durations, ratios.
//!
//! Contract: what has no counterpart is refused with its type's name; nothing is rounded.

use super::diagnostics::Problem;
use super::dialect::{
    AllocDict, AllocList, DictRef, Heap, ListRef, StructRef, TupleRef, UnpackFloat, UnpackValue, Value,
};
use super::values::{HeadersValue, ResponseValue};
use crate::oracle::Ratio;
use faultbox_bundle_format::Value as Plain;
use std::time::Duration;

/// Deepest nesting of what is converted.
const DEPTH_MAX: usize = 48;

/// A Starlark value as a plain tree.
///
/// # Errors
/// When it holds something that is no data.
pub fn to_plain(value: Value<'_>) -> Result<Plain, Problem> {
    plain(value, 0)
}

fn plain(value: Value<'_>, depth: usize) -> Result<Plain, Problem> {
    if depth > DEPTH_MAX {
        return Err(Problem::new(format!("data nested deeper than {DEPTH_MAX}")));
    }
    let items = |items: &[Value<'_>]| -> Result<Plain, Problem> {
        Ok(Plain::List(items.iter().map(|item| plain(*item, depth + 1)).collect::<Result<_, _>>()?))
    };
    if value.is_none() {
        return Ok(Plain::Null);
    }
    if let Some(truth) = value.unpack_bool() {
        return Ok(Plain::Bool(truth));
    }
    if let Some(text) = value.unpack_str() {
        return Ok(Plain::text(text));
    }
    if let Some(number) = integer(value) {
        return Ok(Plain::Int(number));
    }
    if let Ok(Some(number)) = u64::unpack_value(value) {
        return Ok(Plain::UInt(number));
    }
    if let Ok(Some(UnpackFloat(number))) = UnpackFloat::unpack_value(value) {
        return Ok(Plain::Float(number));
    }
    if let Some(list) = ListRef::from_value(value) {
        return items(list.content());
    }
    if let Some(tuple) = TupleRef::from_value(value) {
        return items(tuple.content());
    }
    if let Some(dict) = DictRef::from_value(value) {
        let fields = dict.iter().map(|(name, field)| {
            let name = name
                .unpack_str()
                .ok_or_else(|| Problem::new(format!("keys of data are strings, not {}", name.get_type())))?;
            Ok((name.to_owned(), plain(field, depth + 1)?))
        });
        return Ok(Plain::Map(fields.collect::<Result<_, Problem>>()?));
    }
    if let Some(record) = StructRef::from_value(value) {
        let fields =
            record.iter().map(|(name, field)| Ok((name.as_str().to_owned(), plain(field, depth + 1)?)));
        return Ok(Plain::Map(fields.collect::<Result<_, Problem>>()?));
    }
    if let Some(response) = ResponseValue::from_value(value) {
        return Ok(response.response.data.clone());
    }
    if let Some(headers) = HeadersValue::from_value(value) {
        let fields = headers.0.headers.iter().map(|(name, text)| (name.clone(), Plain::text(text.clone())));
        return Ok(Plain::map(fields));
    }
    Err(Problem::new(format!("a {} is no data", value.get_type())))
}

/// A plain tree as a Starlark value.
pub fn from_plain<'v>(heap: Heap<'v>, value: &Plain) -> Value<'v> {
    match value {
        Plain::Null => Value::new_none(),
        Plain::Bool(truth) => Value::new_bool(*truth),
        Plain::Int(number) => heap.alloc(*number),
        Plain::UInt(number) => heap.alloc(*number),
        Plain::Float(number) => heap.alloc(*number),
        Plain::Text(text) => heap.alloc(text.as_str()),
        Plain::Bytes(bytes) => heap.alloc(starlark_bytes(bytes)),
        Plain::List(items) => {
            let items: Vec<Value<'v>> = items.iter().map(|item| from_plain(heap, item)).collect();
            heap.alloc(AllocList(items))
        }
        Plain::Map(fields) => {
            let fields: Vec<(&str, Value<'v>)> =
                fields.iter().map(|(name, field)| (name.as_str(), from_plain(heap, field))).collect();
            heap.alloc(AllocDict(fields))
        }
        Plain::Volatile(inner) => from_plain(heap, inner),
    }
}

/// Bytes that are not text are shown as text with replacement characters.
fn starlark_bytes(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A JSON tree as a plain one.
pub fn from_json(value: &serde_json::Value) -> Plain {
    match value {
        serde_json::Value::Null => Plain::Null,
        serde_json::Value::Bool(truth) => Plain::Bool(*truth),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Plain::Int(number),
            (None, Some(number)) => Plain::UInt(number),
            (None, None) => Plain::Float(number.as_f64().unwrap_or_default()),
        },
        serde_json::Value::String(text) => Plain::text(text.as_str()),
        serde_json::Value::Array(items) => Plain::List(items.iter().map(from_json).collect()),
        serde_json::Value::Object(fields) => {
            Plain::map(fields.iter().map(|(k, v)| (k.clone(), from_json(v))))
        }
    }
}

/// An integer, and not a truth value.
pub fn integer(value: Value<'_>) -> Option<i64> {
    match value.unpack_bool() {
        Some(_) => None,
        None => i64::unpack_value(value).ok().flatten(),
    }
}

/// A duration: `"300ms"`, `"1m30s"`, `"1.5s"`.
///
/// # Errors
/// When it is not a string of numbers with units.
pub fn duration(value: Value<'_>) -> Result<Duration, Problem> {
    let hint = "a duration is a string of numbers with units: \"300ms\", \"2s\", \"1m30s\"";
    match value.unpack_str() {
        Some(text) => {
            parse_duration(text).ok_or_else(|| Problem::new(format!("bad duration \"{text}\"")).hint(hint))
        }
        None => Err(Problem::new(format!("bad duration {}", value.to_repr())).hint(hint)),
    }
}

/// A duration in text.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_ns: u64 = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let Ratio { part, of } = decimal(number)?;
        let ns = u128::from(part) * u128::from(unit_ns) / u128::from(of);
        total = total.checked_add(Duration::from_nanos(u64::try_from(ns).ok()?))?;
        rest = tail;
    }
    Some(total)
}

/// Milliseconds given as an integer.
///
/// # Errors
/// When it is not an integer from 0.
pub fn millis(value: Value<'_>) -> Result<Duration, Problem> {
    let number = integer(value).and_then(|number| u64::try_from(number).ok());
    number.map(Duration::from_millis).ok_or_else(|| {
        Problem::new(format!("{} is no number of milliseconds", value.to_repr()))
            .hint("milliseconds are an integer from 0")
    })
}

/// A probability: `0.3` or `"30%"`.
///
/// # Errors
/// When it is not between 0 and 1.
pub fn ratio(value: Value<'_>) -> Result<Ratio, Problem> {
    let bad = || {
        Problem::new(format!("bad probability {}", value.to_repr()))
            .hint("a probability is a number from 0 to 1, or a string like \"30%\"")
    };
    let ratio = match (value.unpack_str(), integer(value)) {
        (Some(text), _) => {
            let Ratio { part, of } =
                text.strip_suffix('%').and_then(|n| decimal(n.trim())).ok_or_else(bad)?;
            Ratio { part, of: of.checked_mul(100).ok_or_else(bad)? }
        }
        (None, Some(number)) => Ratio { part: u64::try_from(number).map_err(|_| bad())?, of: 1 },
        (None, None) => match UnpackFloat::unpack_value(value) {
            Ok(Some(UnpackFloat(number))) => decimal(&format!("{number}")).ok_or_else(bad)?,
            _ => return Err(bad()),
        },
    };
    if ratio.part > ratio.of {
        return Err(bad());
    }
    Ok(ratio)
}

/// A number like `1.25` as a ratio of integers.
fn decimal(text: &str) -> Option<Ratio> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if text.is_empty() || text == "." || fraction.len() > 15 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let of = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(Ratio { part: whole.checked_mul(of)?.checked_add(fraction)?, of })
}

/// A size: `"64KiB"`, `"10MB"`, or a number of bytes.
///
/// # Errors
/// When it is neither.
pub fn size(value: Value<'_>) -> Result<u64, Problem> {
    let bad = || {
        Problem::new(format!("bad size {}", value.to_repr()))
            .hint("a size is a number of bytes, or a string like \"64KiB\" or \"10MB\"")
    };
    if let Some(number) = integer(value) {
        return u64::try_from(number).map_err(|_| bad());
    }
    let text = value.unpack_str().ok_or_else(bad)?;
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(bad()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(bad)
}

/// A duration as it is written in a spec.
pub fn duration_words(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        _ if ms > 0 && ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let ms = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(ms("300ms"), Some(300));
        assert_eq!(ms("2s"), Some(2000));
        assert_eq!(ms("1m30s"), Some(90_000));
        assert_eq!(ms("1.5s"), Some(1500));
        for bad in ["", "30", "s", "1x", "1.2.3s", "-1s", "1 s", "99999999999999999999s"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn ratios_are_exact() {
        assert_eq!(decimal("0.3"), Some(Ratio { part: 3, of: 10 }));
        assert_eq!(decimal("30"), Some(Ratio { part: 30, of: 1 }));
        assert_eq!(decimal("1e-7"), None);
    }
}
