//! A file written by `install`: its first line is a mark with a checksum of the rest, its second
//! one the number of directories that were created for it.
//!
//! It is written atomically. A file without the mark was not written by this program; one with a
//! wrong checksum was changed since.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Act, Report};
use crate::error::{Context, Error};
use crate::linux::hash;

const MARK: &str = "# Written by `subuidless install`, and left alone once changed. Sum: ";
const DIRECTORIES: &str = "# Directories made for it: ";

/// The state of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Present {
    /// There is no file.
    Nothing,
    /// Written by this program, and unchanged.
    Mine(Mine),
    /// Written by this program, and changed since.
    Changed,
    /// Not written by this program.
    Foreign,
}

/// An unchanged file of this program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mine {
    /// The content without the first two lines.
    pub(super) body: String,
    directories: usize,
}

pub(super) fn look(path: &Path) -> Result<Present, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if is_missing(&error) => return Ok(Present::Nothing),
        Err(error) => return Err(Error::at(path, error)),
        // For instance a link to /dev/null, which masks a unit.
        Ok(found) if !found.is_file() => return Ok(Present::Foreign),
        Ok(_) => {}
    }
    let bytes = fs::read(path).at(path)?;
    Ok(String::from_utf8(bytes).map_or(Present::Foreign, |text| parse(&text)))
}

pub(super) fn is_mine(path: &Path) -> bool {
    matches!(look(path), Ok(Present::Mine(_)))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn parse(text: &str) -> Present {
    let Some(rest) = text.strip_prefix(MARK) else {
        return Present::Foreign;
    };
    let mine = || {
        let (sum, rest) = rest.split_once('\n')?;
        let (directories, body) = rest.strip_prefix(DIRECTORIES)?.split_once('\n')?;
        (sum == self::sum(rest)).then_some(Mine {
            body: body.to_owned(),
            directories: directories.parse().ok()?,
        })
    };
    mine().map_or(Present::Changed, Present::Mine)
}

fn render(mine: &Mine) -> String {
    let rest = format!("{DIRECTORIES}{}\n{}", mine.directories, mine.body);
    format!("{MARK}{}\n{rest}", sum(&rest))
}

/// Detects edits; it need not resist forgery.
fn sum(text: &str) -> String {
    format!("{:016x}", hash::of_bytes(text.bytes()))
}

/// Writes the file. Returns `Act::Keep` if it has this content already, and `None` if it is left
/// alone.
pub(super) fn write(path: &Path, body: String, report: &mut Report) -> Result<Option<Act>, Error> {
    let (act, directories) = match look(path)? {
        Present::Mine(mine) if mine.body == body => {
            report.did(Act::Keep, path);
            return Ok(Some(Act::Keep));
        }
        Present::Mine(mine) => (Act::Replace, mine.directories),
        Present::Nothing => (Act::Write, 0),
        present => {
            report.leave_alone(path, reason(&present));
            return Ok(None);
        }
    };
    if !report.dry_run {
        let made = make_directories(path)?;
        let text = render(&Mine {
            body,
            directories: directories + made,
        });
        put(path, &text, act).at(path)?;
    }
    report.did(act, path);
    Ok(Some(act))
}

pub(super) fn reason(present: &Present) -> &'static str {
    match present {
        Present::Changed => {
            "it was changed since subuidless wrote it; remove it, or keep it as it is"
        }
        _ => "subuidless did not write it; remove it, or keep it as it is",
    }
}

/// Creates the missing directories above `path`. Returns their number.
pub(super) fn make_directories(path: &Path) -> Result<usize, Error> {
    let missing: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .take_while(|directory| !directory.exists())
        .collect();
    for directory in missing.iter().rev() {
        fs::create_dir(directory).at(directory)?;
    }
    Ok(missing.len())
}

/// Removes up to `count` directories above `path`, as long as they are empty.
pub(super) fn remove_directories(path: &Path, count: usize) {
    for directory in path.ancestors().skip(1).take(count) {
        // ENOTEMPTY: still in use.
        if fs::remove_dir(directory).is_err() {
            break;
        }
    }
}

fn put(path: &Path, text: &str, act: Act) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    match act {
        // Another program may have created the file meanwhile.
        Act::Write => file.persist_noclobber(path)?,
        _ => file.persist(path)?,
    };
    File::open(directory)?.sync_all()
}

/// Removes the file, if this program wrote it and it is unchanged.
pub(super) fn remove(path: &Path, report: &mut Report) -> Result<(), Error> {
    let directories = match look(path)? {
        Present::Mine(mine) => mine.directories,
        Present::Nothing => return Ok(()),
        present => {
            report.leave_alone(path, reason(&present));
            return Ok(());
        }
    };
    if !report.dry_run {
        fs::remove_file(path).at(path)?;
        remove_directories(path, directories);
    }
    report.did(Act::Remove, path);
    Ok(())
}

/// The path in double quotes, as both TOML and systemd read it. Fails for a path that is not UTF-8
/// or has control characters.
pub(super) fn quoted(path: &Path) -> Result<String, Error> {
    let text = path
        .to_str()
        .filter(|text| !text.contains(char::is_control));
    let text = text.ok_or_else(|| Error::PathInSettings {
        path: path.to_owned(),
    })?;
    Ok(format!(
        "\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"")
    ))
}

/// `PathBuf::join` with several names.
pub(super) fn below(directory: &Path, names: &[&str]) -> PathBuf {
    names
        .iter()
        .fold(directory.to_owned(), |path, name| path.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mine(body: &str, directories: usize) -> Mine {
        Mine {
            body: body.to_owned(),
            directories,
        }
    }

    #[test]
    fn what_was_written_is_known_again_until_a_byte_of_it_changes() {
        let text = render(&mine("[Unit]\nA=b\n", 2));
        assert_eq!(parse(&text), Present::Mine(mine("[Unit]\nA=b\n", 2)));
        for at in MARK.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(parse(&changed), Present::Changed, "{changed}");
        }
        assert_eq!(parse(&format!("{text}#")), Present::Changed);
        assert_eq!(parse(MARK), Present::Changed);
    }

    #[test]
    fn what_has_no_mark_is_somebody_elses() {
        for text in ["", "\n", "[Unit]\n", &format!("\n{}", render(&mine("", 0)))] {
            assert_eq!(parse(text), Present::Foreign, "{text}");
        }
    }

    #[test]
    fn quotes_and_backslashes_of_a_path_are_escaped_and_line_ends_refused() {
        let path = |text: &str| quoted(Path::new(text));
        assert_eq!(path("/a b").unwrap(), "\"/a b\"");
        assert_eq!(path("/a\"b\\c").unwrap(), r#""/a\"b\\c""#);
        assert!(path("/a\nb").is_err());
    }
}
