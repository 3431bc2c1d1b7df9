//! Inodes that cannot carry an attribute, and the side store that has their owners.

use std::path::PathBuf;

use super::bundle::Bundle;
use super::place::Place;
use super::run::{Ran, run};

/// Functions for scripts of busybox: `make PREFIX COUNT` and `look`.
pub(crate) const MAKE: &str = include_str!("make.sh");

pub(crate) fn sh(bundle: &Bundle, script: &str) -> String {
    bundle.sh(&format!("{MAKE}{script}"))
}

/// `subuidless owners gc` and its words.
pub(crate) fn sweep(place: &Place, words: &[&str]) -> Ran {
    let mut command = place.subuidless(["owners", "gc"]);
    run(command.args(words))
}

/// Where the lasting part is, unless `--store` says otherwise.
pub(crate) fn store_of(place: &Place) -> PathBuf {
    place.path("home/.local/state/subuidless")
}
