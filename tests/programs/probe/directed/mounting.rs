//! File systems whose options name an owner: mount(2), and fsopen(2) and its family.

use super::mounts::{mount, own_mounts};
use crate::probe::{CWD, Probe};
use crate::sys::{Arg, Birth, Place, Syscall, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("mount-owners", owners);
    p.group("mount-api", by_descriptors);
}

/// The options that name the owner of a file system, each for one that has it.
const OWNERS: [(&str, &[(&str, &str)]); 4] = [
    (
        "tmpfs",
        &[("uid", "33"), ("gid", "70000"), ("mode", "2750")],
    ),
    ("tmpfs", &[("gid", "5"), ("uid", "0")]),
    (
        "devpts",
        &[
            ("newinstance", ""),
            ("ptmxmode", "0666"),
            ("mode", "0620"),
            ("gid", "5"),
        ],
    ),
    ("devpts", &[("uid", "7"), ("gid", "70000")]),
];

fn owners(p: &mut Probe) {
    p.mkdir("m", 0o755);
    p.symlink(b"m", "link");
    for (kind, options) in OWNERS {
        let text: Vec<String> = options
            .iter()
            .map(|(key, value)| format!("{key}={value}").trim_end_matches('=').to_owned())
            .collect();
        let text = text.join(",");
        for flags in [0, libc::MS_RDONLY, libc::MS_NOSUID | libc::MS_NOEXEC] {
            p.child(kind, Birth::Fork, |p| {
                own_mounts(p);
                // As runc mounts.
                p.open("m", libc::O_PATH | libc::O_CLOEXEC, 0, Some(200));
                mount(p, kind, "/proc/self/fd/200", kind, flags, &text);
                used(p, "m");
                mount(p, kind, "link", kind, flags, &text);
                used(p, "link/");
                for options in ["gid=0", "uid=9,gid=10", "bogus=1,gid=9"] {
                    mount(p, "", "m", "", flags | libc::MS_REMOUNT, options);
                    used(p, "m");
                }
                mount(p, "", "m/..", "", flags | libc::MS_REMOUNT, "uid=9");
                mount(p, "", "m", "", libc::MS_REMOUNT | libc::MS_RDONLY, "gid=9");
                used(p, "m");
            });
        }
    }
    p.list(b".");
}

/// A directory that something was mounted on.
fn used(p: &mut Probe, directory: &str) {
    p.stat(directory);
    p.create(format!("{directory}/f").as_bytes(), 0o644, 0);
    p.stat(format!("{directory}/f").as_str());
    p.stat(format!("{directory}/ptmx").as_str());
}

/// fsopen(2) and its family, step by step.
fn by_descriptors(p: &mut Probe) {
    p.mkdir("m", 0o755);
    for (kind, options) in OWNERS {
        for attributes in [0, 1, 0xe] {
            p.child(kind, Birth::Fork, |p| {
                own_mounts(p);
                context(p, kind, 200);
                context(p, kind, 201);
                for (key, value) in options {
                    configure(p, 200, key, value);
                }
                configure(p, 200, "gid", "x");
                configure(p, 9999, "gid", "8");
                make(p, 200);
                configure(p, 200, "gid", "9");
                attach(p, 200, attributes);
                used(p, "m");
                make(p, 201);
                attach(p, 201, attributes);
                used(p, "m");
            });
        }
    }
    p.child("somebody", Birth::Fork, |p| {
        own_mounts(p);
        context(p, "tmpfs", 200);
        p.somebody(&[], [999; 3], [999; 3]);
        configure(p, 200, "uid", "7");
        make(p, 200);
        attach(p, 200, 0);
    });
    p.list(b".");
}

fn kept(p: &mut Probe, syscall: Syscall, args: &[Arg], number: i32) {
    let result = p.quiet(syscall, args).result;
    p.say(&format!("{} = {:?}", syscall.name, result.map(|_| ())));
    if let Ok(made) = result {
        p.keep(i32::try_from(made).expect("a descriptor"), number);
    }
}

fn context(p: &mut Probe, kind: &str, number: i32) {
    let args = [Arg::Text(kind.into()), Arg::Number(1)];
    kept(p, calls::FSOPEN, &args, number);
}

fn configure(p: &mut Probe, context: i32, key: &str, value: &str) {
    const FSCONFIG_SET_FLAG: i64 = 0;
    const FSCONFIG_SET_STRING: i64 = 1;
    let (command, value) = match value {
        "" => (FSCONFIG_SET_FLAG, Arg::Path(Vec::new(), Place::Null)),
        value => (FSCONFIG_SET_STRING, Arg::Text(value.into())),
    };
    let key = Arg::Text(key.into());
    let args = [
        Arg::Fd(context),
        Arg::Number(command),
        key,
        value,
        Arg::Number(0),
    ];
    p.call(calls::FSCONFIG, &args);
}

fn make(p: &mut Probe, context: i32) {
    const FSCONFIG_CMD_CREATE: i64 = 6;
    let null = || Arg::Path(Vec::new(), Place::Null);
    let command = Arg::Number(FSCONFIG_CMD_CREATE);
    let args = [Arg::Fd(context), command, null(), null(), Arg::Number(0)];
    p.call(calls::FSCONFIG, &args);
}

/// Mounts it on `m`, with MOUNT_ATTR_* `attributes`.
fn attach(p: &mut Probe, context: i32, attributes: i64) {
    const MOUNT: i32 = 205;
    const MOVE_MOUNT_F_EMPTY_PATH: i64 = 4;
    let args = [Arg::Fd(context), Arg::Number(1), Arg::Number(attributes)];
    kept(p, calls::FSMOUNT, &args, MOUNT);
    let path = |path: &str| Arg::Text(path.into());
    let flags = Arg::Number(MOVE_MOUNT_F_EMPTY_PATH);
    let args = [Arg::Fd(MOUNT), path(""), Arg::Fd(CWD), path("m"), flags];
    p.call(calls::MOVE_MOUNT, &args);
    p.close(MOUNT);
}
