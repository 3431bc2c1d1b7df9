//! Another user of the machine, who has been everywhere first: nothing reaches her, and nothing
//! waits for her.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, mkfifo};

use common::{Bundle, Place, Ran, Runtime, Started, run, set_mode, small_rootfs};

/// Who has no name on this machine.
const STRANGER: u32 = 64_242;

/// What she makes where a name of ours could lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trap {
    OpenDirectory,
    ClosedDirectory,
    Link,
    Socket,
    File,
    Fifo,
}

const TRAPS: [Trap; 6] = [
    Trap::OpenDirectory,
    Trap::ClosedDirectory,
    Trap::Link,
    Trap::Socket,
    Trap::File,
    Trap::Fifo,
];

/// A host whose /tmp and /dev/shm are directories of the place, and where nobody has logged in.
struct Host<'a> {
    place: &'a Place,
    listeners: Vec<UnixListener>,
}

impl<'a> Host<'a> {
    fn new(place: &'a Place) -> Self {
        for name in ["tmp", "shm", "hers", "bait"] {
            let path = place.path(name);
            fs::create_dir(&path).unwrap();
            set_mode(&path, if name == "bait" { 0o777 } else { 0o1777 });
        }
        chown_to_her(&place.path("bait"));
        Self {
            place,
            listeners: Vec::new(),
        }
    }

    /// What is her own at `path`, and open to everybody.
    fn set(&mut self, trap: Trap, path: &Path) {
        let bait = self.place.path("bait");
        match trap {
            Trap::OpenDirectory | Trap::ClosedDirectory => {
                fs::create_dir(path).unwrap();
                let mode = if trap == Trap::OpenDirectory {
                    0o777
                } else {
                    0o700
                };
                set_mode(path, mode);
            }
            Trap::Link => std::os::unix::fs::symlink(&bait, path).unwrap(),
            Trap::Socket => {
                let listener = UnixListener::bind(path).unwrap();
                listener.set_nonblocking(true).unwrap();
                self.listeners.push(listener);
                set_mode(path, 0o777);
            }
            Trap::File => {
                fs::write(path, "hers").unwrap();
                set_mode(path, 0o666);
            }
            Trap::Fifo => {
                mkfifo(path, Mode::from_bits_truncate(0o666)).unwrap();
                set_mode(path, 0o666);
            }
        }
        chown_to_her(path);
    }

    /// A program of the user's on this host, with /tmp as her runtime directory.
    fn command(&self, runtime_directory: &str, words: &[&str]) -> Command {
        let place = self.place;
        let script = "
            mount --bind $1 /tmp; mount --bind $2 /dev/shm; mount -t tmpfs none /run/user
            mount -t tmpfs none /run/lock
            uid=$3; shift 3; exec setpriv --reuid=$uid --regid=$uid --clear-groups -- \"$@\"";
        let mut command = place.as_root("unshare");
        command
            .args(["-m", "--", "sh", "-euc", script, "sh"])
            .args([place.path("tmp"), place.path("shm")])
            .arg(place.user.uid.to_string())
            .args(words)
            .env("HOME", place.path("home"))
            .env("XDG_RUNTIME_DIR", runtime_directory);
        command
    }

    /// That nothing has come to her.
    #[track_caller]
    fn nothing_was_caught(&self, what: &str) {
        for listener in &self.listeners {
            while let Ok((mut connection, _)) = listener.accept() {
                let mut heard = Vec::new();
                connection.set_nonblocking(false).unwrap();
                connection.read_to_end(&mut heard).unwrap();
                assert!(heard.is_empty(), "{what}: {}", heard.escape_ascii());
            }
        }
        for directory in ["tmp", "shm", "bait"] {
            for found in below(&self.place.path(directory)) {
                let parent = fs::symlink_metadata(found.parent().unwrap()).unwrap();
                let file = fs::symlink_metadata(&found).unwrap();
                assert!(
                    parent.uid() != STRANGER || file.uid() == STRANGER,
                    "{what}: {} was made",
                    found.display()
                );
                if file.uid() == STRANGER && file.is_file() {
                    assert_eq!(fs::read(&found).unwrap(), b"hers", "{what}");
                }
            }
        }
    }
}

fn chown_to_her(path: &Path) {
    chown_to(path, Uid::from_raw(STRANGER), Gid::from_raw(STRANGER));
}

fn chown_to(path: &Path, uid: Uid, gid: Gid) {
    nix::unistd::fchownat(
        nix::fcntl::AT_FDCWD,
        path,
        Some(uid),
        Some(gid),
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(below(&entry.path()));
        }
    }
    found
}

