//! `subuidless owners set UID:GID PATH...`

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};

use super::Looking;
use super::console::Console;
use crate::error::Error;
use crate::linux::name_service;
use crate::owners::{Entry, Kind, Outside, OwnerChange, Progress, device_number, parse_id};

// -h means what it means for chown(1).
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(in crate::cli) struct Arguments {
    /// User, user:group or :group, as numbers or names of this host
    #[arg(value_name = "UID:GID", value_parser = owner)]
    owner: Ids,

    /// Files. Symbolic links are followed, on this host, unless -h or -R is given
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Include everything below directories; change symbolic links, do not follow them
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Change symbolic links instead of their targets
    #[arg(short = 'h', long)]
    no_dereference: bool,

    /// Make the file a placeholder of a device, as mknod in a container does: c:MAJOR:MINOR or
    /// b:MAJOR:MINOR. A missing file is created; an existing one must be a socket
    #[arg(
        long,
        value_name = "TYPE:MAJOR:MINOR",
        value_parser = device,
        conflicts_with_all = ["recursive", "one_file_system"]
    )]
    device: Option<(Kind, u32)>,

    #[command(flatten)]
    pub(super) looking: Looking,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Clone, Copy)]
struct Ids {
    uid: Option<u32>,
    gid: Option<u32>,
}

fn owner(text: &str) -> Result<Ids, String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
    if uid.is_empty() && gid.is_empty() {
        return Err("a user, a group or both are wanted".to_owned());
    }
    let user = |name: &str| Ok(name_service::user_by_name(name)?.map(|account| account.uid));
    Ok(Ids {
        uid: id(uid, "user", user)?,
        gid: id(gid, "group", name_service::group)?,
    })
}

/// A number, or the id that `find` has for a name.
fn id(
    text: &str,
    kind: &str,
    find: impl FnOnce(&str) -> io::Result<Option<u32>>,
) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return parse_id(text).map(Some);
    }
    match find(text) {
        Ok(Some(id)) => Ok(Some(id)),
        Ok(None) => Err(format!(
            "this host has no {kind} {text:?}: a root file system's own are given as numbers"
        )),
        Err(error) => Err(format!("looking up {text:?}: {error}")),
    }
}

fn device(text: &str) -> Result<(Kind, u32), String> {
    let wrong = || "c:MAJOR:MINOR or b:MAJOR:MINOR is wanted".to_owned();
    let parts: Vec<&str> = text.split(':').collect();
    let &[kind, major, minor] = parts.as_slice() else {
        return Err(wrong());
    };
    let kind = match kind {
        "c" => Kind::Character,
        "b" => Kind::Block,
        _ => return Err(wrong()),
    };
    let number = |text: &str| text.parse().map_err(|_| wrong());
    Ok((kind, device_number(number(major)?, number(minor)?)?))
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let outside = arguments.looking.outside()?;
    let mut console = Console::new();
    for path in &arguments.paths {
        let done = match arguments.device {
            Some(device) => make_device(&outside, path, arguments.owner, device),
            None => set(arguments, &outside, path, &mut console),
        };
        if let Err(error) = done {
            console.problem(&error.to_string());
        }
    }
    outside.settle()?;
    console.end()
}

fn set(
    arguments: &Arguments,
    outside: &Outside,
    path: &Path,
    console: &mut Console,
) -> Result<(), Error> {
    let follow = !arguments.no_dereference && !arguments.recursive;
    let top = outside.open(path, follow)?;
    let mut walk = arguments.looking.walk();
    walk.top_only = !arguments.recursive;
    let change = OwnerChange::new(arguments.owner.uid, arguments.owner.gid);
    walk.run(top, |found| {
        let (below, changed) = match found {
            Ok(found) => (
                found.path,
                outside.change_owner(found.file, found.stat, change),
            ),
            Err((below, errno)) => (below, Err(errno.desc().to_owned())),
        };
        match changed {
            Ok(()) => console.step(),
            Err(reason) => {
                let path = crate::owners::join(path, below);
                let path = crate::owners::escape_for_terminal(&path);
                console.problem(&format!("{path}: {reason}"));
            }
        }
        Ok(())
    })
}

fn make_device(
    outside: &Outside,
    path: &Path,
    owner: Ids,
    (kind, number): (Kind, u32),
) -> Result<(), Error> {
    let failed = |reason: String| Error::at(path, std::io::Error::other(reason));
    let name = path
        .file_name()
        .ok_or_else(|| failed("has no name of its own".to_owned()))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let entry = Entry {
        path: name.as_bytes().to_vec(),
        kind: Some(kind),
        uid: owner.uid,
        gid: owner.gid,
        device: Some(number),
        ..Entry::default()
    };
    let directory = outside.open_directory(directory)?;
    outside.apply_below(&directory, &entry).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_written_as_for_chown() {
        for (text, expected) in [
            ("5", Some((Some(5), None))),
            ("5:", Some((Some(5), None))),
            ("5:70000", Some((Some(5), Some(70_000)))),
            (":7", Some((None, Some(7)))),
            ("root", Some((Some(0), None))),
            ("root:root", Some((Some(0), Some(0)))),
            ("no-such-user", None),
            ("0:no-such-group", None),
            ("-1", None),
            ("5:6:7", None),
            ("4294967295", None),
        ] {
            let ids = owner(text).ok().map(|ids| (ids.uid, ids.gid));
            assert_eq!(ids, expected, "{text}");
        }
        assert_eq!(device("c:1:3"), Ok((Kind::Character, 0x103)));
        for wrong in ["", "c", "c:1", "d:1:3", "c:1:3:4", "c:4096:0", "c:-1:0"] {
            assert!(device(wrong).is_err(), "{wrong}");
        }
    }
}
