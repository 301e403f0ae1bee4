//! The bundle reader: no input may make it panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::reader::fuzz_one(bytes));
