//! The fast path: the preloaded library answers what the worker would, and leaves calls to the
//! worker where it must. With `--no-fast` and SUBUIDLESS_FAST=0 there is no trace of it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};

use common::{
    Place, Podman, Ran, SHORT, Started, assert_same_lines, compile, debian_tar, example, guard_of,
    has_listener, run, set_mode, small_rootfs, tool, until,
};

/// A shell script under `subuidless run`.
fn sh(place: &Place, options: &[&str], script: &str) -> Ran {
    let mut command = place.subuidless(["run"]);
    run(command.args(options).args(["--", "sh", "-euc", script]))
}

/// The output of a script that writes nothing to standard error.
#[track_caller]
fn silent(ran: Ran) -> String {
    assert_eq!(ran.stderr, "");
    ran.ok()
}

/// What a program calls, by strace(1): the library is in it if it looks for owners itself.
fn uses_library(calls: &str) -> bool {
    calls.contains("\"user.rootlesscontainers\"")
}

/// Root's own directory and the user's.
fn directories(place: &Place) -> [PathBuf; 2] {
    ["oracle", "ours"].map(|name| {
        let directory = place.path(name);
        fs::create_dir(&directory).expect("a new directory");
        set_mode(&directory, 0o755);
        if name == "ours" {
            place.give_to_user(&directory);
        }
        directory
    })
}

/// What `script` prints as real root, which must be what it prints under `subuidless run`, with the
/// library and without.
#[track_caller]
fn compare(place: &Place, [oracle, ours]: &[PathBuf; 2], script: &str) {
    let script = format!("umask 022\n{script}");
    let mut real = place.as_root("bash");
    let expected = run(real.args(["-euc", &script]).current_dir(oracle)).ok();
    for options in [&[][..], &["--no-fast"]] {
        let mut emulated = place.subuidless(["run"]);
        emulated.args(options).args(["--", "bash", "-euc", &script]);
        let found = run(emulated.current_dir(ours)).ok();
        assert_same_lines(expected.as_bytes(), found.as_bytes());
    }
}

const TREE: &str = "
    rm -rf tree; mkdir tree; cd tree
    mkdir -p plain/a/b owned/c shut
    for name in 1 2 3; do echo $name >plain/$name; echo $name >owned/$name; done
    ln -s 1 plain/link; ln -s ../plain owned/link; ln -s nowhere owned/dangling; mkfifo owned/fifo
    chown -R 33:34 owned; chown :50 plain/1; chown 51 plain/2; chown -h 52:53 owned/link
    chown 70000:4294967294 plain/3; chmod 4755 owned/1; chmod 0 owned/2; chmod 2775 owned/c
    echo x >owned/c/inherits; chown 1:2 shut; chmod 0 shut
    cd ..";

