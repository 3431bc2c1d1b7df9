//! Resource limits (setrlimit(2)) below which all or a part of subuidless does not work, to be
//! reported before anything fails because of them.
//!
//! The hard limit counts: processes of subuidless raise their soft limits to it ([`raise`]). The
//! command of `run` keeps the limits of its caller.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::error::Error;
use crate::linux::{kernel, sys};

/// What does not work below a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing works.
    All,
    /// Changing ids: the soft RLIMIT_LOCKS of a process is its cookie, for which the hard one must
    /// be unlimited.
    Ids,
    /// The side store: owners of symlinks and the like cannot be stored.
    Store,
}

/// A limit that subuidless needs.
struct Need {
    resource: Resource,
    loss: Loss,
    /// The lowest sufficient hard limit, in units of setrlimit(2).
    least: u64,
    /// The name of the limit, its option of the shell's ulimit, and the number of bytes in ulimit's
    /// unit.
    name: &'static str,
    option: &'static str,
    unit: u64,
}

const NEEDS: [Need; 6] = [
    Need {
        resource: Resource::RLIMIT_NOFILE,
        loss: Loss::All,
        least: 64,
        name: "open files",
        option: "-n",
        unit: 1,
    },
    // A container's table of identities is a memfd of 32 MiB.
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
    // A worker maps the table of identities and a small side store, and has threads.
    Need {
        resource: Resource::RLIMIT_AS,
        loss: Loss::All,
        least: 256 << 20,
        name: "virtual memory",
        option: "-v",
        unit: 1024,
    },
    // Both parts of the side store are mapped, with 1 GiB each.
    Need {
        resource: Resource::RLIMIT_AS,
        loss: Loss::Store,
        least: 3 << 30,
        name: "virtual memory",
        option: "-v",
        unit: 1024,
    },
];

/// Returns the limits that are too low, each with its loss and a description for the user.
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

/// Fails if the kernel is too old, or if a limit causes one of `losses`. Calls `warn` with a
/// description of each other limit that is too low.
pub(crate) fn require(losses: &[Loss], warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    kernel::require()?;
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
    /// Describes the loss for the user.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::All => "nothing works",
            Self::Ids => "processes cannot change ids (EINVAL)",
            Self::Store => "chown of symlinks, fifos, sockets and devices may fail (ENOMEM)",
        }
    }
}

/// Raises this process's soft limits to the hard ones, and ignores SIGXFSZ. For processes that
/// execute only subuidless: other programs would inherit the limits.
pub(crate) fn raise() {
    sys::ignore_file_size_signal();
    for need in NEEDS.iter().filter(|need| need.loss != Loss::Ids) {
        // If that fails, the present limit may still be sufficient.
        let _ = getrlimit(need.resource).and_then(|(_, hard)| setrlimit(need.resource, hard, hard));
    }
}
