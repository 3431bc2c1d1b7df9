//! Programs that tests run: the machine's tools, and what they compile.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::place::Place;
use super::run::run;

pub(crate) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A compiler of dynamic 32-bit programs, which this machine's kernel executes. Those for ARM find
/// the C library that comes with the cross compiler.
pub(crate) const SHORT: &[&str] = match cfg!(target_arch = "aarch64") {
    true => &[
        "arm-linux-gnueabihf-gcc",
        "-Wl,--dynamic-linker=/usr/arm-linux-gnueabihf/lib/ld-linux-armhf.so.3",
        "-Wl,-rpath,/usr/arm-linux-gnueabihf/lib",
    ],
    false => &["gcc", "-m32"],
};
/// The same of static ones.
pub(crate) const STATIC_SHORT: &[&str] = match cfg!(target_arch = "aarch64") {
    true => &["arm-linux-gnueabihf-gcc", "-static"],
    false => &["gcc", "-m32", "-static"],
};

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
