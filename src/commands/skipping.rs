//! What `--virtual-time` skipped, as `test` and `replay` tell it.

use crate::terminal::one_line;
use faultbox_engine::virtual_time::{PATIENCE, Skipped};
use std::time::Duration;

/// For people.
pub fn lines(time: &Skipped) -> Vec<String> {
    let Skipped { skipped, jumps, worked: _, crept, real } = time;
    let mut lines = Vec::new();
    if *jumps > 0 {
        lines.push(format!("skipped {}ms of waiting", skipped.as_millis()));
    }
    if *crept > Duration::ZERO && real.is_empty() {
        let (crept, patience) = (crept.as_millis(), PATIENCE.as_secs());
        lines.push(format!("{crept}ms passed meanwhile: something did not rest for {patience}s"));
    }
    let real = real.iter().map(|(service, why)| format!("{service} waits in real time: {}", one_line(why)));
    lines.extend(real);
    lines
}

/// For programs.
pub fn json(time: &Skipped) -> serde_json::Value {
    let Skipped { skipped, jumps, worked, crept, real } = time;
    let millis = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    serde_json::json!({
        "skipped_ms": millis(skipped),
        "worked_ms": millis(worked),
        "crept_ms": millis(crept),
        "jumps": jumps,
        "real": real,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_and_what_could_not_be() {
        let mut time = Skipped { skipped: Duration::from_millis(5485), jumps: 3, ..Skipped::default() };
        assert_eq!(lines(&time), ["skipped 5485ms of waiting"]);
        time.crept = Duration::from_millis(40);
        assert_eq!(lines(&time)[1..], ["40ms passed meanwhile: something did not rest for 2s"]);
        time.real.insert("api".to_owned(), "it runs in a container".to_owned());
        assert_eq!(lines(&time)[1..], ["api waits in real time: it runs in a container"]);
        time.worked = Duration::from_millis(2);
        assert_eq!((&json(&time)["crept_ms"], &json(&time)["worked_ms"]), (&40.into(), &2.into()));
        assert_eq!(lines(&Skipped::default()), Vec::<String>::new());
    }
}