/// Everything that looks for a daemon, makes a container or keeps an owner.
fn everything(host: &Host, runtime_directory: &str, rootfs: &Path) -> Vec<(String, Ran)> {
    let place = host.place;
    let binary = place.binary().to_str().unwrap().to_owned();
    let link = place.path("home/link");
    if std::os::unix::fs::symlink("nowhere", &link).is_ok() {
        chown_to(&link, place.user.uid, place.user.gid);
    }
    let (rootfs, link) = (rootfs.to_str().unwrap(), link.to_str().unwrap());
    let mark = ["--env", "SUBUIDLESS_TEST_PLACE"];
    let bundle = Bundle::fronted(place, Runtime::Crun);
    let (fronted, _) = bundle.command(&["/bin/sh", "-euc", OWNERS]);
    // This host has become the user already.
    let behind: Vec<&str> = fronted
        .get_args()
        .map(|word| word.to_str().unwrap())
        .skip_while(|word| *word != "--")
        .skip(1)
        .collect();
    let cases: Vec<Vec<&str>> = vec![
        vec![&binary, "run", "--", "sh", "-euc", OWNERS],
        [
            &[&binary as &str, "run", "--rootfs", rootfs, "--name", "a"][..],
            &mark,
            &["--", "sh", "-euc", OWNERS],
        ]
        .concat(),
        vec![&binary, "serve", "--background", "--idle", "1"],
        behind,
        vec![&binary, "status"],
        vec!["timeout", "2", &binary, "trace", "nobody"],
        vec![&binary, "ps"],
        vec![&binary, "owners", "ls", rootfs],
        vec![&binary, "owners", "set", "-h", "5:6", link],
        vec![&binary, "check"],
    ];
    let _started = Started(place);
    cases
        .into_iter()
        .map(|words| {
            let what = words.join(" ").replace(&binary, "subuidless");
            let ran = run(&mut host.command(runtime_directory, &words));
            (what, ran)
        })
        .collect()
}

const OWNERS: &str = "cd /tmp; rm -rf f; echo >f; chown 42:43 f; stat -c %u:%g f; rm f";

/// The names that lie in a runtime directory, and have lain there.
const NAMES: [&str; 9] = [
    "subuidless",
    "subuidless.sock",
    "subuidless.log",
    "subuidless-recent",
    "crun",
    "runc",
    "a.sock",
    "a",
    ".a.lock",
];

/// Of what `everything` tries, those whose failure there has to be one of these words.
#[track_caller]
fn tell(trap: Trap, results: Vec<(String, Ran)>, excused: &[&str]) {
    for (what, ran) in results {
        let known = ran.status.success()
            || excused.iter().any(|words| ran.stderr.contains(words))
            || what.contains(" check");
        assert!(known, "{trap:?}: {what}: {}: {}", ran.status, ran.stderr);
        if what.contains("42:43") && ran.status.success() {
            assert_eq!(ran.stdout, b"42:43\n", "{trap:?}: {what}");
        }
    }
}

#[test]
fn in_a_runtime_directory_of_everybodys_all_works_and_nothing_is_caught() {
    for trap in TRAPS {
        let place = Place::new();
        let rootfs = small_rootfs(&place);
        let mut host = Host::new(&place);
        for name in NAMES {
            host.set(trap, &place.path("tmp").join(name));
        }
        let results = everything(&host, "/tmp", &rootfs);
        // Nobody runs what they ask for.
        tell(trap, results, &["no daemon listens on", "waiting for it"]);
        host.nothing_was_caught(&format!("{trap:?}"));
    }
}

#[test]
fn where_a_stranger_has_every_directory_the_reason_is_said_and_nothing_is_caught() {
    for trap in TRAPS {
        let place = Place::new();
        let rootfs = small_rootfs(&place);
        let mut host = Host::new(&place);
        let uid = place.user.uid;
        host.set(
            trap,
            &place.path("shm").join(format!("subuidless-recent-{uid}")),
        );
        host.set(trap, &place.path("tmp").join(format!("subuidless-{uid}")));
        if matches!(trap, Trap::OpenDirectory | Trap::Link) {
            let inside = place.path("tmp").join(format!("subuidless-{uid}"));
            for name in NAMES {
                host.set(Trap::Socket, &inside.join(name));
            }
        }
        let results = everything(&host, "/nowhere", &rootfs);
        let reason =
            "no directory for sockets and locks (XDG_RUNTIME_DIR is /nowhere: No such file";
        let store = "there is no side store, for the reason above";
        let listing = results.iter().find(|(what, _)| what.contains("owners ls"));
        let told = &listing.unwrap().1.stderr;
        assert!(
            told.contains("no place for the side store") && told.contains("--store"),
            "{told}"
        );
        let listing = results.iter().find(|(what, _)| what.ends_with(" ps"));
        assert!(!listing.unwrap().1.status.success(), "{listing:?}");
        tell(trap, results, &[reason, store]);
        host.nothing_was_caught(&format!("{trap:?}"));
    }
}

#[test]
fn a_socket_that_others_could_replace_is_refused() {
    let place = Place::new();
    let host = Host::new(&place);
    let open = place.path("home/open");
    fs::create_dir(&open).unwrap();
    place.give_to_user(&open);
    set_mode(&open, 0o777);
    let hers = place.path("bait");
    for directory in [&open, &hers] {
        let socket = directory.join("s.sock");
        let socket = socket.to_str().unwrap();
        let binary = place.binary();
        let binary = binary.to_str().unwrap();
        for words in [
            &[binary, "serve", socket][..],
            &[binary, "serve", "--background", socket],
            &[
                binary, "runtime", "--socket", socket, "run", "-b", "nowhere", "c1",
            ],
        ] {
            let told = run(&mut host.command("/tmp", words)).error();
            if words[1] == "serve" {
                assert!(
                    told.contains("others could replace it, since"),
                    "{words:?}: {told}"
                );
            }
        }
        assert!(fs::read_dir(directory).unwrap().next().is_none());
    }
}
