//! open(2) and its variants as calls that create files: flags, existing files, and the limit of
//! descriptors.

use super::creation::CALLERS;
use super::making::three;
use crate::probe::*;
use crate::sys::{self, Arg, Birth, Memory, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("create-flags", flags);
    p.group("create-how", how);
    p.group("create-existing", existing);
    p.group("create-fifo", fifo);
    p.group("create-limits", limits);
}

fn flags(p: &mut Probe) {
    p.chmod(".", 0o777);
    p.mkdir("d", 0o777);
    p.chmod("d", 0o777);
    p.create(b"f", 0o666, 5);
    let all = [
        libc::O_EXCL,
        libc::O_TRUNC,
        libc::O_APPEND,
        libc::O_NONBLOCK,
        libc::O_CLOEXEC,
        libc::O_NOFOLLOW,
        libc::O_DIRECTORY,
        libc::O_PATH,
        libc::O_TMPFILE,
        libc::O_SYNC,
        libc::O_DSYNC,
        libc::O_NOATIME,
        libc::O_NOCTTY,
        libc::O_ASYNC,
        libc::O_EXCL | libc::O_TRUNC,
        libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC,
        libc::O_APPEND | libc::O_TRUNC | libc::O_NONBLOCK,
        libc::O_PATH | libc::O_EXCL,
        i32::MIN,
        0x0040_0000 << 3,
    ];
    three(p, |p| {
        for access in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, 3] {
            for more in all {
                let flags = libc::O_CREAT | access | more;
                p.open2("d/new", flags, 0o640);
                p.quietly_remove("d/new", 0);
                p.open2("f", flags, 0o640);
                p.open2("d", flags, 0o640);
                p.call(calls::TRUNCATE, &[Arg::Text(b"f".to_vec()), Arg::Number(5)]);
            }
        }
        // The mode of a new file does not restrict the call that creates it.
        for mode in [0, 0o400, 0o200, 0o444] {
            p.open2("d/new", libc::O_CREAT | libc::O_RDWR, mode);
            p.open2("d/new", libc::O_CREAT | libc::O_RDWR, mode);
            p.quietly_remove("d/new", 0);
        }
        for (flags, directory) in [
            (libc::O_RDWR, "d"),
            (libc::O_WRONLY, "d"),
            (libc::O_RDONLY, "d"),
            (libc::O_RDWR | libc::O_EXCL, "d"),
            (libc::O_RDWR | libc::O_CREAT, "d"),
            (libc::O_RDWR | libc::O_CLOEXEC | libc::O_APPEND, "d"),
            (libc::O_RDWR, "f"),
            (libc::O_RDWR, "missing"),
            (libc::O_RDWR, "."),
            (libc::O_RDWR, ""),
            (libc::O_RDWR, "d/"),
        ] {
            p.temporary(directory.as_bytes(), flags, 0o604, b"d/named");
            p.quietly_remove("d/named", 0);
        }
        // O_TMPFILE without O_DIRECTORY, which is part of it.
        p.open2(
            "d",
            libc::O_TMPFILE & !libc::O_DIRECTORY | libc::O_RDWR,
            0o600,
        );
        p.temporary(b"d", libc::O_WRONLY, 0, b"d/nobody's");
        p.quietly_remove("d/nobody's", 0);
    });
}

