//! Against the kernel: the same program, run as real root with all ids mapped and under subuidless, prints the same.

mod common;

use common::{Bundle, Daemon, Place, Runtime, assert_same_lines, example};

/// Groups of the probe that are left out of the comparison, each because of a difference that README's Limits names or that
/// is the oracle's own:
/// - shared-inode, create-names, peers-proc, peers-proc-undumpable, permissions-kinds: what belongs to the host's root shows
///   65534, which only the oracle maps; files in /proc/PID show the ids of a process that is not dumpable, too;
/// - create-devices: in a user namespace the kernel makes none, and we make placeholders;
/// - create-after: owners that are recorded fire IN_ATTRIB; create-fifo: a descriptor that was handed over may have another
///   number where threads open files at the same time; create-nameless: pipes and sockets without a name show root;
/// - create-acl, permissions-bits: search permission and plain open are not checked;
/// - create-bind: no worker can bind to what a target's own link in procfs leads to;
/// - permissions-access: what root has given up with capset(2) the kernel denies to the owner that it knows;
/// - limits: RLIMIT_LOCKS is always unlimited; peers-later: a peer's ids are those that it has now.
const SKIPPED: &str = "shared-inode,create-names,peers-proc,peers-proc-undumpable,permissions-kinds,create-devices,\
    create-after,create-fifo,create-nameless,create-acl,permissions-bits,create-bind,permissions-access,limits,peers-later";

/// Those that draw from the seed.
const RANDOM: &str = "random,ids-random,create-random";

const OPERATIONS: &str = "3000";

fn compare(runtime: Runtime, options: &[&str]) {
    compare_in("/work", runtime, options);
}

fn compare_in(directory: &str, runtime: Runtime, options: &[&str]) {
    const MAKE: &str = "mkdir -p \"$0\"; exec /probe --dir \"$0\" \"$@\"";
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let probe = example("probe");
    let mut arguments = vec!["/bin/sh", "-euc", MAKE, directory];
    arguments.extend(options);

    let oracle = Bundle::oracle(&place).with_program(&probe);
    let oracle = oracle.run(&arguments).bytes();
    let ours = Bundle::new(&place, &daemon)
        .with_program(&probe)
        .under(runtime, &daemon);
    let ours = ours.run(&arguments).bytes();
    assert_same_lines(&oracle, &ours);
    assert!(
        daemon.lines(&[" WARN "]).is_empty() && daemon.lines(&["ERROR"]).is_empty(),
        "{}",
        daemon.log()
    );
}

fn compare_seed(runtime: Runtime, seed: &str) {
    let options = ["--seed", seed, "--ops", OPERATIONS, "--only", RANDOM];
    compare(runtime, &options);
}

#[test]
fn the_probe_prints_what_it_prints_as_root() {
    compare(Runtime::Crun, &["--skip", SKIPPED]);
}

#[test]
fn the_probe_prints_what_it_prints_as_root_with_seed_1() {
    compare_seed(Runtime::Crun, "1");
}

#[test]
fn the_probe_prints_what_it_prints_as_root_with_seed_2() {
    compare_seed(Runtime::Crun, "2");
}

#[test]
fn the_probe_prints_what_it_prints_as_root_with_seed_3() {
    compare_seed(Runtime::Crun, "3");
}

#[test]
fn the_probe_prints_what_it_prints_as_root_under_runc() {
    compare_seed(Runtime::Runc, "4");
}

/// A path with `self` in it may lead through procfs: it is walked here, component by component.
#[test]
fn every_path_is_walked_as_the_kernel_walks_it() {
    let options = ["--seed", "5", "--ops", OPERATIONS, "--only", RANDOM];
    compare_in("/work/itself", Runtime::Crun, &options);
}

const ROUNDS: &str = "2000";

/// What the oracle holds, subuidless holds.
fn race(scenes: &[&str]) {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let race = example("race");
    let mut arguments = vec!["/race", "/work", ROUNDS];
    arguments.extend(scenes);
    let oracle = Bundle::oracle(&place).with_program(&race);
    oracle.run(&arguments).ok();
    let ours = Bundle::new(&place, &daemon).with_program(&race);
    ours.run(&arguments).ok();
}

#[test]
fn a_swapped_link_never_misleads_chown() {
    race(&["chown-through-a-link", "lchown-of-what-may-be-a-link"]);
}

#[test]
fn a_swapped_directory_on_the_way_never_misleads_chown() {
    race(&["a-directory-on-the-way"]);
}

#[test]
fn stat_of_a_swapped_name_never_mixes_two_files() {
    race(&["stat-of-a-swapped-name", "descriptors-keep-their-file"]);
}

#[test]
fn two_threads_that_change_one_file_do_not_undo_each_other() {
    race(&["two-changers"]);
}
