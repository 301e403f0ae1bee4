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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_list_names_exactly_what_the_sources_know() {
        let list = include_str!("../../mutations/list.txt").lines().filter(|line| !line.starts_with('#'));
        let listed: BTreeSet<&str> = list.filter_map(|line| line.split_ascii_whitespace().next()).collect();
        let sources = [
            include_str!("bus.rs"),
            include_str!("cache.rs"),
            include_str!("db.rs"),
            include_str!("routes.rs"),
            include_str!("upstreams.rs"),
        ];
        let mut known = BTreeSet::new();
        for source in sources {
            for point in ["mutation::is_on(\"", "mutation::pick(\""] {
                known.extend(source.split(point).skip(1).filter_map(|rest| rest.split('"').next()));
            }
        }
        assert_eq!(listed, known);
        assert!(listed.len() >= 20, "{}", listed.len());
    }
}