fn how(p: &mut Probe) {
    p.chmod(".", 0o777);
    p.mkdir("d", 0o777);
    p.chmod("d", 0o777);
    p.symlink(b"d", "link");
    p.symlink(b"/d", "absolute");
    p.symlink(b"../create-how/d", "up");
    p.create(b"f", 0o666, 0);
    let create = 0o101;
    let how = |flags: u64, mode: u64, resolve: u64| How {
        flags,
        mode,
        resolve,
    };
    three(p, |p| {
        for how in [
            how(create, 0o644, 0),
            how(create | 0o200, 0o644, 0),
            how(create, 0o17777, 0),
            how(create, 1 << 40, 0),
            how(create, 0o7777, 0),
            how(1, 0o644, 0),
            how(1, 0, 0),
            how(create | 1 << 40, 0o644, 0),
            how(create | 0x8000_0000, 0o644, 0),
            how(create | 0o10_000_000, 0o644, 0),
            how(
                create | u64::from(libc::O_DIRECTORY.cast_unsigned()),
                0o644,
                0,
            ),
            how(create, 0o644, 1 << 10),
            how(create | 0o2_000_000, 0o644, 0),
        ] {
            p.openat2(CWD, "d/new", how);
            p.quietly_remove("d/new", 0);
        }
        let temporary = 0o20_200_002;
        p.openat2(CWD, "d", how(temporary, 0o640, 0));
        p.openat2(CWD, "d", how(temporary, 0o640, 8));
        p.openat2(CWD, "d", how(temporary | 0o100, 0o640, 0));
        p.openat2(CWD, "d", how(temporary, 0, 0));
        // NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT, CACHED
        p.open(".", libc::O_PATH, 0, Some(200));
        let here = p.absolute(b"create-how/d/new");
        for resolve in [0, 1, 2, 4, 8, 0x10, 0x20, 0x18, 0x1e] {
            let names: [&[u8]; 9] = [
                b"d/new",
                b"d/../d/new",
                b"../create-how/d/new",
                b"link/new",
                b"up/new",
                b"absolute/new",
                b"/d/new",
                b"/proc/self/cwd/d/new",
                &here,
            ];
            for name in names {
                p.openat2(200, name, how(create, 0o644, resolve));
                p.quietly_remove("d/new", 0);
            }
        }
        // Newer kernels have a larger structure. Members that a kernel does not know must be zero.
        for (size, tail) in [
            (0, 0),
            (8, 0),
            (23, 0),
            (24, 0),
            (32, 0),
            (32, 1),
            (4096, 0),
            (4097, 0),
        ] {
            let mut bytes = how(create, 0o644, 0).bytes();
            bytes.resize(4100, 0);
            bytes[24] = tail;
            let words = bytes
                .chunks_exact(4)
                .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            let args = [
                Arg::Fd(CWD),
                Arg::Path(b"d/new".to_vec(), Place::Heap),
                Arg::Words(words.collect(), Place::Heap),
                Arg::Number(size),
            ];
            let answer = p.quiet(calls::OPENAT2, &args);
            let result = match answer.result.map(fd) {
                Ok(opened) => {
                    p.quiet(calls::CLOSE, &[Arg::Fd(opened)]);
                    "a file".to_owned()
                }
                Err(errno) => crate::print::errno(errno),
            };
            p.say(&format!(
                "openat2 with {size} bytes, then {tail} = {result}"
            ));
            p.quietly_remove("d/new", 0);
        }
    });
}

/// O_CREAT for existing files: the caller needs permission to open them.
fn existing(p: &mut Probe) {
    p.chmod(".", 0o777);
    for (name, uid, gid) in [
        ("roots", 0, 0),
        ("own", 999, 999),
        ("of-group", 1000, 100),
        ("others", 1000, 1000),
    ] {
        for mode in [
            0o666, 0o644, 0o640, 0o600, 0o400, 0o060, 0o006, 0, 0o4755, 0o2775,
        ] {
            let file = format!("{name}-{mode:o}");
            p.create(file.as_bytes(), 0o600, 5);
            p.chown(&file, uid, gid);
            p.chmod(&file, mode);
        }
    }
    for (who, prepare) in CALLERS {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            for name in ["roots", "own", "of-group", "others"] {
                for mode in ["666", "644", "640", "600", "400", "60", "6", "0"] {
                    let file = format!("{name}-{mode}");
                    for flags in [
                        libc::O_RDONLY,
                        libc::O_WRONLY,
                        libc::O_RDWR | libc::O_APPEND,
                        libc::O_WRONLY | libc::O_EXCL,
                        libc::O_RDONLY | libc::O_NOATIME,
                    ] {
                        p.open2(&file, libc::O_CREAT | flags, 0o777);
                    }
                }
            }
        });
    }
    // Truncation preserves the owner and clears the set-ID bits.
    for (who, prepare) in CALLERS {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            for name in ["roots", "own", "of-group", "others"] {
                for mode in ["666", "400", "4755", "2775"] {
                    let file = format!("{name}-{mode}");
                    p.creat(&file, 0o777);
                }
            }
        });
        for name in ["roots", "own", "of-group", "others"] {
            for mode in [0o666, 0o400, 0o4755, 0o2775] {
                let file = format!("{name}-{mode:o}");
                p.stat(&file);
                p.call(
                    calls::TRUNCATE,
                    &[Arg::Text(file.clone().into()), Arg::Number(5)],
                );
                p.chmod(&file, mode);
            }
        }
    }
}

