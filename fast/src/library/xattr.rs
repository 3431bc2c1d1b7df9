//! getxattr(2), listxattr(2), setxattr(2), removexattr(2), and their l and f forms.
//!
//! Most attributes are the kernel's business; so are those that may be kept elsewhere, once it is
//! certain that nothing is. The kernel is asked without a buffer first: then it has read the name,
//! which may be looked at here, and nothing was given away that is hidden.

use core::ffi::{c_char, c_int, c_void};
use core::mem::MaybeUninit;

use super::change::stays;
use super::file::{GET, REMOVE, SET, Whose};
use super::raw::{int, number, to_kernel, to_worker};
use super::stat::is_special;
use super::{
    EACCES, EINVAL, ENODATA, ENOSYS, EOPNOTSUPP, EPERM, Path, Raw, long_result, page, result, who,
};
use crate::attribute::{Kind, PREFIX};
use crate::facts::SIDE_STORE;
use crate::owner::ATTRIBUTE;

/// XATTR_NAME_MAX, and the NUL.
const NAME: usize = 256;

const LIST: [usize; 3] = [number::LISTXATTR, number::LLISTXATTR, number::FLISTXATTR];

/// Whether something of a file may be in the side store.
fn may_be_beside(whose: Whose, facts: u64) -> bool {
    facts & SIDE_STORE != 0 && is_special(whose.named())
}

fn get(whose: Whose, name: *const c_char, value: *mut c_void, size: usize) -> isize {
    let (file, name) = (whose.register(), Path(name));
    let address = name.register();
    let arguments = [file, address, value.expose_provenance(), size, 0];
    let number = whose.number(GET);
    let answered = page::facts(number)
        .filter(|facts| who::may_look_up(*facts))
        .and_then(|facts| get_here(whose, name, (value, size), facts));
    long_result(answered.unwrap_or_else(|| to_worker(number, arguments)))
}

/// `None`: the worker knows better.
fn get_here(
    whose: Whose,
    name: Path,
    (value, size): (*mut c_void, usize),
    facts: u64,
) -> Option<Raw> {
    let (file, address) = (whose.register(), name.register());
    let ask = |value, size| to_kernel(whose.number(GET), [file, address, value, size, 0]);
    let length = ask(0, 0);
    match length {
        EACCES | EPERM | ENOSYS => return None,
        ENODATA | EOPNOTSUPP => {}
        error if error < 0 => return Some(error),
        _ => {}
    }
    // SAFETY: the kernel has read the name, which ends within so many bytes.
    let name = unsafe { name.bytes(NAME) }?;
    match Kind::of(name) {
        Kind::Plain if length < 0 || size == 0 => Some(length),
        Kind::Plain => Some(ask(value.expose_provenance(), size)),
        Kind::Hidden | Kind::Nameless => None,
        Kind::Emulated if name.starts_with(b"trusted.") => None,
        Kind::Emulated | Kind::Acl if length != ENODATA => None,
        Kind::Emulated | Kind::Acl => (!is_kept(whose, name, facts)?).then_some(length),
    }
}

/// Whether something is kept under our own name for `name`.
fn is_kept(whose: Whose, name: &[u8], facts: u64) -> Option<bool> {
    if may_be_beside(whose, facts) {
        return None;
    }
    // A name for which there is no room is kept nowhere, which the worker knows.
    if PREFIX.len() + name.len() >= NAME {
        return None;
    }
    let mut kept = MaybeUninit::<[u8; NAME]>::uninit();
    let mut place = kept.as_mut_ptr().cast::<u8>();
    for byte in PREFIX.iter().chain(name).chain(&[0]) {
        // SAFETY: there is room for all of them. Volatile, lest it become a call of memcpy(3),
        // which nobody may provide.
        unsafe { place.write_volatile(*byte) };
        place = place.wrapping_add(1);
    }
    let address = kept.as_ptr().expose_provenance();
    match to_kernel(whose.number(GET), [whose.register(), address, 0, 0, 0]) {
        ENODATA => Some(false),
        EOPNOTSUPP if facts & SIDE_STORE == 0 => Some(false),
        _ => None,
    }
}

fn list(whose: Whose, names: *mut c_char, size: usize) -> isize {
    let number = whose.number(LIST);
    let arguments = [whose.register(), names.expose_provenance(), size, 0, 0];
    let answered = page::facts(number)
        .filter(|facts| who::may_look_up(*facts))
        .and_then(|facts| list_here(whose, (names, size), facts));
    long_result(answered.unwrap_or_else(|| to_worker(number, arguments)))
}

