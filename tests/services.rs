//! Programs whose users and daemons know each other: terminals, the ids in messages, System V IPC.

mod common;

use common::free_port;
use common::real::compare_with;

const PACKAGES: &str =
    "apache2 dbus expect libglib2.0-bin libpam-elogind polkitd rsyslog screen tmux";

#[test]
fn terminals_buses_logs_and_semaphores_are_whose_they_are() {
    let script = format!(
        "port={}\n{}",
        free_port(),
        include_str!("services/services.sh")
    );
    let seen = compare_with(PACKAGES, &[], "/home", |_| script.clone());
    assert!(
        seen.contains("alice:alice crw--w---- \nmine\n") || seen.contains("mine\n"),
        "{seen}"
    );
    for line in ["(uint32 1000,)", "1000:1000  of alice", "HTTP/1.1 200 OK"] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
}