const LOOKS: &str = r#"
    cd tree
    find . -printf '%U:%G %m %y %s %n %l %p\n' | sort
    ls -lnR . | grep -v ^total; ls -ln owned/link/ owned/c/inherits
    stat -c '%u:%g %f %N' owned/* plain/* . ..; stat -L -c '%u:%g %F' owned/link owned/fifo
    stat owned/dangling/x missing plain/1/x 2>&1 || true
    tar c --sort=name . | tar tv --numeric-owner | awk '{print $1, $2, $6}'
    find . -user 33 -o -group 50 | sort; find -L owned/link -uid 51
    perl -e 'use File::stat; for (@ARGV) { $s = stat $_; print $s->uid, q{:}, $s->gid, qq{\n} }' \
        plain/1 owned/1
    cp -a owned copy; find copy -printf '%U:%G %m %p\n' | sort; rm -rf copy
    [ -O plain/a ] && [ ! -O owned/1 ] && [ -G plain/2 ] && [ -u owned/1 ]; echo $?"#;

#[test]
fn programs_print_what_they_print_as_root_with_the_library_and_without() {
    let place = Place::new();
    let places = directories(&place);
    compare(&place, &places, &format!("{TREE}\n{LOOKS}"));
}

#[test]
fn attributes_are_those_that_root_sees_with_the_library_and_without() {
    let place = Place::new();
    let places = directories(&place);
    let script = r#"
        mkdir d; cd d; echo >plain; echo >owned; mkdir dir; ln -s plain link; mkfifo fifo
        echo >full
        setfattr -n user.a -v 1 plain; setfattr -n user.a -v 1 owned; chown 33:34 owned dir full
        setfattr -n security.x -v 2 owned; setfattr -n trusted.y -v 3 dir
        setfacl -m u:50:rw plain; setfacl -d -m g:51:r dir; setfacl -m u::rw owned
        for n in $(seq 40); do setfattr -n user.name-$n -v "$n" full; done
        for file in plain owned dir full; do
            getfattr -d -m - $file | grep -v selinux | sort; getfacl -n $file
            for name in user.a user.b security.x security.capability trusted.y trusted.z \
                system.posix_acl_access system.posix_acl_default user.rootlesscontainers \
                user.subuidless.security.x trusted. nonsense; do
                getfattr --only-values -n $name $file 2>&1 | od -An -c | head -3
            done
        done
        for file in link fifo; do getfattr -h -d -m - $file 2>&1 || true; done
        chown -h 52 link; getfattr -h -d -m - link fifo 2>&1 || true
        ls -ln | grep -v ^total; cp -a . ../copy; cd ../copy
        getfattr -R -d -m - . | grep -v selinux | sort
        cd ..; rm -rf d copy"#;
    compare(&place, &places, script);
}

#[test]
fn the_library_is_used_by_programs_of_both_libraries_and_only_where_it_is_turned_on() {
    let place = Place::new();
    let source = "fast/look.c";
    let [gnu, musl, old] = [
        (vec!["gcc"], "gnu"),
        (vec!["musl-gcc"], "musl"),
        // The names that programs were linked with before glibc 2.33.
        (vec!["gcc", "-DOLD"], "old"),
    ]
    .map(|(compiler, name)| compile(&place, &compiler, name, source));
    let script = |program: &Path| {
        format!(
            "echo >f; chown 42:43 f; strace -o calls {0} f . /proc/self/stat; cat calls >&2",
            program.display()
        )
    };
    for program in [&gnu, &musl, &old] {
        let ran = sh(&place, &[], &script(program));
        assert!(uses_library(&ran.stderr), "{}", ran.stderr);
        let shown = ran.ok();
        assert_eq!(shown.lines().next(), Some("42:43 42:43 42:43 42:43 42:43"));
        let without = sh(&place, &["--no-fast"], &script(program));
        assert!(!uses_library(&without.stderr), "{}", without.stderr);
        assert_eq!(without.ok(), shown);
    }
    for (options, value, is_on) in [
        (&[][..], "1", true),
        (&[], "0", false),
        (&[], "", true),
        (&["--env", "SUBUIDLESS_FAST=0"], "1", false),
        (&["--env", "SUBUIDLESS_FAST=1"], "0", true),
        (&["--no-fast", "--env", "SUBUIDLESS_FAST=1"], "1", false),
    ] {
        let mut command = place.subuidless(["run"]);
        command
            .args(options)
            .args(["--", "sh", "-euc", &script(&gnu)]);
        let ran = run(command.env("SUBUIDLESS_FAST", value));
        assert_eq!(
            uses_library(&ran.stderr),
            is_on,
            "{options:?} {value}: {}",
            ran.stderr
        );
    }
}

/// A program that knows the marks sees the kernel's answers only where the fast path is on.
#[test]
fn without_the_fast_path_the_constant_means_nothing() {
    let place = Place::new();
    let mark = compile(&place, &["gcc"], "mark", "fast/mark.c");
    let script = format!("echo >f; chown 42:43 f; {} f", mark.display());
    let library = place.runtime_directory().join("subuidless");
    assert_eq!(
        silent(sh(&place, &["--no-fast"], &script)),
        "42\nhidden\n42\n"
    );
    assert!(!library.exists());
    let with = sh(&place, &[], &script).ok();
    assert!(with.starts_with("0\nseen\n"), "{with}");
    assert!(library.exists());
}

#[test]
fn the_library_needs_nothing_and_has_the_names_that_the_table_says() {
    let place = Place::new();
    silent(sh(&place, &[], "cp \"${LD_PRELOAD##*:}\" library"));
    let library = place.path("home/library");
    let symbols = run(Command::new(tool("nm"))
        .args(["-D", "--format=posix"])
        .arg(&library))
    .ok();
    let of_type = |wanted: &str| -> Vec<&str> {
        let lines = symbols
            .lines()
            .map(|line| line.split_once(' ').expect("a symbol"));
        let found = lines.filter(|(_, rest)| rest.starts_with(wanted));
        found.map(|(name, _)| name).collect()
    };
    assert_eq!(of_type("U"), [""; 0]);
    assert_eq!(of_type("w"), ["__errno_location", "dl_iterate_phdr"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("src/syscalls/fast.rs")).expect("the source");
    let lists = text.split("&[&str] =").skip(1);
    let mut named: Vec<&str> = lists
        .flat_map(|list| {
            list.split(']')
                .next()
                .unwrap_or_default()
                .split('"')
                .skip(1)
                .step_by(2)
        })
        .collect();
    let mut exported = of_type("T");
    named.sort_unstable();
    exported.sort_unstable();
    assert_eq!(exported, named);
    let needed = run(Command::new(tool("readelf")).arg("-dW").arg(&library)).ok();
    assert!(
        !needed.contains("NEEDED") && !needed.contains("TEXTREL"),
        "{needed}"
    );
}

#[test]
fn no_loader_says_a_word_wherever_the_library_cannot_be_loaded() {
    let place = Place::new();
    let short = compile(&place, SHORT, "short", "fast/nothing.c");
    let musl = compile(&place, &["musl-gcc"], "musl", "fast/nothing.c");
    // A root directory in which a program with shared libraries runs.
    let root = place.path("home/other");
    fs::create_dir(&root).expect("a directory");
    let script = format!(
        "ls=$(command -v ls); for file in $ls $(ldd $ls | grep -o '/[^ ]*'); do
             mkdir -p other/$(dirname $file); cp $file other/$file; done
         inside() {{ chroot other $ls -ldn /; }}
         {short}; {musl}; sh -c '{short}'; find . -maxdepth 1 -name other -exec {short} ';'
         printf '#!{short}\n' >script; chmod 755 script; ./script
         inside; unshare -r chroot other $ls -ldn /
         unshare -rm sh -euc 'mount -t tmpfs none \"$XDG_RUNTIME_DIR\"; $0 -ldn .' $ls
         ls -ldn .; mv \"$XDG_RUNTIME_DIR/subuidless\" away
         ls -ldn .; sh -c 'ls -ldn .; env true'; perl -e 'system(q(ls -ldn .))'
         mv away \"$XDG_RUNTIME_DIR/subuidless\"; ls -ldn .",
        short = short.display(),
        musl = musl.display()
    );
    place.give_to_user(&root);
    let printed = silent(sh(&place, &[], &script));
    assert_eq!(printed.lines().count(), 8, "{printed}");
    // As the first program, too.
    silent(run(&mut place.subuidless([
        Path::new("run"),
        Path::new("--"),
        &short,
    ])));
}

/// One that must come first, and one that is a part of the program, as with clang.
#[test]
fn programs_with_a_sanitizer_run() {
    for option in ["-shared-libasan", "-static-libasan"] {
        let place = Place::new();
        let mut compiler = vec!["gcc", "-fsanitize=address"];
        compiler.extend((option == "-static-libasan").then_some(option));
        let look = compile(&place, &compiler, "look", "fast/look.c");
        let script = format!("echo >f; chown 42:43 f; {} f", look.display());
        let printed = silent(sh(&place, &[], &script));
        assert_eq!(printed, "42:43 42:43 42:43 42:43 42:43\n", "{option}");
    }
}

/// Valgrind examines the calls of the library as if they were the program's.
#[test]
fn valgrind_finds_no_fault_in_a_program_that_has_none() {
    let place = Place::new();
    let look = compile(&place, &["gcc"], "look", "fast/look.c");
    for valgrind in ["memcheck", "helgrind"] {
        let script = format!(
            "echo >f; chown 42:43 f; valgrind -q --tool={valgrind} {} f . f",
            look.display()
        );
        let printed = silent(sh(&place, &[], &script));
        assert!(printed.starts_with("42:43"), "{printed}");
    }
}

/// A user may not say to be root, below a command of the host either; and what waits is interrupted
/// and cancelled as without the library.
#[test]
fn messages_have_their_senders_ids_and_waits_for_them_end_as_without_the_library() {
    let place = Place::new();
    let expected = "claim 0:0: sent\nfrom the sender 0:0\nclaim 5:6: sent\nfrom the sender 0:0\n\
        claim 42:43: sent\nclaim 0:0: Operation not permitted\n\
        claim 42:43: Operation not permitted\n\
        from the sender 42:43\nfrom the sender 42:43\n\
        interrupted: -1 Interrupted system call\ncleaned up\ncancelled\n";
    let of_glibc = "no message: -1 Bad address\nno address: -1 Bad address\n";
    for (compiler, rest) in [
        (&["gcc", "-pthread"][..], of_glibc),
        (&["gcc", "-pthread", "-fexceptions"], of_glibc),
        (&["musl-gcc"], ""),
    ] {
        let messages = compile(&place, compiler, "messages", "fast/messages.c");
        let program = messages.to_str().expect("UTF-8");
        let printed = silent(sh(&place, &[], program));
        assert_eq!(printed, format!("{expected}{rest}"), "{compiler:?}");
    }
}

#[test]
fn threads_have_their_own_descriptors_and_can_be_cancelled_in_a_blocking_open() {
    let place = Place::new();
    let places = directories(&place);
    let threads = compile(&place, &["gcc", "-pthread"], "threads", "fast/threads.c");
    let script = format!("mkdir d; cd d; {}; cd ..; rm -r d", threads.display());
    compare(&place, &places, &script);
}

#[test]
fn no_loader_says_a_word_whatever_the_environment_is_like() {
    let place = Place::new();
    let short = compile(&place, SHORT, "short", "fast/nothing.c");
    let variables = compile(&place, &["gcc"], "variables", "fast/variables.c");
    let script = format!(
        "{0} {1}; {0} /bin/true",
        variables.display(),
        short.display()
    );
    assert_eq!(silent(sh(&place, &[], &script)), "0\n".repeat(8));
}

#[test]
fn no_loader_says_a_word_in_a_program_that_has_restricted_itself() {
    let place = Place::new();
    let landlock = compile(&place, &["gcc"], "landlock", "fast/landlock.c");
    let script = format!(
        "echo >f; chown 42:43 f; {} sh -c 'stat -c %u:%g f; env stat -c %u:%g f'; stat -c %u:%g f",
        landlock.display()
    );
    assert_eq!(silent(sh(&place, &[], &script)), "42:43\n".repeat(3));
}

#[test]
fn what_a_user_preloads_stays_and_comes_first() {
    let place = Place::new();
    let own = compile(&place, &["gcc", "-shared", "-fPIC"], "own.so", "fast/own.c");
    let own_variable = format!("LD_PRELOAD={}", own.display());
    let script =
        "echo \"$LD_PRELOAD\"; echo >f; stat -c %u f; chroot / sh -c 'echo \"$LD_PRELOAD\"'
        mkdir d; echo >d/f; ls d; perl -e 'open $f, q(<), q(d/f) or die; open $f, q(>), q(d/g) or die'
        ls d";
    let printed = silent(sh(&place, &["--env", &own_variable], script));
    let lines: Vec<&str> = printed.lines().collect();
    let (first, ours) = lines[0].split_once(':').expect("two libraries");
    assert_eq!(Path::new(first), own);
    assert!(ours.contains("/subuidless-fast-"), "{ours}");
    assert_eq!(lines[1], "4711");
    assert_eq!(lines[2], lines[0]);
    assert_eq!(lines[3..], ["f", "f", "g"]);
    // Where ours cannot be loaded, the user's own stays.
    let rootfs = small_rootfs(&place);
    let script = format!(
        "chroot {} /bin/sh -c 'echo \"$LD_PRELOAD\"'",
        rootfs.display()
    );
    let printed = silent(sh(&place, &["--env", &own_variable], &script));
    assert_eq!(Path::new(printed.trim_end()), own);
}

#[test]
fn a_program_with_a_filter_of_its_own_is_never_killed_for_a_call_of_the_librarys() {
    let place = Place::new();
    let compiler = ["gcc", "-pthread"];
    let filters = compile(&place, &compiler, "filters", "fast/filters.c");
    for how in ["prctl", "seccomp", "thread"] {
        for when in ["early", "late"] {
            let script = format!(
                "echo >f; chown 42:43 f; {} {how} {when} f stat -c %u:%g f; stat -c %u:%g f",
                filters.display()
            );
            let printed = silent(sh(&place, &[], &script));
            let looks = if when == "late" { 5 } else { 4 };
            assert_eq!(printed, "42:43\n".repeat(looks), "{how} {when}");
        }
    }
    // Another process than the one that has loaded a filter goes on being answered.
    let script = format!(
        "echo >f; chown 42:43 f; {} seccomp early f >&2
         strace -o calls stat f >/dev/null; cat calls",
        filters.display()
    );
    assert!(uses_library(&sh(&place, &[], &script).ok()));
}

/// The C library makes chmod(2) where the library would make fchmodat(2), and so on.
#[test]
fn a_program_with_a_filter_of_its_own_makes_the_calls_of_the_c_library() {
    let place = Place::new();
    let forbid = compile(&place, &["gcc"], "forbid", "fast/forbid.c");
    for when in ["", "early"] {
        let script = format!("mkdir d; cd d; {} {when}; cd ..; rm -r d", forbid.display());
        let without = silent(sh(&place, &["--no-fast"], &script));
        let with = silent(sh(&place, &[], &script));
        assert_same_lines(without.as_bytes(), with.as_bytes());
    }
}

#[test]
fn signals_interrupt_no_call_and_may_come_in_the_middle_of_one() {
    let place = Place::new();
    let many = std::env::var_os("SUBUIDLESS_TEST_MANY").is_some();
    let creations = if many { "100000" } else { "5000" };
    for (compiler, calls, creations) in [("gcc", "100000", creations), ("musl-gcc", "5000", "1000")]
    {
        let signals = compile(&place, &[compiler, "-pthread"], compiler, "fast/signals.c");
        let script = format!(
            "mkdir d; echo >d/owned; ln -s x d/link; chown 42:43 d/owned; chown -h 42:43 d/link
            mkdir d/hands-down; chown 0:43 d/hands-down; chmod g+s d/hands-down
            {} d {calls} {creations}; rm -r d",
            signals.display(),
        );
        check_signals(&sh(&place, &[], &script).ok());
    }
}

#[track_caller]
fn check_signals(printed: &str) {
    let expected = "threads: 8 right\nnext descriptor: 1\nvfork: 0\nsignal handler: 42\n\
        bad path: -1 14\nbad buffer: -1 14\nread-only buffer: -1 14\nunknown flag: -1 22\n\
        unknown mask: -1 22\n";
    let kinds = [
        "stat",
        "lstat",
        "fstat",
        "fstatat",
        "statx",
        "link",
        "chown",
        "fchown",
        "one id",
        "chmod",
        "utimensat",
        "access",
        "ids",
        "mkdir",
        "symlink",
        "mkfifo",
        "open",
        "creat",
        "inheriting",
    ];
    let kinds = kinds.map(|kind| format!("{kind}: 0 failed, 0 wrong\n"));
    assert_eq!(printed, format!("{expected}{}", kinds.concat()));
}

/// A series of random calls, some of which are made by functions that the library replaces, prints
/// what it prints without the library, which tests/conformance.rs compares with the kernel.
#[test]
fn random_calls_print_the_same_by_functions_and_without_the_library() {
    const RANDOM: &str = "random,ids-random,create-random";
    let place = Place::new();
    let probe = example("probe");
    let directory = place.path("home/probe");
    let print = |options: &[&str], seed: &str, functions: &str| {
        let mut command = place.subuidless(["run"]);
        command.args(options).args(["--", "sh", "-euc"]);
        command.arg("mkdir \"$0\"; \"$@\"; chmod -R u+rwx \"$0\"; rm -rf \"$0\"");
        command
            .arg(&directory)
            .arg(&probe)
            .arg("--dir")
            .arg(&directory);
        command.args(["--ops", "3000", "--only", RANDOM, "--seed", seed]);
        run(command.args(["--functions", functions])).ok()
    };
    for (seed, functions) in [("1", "100"), ("2", "50"), ("3", "50")] {
        let without = print(&["--no-fast"], seed, "0");
        let with = print(&[], seed, functions);
        assert_same_lines(without.as_bytes(), with.as_bytes());
    }
}

/// /proc/PID/status is the kernel's, but what the library opens is what root would see.
#[test]
fn programs_that_list_processes_show_emulated_ids() {
    let place = Place::new();
    let places = directories(&place);
    let script = r"
        setpriv --reuid 33 --regid 34 --groups 50,51 sleep 1000.25 & p=$!
        setpriv --reuid 71234 --regid 34 --clear-groups sleep 1000.25 & q=$!
        until [ $(ps -o comm= -p $p,$q | grep -c sleep) = 2 ]; do sleep 0.01; done
        ps -o euid,ruid,suid,fuid,egid,rgid,sgid,fgid,supgid,comm -p $p,$q
        pgrep -c -u 71234 -x sleep; ps -u 71234 -o comm
        grep -h -E '^(Uid|Gid|Groups|CapEff|CapPrm)' /proc/$p/status /proc/$q/task/*/status
        perl -e 'chdir shift; open $f, q(<), q(status) or die; print grep /^[UG]id:/, <$f>' /proc/$p
        setpriv --reuid 33 --regid 34 --clear-groups grep -h Uid /proc/self/status /proc/$q/status
        mkdir d; echo mine >d/status; cat d/status; cd d; cat status
        kill $p $q";
    let print = |mut command: Command, place: &Path| {
        run(command.args(["-euc", script]).current_dir(place)).ok()
    };
    let real = print(place.as_root("bash"), &places[0]);
    let emulated = print(place.subuidless(["run", "--", "bash"]), &places[1]);
    assert_same_lines(real.as_bytes(), emulated.as_bytes());
}

