//! The index of a file that is whole otherwise: no index leads astray, and no wrong one verifies.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::fuzzing::index(bytes));
