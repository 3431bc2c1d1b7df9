//! Who a process is to the container: its emulated credentials, and where they live.
//!
//! The kernel itself hands them on: a process bears a [cookie] in an obsolete limit that fork and
//! exec inherit, and the cookie names a record in the container's [table]. So nothing has to trap
//! clone(2), no worker has to remember a process, and none has to be told of its end.
//!
//! The caller's working directory must be the host's procfs (see [`crate::linux::procfs`]). A process is
//! named by a thread's id, so what changes one is called only while that thread is known to wait.

mod cookie;
mod record;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
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
    /// What a process has that has never changed its credentials.
    pub(crate) initial: Credentials,
    lock: Mutex<()>,
    tag_failure_reported: AtomicBool,
}

/// What a thread's cookie leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    Record(Index),
    /// It has executed a program that nobody could look at before: with that program's set-ID bits
    /// it may be more.
    Unchecked(Index),
}

impl Identities {
    pub(crate) fn new(table: Table, initial: Credentials) -> Self {
        Self {
            table,
            initial,
            lock: Mutex::new(()),
            tag_failure_reported: AtomicBool::new(false),
        }
    }

    /// Whether any process may have other credentials than the initial ones.
    pub(crate) fn anyone_changed(&self) -> bool {
        self.table.anyone_changed()
    }

    /// Whether any process may live in a user namespace of its own, in which nothing of this means
    /// anything.
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

    /// Whether the kernel creates files for `index` as they should be: with the ids that it knows.
    pub(crate) fn creates_as_kernel(&self, index: Index) -> bool {
        let (uid, gid) = self.ids(index);
        (uid.fs, gid.fs) == (self.initial.uid.fs, self.initial.gid.fs)
    }

    pub(crate) fn ids(&self, index: Index) -> (Ids<EmulatedUid>, Ids<EmulatedGid>) {
        self.table
            .ids(index)
            .unwrap_or((self.initial.uid, self.initial.gid))
    }

    /// The record of the thread `tid`, where its cookie says it plainly.
    pub(crate) fn settled_record(tid: u32) -> Result<Option<Index>, Errno> {
        let (cookie, _) = read_cookie(tid)?;
        let is_plain = cookie.exec.is_none() && !cookie.threads_differ;
        Ok(is_plain.then_some(cookie.record))
    }

    /// The record of a thread that may be running: nothing is written. Of two that its process may
    /// have, the one that it had before an execve(2) that may be on its way.
    pub(crate) fn record_now(tid: u32) -> Result<Index, Errno> {
        let (cookie, _) = read_cookie(tid)?;
        match cookie.exec {
            Some(exec) if fingerprint(tid)? != exec.fingerprint => Ok(exec.record),
            _ => Ok(own_record(tid, cookie).0),
        }
    }

    /// What lies behind the limit `soft`, which was read from procfs: for looking at other
    /// processes.
    pub(crate) fn of_limit(soft: u64) -> Index {
        Cookie::decode(soft).map_or(Index::INITIAL, |cookie| cookie.record)
    }

