//! `subuidless fakeroot` beside the real one: the same packages, archives and images, options and
//! exit codes; save files, both ways.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use common::command::{is_left_alone, launch};
use common::{Place, Ran, assert_same_lines, run, tool, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const TREE: &str = include_str!("fakeroot/tree.sh");

/// The `fakeroot`s, each in a directory of its own.
struct Both {
    place: Place,
    real: PathBuf,
    ours: PathBuf,
}

impl Both {
    fn new() -> Self {
        let place = Place::new();
        let [real, ours] = ["real", "ours"].map(|name| place.path(name));
        for directory in [&real, &ours] {
            fs::create_dir(directory).unwrap();
        }
        // Its usual name may be ours, see `make install`.
        symlink(tool("fakeroot-sysv"), real.join("fakeroot")).unwrap();
        symlink(place.binary(), ours.join("fakeroot")).unwrap();
        fs::write(place.path("tree.sh"), TREE).unwrap();
        Self { place, real, ours }
    }

    fn each(&self) -> [&Path; 2] {
        [&self.real, &self.ours]
    }

    /// A shell script by the user in her home, with the `fakeroot` of this directory.
    fn sh(&self, of: &Path, script: &str) -> Command {
        let mut command = self.place.as_user("bash");
        let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", of.display());
        command
            .args(["-euc", script])
            .env("PATH", path)
            .env("SHELL", "/bin/sh")
            .env("TREE", self.place.path("tree.sh"));
        command
    }

    /// The files that `script` leaves in `out`, with each of them, in a directory of the same path.
    fn outputs(&self, script: &str) -> [BTreeMap<PathBuf, Vec<u8>>; 2] {
        self.each().map(|of| {
            let script = format!("mkdir work; cd work\n{script}");
            run(&mut self.sh(of, &script)).ok();
            let work = self.place.path("home/work");
            let mut found = BTreeMap::new();
            collect(&work.join("out"), &mut found);
            fs::remove_dir_all(&work).unwrap();
            found
        })
    }
}

fn collect(directory: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, found),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
}

#[track_caller]
fn assert_same(outputs: &[BTreeMap<PathBuf, Vec<u8>>; 2], at_least: usize) {
    let [real, ours] = outputs;
    assert!(real.len() >= at_least, "{:?}", real.keys());
    assert!(real.keys().eq(ours.keys()), "{:?}", ours.keys());
    for (path, expected) in real {
        let (path, found) = (path.display(), &ours[path]);
        assert!(!expected.is_empty(), "{path} is empty");
        if expected.is_ascii() {
            assert_same_lines(expected, found);
        }
        assert!(expected == found, "{path} differs");
    }
}

#[test]
fn archives_and_images_are_those_of_the_real_one() {
    let both = Both::new();
    let script = both.place.path("images.sh");
    fs::write(&script, include_str!("fakeroot/images.sh")).unwrap();
    let script = format!("fakeroot bash -eu {}", script.display());
    let outputs = both.outputs(&script);
    assert_same(&outputs, 9);
    let listing = &outputs[0][&both.place.path("home/work/out/found")];
    let listing = String::from_utf8_lossy(listing);
    for line in [
        "-rwsr-xr-x 1 0:0 root:root ",
        "brw-rw---- 1 0:6 root:disk ",
        "-rw-r--r-- 2 0:0 root:root ",
    ] {
        assert!(listing.contains(line), "{line}: {listing}");
    }
}

#[test]
fn packages_are_those_of_the_real_one() {
    let both = Both::new();
    assert_same(&both.outputs(include_str!("fakeroot/packages.sh")), 7);
}

