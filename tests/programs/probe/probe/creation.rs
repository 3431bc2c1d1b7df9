//! The calls that create files. Each line shows the new file as a new lookup finds it, and for an
//! opened file also as its descriptor shows it.

use super::{CWD, Path, Probe, at, fd, path};
use crate::print::{self, OPEN_FLAGS};
use crate::sys::{Answer, Arg, Place, Syscall, calls};

pub(crate) const S_IFIFO: u32 = libc::S_IFIFO;
pub(crate) const S_IFREG: u32 = libc::S_IFREG;
pub(crate) const S_IFSOCK: u32 = libc::S_IFSOCK;
pub(crate) const S_IFCHR: u32 = libc::S_IFCHR;
pub(crate) const S_IFBLK: u32 = libc::S_IFBLK;
pub(crate) const S_IFDIR: u32 = libc::S_IFDIR;

/// struct open_how of openat2(2).
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(crate) flags: u64,
    pub(crate) mode: u64,
    pub(crate) resolve: u64,
}

impl How {
    pub(crate) fn bytes(self) -> Vec<u8> {
        [self.flags, self.mode, self.resolve]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect()
    }
}

fn flags_of_open(flags: i32) -> Arg {
    Arg::Bits(flags.cast_unsigned(), OPEN_FLAGS)
}

impl Probe {
    pub(crate) fn umask(&mut self, mask: u32) {
        self.call(calls::UMASK, &[Arg::Octal(mask)]);
    }

    pub(crate) fn creat(&mut self, file: impl Into<Path>, mode: u32) {
        self.opened(calls::CREAT, &[path(file), Arg::Octal(mode)]);
    }

    pub(crate) fn open2(&mut self, file: impl Into<Path>, flags: i32, mode: u32) {
        let args = [path(file), flags_of_open(flags), Arg::Octal(mode)];
        self.opened(calls::OPEN, &args);
    }

    pub(crate) fn openat(&mut self, fd: i32, file: impl Into<Path>, flags: i32, mode: u32) {
        let args = [
            Arg::Fd(fd),
            path(file),
            flags_of_open(flags),
            Arg::Octal(mode),
        ];
        self.opened(calls::OPENAT, &args);
    }

    pub(crate) fn openat2(&mut self, fd: i32, file: impl Into<Path>, how: How) {
        let args = [
            Arg::Fd(fd),
            path(file),
            Arg::Input(how.bytes()),
            Arg::Number(24),
        ];
        let shown = [0, 1].map(|index| self.printer.arg(&args[index]));
        let flags = match u32::try_from(how.flags) {
            Ok(flags) => print::bits(flags, OPEN_FLAGS),
            Err(_) => format!("{:#x}", how.flags),
        };
        let text = format!(
            "openat2({}, {{{flags}, {:#o}, {:#x}}})",
            shown.join(", "),
            how.mode,
            how.resolve
        );
        self.opened_as(&text, calls::OPENAT2, &args);
    }

    /// Makes a call that opens a file, prints all about it, and closes it.
    pub(crate) fn opened(&mut self, syscall: Syscall, args: &[Arg]) {
        let shown: Vec<String> = args.iter().map(|arg| self.printer.arg(arg)).collect();
        let text = format!("{}({})", syscall.name, shown.join(", "));
        self.opened_as(&text, syscall, args);
    }

    fn opened_as(&mut self, text: &str, syscall: Syscall, args: &[Arg]) {
        let free = self.lowest_free();
        let mut answer = self.quiet(syscall, args);
        // openat2(2), EAGAIN: any rename or mount on the system may disturb a walk that must not
        // leave its root, so it is repeated. With RESOLVE_CACHED, EAGAIN is the lasting answer.
        for _ in 0..100 {
            if answer.result == Err(libc::EAGAIN) {
                answer = self.quiet(syscall, args);
            }
        }
        let result = match answer.result.map(fd) {
            Err(errno) => print::errno(errno),
            Ok(opened) => {
                let about = self.about(opened);
                self.quiet(calls::CLOSE, &[Arg::Fd(opened)]);
                match free {
                    Some(free) if free != opened => format!("{about}, not the lowest number"),
                    _ => about,
                }
            }
        };
        self.say(&format!("{text} = {result}"));
    }

