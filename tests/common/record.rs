//! What the probe prints as real root, recorded in tests/quick/root.txt: conformance.rs makes sure
//! that the kernel still says so, and quick.rs compares with it where there is no root.

use std::ffi::OsString;

pub(crate) const RECORD: &str = include_str!("../quick/root.txt");

/// Where the record of another kernel is (scripts/vm): conformance.rs writes it, and quick.rs reads
/// it.
pub(crate) fn of_this_machine() -> Option<OsString> {
    std::env::var_os("SUBUIDLESS_TEST_RECORD")
}

/// The groups of the probe that print the same on every machine and in every directory.
pub(crate) const GROUPS: &str = "owner-ids,kinds,setid,links,successors,times,capability,\
    setgid-create,sticky,names,flags,pointers,statx,descriptors,deleted,ids-odd,ids-groups,\
    ids-pointers,ids-caps,ids-keepcaps,create-modes,signals,priorities,limits-others,tracing";

/// What the probe has printed, without what the kernel's version and the file system decide:
/// numbers of lines, what statx(2) offers, links of directories.
pub(crate) fn normal(printed: &[u8]) -> String {
    let printed = std::str::from_utf8(printed).expect("the probe escapes what is not ASCII");
    let mut lines = String::new();
    for line in printed.lines().filter(|line| !line.ends_with(": skipped")) {
        let is_number = |word: &str| word.bytes().all(|it| it.is_ascii_digit() || it == b'.');
        let words = line.split(' ').skip_while(|word| is_number(word));
        let mut is_directory = false;
        let kept: Vec<&str> = words
            .filter(|word| {
                is_directory |= word.starts_with('d') && word[1..].parse::<u32>().is_ok();
                let differs = word.starts_with("mask=") || word.starts_with("attributes=");
                !(differs || is_directory && word.starts_with("links="))
            })
            .collect();
        lines += &kept.join(" ");
        lines.push('\n');
    }
    lines
}
