//! The emulated syscalls: a table with one row per syscall, and a handler for each. START HERE, and
//! with [`TABLE`]: the filter, the dispatch, `subuidless trace` and the test of docs/syscalls.md
//! read it.
//!
//! To add a syscall: 1. Add a row. 2. Write the handler, with the name of the syscall, in the file
//! of its man-page family: the arguments in the order of the man page, `?` for the kernel's own
//! errno, `Reply::Continue` under a `// CONTINUE:` line with the reason. 3. Add its name to
//! docs/syscalls.md, and a call of it to the probe (tests/programs/probe).

mod attribute;
mod capability;
mod chown;
mod compat;
mod describe;
mod device;
mod dispatch;
mod entry;
mod exec;
pub(crate) mod fast;
mod getid;
mod ioctl;
mod ipc;
mod limit;
mod lookup;
mod make;
mod mount;
mod new_file;
mod open;
mod path;
mod permission;
mod pidfd;
mod priority;
pub(crate) mod profile;
mod setgroups_file;
mod setid;
mod signal;
mod socket;
mod stat;
mod table;
mod terminal;
mod trace;
mod view;
mod xattr;

pub(crate) use describe::{describe, describe_reply, describe_results, escaped};
pub(crate) use dispatch::{Dispatch, Dispatched};
pub(crate) use lookup::check as check_lookups;
pub(crate) use table::{Condition, Purpose, Row, Scope, TABLE, Trap, fingerprint};
