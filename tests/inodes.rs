//! Inodes of all types and attributes of all sorts: what was made and set is what is seen, also
//! after everything but the files themselves has been started anew.
//!
//! The same script runs as real root of the machine and under subuidless, and must print the same.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::{
    Bundle, Daemon, Packages, Pair, Place, Podman, Ran, assert_same_lines, compile, debian_owners,
    guard_of, run, set_mode, small_image, until,
};

/// Functions for scripts: `list`, `try`, `make_tree`, `make_socket`.
const COMMON: &str = include_str!("inodes/common.sh");

/// Functions for scripts with an overlay: `make_some`, `mount_overlay`, `show`, `again`, `finish`.
const OVERLAY: &str = include_str!("inodes/overlay.sh");

fn words(script: &str) -> [String; 3] {
    ["/bin/bash", "-euc", &format!("{COMMON}{script}")].map(str::to_owned)
}

fn bash(bundle: &Bundle, script: &str) -> Vec<u8> {
    let words = words(script);
    bundle.run(&words.each_ref().map(String::as_str)).bytes()
}

/// Runs `script` in /work of two Debians; what it prints and what it leaves there is the same, and
/// stays so.
#[track_caller]
fn compare(script: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = Pair::real(&place, &daemon);
    compare_in(&pair, daemon, "/work", script)
}

/// In directories that the script leaves something in.
#[track_caller]
fn compare_in(pair: &Pair, daemon: Daemon, directories: &str, script: &str) -> String {
    let Pair { oracle, ours } = pair;
    let script = format!("mkdir -p /work; cd /work\n{script}");
    let list = format!("list {directories}");
    let printed = bash(oracle, &script);
    let listed = bash(oracle, &list);
    let container = ours.start(&["/bin/sleep", "1000000"]);
    let inside = |script: &str| {
        let words = words(script);
        container
            .exec(&words.each_ref().map(String::as_str))
            .bytes()
    };
    assert_same_lines(&printed, &inside(&script));
    assert_same_lines(&listed, &inside(&list));
    // The same container, another daemon.
    daemon.terminate();
    let daemon = Daemon::start(ours.place);
    assert_same_lines(&listed, &inside(&list));
    container.stop();
    // Another container.
    assert_same_lines(&listed, &bash(ours, &list));
    let daemon = reboot(ours.place, daemon);
    assert_same_lines(&listed, &bash(ours, &list));
    daemon.terminate();
    String::from_utf8_lossy(&printed).into_owned()
}

/// As after a boot of the machine: another daemon, and what was in memory only is gone.
fn reboot(place: &Place, daemon: Daemon) -> Daemon {
    daemon.terminate();
    let recent = place.runtime_directory().join("subuidless-recent");
    fs::remove_dir_all(recent).expect("the recent part of the side store");
    Daemon::start(place)
}

/// The same in Debians with packages installed.
#[track_caller]
fn compare_with(
    names: &str,
    files: &[(&str, &str)],
    directories: &str,
    script: impl Fn(&Packages) -> String,
) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let packages = Packages::serve();
    let mut pair = Pair::real(&place, &daemon).with(|bundle| packages.reached_by(bundle));
    for (name, destination) in files {
        let file = copy(&place, name);
        pair = pair.with(|bundle| bundle.with_mount(&file, destination, &["bind", "ro"]));
    }
    let install = format!("{}{}", debian_owners(), packages.install(names));
    bash(&pair.oracle, &install);
    bash(&pair.ours, &install);
    compare_in(&pair, daemon, directories, &script(&packages))
}

/// A copy of a file of `tests/inodes`, where the container's user gets to.
fn copy(place: &Place, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inodes");
    let copy = place.path(name);
    fs::copy(source.join(name), &copy).expect("copying a file of tests/inodes");
    copy
}

// ---- links, fifos, sockets, devices

#[test]
fn links_fifos_sockets_and_devices_are_what_they_were_made() {
    let seen = compare(include_str!("inodes/special.sh"));
    assert!(
        seen.contains("crw------- 100000:200000 1 1ff:fffff 0 'tree/large'\n"),
        "{seen}"
    );
}

#[test]
fn copies_and_archives_of_links_fifos_sockets_and_devices_are_like_them() {
    let seen = compare_with("cpio", &[], "/work", |_| {
        include_str!("inodes/copies.sh").to_owned()
    });
    assert!(seen.contains("brw-rw---- 0/6 "), "{seen}");
}

#[test]
fn a_device_without_a_driver_does_not_open() {
    let seen = compare(
        r#"mknod c c 510 7; mknod b b 510 7; mknod -m 700 x c 510 8; chown 5:6 x; ln -s c link
        for file in c b x link; do
            try timeout 5 cat $file; try timeout 5 dd status=none if=$file; try timeout 5 dd status=none of=$file </dev/null
            try timeout 5 cp c copy; try sh -c "echo >$file"; try sh -c "echo >>$file"; try sh -c "exec 3<>$file"
            perl -MFcntl -e 'foreach $flags (O_RDONLY, O_WRONLY, O_RDWR, O_CREAT | O_RDWR, O_CREAT | O_EXCL | O_RDWR, O_TRUNC | O_WRONLY, O_NONBLOCK, O_DIRECTORY, O_NOFOLLOW, 010000000) {
                    sysopen(F, $ARGV[0], $flags) ? print "opened
" : print "$flags $!
" }
                truncate($ARGV[0], 3) or print "truncate $!
"; { no warnings; exec $ARGV[0]; } print "exec $!
"' ./$file
            stat -c '%F %t:%T %u:%g %A' $file
        done"#,
    );
    assert!(
        seen.contains(
            "cat: c: No such device or address
"
        ),
        "{seen}"
    );
}

// ---- extended attributes

#[test]
fn attributes_of_files_and_directories_are_what_they_were_set_to() {
    let seen = compare(include_str!("inodes/attributes.sh"));
    assert!(
        seen.contains(
            "# file: prog
security.b=0x32
"
        ),
        "{seen}"
    );
}

/// Runs `attributes.c` on some files.
#[track_caller]
fn attributes(script: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = attributes_pair(&place, &daemon);
    compare_in(&pair, daemon, "/work", &format!("{FILES}{script}"))
}

fn attributes_pair<'a>(place: &'a Place, daemon: &Daemon) -> Pair<'a> {
    let program = compile(
        place,
        &["gcc", "-static"],
        "attributes",
        "inodes/attributes.c",
    );
    Pair::real(place, daemon)
        .with(|bundle| bundle.with_mount(&program, "/attributes", &["bind", "ro"]))
}

