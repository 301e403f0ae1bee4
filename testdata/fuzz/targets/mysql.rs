//! The MySQL decoder: no input may make it panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_engine::protocol::mysql::fuzz_one(bytes));