#[test]
fn a_swapped_name_never_shows_the_owner_of_another_file() {
    let place = Place::new();
    let race = example("race");
    let script = format!(
        "cp {} race; mkdir d; ./race d 2000 stat-of-a-swapped-name descriptors-keep-their-file",
        race.display()
    );
    let printed = silent(sh(&place, &[], &script));
    assert_eq!(printed.lines().count(), 2, "{printed}");
}

#[test]
fn in_containers_the_library_is_there_and_leaves_nothing_behind() {
    let place = Place::new();
    let rootfs = place.path("home/debian");
    fs::create_dir(&rootfs).expect("a directory");
    place.give_to_user(&rootfs);
    let mut unpack = place.as_user(tool("tar"));
    unpack.arg("-xf").arg(debian_tar()).arg("-C").arg(&rootfs);
    run(unpack.arg("--exclude=./dev/*")).ok();
    let script =
        "echo >/f; chown 42:43 /f; stat -c %u:%g /f; perl -e 'print +(lstat q(/f))[4], qq(\n)'
        case $LD_PRELOAD in /dev/.subuidless-fast-*) [ -e $LD_PRELOAD ] && echo there; esac
        chroot / stat -c %u:%g /f; mkdir -p /other; : | tee /proc/self/comm; rm /f; rmdir /other";
    for runtime in ["crun", "runc"] {
        let mut command = place.subuidless(["run", "--runtime", runtime, "--rootfs"]);
        command.arg(&rootfs).args(["--", "sh", "-euc", script]);
        assert_eq!(
            silent(run(&mut command)),
            "42:43\n42\nthere\n42:43\n",
            "{runtime}"
        );
        for off in ["--no-fast", "--env=SUBUIDLESS_FAST=0"] {
            let mut command = place.subuidless(["run", "--runtime", runtime]);
            command.arg(off).arg("--rootfs").arg(&rootfs);
            command.args(["--", "sh", "-c", "echo \"[$LD_PRELOAD]\"; ls -A /dev"]);
            let printed = silent(run(&mut command));
            assert!(
                printed.starts_with("[]\n") && !printed.contains("subuidless"),
                "{printed}"
            );
        }
    }
    let left = fs::read_dir(rootfs.join("dev")).expect("/dev of the root file system");
    assert_eq!(left.count(), 0);
    // A process that is put into it has the library, too.
    let mut command = place.subuidless(["run", "--name", "box", "--detach", "--rootfs"]);
    silent(run(command.arg(&rootfs).args(["--", "sleep", "1000"])));
    let words = ["exec", "box", "--", "sh", "-c", "echo \"$LD_PRELOAD\""];
    let printed = silent(run(&mut place.subuidless(words)));
    assert!(printed.starts_with("/dev/.subuidless-fast-"), "{printed}");
    silent(run(&mut place.subuidless(["kill", "box", "KILL"])));
}

