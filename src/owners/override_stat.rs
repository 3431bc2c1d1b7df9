//! `user.containers.override_stat`: the attribute in which containers/storage (with `force_mask`)
//! and fuse-overlayfs store owners. Pure.
//!
//! `UID:GID:MODE`, ids decimal, mode octal and sometimes with S_IFMT bits. Newer versions append
//! the type: `:file`, `:dir`, `:symlink`, `:pipe`, `:socket`, `:block-MAJOR-MINOR`,
//! `:char-MAJOR-MINOR`. Any file but a directory may be stored as a regular file in their trees.

use std::ffi::CStr;

use super::entry::{Entry, Kind, device_number, major_minor, parse_id, parse_mode};

pub(super) const XATTR: &CStr = c"user.containers.override_stat";
/// The name that fuse-overlayfs uses, unless its lower layers have the other one.
pub(super) const XATTR_OF_FUSE: &CStr = c"user.fuseoverlayfs.override_stat";

pub(super) fn value(entry: &Entry) -> String {
    let device = |word| {
        let (major, minor) = major_minor(entry.device.unwrap_or_default());
        format!("{word}-{major}-{minor}")
    };
    let kind = match entry.kind {
        Some(Kind::Directory) => "dir".to_owned(),
        Some(Kind::Symlink) => "symlink".to_owned(),
        Some(Kind::Fifo) => "pipe".to_owned(),
        Some(Kind::Socket) => "socket".to_owned(),
        Some(Kind::Character) => device("char"),
        Some(Kind::Block) => device("block"),
        Some(Kind::File) | None => "file".to_owned(),
    };
    format!(
        "{}:{}:{:04o}:{kind}",
        entry.uid.unwrap_or_default(),
        entry.gid.unwrap_or_default(),
        entry.mode.unwrap_or_default()
    )
}

pub(super) fn parse(value: &[u8]) -> Result<Entry, String> {
    let text = str::from_utf8(value).map_err(|_| "not text")?;
    let mut parts = text.trim_end_matches('\0').splitn(4, ':');
    let mut part = || {
        parts
            .next()
            .ok_or_else(|| format!("{text:?} is not UID:GID:MODE"))
    };
    let (uid, gid) = (parse_id(part()?)?, parse_id(part()?)?);
    let mode = parse_mode(part()?)?;
    let (kind, device) = match parts.next() {
        Some(kind) => parse_kind(kind)?,
        None => (Kind::of(mode), None),
    };
    Ok(Entry {
        kind,
        mode: Some(mode & 0o7777),
        uid: Some(uid),
        gid: Some(gid),
        device,
        ..Entry::default()
    })
}

/// Parses the type. Further fields, which a newer version may append, are ignored.
fn parse_kind(text: &str) -> Result<(Option<Kind>, Option<u32>), String> {
    let wrong = || format!("{text:?} is not a file type");
    let mut parts = text.split('-');
    let kind = match parts.next().unwrap_or_default() {
        "file" => Kind::File,
        "dir" => Kind::Directory,
        "symlink" => Kind::Symlink,
        "pipe" => Kind::Fifo,
        "socket" => Kind::Socket,
        "char" => Kind::Character,
        "block" => Kind::Block,
        _ => return Err(wrong()),
    };
    let mut number = || {
        parts
            .next()
            .and_then(|part| part.parse().ok())
            .ok_or_else(wrong)
    };
    let device = match kind.is_device() {
        true => Some(device_number(number()?, number()?)?),
        false => None,
    };
    Ok((Some(kind), device))
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::Seeded;
    use super::*;

    #[test]
    fn every_entry_survives_the_round_trip() {
        let mut seeded = Seeded(9);
        for _ in 0..5_000 {
            let entry = Entry {
                path: Vec::new(),
                attributes: Vec::new(),
                ..seeded.entry()
            };
            assert_eq!(parse(value(&entry).as_bytes()), Ok(entry));
        }
    }

    #[test]
    fn values_of_all_versions_are_read_and_others_are_errors() {
        let parsed = parse(b"0:0:0100755").unwrap();
        assert_eq!((parsed.kind, parsed.mode), (Some(Kind::File), Some(0o755)));
        assert_eq!(parse(b"1:2:555:char-1-3-more").unwrap().device, Some(0x103));
        for wrong in [
            &b""[..],
            b"1:2",
            b"1:x:644",
            b"-1:0:644",
            b"1:2:8",
            b"1:2:644:door",
            b"1:2:644:char-1",
            b"\xff",
        ] {
            assert!(parse(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
