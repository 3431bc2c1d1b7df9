//! The functions of the C library whose names this library has taken, for what only they can do.
//!
//! They are looked up in the symbol tables of the loaded objects behind this one, as dlsym(3) does
//! with RTLD_NEXT: older C libraries have dlsym in another file. That happens once, when this
//! library is loaded: later, in the child of fork(2) for instance, another thread may hold the
//! loader's lock.

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::message::{Message, Numbered};
use super::raw::{call, int, number, to_worker};
use super::{EINTR, ENOSYS, errno, long_result, result, set_errno};

// Weak, as `__errno_location` is.
core::arch::global_asm!(".weak dl_iterate_phdr");

type Callback = extern "C" fn(*const Loaded, usize, *mut c_void) -> c_int;

unsafe extern "C" {
    /// dl_iterate_phdr(3): glibc and musl.
    fn dl_iterate_phdr(callback: Callback, search: *mut c_void) -> c_int;
}

/// The beginning of `struct dl_phdr_info`.
#[repr(C)]
struct Loaded {
    base: usize,
    name: *const c_char,
    headers: *const Header,
    count: u16,
}

/// `Elf64_Phdr`
#[repr(C)]
struct Header {
    kind: u32,
    flags: u32,
    offset: usize,
    address: usize,
    physical: usize,
    file_size: usize,
    memory_size: usize,
    align: usize,
}

/// `Elf64_Sym`
#[repr(C)]
#[derive(Clone, Copy)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    size: usize,
}

/// A function of libc, and ours in its place.
struct Function {
    name: &'static [u8],
    hash: u32,
    /// This library's function of that name; only objects behind it count.
    own: *const (),
    known: AtomicPtr<c_void>,
}

// SAFETY: `own` is the address of a function, which never changes.
unsafe impl Sync for Function {}

