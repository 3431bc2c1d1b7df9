//! subuidless runs OCI containers whose user has no range in `/etc/subuid`.
//!
//! In a user namespace with one mapped id, chown(2) and its like fail. A container runtime sends
//! this program the seccomp listener of a container, and it answers those calls as a kernel with
//! all ids mapped would. The rooms, from the top floor down; each imports from lower floors only:
//!
//! `cli` > `tree` > `sweep`, `launch`, `look`, `check`, `install` > `runtime` > `daemon`, `guard`,
//! `bundle`, `profile`, `worker` > `syscalls` > `target` > `seccomp`, `board`, `owner`,
//! `identity` > `procfs`, `lock`, `rundir`, `limits` > `sys` > `credentials`, `acl`, `name`,
//! `handover`, `ask`, `oci`, `error` > `tally`, `sparing`.
//!
//! Start reading in `syscalls`.

mod acl;
mod ask;
mod board;
mod bundle;
mod check;
mod cli;
mod credentials;
mod daemon;
mod error;
mod guard;
mod handover;
mod identity;
mod install;
mod launch;
mod limits;
mod lock;
mod look;
mod name;
mod oci;
mod owner;
mod procfs;
mod profile;
mod rundir;
mod runtime;
mod seccomp;
mod sparing;
mod sweep;
#[expect(
    unsafe_code,
    reason = "the only unsafe room: the system calls that no crate wraps"
)]
mod sys;
mod syscalls;
mod tally;
mod target;
mod tree;
mod worker;

pub use cli::main;
