//! Hostile messages, from a seed: whatever a peer sends is either a message or an error.

use std::io::{IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as Peer;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::net::UnixStream;

use super::receive::{self, Received};
use crate::wire::ask::{Filter, What};
use crate::wire::fast::FastPath;
use crate::wire::handover::{Announcement, Handover, NextUser, ProcessUser, Service};
use crate::wire::message::Message;
use crate::wire::oci;

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end.max(1)
    }
}

/// One valid message of each kind.
fn earnest() -> Vec<Vec<u8>> {
    let user = ProcessUser {
        uid: 999,
        gid: 5,
        ..ProcessUser::default()
    };
    let handover = Handover {
        id: "c1".into(),
        status: "running".into(),
        bundle: "/b".into(),
        user: Some(user.clone()),
        service: Service {
            fast: FastPath::On,
            ..Service::default()
        },
    };
    vec![
        br#"{ "ociVersion": "0.2.0", "fds": [ "seccompFd" ], "pid": 0, "metadata": "",
            "state": { "ociVersion": "0.2.0", "id": "c1", "status": "running", "pid": 0,
                "bundle": "." } }"#
            .to_vec(),
        br#"{"fds":["a","seccompFd"],
            "state":{"id":"r1","status":"creating","bundle":"/b","annotations":{}}}"#
            .to_vec(),
        handover.encode(),
        Message::Announcement(Announcement::new("c1".into(), NextUser::User(user))).encode(),
        Message::Ask(What::Status).encode(),
        Message::Ask(What::Trace {
            container: None,
            filter: Filter::default(),
        })
        .encode(),
    ]
}

/// A valid message with some random changes.
fn spoilt(random: &mut Random, earnest: &[Vec<u8>]) -> Vec<u8> {
    const TOKENS: [&[u8]; 14] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b"\\u0000",
        b"\\ud800",
        b",",
        b":",
        b"null",
        b"1e999",
        b"-1",
        b"\xff\xfe",
        b"\"fds\"",
    ];
    let mut bytes = earnest[random.below(earnest.len())].clone();
    for _ in 0..random.below(8) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next().to_le_bytes()[3]),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => {
                let token = TOKENS[random.below(TOKENS.len())];
                let token = token.repeat(1 + random.below(300));
                bytes.splice(at..at, token);
            }
            4 => {
                let other = &earnest[random.below(earnest.len())];
                let from = random.below(other.len());
                bytes.splice(at..at, other[from..].iter().copied());
            }
            _ => {
                let end = at + random.below(bytes.len() - at + 1);
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

#[test]
fn the_parsers_of_a_handshake_take_anything() {
    const ROUNDS: u32 = 400_000;
    let mut random = Random(0x5eed);
    let earnest = earnest();
    let mut understood = 0;
    for _ in 0..ROUNDS {
        let bytes = spoilt(&mut random, &earnest);
        let received = random.below(4);
        if let Ok(state) = oci::parse(&bytes, received) {
            understood += 1;
            assert!(state.listener < received);
            for text in [&state.id, &state.status, &state.bundle] {
                assert!(text.chars().count() <= 4096);
            }
        }
        // A message that is accepted survives the round trip.
        if let Ok(message) = Message::parse(&bytes) {
            assert_eq!(Message::parse(&message.encode()), Ok(message));
        }
    }
    assert!(understood > 0);
}

#[test]
fn a_connection_that_says_anything_in_any_pieces_ends() {
    const ROUNDS: u32 = 20_000;
    let mut random = Random(0xd00d);
    let earnest = earnest();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..ROUNDS {
            let (mut peer, ours) = Peer::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let connection = UnixStream::from_std(ours).unwrap();
            let bytes = spoilt(&mut random, &earnest);
            let mut left = bytes.as_slice();
            if random.below(3) == 0 && left.len() > 1 {
                let (first, rest) = left.split_at(2);
                // Never a listener.
                let fds = [peer.as_raw_fd(); 3];
                let fds = [ControlMessage::ScmRights(&fds[..=random.below(3)])];
                let first = [IoSlice::new(first)];
                sendmsg::<()>(peer.as_raw_fd(), &first, &fds, MsgFlags::empty(), None).unwrap();
                left = rest;
            }
            // The message fits into the socket's buffer.
            while !left.is_empty() {
                let (piece, rest) = left.split_at(1 + random.below(left.len()));
                peer.write_all(piece).unwrap();
                left = rest;
            }
            peer.shutdown(Shutdown::Write).unwrap();
            match receive::receive(&connection, false).await {
                Ok(Received::Container(..) | Received::Orphan(_)) => {
                    panic!("no listener came: {}", bytes.escape_ascii())
                }
                Ok(Received::Announcement(_) | Received::Ask(_)) | Err(_) => {}
            }
        }
    });
}
