//! An encoded value: it survives its encoding, and redaction is done once and for all.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::fuzzing::value(bytes));
