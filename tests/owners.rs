//! `subuidless owners ls`, `set`, `export`, `import`: owners from outside of containers.

mod common;

use std::fs;
use std::io::Write as _;

use common::{Bundle, Daemon, Place, assert_same_lines, owners, run, sh};

/// Everything that can be seen of the files of the working directory, in a Debian.
const WHOLE_LISTING: &str = "find . -print0 | LC_ALL=C sort -z | while IFS= read -rd '' f; do
    printf '%q ' \"$f\"; stat -c '%F %u:%g %a %h %t:%T' \"$f\"
    [ -L \"$f\" ] || [ ! -f \"$f\" -a ! -d \"$f\" ] || getfacl -cn \"$f\"
    getfattr -h -d -m - -e hex \"$f\" | { grep -v '^# file' || true; }
    getcap \"$f\" | grep -o ' cap.*' || true
    done";

#[test]
fn a_copy_gets_back_what_it_has_lost() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::debian(&place, &daemon);
    let bash = |bundle: &Bundle, script: &str| bundle.run(&["/bin/bash", "-euc", script]).ok();
    bash(
        &bundle,
        "mkdir /work; cd /work; touch f; chown 100000:4294967294 f; chmod 6755 f; ln f hard
        mkdir -p d/e; chown 7:70000 d; chmod 3711 d
        ln -s nowhere link; chown -h 65537:8 link; mkfifo p; chown 9:10 p; chmod 622 p
        mknod null c 1 3; chown 1:5 null; chmod 666 null; mknod d/disk b 259 1048575
        mknod white c 0 0; chown 3:3 white
        python=$'\\xff\\n\\\\x41 \\e'; touch \"$python\"; chown 11:12 \"$python\"; touch plain
        chmod 400 plain
        touch listed; chown 5:6 listed; setfacl -m u:999:rwx,g:70000:r-x,u:0:r listed
        chmod 640 listed; setfacl -d -m u:123456:rwx d
        setfattr -n trusted.overlay.opaque -v y d; setfattr -n security.label -v 0x00ff plain
        setfacl -m u:0:rw p
        touch cap; setcap cap_net_raw+ep cap; chown 0:4 d/e",
    );
    let work = bundle.rootfs().join("work");
    let listing = bash(&bundle, &format!("cd /work; {WHOLE_LISTING}"));
    assert!(listing.contains("user:999:rwx") && listing.contains("cap_net_raw=ep"));
    assert!(
        listing.contains("symbolic link 65537:8 777 1 0:0"),
        "{listing}"
    );
    assert!(listing.contains("block special file 0:70000 644 1 103:fffff"));
    daemon.terminate();
    let work = work.to_str().expect("UTF-8");
    owners(&place, ["export", work, "-o", "all.json"]).ok();
    // The second one loses attributes and sockets, too.
    for (n, copy) in [
        "cp -a $work copy0",
        "mkdir copy1; tar -C $work -c . | tar -C copy1 -xp",
    ]
    .iter()
    .enumerate()
    {
        let copy = copy.replace("$work", work);
        sh(&place, &format!("{copy} 2>/dev/null")).ok();
        let directory = place.path(&format!("home/copy{n}"));
        let see = || {
            let daemon = Daemon::start(&place);
            let mounted =
                Bundle::debian(&place, &daemon).with_mount(&directory, "/work", &["bind"]);
            let seen = bash(&mounted, &format!("cd /work; {WHOLE_LISTING}"));
            daemon.terminate();
            seen
        };
        assert_ne!(see(), listing);
        let name = directory.to_str().expect("UTF-8");
        let import = || owners(&place, ["import", name, "-i", "all.json"]);
        let imported = import();
        assert_eq!(imported.stderr, "");
        imported.ok();
        // What lies in memory does not outlive a boot.
        fs::remove_dir_all(place.runtime_directory().join("subuidless-recent")).expect("memory");
        assert_same_lines(listing.as_bytes(), see().as_bytes());
        let times = || sh(&place, &format!("find {name} -printf '%C@ %p\\0'")).bytes();
        let before = times();
        import().ok();
        assert!(
            before == times(),
            "a second import changes nothing, not even times"
        );
        let again = owners(&place, ["export", name]).bytes();
        let first = fs::read(place.path("home/all.json")).expect("the export");
        assert_same_lines(&first, &again);
    }
}

