//! Messages through descriptors: protobuf bytes to [`Value`] and back.
//!
//! Contract: a message is shown as a map only where encoding the map again gives an equal
//! message; whatever would be lost (unknown fields, extensions, NaN) stays as bytes. Names
//! are those of the `.proto` file; JSON names are understood too. Errors name the nearest
//! right name. Map fields are sorted by key.
//! Not modelled: text format, `Any` with types outside the descriptors.

use crate::protocol::http::json;
use base64::Engine;
use faultbox_bundle_format::Value;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, MethodDescriptor,
    SerializeOptions, Value as Proto,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Nesting that leaves room for the tree around a message.
const DEPTH_MAX: usize = 48;

/// Types with a JSON form of their own.
const WELL_KNOWN: &[&str] = &[
    "google.protobuf.Any",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.Struct",
    "google.protobuf.Value",
    "google.protobuf.ListValue",
    "google.protobuf.FieldMask",
    "google.protobuf.BoolValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.FloatValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.StringValue",
    "google.protobuf.BytesValue",
];

/// The descriptors of an interface.
#[derive(Debug, Clone)]
pub struct Schema {
    pool: DescriptorPool,
}

impl Schema {
    /// Reads an encoded `FileDescriptorSet`.
    ///
    /// # Errors
    /// When the bytes are not one, or a file that it imports is not in it.
    pub fn decode(descriptors: &[u8]) -> Result<Self, String> {
        let pool = DescriptorPool::decode(descriptors).map_err(|e| format!("not usable descriptors: {e}"))?;
        Ok(Schema { pool })
    }

    /// As [`Schema::decode`], parsed once per process and content; `None` where they are
    /// unusable (then messages stay bytes).
    pub fn shared(descriptors: &[u8]) -> Option<Arc<Schema>> {
        type Cache = Mutex<BTreeMap<[u8; 32], Option<Arc<Schema>>>>;
        static CACHE: Cache = Mutex::new(BTreeMap::new());
        let mut cache = CACHE.lock().unwrap_or_else(|p| p.into_inner());
        let entry = cache.entry(*blake3::hash(descriptors).as_bytes());
        entry.or_insert_with(|| Schema::decode(descriptors).ok().map(Arc::new)).clone()
    }

    /// The pool itself.
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// The method behind `/package.Service/Method`.
    pub fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = path.strip_prefix('/').unwrap_or(path).rsplit_once('/')?;
        let service = self.pool.get_service_by_name(service)?;
        service.methods().find(|m| m.name() == method)
    }

    /// Every method's path.
    pub fn methods(&self) -> Vec<String> {
        let services = self.pool.services().collect::<Vec<_>>();
        let paths = services.iter().flat_map(|service| {
            let name = service.full_name().to_owned();
            service.methods().map(move |m| format!("/{name}/{}", m.name())).collect::<Vec<_>>()
        });
        paths.collect()
    }

    /// The method behind a path, or what to say about a path that has none.
    ///
    /// # Errors
    /// Names the nearest method.
    pub fn require(&self, path: &str) -> Result<MethodDescriptor, String> {
        self.method(path).ok_or_else(|| {
            let methods = self.methods();
            let near = nearest(path, methods.iter().map(String::as_str));
            format!("no method {path} in the descriptors{near}")
        })
    }
}

/// `; the nearest is ...`, or nothing where there is nothing to choose from.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    let best = names.min_by_key(|name| strsim::damerau_levenshtein(wanted, name));
    best.map(|name| format!("; the nearest is {name}")).unwrap_or_default()
}

/// The message as a map, where nothing is lost by that.
pub fn to_value(descriptor: &MessageDescriptor, bytes: &[u8]) -> Option<Value> {
    let message = DynamicMessage::decode(descriptor.clone(), bytes).ok()?;
    let value = message_value(&message, false, 0)?;
    let again = build(descriptor, &value, "").ok()?;
    (again == message).then_some(value)
}

