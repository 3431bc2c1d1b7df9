//! Another program instead of this one: mostly the probe itself, which then prints who it has
//! become.

use std::os::unix::ffi::OsStringExt;

use super::{KEEP, Path, Probe, path};
use crate::print;
use crate::sys::{Answer, Arg, calls};

/// The first argument of a probe that is to print who it is, and nothing else; the last one is the
/// line it came from.
pub(crate) const SHOW: &[u8] = b"--state";

impl Probe {
    /// The probe's own file.
    pub(crate) fn program(&self) -> Vec<u8> {
        let path = std::env::current_exe().expect("a program has a file");
        path.into_os_string().into_vec()
    }

    /// Becomes `program`.
    pub(crate) fn execve(&mut self, program: impl Into<Path>) {
        let program = program.into();
        self.become_other("execve", &program.clone(), |p, arguments| {
            let args = [path(program), arguments, Arg::Strings(Vec::new())];
            p.quiet(calls::EXECVE, &args)
        });
    }

    /// Becomes a program that is found from a descriptor.
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
        // Only failures come back.
        let answer = call(self, Arg::Strings(arguments));
        self.say(&format!("  = {}", print::answer(&answer, &[])));
        self.state();
    }

    /// What a probe does that another one has become.
    pub(crate) fn introduce(&mut self) {
        self.state();
        self.ambient();
        // Are the saved ids what they look like?
        self.set(calls::SETRESGID, &[KEEP, 998, KEEP]);
        self.set(calls::SETRESUID, &[KEEP, 999, KEEP]);
    }
}