#[test]
fn files_of_others_show_root_in_every_program() {
    let both = Both::new();
    let script = "
        paths='/ /etc /etc/passwd /etc/shadow /usr/bin/passwd /dev/null /etc/os-release /usr/bin/env'
        stat -c '%n %u:%g %a' $paths; find $paths -prune -printf '%p %U:%G\\n'
        show() { ls -lnd $1 | awk '{ print $1, $3, $4, $9 }'; }
        for path in $paths; do show $path; test -O $path && test -G $path && echo own; done
        stat -L -c '%u:%g' /etc/os-release /dev/stdin </etc/passwd
        cp -a /usr/bin/env copy; show copy; tar -c /etc/hostname 2>/dev/null | tar tvf -
        cd work; show f; chown 5 f; show f; chgrp 65534 f; show f; chown 65534:0 f; show f
        touch new; show new; rm new; chown 0:0 f";
    let work = both.place.path("home/work");
    fs::create_dir(&work).unwrap();
    let file = work.join("f");
    fs::write(&file, "").unwrap();
    // A group of hers that the user namespace does not map; a directory that hands it down.
    both.place.give_to_user(&work);
    both.place.give_to_user(&file);
    for path in [&work, &file] {
        nix::unistd::chown(path, None, Some(100.into())).unwrap();
    }
    common::set_mode(&work, 0o2775);
    let quoted = format!("fakeroot bash -euc {}", quote(script));
    let expected = run(&mut both.sh(&both.real, &quoted)).ok();
    assert!(expected.contains("/etc/shadow 0:0 640\n"), "{expected}");
    let other = |words: &[&str]| {
        let mut command = launch(&both.place, &["--others", "root"]);
        run(command.args(words).env("SHELL", "/bin/sh")).ok()
    };
    for words in [&["--"][..], &["--no-fast", "--"], &["--pid", "--"]] {
        let found = other(&[words, &["bash", "-euc", script]].concat());
        assert_same_lines(expected.as_bytes(), found.as_bytes());
    }
    // A static program; and permissions follow what is shown, though not into the kernel.
    let script = "busybox stat -c %u:%g /etc/passwd /etc/shadow /proc/1 /proc/sys .
        setpriv --reuid 33 --regid 33 --clear-groups sh -c 'test -r /etc/passwd && echo read
            test -r /etc/shadow || echo not; test -O /etc/passwd || echo foreign'
        chown 0:0 /etc/passwd 2>/dev/null || echo refused; cat /etc/shadow 2>/dev/null || echo kept";
    let root = "0:0\n0:0\n0:0\n0:0\n0:0\nread\nnot\nforeign\nrefused\nkept\n";
    assert_eq!(other(&["--", "sh", "-euc", script]), root);
    let nobody = root.replacen(
        "0:0\n0:0\n0:0\n",
        "65534:65534\n65534:65534\n65534:65534\n",
        1,
    );
    let mut usual = launch(
        &both.place,
        &["--others", "nobody", "--", "sh", "-euc", script],
    );
    assert_eq!(run(&mut usual).ok(), nobody);
    let refused = run(&mut launch(
        &both.place,
        &["--others", "root", "--keep-id", "--", "true"],
    ));
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

fn quote(script: &str) -> String {
    format!("'{}'", script.replace('\'', r"'\''"))
}

#[test]
fn options_and_exit_codes_are_those_of_the_real_one() {
    let both = Both::new();
    let script = r#"
        try() { "$@" >out 2>err </dev/null; echo "$*: $?"; cat out; }
        set +e
        try fakeroot true; try fakeroot false; try fakeroot -- sh -c 'exit 42'
        try fakeroot no-such-command; try fakeroot /etc/passwd; try fakeroot -- -x
        try fakeroot --no-such-option; try fakeroot -s
        try fakeroot echo -s file -u; try fakeroot -- echo --; try fakeroot echo '' 'a b'
        try fakeroot id -u; try fakeroot -b 20 id -g; try fakeroot --fd-base=20 id -un
        try fakeroot sh -c 'kill -TERM $$'; try fakeroot -s saved sh -c 'kill -KILL $$'
        try fakeroot -s saved sh -c 'exit 3'; try fakeroot -s saved no-such-command
        try fakeroot -i missing echo ran; grep missing err
        try fakeroot sh -c 'test -n "$FAKEROOTKEY" && echo set'
        FAKEROOTKEY=5 try fakeroot true; cat err
        try fakeroot sh -c 'fakeroot true' ; sed 's/to .*/to/' err
        echo 'id -u; echo "shell $0"' | fakeroot
        echo 'id -u; exit 4' | fakeroot --; echo $?
        SHELL= fakeroot <<<'echo "no SHELL"'
        # A make that hands down its jobs.
        fakeroot -s saved cat <&3 3<<<'descriptor' 2>&1; fakeroot -s saved sh -c 'cat <&4' 4<<<four
    "#;
    let [expected, found] = both.each().map(|of| run(&mut both.sh(of, script)).ok());
    assert!(expected.contains("nested operation not yet supported\n"));
    assert_same_lines(expected.as_bytes(), found.as_bytes());
    // Where it is not as the real one.
    let ours = |words: &str| run(&mut both.sh(&both.ours, words));
    assert!(
        ours("fakeroot -v")
            .ok()
            .starts_with("fakeroot (subuidless) ")
    );
    assert!(ours("fakeroot -h").ok().contains("-i <FILE>"));
    let unknown = ours("fakeroot -u true");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("-u is not possible"), "{unknown:?}");
    ours("fakeroot -l x --faked y --lib=z true").ok();
    let named = ours("exec -a /x/fakeroot-subuidless ../subuidless id -u").ok();
    assert_eq!(named, "0\n");
    assert_eq!(ours("../subuidless fakeroot -- id -u").ok(), "0\n");
    // Owners are emulated there already.
    let script = r#"'echo "$FAKEROOTKEY"; touch n; chown 5 n; stat -c %u n'"#;
    let inside = ours(&format!("../subuidless run -- fakeroot sh -c {script}"));
    assert!(inside.stderr.contains("files of other users"), "{inside:?}");
    inside.ok_with("subuidless\n5\n");
    let inside = ours(&format!(
        "../subuidless run --others root -- fakeroot sh -c {script}"
    ));
    assert_eq!(inside.stderr, "");
    inside.ok_with("subuidless\n5\n");
    let refused = ours("../subuidless run -- fakeroot -s saved true").error();
    assert!(
        refused.contains("not possible within subuidless"),
        "{refused}"
    );
    is_left_alone(&both.place);
}

