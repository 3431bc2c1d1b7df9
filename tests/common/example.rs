//! Programs of tests/programs.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

/// The program of tests/programs of that name, up to date: `cargo test --test ...` does not build
/// it by itself.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    // target/PROFILE/deps/TEST-HASH
    let this = std::env::current_exe().expect("the path of this test");
    let profile = this
        .ancestors()
        .nth(2)
        .expect("a test lies in target/PROFILE/deps");
    let path = profile.join(name);
    let mut built = BUILT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if !built.iter().any(|known| known == name) {
        if let Some(cargo) = std::env::var_os("CARGO") {
            let mut command = Command::new(cargo);
            command
                .args(["build", "--quiet", "-p", "subuidless-test-programs"])
                .args(["--bin", name, "--target-dir"])
                .arg(
                    profile
                        .parent()
                        .expect("PROFILE lies in the target directory"),
                )
                .current_dir(env!("CARGO_MANIFEST_DIR"));
            if profile.ends_with("release") {
                command.arg("--release");
            }
            let status = command.status().expect("cargo");
            assert!(status.success(), "building {name}: {status}");
        }
        built.push(name.to_owned());
    }
    assert!(
        path.is_file(),
        "{} is missing: `cargo build --workspace` makes it",
        path.display()
    );
    path
}
