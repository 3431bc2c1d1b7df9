//! The credentials of a program after execve(2): all kinds of files and callers.

use std::os::unix::ffi::OsStringExt;

use crate::probe::*;
use crate::sys::{Birth, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("exec", exec);
}

/// Owner, group and mode of the program.
const FILES: [(u32, u32, u32); 21] = [
    (0, 0, 0o755),
    (999, 998, 0o755),
    (0, 0, 0o4755),
    (0, 0, 0o2755),
    (0, 0, 0o6755),
    (999, 998, 0o4755),
    (999, 998, 0o2755),
    (999, 998, 0o6755),
    (999, 0, 0o6755),
    (0, 998, 0o6755),
    (70000, 70001, 0o6755),
    (0xffff_fffe, 0xffff_fffe, 0o6755),
    (1000, 1000, 0o6755),
    // S_ISGID without S_IXGRP does not mean set-group-ID.
    (999, 998, 0o2745),
    (999, 998, 0o2644),
    (999, 998, 0o4644),
    (999, 998, 0o4711),
    (0, 0, 0o6111),
    (999, 998, 0o6700),
    (999, 998, 0o6710),
    (999, 998, 0o4701),
];

pub(super) type Caller = (&'static str, fn(&mut Probe));

fn inherit_and_raise(p: &mut Probe) {
    let own = p.own_capabilities();
    p.capset(Sets {
        inheritable: CAP_KILL | CAP_SETUID,
        ..own
    });
    p.prctl(PR_SET_KEEPCAPS, &[1]);
    p.somebody(&[], [1000; 3], [1000; 3]);
    p.prctl(PR_CAP_AMBIENT, &[AMBIENT_RAISE, 5]);
}

pub(super) const CALLERS: [Caller; 18] = [
    ("root", |_| ()),
    ("a user", |p| p.somebody(&[], [1000; 3], [1000; 3])),
    ("one of the group", |p| {
        p.somebody(&[5, 998], [1000; 3], [1000; 3]);
    }),
    ("the owner", |p| p.somebody(&[], [998; 3], [999; 3])),
    ("one whose ids differ", |p| {
        p.somebody(&[7], [31, 32, 33], [21, 22, 23]);
    }),
    ("a program of root's, for a user", |p| {
        p.somebody(&[], [1000, 0, 0], [1000, 0, 0]);
    }),
    ("root as somebody else for a while", |p| {
        p.somebody(&[], [0, 1000, 0], [0, 1000, 0]);
    }),
    ("root on files only", |p| {
        p.somebody(&[], [1000, 1000, 1000], [1000, 1000, 0]);
    }),
    ("another on files", |p| {
        p.quietly_set(calls::SETFSGID, &[1000]);
        p.quietly_set(calls::SETFSUID, &[1000]);
    }),
    ("a user without new privileges", |p| {
        p.somebody(&[], [1000; 3], [1000; 3]);
        p.prctl(PR_SET_NO_NEW_PRIVS, &[1, 0, 0, 0]);
    }),
    ("ids that differ, without new privileges", |p| {
        p.somebody(&[7], [31, 32, 33], [21, 22, 23]);
        p.prctl(PR_SET_NO_NEW_PRIVS, &[1, 0, 0, 0]);
    }),
    ("root with bits for its capabilities", |p| {
        p.prctl(PR_SET_KEEPCAPS, &[1]);
        p.capset(Sets {
            effective: CAP_KILL,
            permitted: CAP_KILL | CAP_SETUID,
            inheritable: CAP_KILL,
        });
    }),
    ("a user with kept capabilities", |p| {
        p.prctl(PR_SET_KEEPCAPS, &[1]);
        p.somebody(&[], [1000; 3], [1000; 3]);
        let own = p.own_capabilities();
        p.capset(Sets {
            effective: own.permitted,
            inheritable: CAP_KILL,
            ..own
        });
    }),
    ("a user with ambient capabilities", inherit_and_raise),
    ("root that is nobody special", |p| {
        // NOROOT
        p.prctl(PR_SET_SECUREBITS, &[1]);
    }),
    ("root without capabilities and new privileges", |p| {
        p.capset(Sets::default());
        p.prctl(PR_SET_NO_NEW_PRIVS, &[1, 0, 0, 0]);
    }),
    ("real root without capabilities and new privileges", |p| {
        p.somebody(&[], [0, 1000, 1000], [0, 1000, 1000]);
        p.capset(Sets::default());
        p.prctl(PR_SET_NO_NEW_PRIVS, &[1, 0, 0, 0]);
    }),
    ("a user with other rules", |p| {
        // NO_SETUID_FIXUP
        p.prctl(PR_SET_SECUREBITS, &[4]);
        p.somebody(&[], [1000; 3], [1000; 3]);
    }),
];

/// Copies the probe to `name`, so that its owner and mode can be changed.
pub(super) fn install(p: &mut Probe, name: &str) {
    let from = p.program();
    let from = std::path::PathBuf::from(std::ffi::OsString::from_vec(from));
    if let Err(error) = std::fs::copy(from, name) {
        p.say(&format!("no copy of the probe: {error}"));
    }
}

pub(super) fn give(p: &mut Probe, name: &str, (uid, gid, mode): (u32, u32, u32)) {
    p.chown(name, uid, gid);
    p.chmod(name, mode);
    p.stat(name);
}

fn exec(p: &mut Probe) {
    install(p, "program");
    for file in FILES {
        give(p, "program", file);
        for ((who, prepare), birth) in CALLERS
            .into_iter()
            .zip([Birth::Fork, Birth::Vfork].into_iter().cycle())
        {
            p.child(who, birth, |p| {
                prepare(p);
                p.state();
                p.execve("program");
            });
        }
    }
    p.chmod("program", 0o755);
    p.state();
}
