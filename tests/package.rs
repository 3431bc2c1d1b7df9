//! What packages bring: manual pages, completions, and the layout of `make install`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Place, Terminal, run, tool, until};

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The output of `subuidless COMMAND... --help`.
fn help(place: &Place, command: &[String]) -> String {
    // Not --help, which is podman's own behind its name.
    run(place.subuidless(["help"]).args(command)).ok()
}

/// The commands that `help` lists.
fn listed(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let name = line.strip_prefix("  ")?;
            let is_name = !name.starts_with(' ') && !name.starts_with("help ");
            is_name.then(|| name.split(' ').next().unwrap().to_owned())
        });
    names.collect()
}

/// All commands that people are told of, with those below them, the program itself first.
fn commands(place: &Place) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut at = 0;
    while at < all.len() {
        for name in listed(&help(place, &all[at])) {
            all.push([all[at].clone(), vec![name]].concat());
        }
        at += 1;
    }
    assert!(
        all.contains(&vec!["owners".to_owned(), "ls".to_owned()]),
        "{all:?}"
    );
    assert!(all.contains(&vec!["install".to_owned()]), "{all:?}");
    all
}

/// The long options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let options = words.filter(|word| word.len() > 3 && word.starts_with("--"));
    options.map(str::to_owned).collect()
}

fn groff(page: &Path) -> String {
    let mut command = Command::new(tool("groff"));
    // -ww: all warnings. -P-c: no escape sequences, and so only overstrikes are left to take out.
    command
        .args(["-man", "-Tascii", "-ww", "-P-cbou", "-rHY=0", "-rLL=200n"])
        .arg(page);
    let rendered = run(&mut command);
    assert_eq!(rendered.stderr, "", "{}", page.display());
    rendered.ok()
}

#[test]
fn every_command_has_a_manual_page_with_all_its_options_that_groff_renders_without_a_warning() {
    let place = Place::new();
    let directory = place.path("home/man");
    run(place.as_user("mkdir").arg(&directory)).ok();
    run(place.subuidless(["man"]).arg(&directory)).ok();
    let mut pages = BTreeSet::new();
    for command in commands(&place) {
        let name = [vec!["subuidless".to_owned()], command.clone()]
            .concat()
            .join("-");
        let text = groff(&directory.join(format!("{name}.1")));
        let help = help(&place, &command);
        assert!(text.contains(&format!("{name} - ")), "{text}");
        let missing: Vec<_> = options(&help)
            .difference(&options(&text))
            .cloned()
            .collect();
        assert!(missing.is_empty(), "{name}: {missing:?}\n{text}");
        pages.insert(format!("{name}.1"));
    }
    let found = fs::read_dir(&directory).unwrap();
    let found = found.map(|page| page.unwrap().file_name().into_string().unwrap());
    assert_eq!(found.collect::<BTreeSet<_>>(), pages);
    let printed = run(&mut place.subuidless(["man"])).ok();
    let path = place.path("home/printed.1");
    fs::write(&path, printed).unwrap();
    assert!(groff(&path).contains("subuidless-run(1)"));
}