/// The message as a map for a reader: fields without presence that were not sent are there
/// with their defaults; unknown fields are left out.
pub fn to_readable(descriptor: &MessageDescriptor, bytes: &[u8]) -> Option<Value> {
    let message = DynamicMessage::decode(descriptor.clone(), bytes).ok()?;
    message_value(&message, true, 0)
}

/// The bytes of a message that is given as a map.
///
/// # Errors
/// What does not fit the descriptor, with the nearest right name.
pub fn from_value(descriptor: &MessageDescriptor, value: &Value) -> Result<Vec<u8>, String> {
    build(descriptor, value, "").map(|message| message.encode_to_vec())
}

fn message_value(message: &DynamicMessage, defaults: bool, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    let descriptor = prost_reflect::ReflectMessage::descriptor(message);
    if WELL_KNOWN.contains(&descriptor.full_name()) {
        let options = SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true);
        let json = message.serialize_with_options(serde_json::value::Serializer, &options).ok()?;
        return json::from_json(&json).map(sorted);
    }
    let mut fields = Vec::new();
    for field in descriptor.fields() {
        if message.has_field(&field) || (defaults && !field.supports_presence()) {
            let value = field_value(&message.get_field(&field), &field.kind(), defaults, depth + 1)?;
            fields.push((field.name().to_owned(), value));
        }
    }
    Some(Value::Map(fields))
}

