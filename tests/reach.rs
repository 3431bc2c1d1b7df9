//! How far a container reaches by way of the processes that it sees: no further than under its
//! runtime alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::Pid;

use common::{Bundle, Daemon, Place, Podman, Runtime, compile, run, small_image, until};

/// Processes of the host: name, kind and capabilities for `reach`; the last one outside of the
/// container's user namespace.
const OUTSIDE: [(&str, &str, &str); 4] = [
    ("v-full", "victim", "all"),
    ("v-none", "victim", "none"),
    ("v-hidden", "hidden", "none"),
    ("v-host", "victim", "all"),
];

/// The same of the container; the last one in a user namespace below.
const INSIDE: [(&str, &str, &str); 4] = [
    ("v-in-full", "victim", "all"),
    ("v-in-none", "victim", "none"),
    ("v-in-hidden", "hidden", "none"),
    ("v-in-below", "victim", "all"),
];

/// A directory of the host with processes in it.
struct Host<'a> {
    place: &'a Place,
    reach: PathBuf,
    directory: PathBuf,
    processes: Vec<std::process::Child>,
}

impl<'a> Host<'a> {
    fn new(place: &'a Place) -> Self {
        let directory = place.path("home/outside");
        fs::create_dir(&directory).unwrap();
        for name in ["", "file", "owned"] {
            let path = directory.join(name);
            if !name.is_empty() {
                fs::write(&path, "").unwrap();
            }
            place.give_to_user(&path);
        }
        run(&mut place.subuidless(["owners", "set", "7:8", "outside/owned"])).ok();
        let reach = compile(place, &["gcc", "-O1"], "reach", "reach/reach.c");
        let mut host = Self {
            place,
            reach,
            directory,
            processes: Vec::new(),
        };
        let (above, within) = OUTSIDE.split_last().unwrap();
        host.start(above, &[]);
        host.start(&within[0], &["unshare", "-r", "-m"]);
        let first = host.holder();
        for victim in &within[1..] {
            let first = first.to_string();
            host.start(
                victim,
                &["nsenter", "-U", "--preserve-credentials", "-t", &first],
            );
        }
        host
    }

    fn start(&mut self, (name, kind, capabilities): &(&str, &str, &str), within: &[&str]) {
        let mut command = self.place.as_user("env");
        command
            .args(within)
            .arg(&self.reach)
            .args([kind, name, capabilities])
            .arg(&self.directory)
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{name}");
        self.processes.push(child);
    }

    /// The first process of the container's user namespace.
    fn holder(&self) -> Pid {
        Pid::from_raw(self.processes[1].id().try_into().unwrap())
    }

