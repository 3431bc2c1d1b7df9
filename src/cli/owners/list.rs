//! `subuidless owners ls PATH...`

use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};

use clap::Args;

use super::Looking;
use super::console::Console;
use crate::cli::not_written;
use crate::error::Error;
use crate::owners::{
    Entry, Kind, Outside, Progress, TreeFile, escape_for_terminal, join, json_line, link_text,
    major_minor,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Files, and directories with everything below them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// In directories, also list ordinary files that belong to 0:0
    #[arg(short, long)]
    all: bool,

    /// List directories themselves, not their contents
    #[arg(short, long)]
    directory: bool,

    /// Print one JSON object a line, as `owners export` writes them
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    pub(super) looking: Looking,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let outside = arguments.looking.outside()?;
    let mut console = Console::beside(stdout().is_terminal());
    let mut output = BufWriter::new(stdout().lock());
    for path in &arguments.paths {
        let top = match outside.open(path, false) {
            Ok(top) => top,
            Err(error) => {
                console.problem(&error.to_string());
                continue;
            }
        };
        let mut list = List {
            arguments,
            outside: &outside,
            path,
            console: &mut console,
            output: &mut output,
        };
        let mut walk = arguments.looking.walk();
        walk.top_only = arguments.directory;
        walk.run(top, |found| match found {
            Ok(found) => list.file(found),
            Err((below, errno)) => {
                let path = escape_for_terminal(&join(path, below));
                list.console.problem(&format!("{path}: {}", errno.desc()));
                Ok(())
            }
        })?;
    }
    output.flush().map_err(not_written)?;
    console.end()
}

struct List<'a> {
    arguments: &'a Arguments,
    outside: &'a Outside,
    path: &'a Path,
    console: &'a mut Console,
    output: &'a mut dyn Write,
}

impl List<'_> {
    fn file(&mut self, found: TreeFile) -> Result<(), Error> {
        let path = join(self.path, found.path);
        let entry = match self.outside.look(&path, found.file, found.stat) {
            Ok(entry) => entry,
            Err(errno) => {
                let path = escape_for_terminal(&path);
                self.console.problem(&format!("{path}: {}", errno.desc()));
                return Ok(());
            }
        };
        self.console.step();
        if entry.is_plain() && found.path != b"." && !self.arguments.all {
            return Ok(());
        }
        let line = match self.arguments.json {
            true => json_line(&entry),
            false => line(&entry, found),
        };
        writeln!(self.output, "{line}").map_err(not_written)
    }
}

/// A line as of `ls -ln` in the container, without the date.
fn line(entry: &Entry, found: TreeFile) -> String {
    let mark = if entry.attributes.is_empty() {
        ' '
    } else {
        '+'
    };
    let size = match entry.device {
        Some(number) => {
            let (major, minor) = major_minor(number);
            format!("{major}, {minor}")
        }
        None => found.stat.st_size.to_string(),
    };
    let mut line = format!(
        "{}{mark} {} {:>6} {:>6} {size:>9} {}",
        permissions(entry),
        found.stat.st_nlink,
        entry.uid.unwrap_or_default(),
        entry.gid.unwrap_or_default(),
        escape_for_terminal(&entry.path)
    );
    if entry.kind == Some(Kind::Symlink)
        && let Ok(text) = link_text(found.file)
    {
        line += &format!(" -> {}", escape_for_terminal(&text));
    }
    line
}

fn permissions(entry: &Entry) -> String {
    let kind = match entry.kind {
        Some(Kind::File) => '-',
        Some(Kind::Directory) => 'd',
        Some(Kind::Symlink) => 'l',
        Some(Kind::Fifo) => 'p',
        Some(Kind::Socket) => 's',
        Some(Kind::Character) => 'c',
        Some(Kind::Block) => 'b',
        None => '?',
    };
    let mode = entry.mode.unwrap_or_default();
    let mut text = String::from(kind);
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 == 1, mode & special != 0) {
            (true, true) => set,
            (false, true) => set.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_those_of_ls() {
        for (kind, mode, expected) in [
            (Kind::File, 0o4755, "-rwsr-xr-x"),
            (Kind::Directory, 0o3741, "drwxr-S--t"),
            (Kind::Character, 0o1620, "crw--w---T"),
        ] {
            let entry = Entry {
                kind: Some(kind),
                mode: Some(mode),
                ..Entry::default()
            };
            assert_eq!(permissions(&entry), expected);
        }
    }
}
