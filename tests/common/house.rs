//! [`House`]: containers of `subuidless run --rootfs`, without a daemon.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::Pid;
use serde_json::Value;

use super::place::Place;
use super::rootfs::small_rootfs;
use super::run::{Ran, run, until};

/// A place with a root file system of busybox.
pub(crate) struct House {
    pub(crate) rootfs: PathBuf,
    pub(crate) place: Place,
}

impl House {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        Self {
            rootfs: small_rootfs(&place),
            place,
        }
    }

    /// `subuidless run --rootfs` with options and a command; what it starts is known by its
    /// environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.subuidless(["run", "--rootfs"]);
        command
            .arg(&self.rootfs)
            .args(["--env", "SUBUIDLESS_TEST_PLACE"]);
        command.args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    pub(crate) fn sh(&self, options: &[&str], script: &str) -> String {
        self.run(&[options, &["--", "sh", "-euc", script]].concat())
            .ok()
    }

    /// `subuidless` with other arguments.
    pub(crate) fn other(&self, arguments: &[&str]) -> Ran {
        run(&mut self.place.subuidless(arguments))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let text = self.other(&["ps", "--json"]).ok();
        let rows: Vec<Value> = serde_json::from_str(&text).expect("a JSON list");
        rows.iter()
            .map(|row| row["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// The first process of a container.
    pub(crate) fn init(&self, name: &str) -> Pid {
        until("the container runs", || {
            let text = self.other(&["ps", "--json"]).ok();
            let rows: Vec<Value> = serde_json::from_str(&text).expect("a JSON list");
            let row = rows.into_iter().find(|row| row["name"] == name)?;
            row["pid"]
                .as_i64()
                .map(|pid| Pid::from_raw(i32::try_from(pid).expect("a pid")))
        })
    }

    pub(crate) fn is_left_alone(&self) {
        until("no process is left", || {
            self.place.processes().is_empty().then_some(())
        });
        let kinds = self.place.own_directory();
        assert!(!kinds.is_empty());
        let left: Vec<_> = kinds
            .iter()
            // What containers have printed that have ended.
            .filter(|kind| !kind.ends_with("logs"))
            .flat_map(|kind| fs::read_dir(kind).expect("a directory for each kind"))
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// The terminals' shells are there as long as the terminals.
    pub(crate) fn is_left_alone_but_for_shells(&self) {
        until("only shells are left", || {
            let processes = self.place.processes();
            let others = processes.iter().filter(|(_, command)| {
                !command.starts_with(b"bash\0") && !command.contains(&b'-')
                    || command.starts_with(b"subuidless")
            });
            (others.count() == 0).then_some(())
        });
    }
}
