//! The entries of a chunk, of every kind: what reads survives its encoding, and redaction is done once and for all.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::fuzzing::chunk(bytes));
