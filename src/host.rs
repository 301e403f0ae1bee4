//! What the command needs from the host: folders of its own, the clock's words, signals.

use faultbox_engine::os;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Prefix of the folders in which runs keep their data.
const PREFIX: &str = "faultbox-";

/// A folder of this run's own, removed at its end.
pub struct RunDir(PathBuf);

impl RunDir {
    /// Makes the folder and removes those of runs that died.
    ///
    /// # Errors
    /// When the temporary folder is not writable.
    pub fn create() -> std::io::Result<Self> {
        let temp = std::env::temp_dir();
        sweep(&temp);
        let dir = temp.join(format!("{PREFIX}{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        // What containers are to reach is opened further below; the way there is ours alone.
        os::create_private_dir(&dir)?;
        Ok(RunDir(dir))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sweep(temp: &Path) {
    let Ok(entries) = std::fs::read_dir(temp) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// `2026-04-23T11-12-34`, as in the names of files, for nanoseconds since the Unix epoch (UTC).
pub fn stamp(unix_ns: u64) -> String {
    let (date, [hour, minute, second]) = utc(unix_ns);
    format!("{date}T{hour:02}-{minute:02}-{second:02}")
}

/// `2026-04-23 11:12:34 UTC`, as people read it.
pub fn date_and_time(unix_ns: u64) -> String {
    let (date, [hour, minute, second]) = utc(unix_ns);
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

/// `2026-04-23T11:12:34.123Z`, as documents have it (ISO 8601).
pub fn iso(unix_ns: u64) -> String {
    let (date, [hour, minute, second]) = utc(unix_ns);
    let ms = unix_ns / 1_000_000 % 1000;
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

fn utc(unix_ns: u64) -> (String, [u64; 3]) {
    let seconds = unix_ns / 1_000_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    (format!("{year:04}-{month:02}-{day:02}"), [rest / 3600, rest / 60 % 60, rest % 60])
}

/// Year, month and day of a day number since 1970-01-01 (proleptic Gregorian calendar).
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

/// A token that SIGINT and SIGTERM cancel; the second signal ends the process at once.
pub fn interruption() -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        #[cfg(unix)]
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        #[cfg(not(unix))]
        let terminate = tokio::signal::windows::ctrl_close();
        let Ok(mut terminate) = terminate else { return };
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(130);
            }
            cancelled.cancel();
        }
    });
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_utc() {
        assert_eq!(stamp(0), "1970-01-01T00-00-00");
        assert_eq!(stamp(951_782_400_000_000_000), "2000-02-29T00-00-00");
        assert_eq!(stamp(1_776_942_754_000_000_000), "2026-04-23T11-12-34");
        assert_eq!(date_and_time(1_776_942_754_000_000_000), "2026-04-23 11:12:34 UTC");
        assert_eq!(iso(1_776_942_754_123_456_789), "2026-04-23T11:12:34.123Z");
    }
}
