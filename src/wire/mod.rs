//! The messages between processes, and the places that they share.
//!
//! `oci` and `config` are the formats of runtimes. `message` has the messages between our
//! processes: `handover` those of the front, daemon, guard and workers, `ask` those of `status` and
//! `trace`; `mode` has their command lines, `forked` starts them without one. `board` and `tally`
//! are the memory that a worker shares with its daemon, `objects` that which the workers of a
//! container share, `facts` that which a worker shares with targets; `fast`, `permissions` and
//! `others` say how a container is served, `published` which ports lead into it, and `word`
//! has their words. `rundir` is the runtime directory.

pub(crate) mod ask;
pub(crate) mod board;
pub(crate) mod config;
pub(crate) mod facts;
pub(crate) mod fast;
pub(crate) mod forked;
pub(crate) mod handover;
pub(crate) mod message;
pub(crate) mod mode;
pub(crate) mod objects;
pub(crate) mod oci;
pub(crate) mod others;
pub(crate) mod permissions;
pub(crate) mod published;
pub(crate) mod rundir;
pub(crate) mod tally;
pub(crate) mod word;
