//! Programs of tests/programs.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

/// The program of tests/programs of that name, up to date: `cargo test --test ...` does not build
/// it by itself.
pub(crate) fn example(name: &str) -> PathBuf {
    build(name, false)
}

/// The same without a dynamic loader.
pub(crate) fn static_example(name: &str) -> PathBuf {
    build(name, true)
}

fn build(name: &str, is_static: bool) -> PathBuf {
    static BUILT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    // target/PROFILE/deps/TEST-HASH
    let this = std::env::current_exe().expect("the path of this test");
    let profile = this
        .ancestors()
        .nth(2)
        .expect("a test lies in target/PROFILE/deps");
    let target = profile
        .parent()
        .expect("PROFILE lies in the target directory");
    let profile_name = profile.file_name().expect("a profile has a name");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    // cargo gives RUSTFLAGS to build scripts, too, unless a target is named.
    let (target, path) = match is_static {
        true => (target.join("static"), triple.as_str()),
        false => (target.to_owned(), ""),
    };
    let path = target.join(path).join(profile_name).join(name);
    let mut built = BUILT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if !built.contains(&path) {
        if let Some(cargo) = std::env::var_os("CARGO") {
            let mut command = Command::new(cargo);
            command
                .args(["build", "--quiet", "-p", "subuidless-test-programs"])
                .args(["--bin", name, "--target-dir"])
                .arg(&target)
                .current_dir(env!("CARGO_MANIFEST_DIR"));
            if is_static {
                command.args(["--target", &triple]);
                command.env("RUSTFLAGS", "-C target-feature=+crt-static");
            }
            if profile_name == "release" {
                command.arg("--release");
            }
            let status = command.status().expect("cargo");
            assert!(status.success(), "building {name}: {status}");
        }
        built.push(path.clone());
    }
    assert!(
        path.is_file(),
        "{} is missing: `cargo build --workspace` makes it",
        path.display()
    );
    path
}
