//! The scan for generated values: no input may make it panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::generated::fuzz_one(bytes));
