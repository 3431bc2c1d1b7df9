//! Owners of inodes, wherever they are: the files of `fakeroot -i` and `-s`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use super::entry::Entry;
use super::fakeroot::{self, Inode};
use super::lines::Lines;
use super::transfer::named;
use super::walk::Walk;
use super::{Outside, Progress};
use crate::credentials::{EmulatedGid, EmulatedUid};
use crate::error::{Context, Error};
use crate::owner::{Owner, file_type};

/// What such a file says of each inode, and the line itself.
#[derive(Debug, Default)]
pub(crate) struct Saved(BTreeMap<Inode, (Entry, Vec<u8>)>);

/// All inodes are found: the walk can end.
struct Done;

impl Saved {
    /// `path` names the file in messages.
    pub(crate) fn read(path: &Path, input: &mut dyn BufRead) -> Result<Self, Error> {
        let mut saved = Self::default();
        for line in Lines::new(input) {
            let (number, line) = line.at(path)?;
            let parsed = line.and_then(|line| Ok((fakeroot::parse(&line)?, line)));
            let ((inode, entry), line) = parsed.map_err(|reason| Error::NotSaved {
                path: path.to_owned(),
                number,
                reason,
            })?;
            saved.0.insert(inode, (entry, line));
        }
        Ok(saved)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Writes the lines.
    pub(crate) fn write(&self, output: &mut dyn Write) -> std::io::Result<()> {
        for (_, line) in self.0.values() {
            output.write_all(line)?;
            output.write_all(b"\n")?;
        }
        output.flush()
    }

    /// Gives the files below `top` what was saved of them, and forgets it. Returns their paths.
    pub(crate) fn apply(
        &mut self,
        outside: &Outside,
        top: OwnedFd,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let below = top.try_clone().doing("duplicating a file descriptor")?;
        let (mut paths, mut found_ones) = (Vec::new(), BTreeSet::new());
        // Ends early if that is all.
        let _ = Walk::default().run(top, |found| {
            if found_ones.len() == self.0.len() {
                return Err(Done);
            }
            // What cannot be opened is another user's, and not in such a file.
            let Ok(found) = found else {
                return Ok(());
            };
            let inode = (found.stat.st_dev, found.stat.st_ino);
            let Some((entry, _)) = self.0.get(&inode) else {
                return Ok(());
            };
            let path = found.path.to_vec();
            let entry = Entry {
                path: path.clone(),
                ..entry.clone()
            };
            if let Err(reason) = outside.apply(below.as_fd(), &entry, true) {
                progress.problem(&named(&path, &reason));
            }
            found_ones.insert(inode);
            paths.push(path);
            Ok(())
        });
        self.0.retain(|inode, _| !found_ones.contains(inode));
        Ok(paths)
    }

    /// Adds the files at `places`, each a path, that have owners. Of a path with a slash at its end
    /// all files below it. Those that are gone are passed over.
    pub(crate) fn add(
        &mut self,
        outside: &Outside,
        places: &BTreeSet<&[u8]>,
        progress: &mut dyn Progress,
    ) {
        for place in places {
            let (path, is_tree) = match place.strip_suffix(b"/") {
                Some(path) => (path, true),
                None => (*place, false),
            };
            let Ok(top) = outside.open(Path::new(OsStr::from_bytes(path)), false) else {
                continue;
            };
            let mut walk = Walk::default();
            walk.top_only = !is_tree;
            let Ok(()) = walk.run(top, |found| {
                // See above.
                if let Ok(found) = found
                    && let Err(errno) = self.add_one(outside, found.file, found.stat)
                {
                    progress.problem(&named(&[path, b"/", found.path].concat(), errno.desc()));
                }
                Ok::<_, std::convert::Infallible>(())
            });
        }
    }

    fn add_one(
        &mut self,
        outside: &Outside,
        file: BorrowedFd,
        stat: &FileStat,
    ) -> Result<(), Errno> {
        // What was saved of this number was another file.
        let inode = (stat.st_dev, stat.st_ino);
        self.0.remove(&inode);
        let Some(owner) = outside.owners.load(file, file_type(stat.st_mode))? else {
            return Ok(());
        };
        // fakeroot, too, shows root where nothing else is known.
        let owner = Owner {
            uid: owner.uid.or(Some(EmulatedUid::ROOT)),
            gid: owner.gid.or(Some(EmulatedGid::ROOT)),
            ..owner
        };
        let entry = Entry::new(b"", stat, owner);
        if entry.uid != Some(0) || entry.gid != Some(0) || owner.device.is_some() {
            let line = fakeroot::line(&entry, stat).into_bytes();
            self.0.insert(inode, (entry, line));
        }
        Ok(())
    }
}
