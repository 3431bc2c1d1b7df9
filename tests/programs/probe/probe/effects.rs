//! Side effects of a change of owner: the ctime, inotify's events, and the state of the whole tree
//! afterwards.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use super::{Probe, fd, path};
use crate::print::{self, INOTIFY_EVENTS};
use crate::sys::{Arg, Place, calls};

impl Probe {
    /// Whether `change` changes the ctime of `file`. Sleeps first, because the clock of inodes is
    /// coarse.
    pub(crate) fn watch_ctime(&mut self, file: &[u8], change: impl FnOnce(&mut Probe)) {
        let before = self.ctime(file);
        std::thread::sleep(Duration::from_millis(15));
        change(self);
        let answer = match (before, self.ctime(file)) {
            (Some(before), Some(after)) if before == after => "ctime stays",
            (Some(_), Some(_)) => "ctime moves",
            (None, None) => "no file, no ctime",
            _ => "ctime of a file that comes or goes",
        };
        self.say(answer);
    }

    fn ctime(&mut self, file: &[u8]) -> Option<(i64, i64)> {
        let answer = self.quiet(calls::LSTAT, &[path(file), Arg::Stat(Place::Heap)]);
        answer.result.ok()?;
        Some((answer.stat().st_ctime, answer.stat().st_ctime_nsec))
    }

    /// The kinds of inotify events that `change` causes on `file` itself.
    pub(crate) fn watch_events(&mut self, file: &[u8], change: impl FnOnce(&mut Probe)) {
        let flags = i64::from(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
        let created = self.quiet(calls::INOTIFY_INIT1, &[Arg::Number(flags)]);
        let Ok(inotify) = created.result.map(fd) else {
            return self.say("no inotify");
        };
        let mask = Arg::Number((libc::IN_ALL_EVENTS | libc::IN_DONT_FOLLOW).into());
        let added = self.quiet(
            calls::INOTIFY_ADD_WATCH,
            &[Arg::Fd(inotify), path(file), mask],
        );
        change(self);
        let seen = self.events_until_closed(inotify);
        self.quiet(calls::CLOSE, &[Arg::Fd(inotify)]);
        let shown = match added.result {
            Ok(_) => events(&seen),
            Err(errno) => print::errno(errno),
        };
        self.say(&format!("events: {shown}"));
    }

    /// The worker that has created a file may hold it open until it answers the next call, and one
    /// of its other threads may answer that.
    fn events_until_closed(&mut self, inotify: i32) -> Vec<u8> {
        self.quiet(calls::SETFSUID, &[Arg::Id(u32::MAX)]);
        let mut seen = Vec::new();
        for _ in 0..400 {
            let read = self.quiet(
                calls::READ,
                &[
                    Arg::Fd(inotify),
                    Arg::Output(16384, Place::Heap),
                    Arg::Number(16384),
                ],
            );
            if read.result.is_ok() {
                seen.extend_from_slice(read.output(1));
            }
            let shown = events(&seen);
            let has = |name: &str| shown.contains(name);
            if !(has("IN_CREATE") && has("IN_OPEN")) || has("IN_CLOSE") {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        seen
    }

    /// Prints every file below `directory`, sorted by name.
    pub(crate) fn list(&mut self, directory: &[u8]) {
        let entries = std::fs::read_dir(OsStr::from_bytes(directory));
        let mut names: Vec<Vec<u8>> = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().into_vec())
            .collect();
        names.sort();
        for name in names {
            let file = [directory, b"/", name.as_slice()].concat();
            let answer = self.quiet(calls::LSTAT, &[path(&file), Arg::Stat(Place::Heap)]);
            let fields = match answer.result {
                Ok(_) => print::stat(&answer.stat()),
                Err(errno) => print::errno(errno),
            };
            let shown = self.printer.path(&file);
            self.say(&format!("  {shown} {fields}"));
            if answer.result.is_ok() && answer.stat().st_mode & libc::S_IFMT == libc::S_IFDIR {
                self.list(&file);
            }
        }
    }
}

/// The union of the masks in the bytes that were read from an inotify fd.
fn events(mut bytes: &[u8]) -> String {
    let mut all = 0;
    // struct inotify_event: wd, mask, cookie, len, then len bytes of name; see inotify(7).
    while let Some((head, rest)) = bytes.split_at_checked(16) {
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes"));
        all |= word(4);
        bytes = &rest[word(12) as usize..];
    }
    print::bits(all, INOTIFY_EVENTS)
}