#[test]
fn what_is_set_from_outside_a_running_container_sees() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let container = bundle.start(&["/bin/sleep", "1000"]);
    container.sh(
        "cd /work; mkdir -p d/e; touch d/f; chmod 4755 d/f; ln -s d/f link; touch closed
        chmod 0 closed",
    );
    let seen = "cd /work; stat -c '%n %u:%g %a' d d/f d/e link closed";
    assert!(
        container
            .sh(seen)
            .lines()
            .all(|line| line.contains(" 0:0 "))
    );
    let work = bundle.rootfs().join("work");
    let set = |arguments: &[&str]| {
        let mut command = place.subuidless(["owners", "set"]);
        run(command.args(arguments).current_dir(&work))
    };
    set(&["-h", "70001:8", "link"]).ok();
    set(&["5:6", "link", "closed"]).ok();
    assert_eq!(
        container.sh(seen),
        "d 0:0 755\nd/f 5:6 755\nd/e 0:0 755\nlink 70001:8 777\nclosed 5:6 0\n"
    );
    set(&["-R", ":9", "d"]).ok();
    set(&["0", "d/f"]).ok();
    let device = set(&["--device", "c:5:1", "1:5", "console"]);
    device.ok();
    assert_eq!(
        container.sh(&format!("{seen} console; stat -c '%F %t:%T' console")),
        "d 0:9 755\nd/f 0:9 755\nd/e 0:9 755\nlink 70001:8 777\nclosed 5:6 0\nconsole 1:5 644\ncharacter special file 5:1\n"
    );
    let mut list = place.subuidless(["owners", "ls", "d", "link", "console", "closed"]);
    let listed = run(list.current_dir(&work)).ok();
    let shown: Vec<String> = listed
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
        .map(|line| line.replace("4096 ", ""))
        .collect();
    assert_eq!(
        shown,
        [
            "drwxr-xr-x 3 0 9 d",
            "drwxr-xr-x 2 0 9 d/e",
            "-rwxr-xr-x 1 0 9 0 d/f",
            "lrwxrwxrwx 1 70001 8 3 link -> d/f",
            "crw-r--r-- 1 1 5 5, 1 console",
            "---------- 1 5 6 0 closed",
        ]
    );
    let wrong = set(&["5:6", "missing", "link", "/etc/passwd"]).error();
    assert!(wrong.contains("missing: No such file"), "{wrong}");
    assert!(
        wrong.contains("/etc/passwd: belongs to another user"),
        "{wrong}"
    );
    assert!(wrong.ends_with(
        "subuidless: 2 of the files could not be processed, as reported above; the rest is done\n"
    ));
    assert!(
        set(&["--device", "c:1:1", "0:0", "d"])
            .error()
            .contains("d: is a directory, not a character device")
    );
    let wrong = set(&["no-such-user", "d"]).error();
    assert!(wrong.contains("no-such-user"), "{wrong}");
    container.stop();
}

