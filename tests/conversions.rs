//! `subuidless owners import` and `export` against the programs whose files they read and write.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Daemon, LISTING, Place, assert_same_lines, inside, owners, run, sh, tool};

/// A tree with real owners, made by root, and how `stat` shows it to her.
fn real_tree(place: &Place) -> (PathBuf, String) {
    let directory = place.path("real");
    let script = format!(
        "mkdir {0}; cd {0}; umask 022; touch f; chown 33:42 f; chmod 4750 f; mkdir -p d/e
        chown 2097152:3000000000 d; chmod 2775 d; ln -s f link
        chown -h 7:65536 link; mkfifo p; chown 4294967294:9 p; mknod null c 1 3; chown 1:5 null
        chmod 666 null
        mknod d/disk b 259 1048575; chown 0:6 d/disk; ln null d/null2; touch 'a b#=\\c'
        chown 2097151:1 'a b#=\\c'
        l=$(printf '%0150d' 7); mkdir -p d/$l/$l; chown 100000:5 d/$l/$l; ln d/$l/$l/../../../f hard",
        directory.display()
    );
    run(place.as_root("bash").args(["-euc", &script])).ok();
    let listing = run(place
        .as_root("bash")
        .args(["-euc", LISTING])
        .current_dir(&directory))
    .ok();
    (directory, listing)
}

/// The tree in an archive, unpacked by the user as far as she can.
fn unpacked(place: &Place, archive: &Path, name: &str) -> PathBuf {
    let script = format!(
        "mkdir {name}; tar -C {name} -xf {} 2>/dev/null || true",
        archive.display()
    );
    sh(place, &script).ok();
    place.path("home").join(name)
}

#[test]
fn an_unpacked_archive_gets_the_owners_in_its_headers() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let (real, listing) = real_tree(&place);
    for format in ["gnu", "pax"] {
        let archive = place.path(&format!("{format}.tar"));
        let mut pack = place.as_root("tar");
        pack.arg(format!("--format={format}"))
            .arg("-cf")
            .arg(&archive);
        run(pack.arg("-C").arg(&real).arg(".")).ok();
        let tree = unpacked(&place, &archive, format);
        let (archive, name) = (
            archive.to_str().expect("UTF-8"),
            tree.to_str().expect("UTF-8"),
        );
        owners(&place, ["import", "--format", "tar", "-i", archive, name]).ok();
        assert_same_lines(
            listing.as_bytes(),
            inside(&place, &daemon, &tree, LISTING).as_bytes(),
        );
    }
    // What root writes down of the real tree does as well.
    let mut export = place.as_root(place.binary());
    export
        .args(["owners", "export", "-o", "real.json"])
        .arg(&real);
    run(export
        .env("XDG_RUNTIME_DIR", place.path(""))
        .env("XDG_STATE_HOME", place.path("")))
    .ok();
    let tree = unpacked(&place, &place.path("gnu.tar"), "plain");
    // With another owner in between, as docs/owners.md shows.
    sh(&place, "for ids in 33,101 101,33
        do jq -c \"if .uid == ${ids%,*} then .uid = ${ids#*,} else . end\" ../home/real.json | subuidless owners import plain
        subuidless owners ls plain/f; done | awk '{ print $3 }' | paste -sd, | grep -x 101,33").ok();
    assert_same_lines(
        listing.as_bytes(),
        inside(&place, &daemon, &tree, LISTING).as_bytes(),
    );
    let refused = sh(
        &place,
        "mkdir x; tar -c . | gzip | subuidless owners import x --format tar",
    );
    assert!(refused.error().contains("`zcat FILE | "));
    let refused = owners(&place, ["export", "--format", "tar", "x"]).error();
    assert!(refused.contains("subuidless run -- tar"), "{refused}");
}

#[test]
fn mtree_listings_go_both_ways() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let (real, listing) = real_tree(&place);
    let bsdtar = |options: &[&str]| {
        let mut command = place.as_root(tool("bsdtar"));
        run(command.args(options).current_dir(&real)).ok()
    };
    let archive = place.path("real.tar");
    bsdtar(&["-cf", archive.to_str().expect("UTF-8"), "."]);
    for (n, options) in ["!all,type,uid,gid,mode,device,link", "all,use-set,indent"]
        .iter()
        .enumerate()
    {
        let text = bsdtar(&["--format=mtree", "--options", options, "-cf", "-", "."]);
        fs::write(place.path("home/real.mtree"), &text).expect("a listing");
        let tree = unpacked(&place, &archive, &format!("tree{n}"));
        let name = tree.to_str().expect("UTF-8");
        owners(
            &place,
            ["import", "--format=mtree", "-i", "real.mtree", name],
        )
        .ok();
        assert_same_lines(
            listing.as_bytes(),
            inside(&place, &daemon, &tree, LISTING).as_bytes(),
        );
        // And bsdtar makes the archive of it that it would have made of the real tree.
        let exported = owners(&place, ["export", "--format=mtree", name]).ok();
        fs::write(place.path("ours.mtree"), exported).expect("a listing");
        let members = |input: &str| {
            let mut list = place.as_root("bash");
            let script = format!(
                "bsdtar -cf - {input} | tar --numeric-owner -tvf - | awk '{{ $4 = $5 = \"\"; print }}' | sed 's/ link to .*//; s/^h/-/'"
            );
            run(list.args(["-euc", &script]).current_dir(&real)).ok()
        };
        let sorted = |text: String| {
            // As many words for the size, which a device has none of.
            let mut lines: Vec<String> = text
                .lines()
                .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
                .collect();
            lines.sort();
            lines.join("\n") + "\n"
        };
        let ours = format!("@{}", place.path("ours.mtree").display());
        let size = |text: String| {
            sorted(
                text.lines()
                    .map(|line| {
                        let words: Vec<&str> = line.split_ascii_whitespace().collect();
                        let rest = if line.starts_with(['c', 'b']) {
                            &words[2..]
                        } else {
                            &words[3..]
                        };
                        format!("{} {} {}\n", words[0], words[1], rest.join(" "))
                    })
                    .collect(),
            )
        };
        assert_same_lines(
            size(members(".")).as_bytes(),
            size(members(&ours)).as_bytes(),
        );
    }
}