    /// To be held from looking at a cookie to changing it: the threads of a process share one, and
    /// may call at the same time.
    pub(crate) fn lock(&self) -> ChangeLock<'_> {
        // What is protected is in the processes.
        ChangeLock(self.lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What holds for the thread `tid`; its cookie is made plain where that is possible.
    pub(crate) fn find(&self, _lock: &ChangeLock, tid: u32) -> Result<Lookup, Errno> {
        let (cookie, hard) = read_cookie(tid)?;
        if cookie.exec.is_none() && !cookie.threads_differ {
            return Ok(Lookup::Record(cookie.record));
        }
        if let Some(exec) = cookie.exec
            && fingerprint(tid)? != exec.fingerprint
        {
            if exec.unchecked {
                return Ok(Lookup::Unchecked(exec.record));
            }
            become_one(tid, cookie, exec.record, hard)?;
            return Ok(Lookup::Record(exec.record));
        }
        let (record, is_tagged) = own_record(tid, cookie);
        // With a second thread about, an execve(2) of it may still be on its way.
        if is_alone(tid)? {
            write_cookie(tid, cookie.settled(record), hard)?;
            if is_tagged {
                remove_tag(tid);
            }
        }
        Ok(Lookup::Record(record))
    }

    /// The program that nobody could look at has been looked at: its process has `record`, with all
    /// threads that it has started since.
    pub(crate) fn checked(&self, _lock: &ChangeLock, tid: u32, record: Index) -> Result<(), Errno> {
        let (cookie, hard) = read_cookie(tid)?;
        become_one(tid, cookie, record, hard)
    }

    /// From now on the thread `tid` has the credentials of `record`.
    pub(crate) fn assign(&self, _lock: &ChangeLock, tid: u32, record: Index) -> Result<(), Errno> {
        let (cookie, hard) = read_cookie(tid)?;
        if is_alone(tid)? {
            write_cookie(tid, cookie.settled(record), hard)?;
            if cookie.threads_differ {
                remove_tag(tid);
            }
            return Ok(());
        }
        // First the thread's own, then what makes it count. Realtime threads have no slack, and
        // writing it does nothing.
        let tag = Tag(record);
        let written = write_slack(tid, tag.encode());
        if written.is_err() || read_tag(tid) != Some(tag) {
            if !self.tag_failure_reported.swap(true, Ordering::Relaxed) {
                warn!(
                    ?written,
                    "a thread of several cannot have ids of its own: the change counts for its process"
                );
            }
            return become_one(tid, cookie, record, hard);
        }
        if cookie.exec.is_none()
            && threads(tid)?
                .into_iter()
                .all(|other| read_tag(other) == Some(tag))
        {
            // libc has had the last of them change.
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

    /// The thread `tid` is about to execute a program. If that succeeds its process has `after`,
    /// otherwise nothing has happened.
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

    /// Whether an execve(2) of another thread was noted down, which may have failed.
    pub(crate) fn expects_exec(_lock: &ChangeLock, tid: u32) -> Result<bool, Errno> {
        Ok(read_cookie(tid)?.0.exec.is_some())
    }

    /// From now on the kernel creates files for the process of `tid`: it has restricted itself
    /// (landlock(7)), and a worker has not.
    pub(crate) fn confine(&self, _lock: &ChangeLock, tid: u32) -> Result<(), Errno> {
        self.table.set_confined();
        let (cookie, hard) = read_cookie(tid)?;
        let cookie = Cookie {
            confined: true,
            ..cookie
        };
        write_cookie(tid, cookie, hard)
    }

    /// Whether any process may have done so.
    pub(crate) fn anyone_confined(&self) -> bool {
        self.table.anyone_confined()
    }

    pub(crate) fn is_confined(tid: u32) -> Result<bool, Errno> {
        Ok(read_cookie(tid)?.0.confined)
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

/// Excludes others from the cookies of a container.
#[derive(Debug)]
pub(crate) struct ChangeLock<'a>(
    #[expect(dead_code, reason = "held, not read")] MutexGuard<'a, ()>,
);

/// The record of one thread as long as no execve(2) has happened, and whether a tag says so.
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

/// All threads have one record. First the cookie: a thread without a tag has the cookie's.
fn become_one(tid: u32, cookie: Cookie, record: Index, hard: u64) -> Result<(), Errno> {
    write_cookie(tid, cookie.settled(record), hard)?;
    for thread in threads(tid)? {
        remove_tag(thread);
    }
    Ok(())
}

/// The cookie, and the hard limit that stays as it is.
fn read_cookie(tid: u32) -> Result<(Cookie, u64), Errno> {
    match sys::lock_limit(tid) {
        Ok((soft, hard)) => Ok((Cookie::decode(soft).unwrap_or(Cookie::INITIAL), hard)),
        // Of a process that prlimit(2) keeps closed nobody has ever changed anything.
        Err(Errno::EPERM) => Ok((Cookie::INITIAL, u64::MAX)),
        Err(errno) => Err(errno),
    }
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
    let stat = Stat::of(tid)?;
    // Code, its end, stack; data, its end, heap.
    let addresses = (START_CODE..START_CODE + 3).chain(START_DATA..START_DATA + 3);
    let addresses: Vec<u64> = addresses.filter_map(|field| stat.field(field)).collect();
    Ok(Fingerprint::of(&addresses))
}

fn slack_file(tid: u32) -> crate::linux::name::Name {
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
