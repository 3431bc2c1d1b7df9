//! Tasks: all ways to create a child, libc's calls that affect every thread, and all ways to end.

use std::io::{PipeReader, Read, Write};

use libc::{c_int, c_long};

use super::errno;

/// How a child is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Birth {
    Fork,
    /// `clone(CLONE_VM | CLONE_VFORK)`: the child shares the parent's memory, and the parent waits
    /// until the child has ended.
    Vfork,
    /// A raw clone(2), as in a program without libc.
    Clone,
    Clone3,
    /// fork(2) twice, as a daemon does: the child's parent has ended before the child makes a call.
    Orphan,
}

/// Runs `work` in a child process, waits for it, and returns its raw wait status.
pub(crate) fn in_child(birth: Birth, mut work: impl FnMut()) -> c_int {
    let mut work: &mut dyn FnMut() = &mut work;
    match birth {
        Birth::Vfork => {
            let mut stack = vec![0_u128; 1 << 16];
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let top = stack.as_mut_ptr_range().end;
            // SAFETY: the stack and `work` outlive the child, since CLONE_VFORK holds us here until
            // it has ended; nothing else runs in this memory meanwhile.
            let pid =
                unsafe { libc::clone(run_and_exit, top.cast(), flags, (&raw mut work).cast()) };
            wait(pid)
        }
        Birth::Orphan => {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            wait(spawn(Birth::Fork, || {
                let middle = process_id();
                spawn(Birth::Fork, || {
                    while parent_id() == middle {
                        std::thread::yield_now();
                    }
                    work();
                    (&writer).write_all(b".").expect("a reader");
                });
            }));
            drop(writer);
            let bytes = until_end(reader);
            if bytes == b"." { 0 } else { 1 }
        }
        birth => wait(spawn(birth, work)),
    }
}

fn until_end(mut reader: PipeReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("a pipe that ends");
    bytes
}

/// Runs `work` in a child process, and returns its process id at once.
pub(crate) fn spawn(birth: Birth, mut work: impl FnMut()) -> c_int {
    let mut work: &mut dyn FnMut() = &mut work;
    let pid = match birth {
        // SAFETY: other threads of the probe, if there are any, stand still and hold no lock while
        // it forks, and libc makes its allocator fit for use in the child.
        Birth::Fork => unsafe { libc::fork() },
        Birth::Clone => {
            // SAFETY: as above, and no thread of the probe's allocates meanwhile; the arguments are
            // no addresses.
            let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
            narrow(pid)
        }
        Birth::Clone3 => {
            // struct clone_args up to `tls`, all zero but exit_signal.
            let arguments = [0, 0, 0, 0, u64::from(libc::SIGCHLD.unsigned_abs()), 0, 0, 0];
            let size = size_of_val(&arguments);
            // SAFETY: as above; `arguments` lives for the time of the call and is as long as said.
            narrow(unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size) })
        }
        Birth::Vfork | Birth::Orphan => unreachable!("only in_child makes these"),
    };
    if pid == 0 {
        run_and_exit((&raw mut work).cast());
    }
    assert!(pid > 0, "no child: errno {}", errno());
    pid
}

/// Makes a child with these flags of clone(2), which ends at once.
pub(crate) fn clone(flags: c_int) -> Result<(), i32> {
    // SAFETY: as in `spawn`: without CLONE_VM the child has a copy of this stack, and it makes one
    // system call; with flags that share more, the kernel makes no child at all (EINVAL).
    ended(unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) })
}

/// The same, by clone3(2).
pub(crate) fn clone3(flags: c_int) -> Result<(), i32> {
    let signal = u64::from(libc::SIGCHLD.unsigned_abs());
    let arguments = [flags.unsigned_abs().into(), 0, 0, 0, signal, 0, 0, 0];
    // SAFETY: as above; `arguments` lives for the time of the call and is as long as said.
    ended(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    })
}

