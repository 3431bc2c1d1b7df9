//! What peers send to the daemon's socket: the runtimes' messages in all their forms, and
//! everything else.
//!
//! Each refused message gives one log line that names the reason, leaves no fd open (a target whose
//! last listener is closed gets ENOSYS), and the daemon goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use common::{Bundle, Daemon, Peer, Place, Target, until};

const OWNED: &str = "42:43";
const NOBODY_LISTENS: &str = "Function not implemented (os error 38)";

fn crun(id: &str) -> Value {
    json!({
        "ociVersion": "0.2.0",
        "fds": ["seccompFd"],
        "pid": 4711,
        "metadata": "",
        "state": {"ociVersion": "0.2.0", "id": id, "status": "creating", "pid": 4711, "bundle": "/b", "annotations": {}},
    })
}

fn crun_exec(id: &str) -> Value {
    json!({
        "ociVersion": "0.2.0",
        "fds": ["seccompFd"],
        "pid": 0,
        "metadata": "",
        "state": {"ociVersion": "0.2.0", "id": id, "status": "running", "pid": 0, "bundle": "."},
    })
}

fn runc(id: &str) -> Value {
    json!({
        "ociVersion": "1.0.2-dev",
        "fds": ["seccompFd"],
        "pid": 4711,
        "state": {
            "ociVersion": "1.0.2-dev", "id": id, "status": "creating", "pid": 4711, "bundle": "/b",
            "annotations": {"org.example": "value"},
        },
    })
}

fn youki(id: &str) -> Value {
    json!({
        "ociVersion": "v1.0.2",
        "fds": ["seccompFd"],
        "pid": 4711,
        "metadata": "",
        "state": {
            "ociVersion": "v1.0.2", "id": id, "status": "creating", "bundle": "/b", "annotations": {},
            "created": null, "creator": 0, "useSystemd": null, "cleanUpIntelRdtSubdirectory": false,
        },
    })
}

/// One message, one fd, and the connection closed, as runtimes do it.
fn send(place: &Place, daemon: &Daemon, message: &[u8], fds: &[BorrowedFd]) {
    Peer::connect(place, daemon).send(message, fds);
}

/// Sends `message` with a listener; its target is served from then on, and the log names the
/// container.
fn is_served(message: &[u8], id: &str) {
    begins_and_ends(message, "container", id);
}

/// The same for whatever the log calls `what`.
fn begins_and_ends(message: &[u8], what: &str, id: &str) {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut target = Target::start(&place);
    send(&place, &daemon, message, &[target.listener()]);
    target.give_up_listener();
    assert_eq!(target.chown(), OWNED);
    daemon.wait_for(&[&format!(" INFO {what} "), &format!("container={id} ")]);
    drop(target);
    daemon.wait_for(&[&format!(" INFO {what} ended "), &format!("container={id} ")]);
    until("the worker ends", || {
        place.workers().is_empty().then_some(())
    });
}

/// The daemon says `reason` once, keeps nothing, and serves the next container.
fn is_refused(reason: &str, misbehave: impl FnOnce(&Place, &Daemon, &Target)) {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let before = daemon.open_fds();
    let mut target = Target::start(&place);
    misbehave(&place, &daemon, &target);
    target.give_up_listener();
    let line = daemon.wait_for(&["refused"]);
    assert!(line.contains(reason), "{line}");
    assert_eq!(target.chown(), NOBODY_LISTENS);
    until("every fd is closed", || {
        (daemon.open_fds() == before).then_some(())
    });
    serve_a_container(&place, &daemon);
    until("every fd is closed", || {
        (daemon.open_fds() == before).then_some(())
    });
    assert_eq!(daemon.lines(&["refused"]).len(), 1, "{}", daemon.log());
    until("the worker ends", || {
        place.workers().is_empty().then_some(())
    });
}

/// Has a good peer's target served.
fn serve_a_container(place: &Place, daemon: &Daemon) {
    let mut target = Target::start(place);
    send(
        place,
        daemon,
        crun("good").to_string().as_bytes(),
        &[target.listener()],
    );
    target.give_up_listener();
    assert_eq!(target.chown(), OWNED);
}

#[test]
fn cruns_message_is_understood() {
    is_served(
        serde_json::to_string_pretty(&crun("c1"))
            .unwrap()
            .as_bytes(),
        "c1",
    );
}

#[test]
fn cruns_message_at_exec_is_understood() {
    begins_and_ends(
        serde_json::to_string_pretty(&crun_exec("c2"))
            .unwrap()
            .as_bytes(),
        "exec",
        "c2",
    );
}

#[test]
fn runcs_message_is_understood() {
    is_served(runc("r1").to_string().as_bytes(), "r1");
}

#[test]
fn youkis_message_is_understood() {
    is_served(youki("y1").to_string().as_bytes(), "y1");
}

