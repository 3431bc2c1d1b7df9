//! The probe's only unsafe room: a system call with typed arguments, made raw, so that no libc wrapper checks, follows
//! or rewrites anything on the way. Good and bad memory is laid out here (see [`Place`]); what a call means, and how it
//! is printed, is the business of the other rooms.

use libc::{c_int, c_long};

/// A system call that [`invoke`] may make. Only this file can make one up: `invoke` is sound for the calls listed in
/// [`calls`], which touch no memory but what their arguments name.
#[derive(Clone, Copy)]
pub(crate) struct Syscall {
    pub(crate) name: &'static str,
    number: c_long,
}

/// The calls of the probe. An architecture without one of them answers ENOSYS, in the oracle as well.
pub(crate) mod calls {
    use super::Syscall;

    macro_rules! every_architecture {
        ($($constant:ident $name:ident $number:ident;)*) => {$(
            pub(crate) const $constant: Syscall = Syscall { name: stringify!($name), number: libc::$number };
        )*};
    }

    macro_rules! x86_only {
        ($($constant:ident $name:ident $number:ident;)*) => {$(
            #[cfg(target_arch = "x86_64")]
            pub(crate) const $constant: Syscall = Syscall { name: stringify!($name), number: libc::$number };
            #[cfg(not(target_arch = "x86_64"))]
            pub(crate) const $constant: Syscall = Syscall { name: stringify!($name), number: -1 };
        )*};
    }

    x86_only! {
        CHOWN chown SYS_chown;
        LCHOWN lchown SYS_lchown;
        STAT stat SYS_stat;
        LSTAT lstat SYS_lstat;
    }

    every_architecture! {
        FCHOWN fchown SYS_fchown;
        FCHOWNAT fchownat SYS_fchownat;
        FSTAT fstat SYS_fstat;
        NEWFSTATAT newfstatat SYS_newfstatat;
        STATX statx SYS_statx;
        FCHMOD fchmod SYS_fchmod;
        FCHMODAT fchmodat SYS_fchmodat;
        LINKAT linkat SYS_linkat;
        RENAMEAT2 renameat2 SYS_renameat2;
        UNLINKAT unlinkat SYS_unlinkat;
        MKDIRAT mkdirat SYS_mkdirat;
        SYMLINKAT symlinkat SYS_symlinkat;
        MKNODAT mknodat SYS_mknodat;
        OPENAT openat SYS_openat;
        CLOSE close SYS_close;
        DUP3 dup3 SYS_dup3;
        TRUNCATE truncate SYS_truncate;
        FTRUNCATE ftruncate SYS_ftruncate;
        WRITE write SYS_write;
        READ read SYS_read;
        CHDIR chdir SYS_chdir;
        FCHDIR fchdir SYS_fchdir;
        CHROOT chroot SYS_chroot;
        UMASK umask SYS_umask;
        SOCKET socket SYS_socket;
        BIND bind SYS_bind;
        EVENTFD2 eventfd2 SYS_eventfd2;
        MEMFD_CREATE memfd_create SYS_memfd_create;
        SETXATTR setxattr SYS_setxattr;
        GETXATTR getxattr SYS_getxattr;
        INOTIFY_INIT1 inotify_init1 SYS_inotify_init1;
        INOTIFY_ADD_WATCH inotify_add_watch SYS_inotify_add_watch;
        UNSHARE unshare SYS_unshare;
        MOUNT mount SYS_mount;
        UMOUNT2 umount2 SYS_umount2;
        PIVOT_ROOT pivot_root SYS_pivot_root;
    }
}

/// Where the memory of an argument lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Heap,
    /// Ends with the last byte of a mapped page; the next page is PROT_NONE.
    PageEnd,
    /// As `PageEnd`, but a string has no NUL and a buffer is cut off in its middle.
    Cut,
    ReadOnly,
    Unmapped,
    Null,
    One,
    /// An address of the kernel's half.
    Kernel,
    /// An address that no x86-64 page can have.
    NonCanonical,
}

/// One argument of a system call. The variant decides how it is passed and how it is printed.
#[derive(Clone)]
pub(crate) enum Arg {
    Fd(i32),
    /// A file descriptor whose number is left out of the output.
    HiddenFd(i32),
    Id(u32),
    Octal(u32),
    Number(i64),
    /// A register as it is, the upper half included.
    Word(u64),
    Bits(u32, &'static [(u32, &'static str)]),
    /// The mask of statx(2); it says which of the fields are printed.
    Mask(u32),
    Path(Vec<u8>, Place),
    /// A string that is neither replaced nor shortened in the output, such as a link's target.
    Text(Vec<u8>),
    /// Bytes that the kernel reads.
    Input(Vec<u8>),
    /// Bytes that the kernel writes; they are not printed.
    Output(usize),
    Stat(Place),
    Statx(Place),
}

