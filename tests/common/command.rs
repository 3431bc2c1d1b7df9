//! Commands of the host under `subuidless run`.

use std::fs;
use std::process::Command;

use super::place::Place;
use super::run::{Ran, run, until};

/// `subuidless run` with arguments.
pub(crate) fn launch(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.subuidless(["run"]);
    command.args(arguments);
    command
}

/// A shell script under `subuidless run`.
pub(crate) fn sh(place: &Place, script: &str) -> Ran {
    run(&mut launch(place, &["--", "sh", "-euc", script]))
}

/// Nothing of ours runs any more.
pub(crate) fn is_left_alone(place: &Place) {
    until("no process and no socket is left", || {
        let processes = place.processes();
        processes.is_empty().then_some(())
    });
    let left: Vec<_> = fs::read_dir(place.runtime_directory())
        .expect("the runtime directory")
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| !["subuidless-recent", "subuidless"].contains(&&*name.to_string_lossy()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let left = place.own_directory();
    assert!(left.is_empty(), "{left:?}");
}