#[test]
fn each_further_worker_has_the_page_of_facts() {
    let place = Place::new();
    let page = compile(&place, &["gcc"], "page", "fast/page.c");
    let script = "echo >f; chown 42:43 f; $0
        for n in 0 1 2; do
            : >ready$n; while [ ! -e go$n ]; do sleep 0.02; done
            strace -o calls stat -c %u:%g f; grep -c rootlesscontainers calls
        done";
    let mut command = place.subuidless(["run", "--", "sh", "-euc", script]);
    command.arg(page);
    let output = fs::File::create(place.path("output")).expect("a file");
    let mut child = command.stdout(output).spawn().expect("subuidless run");
    let mut dead = Vec::new();
    let mut kill_worker = || {
        let worker = until("there is a worker", || {
            let mut workers = place.workers().into_iter();
            workers.find(|worker| !dead.contains(worker) && has_listener(*worker))
        });
        kill(worker, Signal::SIGKILL).expect("a worker of ours");
        dead.push(worker);
    };
    for n in 0..3 {
        let ready = place.path(&format!("home/ready{n}"));
        until("the command is ready", || ready.exists().then_some(()));
        match n {
            0 => {}
            // The supervisor starts the next one.
            1 => kill_worker(),
            // The guard does.
            _ => {
                let supervisor = place.supervisor();
                let guard = guard_of(&place, supervisor);
                until("the guard keeps the command", || {
                    has_listener(guard).then_some(())
                });
                kill(supervisor, Signal::SIGKILL).expect("the supervisor");
                kill_worker();
            }
        }
        fs::write(place.path(&format!("home/go{n}")), "").expect("a file");
    }
    child.wait().expect("the command");
    let printed = fs::read_to_string(place.path("output")).expect("the output");
    assert_eq!(printed, "42:43\n1\n".repeat(3));
}

