//! The start of a connection: greeting, the client's answer, the two usual ways to prove a
//! password.
//!
//! Contract: sans I/O. What the proxy cannot follow (TLS, compression, `LOCAL INFILE`,
//! MariaDB's own extensions) is taken out of the greeting, and every client then does
//! without.
//! Not modelled: authentication by plugins other than `mysql_native_password` and
//! `caching_sha2_password` on our own server side (the proxy passes any through).

use super::wire::{Decoded, Fields, malformed, put_lenenc_bytes};
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// Capability bits that matter here.
pub mod caps {
    #![expect(missing_docs, reason = "the names are MySQL's own")]
    pub const LONG_PASSWORD: u32 = 1;
    pub const FOUND_ROWS: u32 = 1 << 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const COMPRESS: u32 = 1 << 5;
    pub const LOCAL_FILES: u32 = 1 << 7;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const MULTI_STATEMENTS: u32 = 1 << 16;
    pub const MULTI_RESULTS: u32 = 1 << 17;
    pub const PS_MULTI_RESULTS: u32 = 1 << 18;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const CONNECT_ATTRS: u32 = 1 << 20;
    pub const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    pub const SESSION_TRACK: u32 = 1 << 23;
    pub const DEPRECATE_EOF: u32 = 1 << 24;
    pub const OPTIONAL_RESULTSET_METADATA: u32 = 1 << 25;
    pub const ZSTD: u32 = 1 << 26;
    pub const QUERY_ATTRIBUTES: u32 = 1 << 27;
    /// What the proxy takes out of a greeting.
    pub const STRIPPED: u32 = SSL | COMPRESS | ZSTD | LOCAL_FILES | OPTIONAL_RESULTSET_METADATA;
    /// What our own server side offers.
    pub const OFFERED: u32 = LONG_PASSWORD
        | FOUND_ROWS
        | LONG_FLAG
        | CONNECT_WITH_DB
        | PROTOCOL_41
        | TRANSACTIONS
        | SECURE_CONNECTION
        | MULTI_STATEMENTS
        | MULTI_RESULTS
        | PS_MULTI_RESULTS
        | PLUGIN_AUTH
        | CONNECT_ATTRS
        | PLUGIN_AUTH_LENENC
        | SESSION_TRACK
        | DEPRECATE_EOF
        | QUERY_ATTRIBUTES;
}

/// The older plugin.
pub const NATIVE: &str = "mysql_native_password";
/// MySQL 8's default plugin.
pub const CACHING_SHA2: &str = "caching_sha2_password";
/// utf8mb4_0900_ai_ci.
pub const UTF8MB4: u8 = 255;

/// The server's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// `8.0.32`, say.
    pub version: String,
    /// The connection's number on the server.
    pub thread: u32,
    /// Twenty bytes of salt.
    pub salt: Vec<u8>,
    /// What the server can do.
    pub capabilities: u32,
    /// Default collation.
    pub charset: u8,
    /// Status flags.
    pub status: u16,
    /// Default plugin.
    pub plugin: String,
}

impl Greeting {
    /// Reads a greeting (protocol version 10).
    ///
    /// # Errors
    /// When the payload is something else.
    pub fn decode(payload: &[u8]) -> Decoded<Greeting> {
        let mut fields = Fields::new(payload);
        if fields.u8()? != 10 {
            return malformed("greeting: not protocol 10");
        }
        let version = fields.zero_ended_text();
        let thread = fields.int(4)? as u32;
        let mut salt = fields.bytes(8)?.to_vec();
        fields.u8()?;
        let low = fields.int(2)? as u32;
        let mut greeting = Greeting {
            version,
            thread,
            salt: Vec::new(),
            capabilities: low,
            charset: 0,
            status: 0,
            plugin: String::new(),
        };
        if !fields.is_empty() {
            greeting.charset = fields.u8()?;
            greeting.status = fields.int(2)? as u16;
            greeting.capabilities |= (fields.int(2)? as u32) << 16;
            let len = usize::from(fields.u8()?);
            fields.bytes(10)?;
            let second = fields.bytes(len.saturating_sub(8).max(13))?;
            salt.extend_from_slice(second.split_last().map_or(&[][..], |(_, head)| head));
            greeting.plugin = fields.zero_ended_text();
        }
        greeting.salt = salt;
        Ok(greeting)
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![10];
        out.extend_from_slice(self.version.as_bytes());
        out.push(0);
        out.extend_from_slice(&self.thread.to_le_bytes());
        let (first, second) = self.salt.split_at(self.salt.len().min(8));
        out.extend_from_slice(first);
        out.push(0);
        let capabilities = self.capabilities.to_le_bytes();
        out.extend_from_slice(&capabilities[..2]);
        out.push(self.charset);
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&capabilities[2..]);
        out.push(self.salt.len() as u8 + 1);
        out.extend_from_slice(&[0; 10]);
        out.extend_from_slice(second);
        out.push(0);
        out.extend_from_slice(self.plugin.as_bytes());
        out.push(0);
        out
    }
}

