//! The commands of README.md and docs/ do what these pages say: each page's `sh` blocks are run in
//! order, in one shell, by the unprivileged user.
//!
//! A block of commands that cannot run here is `sh no-test: REASON`; what is not to be typed has
//! another language. A command whose output matters ends in `# prints WORDS`: all that it prints,
//! with single spaces for white space.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "docs/pages.rs"]
mod pages;
#[path = "docs/prepare.rs"]
mod prepare;

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::{Place, SAID, Terminal, run, set_mode};
use pages::{Command, Page};
use prepare::{Ended, Needs};

macro_rules! pages {
    ($($test:ident: $path:literal, $needs:ident;)*) => {
        /// The pages with commands that can run here.
        const RUN: &[&str] = &[$($path),*];

        $(#[test]
        fn $test() {
            follow(&Page::read($path), Needs::$needs);
        })*
    };
}

pages! {
    the_readme_does_what_it_says: "README.md", Podman;
    the_page_on_run_does_what_it_says: "docs/run.md", Files;
    the_page_on_the_daemon_does_what_it_says: "docs/daemon.md", Files;
    the_page_on_ci_does_what_it_says: "docs/ci.md", Podman;
    the_page_on_hpc_does_what_it_says: "docs/hpc.md", Job;
    the_page_on_kubernetes_does_what_it_says: "docs/kubernetes.md", Files;
    the_page_on_migrating_does_what_it_says: "docs/migrating.md", Files;
    the_page_on_docker_does_what_it_says: "docs/docker.md", Image;
    the_page_on_podman_does_what_it_says: "docs/podman.md", Podman;
}

/// Those that tests/images.rs runs.
const ELSEWHERE: &str = "docs/images.md";

/// What podman has to print comes without fail.
const PODMAN: &str = r#"podman() {
    case " $* " in
    *" run --rm "*) said env podman "$@" ;;
    *) command podman "$@" ;;
    esac
}
subuidless() {
    case " $* " in
    " podman "*" run --rm "*) said env subuidless "$@" ;;
    *) command subuidless "$@" ;;
    esac
}"#;

/// The session of a page: every command has a file for its output and one for its errors.
fn script(commands: &[Command]) -> String {
    let mut script = format!("set -eu\n{SAID}\n{PODMAN}\n");
    for (number, command) in commands.iter().enumerate() {
        let text = &command.text;
        writeln!(
            script,
            "{{\n{text}\n}} >\"$OUTPUTS/{number}\" 2>\"$OUTPUTS/{number}.errors\""
        )
        .unwrap();
    }
    script
}

fn follow(page: &Page, needs: Needs) {
    let place = Place::new();
    let _one_at_a_time = (needs == Needs::Podman).then(common::lock);
    let _ended = Ended(&place);
    prepare::inputs(&place, needs);
    let outputs = place.path("outputs");
    fs::create_dir(&outputs).unwrap();
    set_mode(&outputs, 0o755);
    place.give_to_user(&outputs);
    let commands = page.commands();
    assert!(!commands.is_empty(), "{}: no command to run", page.path);
    let mut shell = prepare::shell(&place, needs);
    shell.args(["-c", &script(&commands)]);
    let ran = run(shell.env("OUTPUTS", &outputs));
    let told = |number: usize, what: &str| {
        let path = outputs.join(format!("{number}{what}"));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    };
    if !ran.status.success() {
        let reached = (0..commands.len()).rfind(|number| outputs.join(number.to_string()).exists());
        let Some(last) = reached else {
            panic!("{}: {}: {}", page.path, ran.status, ran.stderr);
        };
        let Command { line, text, .. } = &commands[last];
        let (printed, said) = (told(last, ""), told(last, ".errors"));
        panic!(
            "{}:{line}: {}\n{text}\nprinted: {printed}\nsaid: {said}{}",
            page.path, ran.status, ran.stderr
        );
    }
    for (number, command) in commands.iter().enumerate() {
        let Some(expected) = &command.prints else {
            continue;
        };
        let printed = told(number, "");
        let words: Vec<&str> = printed.split_whitespace().collect();
        let (line, said) = (command.line, told(number, ".errors"));
        assert_eq!(
            &words.join(" "),
            expected,
            "{}:{line}: {}\nsaid: {said}",
            page.path,
            command.text
        );
    }
}

#[test]
fn the_session_of_the_readme_is_what_a_terminal_shows() {
    let page = include_str!("../README.md");
    let session = page.split("```text\n").nth(1).unwrap();
    let session = session.split("```").next().unwrap();
    let place = Place::new();
    place.front("crun");
    let mut terminal = Terminal::open(&place);
    terminal.enter(&format!(
        "PATH={}:$PATH; echo rea''dy",
        place.path("").display()
    ));
    terminal.see("ready");
    for line in session.lines() {
        match line.split_once(' ') {
            Some(("$" | "#", typed)) => terminal.enter(typed),
            // Words of a table, one of which is the time.
            _ => line
                .split(" Nov 26 10:00 ")
                .for_each(|text| terminal.see(text)),
        }
    }
    terminal.enter("exit");
}

/// README.md and all of docs/.
fn all() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec!["README.md".to_owned()];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

#[test]
fn every_block_says_what_it_is_and_every_page_with_commands_is_followed() {
    let mut with_commands = BTreeSet::new();
    let mut wrong = String::new();
    for page in all() {
        wrong += &page.mistakes();
        if !page.commands().is_empty() && page.path != ELSEWHERE {
            with_commands.insert(page.path.clone());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let followed: BTreeSet<String> = RUN.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(with_commands, followed);
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in all() {
        for target in page.links() {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let to = match path {
                "" => page.path.clone(),
                _ => {
                    let directory = Path::new(&page.path).parent().unwrap();
                    directory.join(path).to_str().unwrap().to_owned()
                }
            };
            seen += 1;
            let found = root.join(&to).exists()
                && (anchor.is_empty() || Page::read(&to).anchors().iter().any(|a| a == anchor));
            if !found {
                wrong.push(format!("{}: {target}", page.path));
            }
        }
    }
    assert!(seen > 0 && wrong.is_empty(), "{wrong:#?}");
}
