//! Calls of Linux 6.15 and later, which libseccomp has no names for yet. Runtimes cannot name them,
//! and they are ENOSYS in containers; `run` names them by their numbers.

mod common;

use std::fs;

use common::{Place, as_root_and_below_run, assert_same_lines, set_mode};

#[test]
fn new_calls_are_allowed_to_whom_they_are_as_root() {
    let place = Place::new();
    let program = place.path("calls.pl");
    fs::write(&program, include_str!("newer/calls.pl")).expect("a program");
    set_mode(&program, 0o644);
    let script = "umask 022; echo >mine; chown 77:77 mine; echo >roots; mkdir -m 700 directory
        echo >directory/f; ln -s roots link; echo >shared; chmod 666 shared
        echo root; perl $CALLS
        echo a user; setpriv --reuid 77 --regid 77 --clear-groups perl $CALLS
        echo root without its capabilities
        setpriv --bounding-set -fowner,-dac_override perl $CALLS";
    let [oracle, ours] = as_root_and_below_run(&place, script, ("CALLS", &program));
    assert_same_lines(oracle.as_bytes(), ours.as_bytes());
}