/// Existing fifos and sockets.
fn fifo(p: &mut Probe) {
    p.chmod(".", 0o777);
    p.mknod("fifo", S_IFIFO | 0o600);
    p.chmod("fifo", 0o666);
    p.mknod("closed", S_IFIFO | 0o600);
    p.bind(b"socket");
    p.chmod("socket", 0o777);
    three(p, |p| {
        for name in ["fifo", "closed", "socket"] {
            for access in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
                let flags = libc::O_CREAT | libc::O_NONBLOCK | access;
                p.open2(name, flags, 0o600);
                p.open2(name, flags | libc::O_TRUNC, 0o600);
                p.open2(name, flags | libc::O_EXCL, 0o600);
            }
        }
        p.open2("fifo", libc::O_CREAT | libc::O_RDWR, 0o600);
        p.open("fifo", libc::O_RDONLY | libc::O_NONBLOCK, 0, Some(200));
        p.open2("fifo", libc::O_CREAT | libc::O_WRONLY, 0o600);
        p.close(200);
        // One thread waits for the other end of the fifo while another one makes calls.
        let opener = std::thread::spawn(|| {
            let flags = Arg::Number((libc::O_CREAT | libc::O_WRONLY).into());
            let name = Arg::Path(b"fifo".to_vec(), Place::Heap);
            let args = [Arg::Fd(CWD), name, flags, Arg::Octal(0o600)];
            let memory = Memory::new();
            let opened = sys::invoke(memory, calls::OPENAT, &args).result.map(fd);
            if let Ok(opened) = opened {
                sys::invoke(memory, calls::CLOSE, &[Arg::Fd(opened)]);
            }
            opened.is_ok()
        });
        for round in 0..5 {
            p.creat(&format!("while-it-waits-{round}"), 0o644);
            p.quietly_remove(&format!("while-it-waits-{round}"), 0);
        }
        p.open2("fifo", libc::O_CREAT | libc::O_RDONLY, 0o600);
        let opened = opener.join().expect("a thread that ends well");
        p.say(&format!("the one who waited has opened it: {opened}"));
    });
    p.list(b".");
}

/// A call that fails because of the limit of descriptors leaves no file behind.
fn limits(p: &mut Probe) {
    p.chmod(".", 0o777);
    p.create(b"f", 0o666, 7);
    let long = vec![b'x'; 4096];
    three(p, |p| {
        let free = p.lowest_free().unwrap_or_default();
        let limit = Arg::Words(vec![free.cast_unsigned(), 0, 4096, 0], Place::Heap);
        let none = Arg::Path(Vec::new(), Place::Null);
        let resource = Arg::Number(7);
        p.quiet(calls::PRLIMIT64, &[Arg::Number(0), resource, limit, none]);
        p.creat("new", 0o644);
        p.open2("new", libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o644);
        p.openat(CWD, "new", libc::O_CREAT, 0o644);
        p.openat(CWD, ".", libc::O_TMPFILE | libc::O_RDWR, 0o644);
        let how = How {
            flags: 0o102,
            mode: 0o644,
            resolve: 0,
        };
        p.openat2(CWD, "new", how);
        p.lstat("new");
        // An existing file is not truncated.
        p.creat("f", 0o644);
        p.stat("f");
        // Which errno takes precedence?
        p.creat("missing/new", 0o644);
        p.creat("", 0o644);
        p.creat(&long, 0o644);
        p.creat(Place::Null, 0o644);
        p.open2("f", libc::O_CREAT | libc::O_EXCL, 0o644);
        p.openat(CWD, "new", libc::O_TMPFILE, 0o644);
        p.openat(-1, "new", libc::O_CREAT, 0o644);
        p.openat2(
            CWD,
            "new",
            How {
                mode: 1 << 20,
                ..how
            },
        );
        // Calls that need no descriptor succeed.
        p.make_directory("d", 0o755);
        p.make_node("n", S_IFREG | 0o644, 0);
        p.make_link(b"x", "l");
        p.quietly_remove("d", 0x200);
        p.quietly_remove("n", 0);
        p.quietly_remove("l", 0);
    });
}
