//! Calls that create files, with an obstacle: an existing name, a link, a missing directory, a bad
//! pointer, another mount or root.

use super::creation::{CALLERS, HOMES, homes};
use super::mounts::{mount, own_mounts};
use super::processes::enter_root;
use crate::probe::*;
use crate::sys::{Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("create-names", names);
    p.group("create-links", links);
    p.group("create-pointers", pointers);
    p.group("create-elsewhere", elsewhere);
    p.group("create-devices", devices);
}

/// Does `work` as root, as a user, and as root with other fs ids.
pub(super) fn three(p: &mut Probe, work: impl Fn(&mut Probe)) {
    for (who, prepare) in &CALLERS[..3] {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            p.umask(0o022);
            work(p);
        });
    }
}

/// Makes each call that creates a file, with one name.
fn make(p: &mut Probe, name: impl Into<Path>) {
    let name = name.into();
    p.creat(name.clone(), 0o644);
    p.open2(
        name.clone(),
        libc::O_CREAT | libc::O_EXCL | libc::O_RDWR,
        0o644,
    );
    p.openat(CWD, name.clone(), libc::O_CREAT | libc::O_NOFOLLOW, 0o644);
    p.openat(CWD, name.clone(), libc::O_CREAT | libc::O_DIRECTORY, 0o644);
    p.temporary(&name.0, libc::O_RDWR, 0o644, b"never");
    p.make_directory(name.clone(), 0o755);
    p.make_directory_at(CWD, name.clone(), 0o755);
    p.make_node(name.clone(), S_IFIFO | 0o644, 0);
    p.make_node_at(CWD, name.clone(), S_IFREG | 0o644, 0);
    p.make_link(b"x", name.clone());
    p.make_link_at(b"x", CWD, name.clone());
    p.socket(libc::SOCK_STREAM, 201);
    p.bind_to(201, &name.0[..name.0.len().min(107)]);
}

fn names(p: &mut Probe) {
    p.mkdir("d", 0o777);
    p.chmod("d", 0o777);
    p.chmod(".", 0o777);
    p.create(b"f", 0o666, 3);
    p.mknod("fifo", S_IFIFO | 0o666);
    p.bind(b"socket");
    p.chmod("socket", 0o777);
    p.symlink(b"f", "to-file");
    p.symlink(b"d", "to-directory");
    p.symlink(b"loop", "loop");
    let long = [b"d/".as_slice(), &[b'L'; 256]].concat();
    let longest = [b"d/".as_slice(), &[b'L'; 255]].concat();
    let deep = super::paths::padded(b"", b"d/deep", 4095);
    let too_deep = super::paths::padded(b"", b"d/deep", 4096);
    let wild: [&[u8]; 28] = [
        b"",
        b".",
        b"..",
        b"/",
        b"/..",
        b"d",
        b"d/",
        b"d/.",
        b"d/..",
        b"f",
        b"f/",
        b"f/x",
        b"f/..",
        b"socket",
        b"to-file",
        b"to-file/",
        b"to-directory",
        b"to-directory/",
        b"loop",
        b"loop/x",
        b"missing/x",
        b"missing/",
        b"d/missing/../x",
        &long,
        &longest,
        &deep,
        &too_deep,
        b"d/\xff\xfe\n",
    ];
    three(p, |p| {
        for name in wild {
            make(p, name);
            // So that the next name does not exist, either.
            p.quiet(
                calls::UNLINKAT,
                &[
                    Arg::Fd(CWD),
                    Arg::Path(name.to_vec(), Place::Heap),
                    Arg::Number(0),
                ],
            );
        }
        p.make_directory("d/slash/", 0o755);
        p.make_directory("d/slash/two//", 0o755);
        p.make_directory("/proc/self/cwd/d/slash/magic", 0o755);
        p.creat("/proc/self/cwd/d/slash/file", 0o644);
        p.open("d/slash", libc::O_RDONLY | libc::O_DIRECTORY, 0, Some(200));
        p.open("d/slash/file", libc::O_RDONLY, 0, Some(202));
        p.openat(200, "one", libc::O_CREAT | libc::O_WRONLY, 0o644);
        p.openat(202, "one", libc::O_CREAT | libc::O_WRONLY, 0o644);
        p.openat(-1, "one", libc::O_CREAT | libc::O_WRONLY, 0o644);
        p.openat(9999, "one", libc::O_CREAT | libc::O_WRONLY, 0o644);
        let absolute = p.absolute(b"create-names/d/slash/absolute");
        p.openat(-1, &absolute, libc::O_CREAT | libc::O_WRONLY, 0o644);
        p.make_directory_at(202, "x", 0o755);
        p.make_directory_at(-1, "x", 0o755);
        p.make_node_at(9999, "x", S_IFREG, 0);
        p.make_link_at(b"x", 202, "x");
        p.make_link(b"", "d/empty");
        p.make_link(&vec![b't'; 4095], "d/longest-target");
        p.make_link(&vec![b't'; 4096], "d/too-long-target");
        p.make_link_at(b"\xff \n", 200, "bytes");
        for path in ["/proc/self/fd/200/by-fd", "/dev/fd/200/by-dev"] {
            p.creat(path, 0o600);
            p.make_directory(&format!("{path}-directory"), 0o700);
        }
        p.open(
            "/proc/self/fd/202",
            libc::O_CREAT | libc::O_RDWR | libc::O_TRUNC,
            0o600,
            None,
        );
        p.creat("/dev/null", 0o600);
        p.list(b".");
        for kind in [S_IFDIR, libc::S_IFLNK, 0o170_000, 0o050_000] {
            p.make_node("d/kind", kind | 0o644, 0);
        }
        p.make_node("d/whiteout", S_IFCHR | 0o600, 0);
        p.make_node("f", S_IFDIR | 0o600, 0);
        p.chdir("d/slash");
        p.make_directory("../gone", 0o755);
        p.chdir("../gone");
        p.rmdir("../gone");
        make(p, "in-a-directory-that-is-gone");
        p.chdir("../slash");
    });
}

