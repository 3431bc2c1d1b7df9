//! The users of `access`, in places where another part of a worker decides: other mounts, another
//! root directory, and threads that have ids of their own.

use super::access::{Somebody, series};
use crate::directed::{enter_root, mount, own_mounts};
use crate::probe::{Probe, Worker};
use crate::sys::Birth;

pub(super) fn run(p: &mut Probe, seed: u64, operations: u64) {
    p.group("access-mounts", |p| {
        let top = p.absolute(b"access-mounts");
        p.child("mounts", Birth::Fork, |p| {
            mounts(p);
            below(p, seed << 32 | 0xacce_5501, operations, &top);
        });
    });
    p.group("access-chroot", |p| {
        p.child("another root directory", Birth::Fork, |p| {
            enter_root(p, ".");
            below(p, seed << 32 | 0xacce_5502, operations, b"");
        });
    });
    p.group("access-threads", |p| {
        let top = p.absolute(b"access-threads");
        series(p, seed << 32 | 0xacce_5503, operations, |p, dice| {
            p.child("a process of root", Birth::Fork, |p| {
                let (dice, top) = (dice.clone(), top.clone());
                let worker = Worker::start();
                worker.does(p, "a thread", move |p| Somebody(p, dice, &top).go());
                worker.end();
                p.state();
            });
        });
    });
}

fn below(p: &mut Probe, seed: u64, operations: u64, top: &[u8]) {
    series(p, seed, operations, |p, dice| {
        p.child("somebody", Birth::Fork, |p| {
            Somebody(p, dice.clone(), top).go();
        });
    });
}

/// A tmpfs, a directory that is mounted in a second place, and one that is read-only there.
fn mounts(p: &mut Probe) {
    own_mounts(p);
    for directory in ["a", "a/a", "a/b", "b", "b/a", "b/a/a"] {
        p.mkdir(directory, 0o755);
    }
    mount(p, "tmpfs", "a/a", "tmpfs", 0, "mode=1777");
    mount(p, "a/b", "b/a/a", "", libc::MS_BIND, "");
    p.mkdir("a/a/a", 0o777);
    mount(p, "a/b", "a/a/a", "", libc::MS_BIND, "");
    let read_only = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
    mount(p, "", "a/a/a", "", read_only, "");
}
