//! File systems that targets are configuring (fsopen(2)) and whose options name an owner that the
//! kernel does not know, and mounts of them that are not attached yet.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::linux::sys;
use crate::owner::Owner;

/// So many are remembered at a time; the oldest are given up.
const MOST: usize = 64;

/// All of a container.
#[derive(Debug, Default)]
pub(crate) struct Contexts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    contexts: Vec<(OwnedFd, Owner)>,
    /// By their ids.
    mounts: Vec<(u64, OwnedFd)>,
}

impl Contexts {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic leaves nothing inconsistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        let known = self.lock();
        known.contexts.is_empty() && known.mounts.is_empty()
    }

    /// Remembers the ids that `owner` has.
    pub(crate) fn add(&self, context: OwnedFd, owner: Owner) -> Result<(), Errno> {
        let contexts = &mut self.lock().contexts;
        if let Some(index) = find(contexts, context.as_fd())? {
            let known = &mut contexts[index].1;
            known.uid = owner.uid.or(known.uid);
            known.gid = owner.gid.or(known.gid);
            return Ok(());
        }
        if contexts.len() >= MOST {
            contexts.remove(0);
        }
        contexts.push((context, owner));
        Ok(())
    }

    /// Forgets it, and returns what was remembered.
    pub(crate) fn take(&self, context: BorrowedFd) -> Result<Option<Owner>, Errno> {
        let contexts = &mut self.lock().contexts;
        let index = find(contexts, context)?;
        Ok(index.map(|index| contexts.remove(index).1))
    }

    /// Keeps a mount.
    pub(crate) fn keep(&self, number: u64, mount: OwnedFd) {
        let mounts = &mut self.lock().mounts;
        if mounts.len() >= MOST {
            mounts.remove(0);
        }
        mounts.push((number, mount));
    }

    pub(crate) fn take_mount(&self, number: u64) -> Option<OwnedFd> {
        let mounts = &mut self.lock().mounts;
        let index = mounts.iter().position(|(known, _)| *known == number)?;
        Some(mounts.remove(index).1)
    }
}

fn find(contexts: &[(OwnedFd, Owner)], context: BorrowedFd) -> Result<Option<usize>, Errno> {
    for (index, (known, _)) in contexts.iter().enumerate() {
        if sys::are_same_file(known.as_fd(), context)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}
