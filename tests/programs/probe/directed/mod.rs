//! Difficult cases, written by hand. One file per subject; each group works in a directory of its
//! own, and can be skipped by name.

mod binding;
mod capabilities;
mod creation;
mod credentials;
mod descriptors;
mod exec;
mod ipc;
mod limits;
mod making;
mod messages;
mod mounting;
mod mounts;
mod opening;
mod others;
mod owners;
mod paths;
mod peers;
mod permissions;
mod processes;
mod procfs;
mod programs;
mod securebits;
mod terminals;
mod threads;

pub(crate) use mounts::{mount, own_mounts};
pub(crate) use owners::IDS;
pub(crate) use paths::padded;
pub(crate) use processes::enter_root;

use crate::probe::Probe;

pub(crate) fn run(p: &mut Probe) {
    owners::run(p);
    paths::run(p);
    descriptors::run(p);
    processes::run(p);
    mounts::run(p);
    mounting::run(p);
    credentials::run(p);
    capabilities::run(p);
    securebits::run(p);
    threads::run(p);
    exec::run(p);
    programs::run(p);
    creation::run(p);
    making::run(p);
    opening::run(p);
    binding::run(p);
    permissions::run(p);
    peers::run(p);
    limits::run(p);
    terminals::run(p);
    ipc::run(p);
    messages::run(p);
    others::run(p);
    procfs::run(p);
}
