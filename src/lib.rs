//! subuidless runs OCI containers whose user has no range in `/etc/subuid`.
//!
//! In a user namespace with one mapped id, chown(2) and its like fail. A container runtime sends
//! this program the seccomp listener of a container, and it answers those calls as a kernel with
//! all ids mapped would. The rooms, from the top floor down; a room imports from lower floors, and
//! on its own floor from rooms to its right; `error` and `log` are there for all:
//!
//! `cli` > `owners`, `run`, `host`, `front` > `daemon`, `worker` > `syscalls` > `target`,
//! `identity`, `owner`, `store` > `wire`, `linux`, `credentials` > `log`, `error`.
//!
//! Start reading in `syscalls`.

mod cli;
mod credentials;
mod daemon;
mod error;
mod front;
mod host;
mod identity;
mod linux;
mod log;
mod owner;
mod owners;
mod run;
mod store;
mod syscalls;
mod target;
mod wire;
mod worker;

pub use cli::main;
