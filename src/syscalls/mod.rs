//! What targets ask for: a table with one row per syscall, and a handler for each. START HERE, and
//! with [`TABLE`]: filter, dispatch, `subuidless trace`, docs/syscalls.md and tests follow from it.
//!
//! To add a syscall: 1. a row; 2. its handler, named like it, in the file of its man-page family,
//! with arguments where the man page has them, `?` for the kernel's own errno, `Reply::Continue`
//! under a `// CONTINUE:` line; 3. its name in docs/syscalls.md, a call of it in the probe
//! (tests/programs/probe).

mod attribute;
mod capability;
mod chown;
mod describe;
mod dispatch;
mod exec;
mod getid;
mod i386;
mod limit;
mod make;
mod mount;
mod new_file;
mod open;
mod permission;
pub(crate) mod profile;
mod setid;
mod socket;
mod stat;
mod table;
mod view;
mod xattr;

pub(crate) use describe::{describe, describe_reply, describe_results, escaped};
pub(crate) use dispatch::{Dispatch, Dispatched};
pub(crate) use table::{Purpose, Row, TABLE, Trap, fingerprint};
