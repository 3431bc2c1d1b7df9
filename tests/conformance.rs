//! Against the kernel: the same program, run as real root with all ids mapped and under subuidless,
//! prints the same.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::record;
use common::{
    Bundle, Daemon, Place, Runtime, STATIC_SHORT, assert_same_lines, compile, example, run,
    static_example, tool,
};

/// Those that draw from the seed.
const RANDOM: &str = "random,ids-random,create-random,access-random,access-mounts,access-chroot,\
                      access-threads";

/// Users in a tree of directories that root changes all the time.
const ACCESS: &str = "access-random,access-mounts,access-chroot,access-threads";

/// Only the preloaded library sees what is in messages.
const OF_LIBRARY: &str = "messages";

const OPERATIONS: &str = "3000";

/// How the probe makes its calls under subuidless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By way of the preloaded library, where that has the function.
    Library,
    /// By instructions, in a process that has the library.
    Instruction,
    /// By instructions, in a program without a dynamic loader.
    Static,
    /// By instructions, in a container without the fast path.
    Slow,
}

const WAYS: [Way; 4] = [Way::Library, Way::Instruction, Way::Static, Way::Slow];

fn compare(runtime: Runtime, way: Way, options: &[&str]) {
    compare_in("/work", runtime, way, options);
}

fn compare_in(directory: &str, runtime: Runtime, way: Way, options: &[&str]) {
    let oracle = probe_as_root(directory, way, options);
    assert_same_lines(&oracle, &probe(directory, runtime, way, options));
}

/// Makes the directory in which the probe works.
const MAKE: &str = "mkdir -p \"$0\"; exec /probe --dir \"$0\" \"$@\"";

fn program(way: Way) -> PathBuf {
    match way {
        Way::Static => static_example("probe"),
        _ => example("probe"),
    }
}

/// What the probe prints as real root with all ids mapped.
fn probe_as_root(directory: &str, way: Way, options: &[&str]) -> Vec<u8> {
    let place = Place::new();
    let oracle = Bundle::oracle(&place).with_program(&program(way));
    let arguments = [&["/bin/sh", "-euc", MAKE, directory], options].concat();
    oracle.run(&arguments).bytes()
}

/// What the probe prints under subuidless.
fn probe(directory: &str, runtime: Runtime, way: Way, options: &[&str]) -> Vec<u8> {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let by: &[&str] = match way {
        Way::Library => &["--functions", "100"],
        _ => &[],
    };
    let mut bundle = Bundle::new(&place, &daemon)
        .with_program(&program(way))
        .under(runtime, &daemon);
    if way == Way::Slow {
        bundle = bundle.slow();
    }
    let arguments = [&["/bin/sh", "-euc", MAKE, directory], by, options].concat();
    let printed = bundle.run(&arguments).bytes();
    assert!(
        daemon.lines(&[" WARN "]).is_empty() && daemon.lines(&["ERROR"]).is_empty(),
        "{}",
        daemon.log()
    );
    printed
}

/// What tests/quick.rs compares with where there is no root.
#[test]
fn the_record_of_what_root_prints_is_what_root_prints() {
    let place = Place::new();
    // As below `subuidless run`: with all capabilities.
    let names = run(Command::new(tool("setpriv")).arg("--list-caps")).ok();
    let all: Vec<String> = names
        .lines()
        .map(|name| format!("CAP_{}", name.to_uppercase()))
        .collect();
    let oracle = Bundle::oracle(&place)
        .with_program(&example("probe"))
        .with_config(|config| {
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = all.clone().into();
            }
        });
    let probe = ["/probe", "--dir", "/work", "--only", record::GROUPS];
    let printed = record::normal(&oracle.run(&probe).bytes());
    if let Some(path) = record::of_this_machine() {
        fs::write(path, &printed).expect("a file for the record");
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("root.txt");
    if printed != record::RECORD {
        fs::write(&path, &printed).expect("a file in the target directory");
    }
    // The file in the target directory is the new record.
    assert_same_lines(printed.as_bytes(), record::RECORD.as_bytes());
}

fn compare_seed(runtime: Runtime, way: Way, seed: &str) {
    let options = ["--seed", seed, "--ops", OPERATIONS, "--only", RANDOM];
    compare(runtime, way, &options);
}

#[test]
fn messages_have_the_ids_that_they_have_as_root() {
    let options = ["--only", OF_LIBRARY];
    compare(Runtime::Crun, Way::Library, &options);
    compare(Runtime::Runc, Way::Library, &options);
}

/// Every group of the probe but those that draw from the seed.
#[test]
fn the_probe_prints_what_it_prints_as_root_but_for_the_differences_that_are_known() {
    let skipped = format!("{RANDOM},{OF_LIBRARY}");
    let options = ["--skip", &skipped];
    // The static program has another size.
    let [oracle, of_static] =
        [Way::Library, Way::Static].map(|way| probe_as_root("/work", way, &options));
    let known: Vec<&str> = include_str!("conformance/differences.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    for way in WAYS {
        let ours = probe("/work", Runtime::Crun, way, &options);
        let oracle = match way {
            Way::Static => &of_static,
            _ => &oracle,
        };
        let found = differences(oracle, &ours);
        if found == known {
            continue;
        }
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("differences.txt");
        fs::write(&path, found.join("\n") + "\n").expect("a file in the target directory");
        let new = found.iter().filter(|line| !known.contains(&line.as_str()));
        let gone = known
            .iter()
            .filter(|line| !found.iter().any(|it| it == *line));
        panic!(
            "{way:?}: {} has what is different now; new:\n{:#?}\ngone:\n{:#?}",
            path.display(),
            new.collect::<Vec<_>>(),
            gone.collect::<Vec<_>>()
        );
    }
}