/// Takes out of a greeting's frame what the proxy cannot follow, in place; no length changes.
/// Returns the capabilities that are left.
///
/// # Errors
/// When the payload is no greeting.
pub fn strip(frame: &mut [u8]) -> Decoded<u32> {
    let greeting = Greeting::decode(frame.get(4..).unwrap_or_default())?;
    let left = greeting.capabilities & !caps::STRIPPED;
    // version byte, version text and its zero, thread, 8 bytes of salt, filler
    let low = 4 + 1 + greeting.version.len() + 1 + 4 + 8 + 1;
    let bytes = left.to_le_bytes();
    if let Some(at) = frame.get_mut(low..low + 2) {
        at.copy_from_slice(&bytes[..2]);
    }
    if let Some(at) = frame.get_mut(low + 5..low + 7) {
        at.copy_from_slice(&bytes[2..]);
    }
    // MariaDB says by the first bit that the last four reserved bytes are its own extensions.
    if greeting.capabilities & caps::LONG_PASSWORD == 0
        && let Some(at) = frame.get_mut(low + 14..low + 18)
    {
        at.fill(0);
    }
    Ok(left)
}

/// The client's answer to the greeting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// What both can do.
    pub capabilities: u32,
    /// Collation.
    pub charset: u8,
    /// Who it is.
    pub user: String,
    /// Proof of the password for `plugin`.
    pub proof: Vec<u8>,
    /// The database to begin with.
    pub database: Option<String>,
    /// Its plugin.
    pub plugin: String,
}

impl Login {
    /// Reads a `HandshakeResponse41`.
    ///
    /// # Errors
    /// When it is older, asks for TLS, or is cut short.
    pub fn decode(payload: &[u8]) -> Decoded<Login> {
        let mut fields = Fields::new(payload);
        let capabilities = fields.int(4)? as u32;
        if capabilities & caps::PROTOCOL_41 == 0 {
            return malformed("login: older than protocol 4.1");
        }
        fields.int(4)?;
        let charset = fields.u8()?;
        fields.bytes(23)?;
        if fields.is_empty() {
            return malformed("login: it asks for TLS");
        }
        let user = fields.zero_ended_text();
        let proof = if capabilities & caps::PLUGIN_AUTH_LENENC != 0 {
            fields.lenenc_bytes()?.to_vec()
        } else if capabilities & caps::SECURE_CONNECTION != 0 {
            let len = usize::from(fields.u8()?);
            fields.bytes(len)?.to_vec()
        } else {
            fields.zero_ended().to_vec()
        };
        let database = (capabilities & caps::CONNECT_WITH_DB != 0 && !fields.is_empty())
            .then(|| fields.zero_ended_text())
            .filter(|name| !name.is_empty());
        let plugin =
            if capabilities & caps::PLUGIN_AUTH != 0 { fields.zero_ended_text() } else { NATIVE.into() };
        Ok(Login { capabilities, charset, user, proof, database, plugin })
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.capabilities.to_le_bytes());
        out.extend_from_slice(&(1u32 << 24).to_le_bytes());
        out.push(self.charset);
        out.extend_from_slice(&[0; 23]);
        out.extend_from_slice(self.user.as_bytes());
        out.push(0);
        if self.capabilities & caps::PLUGIN_AUTH_LENENC != 0 {
            put_lenenc_bytes(&mut out, &self.proof);
        } else {
            out.push(self.proof.len() as u8);
            out.extend_from_slice(&self.proof);
        }
        if let Some(database) = &self.database {
            out.extend_from_slice(database.as_bytes());
            out.push(0);
        }
        if self.capabilities & caps::PLUGIN_AUTH != 0 {
            out.extend_from_slice(self.plugin.as_bytes());
            out.push(0);
        }
        out
    }

    /// Reads the body of `COM_CHANGE_USER`.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode_change_user(payload: &[u8], capabilities: u32) -> Decoded<Login> {
        let mut fields = Fields::new(payload);
        let user = fields.zero_ended_text();
        let len = usize::from(fields.u8()?);
        let proof = fields.bytes(len)?.to_vec();
        let database = Some(fields.zero_ended_text()).filter(|name| !name.is_empty());
        let charset = if fields.is_empty() { UTF8MB4 } else { fields.int(2)? as u8 };
        let plugin = if fields.is_empty() { NATIVE.into() } else { fields.zero_ended_text() };
        Ok(Login { capabilities, charset, user, proof, database, plugin })
    }
}

/// The message that asks for another plugin.
pub fn auth_switch(plugin: &str, salt: &[u8]) -> Vec<u8> {
    let mut out = vec![0xfe];
    out.extend_from_slice(plugin.as_bytes());
    out.push(0);
    out.extend_from_slice(salt);
    out.push(0);
    out
}

/// What proves the password to a plugin; empty for an empty password.
pub fn proof(plugin: &str, password: &[u8], salt: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    if plugin == NATIVE {
        let once = Sha1::digest(password);
        let twice = Sha1::digest(once);
        let mask = Sha1::new().chain_update(salt).chain_update(twice).finalize();
        return xor(&once, &mask);
    }
    let once = Sha256::digest(password);
    let twice = Sha256::digest(once);
    let mask = Sha256::new().chain_update(twice).chain_update(salt).finalize();
    xor(&once, &mask)
}

/// The password and a zero byte, masked by the salt: what `caching_sha2_password` encrypts.
pub fn masked(password: &[u8], salt: &[u8]) -> Vec<u8> {
    let zero_ended = password.iter().copied().chain([0]);
    zero_ended.zip(salt.iter().cycle()).map(|(a, b)| a ^ b).collect()
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}
