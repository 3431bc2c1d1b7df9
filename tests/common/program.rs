//! Programs that tests run: the machine's tools, and those of tests/programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::place::Place;
use super::run::run;

pub(crate) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An installed program.
#[track_caller]
pub(crate) fn tool(name: &str) -> PathBuf {
    SEARCH_PATH
        .split(':')
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: `scripts/test` installs what the tests need"))
}

/// The program that `compiler` makes of a source below `tests`, in the place as `name`.
pub(crate) fn compile(place: &Place, compiler: &[&str], name: &str, source: &str) -> PathBuf {
    let program = place.path(name);
    let mut command = Command::new(tool(compiler[0]));
    command.args(&compiler[1..]).arg("-o").arg(&program);
    command.arg(format!("{}/tests/{source}", env!("CARGO_MANIFEST_DIR")));
    command
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", place.path("go"));
    run(&mut command).ok();
    program
}

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