/// All that a save file has of the files in the working directory.
const LIST: &str =
    "find tree | sort | while read -r f; do stat -c '%n %F %h %u:%g %a %t:%T' \"$f\"; done";

#[test]
fn save_files_go_both_ways() {
    let both = Both::new();
    fs::write(both.place.path("list"), LIST).unwrap();
    let make = "mkdir -p tree/d/e outside; cd tree; touch f plain gone d/moved d/e/f renamed
        chown 100000:4294967294 f; chmod 4755 f; ln f hard; chown 3 gone; rm gone
        chown 7:8 d; chmod 2711 d; ln -s x link; chown -h 5:6 link; chgrp 9 d/e/f
        mkfifo p; chown 9:10 p; mknod null c 1 3; chown 1:5 null; mknod d/e/disk b 259 1048575
        chown 11:12 renamed; mv renamed now; chown 13:14 ../outside; touch ../outside/f
        chown 15:16 ../outside/f; mv ../outside here; chown 17 here/f; ln d/moved again; chown 4 again";
    fs::write(both.place.path("make"), make).unwrap();
    let list = |of: &Path, options: &str| {
        run(&mut both.sh(of, &format!("fakeroot {options} bash -eu ../list"))).ok()
    };
    for (from, other) in [(&both.real, &both.ours), (&both.ours, &both.real)] {
        run(&mut both.sh(from, "fakeroot -s saved -- bash -eu ../make")).ok();
        let expected = list(from, "-i saved");
        assert!(
            expected.contains("tree/d/e/disk block special file 1 0:0 644 103:fffff\n"),
            "{expected}"
        );
        assert!(
            expected.contains("tree/here directory 2 13:14 755 0:0\n"),
            "{expected}"
        );
        let found = list(other, "-i saved -s again");
        assert_same_lines(expected.as_bytes(), found.as_bytes());
        // What the second one has saved, with a change.
        let script = "fakeroot -i again -s third -- sh -c 'chown 21:22 tree/plain; rm tree/now'";
        run(&mut both.sh(other, script)).ok();
        let expected = list(other, "-i third");
        assert!(expected.contains("tree/plain regular empty file 1 21:22 644 0:0\n"));
        let found = list(from, "-i third");
        assert_same_lines(expected.as_bytes(), found.as_bytes());
        fs::remove_dir_all(both.place.path("home/tree")).unwrap();
    }
    is_left_alone(&both.place);
}