#[test]
fn fakeroots_file_goes_both_ways() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let make = "mkdir tree; cd tree; touch f; chown 100000:4294967294 f; chmod 4755 f; ln f hard
        mkdir d; chown 7:8 d; chmod 2711 d; ln -s x link; chown -h 5:6 link
        mkfifo p; chown 9:10 p; mknod null c 1 3; chown 1:5 null; chmod 666 null
        mknod d/disk b 259 1048575; touch plain";
    fs::write(place.path("make"), make).expect("a script");
    fs::write(place.path("list"), LISTING).expect("a script");
    sh(&place, "fakeroot -s saved bash -eu ../make").ok();
    let seen = sh(&place, "cd tree; fakeroot -i ../saved bash -eu ../../list").ok();
    let imported = owners(
        &place,
        ["import", "tree", "--format", "fakeroot", "-i", "saved"],
    );
    assert_eq!(imported.stderr, "");
    imported.ok();
    let tree = place.path("home/tree");
    let ours = inside(&place, &daemon, &tree, LISTING);
    assert!(
        seen.contains("./null character special file 1:5 666 1:3\n"),
        "{seen}"
    );
    assert_same_lines(seen.as_bytes(), ours.as_bytes());
    owners(
        &place,
        ["export", "tree", "--format", "fakeroot", "-o", "ours"],
    )
    .ok();
    let again = sh(&place, "cd tree; fakeroot -i ../ours bash -eu ../../list").ok();
    assert_same_lines(ours.as_bytes(), again.as_bytes());
    let wrong = sh(
        &place,
        "echo dev=x | subuidless owners import tree --format fakeroot",
    )
    .error();
    assert!(wrong.contains("line 1: there is no mode="), "{wrong}");
}

#[test]
fn override_stat_goes_both_ways() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    sh(
        &place,
        "mkdir tree; cd tree; mkdir d; touch f d/e; subuidless owners set 42:43 f
        subuidless owners set 7:8 d; chmod 4711 f; cd ..
        subuidless owners export tree --format override-stat; chmod -R a=rwX tree
        mkdir upper work merged",
    )
    .ok();
    // fuse-overlayfs takes ids from the attributes of its lower layer, and writes them to its upper
    // one.
    let script = format!(
        "chown 0:0 upper
        fuse-overlayfs -o lowerdir=tree,upperdir=upper,workdir=work,xattr_permissions=2 merged 2>/dev/null
        cd merged; {LISTING}
        mkdir new; chmod 2755 new; chown 12:13 new; cd ..; umount merged; chown -R {}:{} upper",
        place.user.uid, place.user.gid
    );
    let mut mount = place.as_root("unshare");
    let seen = run(mount.args(["-m", "bash", "-euc", &script])).ok();
    assert!(
        seen.contains("./f regular empty file 42:43 4711 0:0\n"),
        "{seen}"
    );
    // Back, from the attributes alone: the modes are others' by now, and the owners gone.
    sh(
        &place,
        "cp -a tree back; setfattr -x user.rootlesscontainers back/f
        setfattr -x user.rootlesscontainers back/d
        touch back/null back/pipe
        setfattr -n user.containers.override_stat -v 1:5:0666:char-1-3 back/null
        setfattr -n user.containers.override_stat -v 3:4:0600:pipe back/pipe
        subuidless owners import back --format override-stat
        subuidless owners import upper --format override-stat",
    )
    .ok();
    let back = inside(&place, &daemon, &place.path("home/back"), LISTING);
    let expected = seen + "./null character special file 1:5 666 1:3\n./pipe fifo 3:4 600 0:0\n";
    assert_same_lines(expected.as_bytes(), back.as_bytes());
    let upper = inside(&place, &daemon, &place.path("home/upper"), LISTING);
    assert!(
        upper.contains("./new directory 12:13 2755 0:0\n"),
        "{upper}"
    );
    let untold = sh(
        &place,
        "ln -s x tree/link; subuidless owners set -h 1:1 tree/link
        subuidless owners export tree --format override-stat",
    )
    .error();
    assert!(
        untold.contains("link: is a symbolic link, which cannot carry"),
        "{untold}"
    );
    let refused = owners(
        &place,
        ["export", "tree", "--format", "override-stat", "-o", "x"],
    )
    .error();
    assert!(refused.contains("leave out -o"), "{refused}");
}
