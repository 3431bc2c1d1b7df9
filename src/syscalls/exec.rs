//! execve(2), execveat(2): set-user-ID and set-group-ID files, and what becomes of saved ids and
//! capabilities.
//!
//! The kernel runs the program. Whether it succeeds is not known here, so what it makes of the
//! credentials is noted down as pending, and counts from the moment when the target's memory is
//! another program's.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::AtFlags;

use crate::credentials::{Access, Program};
use crate::identity::{Identities, Index};
use crate::linux::seccomp::Reply;
use crate::target::{Call, Dirfd, Location};

pub(super) fn execve(call: &mut Call) -> Result<Reply, Errno> {
    execute(call, Dirfd::Cwd, 0, AtFlags::empty())
}

pub(super) fn execveat(call: &mut Call) -> Result<Reply, Errno> {
    let flags = AtFlags::from_bits_retain(call.int(4));
    execute(call, call.dirfd(0), 1, flags)
}

/// `path` is an argument number.
fn execute(call: &Call, dirfd: Dirfd, path: usize, flags: AtFlags) -> Result<Reply, Errno> {
    if call.is_nested() {
        // CONTINUE: another user namespace, whose ids are the kernel's.
        return Ok(Reply::Continue);
    }
    if call.become_user()? || !call.container.is_joined() {
        return note(call, &Program::default(), true);
    }
    let Ok(path) = call.path(path) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    let location = Location::new(dirfd, path.as_c_str(), flags);
    let Ok(file) = call.resolve(&location) else {
        // CONTINUE: the kernel says why.
        return Ok(Reply::Continue);
    };
    let mode = call.file_mode(file.as_fd())?;
    if !mode.is_executable() {
        // CONTINUE: EACCES, whoever asks.
        return Ok(Reply::Continue);
    }
    if !call.subject()?.may(Access::EXECUTE, mode) {
        return Err(Errno::EACCES);
    }
    match call.program(file) {
        Ok(program) => note(call, &program, false),
        // CONTINUE: an interpreter that is not there; the kernel says so.
        Err(_) => Ok(Reply::Continue),
    }
}

fn note(call: &Call, program: &Program, unchecked: bool) -> Result<Reply, Errno> {
    let container = call.container;
    let identities = &container.identities;
    if *program == Program::default()
        && Identities::settled_record(call.pid())? == Some(Index::INITIAL)
    {
        // CONTINUE: the program has the credentials that its caller has.
        return Ok(Reply::Continue);
    }
    let lock = identities.lock();
    let before = identities.get(call.who_in(&lock)?);
    let now = call.circumstances()?;
    let program = match now.no_new_privs {
        true => Program {
            set_uid: None,
            set_gid: None,
            ..*program
        },
        false => *program,
    };
    let after = match program == Program::default() && before.survive_exec() {
        true => before.clone(),
        false => before.after_exec(&program, &now),
    };
    // Another thread's note would count for this program, too.
    if after != before || unchecked || Identities::expects_exec(&lock, call.pid())? {
        // What is not checked yet is worked out afterwards from what was in force before.
        let then = if unchecked { &before } else { &after };
        let then = identities.number(then, &container.locks)?;
        call.ensure_waiting()?;
        identities.expect_exec(&lock, call.pid(), then, unchecked)?;
    }
    // CONTINUE: the kernel executes it.
    Ok(Reply::Continue)
}
