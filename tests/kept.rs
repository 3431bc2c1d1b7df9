//! What the kernel keeps for nobody but its own root, and a file keeps all the same: devices,
//! attributes, access control lists, owners of symbolic links; also after what is like a boot. And
//! 32-bit programs.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::{Bundle, Daemon, Place, assert_same_lines, run, tool};

/// Runs `make`, and after it `look`, in a Debian; then `look` again with another daemon, in another
/// container, after a boot: what lies in memory is gone.
fn make_and_look(make: &str, look: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::debian(&place, &daemon);
    let bash = |script: &str| bundle.run(&["/bin/bash", "-euc", script]).ok();
    let made = bash(&format!("mkdir /work; cd /work\n{make}"));
    let seen = bash(&format!("cd /work\n{look}"));
    assert!(daemon.lines(&["ERROR"]).is_empty(), "{}", daemon.log());
    daemon.terminate();
    fs::remove_dir_all(place.runtime_directory().join("subuidless-recent"))
        .expect("what lies in memory");
    let _daemon = Daemon::start(&place);
    let again = bash(&format!("cd /work\n{look}"));
    assert_same_lines(seen.as_bytes(), again.as_bytes());
    made + &seen
}

#[test]
fn devices_look_like_devices_and_cannot_be_opened() {
    let seen = make_and_look(
        "mknod null c 1 3; mknod disk b 259 1048575; mknod -m 640 tty c 4 64; chown 1:5 null; chmod 666 null
        ln null hard; mv disk moved; mkdir copies; cp -a null moved copies
        tar -cf all.tar null moved tty; mkdir out; tar -C out -xpf all.tar; rsync -aD out/ synced/
        rm tty; touch tty; test -c null; test -b moved
        cat null 2>&1 | sed 's/.*: //'; tar --numeric-owner -tvf all.tar | awk '{ print $1, $2, $3, $6 }'",
        "stat -c '%n %F %t:%T %u:%g %a %h' null hard moved tty copies/* out/* synced/*",
    );
    let expected = "No such device or address
crw-rw-rw- 1/5 1,3 null
brw-r--r-- 0/0 259,1048575 moved
crw-r----- 0/0 4,64 tty
null character special file 1:3 1:5 666 2
hard character special file 1:3 1:5 666 2
moved block special file 103:fffff 0:0 644 1
tty regular empty file 0:0 0:0 644 1
copies/moved block special file 103:fffff 0:0 644 1
copies/null character special file 1:3 1:5 666 1
out/moved block special file 103:fffff 0:0 644 1
out/null character special file 1:3 1:5 666 1
out/tty character special file 4:40 0:0 640 1
synced/moved block special file 103:fffff 0:0 644 1
synced/null character special file 1:3 1:5 666 1
synced/tty character special file 4:40 0:0 640 1
";
    assert_same_lines(expected.as_bytes(), seen.as_bytes());
}

#[test]
fn owners_of_what_carries_no_attributes_outlive_a_boot_and_are_nobody_elses() {
    let seen = make_and_look(
        "ln -s /nowhere link; mkfifo fifo; chown -h 7:8 link; chown 9:10 fifo; ln link hard; mkdir d; mv fifo d
        for n in 1 2 3; do ln -s x gone; chown -h 99:99 gone; rm gone; done; ln -s x gone
        ln -s y other; chown -h 5:5 other; mv -T other link2; cp -a link d/copy",
        "stat -c '%n %F %u:%g' link hard d/fifo gone link2 d/copy",
    );
    let expected = "link symbolic link 7:8
hard symbolic link 7:8
d/fifo fifo 9:10
gone symbolic link 0:0
link2 symbolic link 5:5
d/copy symbolic link 7:8
";
    assert_same_lines(expected.as_bytes(), seen.as_bytes());
}

