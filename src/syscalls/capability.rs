//! capget(2), capset(2), those operations of prctl(2) that concern credentials, and calls that take
//! nothing but a capability: sethostname(2), setdomainname(2), reboot(2), open_by_handle_at(2).
//!
//! A capability that root drops leaves the kernel's own sets, too. Emulated sets are never larger
//! than the kernel's, so the kernel allows whatever the handlers allow and continue.

use nix::errno::Errno;
use nix::sys::statfs::{FsType, NSFS_MAGIC, fstatfs};

use super::permission::allow;
use super::view;
use crate::credentials::{Capabilities, Circumstances, Credentials, capability};
use crate::identity::Identities;
use crate::linux::procfs::Status;
use crate::linux::seccomp::Reply;
use crate::target::Call;

/// linux/capability.h
const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;
/// All capabilities up to the last one, CAP_CHECKPOINT_RESTORE (40); the kernel ignores higher
/// bits.
const ALL: u64 = (1 << 41) - 1;

/// The number of 32-bit parts of a set in this version, or `None` for an unknown version.
fn parts(version: u32) -> Option<usize> {
    match version {
        VERSION_1 => Some(1),
        VERSION_2 | VERSION_3 => Some(2),
        _ => None,
    }
}

/// Reads the header: the number of parts that its version has, and its pid.
fn header(call: &Call) -> Result<(Option<usize>, i32), Errno> {
    let mut bytes = [0; 8];
    call.read(0, &mut bytes)?;
    let [a, b, c, d, e, f, g, h] = bytes;
    let version = u32::from_ne_bytes([a, b, c, d]);
    Ok((parts(version), i32::from_ne_bytes([e, f, g, h])))
}

/// Whether `pid` names the calling thread: 0, or its id in its own pid namespace.
fn is_own(call: &Call, pid: u32) -> Result<bool, Errno> {
    Ok(pid == 0 || Some(pid) == Status::of(call.pid())?.own_tid())
}

pub(super) fn capget(call: &mut Call) -> Result<Reply, Errno> {
    if !call.container.identities.anyone_changed() || call.is_nested() {
        // CONTINUE: the kernel's own sets are in force.
        return Ok(Reply::Continue);
    }
    let Ok((Some(parts), pid)) = header(call) else {
        // CONTINUE: a bad pointer, or an unknown version: the kernel writes the one that it prefers
        // into the header.
        return Ok(Reply::Continue);
    };
    let credentials = match u32::try_from(pid) {
        Ok(pid) if !is_own(call, pid)? => call.credentials_of(pid),
        Ok(_) => Some(call.credentials()?),
        Err(_) => None,
    };
    let own = credentials.and_then(|credentials| credentials.capabilities);
    let Some(sets) = own.filter(|_| call.register(1) != 0) else {
        // CONTINUE: the kernel's own sets are in force, a null pointer asks for the version only,
        // or no process has this pid.
        return Ok(Reply::Continue);
    };
    // kernel/capability.c: an array of structures, first with the lower 32 bits of the three sets,
    // then with the upper ones.
    let halves = [sets.effective, sets.permitted, sets.inheritable].map(|set| set.to_ne_bytes());
    let bytes: Vec<u8> = (0..parts)
        .flat_map(|part| halves.map(|set| set.as_chunks::<4>().0[part]))
        .flatten()
        .collect();
    call.write(1, &bytes)?;
    Ok(Reply::Value(0))
}

pub(super) fn sethostname(call: &mut Call) -> Result<Reply, Errno> {
    allow(!call.lacks(capability::SYS_ADMIN)?, Errno::EPERM)
}

pub(super) fn setdomainname(call: &mut Call) -> Result<Reply, Errno> {
    allow(!call.lacks(capability::SYS_ADMIN)?, Errno::EPERM)
}

pub(super) fn reboot(call: &mut Call) -> Result<Reply, Errno> {
    allow(!call.lacks(capability::SYS_BOOT)?, Errno::EPERM)
}

