//! mtree(5), as written by bsdtar and mtree(8): one file per line, its name and keywords. Pure.
//!
//! A name with a slash is a path relative to the top. A name without one is in the current
//! directory: the directory named before, which `..` leaves.

use std::collections::BTreeMap;

use super::entry::{Entry, Kind, device_number, major_minor, parse_id, parse_mode};

pub(super) const HEAD: &str = "#mtree";

/// Formats an entry; `link` is the target of a symbolic link.
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

/// Escapes a name as vis(3) does with VIS_OCTAL.
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

/// Reads the escapes of vis(3), octal (VIS_OCTAL) and C-like (VIS_CSTYLE).
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
                    "\\{} is not an escape of vis(3)",
                    char::from(other).escape_default()
                ));
            }
        });
    }
    Ok(bytes)
}

/// The longest path that is accepted: a hostile file of short lines could make longer and longer
/// paths.
const LONGEST_PATH: usize = 1 << 16;
/// The longest value that is accepted: a default value is parsed again for each file.
const LONGEST_VALUE: usize = 64;
/// The longest line, with its continuation lines.
const LONGEST_LINE: usize = 4 << 20;

/// The keywords that are read; others are ignored.
const KEYWORDS: [&str; 5] = ["type", "uid", "gid", "mode", "device"];

/// Reads a file line by line; entries depend on the lines before them.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The values of `/set`.
    defaults: Keywords,
    directory: Directory,
    /// Lines that the next line continues.
    begun: Vec<u8>,
}

type Keywords = BTreeMap<&'static str, Vec<u8>>;

/// The current directory, in which names without a slash are.
#[derive(Debug, Default)]
struct Directory {
    path: Vec<u8>,
    /// The length of `path` before each of its components.
    lengths: Vec<usize>,
    /// The number of further components, left out because the path is too long.
    beyond: usize,
}

impl Directory {
    /// The path of `name` in this directory. Returns `None` if it is too long.
    fn join(&self, name: &[u8]) -> Option<Vec<u8>> {
        let is_short = self.beyond == 0 && self.path.len() + name.len() < LONGEST_PATH;
        let parts = [self.path.as_slice(), name];
        let path = || match self.path.as_slice() {
            b"" => name.to_vec(),
            _ => parts.join(&b'/'),
        };
        is_short.then(path)
    }

    fn enter(&mut self, path: Option<&[u8]>) {
        match path {
            Some(path) => {
                self.lengths.push(self.path.len());
                self.path = path.to_vec();
            }
            None => self.beyond += 1,
        }
    }

    fn leave(&mut self) -> Result<(), String> {
        if self.beyond > 0 {
            self.beyond -= 1;
            return Ok(());
        }
        let length = self.lengths.pop().ok_or("`..` leads out of the top")?;
        self.path.truncate(length);
        Ok(())
    }
}

impl Reader {
    /// Reads a line. Returns the entry if it completes one.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<Option<Entry>, String> {
        if let Some(begun) = line.strip_suffix(b"\\") {
            if self.begun.len() + begun.len() < LONGEST_LINE {
                self.begun.extend(begun);
                self.begun.push(b' ');
                return Ok(None);
            }
            self.begun = Vec::new();
            return Err("longer than 4 MiB, including its continuation lines".to_owned());
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
                        word => self.defaults.retain(|known, _| known.as_bytes() != word),
                    }
                }
            }
            b".." => self.directory.leave()?,
            name => return self.entry(name, keywords(words)?).map(Some),
        }
        Ok(None)
    }

    /// Returns the entry of an unfinished last line.
    pub(super) fn end(&mut self) -> Result<Option<Entry>, String> {
        self.line(b"")
    }

    fn entry(&mut self, name: &[u8], own: Keywords) -> Result<Entry, String> {
        let is_path = name.contains(&b'/');
        let name = decode(name)?;
        let value = |keyword: &str| {
            let value = own.get(keyword).or_else(|| self.defaults.get(keyword))?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let kind =
            |word: String| Kind::from_mtree(&word).ok_or(format!("{word:?} is not a file type"));
        let kind = value("type").map(kind).transpose()?;
        let id = |keyword: &str| value(keyword).map(|id| parse_id(&id)).transpose();
        let mode = value("mode").map(|mode| parse_mode(&mode)).transpose()?;
        let device = match value("device") {
            Some(device) if kind.is_none_or(Kind::is_device) => Some(parse_device(&device)?),
            _ => None,
        };
        let (uid, gid) = (id("uid")?, id("gid")?);
        let path = match is_path {
            true => Some(name).filter(|path| path.len() < LONGEST_PATH),
            false => self.directory.join(&name),
        };
        // A directory whose name has no slash becomes the current one; so does the top, `.`.
        if !is_path && kind == Some(Kind::Directory) {
            self.directory.enter(path.as_deref());
        }
        Ok(Entry {
            path: path.ok_or("its path is longer than 64 KiB")?,
            kind,
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            device,
            attributes: Vec::new(),
        })
    }
}

