//! Wrong versions of this service, for tests that a replay notices them.
//!
//! Contract: without the cargo feature `mutations` nothing here does anything. With it,
//! `ORDERS_MUTATION` names the one that is on, or several with commas between; `testdata/mutations/rust.txt` lists them, with the
//! scenario that shows each.

use std::borrow::Cow;

/// Whether the mutation `name` is on.
#[cfg(feature = "mutations")]
pub fn is_on(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("ORDERS_MUTATION").ok()).as_deref();
    chosen.is_some_and(|chosen| chosen.split(',').any(|chosen| chosen == name))
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

/// `usual` with `to` in the place of `from` where the mutation `name` is on.
pub fn text<'a>(name: &str, usual: Cow<'a, str>, from: &str, to: &str) -> Cow<'a, str> {
    if is_on(name) { usual.replace(from, to).into() } else { usual }
}

/// Another word in each run.
pub fn word() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("n{:016x}7", RandomState::new().hash_one(0))
}

/// A number of base 36 that is another one each time, of a shape that says nothing.
pub fn receipt() -> String {
    use std::hash::{BuildHasher, RandomState};
    let mut left = RandomState::new().hash_one(0);
    let mut text = String::new();
    for _ in 0..9 {
        text.extend(char::from_digit((left % 36) as u32, 36));
        left /= 36;
    }
    // A letter and a digit at least.
    format!("r{text}7")
}

/// What stands in the file that `ORDERS_CUSTOMER_FILE` names.
pub fn file() -> String {
    let path = std::env::var("ORDERS_CUSTOMER_FILE").unwrap_or_default();
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Letters in the order in which as many threads came to an end.
pub fn race() -> String {
    let order = std::sync::Mutex::new(String::new());
    let start = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for letter in 'a'..='h' {
            let (order, start) = (&order, &start);
            scope.spawn(move || {
                start.wait();
                // Many turns, so that who is last in one is not who is last in all.
                for _ in 0..200 {
                    drop(order.lock());
                }
                if let Ok(mut order) = order.lock() {
                    order.push(letter);
                }
            });
        }
    });
    order.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_list_names_exactly_what_the_sources_know() {
        let list = include_str!("../../mutations/rust.txt").lines().filter(|line| !line.starts_with('#'));
        let listed: BTreeSet<String> =
            list.filter_map(|line| line.split_ascii_whitespace().next().map(str::to_owned)).collect();
        let sources = [
            include_str!("bus.rs"),
            include_str!("cache.rs"),
            include_str!("db.rs"),
            include_str!("routes.rs"),
            include_str!("upstreams.rs"),
        ];
        let mut known = BTreeSet::new();
        for source in sources {
            // However the formatter has broken the lines.
            let source: String = source.split_ascii_whitespace().collect();
            for point in ["mutation::is_on(\"", "mutation::pick(\"", "mutation::text(\""] {
                let names = source.split(point).skip(1).filter_map(|rest| rest.split('"').next());
                known.extend(names.map(str::to_owned));
            }
        }
        assert_eq!(listed, known);
        assert!(listed.len() >= 50, "{}", listed.len());
    }
}