#[test]
fn hostile_lines_do_no_harm_and_are_named() {
    let place = Place::new();
    sh(
        &place,
        "mkdir tree outside; touch tree/f tree/last outside/f; ln -s ../outside tree/out
        ln -s /etc/passwd tree/abs; mkfifo tree/p",
    )
    .ok();
    let head = "{\"format\":\"subuidless-owners\",\"version\":1}\n";
    let lines = [
        (
            "{\"path\":\"../outside/f\",\"uid\":5}",
            "could lead out of DIR",
        ),
        ("{\"path\":\"/etc/passwd\",\"uid\":5}", "is absolute"),
        (
            "{\"path\":\"out/f\",\"uid\":5}",
            "out/f: its path contains a symbolic link",
        ),
        (
            "{\"path\":\"abs/x\",\"uid\":5}",
            "abs/x: its path contains a symbolic link",
        ),
        ("{\"path\":\"f\\u0000\",\"uid\":5}", "NUL"),
        ("{\"path\":\"\",\"uid\":5}", "is not a path"),
        ("{\"path\":\"missing\",\"uid\":5}", "missing: is missing"),
        (
            "{\"path\":\"p\",\"type\":\"file\",\"uid\":5}",
            "p: is a fifo, not a regular file",
        ),
        (
            "{\"path\":\"f\",\"type\":\"char\",\"device\":[1,3]}",
            "f: is a regular file, not a character device",
        ),
        (
            "{\"path\":\"new\",\"type\":\"char\"}",
            "new: the entry of a device has no device number",
        ),
        (
            "{\"path\":\"f\",\"attributes\":{\"user.rootlesscontainers\":\"00\"}}",
            "Invalid argument",
        ),
        (
            "{\"path\":\"f\",\"attributes\":{\"user.containers.override_stat\":\"00\"}}",
            "Invalid argument",
        ),
        (
            "{\"path\":\"f\",\"attributes\":{\"system.posix_acl_access\":\"00\"}}",
            "Invalid argument",
        ),
        (
            "{\"path\":\"p\",\"attributes\":{\"user.x\":\"00\"}}",
            "Invalid argument",
        ),
        ("{\"path\":\"f\",\"uid\":\"root\"}", "invalid type"),
        ("{\"path\":\"f\",\"owner\":5}", "unknown field `owner`"),
        ("{\"path\":\"f\"", "column"),
        ("\u{0}\u{1}", "is not a JSON object"),
    ];
    let mut file = fs::File::create(place.path("home/hostile")).expect("a file");
    file.write_all(head.as_bytes()).expect("writing");
    for (line, _) in lines {
        writeln!(file, "{line}").expect("writing");
    }
    let huge = vec![b'a'; 5 << 20];
    let deep = "x/".repeat(100_000);
    for line in [
        &b"{\"path\":\""[..],
        &huge,
        b"\"}\n{\"path\":\"",
        deep.as_bytes(),
        b"y\"}\n",
    ] {
        file.write_all(line).expect("writing");
    }
    writeln!(file, "{{\"path\":\"last\",\"uid\":5}}").expect("writing");
    let told = owners(&place, ["import", "tree", "-i", "hostile"]).error();
    let mut told = told.lines();
    for (number, (line, reason)) in lines.iter().enumerate() {
        let told = told.next().unwrap_or_default();
        let start = format!("subuidless: line {}: ", number + 2);
        assert!(
            told.starts_with(&start) && told.contains(reason),
            "{line}: {told}"
        );
    }
    let rest: Vec<&str> = told.collect();
    assert!(rest[0].contains("longer than 4 MiB"), "{}", rest[0]);
    assert!(rest[1].ends_with("is missing"), "{}", rest[1].len());
    assert!(rest[2].contains("20 of the files"), "{}", rest[2]);
    let told = owners(&place, ["export", "tree"]).ok();
    let expected = "{\"path\":\"last\",\"type\":\"file\",\"mode\":\"0644\",\"uid\":5,\"gid\":0}\n";
    assert!(
        told.ends_with(&format!("\"uid\":0,\"gid\":0}}\n{}\n", expected.trim()))
            || told.contains(expected),
        "{told}"
    );
    assert_eq!(told.matches("\"uid\":5").count(), 1, "{told}");
    sh(&place, "! getfattr -d -m - outside/f | grep .").ok();
    for (text, reason) in [
        ("", "line 1: not written by"),
        ("{}\n", "line 1: not written by"),
        (
            "{\"format\":\"subuidless-owners\",\"version\":9}\n",
            "use a newer subuidless",
        ),
    ] {
        fs::write(place.path("home/other"), text).expect("a file");
        let told = owners(&place, ["import", "tree", "-i", "other"]).error();
        assert!(told.contains(reason), "{told}");
    }
}

