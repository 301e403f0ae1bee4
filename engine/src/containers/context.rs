//! A folder as a build's context: what goes along, and its tar.
//!
//! Contract: entries in the order of their names, without owners and times, so that an unchanged
//! folder is the same context on every machine. `.dockerignore` decides as `docker build` does it:
//! the last pattern that fits wins, `!` takes back, what is below a folder that fits fits too.
//! `Dockerfile` and `.dockerignore` themselves always go along.
//!
//! Not modelled: device files and sockets (left out), hard links (sent as files of their own),
//! sparse files.

use crate::os;
use regex::Regex;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The patterns of a `.dockerignore`.
#[derive(Debug, Default)]
pub(super) struct Ignore(Vec<(bool, Regex)>);

impl Ignore {
    /// Understands a `.dockerignore`; `Err` names a pattern that cannot be one.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            if line.starts_with('#') {
                continue;
            }
            let (takes_back, pattern) = match line.trim().strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line.trim()),
            };
            let pattern = cleaned(pattern);
            if pattern.is_empty() {
                continue;
            }
            let regex = Regex::new(&expression(&pattern)?);
            patterns.push((takes_back, regex.map_err(|_| format!("the pattern {line:?} is none"))?));
        }
        Ok(Ignore(patterns))
    }

    /// Whether this path (relative, `/` between its parts) stays behind.
    pub(super) fn covers(&self, path: &str) -> bool {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        let fits = |regex: &Regex| regex.is_match(path) || parents.clone().any(|above| regex.is_match(above));
        let last = self.0.iter().rev().find(|(_, regex)| fits(regex));
        last.is_some_and(|(takes_back, _)| !takes_back)
    }

    /// Whether something below a folder that stays behind may go along all the same.
    fn takes_back(&self) -> bool {
        self.0.iter().any(|(takes_back, _)| *takes_back)
    }
}

/// A pattern without `.`, `..` and needless slashes.
fn cleaned(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A pattern as a regular expression over whole paths.
fn expression(pattern: &str) -> Result<String, String> {
    let mut out = String::from("^");
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**/") {
            out.push_str("(?:.*/)?");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("**") {
            out.push_str(".*");
            rest = after;
        } else if next == '[' {
            let end = rest.get(2..).and_then(|tail| tail.find(']')).map(|at| at + 2);
            let end = end.ok_or_else(|| format!("the pattern {pattern:?} has a [ without its ]"))?;
            out.push_str(&rest[..=end].replace("[!", "[^"));
            rest = &rest[end + 1..];
        } else {
            // A backslash makes what follows it plain.
            let escaped = rest.chars().nth(1).filter(|_| next == '\\');
            match (next, escaped) {
                ('*', _) => out.push_str("[^/]*"),
                ('?', _) => out.push_str("[^/]"),
                _ => out.push_str(&regex::escape(&escaped.unwrap_or(next).to_string())),
            }
            rest = &rest[next.len_utf8() + escaped.map_or(0, char::len_utf8)..];
        }
    }
    out.push('$');
    Ok(out)
}

/// What of a folder goes along: paths relative to it, in order.
fn entries(root: &Path, ignore: &Ignore) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            let own = ["Dockerfile", ".dockerignore"].iter().any(|name| path == Path::new(name));
            let behind = !own && ignore.covers(&path.to_string_lossy());
            if kind.is_dir() && (!behind || ignore.takes_back()) {
                folders.push(path.clone());
            }
            if !behind && (kind.is_dir() || kind.is_file() || kind.is_symlink()) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Writes the tar of a folder.
pub(super) fn write(root: &Path, ignore: &Ignore, out: &mut impl Write) -> io::Result<()> {
    for path in entries(root, ignore)? {
        add(root, &path, out).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", root.join(&path).display()))
        })?;
    }
    out.write_all(&[0; 1024])
}

const BLOCK: usize = 512;
const FILE: u8 = b'0';
const LINK: u8 = b'2';
const FOLDER: u8 = b'5';
const LONG_LINK: u8 = b'K';
const LONG_NAME: u8 = b'L';

fn add(root: &Path, path: &Path, out: &mut impl Write) -> io::Result<()> {
    let place = root.join(path);
    let meta = std::fs::symlink_metadata(&place)?;
    let mode = os::mode(&meta);
    let name = &*os::bytes_of(path);
    if meta.is_symlink() {
        let to = std::fs::read_link(&place)?;
        return entry(out, name, LINK, 0o777, 0, &os::bytes_of(&to));
    }
    if meta.is_dir() {
        return entry(out, &[name, b"/"].concat(), FOLDER, mode, 0, b"");
    }
    let mut file = std::fs::File::open(&place)?;
    entry(out, name, FILE, mode, meta.len(), b"")?;
    let copied = io::copy(&mut (&mut file).take(meta.len()), out)?;
    if copied != meta.len() {
        return Err(io::Error::other("it changed while it was read"));
    }
    pad(out, copied)
}

