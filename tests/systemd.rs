//! systemd as the first process of a container of podman's.

mod common;

use std::fs;

use common::{Packages, Place, Started, debian_tar, run};

#[test]
fn systemd_boots_without_a_failed_unit_in_a_control_group_of_the_users() {
    let place = Place::new();
    let _one_at_a_time = common::lock();
    let _started = Started(&place);
    let packages = Packages::serve_booted();
    let context = place.path("home/machine");
    fs::create_dir(&context).expect("a directory");
    fs::copy(packages.key(), context.join("packages.gpg")).expect("the key");
    let install = packages.install("systemd-sysv dbus");
    fs::write(context.join("install"), install).expect("a script");
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
        .args(["-euc", include_str!("systemd/boot.sh")])
        .env("HOME", place.path("home"))
        .env("XDG_RUNTIME_DIR", place.runtime_directory())
        .env("SUBUIDLESS", place.binary())
        .env("MARK", place.mark())
        .env("TAR", debian_tar());
    let seen = run(&mut command).ok();
    assert_eq!(seen, "running\n33\nwww-data\n0\n");
}