/// Objects that come from a `Struct` have no order of their own.
fn sorted(value: Value) -> Value {
    match value {
        Value::Map(fields) => {
            let fields: BTreeMap<String, Value> = fields.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Map(fields.into_iter().collect())
        }
        Value::List(items) => Value::List(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn field_value(value: &Proto, kind: &Kind, defaults: bool, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match value {
        Proto::Bool(b) => Value::Bool(*b),
        Proto::I32(n) => Value::Int(i64::from(*n)),
        Proto::I64(n) => Value::Int(*n),
        Proto::U32(n) => Value::Int(i64::from(*n)),
        Proto::U64(n) => i64::try_from(*n).map_or(Value::UInt(*n), Value::Int),
        Proto::F32(n) => Value::Float(f64::from(*n)),
        Proto::F64(n) => Value::Float(*n),
        Proto::String(text) => Value::Text(text.clone()),
        Proto::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        Proto::EnumNumber(n) => {
            let known = kind.as_enum().and_then(|e| e.get_value(*n));
            known.map_or(Value::Int(i64::from(*n)), |v| Value::text(v.name()))
        }
        Proto::Message(message) => message_value(message, defaults, depth + 1)?,
        Proto::List(items) => {
            let items = items.iter().map(|item| field_value(item, kind, defaults, depth + 1));
            Value::List(items.collect::<Option<_>>()?)
        }
        Proto::Map(entries) => {
            let kind = kind.as_message()?.map_entry_value_field().kind();
            let sorted: BTreeMap<&MapKey, &Proto> = entries.iter().collect();
            let entries = sorted
                .into_iter()
                .map(|(key, value)| Some((key_text(key), field_value(value, &kind, defaults, depth + 1)?)));
            Value::Map(entries.collect::<Option<_>>()?)
        }
    })
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(b) => b.to_string(),
        MapKey::I32(n) => n.to_string(),
        MapKey::I64(n) => n.to_string(),
        MapKey::U32(n) => n.to_string(),
        MapKey::U64(n) => n.to_string(),
        MapKey::String(text) => text.clone(),
    }
}

fn build(descriptor: &MessageDescriptor, value: &Value, at: &str) -> Result<DynamicMessage, String> {
    let name = descriptor.full_name();
    if WELL_KNOWN.contains(&name) {
        return DynamicMessage::deserialize(descriptor.clone(), json::to_json(value))
            .map_err(|e| format!("{}{name}: {e}", place(at)));
    }
    let Value::Map(fields) = value.bare() else {
        return Err(format!("{}{name} is written as a dict", place(at)));
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    for (key, value) in fields {
        let field = descriptor.get_field_by_name(key).or_else(|| descriptor.get_field_by_json_name(key));
        let field = field.ok_or_else(|| {
            let names: Vec<String> = descriptor.fields().map(|f| f.name().to_owned()).collect();
            format!("{}no field {key} in {name}{}", place(at), nearest(key, names.iter().map(String::as_str)))
        })?;
        if matches!(value.bare(), Value::Null) && !null_means_something(&field) {
            continue;
        }
        let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        message.set_field(&field, field_from(&field, value, &at)?);
    }
    Ok(message)
}

fn null_means_something(field: &FieldDescriptor) -> bool {
    field.kind().as_message().is_some_and(|m| m.full_name() == "google.protobuf.Value")
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!("{at}: ") }
}

fn field_from(field: &FieldDescriptor, value: &Value, at: &str) -> Result<Proto, String> {
    if field.is_map() {
        let Value::Map(entries) = value.bare() else {
            return Err(format!("{at}: a map field is written as a dict"));
        };
        let kind = field.kind();
        let entry = kind.as_message().ok_or_else(|| format!("{at}: not a map field"))?;
        let (key_kind, value_kind) =
            (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let entries = entries.iter().map(|(k, v)| {
            let key = scalar(&key_kind, &key_value(&key_kind, k), at)?.into_map_key();
            let key = key.ok_or_else(|| format!("{at}: {k} cannot be a key"))?;
            Ok((key, scalar(&value_kind, v, &format!("{at}.{k}"))?))
        });
        return Ok(Proto::Map(entries.collect::<Result<_, String>>()?));
    }
    if field.is_list() {
        let Value::List(items) = value.bare() else {
            return Err(format!("{at}: a repeated field is written as a list"));
        };
        let items = items.iter().map(|item| scalar(&field.kind(), item, at));
        return Ok(Proto::List(items.collect::<Result<_, String>>()?));
    }
    scalar(&field.kind(), value, at)
}

fn key_value(kind: &Kind, key: &str) -> Value {
    match (kind, key) {
        (Kind::Bool, "true") => Value::Bool(true),
        (Kind::Bool, "false") => Value::Bool(false),
        _ => Value::text(key),
    }
}

fn scalar(kind: &Kind, value: &Value, at: &str) -> Result<Proto, String> {
    let wrong = |wanted: &str| format!("{at}: {} is not {wanted}", shown(value));
    let whole = |wanted: &'static str| whole_number(value).ok_or_else(|| wrong(wanted));
    Ok(match kind {
        Kind::Bool => Proto::Bool(match value.bare() {
            Value::Bool(b) => *b,
            _ => return Err(wrong("a bool")),
        }),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            Proto::I32(i32::try_from(whole("an int32")?).map_err(|_| wrong("an int32"))?)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            Proto::I64(i64::try_from(whole("an int64")?).map_err(|_| wrong("an int64"))?)
        }
        Kind::Uint32 | Kind::Fixed32 => {
            Proto::U32(u32::try_from(whole("a uint32")?).map_err(|_| wrong("a uint32"))?)
        }
        Kind::Uint64 | Kind::Fixed64 => {
            Proto::U64(u64::try_from(whole("a uint64")?).map_err(|_| wrong("a uint64"))?)
        }
        Kind::Float => Proto::F32(float(value).ok_or_else(|| wrong("a number"))? as f32),
        Kind::Double => Proto::F64(float(value).ok_or_else(|| wrong("a number"))?),
        Kind::String => Proto::String(value.as_text().ok_or_else(|| wrong("a string"))?.to_owned()),
        Kind::Bytes => Proto::Bytes(match value.bare() {
            Value::Bytes(bytes) => bytes.clone().into(),
            Value::Text(text) => base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|_| wrong("bytes (text of a bytes field is base64)"))?
                .into(),
            _ => return Err(wrong("bytes")),
        }),
        Kind::Enum(descriptor) => Proto::EnumNumber(match value.bare() {
            Value::Text(name) => {
                let known = descriptor.get_value_by_name(name);
                known.map(|v| v.number()).ok_or_else(|| {
                    let names: Vec<String> = descriptor.values().map(|v| v.name().to_owned()).collect();
                    let near = nearest(name, names.iter().map(String::as_str));
                    format!("{at}: no value {name} in {}{near}", descriptor.full_name())
                })?
            }
            _ => i32::try_from(whole("a value of the enum")?).map_err(|_| wrong("a value of the enum"))?,
        }),
        Kind::Message(descriptor) => Proto::Message(build(descriptor, value, at)?),
    })
}

