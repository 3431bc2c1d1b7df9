//! The functions of the C library whose names this library has taken, for what only they can do.
//!
//! They are looked up in the symbol tables of the loaded objects behind this one, as dlsym(3) does
//! with RTLD_NEXT: older C libraries have dlsym in another file.

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use super::raw::{int, number, to_worker};
use super::{ENOSYS, result, set_errno};

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

struct Search {
    name: &'static [u8],
    /// This library's function of that name; only objects behind it count.
    own: usize,
    is_behind: bool,
    found: usize,
}

extern "C" fn look(loaded: *const Loaded, _: usize, search: *mut c_void) -> c_int {
    // SAFETY: it is valid during the call.
    let loaded = unsafe { &*loaded };
    // SAFETY: it is what `find` has passed on.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the object is loaded.
    let tables = unsafe { Tables::of(loaded) };
    // SAFETY: it stays loaded during the call.
    let found = tables.and_then(|tables| unsafe { tables.find(search.name) });
    match found {
        Some(own) if own == search.own => search.is_behind = true,
        Some(found) if search.is_behind => {
            search.found = found;
            return 1;
        }
        _ => {}
    }
    0
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
    unsafe fn find(&self, name: &[u8]) -> Option<usize> {
        const HEADER: usize = 4;
        let hash = name.iter().fold(5381u32, |hash, byte| {
            hash.wrapping_mul(33).wrapping_add(u32::from(*byte))
        });
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

/// The C library's function `name`, which is looked up once. `None`: there is none.
fn find(known: &AtomicPtr<c_void>, name: &'static [u8], own: *const c_void) -> Option<*mut c_void> {
    let present = known.load(Ordering::Relaxed);
    if !present.is_null() {
        return Some(present);
    }
    let iterate = dl_iterate_phdr as *const ();
    let mut search = Search {
        name,
        own: own.addr(),
        is_behind: false,
        found: 0,
    };
    if iterate.is_null() {
        return None;
    }
    // SAFETY: `look` takes what it is given here.
    unsafe { dl_iterate_phdr(look, (&raw mut search).cast()) };
    if search.found == 0 {
        return None;
    }
    let found = ptr::with_exposed_provenance_mut(search.found);
    known.store(found, Ordering::Relaxed);
    Some(found)
}

/// A function of the C library, by its name and type.
macro_rules! next {
    ($name:ident, $own:path, $type:ty) => {{
        static KNOWN: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
        let own = $own as *const c_void;
        let found = find(&KNOWN, stringify!($name).as_bytes(), own);
        // SAFETY: the C library's function of this name has this type.
        found.map(|found| unsafe { transmute::<*mut c_void, $type>(found) })
    }};
}

type Open = unsafe extern "C" fn(*const c_char, c_int, ...) -> c_int;
type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, ...) -> c_int;
type At = unsafe extern "C" fn(c_int, *const c_char, c_uint, c_int) -> c_int;

pub(super) fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    match next!(open, super::create::open, Open) {
        // SAFETY: as the program calls it.
        Some(open) => unsafe { open(path, flags, mode) },
        None => {
            let at = int(super::file::AT_FDCWD);
            let path = path.expose_provenance();
            let arguments = [at, path, int(flags), mode as usize, 0];
            result(to_worker(number::OPENAT, arguments))
        }
    }
}

pub(super) fn openat(dirfd: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    match next!(openat, super::create::openat, OpenAt) {
        // SAFETY: as the program calls it.
        Some(openat) => unsafe { openat(dirfd, path, flags, mode) },
        None => {
            let path = path.expose_provenance();
            let arguments = [int(dirfd), path, int(flags), mode as usize, 0];
            result(to_worker(number::OPENAT, arguments))
        }
    }
}

pub(super) fn fchmodat(dirfd: c_int, path: *const c_char, mode: c_uint, flags: c_int) -> c_int {
    match next!(fchmodat, super::change::fchmodat, At) {
        // SAFETY: as the program calls it.
        Some(fchmodat) => unsafe { fchmodat(dirfd, path, mode, flags) },
        None => result(ENOSYS),
    }
}

pub(super) fn faccessat(dirfd: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int {
    match next!(faccessat, super::change::faccessat, At) {
        // SAFETY: as the program calls it.
        Some(faccessat) => unsafe { faccessat(dirfd, path, mode.cast_unsigned(), flags) },
        None => result(ENOSYS),
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
    match next!(opendir, super::directory::opendir, Marked<*const c_char>) {
        // SAFETY: as the program calls it; further arguments are ignored.
        Some(opendir) => unsafe { opendir(path, 0, 0, 0, 0, mark) },
        None => nothing(),
    }
}

pub(super) fn fdopendir(fd: c_int, mark: usize) -> *mut c_void {
    match next!(fdopendir, super::directory::fdopendir, Marked<c_int>) {
        // SAFETY: as the program calls it; further arguments are ignored.
        Some(fdopendir) => unsafe { fdopendir(fd, 0, 0, 0, 0, mark) },
        None => nothing(),
    }
}

fn nothing() -> *mut c_void {
    set_errno(-ENOSYS);
    ptr::null_mut()
}