const FILES: &str =
    "echo content >file; mkdir directory; ln -s file link; mkfifo fifo; mknod device c 510 1
    make_socket socket; chown -h 70000:70000 *\n";

#[test]
fn attributes_come_in_buffers_of_all_sizes() {
    let seen = attributes("for file in file directory; do /attributes values $file; done");
    assert!(
        seen.contains("file, path: get trusted.name 1: ERANGE\n"),
        "{seen}"
    );
}

#[test]
fn attributes_have_names_of_all_lengths() {
    attributes("for file in file directory; do /attributes names $file; done");
}

#[test]
fn links_fifos_sockets_and_devices_have_attributes_of_root_s() {
    attributes(
        "for file in link fifo device socket; do
            for name in trusted.x security.x trusted.overlay.opaque user.x system.x; do
                echo $name $file
                try setfattr -h -n $name -v 0x00ff0a0041 $file; try getfattr -h -n $name -e hex $file
                try setfattr -h -n $name -v '' $file; try getfattr -h -n $name -e hex $file
                try setfattr -h -x $name $file; try setfattr -h -x $name $file; try getfattr -h -n $name $file
            done
            setfattr -h -n trusted.a -v 1 $file; setfattr -h -n trusted.b -v 2 $file; setfattr -h -n security.c -v 3 $file
            setfattr -h -x trusted.b $file
        done
        list .; mkdir moved; mv link fifo device socket moved; rsync -aAXHD moved/ rsync; cp -a moved copy; list .
        rm moved/*; mkfifo moved/fifo; list moved",
    );
}

#[test]
fn attributes_of_root_s_are_asked_for_in_other_places() {
    attributes(
        "for file in /proc/self/fd /proc/self/status /dev/shm /dev/pts /dev; do
            for name in trusted.x security.x user.x system.x trusted.overlay.opaque; do
                echo $name $file; try getfattr -h -n $name $file; try setfattr -h -x $name $file
            done
        done",
    );
}

/// What becomes of our own attributes, by all ways of naming a file.
#[track_caller]
fn hidden(options: &str, ways: &[&str], sh: impl FnOnce(&Place, &str) -> String) {
    const OURS: [&str; 3] = [
        "user.rootlesscontainers",
        "user.subuidless.x",
        "user.subuidless.trusted.kept",
    ];
    let place = Place::new();
    let names = OURS.join(" ");
    let seen = sh(
        &place,
        &format!(
            "mkdir work; cd work; echo >file; mkdir directory; chown 5:6 file directory
        for file in file directory; do
            setfattr -n trusted.kept -v 1 $file; setfattr -n user.rootlesscontainers2 -v 1 $file
            $ATTRIBUTES {options} hidden $file {names}
            stat -c %u:%g $file; getfattr -d -m - $file; getfattr -d $file
        done"
        ),
    );
    let mut expected = String::new();
    for file in ["file", "directory"] {
        for way in ways {
            for name in OURS {
                for set in ["0", "1", "2", "to nothing"] {
                    expected += &format!("{file}, {way}: set {name} {set}: EOPNOTSUPP\n");
                }
                for get in [" 0", " 1", ""] {
                    expected += &format!("{file}, {way}: get {name}{get}: ENODATA\n");
                }
                expected += &format!("{file}, {way}: remove {name}: ENODATA\n");
            }
            for (list, length) in [
                ("0", "38"),
                ("1", "ERANGE"),
                ("short", "ERANGE"),
                ("exactly, then x", "38"),
                ("one more, then x", "38"),
                ("then x", "38"),
                ("to a bad pointer, of no size", "38"),
                ("to a bad pointer", "EFAULT"),
            ] {
                let comma = if list == "then x" { ", " } else { " " };
                expected += &format!("{file}, {way}: list{comma}{list}: {length}\n");
            }
            expected += "    trusted.kept 12\n    user.rootlesscontainers2 24\n";
        }
        expected += &format!(
            "5:6\n# file: {file}\ntrusted.kept=\"1\"\nuser.rootlesscontainers2=\"1\"\n\n\
             # file: {file}\nuser.rootlesscontainers2=\"1\"\n\n"
        );
    }
    assert_same_lines(expected.as_bytes(), seen.as_bytes());
}

#[test]
fn our_own_attributes_are_hidden_and_cannot_be_forged() {
    hidden("", &["path", "link", "fd"], |place, script| {
        let daemon = Daemon::start(place);
        let ours = attributes_pair(place, &daemon).ours;
        ours.sh(&format!("ATTRIBUTES=/attributes\n{script}"))
    });
}

/// Runtimes take names of libseccomp's, which has none for these yet; where they are named by their
/// numbers, they are answered.
#[test]
fn our_own_attributes_are_hidden_from_the_calls_that_end_in_at_too() {
    hidden("-a", &["at", "link at", "fd at"], |place, script| {
        let program = compile(
            place,
            &["gcc", "-static"],
            "attributes",
            "inodes/attributes.c",
        );
        let mut command = place.subuidless(["run", "--", "bash", "-euc"]);
        command.arg(script).env("ATTRIBUTES", program);
        run(command.current_dir(place.path("home"))).ok()
    });
}

#[test]
fn calls_that_end_in_at_set_what_the_others_do() {
    let place = Place::new();
    let program = compile(
        &place,
        &["gcc", "-static"],
        "attributes",
        "inodes/attributes.c",
    );
    let script = r#"umask 022; echo >file; mkdir directory d; ln -s file link; mkfifo fifo; chown 70000:5 fifo directory
        for file in file directory; do "$ATTRIBUTES" -a values $file; "$ATTRIBUTES" -a names $file; done
        setfattr -h -n trusted.kept -v 1 link; setfattr -n security.kept -v 2 fifo
        for file in link fifo; do getfattr -h -d -m - $file; done
        # fchmodat2(2): AT_SYMLINK_NOFOLLOW is 256, AT_EMPTY_PATH 4096.
        modes() {
            "$@" perl -MFcntl -e 'for (["file", 0640, 0], ["link", 0604, 0], ["link", 0700, 256], ["fifo", 0606, 256], ["", 0711, 4096], ["file", 0777, 1]) {
                sysopen(D, "d", O_RDONLY | O_DIRECTORY); my ($path, $mode, $flags) = @$_;
                print "$path: ", syscall(452, $path eq "" ? fileno(D) : -100, $path, $mode, $flags) ? "$!" : "done", "\n" }'
            stat -c '%n %a %u:%g' file fifo d
        }
        modes env; chown 77:77 fifo; modes setpriv --reuid 77 --regid 77 --clear-groups"#;
    let [oracle, ours] = [("oracle", true), ("ours", false)].map(|(name, is_real)| {
        let directory = place.path(name);
        fs::create_dir(&directory).expect("a directory");
        set_mode(&directory, 0o755);
        let mut command = match is_real {
            true => place.as_root("bash"),
            false => {
                place.give_to_user(&directory);
                let mut command = place.subuidless(["run"]);
                command.args(["--", "bash"]);
                command
            }
        };
        command.args(["-euc", script]).env("ATTRIBUTES", &program);
        run(command.current_dir(directory)).ok()
    });
    assert!(
        oracle.contains("file, at: get trusted.name 1: ERANGE\n"),
        "{oracle}"
    );
    assert_same_lines(oracle.as_bytes(), ours.as_bytes());
}

#[test]
fn python_sees_what_the_kernel_would_show() {
    compare_with("python3-minimal", &[], "/work", |_| {
        String::from(
            "echo >file; chown 5:6 file; mkdir d; chown 70000 d; setfacl -m u:70000:r file
            python3 -c 'if True:
                import os
                for path in \"file\", \"d\":
                    print(os.listxattr(path), os.stat(path))
                    for name in \"user.a\", \"trusted.a\", \"security.a\":
                        for value in b\"\", b\"1\", bytes(range(256)) * 5:
                            os.setxattr(path, name, value)
                            assert os.getxattr(path, name) == value
                        with open(path) if path == \"file\" else open(\"/\") as file:
                            print(sorted(os.listxattr(path)), sorted(os.listxattr(file.fileno())))
                        try:
                            os.setxattr(path, name, b\"\", os.XATTR_CREATE)
                        except OSError as error:
                            print(error)
                    os.removexattr(path, name)
                    try:
                        os.removexattr(path, name)
                    except OSError as error:
                        print(error)
            ' | sed 's/st_ino=[0-9]*, st_dev=[0-9]*//; s/st_.time=[0-9]*//g'",
        )
    });
}