#[test]
fn what_is_saved_is_complete_or_the_failure_is_told() {
    let both = Both::new();
    let ours = |script: &str| run(&mut both.sh(&both.ours, script));
    // Below another root directory, too, and by users, and from another place than before.
    ours("mkdir -p root/bin root/tmp other; cp /bin/busybox root/bin/sh; touch other/f
        fakeroot -s saved chroot root sh -c 'cd tmp; echo x >f; chown 5:6 f; mkdir -m 777 w; mv f w/g'
        grep -c . saved; cp saved older
        fakeroot -i saved -s saved sh -c 'chown 7 other/f; setpriv --reuid 33 --clear-groups touch root/tmp/w/new'
        cut -d , -f 3-6 saved | sort")
    .ok_with("1\nmode=100644,uid=33,gid=0,nlink=1\nmode=100644,uid=5,gid=6,nlink=1\nmode=100644,uid=7,gid=0,nlink=1\n");
    let elsewhere = ours("cd other; fakeroot -i ../older -s ../kept true; cmp ../older ../kept");
    assert!(
        elsewhere
            .stderr
            .contains("fakeroot: ../older names files (1) that are not below the working"),
        "{elsewhere:?}"
    );
    elsewhere.ok();
    // Nothing of it is among the files meanwhile.
    ours("mkdir empty; cd empty; fakeroot -s saved ls -A; ls -A").ok_with("saved\n");
    // Where it was is no more: the command's own failure counts, then this one.
    for (command, code) in [("rmdir gone", 1), ("rmdir gone; exit 7", 7)] {
        let ran = ours(&format!(
            "mkdir gone; fakeroot -s gone/saved sh -c '{command}'"
        ));
        assert_eq!(ran.status.code(), Some(code), "{ran:?}");
        assert!(ran.stderr.contains("gone/saved: No such file"), "{ran:?}");
    }
    // The command gets a signal, and what it did until then is saved.
    let script = "exec fakeroot -s saved -- sh -c 'touch s; chown 9 s; trap \"exit 9\" TERM
        touch ready; while :; do sleep 0.01; done'";
    let mut child = both
        .sh(&both.ours, script)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    until("the command runs", || {
        both.place.path("home/ready").exists().then_some(())
    });
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let status: ExitStatus = child.wait().unwrap();
    assert_eq!(status.code(), Some(9));
    ours("cut -d , -f 4 saved").ok_with("uid=9\n");
    // A path that the kernel cannot name. Through a pipe: its end is that of the log.
    let deep = ours(
        "name=$(printf %0250d 0)
        for i in $(seq 20); do mkdir $name; cd -P ./$name 2>/dev/null || cd ./$name; done; touch f
        fakeroot -s ~/deep -- chown 5 f 2>&1 | cat >&2",
    );
    assert!(
        deep.stderr.contains("Input/output error") && deep.stderr.contains("cannot note"),
        "{deep:?}"
    );
    let wrong = ours("echo dev=x >wrong; fakeroot -i wrong touch no").error();
    assert!(wrong.contains("wrong: line 1 is not one that"), "{wrong}");
    let wrong = ours("fakeroot -s /no/such/file touch no").error();
    assert!(wrong.contains("/no/such/file: No such file"), "{wrong}");
    ours("test ! -e no; cut -d , -f 4 saved").ok_with("uid=9\n");
    is_left_alone(&both.place);
}

#[test]
fn what_a_killed_fakeroot_leaves_goes_when_the_next_one_saves() {
    let both = Both::new();
    let room = both.place.path("run/subuidless");
    let notes = || -> Vec<String> {
        let entries = fs::read_dir(&room).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("notes-")).collect()
    };
    let start = |name: &str| {
        let script = format!(
            "exec fakeroot -s {name} -- sh -c 'touch {name}.f; chown 9 {name}.f; touch {name}.ready
                until test -e {name}.go; do sleep 0.01; done'"
        );
        let mut command = both.sh(&both.ours, &script);
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let ready = both.place.path(&format!("home/{name}.ready"));
        until("the command runs", || ready.exists().then_some(()));
        child
    };
    let mut killed = start("a");
    let left = notes();
    assert_eq!(left.len(), 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    // Its command runs, and another fakeroot, whose files are needed.
    let mut other = start("b");
    assert!(notes().contains(&left[0]) && notes().len() == 2);
    run(&mut both.sh(&both.ours, "touch a.go")).ok();
    until("the next one removes it", || {
        run(&mut both.sh(&both.ours, "fakeroot -s c true")).ok();
        (!notes().contains(&left[0])).then_some(())
    });
    run(&mut both.sh(&both.ours, "touch b.go")).ok();
    assert!(other.wait().unwrap().success());
    run(&mut both.sh(&both.ours, "cut -d , -f 4 b")).ok_with("uid=9\n");
    assert_eq!(notes(), [""; 0]);
    is_left_alone(&both.place);
}

trait OkWith {
    fn ok_with(self, expected: &str);
}

impl OkWith for Ran {
    #[track_caller]
    fn ok_with(self, expected: &str) {
        assert_eq!(self.ok(), expected);
    }
}