#[test]
fn attributes_of_ours_are_hidden_and_those_of_roots_are_kept() {
    let seen = make_and_look(
        "touch f; chown 5:6 f
        setfattr -n user.rootlesscontainers -v x f 2>&1 | sed 's/.*: //'
        getfattr -n user.rootlesscontainers f 2>&1 | sed 's/.*: //'
        setfattr -x user.rootlesscontainers f 2>&1 | sed 's/.*: //'
        getfattr -d -m - f; setfattr -n user.mine -v own f
        setfattr -n trusted.overlay.opaque -v y f; setfattr -n security.label -v 0x00ff f; setfattr -n trusted.gone -v y f
        setfattr -x trusted.gone f; setcap cap_net_raw+ep f; cp -a f copy",
        "getfattr -d -m - -e hex f copy | grep -v capability; getcap f copy; stat -c '%n %u:%g' f copy
        ! setpriv --reuid 5 --regid 6 --clear-groups getfattr -d -m - f | grep trusted",
    );
    let attributes = "security.label=0x00ff\ntrusted.overlay.opaque=0x79\nuser.mine=0x6f776e\n\n";
    let expected = format!(
        "Operation not supported\nNo such attribute\nNo such attribute\n\
         # file: f\n{attributes}# file: copy\n{attributes}f cap_net_raw=ep\ncopy cap_net_raw=ep\nf 5:6\ncopy 5:6\n"
    );
    assert_same_lines(expected.as_bytes(), seen.as_bytes());
}

#[test]
fn access_control_lists_name_whomever_they_like() {
    let seen = make_and_look(
        "touch f; mkdir d; setfacl -m u:999:rwx,g:70000:r-x,u:0:r f; chmod 640 f; setfacl -d -m u:123456:rwx d
        cp -a f copy; tar --acls -cf all.tar f; mkdir out; tar --acls -C out -xpf all.tar; rsync -aA f synced
        cp -a f bare; setfacl -b bare; getfacl -R . >list; cp -r f other; setfacl --restore=list; getfacl -nc f | md5sum >sum
        setfacl -m u:998:r plain 2>/dev/null || touch plain",
        "getfacl -nc f; getfacl -nc d | grep default; getfacl -nc copy out/f synced | md5sum; getfacl -nc f f f | md5sum
        getfacl -nc bare; stat -c %a f",
    );
    let (list, rest) = seen.split_once("\n\n").expect("a list and others");
    assert_eq!(
        list,
        "user::rw-\nuser:0:r--\nuser:999:rwx\t\t\t#effective:r--\ngroup::r--\ngroup:70000:r-x\t\t#effective:r--\nmask::r--\nother::---"
            .replace("\t\t\t#", "\t#")
            .replace("\t\t#", "\t#")
    );
    assert!(rest.contains("default:user:123456:rwx"), "{rest}");
    let sums: Vec<&str> = rest.lines().filter(|line| line.ends_with(" -")).collect();
    assert_eq!(sums.len(), 2);
    assert_eq!(sums[0], sums[1], "all copies have the list");
    assert!(
        rest.ends_with("user::rw-\ngroup::r--\nother::---\n\n640\n"),
        "{rest}"
    );
}

/// A job of which every step leaves something that only we keep.
const JOB: &str = "cd /work; umask 022; i=0
    while [ $i -lt 250 ]; do
        i=$((i+1)); ln -s x l$i; chown -h $i:$((i+1)) l$i; mkfifo p$i; chown $i:5 p$i; mknod d$i c 1 $i; chown 6:$i d$i
        : >f$i; chown $i:7 f$i; mkdir o$i; chown 8:$i o$i; mv l$i m$i; mv d$i o$i/d
        case $i in *3) rm m$i p$i;; *5) chown -h 0:0 m$i;; *7) rm -r o$i; ln -s y o$i;; esac
    done; echo done >state";
const LISTING: &str = "cd /work; rm -f state; find . | sort | while read f; do stat -c '%n %F %u:%g %t:%T %a' $f; done";

#[test]
fn workers_and_daemons_that_are_killed_two_hundred_times_lose_nothing() {
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    let undisturbed = Bundle::new(&place, &daemon);
    undisturbed.sh(JOB);
    let expected = undisturbed.sh(LISTING);
    assert!(
        expected.contains("./o1/d character special file 6:1 1:1 644\n"),
        "{expected}"
    );
    let mut kills = 0;
    let mut seed = 1u64;
    while kills < 200 {
        let bundle = Bundle::new(&place, &daemon);
        let container = bundle.start(&[
            "/bin/sh",
            "-euc",
            &format!("({JOB}) 2>/work/state || echo failed >>/work/state"),
        ]);
        let state = bundle.rootfs().join("work/state");
        let is_done = || fs::read_to_string(&state).is_ok_and(|state| !state.is_empty());
        while !is_done() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(std::time::Duration::from_micros(2_000 + (seed >> 50)));
            let workers = place.workers_of(&container.id);
            let is_daemons_turn = seed >> 33 & 15 == 0 && !workers.is_empty();
            let victims = if is_daemons_turn {
                vec![daemon.pid()]
            } else {
                workers
            };
            for victim in victims {
                if nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).is_ok() {
                    kills += 1;
                }
            }
            if is_daemons_turn {
                daemon.wait();
                daemon = Daemon::start(&place);
                // With neither of them the kernel has nobody to ask.
                common::until(
                    "the worker has found the daemon, or ended with its job",
                    || {
                        let is_found =
                            !daemon.lines(&["container of an earlier daemon"]).is_empty();
                        (is_found || is_done()).then_some(())
                    },
                );
            }
        }
        assert_eq!(
            fs::read_to_string(&state).expect("its state"),
            "done\n",
            "{}",
            daemon.log()
        );
        assert_same_lines(expected.as_bytes(), bundle.sh(LISTING).as_bytes());
    }
}

