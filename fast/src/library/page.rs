//! The page of facts: requested at the first call that needs it, mapped once, and read before each
//! call that the library may answer.
//!
//! The state is two words of the process. fork(2) and vfork(2) copy them, and execve(2) resets
//! them. Two threads, or a thread and its signal handler, may request the page at the same time:
//! then it is mapped twice for a moment, and one mapping is removed.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::raw::{call, number};
use super::{EINTR, Raw};
use crate::facts::{self, FACTS, HELLO, READ, filters, may_answer};

/// What the worker finds in the memory of a process.
#[repr(C)]
struct State {
    mark: [u64; 2],
    /// Null: not requested yet. [`NO`]: the worker has refused, for good.
    page: AtomicPtr<Words>,
}

#[used]
static STATE: State = State {
    mark: facts::STATE,
    page: AtomicPtr::new(ptr::null_mut()),
};
static PAGE: &AtomicPtr<Words> = &STATE.page;
/// The number of filters when the worker last replied that this process has none of its own.
static FILTERS: AtomicU64 = AtomicU64::new(0);

type Words = [AtomicU64; READ];

/// Not an address of a page.
const NO: *mut Words = ptr::without_provenance_mut(facts::OFF);
const LENGTH: usize = 4096;
const _: () = assert!(size_of::<Words>() <= LENGTH);

/// The present facts; `None`: calls are left to the worker.
///
/// `number` is the call with which the worker is asked: one that the program is about to make
/// anyway, so that no filter of its own forbids it. The arguments make it harmless where there is
/// no worker.
pub(super) fn facts(number: usize) -> Option<u64> {
    let page = match PAGE.load(Ordering::Acquire) {
        NO => return None,
        page if page.is_null() => introduce(number, page)?,
        page => page,
    };
    let known = read(page, FACTS);
    if !may_answer(known) {
        return None;
    }
    if filters(known) == FILTERS.load(Ordering::Relaxed) {
        return Some(known);
    }
    // A process has loaded a filter, perhaps this one.
    let known = read(introduce(number, page)?, FACTS);
    (may_answer(known) && filters(known) == FILTERS.load(Ordering::Relaxed)).then_some(known)
}

/// Leaves all calls to the worker, for good.
pub(super) fn refuse() {
    PAGE.store(NO, Ordering::Relaxed);
}

/// A word of the page, which [`facts()`] has found.
pub(super) fn word(index: usize) -> u64 {
    match PAGE.load(Ordering::Acquire) {
        NO => 0,
        page => read(page, index),
    }
}

fn read(page: *mut Words, index: usize) -> u64 {
    // SAFETY: a page that was mapped is never unmapped again, and these words are only ever used as
    // atomic ones.
    let words = unsafe { &*page };
    words
        .get(index)
        .map_or(0, |word| word.load(Ordering::Relaxed))
}

/// Asks the worker; `page` is the present mapping, or null.
fn introduce(number: usize, page: *mut Words) -> Option<*mut Words> {
    let words = [
        AtomicU64::new(0),
        AtomicU64::new(u64::from(!page.is_null())),
    ];
    #[expect(clippy::cast_possible_truncation, reason = "registers have 64 bits")]
    const MARK: usize = HELLO as usize;
    let no_fd = usize::MAX;
    let address = words.as_ptr().expose_provenance();
    // An openat(2) is notified if it may create a file.
    let flags = match number {
        number::OPENAT => super::create::O_CREAT as usize,
        _ => 0,
    };
    let reply = call(number, [no_fd, address, flags, 0, 0, MARK]);
    if reply == EINTR {
        // Next time.
        return None;
    }
    // The kernel may have another answer than an error, but says no hello.
    if reply < 0 || words[1].load(Ordering::Relaxed) != HELLO {
        refuse();
        return None;
    }
    FILTERS.store(words[0].load(Ordering::Relaxed), Ordering::Relaxed);
    match page.is_null() {
        true => map(reply),
        false => Some(page),
    }
}

fn map(fd: Raw) -> Option<*mut Words> {
    const PROT_READ: usize = 1;
    const MAP_SHARED: usize = 1;
    let fd = fd.cast_unsigned();
    let mapped = call(number::MMAP, [0, LENGTH, PROT_READ, MAP_SHARED, fd, 0]);
    call(number::CLOSE, [fd, 0, 0, 0, 0, 0]);
    if mapped < 0 {
        refuse();
        return None;
    }
    let page = ptr::with_exposed_provenance_mut(mapped.cast_unsigned());
    let won = PAGE.compare_exchange(ptr::null_mut(), page, Ordering::Release, Ordering::Acquire);
    match won {
        Ok(_) => Some(page),
        Err(others) => {
            call(number::MUNMAP, [mapped.cast_unsigned(), LENGTH, 0, 0, 0, 0]);
            (others != NO).then_some(others)
        }
    }
}
