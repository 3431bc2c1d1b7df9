//! Links, fifos, sockets and devices: what was made is what is seen, also after everything but the
//! files themselves has been started again.

mod common;

use common::real::{compare, compare_in, compare_with};
use common::{Daemon, Pair, Place};

#[test]
fn links_fifos_sockets_and_devices_are_what_they_were_made() {
    let seen = compare(include_str!("special/types.sh"));
    assert!(
        seen.contains("crw------- 100000:200000 1 1ff:fffff 0 'tree/large'\n"),
        "{seen}"
    );
}

#[test]
fn copies_and_archives_of_links_fifos_sockets_and_devices_are_like_them() {
    let seen = compare_with("cpio", &[], "/work", |_| {
        include_str!("special/copies.sh").to_owned()
    });
    assert!(seen.contains("brw-rw---- 0/6 "), "{seen}");
}

#[test]
fn a_device_without_a_driver_does_not_open() {
    let seen = compare(include_str!("special/open.sh"));
    assert!(
        seen.contains(
            "cat: c: No such device or address
"
        ),
        "{seen}"
    );
}

#[test]
fn devices_look_like_devices() {
    let seen = compare(include_str!("special/devices.sh"));
    assert!(
        seen.contains("out/moved block special file 103:fffff 0:0 644 1\n"),
        "{seen}"
    );
}

/// They are those that the container has in its /dev.
#[test]
fn devices_that_every_container_has_can_be_opened() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = Pair::real(&place, &daemon);
    let script = include_str!("special/everywhere.sh");
    let seen = compare_in(&pair, daemon, "/work", script);
    for line in ["opened 20666 103\n", "it is one", "written\n"] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
}

#[test]
fn owners_of_what_carries_no_attributes_outlive_a_boot_and_are_nobody_elses() {
    let seen = compare(
        "ln -s /nowhere link; mkfifo fifo; chown -h 7:8 link; chown 9:10 fifo
        ln link hard; mkdir d; mv fifo d
        for n in 1 2 3; do ln -s x gone; chown -h 99:99 gone; rm gone; done; ln -s x gone
        ln -s y other; chown -h 5:5 other; mv -T other link2; cp -a link d/copy
        stat -c '%n %F %u:%g' link hard d/fifo gone link2 d/copy",
    );
    assert!(seen.contains("gone symbolic link 0:0\n"), "{seen}");
}