/// The kernel opens directories for whoever could mount their file system, or bind what is there
/// (fs/fhandle.c, may_decode_fh), so for root of a container; and for everybody in file systems of
/// its own, those of pidfds and namespaces.
pub(super) fn open_by_handle_at(call: &mut Call) -> Result<Reply, Errno> {
    const PID_FS_MAGIC: FsType = FsType(0x5049_4446);
    if !call.lacks(capability::DAC_READ_SEARCH)? {
        // CONTINUE: the kernel decides.
        return Ok(Reply::Continue);
    }
    let is_open = match call.int(0) {
        // linux/fcntl.h: FD_PIDFS_ROOT, FD_NSFS_ROOT.
        -10_003 | -10_002 => true,
        libc::AT_FDCWD => false,
        fd => match call.duplicate(fd) {
            Ok(file) => [PID_FS_MAGIC, NSFS_MAGIC].contains(&fstatfs(&file)?.filesystem_type()),
            // EBADF.
            Err(_) => true,
        },
    };
    allow(is_open, Errno::EPERM)
}

pub(super) fn capset(call: &mut Call) -> Result<Reply, Errno> {
    if call.is_nested() || call.credentials()?.capabilities.is_none() {
        call.container.expect_limited();
        // CONTINUE: the kernel's own sets are in force.
        return Ok(Reply::Continue);
    }
    let (parts, pid) = match header(call) {
        Ok((Some(parts), pid)) => (parts, pid),
        // A runtime that enters the container is not dumpable, so its memory cannot be read. The
        // kernel knows which capabilities it keeps.
        Err(Errno::EPERM) => return leave_to_kernel(call),
        // CONTINUE: a bad pointer, or an unknown version: the kernel writes the one that it prefers
        // into the header.
        _ => return Ok(Reply::Continue),
    };
    // kernel/capability.c, SYSCALL_DEFINE2(capset): a thread changes only its own sets.
    if !u32::try_from(pid).is_ok_and(|pid| is_own(call, pid) == Ok(true)) {
        return Err(Errno::EPERM);
    }
    let mut bytes = [0; 24];
    let bytes = &mut bytes[..12 * parts];
    call.read(1, bytes)?;
    let word = |index: usize| {
        bytes
            .as_chunks::<4>()
            .0
            .get(index)
            .map_or(0, |word| u64::from(u32::from_ne_bytes(*word)))
    };
    let set = |index: usize| (word(index) | word(index + 3) << 32) & ALL;
    let new = Capabilities {
        effective: set(0),
        permitted: set(1),
        inheritable: set(2),
        ambient: 0,
    };
    let now = call.circumstances()?;
    call.change_credentials(|credentials| credentials.capset(new, now.bounding).map(|()| 0))?;
    if !call.credentials()?.is_root() && is_forgotten(&now, new) {
        return Ok(Reply::Value(0));
    }
    // CONTINUE: dropped capabilities leave the kernel's sets, too.
    Ok(Reply::Continue)
}

/// Whether the next execve(2) would undo in the kernel, which takes the target for root, what
/// capset(2) does now: only the inheritable and the ambient set outlive it. Then it is better not
/// done: a program that gains capabilities is not dumpable (kernel/cred.c, commit_creds), and
/// cannot open its own files in /proc.
fn is_forgotten(now: &Circumstances, new: Capabilities) -> bool {
    let kernel = now.kernel;
    let keeps_ambient = kernel.ambient & !(new.permitted & new.inheritable) == 0;
    // One that an earlier call has taken from the kernel's set, with another inheritable set, must
    // come back.
    let has_all = new.effective & !kernel.effective == 0;
    !now.no_new_privs && kernel.inheritable == new.inheritable && keeps_ambient && has_all
}

/// Gives the target a record without sets of its own.
fn leave_to_kernel(call: &Call) -> Result<Reply, Errno> {
    let credentials = Credentials {
        capabilities: None,
        ..call.credentials()?
    };
    let identities = &call.container.identities;
    let lock = identities.lock();
    let record = identities.number(&credentials, &call.container.locks)?;
    call.ensure_waiting()?;
    identities.assign(&lock, call.pid(), record)?;
    // CONTINUE: the kernel's own sets are in force from now on.
    Ok(Reply::Continue)
}

