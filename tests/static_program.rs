//! What `make static` builds: one file, which needs nothing beside it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Bundle, Owned, Place, assert_same_lines, record, run, static_example, tool};
use serde_json::json;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
/// 6 MB.
const LARGEST: u64 = 6_000_000;

fn built() -> PathBuf {
    // target/tmp
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut make = Command::new(tool("make"));
    make.args(["static", "-C", REPOSITORY])
        .arg(format!("CARGO_TARGET_DIR={}", target.display()));
    run(&mut make).ok();
    let host = std::env::consts::ARCH;
    target.join(format!(
        "static/{host}-unknown-linux-gnu/release/subuidless"
    ))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn one_small_file_without_paths_of_its_builder_works_where_there_is_nothing_else() {
    let program = built();
    let bytes = fs::read(&program).unwrap();
    assert!(fs::metadata(&program).unwrap().len() < LARGEST);
    let headers = run(Command::new(tool("readelf"))
        .args(["--dynamic", "--program-headers"])
        .arg(&program))
    .ok();
    assert!(!headers.contains("NEEDED") && !headers.contains("INTERP"));
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME"));
    for path in [REPOSITORY, &home.unwrap()] {
        // Not "/root", which is a word like others.
        let directory = format!("{path}/");
        assert!(!contains(&bytes, &format!("{directory}src")), "{path}");
        assert!(!contains(&bytes, &format!("{directory}registry")), "{path}");
        assert!(!contains(&bytes, &format!("{directory}.cargo")), "{path}");
    }

    let place = Place::new();
    let bundle = Bundle::empty(&place, Owned::ByUser)
        .with_program(&program)
        .with_program(&static_example("probe"))
        .with_config(|config| {
            config["root"]["readonly"] = true.into();
            for (directory, mode) in [("/tmp", "1777"), ("/work", "755")] {
                config["mounts"].as_array_mut().unwrap().push(json!({
                    "destination": directory,
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": [format!("mode={mode}")],
                }));
            }
        });
    let words = ["/subuidless", "run", "--", "/probe", "--dir", "/work"];
    let only = ["--only", record::GROUPS];
    let printed = bundle.run(&[&words[..], &only[..]].concat()).bytes();
    assert_same_lines(
        record::RECORD.as_bytes(),
        record::normal(&printed).as_bytes(),
    );
}
