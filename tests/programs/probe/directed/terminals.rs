//! Whose a new terminal is: devpts, ioctl_tty(2).

use super::mounts::{mount, own_mounts};
use super::peers::PEOPLE;
use crate::print;
use crate::probe::*;
use crate::sys::{Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("terminals", terminals);
}

const TIOCGPTN: i64 = 0x8004_5430;
const TIOCSPTLCK: i64 = 0x4004_5431;
const MASTER: i32 = 200;

fn ioctl(p: &mut Probe, fd: i32, request: i64, word: u32) -> Result<u32, i32> {
    let args = [
        Arg::Fd(fd),
        Arg::Number(request),
        Arg::Words(vec![word], Place::Heap),
    ];
    let answer = p.quiet(calls::IOCTL, &args);
    answer.result.map(|_| answer.words(2)[0])
}

/// Opens a terminal in the devpts `directory`, whose path is returned. Numbers of terminals are
/// given out again when the kernel finds the time: they are not printed.
fn open(p: &mut Probe, directory: &str) -> String {
    p.open(
        &format!("{directory}/ptmx"),
        libc::O_RDWR | libc::O_NOCTTY,
        0,
        Some(MASTER),
    );
    match ioctl(p, MASTER, TIOCGPTN, 0) {
        Ok(number) => format!("{directory}/{number}"),
        Err(errno) => {
            p.say(&format!("TIOCGPTN: {}", print::errno(errno)));
            "none".to_owned()
        }
    }
}

fn unlock(p: &mut Probe) {
    let unlocked = ioctl(p, MASTER, TIOCSPTLCK, 0).map_err(print::errno);
    p.say(&format!("TIOCSPTLCK: {unlocked:?}"));
}

fn look(p: &mut Probe, when: &str, terminal: &str) {
    let buffer = Arg::Stat(Place::Heap);
    let path = Arg::Path(terminal.into(), Place::Heap);
    let [by_path, itself] = [calls::STAT, calls::LSTAT].map(|call| {
        let answer = p.quiet(call, &[path.clone(), buffer.clone()]);
        match answer.result {
            Ok(_) => {
                let stat = answer.stat();
                format!("{:o} {}:{}", stat.st_mode, stat.st_uid, stat.st_gid)
            }
            Err(errno) => print::errno(errno),
        }
    });
    p.say(&format!("{when}: {by_path}, {itself}"));
}

/// Changes the terminal as its owner would, or not.
fn change(p: &mut Probe, terminal: &str) {
    let path = || Arg::Path(terminal.into(), Place::Heap);
    let mut try_to = |what: &str, call, args: &[Arg]| {
        let result = p.quiet(call, args).result.map_err(print::errno);
        p.say(&format!("{what}: {result:?}"));
        look(p, "  then", terminal);
    };
    let mode = |mode| [Arg::Fd(CWD), path(), Arg::Octal(mode)];
    try_to("chmod", calls::FCHMODAT, &mode(0o600));
    try_to("chmod back", calls::FCHMODAT, &mode(0o620));
    let ids = |uid, gid| [path(), Arg::Id(uid), Arg::Id(gid)];
    try_to("chgrp 5", calls::CHOWN, &ids(KEEP, 5));
    try_to("chgrp 50", calls::CHOWN, &ids(KEEP, 50));
    try_to("chown 999", calls::CHOWN, &ids(999, KEEP));
    try_to("chown 0", calls::CHOWN, &ids(0, KEEP));
}

fn of_everybody(p: &mut Probe, directory: &str) {
    for (who, prepare) in PEOPLE {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            let terminal = open(p, directory);
            look(p, "locked", &terminal);
            unlock(p);
            look(p, "unlocked", &terminal);
            p.child("somebody else unlocks it, too", Birth::Fork, |p| {
                p.somebody(&[], [3; 3], [4; 3]);
                unlock(p);
                look(p, "again", &terminal);
                change(p, &terminal);
            });
            change(p, &terminal);
            p.close(MASTER);
        });
    }
    p.child("somebody who gives up root afterwards", Birth::Fork, |p| {
        let terminal = open(p, directory);
        p.somebody(&[5], [50; 3], [999; 3]);
        unlock(p);
        look(p, "unlocked", &terminal);
        change(p, &terminal);
    });
    // Of the same number, after all of these.
    let terminal = open(p, directory);
    unlock(p);
    look(p, "root's", &terminal);
    p.close(MASTER);
}

fn terminals(p: &mut Probe) {
    of_everybody(p, "/dev/pts");
    for options in [
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
        "newinstance,ptmxmode=0666,mode=0600,uid=1000",
        "newinstance,ptmxmode=0666,gid=0",
        "newinstance,ptmxmode=0666,uid=7,gid=70000",
    ] {
        p.mkdir("pts", 0o755);
        p.child("a devpts of its own", Birth::Fork, |p| {
            own_mounts(p);
            let directory = String::from_utf8(p.absolute(b"terminals/pts")).expect("a name");
            mount(p, "none", &directory, "devpts", 0, options);
            look(p, "the directory", &directory);
            of_everybody(p, &directory);
        });
    }
    // What is no terminal.
    p.open("/dev/null", libc::O_RDWR, 0, Some(MASTER));
    unlock(p);
    p.close(MASTER);
    unlock(p);
}