/// What the kernel answered. `bytes` is what it wrote to the call's output buffer.
pub(crate) struct Answer {
    pub(crate) result: Result<i64, i32>,
    bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn output(&self) -> &[u8] {
        let length = self
            .result
            .ok()
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(0);
        &self.bytes[..length.min(self.bytes.len())]
    }

    pub(crate) fn stat(&self) -> libc::stat {
        assert!(self.bytes.len() >= size_of::<libc::stat>());
        // SAFETY: the buffer is long enough, and every bit pattern is a valid `stat`.
        unsafe { std::ptr::read_unaligned(self.bytes.as_ptr().cast()) }
    }

    pub(crate) fn statx(&self) -> libc::statx {
        assert!(self.bytes.len() >= size_of::<libc::statx>());
        // SAFETY: the buffer is long enough, and every bit pattern is a valid `statx`.
        unsafe { std::ptr::read_unaligned(self.bytes.as_ptr().cast()) }
    }
}

const PAGE: usize = 4096;
/// Per argument: two pages to read and write, one PROT_NONE, one read-only.
const REGION: usize = 4 * PAGE;

/// Mapped pages with holes, a region for each of the six arguments. Never unmapped, so the address stays good.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    base: usize,
}

impl Memory {
    pub(crate) fn new() -> Memory {
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping replaces nothing.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), 6 * REGION, access, anonymous, -1, 0) };
        assert!(map != libc::MAP_FAILED, "mmap failed");
        let base = map.expose_provenance();
        for region in 0..6 {
            let none = std::ptr::with_exposed_provenance_mut(base + region * REGION + 2 * PAGE);
            let read_only =
                std::ptr::with_exposed_provenance_mut(base + region * REGION + 3 * PAGE);
            // SAFETY: the page belongs to the mapping made above, which nothing refers to yet.
            let closed = unsafe { libc::mprotect(none, PAGE, libc::PROT_NONE) };
            // SAFETY: as above.
            let locked = unsafe { libc::mprotect(read_only, PAGE, libc::PROT_READ) };
            assert_eq!((closed, locked), (0, 0), "mprotect failed");
        }
        Memory { base }
    }

    /// The address for `contents` as argument `index`. `heap` is the caller's own copy of them.
    fn lay_out(self, index: usize, contents: &[u8], place: Place, heap: &mut Vec<u8>) -> usize {
        let hole = self.base + index * REGION + 2 * PAGE;
        let start = match place {
            Place::Heap => {
                heap.extend_from_slice(contents);
                return heap.as_mut_ptr().expose_provenance();
            }
            Place::PageEnd => hole - contents.len(),
            // Half of it lies before the hole; 8 keeps the address aligned for a `stat`.
            Place::Cut => hole - contents.len() / 2 / 8 * 8,
            Place::ReadOnly => return hole + PAGE,
            Place::Unmapped => return hole,
            Place::Null => return 0,
            Place::One => return 1,
            Place::Kernel => return 0xffff_8880_0000_0000,
            Place::NonCanonical => return 1 << 63,
        };
        let inside = &contents[..contents.len().min(hole - start)];
        assert!(inside.len() <= 2 * PAGE);
        let target = std::ptr::with_exposed_provenance_mut::<u8>(start);
        // SAFETY: `start` and `inside.len()` bytes after it lie in the region's two writable pages, which only `invoke`
        // uses, and its callers hold the Probe exclusively.
        unsafe { std::ptr::copy_nonoverlapping(inside.as_ptr(), target, inside.len()) };
        start
    }
}

