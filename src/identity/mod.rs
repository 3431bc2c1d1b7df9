//! The emulated credentials of processes, and where they are stored.
//!
//! A process has a [cookie] in an obsolete limit, which the kernel copies on fork and exec. The
//! cookie is the number of a record in the container's [table]. So clone(2) need not be trapped,
//! and no worker tracks processes or learns of their end.
//!
//! The caller's working directory must be the host's procfs (see [`crate::linux::procfs`]). A
//! process is named by the id of one of its threads, so a process is changed only while that thread
//! is known to wait for an answer.

mod cookie;
mod record;
mod table;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use tracing::warn;

pub(crate) use cookie::Index;
pub(crate) use table::Table;

use crate::credentials::{Credentials, EmulatedGid, EmulatedUid, Ids};
use crate::linux::lock::Locks;
use crate::linux::procfs::{self, Stat};
use crate::linux::sys;
use cookie::{Cookie, Fingerprint, PendingExec, Tag, USUAL_SLACK};

/// The identities of a container's processes.
#[derive(Debug)]
pub(crate) struct Identities {
    table: Table,
    /// The credentials of a process that has never changed them.
    pub(crate) initial: Credentials,
    lock: Mutex<()>,
    changes: AtomicU64,
    tag_failure_reported: AtomicBool,
}

/// The record that a thread's cookie leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    Record(Index),
    /// The thread has executed a program that could not be inspected before: its set-ID bits, if it
    /// has any, are still to be applied to this record.
    Unchecked(Index),
}

impl Identities {
    pub(crate) fn new(table: Table, initial: Credentials) -> Self {
        Self {
            table,
            initial,
            lock: Mutex::new(()),
            changes: AtomicU64::new(0),
            tag_failure_reported: AtomicBool::new(false),
        }
    }

    /// Whether any process may have other credentials than the initial ones.
    pub(crate) fn anyone_changed(&self) -> bool {
        self.table.anyone_changed()
    }

    /// How often credentials may have changed, in the life of this worker.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Whether any process may live in a user namespace below the container's, where emulated
    /// credentials do not apply.
    pub(crate) fn anyone_nested(&self) -> bool {
        self.table.anyone_nested()
    }

    /// Notes that a process may enter a user namespace below the container's.
    pub(crate) fn expect_nested(&self) {
        self.table.set_nested();
    }

    /// The credentials in the record `index`, or the initial ones if there is no such record.
    pub(crate) fn get(&self, index: Index) -> Credentials {
        self.table
            .get(index)
            .unwrap_or_else(|| self.initial.clone())
    }

    /// Whether files that the kernel itself creates for `index` have the right owner.
    pub(crate) fn creates_as_kernel(&self, index: Index) -> bool {
        let (uid, gid) = self.ids(index);
        (uid.fs, gid.fs) == (self.initial.uid.fs, self.initial.gid.fs)
    }

    /// As [`Identities::get`], but only the ids.
    pub(crate) fn ids(&self, index: Index) -> (Ids<EmulatedUid>, Ids<EmulatedGid>) {
        self.table
            .ids(index)
            .unwrap_or((self.initial.uid, self.initial.gid))
    }

    /// The record of the thread `tid`. Returns `None` if an execve(2) is pending or threads differ:
    /// then [`Identities::find`] must decide.
    pub(crate) fn settled_record(tid: u32) -> Result<Option<Index>, Errno> {
        let (cookie, _) = read_cookie(tid)?;
        let is_plain = cookie.exec.is_none() && !cookie.threads_differ;
        Ok(is_plain.then_some(cookie.record))
    }

    /// The record of a thread that may be running: nothing is written. While an execve(2) may be in
    /// progress, this is the record from before it.
    pub(crate) fn record_now(tid: u32) -> Result<Index, Errno> {
        let (cookie, _) = read_cookie(tid)?;
        match cookie.exec {
            Some(exec) if fingerprint(tid)? != exec.fingerprint => Ok(exec.record),
            _ => Ok(own_record(tid, cookie).0),
        }
    }

    /// The record that the soft limit `soft` of another process names, as read from its
    /// /proc/PID/limits. Tags and a pending execve(2) are ignored.
    pub(crate) fn of_limit(soft: u64) -> Index {
        Cookie::decode(soft).map_or(Index::INITIAL, |cookie| cookie.record)
    }

