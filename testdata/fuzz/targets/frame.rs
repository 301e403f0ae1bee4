//! The frame decoder: no input may make it panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::frame::fuzz_one(bytes));
