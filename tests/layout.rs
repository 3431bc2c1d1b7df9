//! The shape of the source: who may import whom, and that docs/syscalls.md knows every syscall.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod layout {
    pub(crate) mod imports;
}

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use layout::imports::{Imports, Module, Source, circles};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

static IMPORTS: LazyLock<Imports> = LazyLock::new(|| Source::read(&source()).imports());

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

#[test]
fn rooms_import_from_lower_floors_only() {
    // A room stands below those to its left.
    let rooms: Vec<String> = floors().into_iter().flatten().collect();
    let place = |room: &str| rooms.iter().position(|known| known == room);
    let mut wrong = Vec::new();
    for (importer, imported) in &*IMPORTS {
        // lib.rs
        let Some(above) = importer.first() else {
            continue;
        };
        for module in imported {
            let below = module.first().map_or("lib", String::as_str);
            if place(above).unwrap() > place(below).unwrap_or(0) {
                wrong.push(format!("{}: {}", importer.join("::"), module.join("::")));
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
fn no_files_import_each_other_in_a_circle() {
    let mut imports = IMPORTS.clone();
    assert!(imports.len() > 100 && imports.values().map(BTreeSet::len).sum::<usize>() > 500);
    for (module, others) in &mut imports {
        // Files of a room use what the mod.rs above them define, and those use them.
        others.retain(|other| !module.starts_with(other));
    }
    let circles: Vec<String> = circles(&imports)
        .into_iter()
        .map(|circle| {
            let inside = |from: &Module| {
                let inside = imports[from].iter().filter(|to| circle.contains(to));
                let inside: Vec<String> = inside.map(|to| to.join("::")).collect();
                format!("{} -> {}", from.join("::"), inside.join(", "))
            };
            circle.iter().map(inside).collect::<Vec<_>>().join("\n")
        })
        .collect();
    assert!(circles.is_empty(), "\n{}", circles.join("\n\n"));
}

/// The documentation of a room, one line after the other.
fn documentation(room: &str) -> Vec<String> {
    let directory = source().join(room);
    let path = match directory.is_dir() {
        true => directory.join("mod.rs"),
        false => directory.with_extension("rs"),
    };
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn every_room_says_in_ten_lines_what_it_is() {
    for room in floors().into_iter().flatten() {
        let lines = documentation(&room).len();
        assert!((1..=10).contains(&lines), "{room}: {lines} lines");
    }
}

/// The first sentence of a room's documentation, as Markdown.
fn sentence(room: &str) -> String {
    let lines = documentation(room);
    let paragraph: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .take_while(|line| !line.is_empty())
        .collect();
    let text = paragraph.join(" ").replace("[`", "`").replace("`]", "`");
    match text.split_once(". ") {
        Some((sentence, _)) => format!("{sentence}."),
        None => text,
    }
}

#[test]
fn the_page_of_the_architecture_describes_each_room() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, list) = page.split_once("## The rooms of src").unwrap();
    let (list, _) = list.split_once("\n## ").unwrap();
    let items: Vec<String> = list
        .split("\n- ")
        .skip(1)
        .map(|item| item.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let rooms: Vec<String> = floors().into_iter().flatten().collect();
    for (index, room) in rooms.iter().enumerate() {
        let suffix = match source().join(room).is_dir() {
            true => "/",
            false => ".rs",
        };
        let wanted = format!("**`{room}{suffix}`** {}", sentence(room));
        let found = items.get(index).map_or("nothing", String::as_str);
        assert!(
            found.starts_with(&wanted),
            "item {index} of the rooms in docs/architecture.md should begin with:\n{wanted}\n\
             but it says:\n{found}"
        );
    }
    assert_eq!(items.len(), rooms.len(), "items of rooms that do not exist");
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

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[test]
fn lines_are_short_and_no_comment_is_doubled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = [files(&source()), files(&root.join("docs"))].concat();
    paths.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root.join(page)));
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let is_comment = line.trim_start().starts_with("//") && line.trim().len() > 3;
            let is_doubled = is_comment && lines.get(index + 1) == Some(line);
            if line.chars().count() > 100 || is_doubled {
                wrong.push(format!("{}:{}: {line}", path.display(), index + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
