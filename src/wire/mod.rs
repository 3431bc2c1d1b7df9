//! What processes say to each other, and where they meet.
//!
//! Runtimes and us: `oci`, `config`. The front, daemons, guards and workers: `mode`, `handover`.
//! People and a daemon: `ask`. The memory that a worker shares with its daemon: `board`, `tally`.
//! The runtime directory: `rundir`.

pub(crate) mod ask;
pub(crate) mod board;
pub(crate) mod config;
pub(crate) mod handover;
pub(crate) mod message;
pub(crate) mod mode;
pub(crate) mod oci;
pub(crate) mod rundir;
pub(crate) mod tally;