    /// What a container of `bundle` reaches: the lines of `reach`.
    fn reached(&self, bundle: Bundle, script: &str) -> BTreeSet<String> {
        let bundle = bundle.with_program(&self.reach).with_mount(
            Path::new("/proc"),
            "/hpm",
            &["rbind", "ro"],
        );
        let start: String = INSIDE
            .iter()
            .map(|(name, kind, capabilities)| {
                let within = if *name == "v-in-below" {
                    "unshare -U"
                } else {
                    ""
                };
                format!("{within} /reach {kind} {name} {capabilities} /work $OF >/tmp/ready &\n")
            })
            .collect();
        let script = format!(
            "export OF={outside}
             chmod 777 /tmp /work; cd /work; echo >file; echo >owned
             chown 7:8 owned 2>/dev/null ||:; mkfifo /tmp/ready
             {start}
             head -n {count} /tmp/ready >/dev/null
             try() {{ procfs=$1; who=$2; shift 2; \"$@\" /reach $procfs {outside} $who {names}; }}
             {script}
             kill -9 -1",
            count = INSIDE.len(),
            outside = self.directory.display(),
            names = OUTSIDE
                .iter()
                .chain(&INSIDE)
                .map(|it| it.0)
                .collect::<Vec<_>>()
                .join(" "),
        );
        let printed = bundle.sh_beside(self.holder(), &script);
        printed.lines().map(str::to_owned).collect()
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What only one of them has: `-` the runtime alone, `+` with us.
fn differences(alone: &BTreeSet<String>, ours: &BTreeSet<String>) -> Vec<String> {
    let lost = alone.difference(ours).map(|line| format!("-{line}"));
    let gained = ours.difference(alone).map(|line| format!("+{line}"));
    let mut all: Vec<_> = lost.chain(gained).collect();
    all.sort_by(|a, b| a[1..].cmp(&b[1..]));
    all
}

fn assert_same(alone: &BTreeSet<String>, ours: &BTreeSet<String>) {
    assert!(
        alone.iter().any(|line| line.ends_with(" done")),
        "{alone:#?}"
    );
    let different = differences(alone, ours);
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn no_call_reaches_further_through_a_link_of_any_process_than_under_crun_alone() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let host = Host::new(&place);
    // Of the host and of the container, by its root, by one of a user namespace below, and by one
    // that Landlock restricts.
    for procfs in ["/hpm", "/proc"] {
        for (who, setting) in [
            ("root", ""),
            ("root unshare -r", ""),
            ("root", "export LANDLOCK=1;"),
        ] {
            let script = format!("{setting} try {procfs} {who}");
            let alone = host.reached(Bundle::bare(&place), &script);
            let ours = host.reached(Bundle::new(&place, &daemon), &script);
            assert_same(&alone, &ours);
        }
    }
}

#[test]
fn nobody_who_is_not_root_in_the_container_reaches_further_than_its_root() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let host = Host::new(&place);
    let script = "try /hpm user; try /proc user";
    let alone = host.reached(Bundle::bare(&place), script);
    let ours = host.reached(Bundle::new(&place, &daemon), script);
    let gained: Vec<_> = ours
        .difference(&alone)
        .filter(|line| line.ends_with(" done") || line.ends_with(" reached"))
        .collect();
    assert!(gained.is_empty(), "{gained:#?}");
    assert!(ours.iter().any(|line| line.ends_with(" done")), "{ours:#?}");
}

/// A target decides what lies where in its mounts, in procfs as well.
#[test]
fn nothing_that_is_mounted_in_procfs_makes_the_workers_own_links_lead_anywhere() {
    const TRY: &str = include_str!("reach/links.sh");
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let host = Host::new(&place);
    // The program that the worker is.
    let program = host.directory.join("program");
    fs::hard_link(place.binary(), &program).unwrap();
    place.give_to_user(&program);
    let before = files_of(&host.directory);
    // With another group than the kernel's a worker creates for the container; with its own a
    // user namespace can be mapped.
    for (gid, script) in [
        (5, "mount --bind $worker /proc/tty; tried /proc/tty"),
        (0, "/reach mounted links of text"),
        (5, "forge"),
        (0, "unshare -r -m sh -euc \"$TRY worker=$worker; forge\""),
    ] {
        let bundle = Bundle::new(&place, &daemon)
            .with_program(&host.reach)
            .with_mount(Path::new("/proc"), "/hpm", &["rbind"])
            .with_config(|config| config["process"]["user"]["gid"] = gid.into());
        let script = format!(
            "export outside={} OF={}; TRY='{TRY}'; export TRY; eval \"$TRY\"; {script}; echo tried",
            host.directory.display(),
            place.name(),
        );
        assert_eq!(bundle.sh(&script), "tried\n");
        assert_eq!(files_of(&host.directory), before, "{script}");
    }
}

/// The files in a directory, and the modes and attributes of all.
fn files_of(directory: &Path) -> Vec<String> {
    let mut all: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .chain([directory.to_owned()])
        .map(|path| {
            let mode = fs::symlink_metadata(&path).unwrap().mode();
            let attributes: Vec<_> = xattr::list(&path).unwrap().collect();
            format!("{} {mode:o} {attributes:?}", path.display())
        })
        .collect();
    all.sort();
    all
}

/// A container that cannot put a file system in the way of its runtime.
fn without_mounts(config: &mut serde_json::Value) {
    for set in ["bounding", "effective", "permitted"] {
        let set = config["process"]["capabilities"][set]
            .as_array_mut()
            .unwrap();
        set.retain(|capability| capability != "CAP_SYS_ADMIN");
    }
}

#[test]
fn a_runtime_that_enters_a_container_is_as_closed_to_it_as_without_us() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let host = Host::new(&place);
    for (runtime, comm) in [(Runtime::Crun, "crun"), (Runtime::Runc, "runc:[2:INIT]")] {
        let bundle = Bundle::new(&place, &daemon)
            .under(runtime, &daemon)
            .with_config(without_mounts)
            .with_program(&host.reach);
        let container = bundle.start(&[
            "/bin/sh",
            "-c",
            &format!(
                "cd /work; echo >file; echo >owned
                 until test -e stop; do /reach /proc {outside} root '{comm}' >>lines; done
                 touch stopped; sleep 1000",
                outside = host.directory.display(),
            ),
        ]);
        let work = bundle.rootfs().join("work");
        let met = || {
            let lines = fs::read_to_string(work.join("lines")).unwrap_or_default();
            lines.lines().filter(|line| line.starts_with(comm)).count()
        };
        until("the runtime is met often", || {
            container.exec(&["/bin/true"]).ok();
            (met() > 500).then_some(())
        });
        fs::write(work.join("stop"), "").unwrap();
        until("the last round has ended", || {
            work.join("stopped").exists().then_some(())
        });
        let lines = fs::read_to_string(work.join("lines")).unwrap();
        let reached: BTreeSet<_> = lines
            .lines()
            .filter(|line| line.starts_with(comm) && line.ends_with(" done"))
            // Before it has been executed in there, its root is the host's; afterwards, the
            // container's.
            .filter(|line| line.contains("+outside"))
            .collect();
        assert!(reached.is_empty(), "{reached:#?}");
        container.stop();
    }
}

#[test]
fn with_the_hosts_processes_podmans_own_are_as_closed_as_without_us() {
    let _one_at_a_time = common::lock();
    let reached = |fronted: bool| {
        let place = Place::new();
        let host = Host::new(&place);
        compile(&place, &["gcc", "-O1", "-static"], "reach", "reach/reach.c");
        small_image(&place);
        let (podman, option) = match fronted {
            true => (Podman::fronted(&place, "runc"), ""),
            false => (Podman::plain(&place), "--runtime runc"),
        };
        let script = format!(
            "\"$@\" import -q small.tar small >/dev/null
             said \"$@\" {option} run --rm --pid=host --network=none -e OF={place} -v {place}/reach:/reach:ro small \
                 sh -c 'cd /work; echo >file; echo >owned; exec /reach /proc /work root conmon podman'",
            place = place.path("").display()
        );
        let lines = podman.sh(&script).ok();
        drop(host);
        lines.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (alone, ours) = (reached(false), reached(true));
    assert!(
        alone.iter().any(|line| line.starts_with("conmon ")),
        "{alone:#?}"
    );
    assert_same(&alone, &ours);
}