/// Whole numbers, also as text (the JSON form of 64-bit ones) or as a float without fraction.
fn whole_number(value: &Value) -> Option<i128> {
    match value.bare() {
        Value::Int(n) => Some(i128::from(*n)),
        Value::UInt(n) => Some(i128::from(*n)),
        Value::Float(n) if n.fract() == 0.0 && n.abs() < 9e15 => Some(*n as i128),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value.bare() {
        Value::Float(n) => Some(*n),
        Value::Int(n) => Some(*n as f64),
        Value::UInt(n) => Some(*n as f64),
        Value::Text(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn shown(value: &Value) -> String {
    let text = json::print(value);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn city() -> MessageDescriptor {
        let schema = Schema::decode(&crate::protocol::grpc::testing::descriptors()).unwrap();
        schema.pool().get_message_by_name("geo.City").unwrap()
    }

    #[test]
    fn maps_enums_and_nested_messages_come_back() {
        let names = Value::map([("-1", Value::text("x")), ("2", Value::text("y"))]);
        let value = Value::map([
            ("id", Value::Int(-5)),
            ("tags", Value::List(vec![Value::text("a")])),
            ("blob", Value::Bytes(vec![1, 2])),
            ("big", Value::UInt(u64::MAX)),
            ("area", Value::Float(0.1)),
            ("size", Value::text("LARGE")),
            ("names", names),
            ("origin", Value::map([("id", Value::Int(3))])),
            ("ratio", Value::Float(0.5)),
        ]);
        let bytes = from_value(&city(), &value).unwrap();
        assert_eq!(to_value(&city(), &bytes), Some(value));
        let readable = to_readable(&city(), &bytes).unwrap();
        assert_eq!(readable.get("capital"), Some(&Value::Bool(false)));
        // Numbers as JSON writes them, an enum by number, a value that the enum lacks.
        let json = Value::map([("big", Value::text("18446744073709551615")), ("size", Value::Int(77))]);
        let bytes = from_value(&city(), &json).unwrap();
        assert_eq!(to_value(&city(), &bytes).unwrap().get("size"), Some(&Value::Int(77)));
        for (field, value, wanted) in [
            ("size", Value::text("LARG"), "the nearest is LARGE"),
            ("names", Value::map([("x", Value::text("y"))]), "not an int32"),
            ("names", Value::List(vec![]), "a map field is written as a dict"),
            ("tags", Value::text("a"), "a repeated field is written as a list"),
            (
                "origin",
                Value::map([("idd", Value::Int(1))]),
                "origin: no field idd in geo.CityQuery; the nearest is id",
            ),
            ("capital", Value::Int(1), "not a bool"),
            ("id", Value::Float(1.5), "not an int64"),
        ] {
            let problem = from_value(&city(), &Value::map([(field, value)])).unwrap_err();
            assert!(problem.contains(wanted), "{problem}");
        }
    }

    #[test]
    fn what_would_be_lost_stays_bytes() {
        // Field 99, which the descriptors do not have.
        assert_eq!(to_value(&city(), &[0x98, 0x06, 0x01]), None);
        assert_eq!(to_value(&city(), &[0xff]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let city = city();
            let _ = to_readable(&city, &bytes);
            if let Some(value) = to_value(&city, &bytes) {
                let again = from_value(&city, &value).unwrap();
                prop_assert_eq!(to_value(&city, &again), Some(value));
            }
        }
    }
}
