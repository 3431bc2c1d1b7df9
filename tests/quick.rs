//! What whoever changes a handler wants to know within a minute, without root and without packages:
//! the probe under `subuidless run` prints what it printed as real root (tests/quick/root.txt).

#[allow(dead_code, reason = "this test builds one of them")]
#[path = "common/example.rs"]
mod example;
#[path = "common/lines.rs"]
mod lines;
#[path = "common/record.rs"]
mod record;

use std::process::Command;

/// A group that prints nothing would compare equal with a record of nothing.
#[test]
fn the_record_has_all_groups() {
    for group in record::GROUPS.split(',') {
        assert!(record::RECORD.contains(&format!("== {group}\n")), "{group}");
    }
}

#[test]
fn the_probe_prints_what_it_printed_as_root() {
    compare(&[]);
}

#[test]
fn the_probe_prints_what_it_printed_as_root_by_functions() {
    compare(&["--functions", "100"]);
}

fn compare(options: &[&str]) {
    let temporary = env!("CARGO_TARGET_TMPDIR");
    let place = tempfile::tempdir_in(temporary).expect(temporary);
    let [work, runtime] = ["work", "run"].map(|name| place.path().join(name));
    for directory in [&work, &runtime] {
        std::fs::create_dir(directory).expect("a new directory");
    }
    // The runtime directory is hers alone.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&runtime, mode).expect("chmod");
    let mut command = Command::new(env!("CARGO_BIN_EXE_subuidless"));
    command
        .args(["run", "--"])
        .arg(example::example("probe"))
        .arg("--dir")
        .arg(&work)
        .args(["--only", record::GROUPS])
        .args(options)
        .env("XDG_RUNTIME_DIR", &runtime)
        .env("XDG_STATE_HOME", place.path());
    let output = command.output().expect("subuidless run");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    let printed = record::normal(&output.stdout);
    let expected = match record::of_this_machine() {
        Some(path) => std::fs::read_to_string(path).expect("conformance.rs has written it"),
        None => record::RECORD.to_owned(),
    };
    lines::assert_same_lines(expected.as_bytes(), printed.as_bytes());
}