fn links(p: &mut Probe) {
    p.chmod(".", 0o777);
    homes(p);
    for (home, ..) in HOMES {
        p.symlink(format!("{home}/new").as_bytes(), &format!("to-new-{home}"));
        p.symlink(format!("{home}/").as_bytes(), &format!("to-{home}"));
    }
    p.symlink(b"to-new-own", "twice");
    p.symlink(b"/missing/x", "nowhere");
    p.symlink(b"own/slash/", "to-slash");
    let absolute = p.absolute(b"create-links/open/absolute");
    p.symlink(&absolute, "to-absolute");
    three(p, |p| {
        for (home, ..) in HOMES {
            let link = format!("to-new-{home}");
            for flags in [
                libc::O_CREAT | libc::O_EXCL,
                libc::O_CREAT | libc::O_NOFOLLOW,
                libc::O_CREAT | libc::O_WRONLY,
                libc::O_CREAT | libc::O_TRUNC | libc::O_RDWR,
            ] {
                p.open2(&link, flags, 0o640);
            }
            p.make_directory(&link, 0o755);
            p.make_node(&link, S_IFREG, 0);
            p.make_link(b"x", &link);
            p.socket(libc::SOCK_STREAM, 201);
            p.bind_to(201, link.as_bytes());
            p.creat(&format!("to-{home}/through"), 0o600);
            p.make_directory(&format!("to-{home}/directory"), 0o700);
            p.temporary(
                format!("to-{home}").as_bytes(),
                libc::O_RDWR,
                0o600,
                format!("{home}/temporary").as_bytes(),
            );
            p.lstat(&link);
        }
        for link in ["twice", "nowhere", "to-slash", "to-absolute"] {
            p.creat(link, 0o600);
            p.open2(link, libc::O_CREAT | libc::O_EXCL, 0o600);
        }
        p.list(b".");
        p.child("cleaning up", Birth::Fork, |p| {
            for (home, ..) in HOMES {
                for name in ["new", "through", "temporary"] {
                    p.quietly_remove(&format!("{home}/{name}"), 0);
                }
                p.quietly_remove(&format!("{home}/directory"), 0x200);
            }
            p.quietly_remove("open/absolute", 0);
        });
    });
}

