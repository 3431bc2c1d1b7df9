//! Calls by another process or another thread.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::Probe;
use crate::sys::{self, Birth};

impl Probe {
    /// Lets a child process make the calls. Its lines are numbered below the one that started it.
    pub(crate) fn child(&mut self, what: &str, birth: Birth, work: impl Fn(&mut Probe)) {
        self.say(what);
        let before = (
            std::mem::take(&mut self.lineage),
            std::mem::take(&mut self.line),
        );
        self.lineage = format!("{}{}.", before.0, before.1);
        let status = sys::in_child(birth, || work(self));
        (self.lineage, self.line) = before;
        if status != 0 {
            self.say(&format!("the child ended with status {status:#x}"));
        }
    }

    /// Lets another thread of this process make the calls.
    pub(crate) fn thread(&mut self, what: &str, work: impl FnOnce(&mut Probe) + Send) {
        self.say(what);
        let through = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Waits until the spawning thread has started it completely: a fork before that would
            // copy locks that this thread holds.
            let thread = scope.spawn(move || {
                while !through.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                work(self);
            });
            through.store(true, Ordering::Release);
            // The scope alone would end before libc has tidied up after the thread: a fork then
            // would copy the locks that the thread still holds.
            thread.join().expect("a thread that ends well");
        });
    }

    /// Lets a child process make the calls of `there`. While the child waits, makes the calls of
    /// `here`, which get its process id.
    pub(crate) fn beside(
        &mut self,
        what: &str,
        there: impl Fn(&mut Probe),
        here: impl FnOnce(&mut Probe, i32),
    ) {
        self.say(what);
        let before = (
            std::mem::take(&mut self.lineage),
            std::mem::take(&mut self.line),
        );
        self.lineage = format!("{}{}.", before.0, before.1);
        let (mut ready, done) = std::io::pipe().expect("a pipe");
        let (mut released, release) = std::io::pipe().expect("a pipe");
        let mut release = Some(release);
        let mut done = Some(done);
        let pid = sys::spawn(Birth::Fork, || {
            drop(release.take());
            there(self);
            drop(done.take());
            released.read_to_end(&mut Vec::new()).expect("a pipe");
        });
        drop(done);
        ready.read_to_end(&mut Vec::new()).expect("a pipe");
        (self.lineage, self.line) = before;
        here(self, pid);
        drop(release);
        let status = sys::wait(pid);
        if status != 0 {
            self.say(&format!("the child ended with status {status:#x}"));
        }
    }
}

/// A thread of this process that makes calls on request; only one thread makes calls at a time.
pub(crate) struct Worker {
    tell: Sender<Job>,
    thread: JoinHandle<()>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Worker {
    /// Starts a thread, which inherits the credentials of the calling one.
    pub(crate) fn start() -> Worker {
        let (tell, told) = channel::<Job>();
        let thread = std::thread::spawn(move || {
            for job in told {
                job();
            }
        });
        Worker { tell, thread }
    }

    /// Lets the thread make the calls of `work`, and waits for it.
    pub(crate) fn does<T: Send + 'static>(
        &self,
        p: &mut Probe,
        who: &str,
        work: impl FnOnce(&mut Probe) -> T + Send + 'static,
    ) -> T {
        p.say(who);
        let mut lent = p.clone();
        let (reply, answer) = channel();
        let job = Box::new(move || {
            let result = work(&mut lent);
            reply.send((lent, result)).expect("somebody who waits");
        });
        self.tell.send(job).expect("a thread that lives");
        let (back, result) = answer.recv().expect("a thread that lives");
        *p = back;
        result
    }

    pub(crate) fn end(self) {
        drop(self.tell);
        self.thread.join().expect("a thread that ends well");
    }
}
