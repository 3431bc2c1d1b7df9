//! What processes say to each other, and where they meet: runtimes and us (`oci`, `config`), the
//! front, daemons, guards and workers (`mode`, `handover`), people and a daemon (`ask`), the memory that a worker
//! shares with its daemon (`board`, `tally`), and the runtime directory (`rundir`).

pub(crate) mod ask;
pub(crate) mod board;
pub(crate) mod config;
pub(crate) mod handover;
pub(crate) mod mode;
pub(crate) mod oci;
pub(crate) mod rundir;
pub(crate) mod tally;