    /// Removes a file (a directory with AT_REMOVEDIR), and prints nothing.
    pub(crate) fn quietly_remove(&mut self, file: impl Into<Path>, flags: u32) {
        self.quiet(calls::UNLINKAT, &[Arg::Fd(CWD), path(file), at(flags)]);
    }

    /// The number that the next descriptor must get.
    pub(crate) fn lowest_free(&mut self) -> Option<i32> {
        let duplicate = [1, libc::F_DUPFD.into(), 0].map(Arg::Number);
        let free = self.quiet(calls::FCNTL, &duplicate).result.ok().map(fd)?;
        self.quiet(calls::CLOSE, &[Arg::Fd(free)]);
        Some(free)
    }

    /// The state of a descriptor and its file.
    pub(crate) fn about(&mut self, opened: i32) -> String {
        let mut ask = |command: i32| {
            let args = [opened, command].map(|number| Arg::Number(number.into()));
            let answer = self.quiet(calls::FCNTL, &args);
            answer
                .result
                .map_or(u32::MAX, |flags| u32::try_from(flags).expect("a few flags"))
        };
        let status = print::bits(ask(libc::F_GETFL), OPEN_FLAGS);
        let cloexec = match ask(libc::F_GETFD) {
            0 => "",
            _ => " cloexec",
        };
        let here = [0, libc::SEEK_CUR].map(|number| Arg::Number(number.into()));
        let seek = [&[Arg::Fd(opened)], here.as_slice()].concat();
        let offset = match self.quiet(calls::LSEEK, &seek).result {
            Ok(0) | Err(libc::ESPIPE) => String::new(),
            Ok(offset) => format!(" at {offset}"),
            Err(errno) => format!(" at {}", print::errno(errno)),
        };
        let buffer = Arg::Stat(Place::Heap);
        let answer = self.quiet(calls::FSTAT, &[Arg::Fd(opened), buffer]);
        let file = match answer.result {
            Ok(_) => print::stat(&answer.stat()),
            Err(errno) => print::errno(errno),
        };
        format!("fd [{status}]{cloexec}{offset} {file}")
    }

    /// Makes a call that creates `file`, and shows the file.
    pub(crate) fn made(&mut self, syscall: Syscall, args: &[Arg], dirfd: i32, file: Arg) {
        let look = [
            Arg::Fd(dirfd),
            file,
            Arg::Stat(Place::Heap),
            at(super::NOFOLLOW),
        ];
        self.call_and(syscall, args, |p| p.seen(calls::NEWFSTATAT, &look));
    }

    pub(crate) fn make_directory(&mut self, file: impl Into<Path>, mode: u32) {
        let file = path(file);
        let args = [file.clone(), Arg::Octal(mode)];
        self.made(calls::MKDIR, &args, CWD, file);
    }

    pub(crate) fn make_directory_at(&mut self, fd: i32, file: impl Into<Path>, mode: u32) {
        let file = path(file);
        let args = [Arg::Fd(fd), file.clone(), Arg::Octal(mode)];
        self.made(calls::MKDIRAT, &args, fd, file);
    }

    pub(crate) fn make_node(&mut self, file: impl Into<Path>, mode: u32, device: i64) {
        let file = path(file);
        let args = [file.clone(), Arg::Octal(mode), Arg::Number(device)];
        self.made(calls::MKNOD, &args, CWD, file);
    }

    pub(crate) fn make_node_at(&mut self, fd: i32, file: impl Into<Path>, mode: u32, device: i64) {
        let file = path(file);
        let args = [
            Arg::Fd(fd),
            file.clone(),
            Arg::Octal(mode),
            Arg::Number(device),
        ];
        self.made(calls::MKNODAT, &args, fd, file);
    }

    pub(crate) fn make_link(&mut self, target: &[u8], file: impl Into<Path>) {
        let file = path(file);
        let args = [Arg::Text(target.to_vec()), file.clone()];
        self.made(calls::SYMLINK, &args, CWD, file);
    }

    pub(crate) fn make_link_at(&mut self, target: &[u8], fd: i32, file: impl Into<Path>) {
        let file = path(file);
        let args = [Arg::Text(target.to_vec()), Arg::Fd(fd), file.clone()];
        self.made(calls::SYMLINKAT, &args, fd, file);
    }

