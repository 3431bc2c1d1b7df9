//! The announcements of the runtime front, until the listener arrives that each of them is about.
//!
//! The front execs the runtime, so the process that announces is the one that connects later with
//! the listener, or an ancestor of it. A container's id alone would not suffice: two execs in one
//! container can start at the same time. It must suffice if the connecting process has lost its
//! ancestors, as with `crun run --detach`.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::linux::procfs::Stat;
use crate::linux::sys;
use crate::wire::handover::Announcement;

/// The maximum number of announcements. A front sends one, and its runtime connects within a
/// second.
const MOST: usize = 1024;
/// The time that an announcement is kept after its process has exited without a connection.
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
    /// The pidfd, which tells when `pid` may be reused.
    process: OwnedFd,
    heard: Instant,
}

/// An announcement that a connection may be about. While it is held, the announcement is kept.
#[derive(Debug)]
pub(super) struct ClaimedAnnouncement(Rc<Waiting>);

impl ClaimedAnnouncement {
    /// Whether the connection may wait without a time limit until its container is started. Only
    /// a few may per announcement: a runtime opens one.
    pub(super) fn may_wait(&self) -> bool {
        const MOST: usize = 4;
        // One more reference is in `Announcements::waiting`.
        Rc::strong_count(&self.0) <= MOST + 1
    }
}

/// The reason why an announcement is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    TooMany,
}

impl Announcements {
    /// Keeps the announcement of the process `pid`. Never drops another one to make room: its
    /// container would start as the wrong user.
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

    /// The announcement of the process `pid` or of an ancestor. Must be called when `pid` connects:
    /// when its message arrives, its ancestors may have exited. The connection may be another one,
    /// for instance of a runtime's hook: only the one that brings the container
    /// [takes](Self::take) the announcement.
    pub(super) fn claim(&self, pid: Option<u32>) -> Option<ClaimedAnnouncement> {
        let waiting = self.waiting.borrow();
        if waiting.is_empty() {
            return None;
        }
        let mut pid = pid;
        for _ in 0..GENERATIONS {
            let known = waiting.iter().find(|waiting| {
                Some(waiting.pid) == pid && !sys::has_ended(waiting.process.as_fd())
            });
            if let Some(known) = known {
                return Some(ClaimedAnnouncement(Rc::clone(known)));
            }
            pid = pid.and_then(parent);
        }
        None
    }

    /// Removes and returns the announcement of the container `id`: the claimed one if it is about
    /// this container, otherwise the oldest one that is.
    pub(super) fn take(
        &self,
        claim: Option<ClaimedAnnouncement>,
        id: &str,
    ) -> Option<Announcement> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(may_come);
        let is_meant = |waiting: &Rc<Waiting>| waiting.announcement.id == id;
        let claimed = claim.and_then(|ClaimedAnnouncement(claimed)| {
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

/// Whether the listener may still arrive. A container that was created may be started days later,
/// on a connection that is open since then and holds a [`ClaimedAnnouncement`].
fn may_come(waiting: &Rc<Waiting>) -> bool {
    waiting.heard.elapsed() < PATIENCE
        || Rc::strong_count(waiting) > 1
        || !sys::has_ended(waiting.process.as_fd())
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
