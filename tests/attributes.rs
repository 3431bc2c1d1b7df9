//! Extended attributes: what was set is what is seen, also after everything but the files themselves
//! has been started again; those of subuidless are hidden.

mod common;

use common::real::{compare, compare_in, compare_with};
use common::{Daemon, Pair, Place, as_root_and_below_run, assert_same_lines, compile, run};

#[test]
fn attributes_of_files_and_directories_are_what_they_were_set_to() {
    let seen = compare(include_str!("attributes/programs.sh"));
    assert!(
        seen.contains(
            "# file: prog
security.b=0x32
"
        ),
        "{seen}"
    );
}

#[test]
fn attributes_of_root_s_are_kept_and_copied_and_are_root_s_alone() {
    compare(
        "touch f; chown 5:6 f; setfattr -n user.mine -v own f
        setfattr -n trusted.overlay.opaque -v y f; setfattr -n security.label -v 0x00ff f
        setfattr -n trusted.gone -v y f; setfattr -x trusted.gone f
        setcap cap_net_raw+ep f; cp -a f copy
        getfattr -d -m - -e hex f copy | grep -v capability; getcap f copy
        ! setpriv --reuid 5 --regid 6 --clear-groups getfattr -d -m - f | grep trusted",
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
        "attributes/calls.c",
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
                try setfattr -h -n $name -v 0x00ff0a0041 $file
                try getfattr -h -n $name -e hex $file
                try setfattr -h -n $name -v '' $file; try getfattr -h -n $name -e hex $file
                try setfattr -h -x $name $file; try setfattr -h -x $name $file
                try getfattr -h -n $name $file
            done
            setfattr -h -n trusted.a -v 1 $file; setfattr -h -n trusted.b -v 2 $file
            setfattr -h -n security.c -v 3 $file
            setfattr -h -x trusted.b $file
        done
        list .; mkdir moved; mv link fifo device socket moved; rsync -aAXHD moved/ rsync
        cp -a moved copy; list .
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
            "attributes/calls.c",
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
        "attributes/calls.c",
    );
    let script = r#"umask 022; echo >file; mkdir directory d; ln -s file link; mkfifo fifo
        chown 70000:5 fifo directory
        for file in file directory; do "$ATTRIBUTES" -a values $file; "$ATTRIBUTES" -a names $file
        done
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
    let [oracle, ours] = as_root_and_below_run(&place, script, ("ATTRIBUTES", &program));
    assert!(
        oracle.contains("file, at: get trusted.name 1: ERANGE\n"),
        "{oracle}"
    );
    assert_same_lines(oracle.as_bytes(), ours.as_bytes());
}

#[test]
fn python_sees_what_the_kernel_would_show() {
    compare_with("python3-minimal", &[], "/work", |_| {
        include_str!("attributes/python.sh").to_owned()
    });
}
