//! Which files this version reads, and the file header.
//!
//! Contract: [`readable`] is the one function that decides. Changes of the format:
//! - 1.0: the first;
//! - 1.1: the header names the version of the tool that wrote the file;
//! - 2.0: chunks are columns and may be compressed with earlier ones; no cell ends are written.

/// Major version that is written: what does not know it cannot read the file.
pub const MAJOR: u16 = 2;
/// The oldest major version that is read.
pub const OLDEST: u16 = 1;
/// Minor version: a reader of an older minor version can read the file and shows what it
/// does not know as unknown.
pub const MINOR: u16 = 0;
/// Flags (upper half: a reader that does not know a set bit must refuse) that are known.
pub const MUST_UNDERSTAND: u32 = 0;
/// The layout of rkyv archives: little endian, aligned, 32-bit relative pointers, rkyv 0.8.
pub const LAYOUT: [u8; 4] = [b'l', b'a', 32, 8];
/// The first eight bytes of every bundle. The high bit is lost by 7-bit transports, CRLF and
/// LF by text conversions, and 0x1A ends a listing on terminals that know it.
pub const MAGIC: [u8; 8] = [0x8f, b'F', b'B', b'X', b'\r', b'\n', 0x1a, b'\n'];
/// Length of the file header.
pub const HEADER_LEN: usize = 64;

/// A version of Faultbox; all zero where a file does not say it (format 1.0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tool {
    /// Major version.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// Patch version.
    pub patch: u16,
}

impl Tool {
    /// This version.
    pub fn this() -> Self {
        Tool {
            major: env!("CARGO_PKG_VERSION_MAJOR").parse().unwrap_or_default(),
            minor: env!("CARGO_PKG_VERSION_MINOR").parse().unwrap_or_default(),
            patch: env!("CARGO_PKG_VERSION_PATCH").parse().unwrap_or_default(),
        }
    }

    /// Who can read what it wrote.
    fn or_later(self) -> String {
        match self == Tool::default() {
            true => "use the faultbox that wrote it, or a later one".to_owned(),
            false => format!("use faultbox {self}, which wrote it, or a later one"),
        }
    }
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Which versions of Faultbox read a major version of the format that this one does not read any more.
fn last_readers(_major: u16) -> &'static str {
    // No major version that was released has been given up.
    "a faultbox of before 0.1.0"
}

/// Why a file of this version is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Too new.
    #[error("bundle format {major}.{minor} is newer than this faultbox reads ({OLDEST}.0 to {MAJOR}.x): {}", tool.or_later())]
    TooNew {
        /// The file's major version.
        major: u16,
        /// Its minor version.
        minor: u16,
        /// What wrote it.
        tool: Tool,
    },
    /// Too old.
    #[error(
        "bundle format {major}.{minor} is older than this faultbox reads ({OLDEST}.0 to {MAJOR}.x): use {} to read it",
        last_readers(*major)
    )]
    TooOld {
        /// The file's major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// A feature that must be understood.
    #[error(
        "bundle format {major}.{minor} uses features {flags:#010x} that this faultbox does not know: {}",
        tool.or_later()
    )]
    Features {
        /// The file's major version.
        major: u16,
        /// Its minor version.
        minor: u16,
        /// The unknown bits.
        flags: u32,
        /// What wrote it.
        tool: Tool,
    },
    /// Another memory layout.
    #[error("the records have the layout {layout:?} and this faultbox reads {LAYOUT:?}: {}", tool.or_later())]
    Layout {
        /// The file's layout.
        layout: [u8; 4],
        /// What wrote it.
        tool: Tool,
    },
}

/// What stands at the beginning of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Identifies the run; random.
    pub id: [u8; 16],
    /// Salt of the secrets' tokens; random.
    pub salt: [u8; 16],
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
    /// Features that a reader must understand.
    pub must_understand: u32,
    /// Features that a reader may ignore.
    pub may_ignore: u32,
    /// What wrote it.
    pub tool: Tool,
}

