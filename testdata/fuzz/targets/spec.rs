//! The front end of the spec language: no text may make it panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_engine::spec::fuzz_one(bytes));
