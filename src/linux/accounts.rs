//! Users and groups of a root file system: passwd(5), group(5). Any bytes may be in these files.
//! Those of the host, which may be kept elsewhere, are in `name_service`.

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

impl Account {
    /// `None`: the line is malformed.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        Some(Self {
            name: (*fields.first()?).to_owned(),
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: fields.get(5).map(|home| (*home).to_owned()),
        })
    }
}

impl Group {
    /// `None`: the line is malformed.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        Some(Self {
            name: (*fields.first()?).to_owned(),
            gid: fields.get(2)?.parse().ok()?,
            members: fields.get(3)?.split(',').map(str::to_owned).collect(),
        })
    }
}

/// Returns the users of etc/passwd; none if it cannot be read. Malformed lines are skipped.
pub(crate) fn accounts(rootfs: &Path) -> impl Iterator<Item = Account> {
    lines(rootfs, "etc/passwd", Account::parse)
}

/// Returns the groups of etc/group; none if it cannot be read. Malformed lines are skipped.
pub(crate) fn groups(rootfs: &Path) -> impl Iterator<Item = Group> {
    lines(rootfs, "etc/group", Group::parse)
}

/// The groups of which a user is a member, as these files have them.
pub(crate) fn groups_of(rootfs: &Path, name: &str) -> impl Iterator<Item = u32> {
    groups(rootfs)
        .filter(move |group| group.members.iter().any(|member| member == name))
        .map(|group| group.gid)
}

/// Parses the lines of `file`. RESOLVE_IN_ROOT: symlinks cannot lead out of the root file system.
fn lines<T>(
    rootfs: &Path,
    file: &str,
    parse: impl Fn(&str) -> Option<T>,
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
    let found: Vec<T> = text.lines().filter_map(parse).collect();
    found.into_iter()
}