impl Header {
    /// The header of a new bundle.
    pub fn new(id: [u8; 16], salt: [u8; 16]) -> Self {
        Header {
            id,
            salt,
            major: MAJOR,
            minor: MINOR,
            must_understand: MUST_UNDERSTAND,
            may_ignore: 0,
            tool: Tool::this(),
        }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.major.to_le_bytes());
        out[10..12].copy_from_slice(&self.minor.to_le_bytes());
        out[12..16].copy_from_slice(&self.must_understand.to_le_bytes());
        out[16..20].copy_from_slice(&self.may_ignore.to_le_bytes());
        out[20..24].copy_from_slice(&LAYOUT);
        out[24..40].copy_from_slice(&self.id);
        out[40..56].copy_from_slice(&self.salt);
        out[56] = self.tool.major;
        out[57] = self.tool.minor;
        out[58..60].copy_from_slice(&self.tool.patch.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header and decides whether the file can be read.
    ///
    /// # Errors
    /// When the bytes are not a header, are damaged, or name a version that is not read.
    pub fn decode(bytes: &[u8]) -> Result<Self, crate::error::ReadError> {
        use crate::error::ReadError;
        let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else {
            let magic = bytes.len() >= 8 && bytes.starts_with(&MAGIC);
            return Err(ReadError::NotABundle(if magic {
                "the file ends inside its header"
            } else {
                "it does not begin with the magic number"
            }));
        };
        if !bytes.starts_with(&MAGIC) {
            let text = bytes[1..4] == MAGIC[1..4];
            return Err(ReadError::NotABundle(if text {
                "the magic number is damaged, as a transfer in text mode does"
            } else {
                "it does not begin with the magic number"
            }));
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if crc32c::crc32c(&bytes[..60]) != u32_at(60) {
            return Err(ReadError::NotABundle("its header is damaged (checksum mismatch)"));
        }
        let mut header = Header {
            id: [0; 16],
            salt: [0; 16],
            major: u16_at(8),
            minor: u16_at(10),
            must_understand: u32_at(12),
            may_ignore: u32_at(16),
            tool: Tool { major: bytes[56], minor: bytes[57], patch: u16_at(58) },
        };
        header.id.copy_from_slice(&bytes[24..40]);
        header.salt.copy_from_slice(&bytes[40..56]);
        let layout = [bytes[20], bytes[21], bytes[22], bytes[23]];
        readable(&header, layout)?;
        Ok(header)
    }
}

/// Whether a file with this header and this layout of its records can be read.
///
/// # Errors
/// Why it cannot.
pub fn readable(header: &Header, layout: [u8; 4]) -> Result<(), VersionError> {
    let Header { major, minor, tool, .. } = *header;
    match major {
        ..OLDEST => return Err(VersionError::TooOld { major, minor }),
        OLDEST..=MAJOR => {}
        _ => return Err(VersionError::TooNew { major, minor, tool }),
    }
    let flags = header.must_understand & !MUST_UNDERSTAND;
    if flags != 0 {
        return Err(VersionError::Features { major, minor, flags, tool });
    }
    if layout != LAYOUT {
        return Err(VersionError::Layout { layout, tool });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ReadError;

    #[test]
    fn a_header_survives_its_encoding() {
        let header = Header::new([7; 16], [9; 16]);
        assert_eq!(Header::decode(&header.encode()).unwrap(), header);
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        let of = |major, flags| {
            let header = Header { major, must_understand: flags, ..Header::new([0; 16], [0; 16]) };
            Header::decode(&header.encode()).unwrap_err()
        };
        assert!(matches!(of(MAJOR + 1, 0), ReadError::Version(VersionError::TooNew { .. })));
        assert!(matches!(of(OLDEST - 1, 0), ReadError::Version(VersionError::TooOld { .. })));
        assert!(matches!(of(MAJOR, 4), ReadError::Version(VersionError::Features { flags: 4, .. })));
        let future = Tool { major: 2, minor: 3, patch: 400 };
        let newer = Header { major: MAJOR + 1, tool: future, ..Header::new([0; 16], [0; 16]) };
        let said = |header: Header| Header::decode(&header.encode()).unwrap_err().to_string();
        assert!(said(newer).ends_with("use faultbox 2.3.400, which wrote it, or a later one"));
        let silent = Header { tool: Tool::default(), ..newer };
        assert!(said(silent).ends_with("use the faultbox that wrote it, or a later one"));
        assert!(of(OLDEST - 1, 0).to_string().ends_with("use a faultbox of before 0.1.0 to read it"));
        assert_eq!(Tool::this().to_string(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn a_newer_minor_version_is_read() {
        let newer = Header { minor: MINOR + 1, may_ignore: 8, ..Header::new([0; 16], [0; 16]) };
        assert_eq!(Header::decode(&newer.encode()).unwrap(), newer);
    }

    #[test]
    fn a_text_mode_transfer_is_recognised() {
        let mut bytes = Header::new([1; 16], [2; 16]).encode().to_vec();
        bytes.remove(4);
        bytes.push(0);
        assert!(Header::decode(&bytes).unwrap_err().to_string().contains("text mode"));
    }
}