/// `None`: the worker knows better.
fn list_here(whose: Whose, (names, size): (*mut c_char, usize), facts: u64) -> Option<Raw> {
    /// Longer lists are the worker's.
    const ROOM: usize = 128;
    let mut list = MaybeUninit::<[u8; ROOM]>::uninit();
    let ask = |names, size| to_kernel(whose.number(LIST), [whose.register(), names, size, 0, 0]);
    let length = ask(list.as_mut_ptr().expose_provenance(), ROOM);
    match length {
        EACCES | EPERM | ENOSYS => return None,
        EOPNOTSUPP if facts & SIDE_STORE != 0 => return None,
        error if error < 0 => return (error != super::ERANGE).then_some(error),
        _ => {}
    }
    if may_be_beside(whose, facts) {
        return None;
    }
    // SAFETY: bytes without any value that is not allowed, of which the kernel has written as many
    // as are looked at.
    let list = unsafe { &*list.as_ptr() }.get(..usize::try_from(length).ok()?)?;
    let mut hides = list.split(|byte| *byte == 0);
    if hides.any(|name| name.starts_with(PREFIX) || name == ATTRIBUTE.to_bytes()) {
        return None;
    }
    match size {
        0 => Some(length),
        _ => Some(ask(names.expose_provenance(), size)),
    }
}

// ---- setxattr(2), removexattr(2)

fn change(whose: Whose, name: *const c_char, number: usize, arguments: [usize; 5]) -> c_int {
    let answered = change_here(whose, Path(name), number, arguments);
    result(answered.unwrap_or_else(|| to_worker(number, arguments)))
}

/// `None`: the worker knows better.
fn change_here(whose: Whose, name: Path, number: usize, arguments: [usize; 5]) -> Option<Raw> {
    let facts = page::facts(number)?;
    if !who::is_free(facts) || !stays(whose.named())(facts) {
        return None;
    }
    let [file, address, ..] = arguments;
    match to_kernel(whose.number(GET), [file, address, 0, 0, 0]) {
        ENODATA | EOPNOTSUPP => {}
        error if error < 0 => return None,
        _ => {}
    }
    // SAFETY: the kernel has read the name, which ends within so many bytes.
    let name = unsafe { name.bytes(NAME) }?;
    let is_kernels = match Kind::of(name) {
        Kind::Plain => name.starts_with(b"user."),
        // A list that is kept is the worker's to change. The kernel refuses one that must be kept.
        Kind::Acl => !is_kept(whose, name, facts)?,
        Kind::Hidden | Kind::Nameless | Kind::Emulated => false,
    };
    let answer = is_kernels.then(|| to_kernel(number, arguments))?;
    (!matches!(answer, EACCES | EINVAL | ENOSYS | EOPNOTSUPP | EPERM)).then_some(answer)
}

/// Defines functions under the names that programs know them by.
macro_rules! symbols {
    ($($get:ident, $list:ident, $set:ident, $remove:ident:
        $whose:path, $file:ty, $new:expr;)*) => {$(
        #[cfg_attr(fast_library, unsafe(no_mangle))]
        pub extern "C" fn $get(
            file: $file,
            name: *const c_char,
            value: *mut c_void,
            size: usize,
        ) -> isize {
            get($whose($new(file)), name, value, size)
        }

        #[cfg_attr(fast_library, unsafe(no_mangle))]
        pub extern "C" fn $list(file: $file, names: *mut c_char, size: usize) -> isize {
            list($whose($new(file)), names, size)
        }

        #[cfg_attr(fast_library, unsafe(no_mangle))]
        pub extern "C" fn $set(
            file: $file,
            name: *const c_char,
            value: *const c_void,
            size: usize,
            flags: c_int,
        ) -> c_int {
            let (whose, address) = ($whose($new(file)), name.expose_provenance());
            let value = value.expose_provenance();
            let arguments = [whose.register(), address, value, size, int(flags)];
            change(whose, name, whose.number(SET), arguments)
        }

        #[cfg_attr(fast_library, unsafe(no_mangle))]
        pub extern "C" fn $remove(file: $file, name: *const c_char) -> c_int {
            let whose = $whose($new(file));
            let arguments = [whose.register(), name.expose_provenance(), 0, 0, 0];
            change(whose, name, whose.number(REMOVE), arguments)
        }
    )*};
}

symbols! {
    getxattr, listxattr, setxattr, removexattr:
        Whose::Path, *const c_char, Path;
    lgetxattr, llistxattr, lsetxattr, lremovexattr:
        Whose::Link, *const c_char, Path;
    fgetxattr, flistxattr, fsetxattr, fremovexattr:
        Whose::Fd, c_int, core::convert::identity;
}
