//! `owners export` and `owners import`: writes the owners of a tree in a format, and reads them.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::entry::{Entry, Kind};
use super::lines::Lines;
use super::walk::{TreeFile, Walk};
use super::{Outside, Progress, fakeroot, json, link_text, mtree, override_stat, tar, text};
use crate::error::{Context, Error};
use crate::linux::{attribute, procfs, sys};
use crate::owner::{carries_xattrs, file_type};

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// One JSON object per line; the only complete format
    Json,
    /// The attribute user.containers.override_stat of each file (containers/storage,
    /// fuse-overlayfs)
    OverrideStat,
    /// The file that `fakeroot -s` saves; only for this very tree, since it names files by inode
    Fakeroot,
    /// mtree(5), as bsdtar writes it
    Mtree,
    /// Headers of a tar archive (import only)
    Tar,
}

/// Writes the owners in the tree below `top`, as containers see them, to `output` or into the
/// files' attributes.
pub(crate) fn export(
    outside: &Outside,
    top: OwnedFd,
    format: Format,
    walk: Walk,
    output: &mut dyn Write,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    const WHAT: &str = "writing the owners";
    match format {
        Format::Json => writeln!(output, "{}", json::head()).doing(WHAT)?,
        Format::Mtree => writeln!(output, "{}", mtree::HEAD).doing(WHAT)?,
        Format::Tar => return Err(Error::NoTarExport),
        Format::OverrideStat | Format::Fakeroot => {}
    }
    walk.run(top, |found| {
        let looked = found.and_then(|found| {
            let entry = outside.look(found.path, found.file, found.stat);
            Ok((found, entry.map_err(|errno| (found.path, errno))?))
        });
        let (found, entry) = match looked {
            Ok(looked) => looked,
            Err((path, errno)) => {
                progress.problem(&named(path, errno.desc()));
                return Ok(());
            }
        };
        progress.step();
        let line = match format {
            Format::Json => json::line(&entry),
            Format::Fakeroot => fakeroot::line(&entry, found.stat),
            Format::Mtree => {
                let is_link = entry.kind == Some(Kind::Symlink);
                let link = is_link.then(|| link_text(found.file).ok()).flatten();
                mtree::line(&entry, link.as_deref())
            }
            Format::OverrideStat | Format::Tar => {
                if let Err(reason) = write_override(found, &entry) {
                    progress.problem(&named(found.path, &reason));
                }
                return Ok(());
            }
        };
        writeln!(output, "{line}").doing(WHAT)
    })?;
    output.flush().doing(WHAT)
}

fn write_override(found: TreeFile, entry: &Entry) -> Result<(), String> {
    if carries_xattrs(file_type(found.stat.st_mode)) {
        let value = override_stat::value(entry);
        let path = procfs::own_fd(found.file);
        return sys::setxattr(path.as_c_str(), override_stat::XATTR, value.as_bytes(), 0)
            .map_err(|errno| errno.desc().to_owned());
    }
    let kind = entry.kind.map_or("something else", Kind::sentence);
    match entry.is_plain() {
        // 0:0 is the owner without the attribute, too.
        true => Ok(()),
        false => Err(format!(
            "is {kind}, which cannot carry the attribute, so its owner is not exported"
        )),
    }
}

/// Applies the entries of `input`, or of the files' attributes, to the tree below `top`. Reports
/// failures to `progress` and goes on.
pub(crate) fn import(
    outside: &Outside,
    top: OwnedFd,
    format: Format,
    walk: Walk,
    input: &mut dyn BufRead,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    const WHAT: &str = "reading the owners";
    let mut job = Import {
        outside,
        top,
        progress,
    };
    match format {
        Format::Json => job.json(input)?,
        Format::Mtree => job.mtree(input).doing(WHAT)?,
        Format::Tar => tar::read(input, |(number, entry)| {
            job.apply("member", number, entry);
            Ok::<_, io::Error>(())
        })
        .doing(WHAT)?,
        Format::Fakeroot => job.fakeroot(input, walk)?,
        Format::OverrideStat => job.override_stat(walk)?,
    }
    Ok(())
}

struct Import<'a> {
    outside: &'a Outside,
    top: OwnedFd,
    progress: &'a mut dyn Progress,
}