/// Makes one system call.
pub(crate) fn invoke(memory: Memory, syscall: Syscall, args: &[Arg]) -> Answer {
    let mut words = [0_i64; 6];
    let mut heap: [Vec<u8>; 6] = Default::default();
    let mut output = None;
    for (index, arg) in args.iter().enumerate() {
        let mut put = |contents: &[u8], place| {
            signed(memory.lay_out(index, contents, place, &mut heap[index]))
        };
        words[index] = match arg {
            Arg::Fd(fd) | Arg::HiddenFd(fd) => i64::from(*fd),
            Arg::Id(bits) | Arg::Octal(bits) | Arg::Bits(bits, _) | Arg::Mask(bits) => {
                i64::from(*bits)
            }
            Arg::Number(number) => *number,
            Arg::Word(word) => i64::from_ne_bytes(word.to_ne_bytes()),
            // A string that is cut has its bytes up to the very end of the page.
            Arg::Path(path, Place::Cut) => put(path, Place::PageEnd),
            Arg::Path(path, place) => put(&[path, b"\0".as_slice()].concat(), *place),
            Arg::Text(text) => put(&[text, b"\0".as_slice()].concat(), Place::Heap),
            Arg::Input(bytes) => put(bytes, Place::Heap),
            Arg::Output(_) | Arg::Stat(_) | Arg::Statx(_) => {
                let (length, place) = match arg {
                    Arg::Stat(place) => (size_of::<libc::stat>(), *place),
                    Arg::Statx(place) => (size_of::<libc::statx>(), *place),
                    Arg::Output(length) => (*length, Place::Heap),
                    _ => unreachable!("matched above"),
                };
                output = Some((index, place, length));
                put(&vec![0; length], place)
            }
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: each pointer among the words leads to the matching `heap` buffer or to the pages of `memory`, both of
    // which outlive the call and are as long as the kernel is told, or to an address that no Rust object has.
    let value = unsafe { libc::syscall(syscall.number, a, b, c, d, e, f) };
    let result = if value == -1 { Err(errno()) } else { Ok(value) };
    let bytes = match output {
        Some((index, Place::Heap, _)) => std::mem::take(&mut heap[index]),
        Some((index, Place::PageEnd, length)) => memory.copy_of_page_end(index, length),
        _ => Vec::new(),
    };
    Answer { result, bytes }
}

impl Memory {
    fn copy_of_page_end(self, index: usize, length: usize) -> Vec<u8> {
        let start =
            std::ptr::with_exposed_provenance::<u8>(self.base + index * REGION + 2 * PAGE - length);
        // SAFETY: the bytes lie in the region's two writable pages, and no reference to them outlives this line.
        unsafe { std::slice::from_raw_parts(start, length) }.to_vec()
    }
}

fn signed(address: usize) -> i64 {
    i64::from_ne_bytes((address as u64).to_ne_bytes())
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Writes a line to standard output at once: children and threads share no buffer, and a crash loses nothing.
pub(crate) fn write_line(line: &[u8]) {
    let mut rest = line;
    while !rest.is_empty() {
        // SAFETY: the pointer and the length are those of one slice.
        let written = unsafe { libc::write(1, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) => rest = &rest[written..],
            // Nobody reads any more: there is no one to tell.
            Err(_) => exit(141),
        }
    }
}

/// How a child shares memory with its parent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    Nothing,
    /// `clone(CLONE_VM | CLONE_VFORK)`: the parent stands still until the child has ended.
    Memory,
}

/// Runs `work` in a child process, waits for it, and returns its raw wait status.
pub(crate) fn in_child(sharing: Sharing, mut work: impl FnMut()) -> c_int {
    let mut work: &mut dyn FnMut() = &mut work;
    let pid = match sharing {
        // SAFETY: the probe has no other thread at this point, so the child may go on with any code.
        Sharing::Nothing => match unsafe { libc::fork() } {
            0 => run_and_exit((&raw mut work).cast()),
            pid => pid,
        },
        Sharing::Memory => {
            let mut stack = vec![0_u128; 1 << 16];
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let top = stack.as_mut_ptr_range().end;
            // SAFETY: the stack and `work` outlive the child, since CLONE_VFORK holds us here until it has ended;
            // nothing else runs in this memory meanwhile.
            unsafe { libc::clone(run_and_exit, top.cast(), flags, (&raw mut work).cast()) }
        }
    };
    assert!(pid > 0, "no child: errno {}", errno());
    let mut status = 0;
    // SAFETY: `status` is ours for the time of the call.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "waitpid: errno {}", errno());
    status
}

/// The child's side of [`in_child`]; `work` points to a `&mut dyn FnMut()`.
extern "C" fn run_and_exit(work: *mut libc::c_void) -> c_int {
    // SAFETY: `in_child` passes the address of such a reference, which lives until the child has ended.
    let work = unsafe { &mut *work.cast::<&mut dyn FnMut()>() };
    let ended_well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
    exit(if ended_well { 0 } else { 101 })
}

/// Ends the process without running destructors or exit handlers.
pub(crate) fn exit(status: c_int) -> ! {
    // SAFETY: ending the process leaves no memory behind to be unsound.
    unsafe { libc::_exit(status) }
}

/// Ends the calling thread alone, as `pthread_exit` of a process's first thread does.
pub(crate) fn exit_thread() -> ! {
    loop {
        // SAFETY: the thread never comes back, so nothing sees its stack half done; other threads of this process hold
        // no reference into it.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

pub(crate) fn process_id() -> i32 {
    // SAFETY: getpid(2) takes no arguments and cannot fail.
    unsafe { libc::getpid() }
}

pub(crate) fn thread_id() -> i32 {
    // SAFETY: gettid(2) takes no arguments and cannot fail.
    unsafe { libc::gettid() }
}
