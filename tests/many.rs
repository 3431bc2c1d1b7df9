//! A thousand containers, or as many as fit into CI: nothing of any of them is left.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Bundle, Daemon, Place, Runtime, Started, run, until};

/// As many at a time.
const AT_ONCE: u32 = 4;

/// All files below `directory`, but for those of the runtimes, and the side store's two marks of
/// what is known of it.
fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let others = ["crun", "runc", "read", "settled"];
        if others.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        // Not through links, which may lead anywhere.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&path));
        }
        found.insert(path);
    }
    found
}

/// Where something could be left: the runtime directory, the state directory, and what everybody
/// shares.
fn all_files(place: &Place) -> BTreeSet<PathBuf> {
    let own = [place.runtime_directory(), place.path("home/.local/state")];
    let mut found: BTreeSet<PathBuf> = own.iter().flat_map(|directory| files(directory)).collect();
    let mark = format!("subuidless-recent-{}", place.user.uid);
    found.extend(files(Path::new("/dev/shm")).into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&mark)
    }));
    // A marker that the store makes once, when there has been time to move something.
    found.retain(|path| !path.ends_with("settled"));
    found
}

/// Does something `times` times, some of them at once.
fn repeat(times: u32, action: impl Fn(u32) + Sync) {
    std::thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let action = &action;
            scope.spawn(move || {
                for n in (first..times).step_by(AT_ONCE as usize) {
                    action(n);
                }
            });
        }
    });
}

/// What a container does that leaves something in every place where something can be left, and
/// removes it.
const SCRIPT: &str =
    "touch f; chown 1:2 f; ln -s x l; chown -h 3:4 l; test $(stat -c %u:%g l) = 3:4; rm f l";

#[test]
fn of_many_containers_of_one_daemon_nothing_is_left() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundles: Vec<Bundle> = (0..AT_ONCE).map(|_| Bundle::new(&place, &daemon)).collect();
    let one = |n: u32| {
        let work = format!("mkdir -p /work/{n}; cd /work/{n}; {SCRIPT}; rmdir /work/{n}");
        let bundle = &bundles[(n % AT_ONCE) as usize];
        let (mut command, _) = bundle.command(&["/bin/sh", "-euc", &work]);
        run(&mut command).ok();
    };
    (0..AT_ONCE).for_each(one);
    let is_quiet = |expected: usize| {
        until("no worker is left", || {
            (place.processes().len() == expected).then_some(())
        });
    };
    // The daemon and its guard.
    is_quiet(2);
    let (fds, before) = (daemon.open_fds(), all_files(&place));
    for n in 0..common::many(100, 1000) {
        one(n);
    }
    is_quiet(2);
    until("every fd is closed", || {
        (daemon.open_fds() == fds).then_some(())
    });
    assert_eq!(all_files(&place), before);
    daemon.terminate();
    is_quiet(0);
}

#[test]
fn of_many_commands_nothing_is_left() {
    let place = Place::new();
    let one = |n: u32| {
        let script = format!("mkdir {n}; cd {n}; {SCRIPT}; rmdir ../{n}");
        run(&mut place.subuidless(["run", "--", "sh", "-euc", &script])).ok();
    };
    let is_quiet = || {
        until("no process is left", || {
            place.processes().is_empty().then_some(())
        });
    };
    one(0);
    is_quiet();
    let before = all_files(&place);
    repeat(common::many(100, 1000), one);
    is_quiet();
    assert_eq!(all_files(&place), before);
}

#[test]
fn of_many_containers_behind_the_front_nothing_is_left() {
    let place = Place::new();
    let started = Started(&place);
    let bundle = Bundle::fronted(&place, Runtime::Crun);
    let one = || drop(bundle.sh(SCRIPT));
    let is_quiet = || {
        until("no daemon is left", || {
            let daemons = started.daemons();
            (daemons.is_empty() && place.processes().is_empty()).then_some(())
        });
    };
    one();
    is_quiet();
    let before = all_files(&place);
    (0..common::many(40, 1000)).for_each(|_| one());
    is_quiet();
    assert_eq!(all_files(&place), before);
}
