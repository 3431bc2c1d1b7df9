//! Who a process is to the container: its emulated credentials, and where they live.
//!
//! The kernel itself hands them on: a process bears a [cookie](cookie) in an obsolete limit that fork and exec inherit,
//! and the cookie names a record in the container's [table](table). So nothing has to trap clone(2), no worker has to
//! remember a process, and none has to be told of its end.
//!
//! The caller's working directory must be the host's procfs (see [`crate::procfs`]). A process is named by a thread's id,
//! so what changes one is called only while that thread is known to wait.

mod cookie;
mod record;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use tracing::warn;

pub(crate) use cookie::Index;
pub(crate) use table::Table;

use crate::credentials::{Credentials, EmulatedGid, EmulatedUid, Ids};
use crate::lock::Locks;
use crate::{procfs, sys};
use cookie::{Cookie, Fingerprint, PendingExec, Tag, USUAL_SLACK};

/// The identities of a container's processes.
#[derive(Debug)]
pub(crate) struct Identities {
    table: Table,
    /// What a process has that has never changed its credentials.
    pub(crate) initial: Credentials,
    tag_failure_reported: AtomicBool,
}

/// What a thread's cookie leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Record(Index),
    /// It has executed a program that nobody could look at before: with that program's set-ID bits it may be more.
    Unchecked(Index),
}

impl Identities {
    pub(crate) fn new(table: Table, initial: Credentials) -> Self {
        Self {
            table,
            initial,
            tag_failure_reported: AtomicBool::new(false),
        }
    }

    /// Whether any process may have other credentials than the initial ones.
    pub(crate) fn anyone_changed(&self) -> bool {
        self.table.anyone_changed()
    }

    /// Whether any process may live in a user namespace of its own, in which nothing of this means anything.
    pub(crate) fn anyone_nested(&self) -> bool {
        self.table.anyone_nested()
    }

    pub(crate) fn expect_nested(&self) {
        self.table.set_nested();
    }

    pub(crate) fn get(&self, index: Index) -> Credentials {
        self.table
            .get(index)
            .unwrap_or_else(|| self.initial.clone())
    }

    pub(crate) fn ids(&self, index: Index) -> (Ids<EmulatedUid>, Ids<EmulatedGid>) {
        self.table
            .ids(index)
            .unwrap_or((self.initial.uid, self.initial.gid))
    }

    /// The record of the thread `tid`.
    pub(crate) fn find(&self, tid: u32) -> Result<Found, Errno> {
        let (cookie, hard) = read_cookie(tid)?;
        if cookie.exec.is_none() && !cookie.threads_differ {
            return Ok(Found::Record(cookie.record));
        }
        settle(tid, cookie, hard)
    }

    /// What lies behind the limit `soft`, which was read from procfs: for looking at other processes.
    pub(crate) fn of_limit(soft: u64) -> Index {
        Cookie::decode(soft).map_or(Index::INITIAL, |cookie| cookie.record)
    }

    /// From now on the thread `tid` has the credentials of `record`.
    pub(crate) fn assign(&self, tid: u32, record: Index) -> Result<(), Errno> {
        let (cookie, hard) = read_cookie(tid)?;
        if is_alone(tid)? {
            write_cookie(tid, Cookie::plain(record), hard)?;
            if cookie.threads_differ {
                remove_tag(tid);
            }
            return Ok(());
        }
        // First the thread's own, then what makes it count.
        if let Err(errno) = write_slack(tid, Tag(record).encode()) {
            if !self.tag_failure_reported.swap(true, Ordering::Relaxed) {
                warn!(%errno, "threads of one process cannot have different ids: the last change counts for all");
            }
            return write_cookie(tid, Cookie::plain(record), hard);
        }
        if !cookie.threads_differ {
            let cookie = Cookie {
                threads_differ: true,
                ..cookie
            };
            write_cookie(tid, cookie, hard)?;
        }
        Ok(())
    }

    /// The thread `tid` is about to execute a program. If that succeeds its process has `after`, otherwise nothing
    /// has happened.
    pub(crate) fn expect_exec(
        &self,
        tid: u32,
        after: &Credentials,
        unchecked: bool,
        locks: &Locks,
    ) -> Result<(), Errno> {
        let exec = PendingExec {
            fingerprint: fingerprint(tid)?,
            record: self.number(after, locks)?,
            unchecked,
        };
        let (cookie, hard) = read_cookie(tid)?;
        let cookie = Cookie {
            exec: Some(exec),
            ..cookie
        };
        write_cookie(tid, cookie, hard)
    }

