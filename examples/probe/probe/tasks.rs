//! Who makes the calls: another process or another thread.

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
        std::thread::scope(|scope| {
            scope.spawn(|| work(self));
        });
    }
}
