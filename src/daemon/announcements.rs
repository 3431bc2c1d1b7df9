//! What the runtime front has announced, until the listener comes that it is about.
//!
//! The front execs the runtime, so the process that announces is the one that connects later with
//! the listener, or an ancestor of it. A container's id alone would not do: two execs of one
//! container may start at the same time. But it has to do where a runtime leaves its parents
//! behind, as `crun run --detach` does.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::debug;

use crate::linux::procfs::Stat;
use crate::linux::sys;
use crate::wire::handover::Announcement;

/// A front announces once, and its runtime comes within the second.
const MOST: usize = 1024;
/// For a runtime whose first process has ended to come with its listener.
const PATIENCE: Duration = Duration::from_secs(30);
/// crun forks once or twice before it connects.
const GENERATIONS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Announcements {
    waiting: RefCell<Vec<Rc<Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    announcement: Announcement,
    pid: u32,
    /// Tells when `pid` means somebody else.
    process: OwnedFd,
    heard: Instant,
}

/// What a connection may turn out to be about. As long as it is held, it is waited for.
#[derive(Debug)]
pub(super) struct Claim(Rc<Waiting>);

impl Claim {
    /// Whether the connection may be one that waits until its container is started: a runtime has
    /// one.
    pub(super) fn may_wait(&self) -> bool {
        const MOST: usize = 4;
        // One is in the list of those that are waited for.
        Rc::strong_count(&self.0) <= MOST + 1
    }
}

/// Why an announcement is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    TooMany,
}

impl Announcements {
    /// Keeps what the process `pid` says, as long as it lives. Nothing that was heard makes room
    /// for it: its container would start as somebody else.
    pub(super) fn hear(&self, announcement: Announcement, pid: Option<u32>) -> Result<(), Refusal> {
        debug!(?announcement, pid, "announced");
        let pid = pid.ok_or(Refusal::Unknown)?;
        let process = sys::process_pidfd(pid).map_err(|_| Refusal::Unknown)?;
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(may_come);
        if waiting.len() >= MOST {
            return Err(Refusal::TooMany);
        }
        waiting.push(Rc::new(Waiting {
            announcement,
            pid,
            process,
            heard: Instant::now(),
        }));
        Ok(())
    }

    /// What was announced by the process `pid` or one that it descends from. To be asked when it
    /// connects: by the time of its message the runtime may have left its container to itself.
    /// Others may ask as well, a hook of the runtime's among them: only who brings the container
    /// [takes](Self::take) it.
    pub(super) fn claim(&self, pid: Option<u32>) -> Option<Claim> {
        let waiting = self.waiting.borrow();
        if waiting.is_empty() {
            return None;
        }
        let mut pid = pid;
        for _ in 0..GENERATIONS {
            let known = waiting
                .iter()
                .find(|waiting| Some(waiting.pid) == pid && waiting.is_alive());
            if let Some(known) = known {
                return Some(Claim(Rc::clone(known)));
            }
            pid = pid.and_then(parent);
        }
        None
    }

    /// What was said about the container `id`: by an ancestor of whoever brings it, or else by
    /// somebody who has not come yet.
    pub(super) fn take(&self, claim: Option<Claim>, id: &str) -> Option<Announcement> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(may_come);
        let is_meant = |waiting: &Rc<Waiting>| waiting.announcement.id == id;
        let claimed = claim.and_then(|Claim(claimed)| {
            let is_claimed = |other: &Rc<Waiting>| Rc::ptr_eq(other, &claimed);
            waiting
                .iter()
                .position(|other| is_claimed(other) && is_meant(other))
        });
        let index = claimed.or_else(|| waiting.iter().position(is_meant))?;
        let taken = waiting.remove(index);
        Some(taken.announcement.clone())
    }
}

/// Whether it is still of use: a container that is created today may be started tomorrow, by a
/// connection that is open.
fn may_come(waiting: &Rc<Waiting>) -> bool {
    waiting.heard.elapsed() < PATIENCE || Rc::strong_count(waiting) > 1 || waiting.is_alive()
}

impl Waiting {
    fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }
}

fn parent(pid: u32) -> Option<u32> {
    let parent = Stat::of(format_args!("/proc/{pid}")).ok()?.parent()?;
    (parent > 1).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handover::{NextUser, ProcessUser};

    fn of(id: &str) -> Announcement {
        Announcement::new(id.to_owned(), NextUser::AsIs)
    }

    fn sleeping() -> std::process::Child {
        std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap()
    }

    fn end(mut child: std::process::Child) -> u32 {
        child.kill().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn a_child_takes_what_its_parent_announced_once_and_who_only_asks_takes_nothing() {
        let announcements = Announcements::default();
        let own = Some(std::process::id());
        announcements.hear(of("c1"), own).unwrap();
        let child = sleeping();
        let asks = announcements.claim(Some(child.id()));
        assert!(asks.is_some());
        drop(asks);
        let claim = || announcements.claim(Some(child.id()));
        assert_eq!(announcements.take(claim(), "c2"), None);
        assert_eq!(announcements.take(claim(), "c1"), Some(of("c1")));
        assert!(claim().is_none());
        assert_eq!(announcements.take(None, "c1"), None);
        end(child);
    }

    #[test]
    fn of_two_that_are_about_one_container_each_takes_its_own() {
        let announcements = Announcements::default();
        let [first, second] = [sleeping(), sleeping()];
        let user = NextUser::User(ProcessUser::default());
        announcements.hear(of("c1"), Some(first.id())).unwrap();
        let other = Announcement::new("c1".to_owned(), user);
        announcements
            .hear(other.clone(), Some(second.id()))
            .unwrap();
        let claim = announcements.claim(Some(second.id()));
        assert_eq!(announcements.take(claim, "c1"), Some(other));
        end(first);
        end(second);
    }

    #[test]
    fn what_a_process_announced_is_nobody_elses_and_waits_for_its_container() {
        let announcements = Announcements::default();
        let child = sleeping();
        announcements.hear(of("c1"), Some(child.id())).unwrap();
        let pid = Some(end(child));
        assert!(announcements.claim(pid).is_none());
        assert_eq!(announcements.take(None, "c2"), None);
        assert_eq!(announcements.take(None, "c1"), Some(of("c1")));
        assert_eq!(announcements.take(None, "c1"), None);
        let unknown = Err(Refusal::Unknown);
        assert_eq!(announcements.hear(of("c1"), None), unknown);
        assert_eq!(announcements.hear(of("c1"), pid), unknown);
    }

    #[test]
    fn none_is_forgotten_to_make_room_for_another() {
        let announcements = Announcements::default();
        let own = Some(std::process::id());
        for n in 0..MOST {
            announcements.hear(of(&n.to_string()), own).unwrap();
        }
        assert_eq!(announcements.hear(of("late"), own), Err(Refusal::TooMany));
        assert_eq!(announcements.take(None, "0"), Some(of("0")));
        announcements.hear(of("late"), own).unwrap();
    }
}
