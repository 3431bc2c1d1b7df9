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
    reason = "each test program uses a part of these; a failed test shows the daemon's log"
)]

mod bundle;
pub(crate) mod command;
mod daemon;
pub(crate) mod engine;
pub(crate) mod entries;
mod example;
pub(crate) mod file_system;
pub(crate) mod house;
mod lines;
mod manager;
mod outside;
mod packages;
mod pair;
mod peer;
mod place;
mod podman;
mod program;
pub(crate) mod real;
pub(crate) mod record;
mod rootfs;
mod run;
mod runtime;
mod started;
pub(crate) mod status;
mod terminal;
mod user;

pub(crate) use bundle::Bundle;
pub(crate) use daemon::{Daemon, guard_of, number_after};
pub(crate) use example::{example, static_example};
pub(crate) use lines::assert_same_lines;
pub(crate) use manager::Manager;
pub(crate) use outside::{LISTING, inside, owners, sh};
pub(crate) use packages::{Packages, free_port};
pub(crate) use pair::{Pair, as_root_and_below_run, oracle_twice};
pub(crate) use peer::{Peer, Target};
pub(crate) use place::{Place, has_listener, set_mode};
pub(crate) use podman::{Podman, SAID, small_image, with_each_runtime};
pub(crate) use program::{SHORT, STATIC_SHORT, compile, tool};
pub(crate) use rootfs::{DEBIAN, Owned, debian_owners, debian_tar, small_rootfs};
pub(crate) use run::{Ran, patience, run, run_with_input, until};
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
