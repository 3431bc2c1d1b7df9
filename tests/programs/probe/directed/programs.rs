//! The programs to which set-user-ID bits apply, however they are named, and the state that an
//! execve(2) that fails leaves unchanged.

use super::exec::{CALLERS, give, install};
use super::mounts::{mount, own_mounts};
use crate::probe::*;
use crate::sys::{Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("exec-ways", ways);
    p.group("exec-scripts", scripts);
    p.group("exec-fails", fails);
    p.group("exec-mounts", mounts);
    p.group("exec-filecaps", file_capabilities);
}

/// The result does not depend on how the file is named.
fn ways(p: &mut Probe) {
    install(p, "program");
    give(p, "program", (999, 998, 0o6755));
    p.mkdir("d", 0o755);
    p.symlink(b"program", "link");
    p.symlink(b"../program", "d/link");
    p.symlink(b"link", "twice");
    p.link("program", "d/hard", 0);
    p.lchown("link", 1, 1);
    let absolute = p.absolute(b"exec-ways/program");
    p.open("program", libc::O_RDONLY, 0, Some(200));
    p.open("program", libc::O_PATH, 0, Some(201));
    p.open("d", libc::O_PATH, 0, Some(202));
    p.open("link", libc::O_PATH | libc::O_NOFOLLOW, 0, Some(203));
    let as_user = |p: &mut Probe, work: &dyn Fn(&mut Probe)| {
        for birth in [Birth::Fork, Birth::Vfork] {
            p.child("a user", birth, |p| {
                p.somebody(&[4], [1000; 3], [1000; 3]);
                work(p);
            });
        }
    };
    let paths: [&[u8]; 14] = [
        b"program",
        b"./program",
        b"d/../program",
        b"link",
        b"twice",
        b"d/link",
        b"d/hard",
        &absolute,
        b"/proc/self/cwd/program",
        b"/proc/self/fd/200",
        b"/dev/fd/201",
        b"/proc/thread-self/fd/202/hard",
        b"program/",
        b"/proc/self/root/probe",
    ];
    for path in paths {
        as_user(p, &|p| p.execve(path));
    }
    as_user(p, &|p| p.execve(Path(b"program".to_vec(), Place::PageEnd)));
    let (empty, nofollow) = (EMPTY, NOFOLLOW);
    let cases: [(i32, &[u8], u32); 22] = [
        (200, b"", empty),
        (201, b"", empty),
        (200, b"", 0),
        (202, b"hard", 0),
        (202, b"link", 0),
        (202, b"../program", 0),
        (202, b"link", nofollow),
        (202, b"hard", nofollow),
        (202, b"", empty),
        (203, b"", empty),
        (203, b"", empty | nofollow),
        (200, b"program", 0),
        (200, &absolute, 0),
        (-1, &absolute, 0),
        (-1, b"program", 0),
        (CWD, b"program", 0),
        (CWD, b"link", nofollow),
        (CWD, b"", empty),
        (CWD, b"program", 0x200),
        (CWD, b"program", 0x8000),
        (CWD, b"program", 0x10000),
        (200, b"", empty | 0x10000),
    ];
    for (fd, path, flags) in cases {
        as_user(p, &|p| p.execveat(fd, path, flags));
    }
    as_user(p, &|p| {
        p.chdir("d");
        p.execve("hard");
    });
    // Deleted, but open.
    p.unlink("d/hard");
    p.unlink("program");
    for fd in [200, 201] {
        as_user(p, &|p| p.execveat(fd, "", EMPTY));
        let path = format!("/proc/self/fd/{fd}");
        as_user(p, &|p| p.execve(&path));
    }
}

fn write_program(p: &mut Probe, name: &str, text: &[u8], file: (u32, u32, u32)) {
    p.create(name.as_bytes(), 0o600, 0);
    if let Err(error) = std::fs::write(name, text) {
        p.say(&format!("no text in {name}: {error}"));
    }
    give(p, name, file);
}

/// The bits of a script have no effect, those of its interpreter have.
fn scripts(p: &mut Probe) {
    install(p, "program");
    install(p, "set");
    give(p, "program", (0, 0, 0o755));
    give(p, "set", (999, 998, 0o6755));
    let home = p.absolute(b"exec-scripts/");
    let line = |interpreter: &str| {
        let show = String::from_utf8_lossy(SHOW).into_owned();
        [
            b"#!".as_slice(),
            &home,
            format!("{interpreter} {show}\n").as_bytes(),
        ]
        .concat()
    };
    write_program(p, "plain", &line("program"), (0, 0, 0o755));
    write_program(p, "bits", &line("program"), (999, 998, 0o6755));
    write_program(p, "of-set", &line("set"), (0, 0, 0o755));
    write_program(p, "both", &line("set"), (70000, 70001, 0o6755));
    write_program(p, "script-of-script", &line("bits"), (5, 5, 0o6755));
    write_program(p, "script-of-both", &line("both"), (5, 5, 0o6755));
    write_program(p, "to-missing", &line("missing"), (5, 5, 0o6755));
    write_program(p, "to-text", &line("text"), (5, 5, 0o6755));
    write_program(p, "to-itself", &line("to-itself"), (5, 5, 0o6755));
    write_program(p, "text", b"echo\n", (5, 5, 0o6755));
    write_program(p, "closed", &line("program"), (5, 5, 0o6700));
    write_program(p, "relative", b"#!set --state\n", (5, 5, 0o6755));
    p.open("bits", libc::O_RDONLY, 0, Some(200));
    p.open("of-set", libc::O_PATH, 0, Some(201));
    for (who, prepare) in [CALLERS[0], CALLERS[1], CALLERS[4], CALLERS[9], CALLERS[13]] {
        for script in [
            "plain",
            "bits",
            "of-set",
            "both",
            "script-of-script",
            "script-of-both",
            "to-missing",
            "to-text",
            "to-itself",
            "text",
            "closed",
            "relative",
        ] {
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                p.execve(script);
            });
        }
        for fd in [200, 201] {
            // The interpreter cannot open a descriptor that execve(2) has closed.
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                p.execveat(fd, "", EMPTY);
            });
        }
    }
}

