//! Record batches (format 2): to records and back.
//!
//! Contract: checks lengths and the checksum, bounds what it allocates by the bytes at hand, never
//! panics. Encoding recomputes every length and the checksum.
//! Not modelled: message sets of formats 0 and 1 (before Kafka 0.11); a compressed batch of more
//! than [`COMPRESSED_MAX`] is not looked into.

use super::codec::CodecError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::compression::{Decompressor, Gzip, Lz4, Snappy, Zstd};

/// Largest compressed batch that is unpacked.
pub const COMPRESSED_MAX: usize = 16 << 20;
/// Bytes of a batch before its records.
pub const BATCH_HEADER: usize = 61;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Position in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order; a name may come twice.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// The front of a batch and its packed records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Offset of the first record.
    pub base_offset: i64,
    /// All bytes of it.
    pub len: usize,
    /// Compression, kind of timestamp, transactional, control.
    pub attributes: i16,
    /// Offset of the last record less that of the first.
    pub last_offset_delta: i32,
    /// Timestamp of the first record.
    pub base_timestamp: i64,
    /// Highest timestamp.
    pub max_timestamp: i64,
    /// The idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Its number for the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub count: i32,
    packed: Bytes,
}

impl Batch {
    /// Whether it holds marks of transactions instead of records.
    pub fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// The compression's name.
    pub fn compression(&self) -> &'static str {
        match self.attributes & 7 {
            0 => "none",
            1 => "gzip",
            2 => "snappy",
            3 => "lz4",
            4 => "zstd",
            _ => "unknown",
        }
    }

    /// Its records.
    ///
    /// # Errors
    /// When they cannot be unpacked.
    pub fn records(&self) -> Result<Vec<Record>, CodecError> {
        let mut packed = self.unpack()?;
        let mut records = Vec::new();
        for _ in 0..self.count {
            let len = positive(varint(&mut packed)?, packed.len())?;
            let mut one = packed.split_to(len);
            records.push(self.record(&mut one)?);
        }
        Ok(records)
    }

    fn unpack(&self) -> Result<Bytes, CodecError> {
        let mut packed = self.packed.clone();
        if self.attributes & 7 == 0 {
            return Ok(packed);
        }
        if packed.len() > COMPRESSED_MAX {
            return Err(CodecError(format!("a compressed batch of {} bytes", packed.len())));
        }
        let unpacked = match self.attributes & 7 {
            1 => Gzip::decompress(&mut packed, |b| Ok(b.copy_to_bytes(b.remaining()))),
            2 => Snappy::decompress(&mut packed, |b| Ok(b.copy_to_bytes(b.remaining()))),
            3 => Lz4::decompress(&mut packed, |b| Ok(b.copy_to_bytes(b.remaining()))),
            4 => Zstd::decompress(&mut packed, |b| Ok(b.copy_to_bytes(b.remaining()))),
            other => return Err(CodecError(format!("compression {other} is not known"))),
        };
        unpacked.map_err(|error| CodecError(format!("{error:#}")))
    }

    fn record(&self, bytes: &mut Bytes) -> Result<Record, CodecError> {
        need(bytes, 1)?;
        bytes.advance(1);
        let timestamp = self.base_timestamp.wrapping_add(varint(bytes)?);
        let offset = self.base_offset.wrapping_add(varint(bytes)?);
        // "Log append" batches have one timestamp for all.
        let timestamp = if self.attributes & 8 != 0 { self.max_timestamp } else { timestamp };
        let (key, value) = (field(bytes)?, field(bytes)?);
        let mut headers = Vec::new();
        for _ in 0..positive(varint(bytes)?, bytes.len())? {
            let name = field(bytes)?.ok_or_else(|| CodecError("a header without a name".into()))?;
            headers.push((name, field(bytes)?));
        }
        Ok(Record { offset, timestamp, key, value, headers })
    }
}

/// The next batch of a record set; `None` where the bytes end inside it (fetches may cut one off).
///
/// # Errors
/// When the bytes are no batch of format 2 or its checksum is wrong.
pub fn next_batch(bytes: &mut Bytes) -> Result<Option<Batch>, CodecError> {
    if bytes.len() < 17 {
        return Ok(None);
    }
    let mut front = bytes.clone();
    let (base_offset, len) = (front.get_i64(), front.get_i32());
    let magic = bytes.get(16).copied().unwrap_or_default();
    if magic != 2 {
        return Err(CodecError(format!("records of format {magic}")));
    }
    let len = usize::try_from(len).map_err(|_| CodecError(format!("a batch of {len} bytes")))? + 12;
    if len < BATCH_HEADER {
        return Err(CodecError(format!("a batch of {len} bytes")));
    }
    if bytes.len() < len {
        return Ok(None);
    }
    let whole = bytes.split_to(len);
    let mut rest = whole.slice(17..);
    let crc = rest.get_u32();
    if crc != crc32c(&rest) {
        return Err(CodecError("the checksum of a batch is wrong".into()));
    }
    let batch = Batch {
        base_offset,
        len,
        attributes: rest.get_i16(),
        last_offset_delta: rest.get_i32(),
        base_timestamp: rest.get_i64(),
        max_timestamp: rest.get_i64(),
        producer_id: rest.get_i64(),
        producer_epoch: rest.get_i16(),
        base_sequence: rest.get_i32(),
        count: rest.get_i32(),
        packed: rest,
    };
    if batch.count < 0 || batch.last_offset_delta < 0 {
        return Err(CodecError("a batch with a negative count".into()));
    }
    Ok(Some(batch))
}

