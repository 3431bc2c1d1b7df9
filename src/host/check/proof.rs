//! The main check: runs a target under the filter of containers, and a supervisor that answers its
//! calls.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Check;
use super::steps::{Supervisor, Target, Tried};
use crate::linux::settings::{blame_for_memory, blame_for_namespace};
use crate::wire::mode::Mode;

const NAMESPACES: &str = "user namespaces";
const FILTER: &str = "seccomp notification";
const JOIN: &str = "joining a container";
const MEMORY: &str = "memory of targets";
const FILES: &str = "files for targets";
pub(super) const PROCFS: &str = "fresh /proc";
const WAKE_UP: &str = "synchronous wake-up";

/// The time limit. Normally it takes less than a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks whether containers can be created, and their calls be answered.
pub(super) fn namespace_and_notification() -> Vec<Check> {
    let failed = |error: io::Error| {
        let change = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "no process can be started: a filter of an outer container may answer clone3(2) \
                 with EPERM (Docker before 20.10.10): update it, or run this outside"
            }
            _ => "this program must be able to execute /proc/self/exe: is /proc mounted?",
        };
        vec![Check::fail(
            FILTER,
            format!("cannot be tested: {error}"),
            change,
        )]
    };
    match run() {
        Ok((target, supervisor)) => judge(&target, &supervisor),
        Err(error) => failed(error),
    }
}

fn run() -> io::Result<(Target, Supervisor)> {
    let (ours, theirs) = UnixStream::pair()?;
    let step = |mode: Mode, stdin: UnixStream| {
        let mut command = mode.command("subuidless");
        command.stdin(OwnedFd::from(stdin)).stderr(Stdio::null());
        command
    };
    let mut target = step(Mode::CheckTarget, ours);
    let mut supervisor = step(Mode::CheckSupervisor, theirs);
    // Both run at the same time, since each waits for the other. No threads: RLIMIT_NPROC may be
    // reached.
    let (supervisor, target) = (Asked::start(&mut supervisor)?, Asked::start(&mut target)?);
    let target = serde_json::from_slice(&target.answer(PATIENCE)?.1)?;
    Ok((
        target,
        serde_json::from_slice(&supervisor.answer(PATIENCE)?.1)?,
    ))
}

/// The output of a command, which is killed if it takes longer than `patience`.
pub(super) fn output(
    command: &mut Command,
    patience: Duration,
) -> io::Result<(ExitStatus, Vec<u8>)> {
    Asked::start(command)?.answer(patience)
}

/// A running command whose output is read.
struct Asked(Child);

impl Asked {
    /// Starts the command. Closes this process's copy of its standard input.
    fn start(command: &mut Command) -> io::Result<Self> {
        let child = command.stdout(Stdio::piped()).spawn()?;
        command.stdin(Stdio::null());
        Ok(Self(child))
    }

