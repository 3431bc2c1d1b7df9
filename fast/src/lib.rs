//! The fast path: calls that are answered in the calling process, without a switch to a worker.
//!
//! This crate is compiled twice. As a part of subuidless it contains the rules that both sides
//! follow: the bytes of the owner's attribute ([`owner`]), which attributes are hidden
//! ([`attribute`]), and the page in which a worker informs its targets ([`facts`]). As the shared
//! library [`LIBRARY`], which `build.rs` compiles from the same source, it is preloaded into
//! dynamic programs and replaces libc's stat(2), getxattr(2), listxattr(2) and their variants.
//!
//! The library never decides anything that the worker would decide differently. If it is certain of
//! the answer, it makes the call with [`facts::MAGIC`] in the argument that no such call uses, and
//! the filter allows it. In all other cases it makes the call without, and the worker answers it as
//! for any other program. It needs no libc but for the address of errno, allocates nothing, takes
//! no lock, has no thread-local data and little stack: it may be called from signal handlers, after
//! vfork(2), and on stacks of a few KiB.

#![cfg_attr(not(test), no_std)]

pub mod attribute;
pub mod cookie;
pub mod facts;
pub mod owner;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[expect(
    unsafe_code,
    reason = "it is called by C programs, and calls the kernel"
)]
pub mod library;

/// The shared library; empty if it was not built, as for other architectures.
#[cfg(not(fast_library))]
pub static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/subuidless-fast.so"));

/// A hash of the library's bytes.
#[cfg(not(fast_library))]
pub const LIBRARY_HASH: &str = env!("LIBRARY_HASH");

#[cfg(fast_library)]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never called: no code of the library panics. A loop needs no libc.
    loop {
        core::hint::spin_loop();
    }
}