fn pointers(p: &mut Probe) {
    p.chmod(".", 0o777);
    three(p, |p| {
        for place in [
            Place::Null,
            Place::One,
            Place::Kernel,
            Place::NonCanonical,
            Place::Unmapped,
        ] {
            p.creat(place, 0o644);
            p.open2(place, libc::O_CREAT, 0o644);
            p.openat(-1, place, libc::O_CREAT, 0o644);
            p.openat(CWD, place, libc::O_TMPFILE | libc::O_RDWR, 0o644);
            p.openat(CWD, place, libc::O_TMPFILE, 0o644);
            p.make_directory(place, 0o755);
            p.make_directory_at(-1, place, 0o755);
            p.make_node(place, S_IFREG, 0);
            p.make_node(place, S_IFDIR, 0);
            p.make_node_at(-1, place, S_IFIFO, 0);
            p.make_link(b"x", place);
            p.make_link_at(b"x", -1, place);
            p.call(
                calls::SYMLINK,
                &[Arg::Path(Vec::new(), place), Arg::Text(b"x".to_vec())],
            );
            p.call(
                calls::SYMLINKAT,
                &[
                    Arg::Path(Vec::new(), place),
                    Arg::Fd(-1),
                    Arg::Path(Vec::new(), place),
                ],
            );
            p.socket(libc::SOCK_STREAM, 201);
            p.call(
                calls::BIND,
                &[Arg::Fd(201), Arg::Output(20, place), Arg::Number(20)],
            );
            let name = Arg::Path(b"new".to_vec(), Place::Heap);
            for size in [24, 0, 23] {
                let args = [
                    Arg::Fd(CWD),
                    name.clone(),
                    Arg::Output(24, place),
                    Arg::Number(size),
                ];
                p.opened(calls::OPENAT2, &args);
            }
        }
        for (place, name) in [(Place::PageEnd, "page-end"), (Place::Cut, "cut")] {
            let path = Path(name.into(), place);
            p.creat(path.clone(), 0o644);
            p.make_node(path.clone(), S_IFIFO | 0o600, 0);
            p.quietly_remove(name, 0);
            p.make_directory(path.clone(), 0o755);
            p.quietly_remove(name, 0x200);
            p.make_link(b"x", path);
            p.quietly_remove(name, 0);
        }
        p.list(b".");
    });
}

