//! Builds the shim (`shim/`): a static program for the containers, embedded in the engine.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let var = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return; // No service runs there.
    }
    let target = std::env::var("TARGET").unwrap_or_default();
    let out = PathBuf::from(var("OUT_DIR")).join("shim");
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-changed=build.rs");
    let mut rustc = Command::new(var("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-name", "faultbox_shim", "--crate-type", "bin", "shim/main.rs"]);
    rustc.args(["--target", &target, "-o"]).arg(&out);
    for option in [
        "target-feature=+crt-static",
        "opt-level=s",
        "panic=abort",
        "strip=symbols",
        "lto=fat",
        "codegen-units=1",
    ] {
        rustc.args(["-C", option]);
    }
    if let Some(linker) = std::env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    let status = rustc.status().unwrap_or_else(|error| panic!("the compiler does not run: {error}"));
    assert!(status.success(), "the shim cannot be built: {status} (a static C library is needed: libc6-dev)");
}
