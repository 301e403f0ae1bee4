//! The result of a cell.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faultbox_bundle_format::fuzzing::cell_end(bytes));
