//! The unprivileged user: one mapped id, no range in /etc/subuid.

use std::fs::{OpenOptions, read_to_string};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid};

const NAME: &str = "subuidless-test";
const LOCK: &str = "/run/subuidless-test.lock";
/// For the moment in which the user is made; [`LOCK`] may be held for long.
const USER_LOCK: &str = "/run/subuidless-test-user.lock";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

impl User {
    /// The user, made if missing.
    pub(crate) fn get() -> Self {
        static USER: OnceLock<User> = OnceLock::new();
        *USER.get_or_init(|| {
            assert!(
                Uid::effective().is_root(),
                "these tests run as root, to compare with the kernel with all ids mapped: `scripts/test` sets everything up"
            );
            let _one_at_a_time = locked(USER_LOCK);
            let user = find().unwrap_or_else(|| {
                create();
                find().expect("useradd made a user that cannot be found")
            });
            assert_no_range();
            user
        })
    }
}

fn find() -> Option<User> {
    let user = nix::unistd::User::from_name(NAME).expect("reading the user database")?;
    Some(User {
        uid: user.uid,
        gid: user.gid,
    })
}

fn create() {
    let status = Command::new("useradd")
        .args([
            "-m",
            "-s",
            "/bin/sh",
            "-K",
            "SUB_UID_COUNT=0",
            "-K",
            "SUB_GID_COUNT=0",
        ])
        .arg(NAME)
        .status()
        .expect("useradd is missing: `scripts/test` sets everything up");
    assert!(status.success(), "useradd {NAME}: {status}");
}

fn assert_no_range() {
    for file in ["/etc/subuid", "/etc/subgid"] {
        let ranges = read_to_string(file).unwrap_or_default();
        assert!(
            !ranges
                .lines()
                .any(|line| line.starts_with(&format!("{NAME}:"))),
            "{file} has a range for {NAME}, who must have none: remove that line"
        );
    }
}

/// Held while the machine is changed: test programs may run side by side.
pub(crate) fn lock() -> Flock<std::fs::File> {
    locked(LOCK)
}

fn locked(path: &str) -> Flock<std::fs::File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .expect(path);
    Flock::lock(file, FlockArg::LockExclusive)
        .unwrap_or_else(|(_, errno)| panic!("{path}: {errno}"))
}
