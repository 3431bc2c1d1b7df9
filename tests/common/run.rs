//! Commands that end, and conditions that come true: both within a bound that is far from any time
//! that they take.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(5);

/// A hang becomes a failure after this; SUBUIDLESS_TEST_SLOW says how many times slower than others
/// this machine may be (scripts/vm sets it).
pub(crate) fn patience() -> Duration {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| {
        let Ok(factor) = std::env::var("SUBUIDLESS_TEST_SLOW") else {
            return 1;
        };
        factor.parse().expect("SUBUIDLESS_TEST_SLOW is a number")
    });
    Duration::from_secs(60) * *FACTOR
}

/// The same for a whole command: some install packages.
fn patience_with_commands() -> Duration {
    patience() * 5
}

/// Waits until `condition` gives something; `what` is told when it never does.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            start.elapsed() < patience(),
            "this never came about: {what}"
        );
        std::thread::sleep(PERIOD);
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    /// Its standard output, if it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        String::from_utf8(self.bytes()).expect("UTF-8 output")
    }

    #[track_caller]
    pub(crate) fn bytes(self) -> Vec<u8> {
        assert!(
            self.status.success(),
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout.escape_ascii().to_string().replace("\\n", "\n"),
            self.stderr
        );
        self.stdout
    }

    /// Its standard error, if it failed with an exit code of its own.
    #[track_caller]
    pub(crate) fn error(self) -> String {
        assert!(
            self.status.code().is_some_and(|code| code != 0),
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout.escape_ascii(),
            self.stderr
        );
        self.stderr
    }
}

/// Runs a command to its end; its output goes through files, since what it leaves running may keep
/// them open.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ran {
    run_with_input(command, Stdio::null())
}

#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: Stdio) -> Ran {
    let mut files = [0; 2].map(|_| tempfile::tempfile().expect("a temporary file"));
    let [stdout, stderr] = files
        .each_ref()
        .map(|file| Stdio::from(file.try_clone().expect("a second descriptor")));
    let mut child = command
        .stdin(input)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("waiting for a child") {
            break Some(status);
        }
        if start.elapsed() > patience_with_commands() {
            break None;
        }
        std::thread::sleep(PERIOD);
    };
    let [stdout, stderr] = files.each_mut().map(contents);
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let Some(status) = status else {
        end(&mut child);
        panic!(
            "{command:?} hangs\nstdout: {}\nstderr: {stderr}",
            stdout.escape_ascii()
        );
    };
    Ran {
        status,
        stdout,
        stderr,
    }
}

fn contents(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("rewinding an output");
    file.read_to_end(&mut bytes).expect("reading an output");
    bytes
}

/// Kills a child, if it still runs, and takes its status.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