/// The lines in which the two differ, with `-` and `+` and their group in front, without their
/// numbers.
fn differences(oracle: &[u8], ours: &[u8]) -> Vec<String> {
    let place = tempfile::tempdir().expect("a directory");
    let files = [("oracle", oracle), ("ours", ours)].map(|(name, printed)| {
        let path = place.path().join(name);
        fs::write(&path, in_groups(printed)).expect("a file");
        path
    });
    let mut command = Command::new(tool("diff"));
    command.args([
        "--unchanged-line-format=",
        "--old-line-format=-%L",
        "--new-line-format=+%L",
    ]);
    // It ends with 1 where there are differences.
    let differences = run(command.args(files)).stdout;
    let text = String::from_utf8(differences).expect("the probe escapes what is no ASCII");
    text.lines().map(str::to_owned).collect()
}

fn in_groups(printed: &[u8]) -> String {
    let mut group = "";
    let mut lines = String::new();
    for line in std::str::from_utf8(printed).expect("ASCII").lines() {
        let is_number = |word: &str| word.bytes().all(|it| it.is_ascii_digit() || it == b'.');
        let text = match line.split_once(' ') {
            Some((number, text)) if is_number(number) => text,
            _ => line,
        };
        // Where threads open files at the same time, a number may be taken for a moment.
        let text = match group {
            "create-fifo" => text.trim_end_matches(", not the lowest number"),
            _ => text,
        };
        group = text.strip_prefix("== ").unwrap_or(group);
        // crun and podman give their standard streams to the container's user: as root, other tests
        // give away the machine's /dev/null.
        let text = match text.split_once(" c0666 ") {
            Some((call, rest)) if call.contains("\"/dev/null\"") => {
                let rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
                format!("{call} c0666 {rest}")
            }
            _ => text.to_owned(),
        };
        lines += &format!("{group}: {text}\n");
    }
    lines
}

#[test]
fn the_probe_prints_what_it_prints_as_root_with_seed_1() {
    compare_seed(Runtime::Crun, Way::Library, "1");
}

#[test]
fn the_probe_prints_what_it_prints_as_root_with_seed_2() {
    compare_seed(Runtime::Crun, Way::Instruction, "2");
}

#[test]
fn the_probe_prints_what_it_prints_as_root_with_seed_3() {
    compare_seed(Runtime::Crun, Way::Slow, "3");
}

#[test]
fn the_probe_prints_what_it_prints_as_root_under_runc() {
    compare_seed(Runtime::Runc, Way::Library, "4");
}

/// A hundred thousand calls by users, a million with SUBUIDLESS_TEST_MANY.
#[test]
fn users_may_do_what_they_may_do_where_all_ids_are_mapped() {
    let operations = match std::env::var_os("SUBUIDLESS_TEST_MANY").is_some() {
        true => "250000",
        false => "25000",
    };
    for (way, seed) in WAYS.into_iter().zip(["11", "12", "13", "14"]) {
        let options = ["--seed", seed, "--ops", operations, "--only", ACCESS];
        compare(Runtime::Crun, way, &options);
    }
}

/// A path with `self` in it may lead through procfs: it is walked here, component by component.
#[test]
fn every_path_is_walked_as_the_kernel_walks_it() {
    let options = ["--seed", "5", "--ops", OPERATIONS, "--only", RANDOM];
    compare_in("/work/itself", Runtime::Crun, Way::Library, &options);
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
fn a_new_file_belongs_to_its_maker_from_the_start() {
    race(&["a-new-file-is-its-makers"]);
}

#[test]
fn two_threads_that_change_one_file_do_not_undo_each_other() {
    race(&["two-changers"]);
}

#[test]
fn a_32_bit_program_sees_what_a_64_bit_one_sees() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let both = [("wide", &["gcc", "-static"][..]), ("short", STATIC_SHORT)];
    let [wide, short] = both.map(|(name, compiler)| {
        let program = compile(&place, compiler, name, "conformance/abi.c");
        let bundle = Bundle::new(&place, &daemon).with_mount(&program, "/program", &["bind", "ro"]);
        bundle.run(&["/program"]).ok()
    });
    assert!(wide.contains("u 100640 70001:34"), "{wide}");
    let (short, more) = short
        .split_once("--\n")
        .expect("what only 32-bit programs ask");
    assert_same_lines(wide.as_bytes(), short.as_bytes());
    // Ids of more than 16 bits overflow.
    assert_eq!(
        more,
        "stat 65534:65534\nchown 0\nf 100644 12:80000\ngetuid 65534\ngetgroups 8 9 65534\n"
    );
}
