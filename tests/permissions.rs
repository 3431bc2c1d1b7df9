//! Permissions of emulated users, as scripts meet them: with the library and without, in commands
//! and containers, and the level that checks less. tests/conformance.rs compares them call by call.

mod common;

use std::fs;

use common::{Bundle, Daemon, Place, Ran, Runtime, assert_same_lines, run, set_mode, small_rootfs};

/// The files of root, and what a user tries with them.
const SCRIPT: &str = r#"umask 022
say() { echo "$*: $?"; }
mkdir closed open; mkdir -m 1777 sticky; chmod 700 closed
echo secret >secret; chmod 600 secret
echo text | tee closed/f open/f sticky/f >/dev/null
printf '#!/bin/sh\necho ran\n' >program; chmod 744 program
cp program closed/sh; chmod 755 closed/sh; cp /bin/sh own-sh; chmod 700 own-sh
printf '#!%s/own-sh\necho ran\n' "$PWD" >script; chmod 755 script
ln -s closed/f link
cat >user.sh <<'END'
say() { echo "$*: $?"; }
cat secret; say cat secret
cat closed/f; say cat closed/f
cat link; say cat link
ls closed; say ls closed
cat open/f; say cat open/f
(cd closed); say cd
echo x >>open/f; say append
touch open/new; say touch
rm -f sticky/f; say rm
mv sticky/f sticky/g; say mv
mv sticky/f open/g; say mv out
rmdir closed; say rmdir
ln secret sticky/hard; say ln
./program; say program
./script; say script
sh program; say sh program
stat -c %a closed/f; say stat
test -e closed/f; say test -e
readlink closed/f; say readlink
truncate -s 0 secret; say truncate
END
chmod 644 user.sh
"#;

/// Runs `user.sh` as uid 33.
const AS_USER: &str = "setpriv --reuid 33 --regid 33 --clear-groups sh user.sh 2>&1";

/// What a script prints below `run`.
fn sh(place: &Place, options: &[&str], script: &str) -> Ran {
    let directory = place.path(&format!("work{}", options.concat()));
    fs::create_dir(&directory).expect("a new directory");
    set_mode(&directory, 0o755);
    place.give_to_user(&directory);
    let mut command = place.subuidless(["run"]);
    let command = command.args(options).args(["--", "sh", "-euc", script]);
    run(command.current_dir(directory))
}

/// The user's part ends with its last command, whatever that returns.
fn script() -> String {
    format!("{SCRIPT}{AS_USER}")
}

#[test]
fn users_are_held_to_their_permissions_with_the_library_and_without() {
    let place = Place::new();
    let oracle = place.path("oracle");
    fs::create_dir(&oracle).expect("a new directory");
    set_mode(&oracle, 0o755);
    let mut real = place.as_root("sh");
    let expected = run(real.args(["-euc", &script()]).current_dir(&oracle)).stdout;
    assert!(String::from_utf8_lossy(&expected).contains("cat secret: 1"));
    for options in [&[][..], &["--no-fast"], &["--permissions", "full"]] {
        let found = sh(&place, options, &script()).stdout;
        assert_same_lines(&expected, &found);
    }
}

#[test]
fn with_owner_permissions_users_read_what_they_like_and_change_what_they_may() {
    let place = Place::new();
    for options in [
        &["--permissions", "owner"][..],
        &["--permissions", "owner", "--no-fast"],
    ] {
        let ran = sh(&place, options, &script());
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        for line in ["secret", "cat closed/f: 0", "ls closed: 0", "rm: 0"] {
            assert!(printed.lines().any(|it| it == line), "{line}: {printed}");
        }
        for line in ["append: 2", "touch: 1", "program: 126"] {
            assert!(printed.lines().any(|it| it == line), "{line}: {printed}");
        }
    }
}