impl Import<'_> {
    /// Applies one entry; `what` and `number` name its place in the input.
    fn apply(&mut self, what: &str, number: usize, entry: Result<Entry, String>) {
        let applied = entry.and_then(|entry| {
            self.outside
                .apply(self.top.as_fd(), &entry, false)
                .map_err(|reason| named(&entry.path, &reason))
        });
        match applied {
            Ok(()) => self.progress.step(),
            Err(reason) => self.progress.problem(&format!("{what} {number}: {reason}")),
        }
    }

    fn json(&mut self, input: &mut dyn BufRead) -> Result<(), Error> {
        const WHAT: &str = "reading the owners";
        let mut lines = Lines::new(input);
        let (_, head) = lines
            .next()
            .transpose()
            .doing(WHAT)?
            .unwrap_or((1, Ok(Vec::new())));
        head.and_then(|head| json::check_head(&head))
            .map_err(|reason| Error::NotAnExport { reason })?;
        for line in lines {
            let (number, line) = line.doing(WHAT)?;
            if line.as_ref().is_ok_and(Vec::is_empty) {
                continue;
            }
            self.apply("line", number, line.and_then(|line| json::parse(&line)));
        }
        Ok(())
    }

    fn mtree(&mut self, input: &mut dyn BufRead) -> io::Result<()> {
        let mut reader = mtree::Reader::default();
        let mut last = 0;
        for line in Lines::new(input) {
            let (number, line) = line?;
            last = number;
            if let Some(entry) = line.and_then(|line| reader.line(&line)).transpose() {
                self.apply("line", number, entry);
            }
        }
        if let Some(entry) = reader.end().transpose() {
            self.apply("line", last, entry);
        }
        Ok(())
    }

    fn fakeroot(&mut self, input: &mut dyn BufRead, walk: Walk) -> Result<(), Error> {
        let mut saved = HashMap::new();
        for line in Lines::new(input) {
            let (number, line) = line.doing("reading the owners")?;
            match line.and_then(|line| fakeroot::parse(&line)) {
                Ok((inode, entry)) => drop(saved.insert(inode, entry)),
                Err(reason) => self.progress.problem(&format!("line {number}: {reason}")),
            }
        }
        // fakeroot saves only the files that it has changed; all others belong to root.
        self.walk(walk, |found| {
            Ok(saved.get(&(found.stat.st_dev, found.stat.st_ino)).cloned())
        })
    }

    fn override_stat(&mut self, walk: Walk) -> Result<(), Error> {
        self.walk(walk, |found| {
            if !carries_xattrs(file_type(found.stat.st_mode)) {
                return Ok(None);
            }
            for name in [override_stat::XATTR, override_stat::XATTR_OF_FUSE] {
                let value = attribute::of_file(found.file, name);
                if let Some(value) = value.map_err(|errno| errno.desc().to_owned())? {
                    let wrong = |reason| format!("{}: {reason}", name.to_string_lossy());
                    return override_stat::parse(&value).map(Some).map_err(wrong);
                }
            }
            Ok(None)
        })
    }

    /// Applies to each file of the tree the entry that `known` returns for it.
    fn walk(
        &mut self,
        walk: Walk,
        known: impl Fn(TreeFile) -> Result<Option<Entry>, String>,
    ) -> Result<(), Error> {
        let top = duplicate(self.top.as_fd())?;
        walk.run(top, |found| {
            let (path, result) = match found {
                Ok(found) => (found.path, self.apply_known(found, &known)),
                Err((path, errno)) => (path, Err(errno.desc().to_owned())),
            };
            match result {
                Ok(()) => self.progress.step(),
                Err(reason) => self.progress.problem(&named(path, &reason)),
            }
            Ok(())
        })
    }

    fn apply_known(
        &self,
        found: TreeFile,
        known: impl Fn(TreeFile) -> Result<Option<Entry>, String>,
    ) -> Result<(), String> {
        let Some(mut entry) = known(found)? else {
            return Ok(());
        };
        entry.path = found.path.to_vec();
        self.outside.apply(self.top.as_fd(), &entry, true)
    }
}

fn duplicate(fd: BorrowedFd) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned()
        .doing("duplicating a file descriptor of the directory")
}

pub(super) fn named(path: &[u8], reason: &str) -> String {
    format!("{}: {reason}", text::escape_for_terminal(path))
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::Seeded;
    use super::*;

    /// Changes, removes or duplicates some bytes.
    fn spoil(seeded: &mut Seeded, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=seeded.below(4) {
            let length = u64::try_from(bytes.len()).unwrap().max(1);
            let at = usize::try_from(seeded.below(length)).unwrap();
            match seeded.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_within(at..),
                _ if bytes.is_empty() => {}
                _ => bytes[at] = u8::try_from(seeded.below(256)).unwrap(),
            }
        }
        bytes
    }

    #[test]
    fn spoilt_lines_of_any_format_never_panic() {
        let stat = nix::sys::stat::stat("/").unwrap();
        let mut seeded = Seeded(11);
        let mut reader = mtree::Reader::default();
        for _ in 0..100_000 {
            let entry = seeded.entry();
            // Any result is fine, as long as there is one.
            let _ = json::parse(&spoil(&mut seeded, json::line(&entry).into_bytes()));
            let _ = reader.line(&spoil(&mut seeded, mtree::line(&entry, None).into_bytes()));
            let _ = fakeroot::parse(&spoil(
                &mut seeded,
                fakeroot::line(&entry, &stat).into_bytes(),
            ));
            let _ = override_stat::parse(&spoil(
                &mut seeded,
                override_stat::value(&entry).into_bytes(),
            ));
        }
    }

    #[test]
    fn spoilt_archives_of_any_kind_never_panic() {
        let mut seeded = Seeded(13);
        for _ in 0..20_000 {
            let mut archive = ::tar::Builder::new(Vec::new());
            let pairs = [
                ("uid", &b"3000000000"[..]),
                ("SCHILY.xattr.trusted.x", b"y"),
            ];
            archive.append_pax_extensions(pairs).unwrap();
            let mut header = ::tar::Header::new_gnu();
            header.set_entry_type(::tar::EntryType::Char);
            header.set_size(0);
            header.set_uid(1 << 33);
            header.set_device_major(1).unwrap();
            header.set_cksum();
            archive
                .append_data(&mut header, "a/b", io::empty())
                .unwrap();
            let bytes = spoil(&mut seeded, archive.into_inner().unwrap());
            let _ = tar::read(bytes.as_slice(), |_| Ok::<_, io::Error>(()));
        }
    }
}
