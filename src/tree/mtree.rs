//! mtree(5), as bsdtar and the BSDs' mtree write it: one file a line, keywords behind its name. Pure.
//!
//! A name with a slash is a path from the top; one without lies in the directory that was named last, which `..` leaves.

use std::collections::BTreeMap;

use super::entry::{Entry, Kind, device_number, major_minor, parse_id, parse_mode};

pub(super) const HEAD: &str = "#mtree";

/// `link`: where a symbolic link leads.
pub(super) fn line(entry: &Entry, link: Option<&[u8]>) -> String {
    let mut line = match entry.path.as_slice() {
        b"." => ".".to_owned(),
        path => format!("./{}", encode(path)),
    };
    let mut keyword = |name: &str, value: &str| line.extend([" ", name, "=", value]);
    if let Some(kind) = entry.kind {
        keyword("type", kind.mtree());
    }
    if let Some(mode) = entry.mode {
        keyword("mode", &format!("{mode:04o}"));
    }
    for (name, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if let Some(id) = id {
            keyword(name, &id.to_string());
        }
    }
    if let Some(number) = entry.device {
        let (major, minor) = major_minor(number);
        keyword("device", &format!("native,{major},{minor}"));
    }
    if let Some(link) = link {
        keyword("link", &encode(link));
    }
    line
}

/// vis(3) with octal numbers.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' | b'#' | b'=' | b'*' | b'?' | b'[' => text += &format!("\\{byte:03o}"),
            byte if byte.is_ascii_graphic() => text.push(char::from(*byte)),
            byte => text += &format!("\\{byte:03o}"),
        }
    }
    text
}

/// vis(3), octal and in the style of C.
fn decode(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&escaped, after) = rest.split_first().ok_or("a backslash ends a name")?;
        rest = after;
        bytes.push(match escaped {
            b'0'..=b'3'
                if after.len() >= 2 && after[..2].iter().all(|d| (b'0'..=b'7').contains(d)) =>
            {
                rest = &after[2..];
                (escaped - b'0') << 6 | (after[0] - b'0') << 3 | (after[1] - b'0')
            }
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            b's' => b' ',
            b'0' => 0,
            other if other.is_ascii_punctuation() => other,
            other => {
                return Err(format!(
                    "\\{} is no escape of vis(3)",
                    char::from(other).escape_default()
                ));
            }
        });
    }
    Ok(bytes)
}

/// Reads line by line what came before the present one, too.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// `/set`
    defaults: BTreeMap<String, Vec<u8>>,
    directory: Vec<Vec<u8>>,
    /// What goes on in the next line.
    begun: Vec<u8>,
}

impl Reader {
    /// The entry that `line` makes complete.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<Option<Entry>, String> {
        if let Some(begun) = line.strip_suffix(b"\\") {
            self.begun.extend(begun);
            self.begun.push(b' ');
            return Ok(None);
        }
        let line = [&std::mem::take(&mut self.begun), line].concat();
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        let Some(name) = words.next().filter(|name| !name.starts_with(b"#")) else {
            return Ok(None);
        };
        match name {
            b"/set" => self.defaults.extend(keywords(words)?),
            b"/unset" => {
                for word in words {
                    match word {
                        b"all" => self.defaults.clear(),
                        word => drop(self.defaults.remove(String::from_utf8_lossy(word).as_ref())),
                    }
                }
            }
            b".." => {
                self.directory.pop().ok_or("`..` leads out of the top")?;
            }
            name => return self.entry(name, keywords(words)?).map(Some),
        }
        Ok(None)
    }

    /// What began in the last line and did not end.
    pub(super) fn end(&mut self) -> Result<Option<Entry>, String> {
        self.line(b"")
    }

    fn entry(&mut self, name: &[u8], own: BTreeMap<String, Vec<u8>>) -> Result<Entry, String> {
        let is_path = name.contains(&b'/');
        let name = decode(name)?;
        let value = |keyword: &str| {
            let value = own.get(keyword).or_else(|| self.defaults.get(keyword))?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let kind =
            |word: String| Kind::from_mtree(&word).ok_or(format!("{word:?} is no type of files"));
        let kind = value("type").map(kind).transpose()?;
        let id = |keyword: &str| value(keyword).map(|id| parse_id(&id)).transpose();
        let mode = value("mode").map(|mode| parse_mode(&mode)).transpose()?;
        let device = match value("device") {
            Some(device) if kind.is_none_or(Kind::is_device) => Some(parse_device(&device)?),
            _ => None,
        };
        let (uid, gid) = (id("uid")?, id("gid")?);
        let mut path = self.directory.clone();
        if is_path {
            path.clear();
        }
        path.push(name.clone());
        // A name without a slash begins its directory; the top is one, too.
        if !is_path && kind == Some(Kind::Directory) {
            self.directory.push(name);
        }
        Ok(Entry {
            path: path.join(&b'/'),
            kind,
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            device,
            attributes: Vec::new(),
        })
    }
}