#[test]
fn a_message_with_annotations_of_almost_a_mebibyte_is_understood() {
    let mut message = runc("large");
    let room = (1 << 20) - message.to_string().len() - 16;
    message["state"]["annotations"]["a"] = "x".repeat(room).into();
    is_served(message.to_string().as_bytes(), "large");
}

#[test]
fn a_message_above_a_mebibyte_is_refused() {
    is_refused("longer than 1048576 bytes", |place, daemon, target| {
        let mut message = runc("too-large");
        message["state"]["annotations"]["a"] = "x".repeat(1 << 20).into();
        send(
            place,
            daemon,
            message.to_string().as_bytes(),
            &[target.listener()],
        );
    });
}

#[test]
fn a_message_in_many_small_pieces_is_understood() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut target = Target::start(&place);
    let peer = Peer::connect(&place, &daemon);
    let message = serde_json::to_string_pretty(&crun("pieces")).unwrap();
    let (last, rest) = message.as_bytes().split_last().unwrap();
    for byte in rest {
        peer.send(&[*byte], &[]);
    }
    // The fd may come with any of them.
    peer.send(&[*last], &[target.listener()]);
    drop(peer);
    target.give_up_listener();
    assert_eq!(target.chown(), OWNED);
}

#[test]
fn a_peer_that_holds_its_connection_open_after_the_message_is_served() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut target = Target::start(&place);
    let peer = Peer::connect(&place, &daemon);
    peer.send(crun("open").to_string().as_bytes(), &[target.listener()]);
    target.give_up_listener();
    assert_eq!(target.chown(), OWNED);
    drop(peer);
}

#[test]
fn the_listener_may_be_the_second_of_two_fds() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut target = Target::start(&place);
    let (ours, other) = UnixStream::pair().unwrap();
    let mut message = crun("two");
    message["fds"] = json!(["otherFd", "seccompFd"]);
    let fds = [other.as_fd(), target.listener()];
    send(&place, &daemon, message.to_string().as_bytes(), &fds);
    drop(other);
    target.give_up_listener();
    assert_eq!(target.chown(), OWNED);
    // The end of the stream comes when the last copy of its other end is closed.
    assert_eq!((&ours).read(&mut [0]).unwrap(), 0);
}

#[test]
fn garbage_is_refused() {
    is_refused("not the JSON", |place, daemon, target| {
        send(
            place,
            daemon,
            b"GET / HTTP/1.1\r\n\r\n",
            &[target.listener()],
        );
    });
}

#[test]
fn bytes_that_are_not_text_are_refused() {
    is_refused("not the JSON", |place, daemon, target| {
        send(place, daemon, &[0xff; 100], &[target.listener()]);
    });
}

#[test]
fn json_of_another_kind_is_refused() {
    is_refused("seccompFd", |place, daemon, target| {
        send(
            place,
            daemon,
            b"{\"hello\": \"world\"}",
            &[target.listener()],
        );
    });
}

#[test]
fn half_a_message_is_refused() {
    is_refused("not the JSON", |place, daemon, target| {
        let message = crun("half").to_string();
        let half = &message.as_bytes()[..message.len() / 2];
        send(place, daemon, half, &[target.listener()]);
    });
}

#[test]
fn a_message_without_an_fd_is_refused() {
    is_refused(
        "the message came without file descriptors",
        |place, daemon, _| {
            send(place, daemon, crun("no-fd").to_string().as_bytes(), &[]);
        },
    );
}

#[test]
fn a_message_with_fewer_fds_than_it_names_is_refused() {
    is_refused(
        "names 2 file descriptors, but 1 came",
        |place, daemon, target| {
            let mut message = crun("fewer");
            message["fds"] = json!(["seccompFd", "otherFd"]);
            send(
                place,
                daemon,
                message.to_string().as_bytes(),
                &[target.listener()],
            );
        },
    );
}

#[test]
fn a_message_with_more_fds_than_it_names_is_refused() {
    is_refused(
        "names 1 file descriptors, but 3 came",
        |place, daemon, target| {
            let fds = [target.listener(); 3];
            send(place, daemon, crun("more").to_string().as_bytes(), &fds);
        },
    );
}

#[test]
fn an_fd_that_is_no_listener_is_refused() {
    let file = tempfile::tempfile().unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    for fd in [file.as_fd(), socket.as_fd()] {
        is_refused("not a seccomp listener", |place, daemon, _| {
            send(
                place,
                daemon,
                crun("no-listener").to_string().as_bytes(),
                &[fd],
            );
        });
    }
}