fn keywords<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Keywords, String> {
    let mut found = Keywords::new();
    for word in words {
        let mut parts = word.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let Some(known) = KEYWORDS.iter().find(|known| known.as_bytes() == name) else {
            continue;
        };
        if value.len() > LONGEST_VALUE {
            return Err(format!("{known}= is longer than {LONGEST_VALUE} bytes"));
        }
        found.insert(known, value.to_vec());
    }
    Ok(found)
}

/// Parses `FORMAT,MAJOR,MINOR`, or a number encoded as in stat(2).
fn parse_device(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is not a device number: FORMAT,MAJOR,MINOR");
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
            "#mtree\n/set type=file uid=5 gid=6 mode=0644\n\
             . type=dir mode=755\n    a\\040b \\\n  uid=70000 nochange\n\
             # a comment\n  d type=dir\n  n type=char device=native,0x1,3 uid=0\n\
             /unset uid\n ..\n ./e/f gid=7\n g device=259\n..\n",
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
    fn a_file_of_short_lines_makes_no_long_paths() {
        let mut reader = Reader::default();
        let (mut entries, mut errors) = (0, 0);
        const DEPTH: usize = 2_000_000;
        for _ in 0..DEPTH {
            match reader.line(b"d type=dir") {
                Ok(entry) => {
                    assert!(entry.is_some_and(|entry| entry.path.len() < LONGEST_PATH));
                    entries += 1;
                }
                Err(_) => errors += 1,
            }
        }
        assert_eq!(
            (entries, errors),
            (LONGEST_PATH / 2, DEPTH - LONGEST_PATH / 2)
        );
        // Each directory is left again.
        for _ in 0..DEPTH {
            assert_eq!(reader.line(b".."), Ok(None));
        }
        assert!(reader.line(b"..").is_err());
        let entry = reader.line(b"e").unwrap().unwrap();
        assert_eq!(entry.path, b"e");
    }

    #[test]
    fn a_line_that_never_ends_is_not_kept() {
        let mut reader = Reader::default();
        let part = [&vec![b'x'; 1 << 20][..], b"\\"].concat();
        let errors = (0..40).filter(|_| reader.line(&part).is_err()).count();
        assert!(errors > 8 && reader.begun.len() <= LONGEST_LINE);
    }

    #[test]
    fn any_lines_have_an_answer() {
        const WORDS: [&str; 24] = [
            "/set",
            "/unset",
            "all",
            "..",
            ".",
            "a",
            "./a/b",
            "d",
            "type=dir",
            "type=file",
            "type=char",
            "uid=5",
            "gid=",
            "mode=0755",
            "mode=9",
            "device=native,1,3",
            "device=0x103",
            "device=,",
            "#",
            "\\",
            "\\040",
            "link=x",
            "nochange",
            "=",
        ];
        let mut seeded = Seeded(17);
        for _ in 0..2_000 {
            let mut reader = Reader::default();
            for _ in 0..seeded.below(100) {
                let words = (0..seeded.below(7)).map(|_| {
                    let word = usize::try_from(seeded.below(24)).unwrap();
                    WORDS[word].to_owned()
                });
                let _ = reader.line(words.collect::<Vec<_>>().join(" ").as_bytes());
            }
            let _ = reader.end();
        }
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
            &format!("a uid={}", "1".repeat(65)),
            &format!("/set uid={}", "1".repeat(65)),
            &format!("./{}", "a".repeat(LONGEST_PATH)),
        ] {
            let result = Reader::default().line(line.as_bytes());
            assert!(result.is_err(), "{line}: {result:?}");
        }
    }
}