#[test]
fn completions_are_scripts_that_offer_every_command_and_no_hidden_one() {
    let place = Place::new();
    let names = listed(&help(&place, &[]));
    for shell in SHELLS {
        let script = run(&mut place.subuidless(["completions", shell])).ok();
        for name in &names {
            assert!(script.contains(name.as_str()), "{shell}: {name}");
        }
        for hidden in ["supervise", "check-step"] {
            assert!(!script.contains(hidden), "{shell}: {hidden}");
        }
    }
    let script = place.path("completions.bash");
    fs::write(
        &script,
        run(&mut place.subuidless(["completions", "bash"])).ok(),
    )
    .unwrap();
    let offers = |words: &str, at: usize| -> BTreeSet<String> {
        let asked = format!(
            "source \"$0\"; COMP_WORDS=({words} ''); COMP_CWORD={at}
             _subuidless_with_names subuidless '' \"${{COMP_WORDS[COMP_CWORD - 1]}}\"
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = place.as_user("bash");
        let offered = run(bash.args(["-euc", &asked]).arg(&script)).ok();
        offered.lines().map(str::to_owned).collect()
    };
    let offered = offers("subuidless", 1);
    assert!(
        names.iter().all(|name| offered.contains(name)),
        "{offered:?}"
    );
    assert!(offers("subuidless run", 2).contains("--keep-id"));
    assert!(offers("subuidless owners", 2).contains("export"));
    // The names of what runs.
    let mut named = place.subuidless(["run", "--name", "box", "--", "sleep", "1000000"]);
    let mut named = named.spawn().expect("a command with a name");
    let binary = place.binary().display().to_string();
    until("it has a name", || {
        offers(&format!("{binary} kill"), 2)
            .contains("box")
            .then_some(())
    });
    assert!(!offers(&format!("{binary} kill box"), 3).contains("box"));
    assert!(!offers(&format!("{binary} status"), 2).contains("box"));
    let path = format!(
        "{}:/usr/bin:/bin",
        place.binary().parent().unwrap().display()
    );
    let script_for = |shell: &str| {
        let script = place.path(&format!("completions.{shell}"));
        let text = run(&mut place.subuidless(["completions", shell])).ok();
        fs::write(&script, text).unwrap();
        script
    };
    let fish = script_for("fish");
    let asked = |words: &str| {
        let script = "source $argv[1]; complete -C $argv[2]";
        let mut fish_shell = place.as_user(tool("fish"));
        fish_shell.args(["--no-config", "-c", script]).arg(&fish);
        run(fish_shell.arg(words).env("PATH", &path)).ok()
    };
    assert!(asked("subuidless kill b").starts_with("box"));
    assert!(!asked("subuidless kill box ").contains("box"));
    assert!(!asked("subuidless status ").contains("box"));
    let mut zsh = Terminal::open(&place);
    zsh.enter(&format!("PATH={path} exec zsh -f"));
    zsh.enter("autoload -U compinit; compinit -u -D");
    zsh.enter(&format!(
        "source {}; echo rea''dy",
        script_for("zsh").display()
    ));
    zsh.see("ready");
    zsh.press("subuidless logs b\t");
    zsh.see("logs box");
    zsh.enter("");
    run(&mut place.subuidless(["kill", "box"])).ok();
    named.wait().expect("its end");
}

fn make(place: &Place, goal: &str, destination: &Path) -> Command {
    let mut command = Command::new(tool("make"));
    command
        .args(["-s", "-C", env!("CARGO_MANIFEST_DIR"), goal, "PREFIX=/usr"])
        .arg(format!("BINARY={}", place.binary().display()))
        .arg(format!("OUT={}", place.path("generated").display()))
        .arg(format!("DESTDIR={}", destination.display()));
    command
}

/// The paths of all that is no directory, from `top`.
fn files(top: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else {
                let path = entry.path();
                let path = Path::new("/").join(path.strip_prefix(top).unwrap());
                found.insert(path.into_os_string().into_string().unwrap());
            }
        }
    }
    found
}

/// What README.md promises, with the pages of all commands.
fn layout(place: &Place) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = [
        "bin/subuidless",
        "bin/subuidless-crun",
        "bin/subuidless-runc",
        "bin/fakeroot-subuidless",
        "lib/systemd/user/subuidless.socket",
        "lib/systemd/user/subuidless.service",
        "share/bash-completion/completions/subuidless",
        "share/zsh/site-functions/_subuidless",
        "share/fish/vendor_completions.d/subuidless.fish",
        "share/doc/subuidless/README.md",
        "share/doc/subuidless/CHANGELOG.md",
        "share/doc/subuidless/CONTRIBUTING.md",
        "share/doc/subuidless/LICENSE",
    ]
    .iter()
    .map(|name| format!("/usr/{name}"))
    .collect();
    for command in commands(place) {
        let name = [vec!["subuidless".to_owned()], command].concat().join("-");
        all.insert(format!("/usr/share/man/man1/{name}.1"));
    }
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for document in fs::read_dir(documents).unwrap() {
        let name = document.unwrap().file_name().into_string().unwrap();
        all.insert(format!("/usr/share/doc/subuidless/docs/{name}"));
    }
    all
}

#[test]
fn make_installs_what_it_lists_and_uninstalls_exactly_that() {
    let place = Place::new();
    let destination = place.path("destination");
    // Somebody else's.
    let other = destination.join("usr/share/man/man1/other.1");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(&other, "").unwrap();
    for _ in 0..2 {
        run(&mut make(&place, "install", &destination)).ok();
    }
    let layout = layout(&place);
    let mut found = files(&destination);
    assert!(found.remove("/usr/share/man/man1/other.1"));
    assert_eq!(found, layout);
    let listed = run(&mut make(&place, "list", &destination)).ok();
    assert_eq!(
        listed.lines().map(str::to_owned).collect::<BTreeSet<_>>(),
        layout
    );

    // Anywhere else it works as well: the links are relative.
    let mut front = place.as_user(destination.join("usr/bin/subuidless-crun"));
    let seen = run(front.arg("--version")).ok();
    assert!(seen.starts_with("crun version"), "{seen}");

    let unit = fs::read_to_string(destination.join("usr/lib/systemd/user/subuidless.service"));
    assert!(
        unit.unwrap()
            .contains("\nExecStart=/usr/bin/subuidless serve\n")
    );

    run(&mut make(&place, "uninstall", &destination)).ok();
    assert_eq!(
        files(&destination),
        BTreeSet::from(["/usr/share/man/man1/other.1".to_owned()])
    );
    assert!(!destination.join("usr/share/doc/subuidless").exists());
}

