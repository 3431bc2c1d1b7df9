//! Builds this crate once more, as the shared library that is preloaded; its bytes are
//! `subuidless_fast::LIBRARY`.
//!
//! One call of rustc, without cargo: the library needs nothing but `core`, and must not unwind
//! whatever the profile says. So it is the same in every profile, and the same file serves glibc
//! and musl.

use std::env;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Architectures with a file of raw system calls in `src/library/raw`.
const KNOWN: [&str; 2] = ["x86_64", "aarch64"];

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn build(library: &Path, linker_option: Option<&str>) -> io::Result<ExitStatus> {
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--crate-name", "subuidless_fast", "--edition", "2024"]);
    rustc.args(["--crate-type", "cdylib", "--cfg", "fast_library"]);
    rustc.args(["--target", &variable("TARGET")]);
    for option in [
        "panic=abort",
        "opt-level=3",
        "codegen-units=1",
        "debuginfo=0",
        "strip=symbols",
        "overflow-checks=off",
        // Threads are cancelled in functions of libc that ours have called: pthread_cancel(3) unwinds
        // the stack.
        "force-unwind-tables=yes",
        // A target whose programs are static by default makes no shared libraries otherwise.
        "target-feature=-crt-static",
        "link-arg=-nostartfiles",
        "link-arg=-nostdlib",
    ] {
        rustc.args(["-C", option]);
    }
    if variable("CARGO_CFG_TARGET_ARCH") == "aarch64" {
        // Otherwise atomic operations are functions that ask the C library for the processor's kind.
        rustc.args(["-C", "target-feature=-outline-atomics"]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    let linker_options = [
        // Its own functions are its own, whatever else has their names.
        "-Bsymbolic",
        // Both loaders know it.
        "--hash-style=gnu",
        // Resolved when it is loaded: a resolver called later would need more stack than a signal
        // handler may have.
        "-znow",
        // Nothing is protected again afterwards, and nothing is kept apart.
        "-znorelro",
        "-znoseparate-code",
        "-znoexecstack",
        "--build-id=none",
    ];
    for option in linker_options.into_iter().chain(linker_option) {
        rustc.args(["-C", &format!("link-arg=-Wl,{option}")]);
    }
    rustc.arg("-o").arg(library).arg("src/lib.rs").status()
}

fn main() {
    build_library();
    let library = std::fs::read(library()).expect("the library, which may be empty");
    let mut hasher = DefaultHasher::new();
    hasher.write(&library);
    println!("cargo::rustc-env=LIBRARY_HASH={:016x}", hasher.finish());
}

fn library() -> PathBuf {
    PathBuf::from(variable("OUT_DIR")).join("subuidless-fast.so")
}

fn build_library() {
    println!("cargo::rustc-check-cfg=cfg(fast_library)");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let library = library();
    // For other targets the library is empty, and the program says that it has none.
    std::fs::write(&library, []).expect("writing an empty library");
    let is_known = KNOWN.contains(&variable("CARGO_CFG_TARGET_ARCH").as_str())
        && variable("CARGO_CFG_TARGET_POINTER_WIDTH") == "64"
        && variable("CARGO_CFG_TARGET_OS") == "linux";
    if !is_known {
        return;
    }
    // Less to map for each program that is executed: one segment for what is read and executed. Not
    // every linker knows the option.
    let is_built = [Some("--no-rosegment"), None]
        .into_iter()
        .any(|option| build(&library, option).is_ok_and(|status| status.success()));
    // The program works without it: a toolchain that makes no shared libraries is not an error.
    if !is_built {
        std::fs::write(&library, []).expect("writing an empty library");
        println!("cargo::warning=cannot build the library of the fast path: there will be none");
    }
}
