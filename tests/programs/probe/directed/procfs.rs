//! Files of procfs and sysfs that belong to the host's root.
//!
//! Their owners are set to nothing but what they are: the oracle could change those of the machine.

use super::peers::{PEOPLE, owner_of};
use crate::print;
use crate::probe::*;
use crate::sys::{Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("procfs", procfs);
}

const FILES: [&str; 13] = [
    "/proc",
    "/proc/",
    "/proc/version",
    "/proc/self",
    "/proc/thread-self",
    "/proc/sys",
    "/proc/sys/kernel/ostype",
    "/proc/irq",
    "/sys",
    "/sys/kernel",
    "/sys/class/mem/null",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/proc/missing",
];

fn procfs(p: &mut Probe) {
    for (who, prepare) in PEOPLE {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            for file in FILES {
                owner_of(p, file, file);
                keep(p, file);
            }
            below(p);
        });
    }
}

/// Sets owner and mode to what they are, and tries a mode that the file does not have.
fn keep(p: &mut Probe, file: &str) {
    let path = || Arg::Path(file.into(), Place::Heap);
    for (uid, gid) in [(0, 0), (KEEP, 0), (0, KEEP), (KEEP, KEEP)] {
        p.call(calls::CHOWN, &[path(), Arg::Id(uid), Arg::Id(gid)]);
    }
    let old = Arg::Words(vec![1, 0, 0, 0, 1, 0, 0, 0], Place::Heap);
    // The directory of a process follows rules of its own.
    let times = [Arg::Path(Vec::new(), Place::Null), old];
    for times in times.into_iter().filter(|_| !file.ends_with("self")) {
        p.call(
            calls::UTIMENSAT,
            &[Arg::Fd(CWD), path(), times, Arg::Number(0)],
        );
    }
    let buffer = Arg::Stat(Place::Heap);
    let answer = p.quiet(calls::STAT, &[path(), buffer.clone()]);
    if answer.result.is_ok() && answer.stat().st_uid == 0 {
        let mode = answer.stat().st_mode & 0o7777;
        p.chmod(file, mode);
        p.open(file, libc::O_RDONLY | libc::O_NONBLOCK, 0, Some(200));
        p.call(calls::FCHMOD, &[Arg::Fd(200), Arg::Octal(mode)]);
        p.call(calls::FCHOWN, &[Arg::Fd(200), Arg::Id(0), Arg::Id(0)]);
        let answer = p.quiet(calls::FSTAT, &[Arg::Fd(200), buffer]);
        let shown = match answer.result {
            Ok(_) => format!("{}:{}", answer.stat().st_uid, answer.stat().st_gid),
            Err(errno) => print::errno(errno),
        };
        p.say(&format!("  fstat: {shown}"));
        p.quiet(calls::CLOSE, &[Arg::Fd(200)]);
    }
}

/// The same files, seen from their directories.
fn below(p: &mut Probe) {
    for (directory, files) in [("/proc", ["sys", "version"]), ("/sys", ["class", "kernel"])] {
        p.chdir(directory);
        for file in files {
            owner_of(p, file, file);
        }
        owner_of(p, ".", ".");
    }
}
