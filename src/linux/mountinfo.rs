//! The mounts of a process's mount namespace: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

use crate::linux::procfs;

/// The contents of mountinfo. Paths in it are bytes, not necessarily UTF-8.
#[derive(Debug)]
pub(crate) struct Mounts(Vec<u8>);

impl Mounts {
    pub(crate) fn read<P: NixPath + ?Sized>(file: &P) -> Result<Self, Errno> {
        procfs::read_bytes_at(AT_FDCWD, file).map(Self)
    }

    /// The mounts. Malformed lines are skipped.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Mount<'_>> {
        self.0.split(|byte| *byte == b'\n').filter_map(Mount::parse)
    }
}

/// A line of mountinfo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mount<'a> {
    pub(crate) id: u64,
    /// `MAJOR:MINOR`
    pub(crate) device: &'a str,
    root: &'a [u8],
    point: &'a [u8],
    /// The type of the file system, like `overlay`.
    pub(crate) kind: &'a str,
    options: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let text = |field: &'a [u8]| str::from_utf8(field).ok();
        let id = text(fields.next()?)?.parse().ok()?;
        let (device, root, point) = (fields.nth(1)?, fields.next()?, fields.next()?);
        // A dash ends the optional fields. The type, the source and the options of the file system
        // follow.
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let kind = text(fields.next()?)?;
        Some(Self {
            id,
            device: text(device)?,
            root,
            point,
            kind,
            options: fields.nth(1)?,
        })
    }

    /// The directory of the file system that is the root of the mount.
    pub(crate) fn root(&self) -> PathBuf {
        plain(self.root).into()
    }

    /// The mount point, relative to the process's root directory.
    pub(crate) fn point(&self) -> PathBuf {
        plain(self.point).into()
    }

    /// The value of the option `name` of the file system. Returns `None` if the option is missing
    /// or has no value.
    pub(crate) fn option(&self, name: &str) -> Option<OsString> {
        let mut options = self.options.split(|byte| *byte == b',');
        options
            .find_map(|option| option.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
            .map(plain)
    }
}

/// Decodes `\ooo`, which stands for space, newline, backslash and the like.
fn plain(escaped: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let [byte, behind @ ..] = rest {
        let octal = behind
            .get(..3)
            .filter(|_| *byte == b'\\')
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        plain.push(octal.unwrap_or(*byte));
        rest = octal.map_or(behind, |_| &behind[3..]);
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_field_by_field() {
        let mounts = Mounts(
            b"36 35 98:0 /a\\134040 /m\\040\xff rw,noatime master:1 - overlay o\\040- \
              rw,upperdir=/u\\054b,x\n\
              37 35 0:5 / /proc rw - proc proc rw,hidepid=2\n38 broken\n"
                .to_vec(),
        );
        let [overlay, proc] = mounts.iter().collect::<Vec<_>>()[..] else {
            panic!("{mounts:?}");
        };
        assert_eq!(
            (overlay.id, overlay.device, overlay.kind),
            (36, "98:0", "overlay")
        );
        assert_eq!(overlay.root(), PathBuf::from("/a\\040"));
        assert_eq!(overlay.point().into_os_string().into_vec(), b"/m \xff");
        assert_eq!(overlay.option("upperdir").unwrap(), "/u,b");
        assert_eq!(proc.kind, "proc");
        assert_eq!(proc.option("hidepid").unwrap(), "2");
        assert_eq!(proc.option("upperdir"), None);
    }
}
