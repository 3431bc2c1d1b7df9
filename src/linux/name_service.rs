//! The host's users and groups, wherever nsswitch.conf(5) says they are: files, LDAP, sssd.
//!
//! getent(1) is asked: a statically linked libc could load the modules of these services only if
//! they were made for its very version. Without that program, there are the files.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::accounts::{Account, Group, accounts, groups, groups_of};

const HOST: &str = "/";
/// The exit status of getent(1) for a name or id that is not known.
const UNKNOWN: i32 = 2;

/// What getent(1) says.
enum Answer {
    Line(String),
    Unknown,
    /// There is no such program.
    NoProgram,
}

fn ask(database: &str, key: &str) -> io::Result<Answer> {
    let mut getent = Command::new("getent");
    getent
        .args(["--", database, key])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = match getent.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Answer::NoProgram),
        // The key contains a NUL character.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(Answer::Unknown),
        output => output?,
    };
    match output.status.code() {
        Some(0) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().next().unwrap_or_default();
            Ok(Answer::Line(line.to_owned()))
        }
        Some(UNKNOWN) => Ok(Answer::Unknown),
        _ => Err(io::Error::other(format!(
            "getent {database}: {}",
            output.status
        ))),
    }
}

/// `None`: there is no such user.
pub(crate) fn user_by_name(name: &str) -> io::Result<Option<Account>> {
    user(name, |account| account.name == name)
}

/// `None`: there is no such user.
pub(crate) fn user_by_uid(uid: u32) -> io::Result<Option<Account>> {
    user(&uid.to_string(), |account| account.uid == uid)
}

fn user(key: &str, is_it: impl Fn(&Account) -> bool) -> io::Result<Option<Account>> {
    Ok(match ask("passwd", key)? {
        Answer::Line(line) => Account::parse(&line).filter(is_it),
        Answer::Unknown => None,
        Answer::NoProgram => accounts(Path::new(HOST)).find(is_it),
    })
}

/// `None`: there is no such group.
pub(crate) fn group(name: &str) -> io::Result<Option<u32>> {
    let found = match ask("group", name)? {
        Answer::Line(line) => Group::parse(&line),
        Answer::Unknown => None,
        Answer::NoProgram => groups(Path::new(HOST)).find(|group| group.name == name),
    };
    Ok(found.map(|group| group.gid))
}

/// The supplementary groups of a user, as initgroups(3) sets them, without the primary one.
pub(crate) fn memberships(name: &str) -> io::Result<Vec<u32>> {
    Ok(match ask("initgroups", name)? {
        // NAME GID GID ...
        Answer::Line(line) => {
            let ids = line.strip_prefix(name).unwrap_or_default();
            ids.split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect()
        }
        Answer::Unknown => Vec::new(),
        Answer::NoProgram => groups_of(Path::new(HOST), name).collect(),
    })
}