// ---- access control lists

#[test]
fn access_control_lists_name_users_and_groups_of_all_ids() {
    let seen = compare(include_str!("inodes/acl.sh"));
    assert!(seen.contains("group:4000000000:rwx\n"), "{seen}");
}

#[test]
fn what_is_made_in_a_directory_takes_its_default_access_control_list() {
    compare(
        "mkdir d; setfacl -d -m u:1:rw,u:70000:r,g:4000000000:rwx,u:0:x d
        touch d/file; mkdir d/sub; mkfifo d/fifo; mknod d/device c 510 1; make_socket d/socket; ln -s x d/link
        (umask 077; touch d/masked; mkdir d/sub/masked); mkdir -m 700 d/own; install -m 640 /etc/passwd d/installed; cp /etc/passwd d/copied
        mkdir -p d/sub/a/b; touch d/sub/a/b/file; list d
        setfacl -d -m u:70000:rwx d/sub; touch d/sub/other; setfacl -k d/sub; touch d/sub/none; list d/sub
        touch /dev/shm/f; mv /dev/shm/f d/moved; ln d/sub/none d/hard; list d; cp -a d copy; cp -r d copy2; mkdir e; cp d/file e; list copy2 e",
    );
}

#[test]
fn fifos_sockets_and_devices_have_access_control_lists() {
    compare(
        "mkfifo fifo; mknod device c 510 1; make_socket socket; mknod block b 8 1; chown 70000:5 *
        for file in *; do
            setfacl -m u:0:rw $file; list $file; setfacl -m u:70000:rw,g:4000000000:r $file; list $file; chmod 604 $file; list $file
            setfacl -x u:70000 $file; list $file; cp -a $file copy-$file; rsync -aAXD $file rsync-$file
        done
        list .; setfacl -b *; list .",
    );
}

#[test]
fn access_control_lists_that_are_wrong_are_refused() {
    // acl(5): the entries in order; a mask where users or groups are named; one of each.
    let acl = |entries: &[(u16, u16, u32)]| {
        let mut value = String::from("0x02000000");
        for (tag, permissions, id) in entries {
            let bytes = [
                &tag.to_le_bytes()[..],
                &permissions.to_le_bytes(),
                &id.to_le_bytes(),
            ];
            for byte in bytes.concat() {
                value += &format!("{byte:02x}");
            }
        }
        value
    };
    const NONE: u32 = u32::MAX;
    let (user_obj, user, group_obj) = ((1, 6, NONE), (2, 4, 70_000), (4, 4, NONE));
    let (group, mask, other) = ((8, 5, 80_000), (0x10, 7, NONE), (0x20, 4, NONE));
    let lists = [
        acl(&[user_obj, user, group_obj, group, mask, other]),
        acl(&[user_obj, user, group_obj, other]),
        acl(&[user_obj, group_obj, group, other]),
        acl(&[user_obj, group_obj, user, mask, other]),
        acl(&[user, user_obj, group_obj, mask, other]),
        acl(&[user_obj, user, group_obj, mask]),
        acl(&[user_obj, user, mask, other]),
        acl(&[user, group_obj, mask, other]),
        acl(&[user_obj, user, group_obj, mask, mask, other]),
        acl(&[user_obj, user, user, group_obj, mask, other]),
        acl(&[user_obj, (2, 7, 80_000), user, group_obj, mask, other]),
        acl(&[user_obj, (2, 8, 70_000), group_obj, mask, other]),
        acl(&[user_obj, (2, 4, NONE), user, group_obj, mask, other]),
        acl(&[user_obj, user, group_obj, (0x40, 7, 5), mask, other]),
        acl(&[user_obj, user, group_obj, mask, other, group]),
        acl(&[(1, 6, 5), user, (4, 4, 5), (0x10, 7, 5), (0x20, 4, 5)]),
        acl(&[(1, 6, 5), (4, 4, 5), (0x20, 4, 5)]),
        acl(&[user]),
        acl(&[]),
    ];
    let script = lists.map(|list| {
        format!(
            "echo {list}; for file in file directory link; do
                for name in access default; do
                    try setfattr -h -n system.posix_acl_$name -v {list} $file
                done
            done; list file directory
            for name in access default; do
                for file in file directory; do setfattr -x system.posix_acl_$name $file 2>/dev/null || true; done
            done
            chmod 755 file directory\n"
        )
    });
    compare(&format!(
        "echo >file; mkdir directory; ln -s file link; {}",
        script.concat()
    ));
}

