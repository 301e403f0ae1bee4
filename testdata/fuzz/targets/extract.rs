//! Names in a bundle: none may lead out of the folder that it is laid out in.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::extract::fuzz_one(bytes));
