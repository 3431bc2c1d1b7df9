//! execve(2): mostly of the probe itself, which then prints its credentials.

use std::os::unix::ffi::OsStringExt;

use super::{KEEP, Path, Probe, path};
use crate::print;
use crate::sys::{Answer, Arg, calls};

/// The first argument of a probe that only prints its credentials. The last argument is the number
/// of the line that started it.
pub(crate) const SHOW: &[u8] = b"--state";

impl Probe {
    /// The path of the probe's file.
    pub(crate) fn program(&self) -> Vec<u8> {
        let path = std::env::current_exe().expect("a program has a file");
        path.into_os_string().into_vec()
    }

    /// Executes `program` with execve(2).
    pub(crate) fn execve(&mut self, program: impl Into<Path>) {
        let program = program.into();
        self.become_other("execve", &program.clone(), |p, arguments| {
            let args = [path(program), arguments, Arg::Strings(Vec::new())];
            p.quiet(calls::EXECVE, &args)
        });
    }

    /// Executes a program with execveat(2), relative to a descriptor.
    pub(crate) fn execveat(&mut self, fd: i32, program: impl Into<Path>, flags: u32) {
        let program = program.into();
        let what = format!("execveat {fd} {}", print::bits(flags, print::AT_FLAGS));
        self.become_other(&what, &program.clone(), |p, arguments| {
            let args = [
                Arg::Fd(fd),
                path(program),
                arguments,
                Arg::Strings(Vec::new()),
                super::at(flags),
            ];
            p.quiet(calls::EXECVEAT, &args)
        });
    }

    fn become_other(
        &mut self,
        what: &str,
        program: &Path,
        call: impl FnOnce(&mut Probe, Arg) -> Answer,
    ) {
        let shown = self.printer.arg(&path(program.clone()));
        self.say(&format!("{what} {shown}"));
        let line = format!("{}{}", self.lineage, self.line);
        let arguments = vec![program.0.clone(), SHOW.to_vec(), line.into_bytes()];
        // execve(2) returns only if it fails.
        let answer = call(self, Arg::Strings(arguments));
        self.say(&format!("  = {}", print::answer(&answer, &[])));
        self.state();
    }

    /// The calls of a probe that another one has executed.
    pub(crate) fn introduce(&mut self) {
        self.state();
        self.ambient();
        // Succeed only if the saved ids are really those that were printed.
        self.set(calls::SETRESGID, &[KEEP, 998, KEEP]);
        self.set(calls::SETRESUID, &[KEEP, 999, KEEP]);
    }
}