    /// Whether the thread `tid` has a tag, which a change of its timer slack would remove.
    pub(crate) fn is_tagged(tid: u32) -> Result<bool, Errno> {
        Ok(read_cookie(tid)?.0.threads_differ && read_tag(tid).is_some())
    }

    /// The record of `credentials`, new or known.
    pub(crate) fn number(&self, credentials: &Credentials, locks: &Locks) -> Result<Index, Errno> {
        if *credentials == self.initial {
            return Ok(Index::INITIAL);
        }
        let index = self.table.add(credentials, locks)?;
        let securebits = self.initial.securebits;
        let ids_differ = self.initial
            != Credentials {
                securebits,
                ..credentials.clone()
            };
        if ids_differ && !self.table.anyone_changed() {
            self.table.set_changed();
        }
        Ok(index)
    }
}

/// A cookie that says more than one record: finds out what holds for this thread, and simplifies it where that
/// is possible.
fn settle(tid: u32, cookie: Cookie, hard: u64) -> Result<Found, Errno> {
    if let Some(exec) = cookie.exec
        && fingerprint(tid)? != exec.fingerprint
    {
        if cookie.threads_differ {
            // Those of the old program were the exec'ing thread's, and whatever it has started since has its.
            for thread in threads(tid)? {
                remove_tag(thread);
            }
        }
        if exec.unchecked {
            return Ok(Found::Unchecked(exec.record));
        }
        write_cookie(tid, Cookie::plain(exec.record), hard)?;
        return Ok(Found::Record(exec.record));
    }
    let tag = match cookie.threads_differ {
        true => read_tag(tid),
        false => None,
    };
    let record = tag.map_or(cookie.record, |Tag(record)| record);
    // With a second thread about, an execve(2) of it may still be on its way.
    if is_alone(tid)? {
        write_cookie(tid, Cookie::plain(record), hard)?;
        if tag.is_some() {
            remove_tag(tid);
        }
    }
    Ok(Found::Record(record))
}

/// The cookie, and the hard limit that stays as it is.
fn read_cookie(tid: u32) -> Result<(Cookie, u64), Errno> {
    let (soft, hard) = sys::lock_limit(tid)?;
    Ok((Cookie::decode(soft).unwrap_or(Cookie::INITIAL), hard))
}

fn write_cookie(tid: u32, cookie: Cookie, hard: u64) -> Result<(), Errno> {
    let soft = match cookie {
        // As if nothing had ever happened.
        Cookie::INITIAL => hard,
        cookie => cookie.encode(),
    };
    sys::set_lock_limit(tid, soft, hard).inspect_err(|errno| {
        warn!(tid, %errno, hard, "cannot keep the ids of a process in its RLIMIT_LOCKS, whose hard limit must be unlimited");
    })
}

/// Whether the thread is the only one of its process.
fn is_alone(tid: u32) -> Result<bool, Errno> {
    // A directory for each thread, `.` and `..`.
    let task = fstatat(
        nix::fcntl::AT_FDCWD,
        &procfs::target(tid, "task"),
        AtFlags::empty(),
    )?;
    Ok(task.st_nlink <= 3)
}

fn threads(tid: u32) -> Result<Vec<u32>, Errno> {
    let task = procfs::target(tid, "task");
    let names = procfs::list(task.as_c_str())?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// /proc/PID/stat, proc_pid_stat(5): the addresses that exec gives to a program.
fn fingerprint(tid: u32) -> Result<Fingerprint, Errno> {
    const START_CODE: usize = 26;
    const START_DATA: usize = 45;
    let stat = procfs::read(&procfs::target(tid, "stat"))?;
    // The second field is the name, in which anything may stand.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse().ok());
    // Code, its end, stack; data, its end, heap.
    let addresses = (START_CODE..START_CODE + 3).chain(START_DATA..START_DATA + 3);
    Ok(Fingerprint::of(
        &addresses.filter_map(field).collect::<Vec<u64>>(),
    ))
}

fn slack_file(tid: u32) -> crate::name::Name {
    procfs::target(tid, "timerslack_ns")
}

/// A slack that cannot be read is none of ours.
fn read_tag(tid: u32) -> Option<Tag> {
    let text = procfs::read(&slack_file(tid)).ok()?;
    Tag::decode(text.trim().parse().ok()?)
}

fn write_slack(tid: u32, slack: u64) -> Result<(), Errno> {
    procfs::write(&slack_file(tid), slack.to_string().as_bytes())
}

fn remove_tag(tid: u32) {
    if read_tag(tid).is_some() {
        // A thread that has ended needs none any more.
        let _ = write_slack(tid, USUAL_SLACK);
    }
}