impl Function {
    const fn new(name: &'static [u8], own: *const ()) -> Self {
        let mut hash = 5381u32;
        let mut rest = name;
        while let [byte, behind @ ..] = rest {
            hash = hash.wrapping_mul(33).wrapping_add(*byte as u32);
            rest = behind;
        }
        Self {
            name,
            hash,
            own,
            known: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// libc's function. `None`: there is none.
    fn find(&self) -> Option<*mut c_void> {
        let mut known = self.known.load(Ordering::Relaxed);
        if known.is_null() && !IS_DONE.load(Ordering::Relaxed) {
            // Called before this library's turn to begin.
            look_up();
            known = self.known.load(Ordering::Relaxed);
        }
        (!known.is_null()).then_some(known)
    }
}

static OPEN: Function = Function::new(b"open", super::create::open as *const ());
static OPENAT: Function = Function::new(b"openat", super::create::openat as *const ());
static FCHMODAT: Function = Function::new(b"fchmodat", super::change::fchmodat as *const ());
static FACCESSAT: Function = Function::new(b"faccessat", super::change::faccessat as *const ());
static OPENDIR: Function = Function::new(b"opendir", super::directory::opendir as *const ());
static FDOPENDIR: Function = Function::new(b"fdopendir", super::directory::fdopendir as *const ());
static CREAT: Function = Function::new(b"creat", super::create::creat as *const ());
static MKFIFO: Function = Function::new(b"mkfifo", super::create::mkfifo as *const ());
static MKFIFOAT: Function = Function::new(b"mkfifoat", super::create::mkfifoat as *const ());
static STAT: Function = Function::new(b"stat", super::stat::stat as *const ());
static LSTAT: Function = Function::new(b"lstat", super::stat::lstat as *const ());
static FSTAT: Function = Function::new(b"fstat", super::stat::fstat as *const ());
static FSTATAT: Function = Function::new(b"fstatat", super::stat::fstatat as *const ());
static CONNECT: Function = Function::new(b"connect", super::path::connect as *const ());
static SENDMSG: Function = Function::new(b"sendmsg", super::message::sendmsg as *const ());
static RECVMSG: Function = Function::new(b"recvmsg", super::message::recvmsg as *const ());
static SENDMMSG: Function = Function::new(b"sendmmsg", super::message::sendmmsg as *const ());
static RECVMMSG: Function = Function::new(b"recvmmsg", super::message::recvmmsg as *const ());
static OPEN_2: Function = Function::new(b"__open64_2", super::create::__open64_2 as *const ());
static OPENAT_2: Function =
    Function::new(b"__openat64_2", super::create::__openat64_2 as *const ());
static ALL: [&Function; 20] = [
    &OPEN, &OPENAT, &FCHMODAT, &FACCESSAT, &OPENDIR, &FDOPENDIR, &CREAT, &MKFIFO, &MKFIFOAT, &STAT,
    &LSTAT, &FSTAT, &FSTATAT, &CONNECT, &SENDMSG, &RECVMSG, &SENDMMSG, &RECVMMSG, &OPEN_2,
    &OPENAT_2,
];
/// All that there are have been found.
static IS_DONE: AtomicBool = AtomicBool::new(false);

/// Looks all functions up.
pub(super) fn look_up() {
    let iterate = dl_iterate_phdr as *const ();
    if iterate.is_null() {
        return;
    }
    let mut is_behind = false;
    // SAFETY: `look` takes what it is given here.
    unsafe { dl_iterate_phdr(look, (&raw mut is_behind).cast()) };
    IS_DONE.store(true, Ordering::Relaxed);
}

extern "C" fn look(loaded: *const Loaded, _: usize, is_behind: *mut c_void) -> c_int {
    // SAFETY: it is valid during the call.
    let loaded = unsafe { &*loaded };
    // SAFETY: it is what `look_up` has passed on.
    let is_behind = unsafe { &mut *is_behind.cast::<bool>() };
    // SAFETY: the object is loaded.
    let Some(tables) = (unsafe { Tables::of(loaded) }) else {
        return 0;
    };
    if !*is_behind {
        // SAFETY: it stays loaded during the call.
        *is_behind = unsafe { tables.find(&OPEN) } == Some(OPEN.own.addr());
        return 0;
    }
    let mut is_missing = false;
    for function in &ALL {
        if !function.known.load(Ordering::Relaxed).is_null() {
            continue;
        }
        // SAFETY: it stays loaded during the call.
        match unsafe { tables.find(function) } {
            Some(found) => {
                let found = ptr::with_exposed_provenance_mut(found);
                function.known.store(found, Ordering::Relaxed);
            }
            None => is_missing = true,
        }
    }
    c_int::from(!is_missing)
}

/// The tables of a loaded object: elf(5), and the hash table of GNU.
struct Tables {
    base: usize,
    symbols: *const Symbol,
    names: *const u8,
    hashes: *const u32,
}

impl Tables {
    /// # Safety
    ///
    /// The object is loaded.
    unsafe fn of(loaded: &Loaded) -> Option<Self> {
        const PT_DYNAMIC: u32 = 2;
        const DT_STRTAB: usize = 5;
        const DT_SYMTAB: usize = 6;
        const DT_GNU_HASH: usize = 0x6fff_fef5;
        let count = usize::from(loaded.count);
        // SAFETY: the loader says so.
        let headers = unsafe { core::slice::from_raw_parts(loaded.headers, count) };
        let dynamic = headers.iter().find(|header| header.kind == PT_DYNAMIC)?;
        let mut entry: *const [usize; 2] =
            ptr::with_exposed_provenance(loaded.base + dynamic.address);
        let mut found = [0; 3];
        loop {
            // SAFETY: the list ends with an entry of 0.
            let [tag, value] = unsafe { entry.read() };
            let place = match tag {
                0 => break,
                DT_SYMTAB => 0,
                DT_STRTAB => 1,
                DT_GNU_HASH => 2,
                _ => 3,
            };
            // glibc has made addresses of them, musl has not.
            let address = if value < loaded.base {
                loaded.base + value
            } else {
                value
            };
            if let Some(place) = found.get_mut(place) {
                *place = address;
            }
            entry = entry.wrapping_add(1);
        }
        let [symbols, names, hashes] = found;
        (!found.contains(&0)).then_some(Self {
            base: loaded.base,
            symbols: ptr::with_exposed_provenance(symbols),
            names: ptr::with_exposed_provenance(names),
            hashes: ptr::with_exposed_provenance(hashes),
        })
    }

    /// # Safety
    ///
    /// The object is loaded.
    unsafe fn find(&self, function: &Function) -> Option<usize> {
        const HEADER: usize = 4;
        let Function { name, hash, .. } = *function;
        let word = |index: usize| {
            // SAFETY: within the table, as its own numbers say.
            unsafe { self.hashes.wrapping_add(index).read() }
        };
        let (buckets, first) = (word(0), word(1));
        let bloom_words = word(2) as usize * size_of::<usize>() / size_of::<u32>();
        if buckets == 0 {
            return None;
        }
        let mut index = word(HEADER + bloom_words + (hash % buckets) as usize);
        if index < first {
            return None;
        }
        loop {
            let chain = HEADER + bloom_words + buckets as usize + (index - first) as usize;
            let known = word(chain);
            // SAFETY: each hash has a symbol.
            let symbol = unsafe { self.symbols.wrapping_add(index as usize).read() };
            // SAFETY: the name ends with a NUL.
            let is_it = known | 1 == hash | 1 && unsafe { self.has_name(symbol, name) };
            if is_it && symbol.section != 0 {
                return Some(self.base + symbol.value);
            }
            if known & 1 != 0 {
                return None;
            }
            index += 1;
        }
    }

    /// # Safety
    ///
    /// The symbol is one of the object's.
    unsafe fn has_name(&self, symbol: Symbol, name: &[u8]) -> bool {
        let start = self.names.wrapping_add(symbol.name as usize);
        let bytes = name.iter().chain(&[0]).enumerate();
        // SAFETY: up to the first byte that differs, the name goes on.
        bytes
            .into_iter()
            .all(|(index, byte)| unsafe { start.wrapping_add(index).read() } == *byte)
    }
}

/// A function of the C library, with its type.
macro_rules! next {
    ($function:ident, $type:ty) => {{
        let found = $function.find();
        // SAFETY: the C library's function of this name has this type.
        found.map(|found| unsafe { transmute::<*mut c_void, $type>(found) })
    }};
}

type Open = unsafe extern "C" fn(*const c_char, c_int, ...) -> c_int;
type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, ...) -> c_int;
type Make = unsafe extern "C" fn(*const c_char, c_uint) -> c_int;
type MakeAt = unsafe extern "C" fn(c_int, *const c_char, c_uint) -> c_int;
type At = unsafe extern "C" fn(c_int, *const c_char, c_uint, c_int) -> c_int;

/// `mark` stands in the register of the sixth argument, which the C library leaves alone on the way
/// to its call, unless the program has several threads: then the worker sees the call.
pub(super) fn open(path: *const c_char, flags: c_int, mode: c_uint, mark: usize) -> c_int {
    match next!(OPEN, Open) {
        // SAFETY: as the program calls it; further arguments are ignored.
        Some(open) => unsafe { open(path, flags, mode, 0usize, 0usize, mark) },
        None => {
            let at = int(super::file::AT_FDCWD);
            let path = path.expose_provenance();
            let arguments = [at, path, int(flags), mode as usize, 0];
            result(to_worker(number::OPENAT, arguments))
        }
    }
}

/// As [`open`].
pub(super) fn openat(
    dirfd: c_int,
    path: *const c_char,
    flags: c_int,
    mode: c_uint,
    mark: usize,
) -> c_int {
    match next!(OPENAT, OpenAt) {
        // SAFETY: as the program calls it; further arguments are ignored.
        Some(openat) => unsafe { openat(dirfd, path, flags, mode, 0usize, mark) },
        None => {
            let path = path.expose_provenance();
            let arguments = [int(dirfd), path, int(flags), mode as usize, 0];
            result(to_worker(number::OPENAT, arguments))
        }
    }
}

/// As [`open`].
pub(super) fn connect(socket: c_int, address: *const c_void, length: c_uint, mark: usize) -> c_int {
    type Connect = unsafe extern "C" fn(c_int, *const c_void, c_uint, usize, usize, usize) -> c_int;
    match next!(CONNECT, Connect) {
        // SAFETY: as the program calls it; further arguments are ignored.
        Some(connect) => unsafe { connect(socket, address, length, 0, 0, mark) },
        None => result(ENOSYS),
    }
}

/// open(2) of programs that were compiled with _FORTIFY_SOURCE. musl has no such function.
pub(super) fn open_2(path: *const c_char, flags: c_int, mark: usize) -> c_int {
    type Open2 = unsafe extern "C" fn(*const c_char, c_int, usize, usize, usize, usize) -> c_int;
    match next!(OPEN_2, Open2) {
        // SAFETY: as the program calls it; further arguments are ignored.
        Some(open) => unsafe { open(path, flags, 0, 0, 0, mark) },
        None => open(path, flags, 0, mark),
    }
}

/// As [`open_2`].
pub(super) fn openat_2(dirfd: c_int, path: *const c_char, flags: c_int, mark: usize) -> c_int {
    type OpenAt2 = unsafe extern "C" fn(c_int, *const c_char, c_int, usize, usize, usize) -> c_int;
    match next!(OPENAT_2, OpenAt2) {
        // SAFETY: as the program calls it; further arguments are ignored.
        Some(openat) => unsafe { openat(dirfd, path, flags, 0, 0, mark) },
        None => openat(dirfd, path, flags, 0, mark),
    }
}

/// Begins a call anew that a signal has interrupted, which natively does not happen.
fn again(call: impl Fn() -> c_int) -> c_int {
    loop {
        let result = call();
        if result >= 0 || errno() != EINTR {
            return result;
        }
    }
}

pub(super) fn creat(path: *const c_char, mode: c_uint) -> c_int {
    match next!(CREAT, Make) {
        // SAFETY: as the program calls it.
        Some(creat) => unsafe { creat(path, mode) },
        None => result(to_worker(
            number::CREAT,
            [path.expose_provenance(), mode as usize, 0, 0, 0],
        )),
    }
}

pub(super) fn fchmodat(dirfd: c_int, path: *const c_char, mode: c_uint, flags: c_int) -> c_int {
    match next!(FCHMODAT, At) {
        // SAFETY: as the program calls it.
        Some(fchmodat) => again(|| unsafe { fchmodat(dirfd, path, mode, flags) }),
        None => result(ENOSYS),
    }
}

pub(super) fn faccessat(dirfd: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int {
    match next!(FACCESSAT, At) {
        // SAFETY: as the program calls it.
        Some(faccessat) => again(|| unsafe { faccessat(dirfd, path, mode.cast_unsigned(), flags) }),
        None => result(ENOSYS),
    }
}

pub(super) fn mkfifo(path: *const c_char, mode: c_uint) -> c_int {
    match next!(MKFIFO, Make) {
        // SAFETY: as the program calls it.
        Some(mkfifo) => again(|| unsafe { mkfifo(path, mode) }),
        None => result(ENOSYS),
    }
}

pub(super) fn mkfifoat(dirfd: c_int, path: *const c_char, mode: c_uint) -> c_int {
    match next!(MKFIFOAT, MakeAt) {
        // SAFETY: as the program calls it.
        Some(mkfifoat) => again(|| unsafe { mkfifoat(dirfd, path, mode) }),
        None => result(ENOSYS),
    }
}

// glibc has had the functions of stat(2) since 2.33. Before, the calls were these.

type Stat = unsafe extern "C" fn(*const c_char, *mut c_void) -> c_int;

pub(super) fn stat(path: *const c_char, buffer: *mut c_void) -> c_int {
    stat_by(&STAT, number::STAT, path, buffer)
}

pub(super) fn lstat(path: *const c_char, buffer: *mut c_void) -> c_int {
    stat_by(&LSTAT, number::LSTAT, path, buffer)
}

/// `function` is one of the two, and `number` its call.
fn stat_by(function: &Function, number: usize, path: *const c_char, buffer: *mut c_void) -> c_int {
    match next!(function, Stat) {
        // SAFETY: as the program calls it.
        Some(stat) => again(|| unsafe { stat(path, buffer) }),
        None => {
            let (path, buffer) = (path.expose_provenance(), buffer.expose_provenance());
            result(to_worker(number, [path, buffer, 0, 0, 0]))
        }
    }
}

pub(super) fn fstat(fd: c_int, buffer: *mut c_void) -> c_int {
    match next!(FSTAT, unsafe extern "C" fn(c_int, *mut c_void) -> c_int) {
        // SAFETY: as the program calls it.
        Some(fstat) => again(|| unsafe { fstat(fd, buffer) }),
        None => {
            let arguments = [int(fd), buffer.expose_provenance(), 0, 0, 0];
            result(to_worker(number::FSTAT, arguments))
        }
    }
}

type StatAt = unsafe extern "C" fn(c_int, *const c_char, *mut c_void, c_int) -> c_int;

pub(super) fn fstatat(
    dirfd: c_int,
    path: *const c_char,
    buffer: *mut c_void,
    flags: c_int,
) -> c_int {
    match next!(FSTATAT, StatAt) {
        // SAFETY: as the program calls it.
        Some(fstatat) => again(|| unsafe { fstatat(dirfd, path, buffer, flags) }),
        None => {
            let (path, buffer) = (path.expose_provenance(), buffer.expose_provenance());
            let arguments = [int(dirfd), path, buffer, int(flags), 0];
            result(to_worker(number::NEWFSTATAT, arguments))
        }
    }
}

/// opendir(3) and fdopendir(3), called as functions with six arguments, the last of which is the
/// mark.
///
/// In both, the C library asks by fstat(2) whether it is a directory, of which nothing is emulated.
/// Up to there, it leaves the register of the sixth argument alone, so that the filter allows the
/// call. Otherwise the worker answers it.
type Marked<T> = unsafe extern "C" fn(T, usize, usize, usize, usize, usize) -> *mut c_void;

pub(super) fn opendir(path: *const c_char, mark: usize) -> *mut c_void {
    match next!(OPENDIR, Marked<*const c_char>) {
        // SAFETY: as the program calls it; further arguments are ignored.
        Some(opendir) => unsafe { opendir(path, 0, 0, 0, 0, mark) },
        None => nothing(),
    }
}

pub(super) fn fdopendir(fd: c_int, mark: usize) -> *mut c_void {
    match next!(FDOPENDIR, Marked<c_int>) {
        // SAFETY: as the program calls it; further arguments are ignored.
        Some(fdopendir) => unsafe { fdopendir(fd, 0, 0, 0, 0, mark) },
        None => nothing(),
    }
}

// Cancellation points (pthreads(7)), and interrupted by signals as libc has it.

pub(super) fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize {
    type Send = unsafe extern "C" fn(c_int, *const Message, c_int) -> isize;
    match next!(SENDMSG, Send) {
        // SAFETY: as the program calls it.
        Some(sendmsg) => unsafe { sendmsg(fd, message, flags) },
        None => {
            let message = message.expose_provenance();
            long_result(call(
                number::SENDMSG,
                [int(fd), message, int(flags), 0, 0, 0],
            ))
        }
    }
}

pub(super) fn recvmsg(fd: c_int, message: *mut Message, flags: c_int) -> isize {
    type Receive = unsafe extern "C" fn(c_int, *mut Message, c_int) -> isize;
    match next!(RECVMSG, Receive) {
        // SAFETY: as the program calls it.
        Some(recvmsg) => unsafe { recvmsg(fd, message, flags) },
        None => {
            let message = message.expose_provenance();
            long_result(call(
                number::RECVMSG,
                [int(fd), message, int(flags), 0, 0, 0],
            ))
        }
    }
}

pub(super) fn sendmmsg(fd: c_int, messages: *mut Numbered, count: c_uint, flags: c_int) -> c_int {
    type Send = unsafe extern "C" fn(c_int, *mut Numbered, c_uint, c_int) -> c_int;
    match next!(SENDMMSG, Send) {
        // SAFETY: as the program calls it.
        Some(sendmmsg) => unsafe { sendmmsg(fd, messages, count, flags) },
        None => {
            let messages = messages.expose_provenance();
            let arguments = [int(fd), messages, count as usize, int(flags), 0, 0];
            result(call(number::SENDMMSG, arguments))
        }
    }
}

pub(super) fn recvmmsg(
    fd: c_int,
    messages: *mut Numbered,
    count: c_uint,
    flags: c_int,
    limit: *mut c_void,
) -> c_int {
    type Receive = unsafe extern "C" fn(c_int, *mut Numbered, c_uint, c_int, *mut c_void) -> c_int;
    match next!(RECVMMSG, Receive) {
        // SAFETY: as the program calls it.
        Some(recvmmsg) => unsafe { recvmmsg(fd, messages, count, flags, limit) },
        None => {
            let (messages, limit) = (messages.expose_provenance(), limit.expose_provenance());
            let arguments = [int(fd), messages, count as usize, int(flags), limit, 0];
            result(call(number::RECVMMSG, arguments))
        }
    }
}

fn nothing() -> *mut c_void {
    set_errno(-ENOSYS);
    ptr::null_mut()
}
