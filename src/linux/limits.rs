//! Limits of setrlimit(2) under which subuidless cannot do its work, or a part of it: told before
//! anything fails for want of them.
//!
//! What counts is the hard limit: our own processes raise the soft one as far as it goes
//! ([`raise`]), and the command that is run keeps what it was given.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::error::Error;
use crate::linux::sys;

/// What is lost below a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing works.
    All,
    /// Nobody can change ids: a process keeps its identity in its limit of locks, which has to be
    /// unlimited otherwise.
    Ids,
    /// Owners of symlinks and their like have nowhere to be kept.
    Store,
}

struct Need {
    resource: Resource,
    loss: Loss,
    least: u64,
    /// As ulimit(1) calls it, its option there, and how many bytes are one to it.
    name: &'static str,
    option: &'static str,
    unit: u64,
}

const NEEDS: [Need; 5] = [
    Need {
        resource: Resource::RLIMIT_NOFILE,
        loss: Loss::All,
        least: 64,
        name: "open files",
        option: "-n",
        unit: 1,
    },
    // A container's table of identities is a file in memory of 32 MiB.
    Need {
        resource: Resource::RLIMIT_FSIZE,
        loss: Loss::All,
        least: 64 << 20,
        name: "file sizes",
        option: "-f",
        unit: 1024,
    },
    Need {
        resource: Resource::RLIMIT_NPROC,
        loss: Loss::All,
        least: 32,
        name: "user processes",
        option: "-u",
        unit: 1,
    },
    Need {
        resource: Resource::RLIMIT_LOCKS,
        loss: Loss::Ids,
        least: RLIM_INFINITY,
        name: "file locks",
        option: "-x",
        unit: 1,
    },
    // Both parts of the store are mapped, with 1 GiB each.
    Need {
        resource: Resource::RLIMIT_AS,
        loss: Loss::Store,
        least: 3 << 30,
        name: "virtual memory",
        option: "-v",
        unit: 1024,
    },
];

/// What is too low, in words.
pub(crate) fn shortfalls() -> Vec<(Loss, String)> {
    let found = NEEDS.iter().filter_map(|need| {
        let (_, hard) = getrlimit(need.resource).ok()?;
        let least = match need.least {
            RLIM_INFINITY => "unlimited".to_owned(),
            least => format!("{} or more", least / need.unit),
        };
        let (name, option, limit) = (need.name, need.option, hard / need.unit);
        (hard < need.least).then(|| {
            let words =
                format!("the limit of {name} (ulimit {option}) is {limit}, and has to be {least}");
            (need.loss, words)
        })
    });
    found.collect()
}

/// An error where one of these would be lost; of what else is too low, `warn` is told.
pub(crate) fn require(losses: &[Loss], warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let (vital, other): (Vec<_>, Vec<_>) = shortfalls()
        .into_iter()
        .partition(|(loss, _)| losses.contains(loss));
    if !vital.is_empty() {
        let reasons: Vec<String> = vital.into_iter().map(|(_, words)| words).collect();
        return Err(Error::Limits {
            reasons: reasons.join("; "),
        });
    }
    for (loss, words) in other {
        warn(&format!("{words}: {}", loss.words()));
    }
    Ok(())
}

impl Loss {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::All => "nothing works",
            Self::Ids => "nobody can change ids (EINVAL)",
            Self::Store => "owners of symlinks, fifos, sockets and devices may not be kept",
        }
    }
}

/// Raises this process's own limits as far as they go: for processes of ours that execute no
/// program of others'.
pub(crate) fn raise() {
    sys::ignore_file_size_signal();
    for need in NEEDS.iter().filter(|need| need.loss != Loss::Ids) {
        // Where that is not allowed, it has to do as it is.
        let _ = getrlimit(need.resource).and_then(|(_, hard)| setrlimit(need.resource, hard, hard));
    }
}
