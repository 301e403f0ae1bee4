//! The header of a file and its footer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::fuzzing::ends(bytes));