    /// A lock to hold from reading a cookie until writing it: the threads of a process share one
    /// cookie, and may call at the same time.
    pub(crate) fn lock(&self) -> ChangeLock<'_> {
        // A panic leaves nothing inconsistent here: the protected data is in the processes.
        ChangeLock {
            _held: self.lock.lock().unwrap_or_else(PoisonError::into_inner),
            changes: &self.changes,
        }
    }

    /// The record of the thread `tid`. If it is the only thread of its process, or the pending
    /// execve(2) has succeeded, the cookie is reduced to that record.
    pub(crate) fn find(&self, _lock: &ChangeLock, tid: u32) -> Result<Lookup, Errno> {
        let (cookie, hard) = read_cookie(tid)?;
        if cookie.exec.is_none() && !cookie.threads_differ {
            return Ok(Lookup::Record(cookie.record));
        }
        // Another fingerprint: the pending execve(2) has succeeded, and ended all other threads.
        if let Some(exec) = cookie.exec
            && fingerprint(tid)? != exec.fingerprint
        {
            // Left pending until `checked`: the worker may not have joined the container yet.
            if exec.unchecked {
                return Ok(Lookup::Unchecked(exec.record));
            }
            become_one(tid, cookie, exec.record, hard)?;
            return Ok(Lookup::Record(exec.record));
        }
        let (record, is_tagged) = own_record(tid, cookie);
        // This thread waits for us, so it is not in execve(2) now; another thread could be.
        if is_alone(tid)? {
            write_cookie(tid, cookie.settled(record), hard)?;
            if is_tagged {
                remove_tag(tid);
            }
        }
        Ok(Lookup::Record(record))
    }

    /// Ends [`Lookup::Unchecked`], once the program was inspected: all threads of the process have
    /// `record`.
    pub(crate) fn checked(&self, _lock: &ChangeLock, tid: u32, record: Index) -> Result<(), Errno> {
        let (cookie, hard) = read_cookie(tid)?;
        become_one(tid, cookie, record, hard)
    }

    /// Gives the thread `tid` the credentials of `record`.
    pub(crate) fn assign(&self, _lock: &ChangeLock, tid: u32, record: Index) -> Result<(), Errno> {
        let (cookie, hard) = read_cookie(tid)?;
        if is_alone(tid)? {
            write_cookie(tid, cookie.settled(record), hard)?;
            if cookie.threads_differ {
                remove_tag(tid);
            }
            return Ok(());
        }
        // The tag first, then the flag in the cookie that makes tags count. The tag is read back:
        // realtime threads have no timer slack, and writing it does nothing.
        let tag = Tag(record);
        let written = write_slack(tid, tag.encode());
        if written.is_err() || read_tag(tid) != Some(tag) {
            if !self.tag_failure_reported.swap(true, Ordering::Relaxed) {
                warn!(
                    ?written,
                    "cannot give one thread ids of its own: the change applies to its process"
                );
            }
            return become_one(tid, cookie, record, hard);
        }
        // With a pending execve(2) the cookie must stay: it has both records.
        if cookie.exec.is_none()
            && threads(tid)?
                .into_iter()
                .all(|other| read_tag(other) == Some(tag))
        {
            // The last thread of a setuid() in libc, which changes the ids of every thread
            // (nptl(7)).
            return become_one(tid, cookie, record, hard);
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

    /// Notes that the thread `tid` is about to execute a program: if that succeeds, its process has
    /// the record `after`, otherwise nothing changes.
    pub(crate) fn expect_exec(
        &self,
        _lock: &ChangeLock,
        tid: u32,
        after: Index,
        unchecked: bool,
    ) -> Result<(), Errno> {
        let exec = PendingExec {
            fingerprint: fingerprint(tid)?,
            record: after,
            unchecked,
        };
        let (cookie, hard) = read_cookie(tid)?;
        let cookie = Cookie {
            exec: Some(exec),
            ..cookie
        };
        write_cookie(tid, cookie, hard)
    }

    /// Whether an execve(2) of the process is noted already, by any thread. It may have failed.
    pub(crate) fn expects_exec(_lock: &ChangeLock, tid: u32) -> Result<bool, Errno> {
        Ok(read_cookie(tid)?.0.exec.is_some())
    }

    /// Notes that the process of `tid` has restricted itself (landlock(7)). From then on the kernel
    /// creates its files: the restriction does not apply to workers.
    pub(crate) fn confine(&self, _lock: &ChangeLock, tid: u32) -> Result<(), Errno> {
        self.table.set_confined();
        let (cookie, hard) = read_cookie(tid)?;
        let cookie = Cookie {
            confined: true,
            ..cookie
        };
        write_cookie(tid, cookie, hard)
    }

    /// Whether any process may be confined.
    pub(crate) fn anyone_confined(&self) -> bool {
        self.table.anyone_confined()
    }

    pub(crate) fn is_confined(tid: u32) -> Result<bool, Errno> {
        Ok(read_cookie(tid)?.0.confined)
    }

    /// Whether the thread `tid` has a tag: setting its timer slack would remove it.
    pub(crate) fn is_tagged(tid: u32) -> Result<bool, Errno> {
        Ok(read_cookie(tid)?.0.threads_differ && read_tag(tid).is_some())
    }

    /// The record of `credentials`, added to the table if there is none yet.
    pub(crate) fn number(&self, credentials: &Credentials, locks: &Locks) -> Result<Index, Errno> {
        if *credentials == self.initial {
            return Ok(Index::INITIAL);
        }
        let index = self.table.add(credentials, locks)?;
        // Securebits alone make no difference to what processes see.
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

/// The lock on the cookies of a container's processes. Its end counts as a change of credentials.
#[derive(Debug)]
pub(crate) struct ChangeLock<'a> {
    _held: MutexGuard<'a, ()>,
    changes: &'a AtomicU64,
}

impl Drop for ChangeLock<'_> {
    fn drop(&mut self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}

/// The record of one thread, regardless of a pending execve(2), and whether its tag names it.
fn own_record(tid: u32, cookie: Cookie) -> (Index, bool) {
    let tag = match cookie.threads_differ {
        true => read_tag(tid),
        false => None,
    };
    (
        tag.map_or(cookie.record, |Tag(record)| record),
        tag.is_some(),
    )
}

/// Gives all threads one record. The cookie is written first: a thread without a tag has the
/// cookie's record.
fn become_one(tid: u32, cookie: Cookie, record: Index, hard: u64) -> Result<(), Errno> {
    write_cookie(tid, cookie.settled(record), hard)?;
    for thread in threads(tid)? {
        remove_tag(thread);
    }
    Ok(())
}

/// The cookie, and the hard limit, which must not change.
fn read_cookie(tid: u32) -> Result<(Cookie, u64), Errno> {
    match sys::lock_limit(tid) {
        Ok((soft, hard)) => Ok((Cookie::decode(soft).unwrap_or(Cookie::INITIAL), hard)),
        // prlimit(2) is not allowed on this process, so no worker can have written a cookie.
        Err(Errno::EPERM) => Ok((Cookie::INITIAL, u64::MAX)),
        Err(errno) => Err(errno),
    }
}

fn write_cookie(tid: u32, cookie: Cookie, hard: u64) -> Result<(), Errno> {
    let soft = match cookie {
        // No cookie at all stands for the initial credentials.
        Cookie::INITIAL => hard,
        cookie => cookie.encode(),
    };
    sys::set_lock_limit(tid, soft, hard).inspect_err(|errno| {
        warn!(
            tid, %errno, hard,
            "cannot store the ids of a process in its RLIMIT_LOCKS: the hard limit must be \
             unlimited"
        );
    })
}

/// Whether the thread is the only one of its process.
fn is_alone(tid: u32) -> Result<bool, Errno> {
    // The link count of /proc/PID/task is 2 and the number of threads.
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

/// The fingerprint of the program that `tid` runs: addresses set by exec, from /proc/PID/stat
/// (proc_pid_stat(5)).
fn fingerprint(tid: u32) -> Result<Fingerprint, Errno> {
    const START_CODE: usize = 26;
    const START_DATA: usize = 45;
    let stat = Stat::of(tid)?;
    // Code, its end, stack; data, its end, heap.
    let addresses = (START_CODE..START_CODE + 3).chain(START_DATA..START_DATA + 3);
    let addresses: Vec<u64> = addresses.filter_map(|field| stat.field(field)).collect();
    Ok(Fingerprint::of(&addresses))
}

fn slack_file(tid: u32) -> crate::linux::name::Name {
    procfs::target(tid, "timerslack_ns")
}

/// The tag of a thread. Returns `None` if its timer slack is not a tag or cannot be read.
fn read_tag(tid: u32) -> Option<Tag> {
    let text = procfs::read(&slack_file(tid)).ok()?;
    Tag::decode(text.trim().parse().ok()?)
}

fn write_slack(tid: u32, slack: u64) -> Result<(), Errno> {
    procfs::write(&slack_file(tid), slack.to_string().as_bytes())
}

fn remove_tag(tid: u32) {
    if read_tag(tid).is_some() {
        // Fails only for a thread that has ended.
        let _ = write_slack(tid, USUAL_SLACK);
    }
}
