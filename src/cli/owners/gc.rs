//! `subuidless owners gc DIR...`

use std::io::{self, BufWriter, Write, stdout};
use std::path::PathBuf;

use clap::Args;

use super::console::Console;
use crate::cli::not_written;
use crate::credentials::Id;
use crate::error::Error;
use crate::owners::Progress;
use crate::owners::gc::{self, Fate, GcOptions, Swept};
use crate::store::StoredEntry;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Directories to search: the more are given, the more entries are known to be unused
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,

    /// Also remove entries of files that are on the same file systems but not below DIR. The
    /// owners of such files that still exist elsewhere are lost: --dry-run lists them
    #[arg(long)]
    missing: bool,

    /// Remove nothing, but list what would be removed and why
    #[arg(long)]
    dry_run: bool,

    /// Directory of the store, as for `serve` [default: $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Error> {
    let options = GcOptions {
        store: arguments.store,
        directories: arguments.directories,
        missing: arguments.missing,
        dry_run: arguments.dry_run,
    };
    let swept = gc::sweep(&options)?;
    let mut console = Console::new();
    for error in &swept.unread {
        console.problem(&error.to_string());
    }
    tell(&options, &swept, &mut BufWriter::new(stdout().lock())).map_err(not_written)?;
    console.end()
}

fn tell(options: &GcOptions, swept: &Swept, output: &mut impl Write) -> io::Result<()> {
    let all = swept.entries.len();
    let replaced = swept.count(Fate::Replaced);
    let missing = swept.count(Fate::Missing);
    if !options.dry_run {
        writeln!(
            output,
            "{all} entries, {} removed, {} kept",
            swept.removed,
            all - swept.removed
        )?;
        if missing > 0 && !options.missing {
            writeln!(
                output,
                "{missing} of those kept are of files that are not below these directories, and \
                 may be elsewhere: \
                 `--missing --dry-run` lists them"
            )?;
        }
        return output.flush();
    }
    let would_go = replaced + if options.missing { missing } else { 0 };
    for (entry, fate) in &swept.entries {
        let reason = match fate {
            Fate::Replaced => "gone: its inode number belongs to another file",
            Fate::Missing if options.missing => "not below these directories",
            _ => continue,
        };
        writeln!(output, "{}: {reason}", name(entry))?;
    }
    writeln!(
        output,
        "{all} entries, {would_go} would be removed, {} kept",
        all - would_go
    )?;
    output.flush()
}

/// What an entry says about its file, whose path is not stored.
fn name(entry: &StoredEntry) -> String {
    let owner = entry.owner();
    let id = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let (uid, gid) = (owner.uid.map(Id::as_raw), owner.gid.map(Id::as_raw));
    let inode = match entry.inode() {
        Some(inode) => format!("inode {inode}"),
        None => "an inode".to_owned(),
    };
    let device = match owner.device {
        Some(_) => ", a device",
        None => "",
    };
    format!("{inode} of {}:{}{device}", id(uid), id(gid))
}
