//! Programs that make whole systems and packages: what they leave is what they leave as real root.

mod common;

use common::real::{bash, compare_with};
use common::{Daemon, Packages, Pair, Place, assert_same_lines, debian_owners};

#[test]
fn debootstrap_makes_a_debian() {
    let seen = compare_with("debootstrap", &[], "/srv", |packages| {
        format!(
            "url={}\n{}",
            packages.url(),
            include_str!("tools/debootstrap.sh")
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
        include_str!("tools/mmdebstrap.sh")
    );
    let seen = bash(&pair.oracle, &script);
    assert_same_lines(&seen, &bash(&pair.ours, &script));
    assert!(String::from_utf8_lossy(&seen).contains("-rwxr-sr-x 0:42 1 0:0 "));
}

#[test]
fn systemd_tmpfiles_makes_what_it_is_told() {
    let files = [("tools/tmpfiles.conf", "/tmpfiles.conf")];
    let seen = compare_with(
        "systemd-standalone-tmpfiles",
        &files,
        "/work /run /var/log",
        |_| include_str!("tools/tmpfiles.sh").to_owned(),
    );
    assert!(
        seen.contains("crw-rw-rw- 33:33 1 fa0:f4240 0 't/D/c'\n"),
        "{seen}"
    );
}

#[test]
fn rpm_builds_installs_and_verifies_a_package_with_odd_owners() {
    let files = [("tools/odd.spec", "/odd.spec")];
    let seen = compare_with("cpio rpm", &files, "/work /opt /var/lib/odd", |_| {
        include_str!("tools/rpm.sh").to_owned()
    });
    assert!(
        seen.contains("-rwsr-xr-x 70000:0 1 0:0 7 '/opt/odd/setuid'\n"),
        "{seen}"
    );
}

#[test]
fn dnf_makes_and_changes_a_tree_of_rpm() {
    let files = [
        ("tools/base.spec", "/base.spec"),
        ("tools/web.spec", "/web.spec"),
    ];
    let packages = "busybox-static createrepo-c dnf libcap2-bin rpm";
    let seen = compare_with(packages, &files, "/srv/tree/srv", |_| {
        include_str!("tools/dnf.sh").to_owned()
    });
    // What scripts of packages saw below chroot(2): nobody may not read it.
    let words = "root web 640\n48\n2\ncat: can't open '/srv/web/secret': Permission denied\n";
    assert!(seen.contains(words), "{seen}");
}
