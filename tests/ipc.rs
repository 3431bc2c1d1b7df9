//! System V IPC: objects belong to their makers, whatever programs and namespaces they are in.

mod common;

use std::process::Command;

use common::{Bundle, Daemon, Pair, Place, STATIC_SHORT, assert_same_lines, compile, run, tool};

/// Programs of both word sizes, in the container's namespace and in one of their own; C libraries
/// of i386 make all calls by ipc(2).
#[test]
fn programs_of_either_word_size_may_do_what_they_may_as_real_root() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let [wide, short] = [("wide", &["gcc", "-static"][..]), ("short", STATIC_SHORT)]
        .map(|(name, compiler)| compile(&place, compiler, name, "ipc/ipc.c"));
    let pair = Pair::small(&place, &daemon).with(|bundle| {
        bundle
            .with_mount(&wide, "/wide", &["bind", "ro"])
            .with_mount(&short, "/short", &["bind", "ro"])
    });
    let seen = pair.sh("/wide; /short; unshare -i /wide; unshare -i sh -c '/short; /wide'");
    assert!(seen.contains("34: shmat EACCES, to read EACCES"), "{seen}");
    assert!(seen.contains("  34:70000 33:33 640\n"), "{seen}");
    assert!(
        daemon.lines(&[" WARN "]).is_empty() && daemon.lines(&["ERROR"]).is_empty(),
        "{}",
        daemon.log()
    );
}

/// The host's namespace, which is no user namespace's of ours.
#[test]
fn a_command_of_the_host_shares_its_objects_with_nobody_of_another_id() {
    let place = Place::new();
    let wide = compile(&place, &["gcc", "-static", "-O1"], "wide", "ipc/ipc.c");
    let oracle = Bundle::oracle(&place)
        .with_mount(&wide, "/wide", &["bind", "ro"])
        .with_config(|config| {
            // As below `subuidless run`.
            for set in ["bounding", "effective", "permitted"] {
                let set = config["process"]["capabilities"][set].as_array_mut();
                set.expect("a list").push("CAP_IPC_OWNER".into());
            }
        });
    let expected = oracle.sh("/wide");
    for options in [&["run"][..], &["run", "--no-fast"]] {
        let mut command = place.subuidless(options);
        let ran = run(command.arg("--").arg(tool("unshare")).arg("-i").arg(&wide));
        assert_same_lines(expected.as_bytes(), ran.ok().as_bytes());
        let mut command = place.subuidless(options);
        assert_same_lines(
            expected.as_bytes(),
            run(command.arg("--").arg(&wide)).ok().as_bytes(),
        );
    }
    let left = run(Command::new(tool("ipcs")).arg("-s")).ok();
    assert!(!left.contains("0x00000007"), "{left}");
}