#[test]
fn who_traces_sees_every_call() {
    let place = Place::new();
    let script = "echo >f; chown 42:43 f; ls -ln f >/dev/null; : >ready
        while [ ! -e go ]; do sleep 0.02; done; ls -ln f";
    let mut command = place.subuidless(["run", "--", "sh", "-euc", script]);
    let child = command.spawn().expect("subuidless run");
    let name = format!("run-{}", child.id());
    let ready = place.path("home/ready");
    until("the command is ready", || ready.exists().then_some(()));
    let out = fs::File::create(place.path("trace")).expect("a file");
    let mut tracer = place.subuidless(["trace", "--continued", &name]);
    let mut tracer = tracer.stdout(out).spawn().expect("subuidless trace");
    let lines = || fs::read_to_string(place.path("trace")).unwrap_or_default();
    until("calls are traced", || (!lines().is_empty()).then_some(()));
    fs::write(place.path("home/go"), "").expect("a file");
    until("the stat of the owned file is traced", || {
        lines().contains("statx(AT_FDCWD, \"f\"").then_some(())
    });
    tracer.wait().expect("the tracer ends with the command");
    let mut child = child;
    child.wait().expect("the command");
}

#[test]
fn podmans_containers_have_it_and_their_images_do_not() {
    for runtime in ["crun", "runc"] {
        let place = Place::new();
        let _one_at_a_time = common::lock();
        let _started = Started(&place);
        let tar = debian_tar();
        let script = format!(
            r#""$@" import {} deb >/dev/null
            look='echo $LD_PRELOAD; cd /tmp; echo >f; chown 42:43 f; stat -c %u:%g f'
            look="$look; perl -e 'print +(lstat q(f))[5], qq(\\n)'"
            mkdir context; printf 'FROM localhost/deb
RUN %s
' "$look" >context/Dockerfile
            "$@" build --network=none -t built context 2>&1 |
                grep -x -e '/dev/[^ ]*' -e 42:43
            "$@" run -d --network=none $OPTIONS --name c1 localhost/built sleep 1000000 >/dev/null
            "$@" exec c1 sh -c "$look"
            "$@" exec --user 33 c1 stat -c %u:%g /tmp/f
            "$@" run --rm --network=none $OPTIONS --env SUBUIDLESS_FAST=0 localhost/deb sh -c 'echo "[$LD_PRELOAD]"'
            "$@" export c1 | tar t | grep -c subuidless || true
            "$@" rm -f -t 0 c1 >/dev/null"#,
            tar.display()
        );
        let seen = Podman::fronted(&place, runtime).sh(&script).ok();
        let library = seen.lines().next().unwrap_or_default().to_owned();
        assert!(
            library.starts_with("/dev/.subuidless-fast-"),
            "{runtime}: {seen}"
        );
        let expected = format!("{library}\n42:43\n{library}\n42:43\n43\n42:43\n[]\n0\n");
        assert_eq!(seen, expected, "{runtime}");
    }
}