#[test]
fn an_access_control_list_stays_when_another_one_is_refused() {
    compare(
        r#"echo >file; mkdir directory; setfacl -m u:70000:rw,m::rw,u:0:r file directory; setfacl -d -m u:70000:rw,u:0:r directory
        set_list() {
            perl -e 'my ($file, $name, $flags, $value) = @ARGV; $value = pack "H*", $value;
                print "$file $name $flags: ", syscall(188, $file, $name, $value, length $value, 0 + $flags) ? "$!
" : "done
"' "$@"
        }
        plain=0200000001000600ffffffff04000400ffffffff20000400ffffffff
        foreign=0200000001000600ffffffff020004008038010004000400ffffffff10000700ffffffff20000400ffffffff
        for name in access default; do
            for file in file directory; do
                for list in 02 01000000 02000000010006 0200000001000600ffffffff 0200000001000600ffffffff02000400ffffffff04000400ffffffff10000700ffffffff20000400ffffffff; do
                    set_list $file system.posix_acl_$name 0 $list; list $file
                done
                for list in $plain $foreign; do
                    set_list $file system.posix_acl_$name 4 $list; list $file; set_list $file system.posix_acl_$name 1 $list; list $file
                done
            done
        done
        set_list directory system.posix_acl_default 2 $foreign; list directory; set_list directory system.posix_acl_default 2 $plain; list directory
        set_list file system.posix_acl_access 2 $plain; set_list file system.posix_acl_access 2 $foreign; list file
        setfacl -b file directory; set_list file system.posix_acl_access 2 $foreign; set_list file system.posix_acl_access 1 $foreign; list file
        set_list directory system.posix_acl_default 1 $plain; set_list directory system.posix_acl_default 2 $foreign"#,
    );
}

// ---- whole programs

#[test]
fn debootstrap_makes_a_debian() {
    let seen = compare_with("debootstrap", &[], "/srv", |packages| {
        format!(
            "url={}\n{}",
            packages.url(),
            include_str!("inodes/debootstrap.sh")
        )
    });
    assert!(
        seen.contains("crw-rw-rw- 0:0 1 1:3 0 '/srv/debian/dev/null'\n"),
        "{seen}"
    );
}

#[test]
fn mmdebstrap_makes_a_debian() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let packages = Packages::serve();
    let pair = Pair::real(&place, &daemon).with(|bundle| packages.reached_by(bundle));
    let install = format!("{}{}", debian_owners(), packages.install("mmdebstrap"));
    let script = format!(
        "{install}\nurl={}\n{}\nlist /srv",
        packages.url(),
        include_str!("inodes/mmdebstrap.sh")
    );
    let seen = bash(&pair.oracle, &script);
    assert_same_lines(&seen, &bash(&pair.ours, &script));
    assert!(String::from_utf8_lossy(&seen).contains("-rwxr-sr-x 0:42 1 0:0 "));
}

#[test]
fn file_systems_are_mounted_for_whom_they_are_asked_for() {
    let seen = compare(
        r#"mkdir m p; mount -t tmpfs -o size=1m,uid=70000,gid=5,mode=2750,nodev none m; list m; touch m/f; list m; mkdir m/d
        grep -o "/m tmpfs rw,nodev,relatime,size=1024k,mode=2750" /proc/self/mounts; chown 7 m; list m; umount m
        mount -t tmpfs -o uid=0,gid=80000 none m; list m; umount m
        mount -t devpts none p -o noexec,nosuid,uid=5,gid=5,mode=620,ptmxmode=666; list p; grep -o "/p devpts rw,nosuid,noexec,relatime" /proc/self/mounts; umount p
        # In a mount namespace of its own, in a root directory of its own.
        unshare -m sh -c 'mount -t devpts none p -o gid=5; ls p; mount -t tmpfs -o uid=7 x m; stat -c %u:%g m'; ls m p
        mkdir -p /root2/inside; for dir in bin lib lib64 usr proc; do mkdir -p /root2/$dir; test ! -e /$dir || mount --rbind /$dir /root2/$dir; done
        chroot /root2 mount -n -t tmpfs -o gid=9 x /inside; list /root2/inside; umount /root2/inside
        for dir in bin lib lib64 usr proc; do umount -l /root2/$dir; done; rm -r /root2
        ln -s m link; mount -t tmpfs -o uid=6 none link; list m; umount m; rm link
        for options in uid=5,bogus=1 uid=5,mode=x gid=5,size=huge uid=; do try mount -t tmpfs -o $options x m; done
        try mount -t tmpfs -o uid=5 x nowhere; try mount -t tmpfs -o uid=5 x /etc/passwd; try mount -t tmpfs -o uid=5 x ''
        try setpriv --bounding-set -sys_admin --inh-caps -sys_admin mount -t tmpfs -o uid=5 x m; list ."#,
    );
    assert!(seen.contains("drwxr-s--- 70000:5 2 0:0 - 'm'\n"), "{seen}");
}

#[test]
fn systemd_tmpfiles_makes_what_it_is_told() {
    let files = [("tmpfiles.conf", "/tmpfiles.conf")];
    let seen = compare_with(
        "systemd-standalone-tmpfiles",
        &files,
        "/work /run /var/log",
        |_| include_str!("inodes/tmpfiles.sh").to_owned(),
    );
    assert!(
        seen.contains("crw-rw-rw- 33:33 1 fa0:f4240 0 't/D/c'\n"),
        "{seen}"
    );
}

#[test]
fn rpm_builds_installs_and_verifies_a_package_with_odd_owners() {
    let files = [("odd.spec", "/odd.spec")];
    let seen = compare_with("cpio rpm", &files, "/work /opt /var/lib/odd", |_| {
        include_str!("inodes/rpm.sh").to_owned()
    });
    assert!(
        seen.contains("-rwsr-xr-x 70000:0 1 0:0 7 '/opt/odd/setuid'\n"),
        "{seen}"
    );
}

// ---- overlays

#[track_caller]
fn overlay(script: &str) -> String {
    compare(&format!("{OVERLAY}{script}"))
}

#[test]
fn owners_in_a_lower_layer_are_seen_through_an_overlay() {
    let seen = overlay(
        "for d in a b; do make_some lower/$d; chown -h 7:8 lower/$d/*; done; chmod 641 lower/a/[pcbf]
        mount_overlay; show; cp -a merged/a copy; list copy; tar -C merged -cf - b | tar -xpf -; list b
        rm merged/a/[lpcbs]; make_some merged/n; show; again; show; make_some merged/b/n; rm -r merged/a; make_some merged/a; show; finish",
    );
    assert!(
        seen.contains("crw-r----x 7:8 1 1fe:7 0 'merged/a/c'\n"),
        "{seen}"
    );
}

