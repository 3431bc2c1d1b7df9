//! systemd as the first process of a container.

mod common;

use std::fs;

use common::{Packages, Place, Started, debian_tar, run, small_rootfs};

/// Runs a script in a control group of the user's; machine/install installs `packages`.
fn in_a_group_of_the_users(packages: &str, script: &str) -> String {
    let place = Place::new();
    let _one_at_a_time = common::lock();
    let _started = Started(&place);
    let repository = Packages::serve_booted();
    let context = place.path("home/machine");
    fs::create_dir(&context).expect("a directory");
    fs::copy(repository.key(), context.join("packages.gpg")).expect("the key");
    fs::write(context.join("install"), repository.install(packages)).expect("a script");
    place.give_to_user(&context);
    let user = place.as_user("bash");
    let mut command = place.as_root("sh");
    let name = place.path("").file_name().expect("a name").to_owned();
    command
        .args(["-euc", include_str!("systemd/delegated.sh"), "sh"])
        .arg(format!("subuidless-{}", name.display()))
        .arg(place.user.uid.to_string())
        .arg(user.get_program())
        .args(user.get_args())
        .args(["-euc", script])
        .env("HOME", place.path("home"))
        .env("XDG_RUNTIME_DIR", place.runtime_directory())
        .env("SUBUIDLESS", place.binary())
        .env("MARK", place.mark())
        .env("TAR", debian_tar());
    run(&mut command).ok()
}

#[test]
fn systemd_boots_without_a_failed_unit_in_a_control_group_of_the_users() {
    let seen = in_a_group_of_the_users("systemd-sysv dbus", include_str!("systemd/boot.sh"));
    assert_eq!(seen, "running\n33\nwww-data\n0\n");
}

#[test]
fn systemd_boots_in_a_root_file_system_without_podman() {
    let packages = "systemd-sysv dbus cron openssh-server bsdutils";
    let seen = in_a_group_of_the_users(packages, include_str!("systemd/rootfs.sh"));
    // journald runs without the preloaded library, and so does not see who has sent a message.
    let expected = "running\nactive\n33\nwww-data\ndynamic\n\
                    read-only\n/mnt/passwd\nwww-data\n_UID 0\nMESSAGE a line of mine\n\
                    root:root 755\nroot:root 1777\nroot:root 1777\n1\n0\n";
    assert_eq!(seen, expected);
}

#[test]
fn systemd_without_a_control_group_of_its_own_says_what_it_needs() {
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    fs::rename(rootfs.join("bin/busybox"), rootfs.join("bin/systemd")).expect("a program");
    let mut command = place.subuidless(["run", "--rootfs"]);
    let told = run(command.arg(&rootfs).args(["--", "/bin/systemd"]));
    assert_eq!(told.status.code(), Some(125), "{told:?}");
    let words = &told.stderr;
    assert!(
        words.contains("systemd-run --user --scope -p Delegate=yes"),
        "{words}"
    );
}
