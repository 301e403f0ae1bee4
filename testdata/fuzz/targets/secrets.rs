//! Text and bytes with secrets in them: none is left.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::fuzzing::secrets(bytes));