#[test]
fn what_is_made_on_an_overlay_keeps_its_owner() {
    overlay(
        "make_some lower/a; mount_overlay; make_some merged/n; chown -h 11:12 merged/n/*; make_some merged/a/n; chown -h 13:14 merged/a/n/*
        show; again; show; chown -h 15:16 merged/n/*; chmod 600 merged/n/[cbpsf]; mv merged/n/l merged/l; mv merged/n/c merged/a/c2
        ln merged/n/b merged/b2; show; again; show; umount merged; show upper lower; mount_overlay; finish",
    );
}

#[test]
fn what_is_copied_up_by_chown_has_its_new_owner() {
    overlay(
        "make_some lower/a; chown -h 7:8 lower/a/*; make_some lower/b; mount_overlay
        chown -h 9:10 merged/a/* merged/b/*; show; again; show; chown -h 21:22 merged/a/*; show; finish",
    );
}

#[test]
fn what_is_copied_up_by_chmod_or_utime_keeps_its_owner() {
    overlay(
        "make_some lower/a; chown -h 7:8 lower/a/*; mount_overlay; chmod 755 merged/a/[pcbsf]; touch -h merged/a/l; show; finish",
    );
}

/// Renaming and linking go to the kernel unseen: of a lower layer's links, fifos, sockets and
/// devices they leave no owner.
#[test]
fn what_was_copied_up_keeps_its_owner_when_it_is_moved_and_linked() {
    overlay(
        "make_some lower/a; chown -h 7:8 lower/a/* lower/a/d/l2; mount_overlay
        mv merged/a/f merged/a/f_; chmod 755 merged/a/[pcbs]; touch -h merged/a/l merged/a/d/l2
        for file in l p c b s d/l2; do mv merged/a/$file merged/a/${file}_; done; show; again; show
        for file in f_ l_ p_ c_ b_ s_ d/l2_; do ln -P merged/a/$file merged/a/${file}2; done; show; finish",
    );
}

#[test]
fn podman_mounts_a_container_anew_and_what_it_has_copied_up_keeps_its_owner() {
    let place = Place::new();
    // podman keeps some things for each user, whatever HOME is.
    let _one_at_a_time = common::lock();
    let daemon = Daemon::start(&place);
    small_image(&place);
    // `said` is for containers that run once.
    let script = r#""$@" import -q small.tar small >/dev/null; mkdir out
        "$@" run --name again --network=none -v "$PWD/out:/out" $OPTIONS localhost/small sh -c 'exec >>/out/seen
            stat -c "%n %F %u:%g" /bin/ls /bin/cat; stat -c "%n %F %u:%g" /p 2>/dev/null
            chown -h 7:8 /bin/ls; touch -h /bin/cat; test -e /p || mkfifo /p; chown 9:10 /p; stat -c "%n %F %u:%g" /bin/ls /bin/cat /p'
        "$@" start -a again; "$@" rm again >/dev/null; cat out/seen"#;
    let seen = Podman::of_user(&place, &daemon, "crun").sh(script).ok();
    let expected = "/bin/ls symbolic link 0:0
/bin/cat symbolic link 0:0
/bin/ls symbolic link 7:8
/bin/cat symbolic link 0:0
/p fifo 9:10
";
    let again = "/bin/ls symbolic link 7:8
/bin/cat symbolic link 0:0
/p fifo 9:10
";
    assert_eq!(seen, format!("{expected}{again}{again}"));
}

// ---- the side store

#[test]
fn owners_are_seen_while_they_are_moved_to_disk() {
    // Asks for what is not in the store, all the time; in the meantime what is in it comes to its
    // disk for the first time.
    let script = r#"mkdir /work; cd /work; mkfifo known other; mknod device c 510 7; chown 5:6 known
        perl -MTime::HiRes=time -e '$end = time + 2.5; while (time < $end) { lstat "other" or die }'
        stat -c '%u:%g %F' known device other; chown 7:8 device; stat -c '%u:%g %F' device"#;
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let seen = bash(&Bundle::debian(&place, &daemon), script);
    assert_eq!(
        String::from_utf8_lossy(&seen),
        "5:6 fifo\n0:0 character special file\n0:0 fifo\n7:8 character special file\n"
    );
}

// ---- kills

/// A job in a container that goes on by a hundred steps when it is told to (`churn.c`).
struct Churn {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Churn {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting the job");
        let (to, from) = (child.stdin.take(), child.stdout.take());
        Self {
            child,
            to: to.expect("a pipe"),
            from: from.expect("a pipe"),
        }
    }

    fn begin(&mut self) {
        self.to.write_all(b"x").expect("the job reads");
    }

    fn finish(&mut self) {
        self.from.read_exact(&mut [0]).expect("the job answers");
    }

    /// Whether it has not answered yet.
    fn is_busy(&self) -> bool {
        let mut fds = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    fn end(mut self) {
        drop(self.to);
        let status = self.child.wait().expect("waiting for the job");
        assert!(status.success(), "{status}");
    }
}

/// Runs the job for real, and in a container whose worker, daemon and guard are killed so many
/// times at random points: what `victims` picks of [`ALL`]. One of them is always left.
#[track_caller]
#[expect(
    clippy::print_stderr,
    reason = "how much was killed is told with --nocapture"
)]
fn kill_at_random(job: &str, kills: u32, victims: impl Fn(&mut Random) -> &'static [Victim]) {
    /// To find out how long a round takes.
    const UNDISTURBED: u32 = 4;
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    let program = compile(&place, &["gcc", "-static"], "churn", "inodes/churn.c");
    let pair = Pair::real(&place, &daemon)
        .with(|bundle| bundle.with_mount(&program, "/churn", &["bind", "ro"]));
    let script = format!("mkdir /work; cd /work; exec /churn {job}");
    let words = ["/bin/sh", "-euc", &script];
    let mut churn = Churn::start(pair.oracle.command(&words).0);
    for _ in 0..UNDISTURBED + kills {
        churn.begin();
        churn.finish();
    }
    churn.end();

    let (command, id) = pair.ours.command(&words);
    let mut churn = Churn::start(command);
    let mut random = Random(20_201_122);
    let start = Instant::now();
    for _ in 0..UNDISTURBED {
        churn.begin();
        churn.finish();
    }
    let round = start.elapsed() / UNDISTURBED;
    let mut in_time = 0;
    let mut counts = [0; ALL.len()];
    let mut dead = Vec::new();
    for _ in 0..kills {
        let victims = victims(&mut random);
        let pids: Vec<Pid> = victims
            .iter()
            .map(|victim| victim.pid(&place, &daemon, &id, &dead))
            .collect();
        churn.begin();
        // Into the middle of something, mostly.
        std::thread::sleep(round.mul_f64(random.fraction()));
        in_time += u32::from(churn.is_busy());
        for pid in pids {
            kill(pid, Signal::SIGKILL).expect("killing a process of ours");
            dead.push(pid);
        }
        for victim in victims {
            counts[*victim as usize] += 1;
        }
        if victims.contains(&Victim::Daemon) {
            daemon.wait();
            daemon = Daemon::start(&place);
            daemon.wait_for(&["container of an earlier daemon", &id]);
        }
        churn.finish();
    }
    churn.end();
    eprintln!("{kills} rounds, {in_time} in time; killed: {ALL:?}: {counts:?}");
    // How many is the machine's affair: a round takes longer or shorter than the first ones did.
    assert!(
        in_time > kills / 10,
        "only {in_time} of {kills} were in time"
    );
    let log = |bundle: &Bundle| fs::read(bundle.rootfs().join("work/log")).expect("the job's log");
    assert_same_lines(&log(&pair.oracle), &log(&pair.ours));
    let listed = bash(&pair.oracle, "list /work");
    assert_same_lines(&listed, &bash(&pair.ours, "list /work"));
    let daemon = reboot(&place, daemon);
    assert_same_lines(&listed, &bash(&pair.ours, "list /work"));
    daemon.terminate();
}

/// Who may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Worker,
    Daemon,
    Guard,
}

const ALL: [Victim; 3] = [Victim::Worker, Victim::Daemon, Victim::Guard];

impl Victim {
    /// Which process that is. All of them have the container by then: with none of them the kernel
    /// has nobody to ask. Those that were killed are `dead`, and may not have gone yet.
    fn pid(self, place: &Place, daemon: &Daemon, container: &str, dead: &[Pid]) -> Pid {
        let lives = |pid: &Pid| !dead.contains(pid) && common::has_listener(*pid);
        let worker = until("a worker has the listener", || {
            place.workers_of(container).into_iter().find(lives)
        });
        let guard = until("the guard has the listener", || {
            Some(guard_of(place, daemon.pid())).filter(lives)
        });
        match self {
            Self::Worker => worker,
            Self::Daemon => daemon.pid(),
            Self::Guard => guard,
        }
    }
}

#[test]
fn nothing_is_lost_when_worker_daemon_and_guard_are_killed_alone_and_together() {
    use Victim::{Daemon, Guard, Worker};
    kill_at_random(
        "20201122 log",
        common::many(150, 500),
        |random| match random.below(16) {
            0 => &[Daemon],
            1 => &[Guard],
            2 => &[Daemon, Worker],
            3 => &[Worker, Daemon],
            4 => &[Guard, Worker],
            5 => &[Worker, Guard],
            6 => &[Guard, Daemon],
            7 => &[Daemon, Guard],
            _ => &[Worker],
        },
    );
}

#[test]
fn nothing_is_done_twice_when_workers_are_killed() {
    let kills = common::many(150, 500);
    kill_at_random("20201122 log attributes", kills, |_| &[Victim::Worker]);
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        let Self(state) = self;
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        let [a, b, c, d, ..] = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes();
        u32::from_be_bytes([a, b, c, d]) % bound
    }

    /// At least 0, below 1.
    fn fraction(&mut self) -> f64 {
        f64::from(self.below(65536)) / 65536.0
    }
}

/// Where the lasting part is, unless `--store` says otherwise.
fn store_of(place: &Place) -> PathBuf {
    place.path("home/.local/state/subuidless")
}

/// Special inodes with owners, named `$1`NUMBER for all numbers below `$2`, and what they look
/// like. For busybox.
const MAKE: &str = r#"
    make() {
        n=0
        while [ $n -lt $2 ]; do
            case $((n % 4)) in
            0) ln -s x $1$n ;;
            1) mkfifo $1$n ;;
            2) mknod $1$n c 510 $n ;;
            *) mknod $1$n b 510 $((n + 1000)) ;;
            esac
            chown -h $((n + 1)):$((n + 2)) $1$n
            n=$((n + 1))
        done
    }
    look() { find /work | sort | while read -r path; do stat -c '%n %F %u:%g %t:%T %a' $path; done; }
    mkdir -p /work; cd /work
"#;

fn sh(bundle: &Bundle, script: &str) -> String {
    bundle.sh(&format!("{MAKE}{script}"))
}

/// `subuidless owners gc` and its words.
fn sweep(place: &Place, words: &[&str]) -> Ran {
    let mut command = place.subuidless(["owners", "gc"]);
    run(command.args(words))
}

#[test]
fn owners_gc_removes_what_is_gone_and_keeps_what_is_there() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let everything = bundle.rootfs();
    let everything = everything.to_str().expect("UTF-8");
    let seen = sh(
        &bundle,
        "mkdir -p a/b c; make a/b/ 16; make c/ 16; rm c/1 c/2 c/3 c/4; mv a/b/1 c/1; mv -f a/b/2 a/b/3; ln c/5 a/hard; look",
    );
    daemon.terminate();
    // By handle and by birth each. Four were removed, and one was overwritten.
    let list = sweep(&place, &["--dry-run", "--missing", everything]).ok();
    assert_eq!(list.lines().count(), 11, "{list}");
    assert!(
        list.ends_with("\n64 entries, 10 would be removed, 54 kept\n"),
        "{list}"
    );
    assert_eq!(
        sweep(&place, &["--missing", everything]).ok(),
        "64 entries, 10 removed, 54 kept\n"
    );
    assert_eq!(
        sweep(&place, &["--dry-run", "--missing", everything]).ok(),
        "54 entries, 0 would be removed, 54 kept\n"
    );
    let daemon = Daemon::start(&place);
    assert_eq!(sh(&bundle, "look"), seen);
    // Beside a daemon and a container; not everything is on the disk yet.
    let container = bundle.start(&["/bin/sleep", "1000000"]);
    let inside = |script: &str| container.sh(&format!("{MAKE}{script}"));
    let seen = inside("make new 8; rm new1 c/5; look");
    assert_eq!(
        sweep(&place, &["--missing", everything]).ok(),
        "70 entries, 2 removed, 68 kept\n"
    );
    assert_eq!(inside("look"), seen);
    let seen = inside("chown -h 77:78 new2; chmod 600 new2; make other 4; look");
    container.stop();
    let daemon = reboot(&place, daemon);
    assert_eq!(sh(&bundle, "look"), seen);
    // What cannot be looked at may hold anything.
    sh(
        &bundle,
        "mkdir closed; make closed/ 4; chmod 0 closed; rm new3",
    );
    let error = sweep(&place, &["--missing", everything]).error();
    assert!(error.contains("closed"), "{error}");
    let seen = sh(&bundle, "chmod 700 closed; look");
    let nowhere = place.path("nowhere");
    sweep(&place, &[nowhere.to_str().expect("UTF-8")]).error();
    sweep(&place, &[]).error();
    assert_eq!(
        sweep(&place, &["--missing", everything]).ok(),
        "84 entries, 2 removed, 82 kept\n"
    );
    daemon.terminate();
    let daemon = Daemon::start(&place);
    assert_eq!(sh(&bundle, "look"), seen);
    drop(daemon);
}

#[test]
fn owners_gc_goes_by_the_directories_that_it_is_told_of() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let [first, second] = [0; 2].map(|_| Bundle::new(&place, &daemon));
    let seen = [&first, &second].map(|bundle| sh(bundle, "make '' 4; look"));
    daemon.terminate();
    let [one, other] = [&first, &second].map(|bundle| bundle.rootfs().display().to_string());
    let list = sweep(&place, &["--dry-run", "--missing", &one]).ok();
    assert!(
        list.ends_with("\n16 entries, 8 would be removed, 8 kept\n"),
        "{list}"
    );
    assert!(list.contains(": not below these directories\n"), "{list}");
    // They live, and only the user could say that they do not.
    let swept = sweep(&place, &[&one]).ok();
    assert!(
        swept.starts_with(
            "16 entries, 0 removed, 16 kept\n4 of those kept are of files that are not below"
        ),
        "{swept}"
    );
    assert_eq!(
        sweep(&place, &["--missing", &one, &other]).ok(),
        "16 entries, 0 removed, 16 kept\n"
    );
    // Another file system's are not concerned.
    let elsewhere = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    set_mode(elsewhere.path(), 0o755);
    let elsewhere = elsewhere.path().to_str().expect("UTF-8");
    assert_eq!(
        sweep(&place, &["--missing", elsewhere]).ok(),
        "16 entries, 0 removed, 16 kept\n"
    );
    let daemon = Daemon::start(&place);
    assert_eq!([&first, &second].map(|bundle| sh(bundle, "look")), seen);
    daemon.terminate();
}

/// Whatever exists keeps its owner: in another directory, moved out of the one that is looked
/// through, or mounted below it.
#[test]
fn owners_gc_removes_nothing_that_lives() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let seen = sh(
        &bundle,
        "mkdir tree other; make tree/ 4; make other/ 4; mv other/0 moved; mv other/1 tree/in; look",
    );
    daemon.terminate();
    let other = bundle.rootfs().join("work/other").display().to_string();
    let tree = bundle.rootfs().join("work/tree").display().to_string();
    for words in [&[other.as_str()][..], &[&tree], &[&other, &tree]] {
        let swept = sweep(&place, words).ok();
        assert!(swept.contains("16 entries, 0 removed, 16 kept"), "{swept}");
    }
    let daemon = Daemon::start(&place);
    assert_eq!(sh(&bundle, "look"), seen);
    daemon.terminate();
}

/// Where an inode's number is another inode's, nobody has to be asked.
#[test]
fn owners_gc_removes_what_has_been_replaced() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    // ext4 gives the lowest free number of the directory's group, and others make files meanwhile.
    let script = "mkdir d; make d/ 200; rm d/*; sync; n=0; while [ $n -lt 3000 ]; do ln -s x d/new$n; \
                  n=$((n + 1)); done; chown -h 8:9 d/new*; look";
    let seen = sh(&bundle, script);
    daemon.terminate();
    let directory = bundle.rootfs().display().to_string();
    let list = sweep(&place, &["--dry-run", &directory]).ok();
    let gone = list.matches("gone: its inode number").count();
    assert!(gone >= 2 && gone.is_multiple_of(2), "{list}");
    let swept = sweep(&place, &[&directory]).ok();
    let expected = format!("6400 entries, {gone} removed, {} kept\n", 6400 - gone);
    assert!(swept.starts_with(&expected), "{swept}");
    let daemon = Daemon::start(&place);
    assert_eq!(sh(&bundle, "look"), seen);
    daemon.terminate();
}

/// What is made, moved and changed while `owners gc` looks through the directories keeps its owner;
/// it may say that it can remove nothing then.
#[test]
fn owners_gc_beside_changes_loses_nothing() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let churn = format!(
        "{MAKE}mkdir a b; make a/ 40
        churn() {{ mv $1/* $2/; ln -s x $2/new; chown -h 3:4 $2/new; mv $2/new $1/; rm $1/new; }}
        until [ -e /work/stop ]; do churn a b; churn b a; : >/work/turned; done; : >/work/stopped; sleep 1000000"
    );
    let container = bundle.start(&["/bin/sh", "-c", &churn]);
    let inside = |script: &str| container.sh(&format!("{MAKE}{script}"));
    inside("until [ -e turned ]; do :; done");
    let everything = bundle.rootfs().display().to_string();
    for round in 0..20 {
        let words: &[&str] = match round % 2 {
            0 => &[&everything],
            _ => &["--missing", &everything],
        };
        let swept = sweep(&place, words);
        assert!(
            swept.status.success() || swept.stderr.contains("meanwhile"),
            "{}",
            swept.stderr
        );
    }
    inside(": >stop; until [ -e stopped ]; do :; done");
    let seen = inside("look");
    for n in 0..40 {
        let owner = format!(" {}:{} ", n + 1, n + 2);
        let line = seen
            .lines()
            .find(|line| line.starts_with(&format!("/work/a/{n} ")));
        assert!(
            line.is_some_and(|line| line.contains(&owner)),
            "{n}: {seen}"
        );
    }
    container.stop();
    daemon.terminate();
}

#[test]
fn a_store_lies_where_it_is_told_to() {
    let place = Place::new();
    let store = place.path("home/deep/own store");
    let words = ["--store", store.to_str().expect("UTF-8")];
    let daemon = Daemon::start_with(&place, &words);
    let bundle = Bundle::new(&place, &daemon);
    let seen = sh(&bundle, "make '' 4; look");
    daemon.terminate();
    assert!(store.join("data.mdb").is_file() && !store_of(&place).exists());
    let directory = bundle.rootfs().display().to_string();
    let swept = sweep(&place, &["--missing", "--store", words[1], &directory]).ok();
    assert_eq!(swept, "8 entries, 0 removed, 8 kept\n");
    fs::remove_dir_all(place.runtime_directory().join("subuidless-recent")).expect("recent");
    let elsewhere = Daemon::start(&place);
    assert!(
        !sh(&bundle, "look").contains("character"),
        "of another store"
    );
    elsewhere.terminate();
    let daemon = Daemon::start_with(&place, &words);
    assert_eq!(sh(&bundle, "look"), seen);
    drop(daemon);
}

/// With a daemon whose store cannot be used for the reason `told`: containers go on, what they make
/// is seen until the next boot, and what had been kept is there once the store can be used again.
fn goes_on_without_its_store(
    spoil: impl FnOnce(&Place, &Path),
    mend: impl FnOnce(&Place, &Path),
    told: &str,
) {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let kept = sh(&bundle, "make kept 4; look");
    daemon.terminate();
    let store = store_of(&place);
    spoil(&place, &store);
    let daemon = Daemon::start(&place);
    daemon.wait_for(&[told, store.to_str().expect("UTF-8")]);
    let made = sh(&bundle, "make new 4; look | grep new");
    let container = bundle.start(&["/bin/sleep", "1000000"]);
    let inside = |script: &str| container.sh(&format!("{MAKE}{script}"));
    assert_eq!(inside("look | grep new"), made);
    assert_eq!(
        inside("touch f; chown 5:6 f; stat -c %u:%g f; rm f"),
        "5:6\n"
    );
    daemon.terminate();
    let daemon = Daemon::start(&place);
    assert_eq!(inside("look | grep new"), made);
    container.stop();
    daemon.terminate();
    mend(&place, &store);
    // What was new has been waiting for it.
    let daemon = Daemon::start(&place);
    assert_eq!(sh(&bundle, "look | grep -v new"), kept);
    assert_eq!(sh(&bundle, "look | grep new"), made);
    let daemon = reboot(&place, daemon);
    assert_eq!(sh(&bundle, "look | grep -v new"), kept);
    assert_eq!(sh(&bundle, "look | grep new"), made);
    daemon.terminate();
}

#[test]
fn a_store_that_is_read_only_is_waited_for() {
    goes_on_without_its_store(
        |_, store| set_mode(&store.join("data.mdb"), 0o400),
        |_, store| set_mode(&store.join("data.mdb"), 0o600),
        "denied",
    );
}

#[test]
fn a_store_of_a_newer_format_is_waited_for() {
    goes_on_without_its_store(
        |_, store| fs::write(store.join("format"), "2\n").expect("another format"),
        |_, store| fs::write(store.join("format"), "1\n").expect("the format"),
        "newer version",
    );
}

fn damaged(damage: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let copy = |place: &Place| place.path("whole.mdb");
    goes_on_without_its_store(
        |place, store| {
            let data = store.join("data.mdb");
            fs::copy(&data, copy(place)).expect("a copy of the store");
            let bytes = damage(fs::read(&data).expect("the store"));
            fs::write(data, bytes).expect("damaging the store");
        },
        |place, store| {
            fs::copy(copy(place), store.join("data.mdb")).expect("the whole store");
        },
        "cannot open the lasting side store",
    );
}

#[test]
fn a_store_that_is_no_store_is_waited_for() {
    damaged(|bytes| vec![b'x'; bytes.len()]);
}

#[test]
fn a_store_that_was_cut_off_is_waited_for() {
    damaged(|mut bytes| {
        bytes.truncate(bytes.len() / 2 - 100);
        bytes
    });
}

#[test]
fn a_store_whose_pages_are_damaged_is_waited_for() {
    // All but its first two pages, which tell of the others.
    damaged(|mut bytes| {
        bytes[8192..].fill(0xa5);
        bytes
    });
}

#[test]
fn a_full_disk_keeps_what_is_new_in_memory() {
    let place = Place::new();
    let store = store_of(&place);
    fs::create_dir_all(&store).expect("a directory for the store");
    let tmpfs = |options: &str, flags: MsFlags| {
        let all = format!(
            "{options},mode=700,uid={},gid={}",
            place.user.uid, place.user.gid
        );
        mount(
            Some("none"),
            &store,
            Some("tmpfs"),
            flags,
            Some(all.as_str()),
        )
        .expect("mounting a small file system");
    };
    let _mount = Unmount(store.clone());
    tmpfs("size=96k", MsFlags::empty());
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let container = bundle.start(&["/bin/sleep", "1000000"]);
    let inside = |script: &str| container.sh(&format!("{MAKE}{script}"));
    let mut seen = inside("mkdir first; make first/ 20; look");
    for n in 0.. {
        assert!(n < 20, "the disk is never full: {}", daemon.log());
        if daemon.log().contains("cannot write the side store to disk") {
            break;
        }
        seen = inside(&format!("mkdir more{n}; make more{n}/ 200; look"));
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    assert_eq!(inside("look"), seen);
    seen = inside("chown -h 7:8 first/*; rm first/3; mkdir last; make last/ 20; look");
    daemon.terminate();
    let daemon = Daemon::start(&place);
    daemon.wait_for(&["cannot write the side store to disk"]);
    assert_eq!(inside("look"), seen);
    tmpfs("size=10m", MsFlags::MS_REMOUNT);
    daemon.wait_for(&["can be written to disk again"]);
    container.stop();
    let daemon = reboot(&place, daemon);
    assert_eq!(sh(&bundle, "look"), seen);
    daemon.terminate();
}

/// A full disk when the daemon starts, or memory with no room for what is recent.
#[test]
fn a_disk_that_is_full_from_the_beginning_stops_nothing() {
    for name in ["home/.local/state/subuidless", "run/subuidless-recent"] {
        let place = Place::new();
        let directory = place.path(name);
        fs::create_dir_all(&directory).expect("a directory");
        let options = format!(
            "size=64k,mode=700,uid={},gid={}",
            place.user.uid, place.user.gid
        );
        mount(
            Some("none"),
            &directory,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("mounting a small file system");
        let _mount = Unmount(directory.clone());
        // Its socket lies elsewhere.
        let socket = place.path("home/socket");
        let mut command = place.subuidless(["serve"]);
        command.arg(&socket);
        let filler = directory.join("filler");
        let mut file = fs::File::create(&filler).expect("a file");
        while file.write_all(&[0; 512]).is_ok() {}
        let daemon = Daemon::spawn(&place, command, socket);
        let bundle = Bundle::new(&place, &daemon);
        let seen = sh(
            &bundle,
            "touch f; chown 5:6 f; stat -c %u:%g f; ln -s x l; chown -h 7:8 l || true; mkfifo p; look | wc -l",
        );
        assert!(seen.starts_with("5:6\n"), "{seen}");
        let log = daemon.log();
        assert!(log.contains("WARN") || log.contains("ERROR"), "{log}");
        daemon.terminate();
    }
}

/// Ends a mount with its test.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
