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

/// `command` where /dev/net/tun is there, or is not. The host's may be closed to the user: this one
/// is the test's own, and nobody else sees it.
pub(crate) fn with_tun(place: &Place, is_there: bool, command: &Command) -> Command {
    let device = place.path("tun");
    let script = format!(
        "set -e; if {is_there}; then rm -f {device}; mknod -m 666 {device} c 10 200; \
         mkdir -p /dev/net; touch /dev/net/tun 2>/dev/null || :; mount --bind {device} /dev/net/tun; \
         else mount --bind /dev/null /dev/net/tun; fi; exec \"$@\"",
        device = device.display()
    );
    let mut outer = place.as_root("unshare");
    outer.args(["-m", "--", "sh", "-c", &script, "--"]);
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            outer.env(name, value);
        }
    }
    outer
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
