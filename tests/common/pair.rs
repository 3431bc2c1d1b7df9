//! [`Pair`]: the same container twice, for real and under subuidless.

use std::fs;
use std::path::Path;

use super::assert_same_lines;
use super::bundle::Bundle;
use super::daemon::Daemon;
use super::place::{Place, set_mode};
use super::run::run;
use super::runtime::Runtime;

/// With this set, a second oracle stands in for subuidless: shows that a script is right and prints
/// the same each time.
pub(crate) fn oracle_twice() -> bool {
    std::env::var_os("SUBUIDLESS_TEST_ORACLE_TWICE").is_some()
}

/// The kernel and subuidless, each with a root file system of its own.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) oracle: Bundle<'a>,
    pub(crate) ours: Bundle<'a>,
}

impl<'a> Pair<'a> {
    /// With busybox.
    pub(crate) fn small(place: &'a Place, daemon: &Daemon) -> Self {
        Self {
            oracle: Bundle::oracle(place),
            ours: if oracle_twice() {
                Bundle::oracle(place)
            } else {
                Bundle::new(place, daemon)
            },
        }
    }

    pub(crate) fn debian(place: &'a Place, daemon: &Daemon) -> Self {
        Self {
            oracle: Bundle::debian_oracle(place),
            ours: if oracle_twice() {
                Bundle::debian_oracle(place)
            } else {
                Bundle::debian(place, daemon)
            },
        }
    }

    /// With Debian, and an oracle that is real root of the machine.
    pub(crate) fn real(place: &'a Place, daemon: &Daemon) -> Self {
        Self {
            oracle: Bundle::debian_real(place),
            ours: if oracle_twice() {
                Bundle::debian_real(place)
            } else {
                Bundle::debian(place, daemon)
            },
        }
    }

    pub(crate) fn with(self, change: impl Fn(Bundle<'a>) -> Bundle<'a>) -> Self {
        Self {
            oracle: change(self.oracle),
            ours: change(self.ours),
        }
    }

    /// What both print; the tests look into it, so that two containers in which nothing works do
    /// not pass.
    #[track_caller]
    pub(crate) fn compare(&self, print: impl Fn(&Bundle) -> String) -> String {
        let expected = print(&self.oracle);
        assert_same_lines(expected.as_bytes(), print(&self.ours).as_bytes());
        expected
    }

    /// For another runtime.
    pub(crate) fn under(mut self, runtime: Runtime, daemon: &Daemon) -> Self {
        self.oracle.runtime = runtime;
        if oracle_twice() {
            self.ours.runtime = runtime;
        } else {
            self.ours = self.ours.under(runtime, daemon);
        }
        self
    }

    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.compare(|bundle| bundle.sh(script))
    }

    #[track_caller]
    pub(crate) fn bash(&self, script: &str) -> String {
        self.compare(|bundle| bundle.run(&["/bin/bash", "-euc", script]).ok())
    }
}

/// What a script of bash prints in a new directory, as real root and below `run`; `variable` is in
/// its environment.
#[track_caller]
pub(crate) fn as_root_and_below_run(
    place: &Place,
    script: &str,
    (name, value): (&str, &Path),
) -> [String; 2] {
    [("oracle", true), ("ours", false)].map(|(directory, is_real)| {
        let directory = place.path(directory);
        fs::create_dir(&directory).expect("a directory");
        set_mode(&directory, 0o755);
        let mut command = match is_real {
            true => place.as_root("bash"),
            false => {
                place.give_to_user(&directory);
                let mut command = place.subuidless(["run"]);
                command.args(["--", "bash"]);
                command
            }
        };
        command.args(["-euc", script]).env(name, value);
        run(command.current_dir(directory)).ok()
    })
}
