//! A whole file, as it is and with its checksums put right: it reads to a valid prefix or is one clear error.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::fuzzing::container(bytes));
