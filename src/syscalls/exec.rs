//! execve(2), execveat(2): set-user-ID and set-group-ID files, and how saved ids and capabilities
//! change.
//!
//! The kernel executes the program, and the handler does not learn whether that succeeds. So it
//! notes the new credentials as pending in the target's cookie; they count once the target's memory
//! is that of another program.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstat;

use crate::credentials::{Access, Program};
use crate::identity::{Identities, Index};
use crate::linux::seccomp::Reply;
use crate::target::{Call, Dirfd, Location, Refusal};

pub(super) fn execve(call: &mut Call) -> Result<Reply, Errno> {
    execute(call, Dirfd::Cwd, 0, 2, AtFlags::empty())
}

pub(super) fn execveat(call: &mut Call) -> Result<Reply, Errno> {
    let flags = AtFlags::from_bits_retain(call.int(4));
    execute(call, call.dirfd(0), 1, 3, flags)
}

/// Decides about one execution; `path` and `environment` are argument numbers.
fn execute(
    call: &mut Call,
    dirfd: Dirfd,
    path: usize,
    environment: usize,
    flags: AtFlags,
) -> Result<Reply, Errno> {
    let is_nested = call.is_nested();
    if is_nested && !(call.container.is_joined() && call.container.facts.is_some()) {
        // CONTINUE: another user namespace, whose ids are the kernel's.
        return Ok(Reply::Continue);
    }
    // A runtime's process, before or at its first execve(2): its files may be out of reach. Whether
    // the program has set-ID bits is determined later, through /proc/PID/exe.
    if !is_nested && (call.become_user()? || !call.container.is_joined()) {
        note(call, &Program::default(), true)?;
        // CONTINUE: the kernel executes the program.
        return Ok(Reply::Continue);
    }
    let Ok(path) = call.path(path) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    let location = Location::new(dirfd, path.as_c_str(), flags);
    if !is_nested && call.is_known_plain(&location) {
        let gains = note(call, &Program::default(), false)?;
        call.look_after_unsafe_variables(environment, gains);
        call.look_after_preload(environment, false);
        // CONTINUE: the kernel executes the program.
        return Ok(Reply::Continue);
    }
    let Ok(file) = call.resolve(&location) else {
        // CONTINUE: the kernel fails with the right errno.
        return Ok(Reply::Continue);
    };
    if is_nested {
        if let Ok(executable) = call.to_be_run(file, None) {
            call.look_after_preload(environment, executable.is_foreign);
        }
        // CONTINUE: another user namespace, whose ids are the kernel's.
        return Ok(Reply::Continue);
    }
    let stat = fstat(&file)?;
    let mode = call.file_mode(file.as_fd())?;
    if !mode.is_executable() {
        // CONTINUE: EACCES, even for root.
        return Ok(Reply::Continue);
    }
    let subject = call.subject()?;
    if !call.may(&subject, Access::EXECUTE, file.as_fd(), &stat)? {
        return Err(Errno::EACCES);
    }
    let restricted = call.restricted()?;
    let executable = match call.to_be_run(file, restricted.as_ref()) {
        Ok(executable) => executable,
        Err(Refusal::Denied) => return Err(Errno::EACCES),
        // CONTINUE: the interpreter cannot be resolved; the kernel fails with the right errno.
        Err(Refusal::ByKernel(_)) => return Ok(Reply::Continue),
    };
    if let Ok(program) = call.program_itself(executable.file.as_fd()) {
        call.remember_plain(&stat, &executable, &program);
        let gains = note(call, &program, false)?;
        call.look_after_unsafe_variables(environment, gains);
    }
    call.look_after_preload(environment, executable.is_foreign);
    // CONTINUE: the kernel executes the program, or fails with the right errno.
    Ok(Reply::Continue)
}

/// Notes the credentials that count if executing `program` succeeds. With `unchecked`, the program
/// could not be inspected yet. Returns whether the program gains something.
fn note(call: &Call, program: &Program, unchecked: bool) -> Result<bool, Errno> {
    let container = call.container;
    let identities = &container.identities;
    if *program == Program::default()
        && Identities::settled_record(call.pid())? == Some(Index::INITIAL)
    {
        // The program has its caller's credentials, which are the initial ones.
        return Ok(false);
    }
    let lock = identities.lock();
    let before = identities.get(call.who_in(&lock)?);
    let now = call.circumstances()?;
    // fs/exec.c, bprm_fill_uid: with no_new_privs, set-ID bits are ignored. `after_exec` limits
    // file capabilities.
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
    // A process has room for one note. One that another thread left, whose execve(2) may have
    // failed, would be applied to this program as well, so this note replaces it.
    if after != before || unchecked || Identities::expects_exec(&lock, call.pid())? {
        // `Call::who_in` applies `after_exec` to this record once the program is known.
        let then = if unchecked { &before } else { &after };
        let then = identities.number(then, &container.locks)?;
        call.ensure_waiting()?;
        identities.expect_exec(&lock, call.pid(), then, unchecked)?;
    }
    Ok(before.gains(&after, &program))
}
