//! Semantic checks: what intact bytes must still fulfil before anyone relies on them.
//!
//! Contract: applied to every chunk after its checksum and rkyv's own check. A failure here
//! means a hostile or foreign writer, not a damaged disk.

use crate::event::{Body, Entry, Payload};
use crate::limits;

/// Checks the entries of one chunk that says it belongs to `cell`.
///
/// # Errors
/// What cannot be, in words.
pub fn entries(entries: &[Entry], cell: u32) -> Result<(), String> {
    if entries.is_empty() {
        return Err("a chunk without entries".to_owned());
    }
    for entry in entries {
        if entry.cell != cell {
            return Err(format!("entry {} of cell {} in a chunk of cell {cell}", entry.seq, entry.cell));
        }
        for payload in payloads(&entry.body) {
            if let Payload::Blob { len, .. } = payload
                && *len > limits::BLOB_MAX as u64
            {
                return Err(format!("entry {} refers to a payload of {len} bytes", entry.seq));
            }
        }
        if let Body::File(file) = &entry.body
            && !safe_path(&file.path)
        {
            return Err(format!("entry {}: the path {:?} could leave its folder", entry.seq, file.path));
        }
    }
    Ok(())
}

/// Whether a stored path stays inside the folder it is extracted to, on any system.
pub fn safe_path(path: &str) -> bool {
    let plain = |c: char| !c.is_control() && !matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    !path.is_empty()
        && path.len() <= limits::PATH_MAX
        && path.chars().all(plain)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The payloads of a body.
pub fn payloads(body: &Body) -> impl Iterator<Item = &Payload> {
    let (first, second) = match body {
        Body::File(file) => (file.content.as_ref(), None),
        Body::StepStarted(step) => (Some(&step.arguments), None),
        Body::StepEnded(step) => (Some(&step.response), None),
        Body::Exchange(exchange) => (Some(&exchange.request), exchange.response.as_ref()),
        Body::Signed(signed) => (Some(&signed.claims), None),
        _ => (None, None),
    };
    first.into_iter().chain(second)
}

/// The payloads of a body, to be changed.
pub fn payloads_mut(body: &mut Body) -> impl Iterator<Item = &mut Payload> {
    let (first, second) = match body {
        Body::File(file) => (file.content.as_mut(), None),
        Body::StepStarted(step) => (Some(&mut step.arguments), None),
        Body::StepEnded(step) => (Some(&mut step.response), None),
        Body::Exchange(exchange) => (Some(&mut exchange.request), exchange.response.as_mut()),
        Body::Signed(signed) => (Some(&mut signed.claims), None),
        _ => (None, None),
    };
    first.into_iter().chain(second)
}

/// About how many bytes an entry takes in a chunk.
pub fn estimate(entry: &Entry) -> usize {
    let named = |all: &[crate::Named]| all.iter().map(|n| n.name.len() + n.value.len() + 16).sum::<usize>();
    let strings = |all: &[String]| all.iter().map(|s| s.len() + 8).sum::<usize>();
    let inline: usize = payloads(&entry.body).filter_map(|p| p.bytes()).map(<[u8]>::len).sum();
    let own = match &entry.body {
        Body::RunStarted(run) => strings(&run.command),
        Body::Addresses(all) => named(all),
        Body::FaultWindow(window) => strings(&window.targets) + strings(&window.rules),
        Body::ServiceStarted(started) => strings(&started.args) + named(&started.env),
        Body::Output(output) => output.bytes.len(),
        Body::Exchange(e) => 2 * e.key.len() + e.operation.len() + 100,
        Body::Decision(d) => d.key.len() + d.assumption.len(),
        Body::Syscall(s) => s.target.len(),
        Body::Assertion(a) => a.message.len(),
        Body::Verdict(v) => v.reason.len() + v.fired.iter().map(|f| f.rule.len() + 80).sum::<usize>(),
        Body::Unknown(unknown) => unknown.bytes.len(),
        _ => 0,
    };
    120 + entry.actor.len() + entry.stream.len() + inline + own
}

#[cfg(test)]
mod tests {
    use super::safe_path;

    #[test]
    fn paths_that_leave_their_folder_are_refused() {
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "C:/x", "a\\b", "a\0b", "a/\n"] {
            assert!(!safe_path(bad), "{bad:?}");
        }
        for good in ["faultbox.star", "specs/orders/faultbox.star", "a b.txt", "..a/b..", "@x"] {
            assert!(safe_path(good), "{good:?}");
        }
    }
}
