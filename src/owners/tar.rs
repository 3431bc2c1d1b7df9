//! The headers of a tar archive; the contents of its files are skipped.

use std::collections::HashMap;
use std::io::{self, BufRead};

use ::tar::{Archive, EntryType};

use super::entry::{Entry, Kind, device_number};
use crate::owner::NamedValue;

/// Magic numbers of compressed archives, each with the program that decompresses them.
const COMPRESSED: [(&str, &[u8]); 4] = [
    ("zcat", &[0x1f, 0x8b]),
    ("bzcat", b"BZh"),
    ("xzcat", &[0xfd, b'7', b'z', b'X', b'Z']),
    ("zstdcat", &[0x28, 0xb5, 0x2f, 0xfd]),
];

/// A member's number, and its entry or the reason why it cannot be read.
pub(super) type Member = (usize, Result<Entry, String>);

/// Calls `each` for the members in their order. Fails if the archive is compressed or truncated.
pub(super) fn read<E: From<io::Error>>(
    mut input: impl BufRead,
    mut each: impl FnMut(Member) -> Result<(), E>,
) -> Result<(), E> {
    let start = input.fill_buf()?;
    if let Some((program, _)) = COMPRESSED
        .iter()
        .find(|(_, bytes)| start.starts_with(bytes))
    {
        let message = format!(
            "the archive is compressed: use `{program} FILE | subuidless owners import DIR \
             --format tar`"
        );
        return Err(io::Error::other(message).into());
    }
    let mut archive = Archive::new(input);
    // The member of a hard link does not say that the file is a device, and a plain tar could not
    // create the device, nor the link.
    let mut devices = HashMap::new();
    for (number, member) in archive.entries()?.enumerate() {
        let Some(header) = header(&mut member?).transpose() else {
            continue;
        };
        let entry = header.map(|Header { mut entry, link }| {
            if let Some(device) = link.and_then(|link| devices.get(&link)) {
                (entry.kind, entry.device) = *device;
            } else if entry.device.is_some() {
                devices.insert(entry.path.clone(), (entry.kind, entry.device));
            }
            entry
        });
        each((number + 1, entry))?;
    }
    Ok(())
}

struct Header {
    entry: Entry,
    /// The path that the member is a hard link to.
    link: Option<Vec<u8>>,
}

/// Reads a member's header. Returns `None` for a member that is not a file.
fn header<R: io::Read>(member: &mut ::tar::Entry<R>) -> Result<Option<Header>, String> {
    let (mut name, mut attributes) = (None, Vec::<NamedValue>::new());
    if let Some(extensions) = member.pax_extensions().map_err(sentence)? {
        for extension in extensions {
            let extension = extension.map_err(sentence)?;
            match extension.key_bytes() {
                b"GNU.sparse.name" => name = Some(extension.value_bytes().to_vec()),
                key => {
                    let attribute = key.strip_prefix(b"SCHILY.xattr.");
                    let is_lost = |name: &&[u8]| {
                        name.starts_with(b"trusted.") || name.starts_with(b"security.")
                    };
                    if let Some(attribute) = attribute.filter(is_lost) {
                        attributes.push((attribute.to_vec(), extension.value_bytes().to_vec()));
                    }
                }
            }
        }
    }
    let header = member.header();
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Some(Kind::File),
        EntryType::Directory => Some(Kind::Directory),
        EntryType::Symlink => Some(Kind::Symlink),
        EntryType::Fifo => Some(Kind::Fifo),
        EntryType::Char => Some(Kind::Character),
        EntryType::Block => Some(Kind::Block),
        EntryType::Link => None,
        _ => return Ok(None),
    };
    let id = |id: io::Result<u64>| match id.map_err(sentence)?.try_into() {
        Ok(u32::MAX) | Err(_) => Err("has an id above 4294967294".to_owned()),
        Ok(id) => Ok(id),
    };
    let device = match kind.is_some_and(Kind::is_device) {
        true => {
            let number = |number: io::Result<Option<u32>>| {
                number
                    .map_err(sentence)?
                    .ok_or("is a device without a device number".to_owned())
            };
            let (major, minor) = (
                number(header.device_major())?,
                number(header.device_minor())?,
            );
            Some(device_number(major.into(), minor.into())?)
        }
        false => None,
    };
    let entry = Entry {
        path: relative(&name.unwrap_or_else(|| member.path_bytes().into_owned())),
        kind,
        mode: Some(header.mode().map_err(sentence)? & 0o7777),
        uid: Some(id(header.uid())?),
        gid: Some(id(header.gid())?),
        device,
        attributes,
    };
    let link = match header.entry_type() {
        EntryType::Link => member.link_name_bytes().map(|link| relative(&link)),
        _ => None,
    };
    Ok(Some(Header { entry, link }))
}

/// Removes leading slashes, as tar(1) does.
fn relative(path: &[u8]) -> Vec<u8> {
    let start = path.iter().position(|byte| *byte != b'/');
    path[start.unwrap_or(path.len())..].to_vec()
}

fn sentence(error: impl std::fmt::Display) -> String {
    error.to_string()
}
