//! One partition's log: a file of record batches as they were received, and an index in memory.
//!
//! Contract: an append is written with `write(2)` before it returns; a write that fails leaves the
//! log as it was before. Batches keep their bytes: only the base offset and the leader epoch, which
//! no checksum covers, are filled in. Opening reads the file and drops a batch that was cut off.
//! Not modelled: several segments, retention, compaction, fsync (brokers leave it to the kernel).

use crate::protocol::kafka::records::{self, Batch};
use bytes::{Bytes, BytesMut};
use faultbox_bundle_format::reader::read_at;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Where a batch lies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    base: i64,
    last: i64,
    at: u64,
    len: usize,
    max_timestamp: i64,
}

/// The last batches of an idempotent producer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Produced {
    producer: i64,
    epoch: i16,
    first_sequence: i32,
    last_sequence: i32,
    base: i64,
}

/// How many batches of a producer are remembered to recognise a repeated one, as brokers do.
const REMEMBERED: usize = 5;

/// Why an append was not made.
#[derive(Debug)]
pub enum Refused {
    /// The protocol's error code.
    Code(i16),
    /// The disk failed.
    Disk(io::Error),
}

/// A partition's log.
#[derive(Debug)]
pub struct Log {
    file: File,
    end: u64,
    places: Vec<Place>,
    produced: Vec<Produced>,
}

impl Log {
    /// Opens or makes a log.
    ///
    /// # Errors
    /// When the file cannot be opened, read or cut.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        let mut log = Log { file, end: 0, places: Vec::new(), produced: Vec::new() };
        let mut rest = Bytes::from(content);
        let total = rest.len() as u64;
        while let Ok(Some(batch)) = records::next_batch(&mut rest) {
            log.place(&batch, batch.base_offset);
        }
        if log.end < total {
            log.file.set_len(log.end)?;
        }
        Ok(log)
    }

    /// The next offset.
    pub fn next_offset(&self) -> i64 {
        self.places.last().map_or(0, |place| place.last + 1)
    }

    /// The highest number of a producer that wrote here.
    pub fn highest_producer(&self) -> i64 {
        self.produced.iter().map(|p| p.producer).max().unwrap_or(-1)
    }

    fn place(&mut self, batch: &Batch, base: i64) {
        let last = base + i64::from(batch.last_offset_delta);
        let at = self.end;
        self.places.push(Place { base, last, at, len: batch.len, max_timestamp: batch.max_timestamp });
        self.end += batch.len as u64;
        if batch.producer_id >= 0 {
            let last_sequence = next_sequence(batch.base_sequence, batch.count - 1);
            let (producer, epoch) = (batch.producer_id, batch.producer_epoch);
            self.produced.push(Produced {
                producer,
                epoch,
                first_sequence: batch.base_sequence,
                last_sequence,
                base,
            });
            let mine = self.produced.iter().filter(|p| p.producer == producer).count();
            if mine > REMEMBERED {
                let oldest = self.produced.iter().position(|p| p.producer == producer);
                oldest.map(|oldest| self.produced.remove(oldest));
            }
        }
    }

    /// The base offset of a batch that was appended before, or nothing for one that comes next.
    fn sequence(&self, batch: &Batch) -> Result<Option<i64>, Refused> {
        let mine = || self.produced.iter().filter(|p| p.producer == batch.producer_id);
        let Some(latest) = mine().next_back() else {
            // Whatever an unknown producer begins with: its earlier batches may be gone with a topic.
            return Ok(None);
        };
        if batch.producer_epoch < latest.epoch {
            return Err(Refused::Code(47)); // INVALID_PRODUCER_EPOCH
        }
        let last_sequence = next_sequence(batch.base_sequence, batch.count - 1);
        let same = |p: &&Produced| {
            p.epoch == batch.producer_epoch
                && p.first_sequence == batch.base_sequence
                && p.last_sequence == last_sequence
        };
        if let Some(before) = mine().find(same) {
            return Ok(Some(before.base));
        }
        let expected =
            if batch.producer_epoch > latest.epoch { 0 } else { next_sequence(latest.last_sequence, 1) };
        if batch.base_sequence == expected {
            return Ok(None);
        }
        Err(Refused::Code(45)) // OUT_OF_ORDER_SEQUENCE_NUMBER
    }

    /// Appends record batches as they were received; the first one's offset.
    ///
    /// # Errors
    /// The protocol's error, or the disk's.
    pub fn append(&mut self, received: &Bytes) -> Result<i64, Refused> {
        let mut rest = received.clone();
        let mut batches = Vec::new();
        loop {
            let front = rest.clone();
            match records::next_batch(&mut rest) {
                Ok(Some(batch)) if batch.count > 0 && batch.last_offset_delta == batch.count - 1 => {
                    batches.push((front.slice(..batch.len), batch));
                }
                Ok(None) if rest.is_empty() => break,
                Ok(_) | Err(_) => return Err(Refused::Code(2)), // CORRUPT_MESSAGE
            }
        }
        let Some((_, first)) = batches.first() else { return Err(Refused::Code(87)) }; // INVALID_RECORD
        if batches.iter().any(|(_, batch)| batch.attributes & 0x30 != 0) {
            return Err(Refused::Code(53)); // no transactions here
        }
        if first.producer_id >= 0
            && let Some(base) = self.sequence(first)?
        {
            return Ok(base);
        }
        let base = self.next_offset();
        let (mut next, mut bytes) = (base, BytesMut::with_capacity(received.len()));
        for (whole, batch) in &batches {
            let begin = bytes.len();
            bytes.extend_from_slice(whole);
            if let Some(front) = bytes.get_mut(begin..begin + 16) {
                front[..8].copy_from_slice(&next.to_be_bytes());
                front[12..].copy_from_slice(&0i32.to_be_bytes());
            }
            next += i64::from(batch.last_offset_delta) + 1;
        }
        if let Err(error) = self.file.write_all(&bytes) {
            // Whatever was written of it is no batch; where even this fails, opening drops it.
            let _ = self.file.set_len(self.end);
            return Err(Refused::Disk(error));
        }
        let mut next = base;
        for (_, batch) in &batches {
            self.place(batch, next);
            next += i64::from(batch.last_offset_delta) + 1;
        }
        Ok(base)
    }

    /// Whole batches from the one that holds an offset on, at least one and else at most `max` bytes.
    ///
    /// # Errors
    /// `None` where the offset is outside of the log, else the disk's error.
    pub fn read(&self, offset: i64, max: usize) -> Result<Bytes, Option<io::Error>> {
        if offset < 0 || offset > self.next_offset() {
            return Err(None);
        }
        let first = self.places.partition_point(|place| place.last < offset);
        let Some(begin) = self.places.get(first) else { return Ok(Bytes::new()) };
        let mut len = 0;
        for place in self.places.iter().skip(first) {
            if len > 0 && len + place.len > max {
                break;
            }
            len += place.len;
        }
        let mut bytes = vec![0; len];
        read_at(&self.file, &mut bytes, begin.at).map_err(Some)?;
        Ok(Bytes::from(bytes))
    }

    /// Timestamp and offset of the first record at or after a timestamp.
    pub fn at_timestamp(&self, timestamp: i64) -> Option<(i64, i64)> {
        let place = self.places.iter().find(|place| place.max_timestamp >= timestamp)?;
        let found = self.read(place.base, 1).ok().and_then(|bytes| records::decode_all(&bytes).ok());
        let record = found.unwrap_or_default().into_iter().find(|record| record.timestamp >= timestamp)?;
        Some((record.timestamp, record.offset))
    }
}

