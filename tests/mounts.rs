//! File systems that are mounted in a container: overlays, and those whose options name an owner.

mod common;

use common::real::compare;
use common::{Daemon, Place, Podman, small_image};

/// Functions for scripts with an overlay: `make_some`, `mount_overlay`, `show`, `again`, `finish`.
const OVERLAY: &str = include_str!("mounts/overlay.sh");

#[track_caller]
fn overlay(script: &str) -> String {
    compare(&format!("{OVERLAY}{script}"))
}

#[test]
fn file_systems_are_mounted_for_whom_they_are_asked_for() {
    let seen = compare(include_str!("mounts/owners.sh"));
    assert!(seen.contains("drwxr-s--- 70000:5 2 0:0 - 'm'\n"), "{seen}");
}

#[test]
fn owners_in_a_lower_layer_are_seen_through_an_overlay() {
    let seen = overlay(
        "for d in a b; do make_some lower/$d; chown -h 7:8 lower/$d/*; done
        chmod 641 lower/a/[pcbf]
        mount_overlay; show; cp -a merged/a copy; list copy; tar -C merged -cf - b | tar -xpf -
        list b
        rm merged/a/[lpcbs]; make_some merged/n; show; again; show; make_some merged/b/n
        rm -r merged/a; make_some merged/a; show; finish",
    );
    assert!(
        seen.contains("crw-r----x 7:8 1 1fe:7 0 'merged/a/c'\n"),
        "{seen}"
    );
}

#[test]
fn what_is_made_on_an_overlay_keeps_its_owner() {
    overlay(
        "make_some lower/a; mount_overlay; make_some merged/n; chown -h 11:12 merged/n/*
        make_some merged/a/n; chown -h 13:14 merged/a/n/*
        show; again; show; chown -h 15:16 merged/n/*; chmod 600 merged/n/[cbpsf]
        mv merged/n/l merged/l; mv merged/n/c merged/a/c2
        ln merged/n/b merged/b2; show; again; show; umount merged; show upper lower; mount_overlay
        finish",
    );
}

#[test]
fn what_is_copied_up_by_chown_has_its_new_owner() {
    overlay(
        "make_some lower/a; chown -h 7:8 lower/a/*; make_some lower/b; mount_overlay
        chown -h 9:10 merged/a/* merged/b/*; show; again; show; chown -h 21:22 merged/a/*; show
        finish",
    );
}

#[test]
fn what_is_copied_up_by_chmod_or_utime_keeps_its_owner() {
    overlay(
        "make_some lower/a; chown -h 7:8 lower/a/*; mount_overlay; chmod 755 merged/a/[pcbsf]
        touch -h merged/a/l; show; finish",
    );
}

/// Renaming and linking go to the kernel unseen: of a lower layer's links, fifos, sockets and
/// devices they leave no owner.
#[test]
fn what_was_copied_up_keeps_its_owner_when_it_is_moved_and_linked() {
    overlay(
        "make_some lower/a; chown -h 7:8 lower/a/* lower/a/d/l2; mount_overlay
        mv merged/a/f merged/a/f_; chmod 755 merged/a/[pcbs]; touch -h merged/a/l merged/a/d/l2
        for file in l p c b s d/l2; do mv merged/a/$file merged/a/${file}_; done; show; again; show
        for file in f_ l_ p_ c_ b_ s_ d/l2_; do ln -P merged/a/$file merged/a/${file}2; done; show
        finish",
    );
}

#[test]
fn podman_mounts_a_container_anew_and_what_it_has_copied_up_keeps_its_owner() {
    let place = Place::new();
    // podman keeps some things for each user, whatever HOME is.
    let _one_at_a_time = common::lock();
    let daemon = Daemon::start(&place);
    small_image(&place);
    // `said` is for containers that run once.
    let script = r#""$@" import -q small.tar small >/dev/null; mkdir out
        "$@" run --name again --network=none -v "$PWD/out:/out" $OPTIONS localhost/small sh -c 'exec >>/out/seen
            stat -c "%n %F %u:%g" /bin/ls /bin/cat; stat -c "%n %F %u:%g" /p 2>/dev/null
            chown -h 7:8 /bin/ls; touch -h /bin/cat; test -e /p || mkfifo /p; chown 9:10 /p; stat -c "%n %F %u:%g" /bin/ls /bin/cat /p'
        "$@" start -a again; "$@" rm again >/dev/null; cat out/seen"#;
    let seen = Podman::of_user(&place, &daemon, "crun").sh(script).ok();
    let expected = "/bin/ls symbolic link 0:0
/bin/cat symbolic link 0:0
/bin/ls symbolic link 7:8
/bin/cat symbolic link 0:0
/p fifo 9:10
";
    let again = "/bin/ls symbolic link 7:8
/bin/cat symbolic link 0:0
/p fifo 9:10
";
    assert_eq!(seen, format!("{expected}{again}{again}"));
}
