//! Generates the three upstream clients from the committed descriptors: no `protoc` is needed.

use prost::Message;
use prost_types::FileDescriptorSet;

const DESCRIPTORS: &str = "../../specs/orders/proto/all_upstreams.pb";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={DESCRIPTORS}");
    println!("cargo::rerun-if-changed=build.rs");
    let set = FileDescriptorSet::decode(std::fs::read(DESCRIPTORS)?.as_slice())?;
    tonic_prost_build::configure().build_server(false).compile_fds(set)?;
    Ok(())
}
