//! Finds the object of the kernel programs that the agent embeds.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=ROUTER_EBPF_OBJECT");
    let object = env::var_os("ROUTER_EBPF_OBJECT").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../target/bpf/router.o"
            ))
        },
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    if object.is_file() {
        println!("cargo::rustc-env=ROUTER_EBPF_OBJECT={}", object.display());
    } else {
        println!(
            "cargo::error=no kernel programs at {}: run `cargo xtask build-ebpf` first",
            object.display()
        );
    }
}