/// The level of a container is the annotation's, or that of `bundle`; a wrong one is an error.
#[test]
fn the_annotation_of_a_container_says_which_permissions_count() {
    const READ: &str = "umask 077; echo x >/f; setpriv --reuid 33 --clear-groups cat /f || echo no";
    const ANNOTATION: &str = "io.subuidless.permissions";
    let place = Place::new();
    let daemon = Daemon::start(&place);
    for runtime in [Runtime::Crun, Runtime::Runc] {
        for (level, expected) in [
            (None, "no\n"),
            (Some("full"), "no\n"),
            (Some("owner"), "x\n"),
        ] {
            let bundle = Bundle::debian(&place, &daemon).under(runtime, &daemon);
            let bundle = bundle.with_config(|config| {
                if let Some(level) = level {
                    config["annotations"][ANNOTATION] = level.into();
                }
            });
            assert_eq!(bundle.run(&["sh", "-c", READ]).ok(), expected, "{level:?}");
        }
    }
    let rootfs = small_rootfs(&place);
    let in_rootfs = |options: &[&str]| {
        let mut command = place.subuidless(["run", "--rootfs"]);
        run(command.arg(&rootfs).args(options)).stdout
    };
    in_rootfs(&["--", "sh", "-c", "umask 077; echo x >/f"]);
    assert_eq!(in_rootfs(&["--user", "web", "--", "cat", "/f"]), b"");
    let owner = ["--permissions", "owner", "--user", "web", "--", "cat", "/f"];
    assert_eq!(in_rootfs(&owner), b"x\n");
    let config = format!("{{\"annotations\": {{\"{ANNOTATION}\": \"none\"}}}}");
    fs::write(place.path("home/config.json"), config).expect("a file");
    let mut command = place.subuidless(["bundle"]);
    let failed = run(command.arg(place.path("home")));
    assert!(failed.stderr.contains(ANNOTATION), "{}", failed.stderr);
}

/// A program whose first call is one that is not notified then has the library all the same.
#[test]
fn with_owner_permissions_the_library_is_there_whatever_a_program_calls_first() {
    let place = Place::new();
    let script = "echo x >f; strace -qq -e trace=getxattr,lgetxattr -o trace \
        perl -e 'unlink \"g\"; opendir my $d, \".\"; my @s = lstat \"f\"; print $#s' ; \
        grep -c rootlesscontainers trace";
    let printed = sh(&place, &["--permissions", "owner"], script).ok();
    assert!(printed.starts_with("12"), "{printed}");
}

/// What a root without capabilities over files may create and open, in directories of others.
const CREATE: &str = r#"umask 022; mkdir /t; cd /t
say() { echo "$*: $?"; }
mkdir sticky open; ln -s nowhere sticky/l; chmod 1777 sticky
echo x | tee open/f open/g >/dev/null
chown -h 33:33 sticky/l; chown 44 open/f open
dd if=/dev/null of=sticky/l oflag=nofollow 2>&1 | head -n 1
mkdir open/d; say mkdir
ln -s a open/l; say symlink
mkfifo open/p; say mkfifo
(: >>open/f); say append
(: >open/new); say create
(: >>open/g); say own
touch open/f; say touch
cp open/g open/f; say cp
cp open/g open/h; say cp new
touch sticky/mine; stat -c %u:%g sticky/mine
ls open
"#;

/// To the kernel, root is the owner of all files, and CAP_DAC_OVERRIDE is not what lets it in.
#[test]
fn a_root_with_fewer_capabilities_creates_files_where_it_may() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    for dropped in [
        &["CAP_FOWNER"][..],
        &["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"],
        &["CAP_DAC_OVERRIDE", "CAP_FSETID"],
    ] {
        let printed = |bundle: Bundle| {
            let bundle = bundle.with_config(|config| {
                for set in ["bounding", "effective", "permitted"] {
                    let names = config["process"]["capabilities"][set].as_array_mut();
                    let names = names.expect("a list of capabilities");
                    names.retain(|it| !dropped.iter().any(|name| it == name));
                }
            });
            bundle
                .run(&["sh", "-c", &format!("exec 2>&1; {CREATE}")])
                .bytes()
        };
        let expected = printed(Bundle::debian_oracle(&place));
        assert_same_lines(&expected, &printed(Bundle::debian(&place, &daemon)));
        let slow = Bundle::debian(&place, &daemon).slow();
        assert_same_lines(&expected, &printed(slow));
    }
}
