//! The shape of the source: who may import whom, and that docs/syscalls.md knows every syscall.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The floors from the top down, as the library's documentation lists them: rooms in backticks, `>`
/// between floors.
fn floors() -> Vec<Vec<String>> {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let documentation: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .collect();
    let list = documentation
        .split(|line| line.is_empty())
        .map(|paragraph| paragraph.join(" "))
        .find(|paragraph| paragraph.starts_with("`cli` > "))
        .expect("lib.rs lists the floors in a paragraph that begins with `cli`");
    let rooms = |floor: &str| {
        floor
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    list.split('>').map(rooms).collect()
}

/// All source files below `path`.
fn files(path: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The room that a file belongs to: the first part of its path in src.
fn room(file: &Path) -> String {
    let inside = file.strip_prefix(source()).unwrap();
    let first = inside.components().next().unwrap();
    let first: &Path = first.as_ref();
    first.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The rooms that a file's code names, comments left out.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .fold(String::new(), |code, line| code + line + "\n");
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            // `use crate::{a::b, c::{d, e}, f};`: names at the first level.
            Some(list) => {
                let mut depth = 0;
                let mut name = String::new();
                let mut names = vec![];
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                        _ => name.push(c),
                    }
                }
                names.push(name);
                rooms.extend(names.iter().filter_map(|name| first_name(name.trim())));
            }
            None => rooms.extend(first_name(rest)),
        }
    }
    rooms
}

fn first_name(path: &str) -> Option<String> {
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    let name = &path[..end.unwrap_or(path.len())];
    (!name.is_empty()).then(|| name.to_owned())
}

#[test]
fn a_list_of_imports_is_read_at_its_first_level() {
    let text = "use crate::{error::Error, owner::{Owner, record}, sys};\nuse crate::target::Call; // crate::cli\n";
    let found: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(found, ["error", "owner", "sys", "target"]);
}

#[test]
fn rooms_import_from_lower_floors_only() {
    // A room stands below those to its left.
    let rooms: Vec<String> = floors().into_iter().flatten().collect();
    let place = |room: &str| rooms.iter().position(|known| known == room);
    let mut all = Vec::new();
    files(&source(), &mut all);
    let mut wrong = Vec::new();
    for file in all {
        let importer = room(&file);
        if ["main", "lib"].contains(&importer.as_str()) {
            continue;
        }
        let Some(above) = place(&importer) else {
            panic!("{}: the room {importer} stands on no floor", file.display());
        };
        for imported in imports(&fs::read_to_string(&file).unwrap()) {
            let Some(below) = place(&imported) else {
                panic!("{}: crate::{imported} is no room", file.display());
            };
            if above > below {
                wrong.push(format!("{}: crate::{imported}", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "neither from a lower floor nor from the right:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_documentation_of_the_library_names_every_room_once() {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let mut declared: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    let floors = floors();
    let mut documented: Vec<&str> = floors.iter().flatten().map(String::as_str).collect();
    declared.sort_unstable();
    documented.sort_unstable();
    assert_eq!(documented, declared);
}

/// The names in the rows of the syscall table.
fn table() -> BTreeSet<String> {
    let text = fs::read_to_string(source().join("syscalls/table.rs")).unwrap();
    let (_, table) = text.split_once("static TABLE").unwrap();
    let (table, _) = table.split_once("\n];").unwrap();
    table
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter_map(|line| line.split('"').nth(1))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_documentation_lists_the_syscalls_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/syscalls.md");
    let page =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let list = page
        .split_once("<!-- syscalls -->")
        .and_then(|(_, rest)| rest.split_once("<!-- /syscalls -->"))
        .map(|(list, _)| list)
        .expect("docs/syscalls.md has a list between <!-- syscalls --> and <!-- /syscalls -->");
    let listed: BTreeSet<String> = list
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    let table = table();
    assert!(
        table.contains("chown") && table.contains("statx"),
        "{table:?}"
    );
    assert_eq!(listed, table);
}

/// Pages name the test that holds a sentence: `tests/FILE.rs: NAME, NAME`.
#[test]
fn every_test_that_a_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for page in fs::read_dir(root.join("docs")).unwrap() {
        let page = page.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        for (at, word) in words.iter().enumerate() {
            let Some((_, file)) = word.split_once("tests/") else {
                continue;
            };
            let Some(file) = file.strip_suffix(".rs:") else {
                continue;
            };
            let source = fs::read_to_string(root.join(format!("tests/{file}.rs"))).unwrap();
            for name in words[at + 1..]
                .iter()
                .take_while(|it| !it.starts_with("tests/"))
            {
                let bare = name.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                assert!(
                    source.contains(&format!("fn {bare}(")),
                    "{}: tests/{file}.rs has no {bare}",
                    page.display()
                );
                named += 1;
                if name.contains(')') || !name.ends_with(',') {
                    break;
                }
            }
        }
    }
    assert!(named > 30, "{named}");
}
