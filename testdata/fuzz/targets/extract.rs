//! Names and contents in a bundle: nothing is written outside the folder that it is laid out in, and
//! nothing is lost.
#![no_main]

use faultbox_bundle_format::{extract, fuzzing};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    extract::fuzz_one(bytes);
    // In memory, and one for each process; what the input before left is removed.
    let outer = std::path::PathBuf::from(format!("/dev/shm/faultbox-extract-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&outer);
    std::fs::create_dir_all(&outer).expect("memory can be written");
    fuzzing::extraction(bytes, &outer);
    let _ = std::fs::remove_dir_all(&outer);
});