pub(super) fn prctl(call: &mut Call) -> Result<Reply, Errno> {
    if call.int(0) != libc::PR_SET_SECCOMP && call.is_nested() {
        // CONTINUE: another user namespace, whose capabilities are the kernel's.
        return Ok(Reply::Continue);
    }
    match call.int(0) {
        libc::PR_SET_KEEPCAPS => keep_capabilities(call),
        libc::PR_SET_SECUREBITS => set_securebits(call),
        libc::PR_CAP_AMBIENT => ambient(call),
        libc::PR_CAPBSET_DROP => drop_bounding(call),
        libc::PR_SET_SECCOMP => view::filter(call),
        // The timer slack of this thread is its tag: it must not change.
        libc::PR_SET_TIMERSLACK if Identities::is_tagged(call.pid())? => Ok(Reply::Value(0)),
        // CONTINUE: does not concern credentials.
        _ => Ok(Reply::Continue),
    }
}

fn keep_capabilities(call: &Call) -> Result<Reply, Errno> {
    let keep = match call.register(1) {
        0 => false,
        1 => true,
        // CONTINUE: EINVAL.
        _ => return Ok(Reply::Continue),
    };
    call.change_credentials(|credentials| credentials.set_keep_capabilities(keep).map(|()| 0))?;
    // CONTINUE: PR_GET_KEEPCAPS does not trap, so the kernel must know the flag.
    Ok(Reply::Continue)
}

fn set_securebits(call: &Call) -> Result<Reply, Errno> {
    // security/commoncap.c, cap_task_prctl: unknown bits are EPERM.
    let Ok(bits) = u32::try_from(call.register(1)) else {
        return Err(Errno::EPERM);
    };
    call.change_credentials(|credentials| credentials.set_securebits(bits).map(|()| 0))?;
    // CONTINUE: PR_GET_SECUREBITS does not trap, so the kernel must know the bits.
    Ok(Reply::Continue)
}

/// prctl(2), PR_CAPBSET_DROP: requires CAP_SETPCAP, which the target may have in the kernel's sets
/// but not in its emulated ones.
fn drop_bounding(call: &Call) -> Result<Reply, Errno> {
    let own = call.credentials()?.capabilities;
    let refused = own.is_some_and(|sets| sets.effective & capability::SETPCAP == 0);
    if refused {
        return Err(Errno::EPERM);
    }
    // CONTINUE: the bounding set is not emulated.
    Ok(Reply::Continue)
}

/// prctl(2), PR_CAP_AMBIENT.
fn ambient(call: &Call) -> Result<Reply, Errno> {
    const IS_SET: i32 = 1;
    const RAISE: i32 = 2;
    const LOWER: i32 = 3;
    const CLEAR_ALL: i32 = 4;
    let known = call.register(2) < 64 && ALL >> call.register(2) & 1 == 1;
    let well_formed = call.register(3) == 0 && call.register(4) == 0;
    let Some(sets) = call.credentials()?.capabilities else {
        // CONTINUE: the kernel's own sets are in force.
        return Ok(Reply::Continue);
    };
    let bit = if known { 1 << call.register(2) } else { 0 };
    match call.int(1) {
        CLEAR_ALL if call.register(2) == 0 && well_formed => {
            call.change_credentials(|credentials| {
                credentials.lower_ambient(u64::MAX);
                Ok(0)
            })?;
        }
        IS_SET if known && well_formed => {
            return Ok(Reply::Value(i64::from(sets.ambient & bit != 0)));
        }
        RAISE if known && well_formed => {
            call.change_credentials(|credentials| credentials.raise_ambient(bit).map(|()| 0))?;
        }
        LOWER if known && well_formed => {
            call.change_credentials(|credentials| {
                credentials.lower_ambient(bit);
                Ok(0)
            })?;
        }
        _ => {}
    }
    // CONTINUE: EINVAL, or the same change of the kernel's own ambient set.
    Ok(Reply::Continue)
}
