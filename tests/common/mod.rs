//! What all tests stand on: an unprivileged user, a directory of its own for each test, the daemon,
//! bundles, runtimes.
//!
//! Tests run as root, because the kernel with all ids mapped is what the product is compared with.
//! Everything that a test starts carries the name of its [`Place`] in its environment, and
//! [`Place`]'s drop ends what is left of it.

#![allow(
    dead_code,
    unused_imports,
    clippy::print_stderr,
    reason = "each test program is a crate of its own and uses a part of these; a failed test shows the daemon's log"
)]

mod bundle;
mod daemon;
mod manager;
mod outside;
mod packages;
mod pair;
mod peer;
mod place;
mod podman;
mod program;
mod rootfs;
mod run;
mod runtime;
mod started;
mod terminal;
mod user;

pub(crate) use bundle::Bundle;
pub(crate) use daemon::{Daemon, guard_of, number_after};
pub(crate) use manager::Manager;
pub(crate) use outside::{LISTING, inside, owners, sh};
pub(crate) use packages::{Packages, free_port};
pub(crate) use pair::{Pair, oracle_twice};
pub(crate) use peer::{Peer, Target};
pub(crate) use place::{Place, has_listener, set_mode};
pub(crate) use podman::{Podman, SAID, small_image};
pub(crate) use program::{compile, example, tool};
pub(crate) use rootfs::{DEBIAN, Owned, debian_owners, debian_tar, small_rootfs};
pub(crate) use run::{Ran, run, run_with_input, until};
pub(crate) use runtime::{Running, Runtime};
pub(crate) use started::Started;
pub(crate) use terminal::Terminal;
pub(crate) use user::{User, lock};

/// How often something is done at random: so often that it fits into CI, and the number that the
/// promise is about where SUBUIDLESS_TEST_MANY is set.
pub(crate) fn many(usual: u32, all: u32) -> u32 {
    match std::env::var_os("SUBUIDLESS_TEST_MANY") {
        Some(_) => all,
        None => usual,
    }
}

/// Compares two outputs and shows where they part.
#[track_caller]
pub(crate) fn assert_same_lines(oracle: &[u8], ours: &[u8]) {
    const SHOWN: usize = 20;
    let lines = |bytes: &[u8]| -> Vec<String> {
        bytes
            .split(|byte| *byte == b'\n')
            .map(|line| line.escape_ascii().to_string())
            .collect()
    };
    let (oracle, ours) = (lines(oracle), lines(ours));
    assert!(oracle.len() > 1, "the oracle printed nothing");
    let Some(first) = (0..oracle.len().max(ours.len())).find(|n| oracle.get(*n) != ours.get(*n))
    else {
        return;
    };
    let differing = oracle.iter().zip(&ours).filter(|(a, b)| a != b).count();
    let mut report = String::new();
    for line in &oracle[first.saturating_sub(3)..first.min(oracle.len())] {
        report += &format!("        {line}\n");
    }
    for n in first..first + SHOWN {
        match (oracle.get(n), ours.get(n)) {
            (Some(a), Some(b)) if a == b => report += &format!("        {a}\n"),
            (a, b) => {
                for (who, line) in [("oracle", a), ("ours  ", b)] {
                    report += &format!("{who}  {}\n", line.map_or("(end)", String::as_str));
                }
            }
        }
    }
    panic!(
        "{differing} lines differ ({} and {} in all), the first is line {}:\n{report}",
        oracle.len(),
        ours.len(),
        first + 1
    );
}