/// Sequence numbers go round after `i32::MAX`.
fn next_sequence(sequence: i32, by: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(by);
    i32::try_from(sum % (i64::from(i32::MAX) + 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::kafka::records::{Record, crc32c, encode};

    /// A batch of an idempotent producer.
    fn batch(producer: i64, epoch: i16, sequence: i32, count: i64) -> Bytes {
        let records: Vec<_> = (0..count)
            .map(|offset| Record { offset, timestamp: 100 + offset, ..Record::default() })
            .collect();
        let mut bytes = encode(&records).to_vec();
        bytes[43..51].copy_from_slice(&producer.to_be_bytes());
        bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
        bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(bytes)
    }

    fn code(appended: Result<i64, Refused>) -> i16 {
        match appended {
            Err(Refused::Code(code)) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sequences_of_producers_are_watched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = Log::open(&path).unwrap();
        assert_eq!(log.append(&batch(1, 0, 0, 2)).unwrap(), 0);
        assert_eq!(log.append(&batch(1, 0, 2, 1)).unwrap(), 2);
        assert_eq!(log.append(&batch(1, 0, 0, 2)).unwrap(), 0, "sent again");
        assert_eq!(code(log.append(&batch(1, 0, 4, 1))), 45);
        assert_eq!(log.append(&batch(2, 0, 0, 1)).unwrap(), 3);
        assert_eq!(log.append(&batch(1, 1, 0, 1)).unwrap(), 4);
        assert_eq!(code(log.append(&batch(1, 0, 3, 1))), 47);
        // All of it is known again after a restart.
        let mut log = Log::open(&path).unwrap();
        assert_eq!((log.next_offset(), log.highest_producer()), (5, 2));
        assert_eq!(log.append(&batch(2, 0, 0, 1)).unwrap(), 3, "sent again");
        assert_eq!(log.at_timestamp(101), Some((101, 1)));
        let read = records::decode_all(&log.read(3, 1).unwrap()).unwrap();
        assert_eq!(read[0].offset, 3);
        assert!(log.read(6, 1).is_err());
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(&folder.path().join("0.log")).unwrap();
        let mut broken = batch(-1, -1, -1, 1).to_vec();
        broken[60] ^= 1;
        assert_eq!(code(log.append(&Bytes::from(broken))), 2);
        assert_eq!(code(log.append(&batch(-1, -1, -1, 1).slice(..40))), 2);
        assert_eq!(code(log.append(&Bytes::new())), 87);
    }

    #[test]
    fn a_write_that_fails_leaves_the_log_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = Log::open(&path).unwrap();
        assert_eq!(log.append(&batch(-1, -1, -1, 1)).unwrap(), 0);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let good = std::mem::replace(&mut log.file, full);
        assert!(matches!(log.append(&batch(-1, -1, -1, 1)), Err(Refused::Disk(_))));
        log.file = good;
        assert_eq!(log.append(&batch(-1, -1, -1, 1)).unwrap(), 1);
        // Half a batch at the end of the file is dropped when it is opened again.
        let len = std::fs::metadata(&path).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 3).unwrap();
        let mut log = Log::open(&path).unwrap();
        assert_eq!(log.append(&batch(-1, -1, -1, 1)).unwrap(), 1);
        assert_eq!(records::decode_all(&log.read(0, 10_000).unwrap()).unwrap().len(), 2);
    }
}