fn keywords<'a>(
    words: impl Iterator<Item = &'a [u8]>,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let keyword = |word: &[u8]| {
        let mut parts = word.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| "a keyword that is not text")?;
        Ok((name.to_owned(), parts.next().unwrap_or_default().to_vec()))
    };
    words.map(keyword).collect()
}

/// `FORMAT,MAJOR,MINOR`, or a number as stat(2) gives it.
fn parse_device(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no device: FORMAT,MAJOR,MINOR");
    let number = |text: &str| {
        let (digits, radix) = match text.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (text, 10),
        };
        u64::from_str_radix(digits, radix).map_err(|_| wrong())
    };
    match text.split(',').collect::<Vec<_>>().as_slice() {
        [_, major, minor] => device_number(number(major)?, number(minor)?),
        [whole] => u32::try_from(number(whole)?).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::Seeded;
    use super::*;

    fn read(text: &str) -> Vec<Entry> {
        let mut reader = Reader::default();
        let lines = text
            .lines()
            .map(|line| reader.line(line.as_bytes()).unwrap());
        lines.flatten().collect()
    }

    #[test]
    fn every_entry_survives_the_round_trip() {
        let mut seeded = Seeded(5);
        let mut reader = Reader::default();
        assert_eq!(reader.line(HEAD.as_bytes()), Ok(None));
        for _ in 0..5_000 {
            let entry = Entry {
                attributes: Vec::new(),
                ..seeded.entry()
            };
            let text = line(&entry, Some(b"a b"));
            let read = reader.line(text.as_bytes()).unwrap().unwrap();
            let path = [b"./", entry.path.as_slice()].concat();
            assert_eq!(read, Entry { path, ..entry }, "{text}");
        }
    }

    #[test]
    fn defaults_nesting_and_continued_lines_are_those_of_mtree() {
        let entries = read(
            "#mtree\n/set type=file uid=5 gid=6 mode=0644\n. type=dir mode=755\n    a\\040b \\\n  uid=70000 nochange\n\
             # a comment\n  d type=dir\n  n type=char device=native,0x1,3 uid=0\n/unset uid\n ..\n ./e/f gid=7\n g device=259\n..\n",
        );
        let shown: Vec<_> = entries
            .iter()
            .map(|entry| {
                let path = String::from_utf8(entry.path.clone()).unwrap();
                (path, entry.uid, entry.gid, entry.mode, entry.device)
            })
            .collect();
        let row = |path: &str, uid, gid, mode, device| {
            (path.to_owned(), uid, Some(gid), Some(mode), device)
        };
        assert_eq!(
            shown,
            [
                row(".", Some(5), 6, 0o755, None),
                row("./a b", Some(70_000), 6, 0o644, None),
                row("./d", Some(5), 6, 0o644, None),
                row("./d/n", Some(0), 6, 0o644, Some(0x103)),
                row("./e/f", None, 7, 0o644, None),
                row("./g", None, 6, 0o644, None),
            ]
        );
    }

    #[test]
    fn wrong_lines_are_errors() {
        for line in [
            "..",
            "a uid=x",
            "a uid=4294967295",
            "a mode=9",
            "a type=door",
            "a type=char device=native,1",
            "a type=char device=native,9999,1",
            "a\\q uid=1",
            "a\\ uid=1",
        ] {
            let result = Reader::default().line(line.as_bytes());
            assert!(result.is_err(), "{line}: {result:?}");
        }
    }
}