#[test]
fn what_is_kept_of_files_that_are_no_more_is_swept() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    bundle.sh("cd /work; for n in 1 2 3; do ln -s x l$n; chown -h $n:$n l$n; done; rm l2");
    daemon.terminate();
    let sweep = |options: &[&str]| {
        let mut command = place.subuidless(["owners", "gc"]);
        run(command.args(options).arg(bundle.rootfs())).ok()
    };
    // By handle and by birth.
    let list = sweep(&["--dry-run", "--missing"]);
    assert!(
        list.contains(" of 2:2: not below these directories\n"),
        "{list}"
    );
    assert!(
        list.ends_with("6 entries, 2 would be removed, 4 kept\n"),
        "{list}"
    );
    assert_eq!(sweep(&["--missing"]), "6 entries, 2 removed, 4 kept\n");
    assert_eq!(sweep(&["--missing"]), "4 entries, 0 removed, 4 kept\n");
    let _daemon = Daemon::start(&place);
    assert_eq!(bundle.sh("stat -c %u /work/l1 /work/l3"), "1\n3\n");
}

#[test]
fn a_store_that_cannot_be_used_is_told_of_and_the_container_goes_on() {
    let place = Place::new();
    let newer = place.path("home/newer");
    let damaged = place.path("home/damaged");
    for directory in [&newer, &damaged] {
        fs::create_dir(directory).expect("a directory");
        common::set_mode(directory, 0o700);
        place.give_to_user(directory);
    }
    fs::write(newer.join("format"), "2\n").expect("another format");
    place.give_to_user(&newer.join("format"));
    fs::write(damaged.join("data.mdb"), [0x55; 9000]).expect("no database");
    place.give_to_user(&damaged.join("data.mdb"));
    let nowhere = place.path("home/missing/deep");
    fs::write(place.path("home/missing"), "").expect("a file in the way");
    for (directory, reason) in [
        (&newer, "newer version"),
        (&damaged, "MDB_INVALID"),
        (&nowhere, "no lasting side store"),
    ] {
        let directory = directory.to_str().expect("UTF-8");
        let daemon = Daemon::start_with(&place, &["--store", directory]);
        let bundle = Bundle::new(&place, &daemon);
        let script = "cd /work; ln -s x l; chown -h 7:8 l; stat -c %u:%g l";
        assert_eq!(bundle.sh(script), "7:8\n");
        let log = daemon.log();
        assert!(log.contains(reason) && log.contains(directory), "{log}");
        daemon.terminate();
    }
}

fn compiled(place: &Place, name: &str, options: &[&str]) -> PathBuf {
    let source = place.path("program.c");
    fs::write(&source, include_str!("kept/abi.c")).expect("a source");
    let program = place.path(name);
    let mut command = Command::new(tool("gcc"));
    run(command
        .args(options)
        .args(["-static", "-o"])
        .arg(&program)
        .arg(&source))
    .ok();
    program
}

#[test]
fn a_32_bit_program_sees_what_a_64_bit_one_sees() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let [wide, short] =
        [("wide", &["-O1"][..]), ("short", &["-m32"][..])].map(|(name, options)| {
            let program = compiled(&place, name, options);
            let bundle =
                Bundle::new(&place, &daemon).with_mount(&program, "/program", &["bind", "ro"]);
            bundle.run(&["/program"]).ok()
        });
    assert!(wide.contains("u 100640 70001:34"), "{wide}");
    let (short, more) = short
        .split_once("--\n")
        .expect("what only 32-bit programs ask");
    assert_same_lines(wide.as_bytes(), short.as_bytes());
    // Ids of more than 16 bits overflow.
    assert_eq!(
        more,
        "stat 65534:65534\nchown 0\nf 100644 12:80000\ngetuid 65534\ngetgroups 8 9 65534\n"
    );
}
