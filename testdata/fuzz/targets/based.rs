//! Chunks that are compressed with the contents of earlier ones: what was written reads back, in any order.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::fuzzing::based(bytes));
