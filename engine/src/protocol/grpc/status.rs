//! gRPC status codes by name and number.

/// Names in order of their numbers.
pub const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// OK.
pub const OK: i64 = 0;
/// UNKNOWN: also what a missing status means.
pub const UNKNOWN: i64 = 2;
/// NOT_FOUND.
pub const NOT_FOUND: i64 = 5;
/// UNIMPLEMENTED.
pub const UNIMPLEMENTED: i64 = 12;
/// INTERNAL.
pub const INTERNAL: i64 = 13;
/// UNAVAILABLE.
pub const UNAVAILABLE: i64 = 14;

/// The name of a code (`CODE_42` for one that has none).
pub fn name(code: i64) -> String {
    let known = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    known.map_or_else(|| format!("CODE_{code}"), |name| (*name).to_owned())
}

/// The number of a code given by name (any case) or number.
pub fn number(code: &str) -> Option<i64> {
    let wanted = code.trim().to_ascii_uppercase();
    let wanted = if wanted == "CANCELED" { "CANCELLED".to_owned() } else { wanted };
    let by_name = NAMES.iter().position(|name| *name == wanted);
    by_name.or_else(|| wanted.parse().ok().filter(|n| *n < NAMES.len())).map(|n| n as i64)
}

/// What to say about a code that does not exist.
pub fn unknown(code: &str) -> String {
    let near = super::message::nearest(&code.to_ascii_uppercase(), NAMES.iter().copied());
    format!("{code} is no gRPC status code{near}")
}