/// Read-only mounts, other file systems, other roots, and threads with a working directory and a
/// umask of their own.
fn elsewhere(p: &mut Probe) {
    p.chmod(".", 0o777);
    homes(p);
    p.mkdir("t", 0o755);
    p.mkdir("b", 0o755);
    p.create(b"open/f", 0o666, 3);
    let files = |p: &mut Probe, home: &str| {
        p.creat(&format!("{home}/new"), 0o666);
        p.open2(&format!("{home}/f"), libc::O_CREAT | libc::O_RDWR, 0o666);
        p.open2(&format!("{home}/f"), libc::O_CREAT | libc::O_RDONLY, 0o666);
        p.temporary(
            home.as_bytes(),
            libc::O_RDWR,
            0o600,
            format!("{home}/tmp").as_bytes(),
        );
        p.make_directory(&format!("{home}/d"), 0o777);
        p.make_directory(&format!("{home}/f"), 0o777);
        p.make_node(&format!("{home}/p"), S_IFIFO | 0o666, 0);
        p.make_link(b"x", &format!("{home}/l"));
        p.socket(libc::SOCK_STREAM, 201);
        p.bind_to(201, format!("{home}/s").as_bytes());
        p.list(home.as_bytes());
    };
    p.child("mounts of its own", Birth::Fork, |p| {
        own_mounts(p);
        mount(p, "open", "b", "", libc::MS_BIND, "");
        let read_only = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
        mount(p, "", "b", "", read_only, "");
        mount(p, "tmpfs", "t", "tmpfs", 0, "mode=0777");
        p.mkdir("t/setgid", 0o755);
        p.chown("t/setgid", 999, 50);
        p.chmod("t/setgid", 0o2777);
        let list = super::creation::acl(7, 5, None, 0);
        p.set_attribute("t/setgid", "system.posix_acl_default", &list);
        three(p, |p| {
            for home in ["b", "t", "t/setgid", "open"] {
                files(p, home);
            }
            for home in ["t", "t/setgid", "open"] {
                for name in ["new", "tmp", "p", "l", "s"] {
                    p.quietly_remove(&format!("{home}/{name}"), 0);
                }
                p.quietly_remove(&format!("{home}/d"), 0x200);
            }
        });
        p.list(b".");
    });
    p.child("another root", Birth::Fork, |p| {
        p.mkdir("jail", 0o777);
        p.chmod("jail", 0o777);
        p.symlink(b"/inside", "jail/to-inside");
        p.open("open", libc::O_PATH, 0, Some(200));
        enter_root(p, "jail");
        p.chdir("/");
        p.somebody(&[100], [999; 3], [999; 3]);
        p.creat("/to-inside", 0o644);
        p.creat("/../up", 0o644);
        p.make_directory("/d", 0o755);
        p.openat(200, "by-descriptor", libc::O_CREAT | libc::O_WRONLY, 0o644);
        p.openat(200, "../others/x", libc::O_CREAT | libc::O_WRONLY, 0o644);
        p.socket(libc::SOCK_STREAM, 201);
        p.bind_to(201, b"/d/socket");
        p.socket(libc::SOCK_STREAM, 202);
        p.bind_to(202, b"relative");
        p.make_link(b"/x", "/l");
        p.list(b"/");
    });
    p.thread("a thread with a directory and a umask of its own", |p| {
        p.call(calls::UNSHARE, &[Arg::Number(libc::CLONE_FS.into())]);
        p.chdir("open");
        p.umask(0o007);
        p.quietly_set(calls::SETFSGID, &[998]);
        p.quietly_set(calls::SETFSUID, &[999]);
        p.creat("from-a-thread", 0o666);
        p.make_directory("directory-from-a-thread", 0o777);
        p.socket(libc::SOCK_STREAM, 201);
        p.bind_to(201, b"socket-from-a-thread");
    });
    p.thread("a thread with descriptors of its own", |p| {
        p.call(calls::UNSHARE, &[Arg::Number(libc::CLONE_FILES.into())]);
        p.open("open", libc::O_PATH, 0, Some(200));
        p.quietly_set(calls::SETFSUID, &[999]);
        p.openat(200, "by-its-own", libc::O_CREAT | libc::O_RDWR, 0o666);
        p.close(200);
        p.openat(200, "closed", libc::O_CREAT | libc::O_RDWR, 0o666);
    });
    p.creat("open/by-the-first", 0o666);
    p.list(b".");
}

/// The oracle cannot create devices, because it has CAP_MKNOD in a user namespace only.
fn devices(p: &mut Probe) {
    p.chmod(".", 0o777);
    homes(p);
    p.create(b"f", 0o666, 0);
    three(p, |p| {
        for home in ["own", "roots", "open", "setgid-open"] {
            let name = |what: &str| format!("{home}/{what}");
            p.make_node(&name("null"), S_IFCHR | 0o666, 0x103);
            p.make_node_at(CWD, &name("loop"), S_IFBLK | 0o660, 0x700);
            p.make_node(&name("block"), S_IFBLK | 0o600, 0);
            p.creat(&name("loop"), 0o600);
        }
        p.make_node("f", S_IFCHR | 0o600, 0x103);
        p.make_node_at(-1, "f", S_IFCHR | 0o600, 0x103);
        p.make_node_at(-1, Place::Null, S_IFCHR | 0o600, 0x103);
    });
    p.list(b".");
}
