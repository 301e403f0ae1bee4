//! Wrong versions of this service, for tests that a replay notices them.
//!
//! Contract: without the cargo feature `mutations` nothing here does anything. With it,
//! `ORDERS_MUTATION` names the one that is on; `testdata/mutations/list.txt` lists them, with the
//! scenario that shows each.

/// Whether the mutation `name` is on.
#[cfg(feature = "mutations")]
pub fn is_on(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("ORDERS_MUTATION").ok()).as_deref() == Some(name)
}

/// Whether the mutation `name` is on: never, in this build.
#[cfg(not(feature = "mutations"))]
pub const fn is_on(_name: &str) -> bool {
    false
}

/// `changed` where the mutation `name` is on, else `usual`.
pub fn pick<T>(name: &str, usual: T, changed: T) -> T {
    if is_on(name) { changed } else { usual }
}