    /// Opens an unnamed file in `directory`, and links it to the name `file`.
    pub(crate) fn temporary(&mut self, directory: &[u8], flags: i32, mode: u32, file: &[u8]) {
        let args = [
            Arg::Fd(CWD),
            path(directory),
            flags_of_open(libc::O_TMPFILE | flags),
            Arg::Octal(mode),
        ];
        let shown: Vec<String> = args.iter().map(|arg| self.printer.arg(arg)).collect();
        let answer = self.quiet(calls::OPENAT, &args);
        let opened = match answer.result.map(fd) {
            Ok(opened) => opened,
            Err(errno) => {
                let errno = print::errno(errno);
                return self.say(&format!("openat({}) = {errno}", shown.join(", ")));
            }
        };
        let about = self.about(opened);
        self.say(&format!("openat({}) = {about}", shown.join(", ")));
        let name = format!("/proc/self/fd/{opened}");
        let args = [
            Arg::Fd(CWD),
            path(&name),
            Arg::Fd(CWD),
            path(file),
            at(libc::AT_SYMLINK_FOLLOW.cast_unsigned()),
        ];
        let linked = self.quiet(calls::LINKAT, &args);
        let look = [path(file), Arg::Stat(Place::Heap)];
        let seen = self.seen(calls::LSTAT, &look);
        let name = self.printer.path(file);
        self.say(&format!("  named {name} = {}{seen}", result(&linked)));
        self.quiet(calls::CLOSE, &[Arg::Fd(opened)]);
    }

    /// Creates a Unix socket with the descriptor `number`.
    pub(crate) fn socket(&mut self, kind: i32, number: i32) {
        let args = [libc::AF_UNIX, kind, 0].map(|word| Arg::Number(word.into()));
        match self.quiet(calls::SOCKET, &args).result.map(fd) {
            Ok(socket) => self.keep(socket, number),
            Err(errno) => self.say(&format!("no socket: {}", print::errno(errno))),
        }
    }

    /// Binds the socket `number` to `file`, and shows both.
    pub(crate) fn bind_to(&mut self, number: i32, file: &[u8]) {
        let address = unix_address(file);
        let length = i64::try_from(address.len()).expect("a short address");
        let shown = self.printer.path(file);
        let answer = self.quiet(
            calls::BIND,
            &[Arg::Fd(number), Arg::Input(address), Arg::Number(length)],
        );
        let seen = match answer.result {
            Ok(_) => self.seen(calls::LSTAT, &[path(file), Arg::Stat(Place::Heap)]),
            Err(_) => String::new(),
        };
        self.say(&format!(
            "bind({number}, {shown}) = {}{seen}",
            result(&answer)
        ));
        self.socket_name(number);
    }

    /// Connects the socket `number` to the one that is bound to `file`.
    pub(crate) fn connect(&mut self, number: i32, file: &[u8]) {
        let address = unix_address(file);
        let length = Arg::Number(i64::try_from(address.len()).expect("a short address"));
        let args = [Arg::Fd(number), Arg::Input(address), length];
        let answer = self.quiet(calls::CONNECT, &args);
        let shown = self.printer.path(file);
        self.say(&format!("connect({number}, {shown}) = {}", result(&answer)));
    }

    /// Prints a socket's name, up to the length that the kernel returns.
    pub(crate) fn socket_name(&mut self, number: i32) {
        let room = Arg::Output(128, Place::Heap);
        let length = Arg::Words(vec![128], Place::Heap);
        let answer = self.quiet(calls::GETSOCKNAME, &[Arg::Fd(number), room, length]);
        let length = answer.words(2)[0];
        let bytes = answer.bytes_of(1);
        let name = &bytes[..bytes.len().min(length as usize)];
        let shown = self.printer.path(name.get(2..).unwrap_or_default());
        self.say(&format!(
            "  getsockname({number}) = {} {shown}",
            result(&answer)
        ));
    }
}

/// struct sockaddr_un, with a NUL after the path.
pub(crate) fn unix_address(file: &[u8]) -> Vec<u8> {
    let family = libc::sa_family_t::try_from(libc::AF_UNIX).expect("a small number");
    [&family.to_ne_bytes(), file, b"\0".as_slice()].concat()
}

fn result(answer: &Answer) -> String {
    print::answer(answer, &[])
}
