//! Unix sockets in the file system: bind(2) creates a file, by which the socket can then be
//! reached.

use std::os::unix::ffi::OsStringExt;

use super::making::three;
use crate::probe::*;
use crate::sys::{Arg, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("create-bind", bind);
    p.group("create-nameless", nameless);
}

fn bytes(family: u16, path: &[u8]) -> Vec<u8> {
    [family.to_ne_bytes().as_slice(), path].concat()
}

/// Binds a new socket to an address of exactly `length` bytes, and prints the socket's name.
fn bind_raw(p: &mut Probe, kind: i32, address: Vec<u8>, length: i64) {
    p.socket(kind, 201);
    p.call(
        calls::BIND,
        &[Arg::Fd(201), Arg::Input(address), Arg::Number(length)],
    );
    p.socket_name(201);
}

fn talk(p: &mut Probe, address: &[u8]) {
    p.call(calls::LISTEN, &[Arg::Fd(201), Arg::Number(5)]);
    p.socket(libc::SOCK_STREAM, 202);
    p.connect(202, address);
    // Without a connection, accept4(2) says so.
    let flags = [201, libc::F_SETFL, libc::O_NONBLOCK].map(|number| Arg::Number(number.into()));
    p.quiet(calls::FCNTL, &flags);
    let null = || Arg::Path(Vec::new(), Place::Null);
    let accepted = p.quiet(
        calls::ACCEPT4,
        &[
            Arg::Fd(201),
            null(),
            null(),
            Arg::Number(libc::SOCK_NONBLOCK.into()),
        ],
    );
    match accepted.result.map(fd) {
        Ok(accepted) => {
            p.keep(accepted, 203);
            p.socket_name(203);
        }
        Err(errno) => p.say(&format!("accept4: {}", crate::print::errno(errno))),
    }
}

fn bind(p: &mut Probe) {
    p.chmod(".", 0o777);
    p.mkdir("d", 0o777);
    p.chmod("d", 0o777);
    p.create(b"f", 0o666, 0);
    p.symlink(b"d/behind", "dangling");
    p.symlink(b"d", "to-d");
    three(p, |p| {
        let unix = 1;
        // The path ends at the length that the call gives, with or without a NUL.
        let longest = [b"d/".as_slice(), &[b'x'; 106]].concat();
        for (path, length) in [
            (&b"d/plain\0"[..], 10),
            (b"d/plain\0", 9),
            (b"d/cut-here", 7),
            (b"d/nul\0more", 12),
            (&longest, 110),
            (&longest, 109),
            (&longest, 111),
            (&longest, 3),
            (b"d/x", 1),
            (b"d/x", 0),
            (b"d/x", -1),
            (b"\0abstract", 11),
            (b"\0", 3),
            (b"d/\xff\xfe\n", 7),
        ] {
            bind_raw(p, libc::SOCK_STREAM, bytes(unix, path), length);
        }
        bind_raw(p, libc::SOCK_STREAM, bytes(0, b"d/family\0"), 11);
        bind_raw(p, libc::SOCK_STREAM, bytes(2, b"d/family\0"), 11);
        for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            bind_raw(p, kind, bytes(unix, b"d/kind\0"), 9);
            bind_raw(p, kind, bytes(unix, b"d/kind\0"), 9);
            p.quietly_remove("d/kind", 0);
        }
        for name in [
            "f",
            "d",
            "dangling",
            "to-d",
            "to-d/through",
            "missing/x",
            "f/x",
            "d/slash/",
        ] {
            p.socket(libc::SOCK_STREAM, 201);
            p.bind_to(201, name.as_bytes());
        }
        // A socket can be bound only once.
        p.socket(libc::SOCK_STREAM, 201);
        p.bind_to(201, b"d/once");
        p.bind_to(201, b"d/twice");
        p.bind_to(201, b"d/once");
        // The file has the mode of the socket, without the bits of the umask.
        for (mode, mask) in [(0o600, 0o022), (0o666, 0), (0o7777, 0o022), (0, 0)] {
            p.umask(mask);
            p.socket(libc::SOCK_STREAM, 201);
            p.call(calls::FCHMOD, &[Arg::Fd(201), Arg::Octal(mode)]);
            p.bind_to(201, format!("d/mode-{mode:o}").as_bytes());
        }
        p.umask(0o022);
        p.socket(libc::SOCK_STREAM, 201);
        p.bind_to(201, b"d/talking");
        talk(p, b"d/talking");
        p.rename("d/talking", "d/moved", 0);
        talk(p, b"d/moved");
        p.chdir("d");
        p.socket(libc::SOCK_STREAM, 201);
        p.bind_to(201, b"relative");
        p.chdir("..");
        talk(p, b"d/relative");
        let absolute = p.absolute(b"create-bind/d/absolute");
        p.socket(libc::SOCK_STREAM, 201);
        p.bind_to(201, &absolute);
        talk(p, &absolute);
        p.open("d", libc::O_PATH, 0, Some(200));
        p.socket(libc::SOCK_STREAM, 201);
        p.bind_to(201, b"/proc/self/fd/200/by-descriptor");
        talk(p, b"/proc/self/fd/200/by-descriptor");
        // Descriptors that are not Unix sockets.
        let address = || Arg::Input(unix_address(b"d/a-rather-long-name"));
        p.open("f", libc::O_RDONLY, 0, Some(204));
        for number in [204, 200, -1, 9999] {
            p.call(calls::BIND, &[Arg::Fd(number), address(), Arg::Number(23)]);
        }
        let internet = [libc::AF_INET, libc::SOCK_STREAM, 0].map(|word| Arg::Number(word.into()));
        if let Ok(socket) = p.quiet(calls::SOCKET, &internet).result.map(fd) {
            p.keep(socket, 205);
            for length in [23, 10] {
                p.call(calls::BIND, &[Arg::Fd(205), address(), Arg::Number(length)]);
            }
        }
        p.list(b".");
        p.child("cleaning up", crate::sys::Birth::Fork, |p| {
            for entry in std::fs::read_dir("d").into_iter().flatten().flatten() {
                let name = entry.path().into_os_string().into_vec();
                p.quietly_remove(&name, 0);
            }
        });
    });
}

/// Pipes, sockets and memfds have an owner, too.
fn nameless(p: &mut Probe) {
    three(p, |p| {
        let words = || Arg::Words(vec![0; 2], Place::Heap);
        let pipe = p.quiet(calls::PIPE2, &[words(), Arg::Number(0)]).words(0);
        let kind = [libc::AF_UNIX, libc::SOCK_STREAM, 0].map(|word| Arg::Number(word.into()));
        let pair = [kind.as_slice(), &[words()]].concat();
        let pair = p.quiet(calls::SOCKETPAIR, &pair).words(3);
        let memory = [Arg::Text(b"m".to_vec()), Arg::Number(0)];
        let memory = p.quiet(calls::MEMFD_CREATE, &memory).result.map(fd);
        let first = |words: &[u32]| words.first().map_or(-1, |word| word.cast_signed());
        for (opened, number) in [
            (first(&pipe), 210),
            (first(&pair), 211),
            (memory.unwrap_or(-1), 212),
        ] {
            p.keep(opened, number);
            p.fstat(number);
        }
        p.socket(libc::SOCK_STREAM, 201);
        p.fstat(201);
    });
}
