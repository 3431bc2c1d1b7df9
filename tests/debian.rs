//! A real Debian: what its tools set is what they see, compared with the same script run as root
//! with all ids mapped.

mod common;

use common::{Bundle, Daemon, Place, Runtime, assert_same_lines, debian_tar};

/// Everything about the files below DIR that has to do with owners. (The size of a directory is the
/// file system's affair.)
const LIST: &str = r"list() {
    find $1 \( -type d -printf '%p %M %U:%G %n\n' \) -o -printf '%p %M %U:%G %s %n %l\n' | LC_ALL=C sort
}
";

/// Runs `script` in a Debian, for real and under subuidless, and compares what they print; then
/// lists `directories` in new containers, served by a new daemon.
fn compare(directories: &str, script: &str) {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let tar = debian_tar();
    let options = ["bind", "ro"];
    let oracle = Bundle::debian_oracle(&place).with_mount(&tar, "/debian.tar", &options);
    let ours = Bundle::debian(&place, &daemon).with_mount(&tar, "/debian.tar", &options);
    let run = |bundle: &Bundle, script: &str| {
        let script = format!("{LIST}{script}");
        bundle.run(&["/bin/bash", "-euc", &script]).bytes()
    };
    let script = format!("mkdir /work; cd /work\n{script}");
    assert_same_lines(&run(&oracle, &script), &run(&ours, &script));
    daemon.terminate();
    let daemon = Daemon::start(&place);
    let list = format!("for directory in {directories}; do list $directory; done");
    let listed = run(&oracle, &list);
    assert_same_lines(&listed, &run(&ours, &list));
    let ours = ours.under(Runtime::Runc, &daemon);
    assert_same_lines(&listed, &run(&ours, &list));
}

/// A tree of files of all kinds and owners.
const TREE: &str = r"
    mkdir -p tree/a/b tree/c tree/locked
    echo one >tree/a/one; echo two >tree/a/b/two; echo three >tree/three
    ln -s one tree/a/link; ln -s /nowhere tree/dangling; ln tree/three tree/c/hard
    mkfifo tree/fifo; touch tree/'a name with spaces' tree/$'n\xe4me'
    echo secret >tree/locked/secret
    chown -R 100:200 tree
    chown -h 300:400 tree/a/link; chown -h daemon:mail tree/dangling
    chown 100000:200000 tree/a/b; chown 4294967294:4294967294 tree/a/b/two
    chown 0:0 tree/c; chown www-data tree/fifo; chgrp staff tree/three
    chmod 4755 tree/a/one; chmod 2750 tree/a; chmod 1777 tree/c
    chmod 0000 tree/locked/secret; chmod 0500 tree/locked
    chown 999:999 tree/locked tree/locked/secret
";

#[test]
fn coreutils_and_findutils_see_the_owners_that_they_set() {
    let script = format!(
        r"{TREE}
        list tree
        cp -a tree copy; list copy
        cp -r --preserve=ownership tree ownership; list ownership
        mv copy /dev/shm/moved; list /dev/shm/moved; mv /dev/shm/moved back; list back
        install -o 5 -g 6 -m 2750 tree/a/one installed; install -d -o 70000 -g mail made/too
        install -o nobody -g nogroup -t made tree/three
        chown --from=100 500 -R back; chown --from=:200 :600 -R back
        chown --reference=tree/a/b made
        chown -R -h 7:8 ownership; chown -R -L 9:9 ownership/a; chgrp -R 10 ownership/c
        list .
        ls -ln tree | grep -v ^total | awk '{{ print $1, $3, $4, $9 }}'
        ls -lR made | grep -v ^total | awk '{{ print $1, $3, $4, $9 }}'
        find . -user 100 | sort; find . -uid +65536 | sort; find . -gid 600 | sort
        find . -nouser | sort
        find . -group mail | sort; find . -user www-data | sort
        stat -c '%n %u:%g %U:%G %a %F' tree/* tree/a/*
        stat -f -c %T . >/dev/null
        test -O tree/c && ! test -O tree/a && test -G tree/c && echo test agrees
        cat tree/locked/secret; echo more >>tree/a/one; stat -c '%u:%g %a' tree/a/one
        rm -r ownership back; list ."
    );
    compare("/work", &script);
}

#[test]
fn tar_packs_and_unpacks_owners() {
    let script = format!(
        r"{TREE}
        tar -cf tree.tar tree
        tar --numeric-owner -tvf tree.tar | awk '{{ print $1, $2, $6, $7, $8 }}' | LC_ALL=C sort
        mkdir one two three; tar -C one -xpf tree.tar; list one
        tar -C two --numeric-owner --same-owner -xf tree.tar; list two
        tar -C three --owner=11 --group=12 -cf - -C ../tree . | tar -C three -xpf -; list three
        tar -df tree.tar && echo no difference"
    );
    compare("/work", &script);
}

#[test]
fn rsync_copies_owners_and_finds_nothing_to_do_the_second_time() {
    let script = format!(
        r"{TREE}
        rsync -aH tree/ copy/; list copy
        rsync -aHi --numeric-ids tree/ copy/; echo nothing to do
        chown 1:1 copy/three; chown -h 2:2 copy/a/link
        rsync -aHi tree/ copy/ | LC_ALL=C sort; list copy
        rsync -a --chown=daemon:mail tree/ given/; list given"
    );
    compare("/work", &script);
}

#[test]
fn a_whole_debian_unpacked_inside_keeps_its_owners() {
    compare(
        "/work",
        r"mkdir debian copy; tar -C debian --exclude='./dev/*' --numeric-owner -xpf /debian.tar
        list debian
        cp -a debian/etc debian/var copy; list copy
        chown -R 1:2 debian/usr/bin; list debian/usr/bin",
    );
}

#[test]
fn dpkg_builds_and_installs_a_package_with_odd_owners() {
    compare(
        "/opt /work/package /var/lib/dpkg/info /var/cache/odd",
        include_str!("debian/dpkg.sh"),
    );
}

#[test]
fn users_that_are_added_own_their_homes() {
    compare(
        "/home /work",
        r"chown root:shadow /etc/shadow /etc/gshadow
        groupadd -g 70000 big; useradd -m -u 1234 bob
        useradd -m -u 3000000000 -g big -s /bin/bash huge 2>/dev/null
        list /home; stat -c '%n %U:%G %a' /etc/passwd /etc/shadow /etc/group /etc/gshadow
        if command -v adduser >/dev/null
        then adduser --disabled-password --gecos '' carol >/dev/null; fi
        ls -ld /home/* | awk '{ print $1, $3, $4, $9 }'
        usermod -u 1235 bob; groupmod -g 1236 bob; list /home
        chown -R bob:big /home/huge; list /home
        userdel -r bob 2>/dev/null; list /home; stat -c '%n %U:%G %a' /etc/shadow",
    );
}

#[test]
fn capabilities_of_files_and_access_control_lists_stay_with_their_rules() {
    compare(
        "/work",
        r"cp /bin/true file; chown 1:2 file; setcap cap_net_raw+ep file; getcap file
        chown 3:4 file; getcap file; echo no capabilities left
        setfacl -m u:0:rwx acl 2>/dev/null || touch acl; setfacl -m u:0:r acl; chown 5:6 acl
        getfacl -nc acl; cp -a acl acl2; getfacl -nc acl2; stat -c %u:%g acl2",
    );
}