fn ended(pid: c_long) -> Result<(), i32> {
    match pid {
        0 => exit(0),
        -1 => Err(errno()),
        pid => {
            wait(narrow(pid));
            Ok(())
        }
    }
}

/// Ignores a signal.
pub(crate) fn ignore(signal: c_int) {
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Waits for a child, and returns its raw wait status.
pub(crate) fn wait(pid: c_int) -> c_int {
    let mut status = 0;
    // SAFETY: `status` is ours for the time of the call.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert!(pid > 0 && waited == pid, "waitpid: errno {}", errno());
    status
}

/// The child's side of [`spawn`]; `work` points to a `&mut dyn FnMut()`.
extern "C" fn run_and_exit(work: *mut libc::c_void) -> c_int {
    // SAFETY: the caller passes the address of such a reference, which lives until the child has
    // ended.
    let work = unsafe { &mut *work.cast::<&mut dyn FnMut()>() };
    let ended_well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
    exit(if ended_well { 0 } else { 101 })
}

/// Ends the process without running destructors or exit handlers.
pub(crate) fn exit(status: c_int) -> ! {
    // SAFETY: ending the process leaves no memory behind to be unsound.
    unsafe { libc::_exit(status) }
}

/// Ends only the calling thread, as `pthread_exit` in the first thread of a process does.
pub(crate) fn exit_thread() -> ! {
    loop {
        // SAFETY: the thread never comes back, so nothing sees its stack half done; other threads
        // of this process hold no reference into it.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

/// A function of libc that makes the system call in every thread of the process; see nptl(7).
#[derive(Clone, Debug)]
pub(crate) enum Everywhere {
    Setuid(u32),
    Setgid(u32),
    Seteuid(u32),
    Setegid(u32),
    Setreuid(u32, u32),
    Setregid(u32, u32),
    Setresuid(u32, u32, u32),
    Setresgid(u32, u32, u32),
    Setgroups(Vec<u32>),
}

pub(crate) fn everywhere(call: &Everywhere) -> Result<(), i32> {
    let result = match *call {
        // SAFETY: this and the next ones change ids and touch no memory of ours.
        Everywhere::Setuid(id) => unsafe { libc::setuid(id) },
        // SAFETY: as above.
        Everywhere::Setgid(id) => unsafe { libc::setgid(id) },
        // SAFETY: as above.
        Everywhere::Seteuid(id) => unsafe { libc::seteuid(id) },
        // SAFETY: as above.
        Everywhere::Setegid(id) => unsafe { libc::setegid(id) },
        // SAFETY: as above.
        Everywhere::Setreuid(real, effective) => unsafe { libc::setreuid(real, effective) },
        // SAFETY: as above.
        Everywhere::Setregid(real, effective) => unsafe { libc::setregid(real, effective) },
        // SAFETY: as above.
        Everywhere::Setresuid(real, effective, saved) => unsafe {
            libc::setresuid(real, effective, saved)
        },
        // SAFETY: as above.
        Everywhere::Setresgid(real, effective, saved) => unsafe {
            libc::setresgid(real, effective, saved)
        },
        Everywhere::Setgroups(ref groups) => {
            // SAFETY: the pointer and the length are those of one slice.
            unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }
        }
    };
    if result == 0 { Ok(()) } else { Err(errno()) }
}

fn narrow(pid: c_long) -> c_int {
    c_int::try_from(pid).expect("a process id")
}

pub(crate) fn process_id() -> i32 {
    // SAFETY: getpid(2) takes no arguments and cannot fail.
    unsafe { libc::getpid() }
}

pub(crate) fn parent_id() -> i32 {
    // SAFETY: getppid(2) takes no arguments and cannot fail.
    unsafe { libc::getppid() }
}

pub(crate) fn thread_id() -> i32 {
    // SAFETY: gettid(2) takes no arguments and cannot fail.
    unsafe { libc::gettid() }
}