#[test]
fn make_installs_a_fakeroot_where_it_is_told_and_leaves_another_ones_alone() {
    let place = Place::new();
    let ours = place.path("ours");
    let told =
        |goal, destination: &Path| run(make(&place, goal, destination).arg("FAKEROOT=1")).ok();
    told("install", &ours);
    let layout = layout(&place);
    let more = ["/usr/bin/fakeroot", "/usr/share/man/man1/fakeroot.1"].map(str::to_owned);
    let expected: BTreeSet<_> = layout.into_iter().chain(more).collect();
    assert_eq!(files(&ours), expected);
    let listed = told("list", &ours);
    assert_eq!(
        listed.lines().map(str::to_owned).collect::<BTreeSet<_>>(),
        expected
    );
    let mut fakeroot = place.as_user(ours.join("usr/bin/fakeroot"));
    assert_eq!(run(fakeroot.args(["id", "-u"])).ok(), "0\n");
    run(&mut make(&place, "uninstall", &ours)).ok();
    assert_eq!(files(&ours), BTreeSet::new());

    let theirs = place.path("theirs");
    let path = theirs.join("usr/bin/fakeroot");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("fakeroot-sysv", &path).unwrap();
    run(&mut make(&place, "install", &theirs)).ok();
    run(&mut make(&place, "uninstall", &theirs)).ok();
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("fakeroot-sysv"));
}

#[test]
fn the_debian_package_is_an_alternative_for_fakeroot() {
    let place = Place::new();
    let top = place.path("top");
    run(&mut make(&place, "install", &top)).ok();
    for directory in ["etc/alternatives", "var/lib/dpkg/alternatives", "var/log"] {
        fs::create_dir_all(top.join(directory)).unwrap();
    }
    // Those of a package are compressed.
    let pages = top.join("usr/share/man/man1");
    fs::rename(
        pages.join("subuidless-fakeroot.1"),
        pages.join("subuidless-fakeroot.1.gz"),
    )
    .unwrap();
    fs::write(top.join("usr/bin/fakeroot-sysv"), "").unwrap();
    let root = |program: &str, words: &[&str]| {
        let mut command = place.as_root(program);
        run(command.args(words).env("DPKG_ROOT", &top)).ok();
    };
    let script = |name: &str, word: &str| {
        let path = format!("{}/dist/debian/{name}", env!("CARGO_MANIFEST_DIR"));
        root("sh", &["-eu", &path, word]);
    };
    let chosen = || fs::read_link(top.join("etc/alternatives/fakeroot")).ok();
    script("postinst", "configure");
    assert_eq!(chosen().unwrap(), Path::new("/usr/bin/fakeroot-subuidless"));
    assert!(top.join("usr/share/man/man1/fakeroot.1.gz").is_symlink());
    let (link, real) = ("/usr/bin/fakeroot", "/usr/bin/fakeroot-sysv");
    root(
        "update-alternatives",
        &["--install", link, "fakeroot", real, "50"],
    );
    assert_eq!(chosen().unwrap(), Path::new(real));
    script("prerm", "upgrade");
    root("update-alternatives", &["--remove", "fakeroot", real]);
    assert_eq!(chosen().unwrap(), Path::new("/usr/bin/fakeroot-subuidless"));
    script("prerm", "remove");
    assert_eq!(chosen(), None);
    assert!(!top.join("usr/bin/fakeroot").is_symlink());
}

/// What cargo-deb packs is what `make install` has made: every file is taken by one of its
/// patterns.
#[test]
fn the_debian_package_takes_all_of_the_layout() {
    let place = Place::new();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let (_, assets) = manifest.split_once("\nassets = [\n").unwrap();
    let (assets, _) = assets.split_once("\n]").unwrap();
    let patterns = assets.lines().map(|line| line.split('"').nth(1).unwrap());
    let patterns: Vec<&str> = patterns
        .map(|pattern| pattern.strip_prefix("target/deb").unwrap())
        .collect();
    let takes = |pattern: &str, path: &str| {
        let (directory, name) = pattern.rsplit_once('/').unwrap();
        let (parent, file) = path.rsplit_once('/').unwrap();
        directory == parent && file.ends_with(name.strip_prefix('*').unwrap())
    };
    let layout = layout(&place);
    let left: Vec<&String> = layout
        .iter()
        .filter(|path| !patterns.iter().any(|pattern| takes(pattern, path)))
        .collect();
    // Debian has that in `copyright`.
    assert_eq!(left, ["/usr/share/doc/subuidless/LICENSE"]);
    for pattern in &patterns {
        assert!(layout.iter().any(|path| takes(pattern, path)), "{pattern}");
    }
}
