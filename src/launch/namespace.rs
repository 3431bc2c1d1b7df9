//! A user namespace in which the host user is root.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::error::Error;

/// Moves this process, which must have one thread, into a user namespace of its own.
pub(crate) fn enter() -> Result<(), Error> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| Error::NoUserNamespace {
        source: errno.into(),
    })?;
    // user_namespaces(7): without setgroups(2) a group may be mapped without any privilege.
    let write = |file: &str, text: String| match fs::write(format!("/proc/self/{file}"), text) {
        // Before Linux 3.19 there was nothing to deny.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| Error::NoUserNamespace { source }),
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {uid} 1\n"))?;
    write("gid_map", format!("0 {gid} 1\n"))
}
