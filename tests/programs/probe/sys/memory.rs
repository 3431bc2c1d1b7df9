//! Good and bad memory for the arguments of a call.

use super::Place;

const PAGE: usize = 4096;
/// Per argument: two pages to read and write, one PROT_NONE, one read-only.
const REGION: usize = 4 * PAGE;

/// Mapped pages with holes, a region for each of the six arguments. Never unmapped, so the address
/// stays good.
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
    pub(super) fn lay_out(
        self,
        index: usize,
        contents: &[u8],
        place: Place,
        heap: &mut Vec<u8>,
    ) -> usize {
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
        // SAFETY: `start` and `inside.len()` bytes after it lie in the region's two writable pages,
        // which only `invoke` uses, and its callers hold the Probe exclusively.
        unsafe { std::ptr::copy_nonoverlapping(inside.as_ptr(), target, inside.len()) };
        start
    }

    pub(super) fn copy_of_page_end(self, index: usize, length: usize) -> Vec<u8> {
        let start =
            std::ptr::with_exposed_provenance::<u8>(self.base + index * REGION + 2 * PAGE - length);
        // SAFETY: the bytes lie in the region's two writable pages, and no reference to them
        // outlives this line.
        unsafe { std::slice::from_raw_parts(start, length) }.to_vec()
    }
}