#[test]
fn a_directory_that_becomes_a_link_meanwhile_leads_nowhere() {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = Place::new();
    sh(
        &place,
        "mkdir -p tree/a/d outside/d; touch tree/a/d/f outside/d/f; ln -s ../outside tree/b
        (echo '{\"format\":\"subuidless-owners\",\"version\":1}'
        yes '{\"path\":\"a/d/f\",\"uid\":5}' | head -5000) >all",
    )
    .ok();
    let [a, b] = ["a", "b"].map(|name| place.path("home/tree").join(name));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE)
                    .expect("an exchange");
            }
        });
        let mut refused = 0;
        for _ in 0..8 {
            let imported = owners(&place, ["import", "tree", "-i", "all"]);
            let lines = imported.stderr.lines();
            refused += lines
                .filter(|line| line.contains("its path contains a symbolic link"))
                .count();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(refused > 0, "the link was never there");
    });
    sh(
        &place,
        "! getfattr -d -m - outside/d/f | grep .
        [ -L tree/a ] && mv tree/b tree/c || mv tree/a tree/c
        getfattr -d -m - tree/c/d/f | grep -q rootless",
    )
    .ok();
}

#[test]
fn an_overlay_above_a_tree_shows_what_was_set_below() {
    let place = Place::new();
    sh(
        &place,
        "mkdir -p lower/d upper work; ln -s x lower/d/link; touch lower/f
        subuidless owners set -h 7:8 lower/d/link
        subuidless owners set 9:10 --device b:7:1 lower/d/loop; subuidless owners set 5:6 lower/f",
    )
    .ok();
    let daemon = Daemon::start(&place);
    let home = place.path("home");
    let options =
        ["lower", "upper", "work"].map(|name| format!("{name}dir={}", home.join(name).display()));
    let bundle = Bundle::new(&place, &daemon).with_config(|config| {
        let mount = serde_json::json!({"destination": "/tree", "type": "overlay", "source": "overlay", "options": options});
        config["mounts"].as_array_mut().expect("mounts").push(mount);
    });
    let look = "cd /tree; stat -c '%n %F %u:%g %t:%T' d/link d/loop f";
    let expected = "d/link symbolic link 7:8 0:0\nd/loop block special file 9:10 7:1\nf regular empty file 5:6 0:0\n";
    assert_eq!(bundle.sh(look), expected);
    bundle.sh(
        "cd /tree; ln -s y d/own; chown -h 70000:1 d/own; mknod d/new c 5 2; chown 3:4 d/new
        chown 1:2 f",
    );
    assert_eq!(bundle.sh(look), expected.replace("5:6", "1:2"));
    // And what was set through the overlay lies in its upper directory.
    let listed = owners(&place, ["ls", "--json", "upper"]).ok();
    for part in [
        "\"upper/d/own\",\"type\":\"symlink\",\"mode\":\"0777\",\"uid\":70000,\"gid\":1",
        "\"upper/d/new\",\"type\":\"char\",\"device\":[5,2],\"mode\":\"0644\",\"uid\":3,\"gid\":4",
        "\"upper/f\",\"type\":\"file\",\"mode\":\"0644\",\"uid\":1,\"gid\":2",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
}

#[test]
fn entries_for_other_users_of_the_host_are_not_written_down() {
    let place = Place::new();
    let script =
        "mkdir tree; touch tree/f; setfacl -m u:root:rw tree/f; subuidless owners export tree";
    let told = sh(&place, script).ok();
    let end = "{\"path\":\"f\",\"type\":\"file\",\"mode\":\"0664\",\"uid\":0,\"gid\":0}\n";
    assert!(told.ends_with(end), "{told}");
}

#[test]
fn what_is_mounted_below_can_be_left_out() {
    let place = Place::new();
    let script = "mkdir -p tree/m/n; mount -t tmpfs none tree/m; touch tree/m/f
        subuidless owners set -R 5:6 tree; subuidless owners set -xR 7:8 tree
        subuidless owners export tree; echo; subuidless owners export -x tree";
    let told = sh(&place, &format!("unshare -rm bash -euc '{script}'")).ok();
    let (all, one) = told.split_once("\n\n").expect("two listings");
    let top = "{\"path\":\".\",\"type\":\"directory\",\"mode\":\"0755\",\"uid\":7,\"gid\":8}";
    assert!(
        all.ends_with("{\"path\":\"m/f\",\"type\":\"file\",\"mode\":\"0644\",\"uid\":5,\"gid\":6}"),
        "{told}"
    );
    assert!(
        one.ends_with(&format!("{top}\n")) && all.contains(top),
        "{told}"
    );
}

#[test]
fn an_import_that_was_killed_is_done_by_the_next_one() {
    let place = Place::new();
    sh(
        &place,
        "mkdir tree; cd tree; for n in $(seq 400); do echo >f$n; ln -s x l$n; done; cd ..
        cp -a tree copy
        cd tree; for n in $(seq 400); do echo $n
        done | xargs -I{} echo f{} l{} | xargs subuidless owners set -h 70000:6
        for n in $(seq 40); do subuidless owners set --device b:$n:1 $n:2 dev$n; done; cd ..
        subuidless owners export tree -o all",
    )
    .ok();
    let mut seed = 1u64;
    for _ in 0..30 {
        let mut import = place.subuidless(["owners", "import", "copy", "-i", "all"]);
        let mut import = import.spawn().expect("an import");
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(std::time::Duration::from_micros(3_000 + (seed >> 48)));
        let _ = import.kill();
        import.wait().expect("its end");
    }
    owners(&place, ["import", "copy", "-i", "all"]).ok();
    let all = fs::read(place.path("home/all")).expect("the export");
    assert!(all.split(|byte| *byte == b'\n').count() > 840);
    assert_same_lines(&all, &owners(&place, ["export", "copy"]).bytes());
}

#[test]
fn a_person_who_looks_on_sees_a_count_and_a_file_does_not() {
    let place = Place::new();
    sh(
        &place,
        "mkdir tree; touch tree/f; subuidless owners export tree -o all",
    )
    .ok();
    let watched = sh(
        &place,
        "script -qec 'subuidless owners import tree -i all' /dev/null",
    )
    .bytes();
    let watched = String::from_utf8_lossy(&watched).into_owned();
    assert!(
        watched.contains("\r1 files") && watched.ends_with("\r\u{1b}[K"),
        "{watched:?}"
    );
    let unwatched = owners(&place, ["import", "tree", "-i", "all"]);
    assert_eq!((unwatched.stderr.as_str(), unwatched.stdout.len()), ("", 0));
    let listed = sh(
        &place,
        "script -qec 'subuidless owners ls -a tree' /dev/null",
    )
    .ok();
    assert!(
        !listed.contains("files") && listed.contains("tree/f"),
        "{listed:?}"
    );
}

#[test]
fn without_what_it_takes_it_says_what_is_missing() {
    let place = Place::new();
    sh(&place, "mkdir tree").ok();
    // In a user namespace in which no other one may be made.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces; subuidless owners ls tree";
    let told = sh(&place, &format!("unshare -c --keep-caps sh -c '{script}'")).error();
    assert!(
        told.contains("cannot create a user namespace") && told.contains("No space"),
        "{told}"
    );
    let mut command = place.subuidless(["owners", "set", "5:6", "tree"]);
    let set = run(command.env_remove("HOME"));
    assert!(
        set.stderr
            .contains("are kept until the next boot; --store DIR"),
        "{}",
        set.stderr
    );
    set.ok();
    let mut command = place.subuidless(["owners", "ls", "tree"]);
    // There is another place.
    run(command.env("XDG_RUNTIME_DIR", "/proc/nowhere")).ok();
}

#[test]
fn an_export_that_fails_leaves_the_file_that_was_there() {
    let place = Place::new();
    let script = "mkdir tree; touch tree/f; \"$S\" owners set 5:6 tree/f
        \"$S\" owners export tree -o owners.json; cp owners.json before
        ! \"$S\" owners export tere -o owners.json 2>said; cmp owners.json before; cat said
        chmod 604 owners.json; ln -s owners.json link; \"$S\" owners export tree -o link
        cmp owners.json before; readlink link; ls -A | wc -l";
    let mut command = place.as_user("bash");
    let ran = run(command
        .args(["-euc", script])
        .env("S", place.binary())
        .current_dir(place.path("home")));
    let printed = ran.ok();
    assert!(
        printed.contains("tere: No such file or directory"),
        "{printed}"
    );
    // .local, tree, owners.json, before, said, link
    assert!(printed.ends_with("owners.json\n6\n"), "{printed}");
}
