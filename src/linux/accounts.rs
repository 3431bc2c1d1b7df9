//! Users and groups of a root file system: passwd(5), group(5). Any bytes may be in these files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// The most bytes that are read: far more than any real table of users has.
const MAX_FILE: u64 = 16 << 20;

/// A line of passwd(5).
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: Option<String>,
}

/// A line of group(5).
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) gid: u32,
    pub(crate) members: Vec<String>,
}

/// Returns the users of etc/passwd; none if it cannot be read. Malformed lines are skipped.
pub(crate) fn accounts(rootfs: &Path) -> impl Iterator<Item = Account> {
    let account = |fields: &[&str]| {
        Some(Account {
            name: (*fields.first()?).to_owned(),
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: fields.get(5).map(|home| (*home).to_owned()),
        })
    };
    lines(rootfs, "etc/passwd", account)
}

/// Returns the groups of etc/group; none if it cannot be read. Malformed lines are skipped.
pub(crate) fn groups(rootfs: &Path) -> impl Iterator<Item = Group> {
    let group = |fields: &[&str]| {
        Some(Group {
            name: (*fields.first()?).to_owned(),
            gid: fields.get(2)?.parse().ok()?,
            members: fields.get(3)?.split(',').map(str::to_owned).collect(),
        })
    };
    lines(rootfs, "etc/group", group)
}

/// Parses the lines of `file`. RESOLVE_IN_ROOT: symlinks cannot lead out of the root file system.
fn lines<T>(
    rootfs: &Path,
    file: &str,
    parse: impl Fn(&[&str]) -> Option<T>,
) -> impl Iterator<Item = T> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let read = || -> io::Result<Vec<u8>> {
        let file = File::from(openat2(File::open(rootfs)?, file, how)?);
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(MAX_FILE).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let fields = |line: &str| parse(&line.split(':').collect::<Vec<_>>());
    let found: Vec<T> = text.lines().filter_map(fields).collect();
    found.into_iter()
}
