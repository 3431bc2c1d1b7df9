//! The command line that ps(1) shows of this process.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::sys::{self, MemoryMap};

/// Sets this process's command line. Needs a kernel with CONFIG_CHECKPOINT_RESTORE, as those of
/// distributions are; without it, ps(1) shows that of the process that has forked.
pub(crate) fn set<'a>(words: impl IntoIterator<Item = &'a OsStr>) {
    let mut text = Vec::new();
    for word in words {
        text.extend_from_slice(word.as_bytes());
        text.push(0);
    }
    /// A fork has the layout of the process that has forked.
    static MAP: OnceLock<Option<MemoryMap>> = OnceLock::new();
    let read = || present_map(&procfs::read(&Name::new(b"/proc/self/stat".into())).ok()?);
    if let Some(map) = MAP.get_or_init(read) {
        // For as long as this process lives.
        let _ = sys::set_command_line(*map, text.leak());
    }
}

/// The present layout, from proc_pid_stat(5).
fn present_map(stat: &str) -> Option<MemoryMap> {
    // The name of the program may contain blanks and parentheses; field 3 follows.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some(MemoryMap {
        code: (field(26)?, field(27)?),
        stack: field(28)?,
        data: (field(45)?, field(46)?),
        heap: field(47)?,
        environment: (field(50)?, field(51)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_what_was_set_whatever_its_length() {
        let long = "x".repeat(10_000);
        for words in [&["subuidless: a", "worker", "", "text"][..], &[&long, "b"]] {
            set(words.iter().map(OsStr::new));
            let expected: String = words.iter().map(|word| format!("{word}\0")).collect();
            assert_eq!(
                std::fs::read_to_string("/proc/self/cmdline").unwrap(),
                expected
            );
        }
    }
}