fn pad(out: &mut impl Write, written: u64) -> io::Result<()> {
    let over = written as usize % BLOCK;
    if over == 0 { Ok(()) } else { out.write_all(&vec![0; BLOCK - over]) }
}

/// The header of one entry; names that are too long for it come before, as GNU tar writes them.
fn entry(out: &mut impl Write, name: &[u8], kind: u8, mode: u32, size: u64, link: &[u8]) -> io::Result<()> {
    for (text, long) in [(name, LONG_NAME), (link, LONG_LINK)] {
        if text.len() > 100 {
            header(out, b"././@LongLink", long, 0o644, text.len() as u64, b"")?;
            out.write_all(text)?;
            pad(out, text.len() as u64)?;
        }
    }
    header(out, name, kind, mode, size, link)
}

fn header(out: &mut impl Write, name: &[u8], kind: u8, mode: u32, size: u64, link: &[u8]) -> io::Result<()> {
    let mut block = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| {
        if let Some(place) = block.get_mut(at..at + text.len()) {
            place.copy_from_slice(text);
        }
    };
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{mode:07o}").as_bytes());
    // Nobody's: user and group 0.
    for at in [108, 116] {
        put(at, b"0000000");
    }
    // Sizes from 8 GiB on do not fit in octal digits: then they are binary, marked by the high bit.
    match size < 1 << 33 {
        true => put(124, format!("{size:011o}").as_bytes()),
        false => put(124, &[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat()),
    }
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar  ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(place) = block.get_mut(148..156) {
        place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    out.write_all(&block)
}

/// A hash of what lies at a path: a file's content, or a folder's with all that is in it.
pub(super) fn digest(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    if std::fs::metadata(path)?.is_dir() {
        write(path, &Ignore::default(), &mut hasher)?;
    } else {
        io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(patterns: &str, path: &str) -> bool {
        Ignore::parse(patterns).unwrap().covers(path)
    }

    #[test]
    fn patterns_decide_as_docker_build_does() {
        for (patterns, path, wanted) in [
            ("*.log", "a.log", true),
            ("*.log", "sub/a.log", false),
            ("**/*.log", "sub/deep/a.log", true),
            ("**/*.log", "a.log", true),
            ("target", "target/debug/x", true),
            ("/target/", "target/x", true),
            ("target", "targets/x", false),
            ("*/temp*", "somedir/temporary.txt", true),
            ("*/temp*", "temp/x", false),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "other.md", true),
            ("!README.md\n*.md", "README.md", true),
            ("node_modules\n!node_modules/keep", "node_modules/keep/x", false),
            ("# comment\n\n  a  \n", "a", true),
            ("# comment", "# comment", false),
            ("a[0-9]", "a7", true),
            ("a[!0-9]", "a7", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("./x/../y", "y", true),
            ("**", "anything/at/all", true),
            ("a.b", "axb", false),
        ] {
            assert_eq!(covers(patterns, path), wanted, "{patterns:?} {path}");
        }
        assert!(Ignore::parse("a[b").is_err());
    }

    #[test]
    fn a_folder_comes_out_of_its_tar_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        std::fs::create_dir_all(from.join("d".repeat(90))).unwrap();
        std::fs::create_dir_all(from.join("skip")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join(&long), "long").unwrap();
        std::fs::write(from.join("skip/a"), "no").unwrap();
        std::fs::write(from.join("skip/keep"), "yes").unwrap();
        std::fs::write(from.join("run"), vec![7; 1000]).unwrap();
        os::set_mode(&from.join("run"), 0o755).unwrap();
        std::os::unix::fs::symlink("l".repeat(120), from.join("link")).unwrap();
        std::fs::write(from.join("Dockerfile"), "FROM scratch").unwrap();
        let ignore = Ignore::parse("skip\nDockerfile\n!skip/keep").unwrap();
        let mut tar = Vec::new();
        write(&from, &ignore, &mut tar).unwrap();
        let mut again = Vec::new();
        write(&from, &ignore, &mut again).unwrap();
        assert_eq!(tar, again);

        let file = dir.path().join("x.tar");
        std::fs::write(&file, &tar).unwrap();
        let untar = std::process::Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&to).status();
        assert!(untar.unwrap().success());
        assert_eq!(std::fs::read_to_string(to.join(&long)).unwrap(), "long");
        assert_eq!(std::fs::read(to.join("run")).unwrap(), vec![7; 1000]);
        assert_eq!(os::mode(&std::fs::metadata(to.join("run")).unwrap()), 0o755);
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new(&"l".repeat(120)));
        assert_eq!(std::fs::read_to_string(to.join("skip/keep")).unwrap(), "yes");
        assert!(!to.join("skip/a").exists());
        assert!(to.join("Dockerfile").exists());
        assert_ne!(digest(&from).unwrap(), digest(&to).unwrap());
    }
}
