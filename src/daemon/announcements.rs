//! What the runtime front has announced, until the listener comes that it is about.
//!
//! The front execs the runtime, so the process that announces is the one that connects later with the listener, or an
//! ancestor of it. A container's id alone would not do: two execs of one container may start at the same time. But it has to do where
//! a runtime leaves its parents behind, as `crun run --detach` does.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::debug;

use crate::handover::{Announcement, NextUser};
use crate::sys;

/// A front announces once, and its runtime comes within the second.
const MOST: usize = 1024;
/// For a runtime whose first process has ended to come with its listener.
const PATIENCE: Duration = Duration::from_secs(30);
/// crun forks once or twice before it connects.
const GENERATIONS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Announcements {
    waiting: RefCell<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    announcement: Announcement,
    pid: u32,
    /// Tells when `pid` means somebody else.
    process: OwnedFd,
    heard: Instant,
}

impl Announcements {
    /// Keeps what the process `pid` says, as long as it lives. `false`: nobody can tell whose it is.
    pub(super) fn hear(&self, announcement: Announcement, pid: Option<u32>) -> bool {
        debug!(?announcement, pid, "announced");
        let Some(pid) = pid else {
            return false;
        };
        let Ok(process) = sys::pidfd_open(pid) else {
            return false;
        };
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(Waiting::may_come);
        if waiting.len() >= MOST {
            waiting.remove(0);
        }
        waiting.push(Waiting {
            announcement,
            pid,
            process,
            heard: Instant::now(),
        });
        true
    }

    /// What was announced by the process `pid` or one that it descends from. To be asked when it connects: by the time of its
    /// message the runtime may have left its container to itself.
    pub(super) fn claim(&self, pid: Option<u32>) -> Option<Announcement> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return None;
        }
        let mut pid = pid;
        for _ in 0..GENERATIONS {
            let known = waiting
                .iter()
                .position(|waiting| Some(waiting.pid) == pid && waiting.is_alive());
            if let Some(index) = known {
                return Some(waiting.remove(index).announcement);
            }
            pid = pid.and_then(parent);
        }
        None
    }

    /// What `claimed` says about the container `id`, or if nothing was claimed, what somebody has said who has not come yet.
    pub(super) fn next_user(&self, claimed: Option<Announcement>, id: &str) -> Option<NextUser> {
        let is_meant = |announcement: &Announcement| announcement.id == id;
        let said = match claimed {
            Some(announcement) => Some(announcement).filter(is_meant),
            None => {
                let mut waiting = self.waiting.borrow_mut();
                waiting.retain(Waiting::may_come);
                let known = waiting
                    .iter()
                    .position(|waiting| is_meant(&waiting.announcement));
                known.map(|index| waiting.remove(index).announcement)
            }
        };
        said.map(|announcement| announcement.next)
    }
}

impl Waiting {
    fn may_come(&self) -> bool {
        self.heard.elapsed() < PATIENCE || self.is_alive()
    }

    fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // State, then the parent's id; the name before it may hold anything.
    let rest = stat.rsplit(')').next()?;
    let parent = rest.split_ascii_whitespace().nth(1)?.parse().ok()?;
    (parent > 1).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str) -> Announcement {
        Announcement::new(id.to_owned(), NextUser::AsIs)
    }

    #[test]
    fn a_child_claims_what_its_parent_announced_once() {
        let announcements = Announcements::default();
        assert!(announcements.hear(of("c1"), Some(std::process::id())));
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let claimed = announcements.claim(Some(child.id()));
        assert_eq!(claimed, Some(of("c1")));
        assert_eq!(announcements.claim(Some(child.id())), None);
        child.kill().unwrap();
        child.wait().unwrap();
        let next = |claimed, id| announcements.next_user(claimed, id);
        assert_eq!(next(claimed.clone(), "c1"), Some(NextUser::AsIs));
        assert_eq!(next(claimed, "c2"), None);
    }

    #[test]
    fn what_a_process_announced_is_nobody_elses_and_waits_for_its_container() {
        let announcements = Announcements::default();
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        assert!(announcements.hear(of("c1"), Some(child.id())));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(announcements.claim(Some(child.id())), None);
        assert_eq!(announcements.next_user(None, "c2"), None);
        assert_eq!(announcements.next_user(None, "c1"), Some(NextUser::AsIs));
        assert_eq!(announcements.next_user(None, "c1"), None);
        assert!(!announcements.hear(of("c1"), None));
        assert!(!announcements.hear(of("c1"), Some(child.id())));
    }
}
