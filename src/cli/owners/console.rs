//! Progress of a long job on a terminal, and its problems.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::owners::Progress;

/// Faster changes could not be read.
const PERIOD: Duration = Duration::from_millis(100);

/// Standard error: one line with a count, on a terminal only, and a line for each problem.
#[derive(Debug)]
pub(in crate::cli) struct Console {
    is_watched: bool,
    shown: Instant,
    is_shown: bool,
    done: u64,
    problems: u64,
}

impl Console {
    pub(in crate::cli) fn new() -> Self {
        Self::beside(false)
    }

    /// Shows no count if `output` is a terminal, which shows progress by itself.
    pub(super) fn beside(output: bool) -> Self {
        Self {
            is_watched: !output && stderr().is_terminal(),
            shown: Instant::now(),
            is_shown: false,
            done: 0,
            problems: 0,
        }
    }

    /// Returns an error if there were problems.
    pub(in crate::cli) fn end(mut self) -> Result<(), Error> {
        self.clear();
        match self.problems {
            0 => Ok(()),
            count => Err(Error::Incomplete { count }),
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            // Standard error may be closed.
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Progress for Console {
    fn step(&mut self) {
        self.done += 1;
        if self.is_watched && (!self.is_shown || self.shown.elapsed() > PERIOD) {
            self.shown = Instant::now();
            self.is_shown = true;
            let _ = write!(stderr(), "\r{} files", self.done);
        }
    }

    fn problem(&mut self, what: &str) {
        self.clear();
        self.problems += 1;
        let _ = writeln!(stderr(), "subuidless: {what}");
    }
}