/// An execve(2) that fails changes no credentials, including saved ids and capabilities.
fn fails(p: &mut Probe) {
    install(p, "program");
    p.mkdir("d", 0o755);
    give(p, "d", (999, 998, 0o6755));
    p.symlink(b"loop", "loop");
    p.mknod("fifo", libc::S_IFIFO | 0o777);
    write_program(p, "text", b"echo\n", (999, 998, 0o6755));
    write_program(p, "empty", b"", (999, 998, 0o6755));
    write_program(p, "elf", b"\x7fELF\x02\x01\x01", (999, 998, 0o6755));
    let who = |p: &mut Probe, work: &dyn Fn(&mut Probe)| {
        for (who, prepare) in [CALLERS[4], CALLERS[5], CALLERS[7], CALLERS[12], CALLERS[13]] {
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                p.state();
                work(p);
                p.ambient();
            });
        }
    };
    for path in [
        "missing",
        "d",
        "d/x",
        "program/x",
        "loop",
        "fifo",
        "text",
        "empty",
        "elf",
        "",
    ] {
        who(p, &|p| p.execve(path));
    }
    let long = vec![b'x'; 256];
    who(p, &|p| p.execve(&long));
    for place in [Place::Null, Place::Kernel, Place::Unmapped] {
        who(p, &|p| p.execve(place));
    }
    who(p, &|p| {
        p.execve(Path(b"program".to_vec(), Place::Cut));
    });
    for mode in [0o6644, 0o6700, 0o6070, 0o6007, 0o6000] {
        give(p, "program", (999, 998, mode));
        who(p, &|p| p.execve("program"));
        p.child("one of the group", Birth::Fork, |p| {
            p.somebody(&[998], [41, 42, 43], [51, 52, 53]);
            p.state();
            p.execve("program");
        });
        p.child("root", Birth::Fork, |p| p.execve("program"));
    }
    give(p, "program", (999, 998, 0o6755));
    // Invalid arguments, for a program that would change the credentials.
    who(p, &|p| {
        let name = || Arg::Path(b"program".to_vec(), Place::Heap);
        let huge = Arg::Strings(vec![vec![b'x'; 200_000]]);
        let none = || Arg::Strings(Vec::new());
        p.call(calls::EXECVE, &[name(), huge, none()]);
        p.state();
        for place in [Place::One, Place::Kernel, Place::Unmapped] {
            let bad = || Arg::Output(8, place);
            p.call(calls::EXECVE, &[name(), bad(), none()]);
            p.state();
            p.call(calls::EXECVE, &[name(), none(), bad()]);
            p.state();
        }
    });
}

fn mounts(p: &mut Probe) {
    install(p, "program");
    give(p, "program", (999, 998, 0o6755));
    p.mkdir("t", 0o755);
    p.mkdir("b", 0o755);
    let users = |p: &mut Probe, path: &str| {
        for (who, prepare) in [CALLERS[0], CALLERS[1], CALLERS[4]] {
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                p.execve(path);
            });
        }
    };
    p.child("mounts of its own", Birth::Fork, |p| {
        own_mounts(p);
        mount(p, "tmpfs", "t", "tmpfs", 0, "mode=0755");
        install(p, "t/program");
        give(p, "t/program", (999, 998, 0o6755));
        users(p, "t/program");
        let again = libc::MS_REMOUNT | libc::MS_BIND;
        mount(p, "", "t", "", again | libc::MS_NOSUID, "");
        users(p, "t/program");
        mount(p, "", "t", "", again | libc::MS_NOEXEC, "");
        users(p, "t/program");
        mount(p, ".", "b", "", libc::MS_BIND, "");
        users(p, "b/program");
        mount(p, "", "b", "", again | libc::MS_NOSUID, "");
        users(p, "b/program");
        users(p, "program");
    });
    users(p, "program");
}

/// Capabilities of a file (`security.capability`), in addition to set-ID bits; see capabilities(7).
fn file_capabilities(p: &mut Probe) {
    install(p, "program");
    for (owner, effective, permitted, inheritable) in [
        ((0, 0, 0o755), 1, CAP_KILL | CAP_SETUID, 0),
        ((0, 0, 0o755), 0, CAP_KILL, 0),
        ((0, 0, 0o755), 1, 0, CAP_KILL | CAP_SETUID),
        ((0, 0, 0o4755), 1, CAP_KILL, 0),
        ((999, 998, 0o6755), 1, CAP_KILL, 0),
        // A capability that the container does not have.
        ((0, 0, 0o755), 1, CAP_KILL | 1 << 25, 0),
        ((0, 0, 0o755), 0, CAP_KILL | 1 << 25, 0),
    ] {
        give(p, "program", owner);
        let low = |set: u64| u32::try_from(set).expect("a low capability");
        // VFS_CAP_REVISION_2: the flag, then permitted and inheritable for each half.
        let words = [
            0x0200_0000 | effective,
            low(permitted),
            low(inheritable),
            0,
            0,
        ];
        let value = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        p.call(
            calls::SETXATTR,
            &[
                Arg::Text(b"program".to_vec()),
                Arg::Text(b"security.capability".to_vec()),
                Arg::Input(value),
                Arg::Number(20),
                Arg::Number(0),
            ],
        );
        for (who, prepare) in CALLERS {
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                p.execve("program");
            });
        }
    }
}