    fn answer(mut self, patience: Duration) -> io::Result<(ExitStatus, Vec<u8>)> {
        let start = Instant::now();
        let mut output = Vec::new();
        let mut stdout = self.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        loop {
            let left = patience.saturating_sub(start.elapsed());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(
                &mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)],
                timeout,
            ) {
                Err(Errno::EINTR) => continue,
                Ok(0) => {
                    let seconds = patience.as_secs();
                    let reason = format!("no answer within {seconds} seconds");
                    return Err(io::Error::other(reason));
                }
                _ => {}
            }
            let mut bytes = [0; 4096];
            match stdout.read(&mut bytes)? {
                0 => return Ok((self.0.wait()?, output)),
                length => output.extend(&bytes[..length]),
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // No effect on a process that was waited for already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn judge(target: &Target, supervisor: &Supervisor) -> Vec<Check> {
    if let Some((stage, errno)) = &target.namespace {
        let (reason, change) = blame_for_namespace(stage, Errno::from_raw(*errno));
        return vec![Check::fail(NAMESPACES, reason, change)];
    }
    let mut checks = vec![Check::ok(
        NAMESPACES,
        "created one as its root, with a mount namespace",
    )];
    if let Some(Err(errno)) = target.filter {
        checks.push(no_filter(Errno::from_raw(errno)));
        return checks;
    }
    if let Some(Err(errno)) = supervisor.join {
        let reason = match supervisor.procfs {
            Some(Err(_)) => "/proc/PID/ns of a process in it",
            _ => "setns(CLONE_NEWUSER)",
        };
        checks.push(Check::fail(
            JOIN,
            format!("{reason}: {}", Errno::from_raw(errno).desc()),
            "a security module or the options of /proc (hidepid) forbid it: workers could not see \
             their containers",
        ));
        return checks;
    }
    if let Some(Err(errno)) = supervisor.memory {
        let (reason, change) = blame_for_memory(Errno::from_raw(errno));
        checks.push(Check::fail(MEMORY, reason, change));
        return checks;
    }
    checks.push(match target.chown {
        Some(Ok(())) => Check::ok(FILTER, "loaded the filter, and answered a chown under it"),
        other => Check::fail(
            FILTER,
            format!(
                "a chown under the filter was not answered: {}",
                shown(other)
            ),
            "please report this, with the kernel's version",
        ),
    });
    checks.push(Check::ok(
        JOIN,
        "joined the user namespace of another process",
    ));
    checks.push(Check::ok(MEMORY, "read it from another user namespace"));
    checks.push(match (supervisor.send_file, target.content_arrived) {
        (Some(Ok(())), true) => Check::ok(FILES, "opened a file in another process (ADDFD, SEND)"),
        (sent, _) => Check::fail(
            FILES,
            format!("SECCOMP_IOCTL_NOTIF_ADDFD with SEND: {}", shown(sent)),
            "Linux 5.14 or newer is needed",
        ),
    });
    checks.push(match target.procfs {
        Some(Ok(())) => Check::ok(PROCFS, "mounted one for a new pid namespace"),
        tried => Check::warn(
            PROCFS,
            format!(
                "mount(2): {}: containers and --pid cannot have one",
                shown(tried)
            ),
            "parts of this host's /proc are covered, as in many containers: run this outside, or \
             let the outer container have all of /proc (podman: --security-opt unmask=ALL)",
        ),
    });
    checks.push(match supervisor.sync_wake_up {
        true => Check::ok(WAKE_UP, "a call costs a tenth of what it costs without it"),
        false => Check::warn(
            WAKE_UP,
            "not in this kernel: a call takes some 50 µs longer",
            "Linux 6.6 or newer has it",
        ),
    });
    checks
}

fn no_filter(errno: Errno) -> Check {
    match errno {
        Errno::EBUSY => Check::fail(
            FILTER,
            "this process has a filter with a listener already (EBUSY), and the kernel allows one",
            "run this outside of `subuidless run` and of containers with seccomp notification",
        ),
        errno => Check::fail(
            FILTER,
            format!("loading the filter: {}", errno.desc()),
            "the kernel needs CONFIG_SECCOMP_FILTER, and a filter of an outer container must not \
             deny seccomp(2)",
        ),
    }
}

fn shown(tried: Option<Tried>) -> String {
    match tried {
        None => "this step was not reached".to_owned(),
        Some(Ok(())) => "it had another result than expected".to_owned(),
        Some(Err(errno)) => Errno::from_raw(errno).desc().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn good() -> (Target, Supervisor) {
        let target = Target {
            procfs: Some(Ok(())),
            filter: Some(Ok(())),
            chown: Some(Ok(())),
            open: Some(Ok(())),
            content_arrived: true,
            ..Target::default()
        };
        let supervisor = Supervisor {
            sync_wake_up: true,
            procfs: Some(Ok(())),
            join: Some(Ok(())),
            memory: Some(Ok(())),
            send_file: Some(Ok(())),
        };
        (target, supervisor)
    }

    /// The checks that are not ok, after `spoil` has changed a good result.
    fn judged(spoil: impl FnOnce(&mut Target, &mut Supervisor)) -> Vec<(String, Verdict, String)> {
        let (mut target, mut supervisor) = good();
        spoil(&mut target, &mut supervisor);
        judge(&target, &supervisor)
            .into_iter()
            .filter(|check| check.result != Verdict::Ok)
            .map(|check| (check.name, check.result, check.reason))
            .collect()
    }

    #[test]
    fn where_all_is_well_nothing_is_said() {
        assert_eq!(judged(|_, _| {}), []);
    }

    #[test]
    fn what_a_host_cannot_do_is_named() {
        let errno = |errno: Errno| Some(Err(errno as i32));
        let cases = [
            (
                judged(|_, worker| worker.memory = errno(Errno::EPERM)),
                MEMORY,
            ),
            (judged(|_, worker| worker.join = errno(Errno::EPERM)), JOIN),
            (
                judged(|_, worker| worker.send_file = errno(Errno::EINVAL)),
                FILES,
            ),
            (
                judged(|target, _| target.filter = errno(Errno::EBUSY)),
                FILTER,
            ),
            (
                judged(|target, _| target.chown = errno(Errno::ENOSYS)),
                FILTER,
            ),
            (judged(|target, _| target.content_arrived = false), FILES),
        ];
        for (found, name) in cases {
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].0.as_str(), found[0].1), (name, Verdict::Fail));
        }
        let slow = judged(|_, worker| worker.sync_wake_up = false);
        assert_eq!((slow[0].0.as_str(), slow[0].1), (WAKE_UP, Verdict::Warn));
    }
}