#[test]
fn more_fds_than_any_message_has_are_refused() {
    let reason = "more than 16 file descriptors";
    is_refused(reason, |place, daemon, target| {
        let peer = Peer::connect(place, daemon);
        peer.send(b"{", &[target.listener(); 9]);
        peer.send(b"\"", &[target.listener(); 9]);
        peer.wait_for_close();
    });
    is_refused(reason, |place, daemon, target| {
        let peer = Peer::connect(place, daemon);
        peer.send(b"{", &[target.listener(); 253]);
        peer.wait_for_close();
    });
}

#[test]
fn a_peer_that_closes_at_once_is_told_of() {
    is_refused("closed without a message", |place, daemon, _| {
        drop(Peer::connect(place, daemon));
    });
}

#[test]
fn a_peer_of_another_user_is_refused() {
    is_refused("a peer of another user", |_, daemon, target| {
        // The socket keeps others out, but not root.
        use sendfd::SendWithFd;
        use std::os::fd::AsRawFd;
        let connection = UnixStream::connect(&daemon.socket).unwrap();
        let message = crun("foreign").to_string();
        let fds = [target.listener().as_raw_fd()];
        // Refused before or after the message was sent.
        let _ = connection.send_with_fd(message.as_bytes(), &fds);
        let closed = (&connection).read(&mut [0]);
        assert!(!matches!(closed, Ok(1)));
    });
}

#[test]
fn peers_that_never_finish_are_given_up_and_hold_up_nobody() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let before = daemon.open_fds();
    let mut target = Target::start(&place);
    let silent = Peer::connect(&place, &daemon);
    let slow = Peer::connect(&place, &daemon);
    slow.send(b"{\"fds\": [", &[target.listener()]);
    target.give_up_listener();
    let bundle = Bundle::new(&place, &daemon);
    assert_eq!(bundle.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
    silent.wait_for_close();
    slow.wait_for_close();
    daemon.wait_for(&["refused", "did not finish its message", " 0 bytes came"]);
    daemon.wait_for(&["refused", "did not finish its message", " 9 bytes came"]);
    assert_eq!(target.chown(), NOBODY_LISTENS);
    drop((silent, slow));
    until("every fd is closed", || {
        (daemon.open_fds() == before).then_some(())
    });
}

#[test]
fn after_every_kind_of_bad_peer_a_container_is_served() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let file = tempfile::tempfile().unwrap();
    let bundle = Bundle::new(&place, &daemon);
    let container = bundle.start(&["/bin/sleep", "1000000"]);
    let messages: [&[u8]; 5] = [
        b"",
        b"{",
        b"garbage",
        b"{\"fds\": [\"seccompFd\"]}",
        &[0; 4096],
    ];
    for message in messages {
        send(&place, &daemon, message, &[]);
        if !message.is_empty() {
            send(&place, &daemon, message, &[file.as_fd()]);
        }
    }
    until("each has been refused", || {
        (daemon.lines(&["refused"]).len() == 9).then_some(())
    });
    assert_eq!(
        container.sh("touch f; chown 1:2 f; stat -c %u:%g f"),
        "1:2\n"
    );
    assert_eq!(bundle.sh("stat -c %u:%g f"), "1:2\n");
    container.stop();
}

#[test]
fn strangers_and_bad_peers_that_come_again_and_again_fill_no_log() {
    const TIMES: usize = 3000;
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    // Of root, who is another user.
    for _ in 0..TIMES {
        drop(UnixStream::connect(&daemon.socket).unwrap());
    }
    // And of its own user.
    for _ in 0..150 {
        send(&place, &daemon, b"garbage", &[]);
    }
    serve_a_container(&place, &daemon);
    daemon.wait_for(&["container ended"]);
    daemon.wait_for(&["many lines like the next one"]);
    let log = daemon.log();
    let lines = log.lines().count();
    assert!(lines < 300, "{lines} lines:\n{log}");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.wait().success());
    let left_out: usize = daemon
        .lines(&["lines were left out"])
        .iter()
        .map(|line| common::number_after(line, "left_out="))
        .sum();
    let said = daemon.lines(&["WARN refused"]).len();
    assert_eq!(left_out + said, TIMES + 150, "{}", daemon.log());
}

#[test]
fn however_many_say_nothing_or_dribble_a_container_is_served() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let before = daemon.open_fds();
    let peers: Vec<Peer> = (0..300).map(|_| Peer::connect(&place, &daemon)).collect();
    for peer in &peers[200..] {
        peer.send(b"{\"a\": \"", &[]);
    }
    std::thread::scope(|scope| {
        for peer in &peers[290..] {
            // Each byte could be the last one, to who does not look at those before.
            scope.spawn(|| (0..20_000).for_each(|_| peer.send(b"}", &[])));
        }
        for _ in 0..3 {
            serve_a_container(&place, &daemon);
        }
    });
    daemon.wait_for(&["refused", "too many peers"]);
    drop(peers);
    until("every fd is closed", || {
        (daemon.open_fds() == before).then_some(())
    });
}