/// All whole batches of a record set.
///
/// # Errors
/// As [`next_batch`].
pub fn batches(bytes: &Bytes) -> Result<Vec<Batch>, CodecError> {
    let mut rest = bytes.clone();
    let mut all = Vec::new();
    while let Some(batch) = next_batch(&mut rest)? {
        all.push(batch);
    }
    Ok(all)
}

/// All records of a record set, without marks of transactions.
///
/// # Errors
/// As [`next_batch`] and [`Batch::records`].
pub fn decode_all(bytes: &Bytes) -> Result<Vec<Record>, CodecError> {
    let mut records = Vec::new();
    for batch in batches(bytes)?.iter().filter(|batch| !batch.is_control()) {
        records.append(&mut batch.records()?);
    }
    Ok(records)
}

/// One uncompressed batch of records in ascending order of offsets. Empty for none.
pub fn encode(records: &[Record]) -> Bytes {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return Bytes::new() };
    let base_timestamp = first.timestamp;
    let mut packed = BytesMut::new();
    for record in records {
        let mut one = BytesMut::new();
        one.put_u8(0);
        put_varint(&mut one, record.timestamp.wrapping_sub(base_timestamp));
        put_varint(&mut one, record.offset.wrapping_sub(first.offset));
        put_field(&mut one, record.key.as_ref());
        put_field(&mut one, record.value.as_ref());
        put_varint(&mut one, record.headers.len() as i64);
        for (name, value) in &record.headers {
            put_field(&mut one, Some(name));
            put_field(&mut one, value.as_ref());
        }
        put_varint(&mut packed, one.len() as i64);
        packed.put_slice(&one);
    }
    let mut body = BytesMut::new();
    body.put_i16(0);
    body.put_i32(i32::try_from(last.offset.wrapping_sub(first.offset)).unwrap_or(i32::MAX));
    body.put_i64(base_timestamp);
    body.put_i64(records.iter().map(|r| r.timestamp).max().unwrap_or(base_timestamp));
    body.put_i64(-1);
    body.put_i16(-1);
    body.put_i32(-1);
    body.put_i32(i32::try_from(records.len()).unwrap_or(i32::MAX));
    body.put_slice(&packed);
    let mut out = BytesMut::with_capacity(body.len() + 21);
    out.put_i64(first.offset);
    out.put_i32(i32::try_from(body.len() + 9).unwrap_or(i32::MAX));
    out.put_i32(0);
    out.put_u8(2);
    out.put_u32(crc32c(&body));
    out.put_slice(&body);
    out.freeze()
}

fn need(bytes: &Bytes, len: usize) -> Result<(), CodecError> {
    if bytes.len() < len { Err(CodecError("records end early".into())) } else { Ok(()) }
}

fn positive(len: i64, most: usize) -> Result<usize, CodecError> {
    let fits = usize::try_from(len).ok().filter(|len| *len <= most);
    fits.ok_or_else(|| CodecError(format!("a length of {len} in {most} bytes of records")))
}

fn varint(bytes: &mut Bytes) -> Result<i64, CodecError> {
    let mut raw = 0u64;
    for shift in (0..70).step_by(7) {
        need(bytes, 1)?;
        let byte = bytes.get_u8();
        raw |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    Err(CodecError("a number of more than ten bytes in records".into()))
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut raw = (value << 1 ^ value >> 63) as u64;
    while raw >= 0x80 {
        out.put_u8(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.put_u8(raw as u8);
}

fn field(bytes: &mut Bytes) -> Result<Option<Bytes>, CodecError> {
    match varint(bytes)? {
        -1 => Ok(None),
        len => {
            let len = positive(len, bytes.len())?;
            Ok(Some(bytes.split_to(len)))
        }
    }
}

fn put_field(out: &mut BytesMut, field: Option<&Bytes>) {
    match field {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
    }
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// CRC-32C (Castagnoli).
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| CRC_TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ crc >> 8)
}
