//! Hand-made peers of the daemon: [`Peer`] is a runtime's end of a connection, [`Target`] a process
//! under a filter.

use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use sendfd::SendWithFd;

use super::daemon::Daemon;
use super::example::example;
use super::place::Place;
use super::run::{end, patience};

/// Starts a program whose standard input is a socket, and takes the fd that it passes there.
fn start_passing(mut command: Command) -> (Child, UnixStream, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    ours.set_read_timeout(Some(patience())).expect("a time-out");
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    let child = command.spawn().expect("starting the program");
    drop(command);
    let fd = receive_fd(&ours);
    (child, ours, fd)
}

#[expect(unsafe_code, reason = "SCM_RIGHTS gives bare numbers")]
fn receive_fd(socket: &UnixStream) -> OwnedFd {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    // Closed on exec from the start: other tests of this process start programs all the time.
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut space), flags)
        .expect("receiving an fd");
    let rights = message.cmsgs().expect("a whole control message").next();
    let Some(ControlMessageOwned::ScmRights(fds)) = rights else {
        panic!("the program passed no fd");
    };
    // SAFETY: the kernel has just put this fd into our table for us, and nothing else knows it.
    unsafe { OwnedFd::from_raw_fd(fds[0]) }
}

/// A program of the test's, where the user can execute it.
fn shared_program(place: &Place) -> PathBuf {
    let path = place.path("target");
    if !path.exists() {
        let built = example("target");
        if std::fs::hard_link(&built, &path).is_err() {
            std::fs::copy(&built, &path).expect("copying the program");
        }
    }
    path
}

/// A connection to the daemon, made by its own user.
#[derive(Debug)]
pub(crate) struct Peer(UnixStream);

impl Peer {
    pub(crate) fn connect(place: &Place, daemon: &Daemon) -> Self {
        let mut command = place.as_user(shared_program(place));
        command.arg("connect").arg(&daemon.socket);
        let (mut child, _, connection) = start_passing(command);
        assert!(child.wait().expect("waiting for a child").success());
        Self(UnixStream::from(connection))
    }

    /// Sends bytes and fds in one message. Whether the daemon takes them is its own affair.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd]) {
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let sent = self.0.send_with_fd(bytes, &fds).expect("sending");
        let mut rest = &bytes[sent..];
        while !rest.is_empty() {
            match (&self.0).write(rest) {
                Ok(length) => rest = &rest[length..],
                // It has heard enough.
                Err(_) => break,
            }
        }
    }

    /// Says nothing more.
    pub(crate) fn finish(&self) {
        self.0
            .shutdown(std::net::Shutdown::Write)
            .expect("shutting down");
    }

    /// Waits until the daemon has closed its end.
    pub(crate) fn wait_for_close(&self) {
        self.0
            .set_read_timeout(Some(patience()))
            .expect("a time-out");
        match (&self.0).read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => panic!("the daemon says something"),
            // It has left bytes unread.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// A process in a user namespace with one mapped id, whose chown and stat are notified.
#[derive(Debug)]
pub(crate) struct Target {
    child: Child,
    orders: UnixStream,
    listener: Option<OwnedFd>,
}

impl Target {
    pub(crate) fn start(place: &Place) -> Self {
        let file = tempfile::NamedTempFile::new_in(place.path("home")).expect("a file");
        place.give_to_user(file.path());
        let (_, path) = file.keep().expect("keeping the file");
        Self::start_with(place, &path)
    }

    fn start_with(place: &Place, file: &Path) -> Self {
        let mut command = place.as_user("unshare");
        command
            .args(["-r", "--"])
            .arg(shared_program(place))
            .arg("filtered")
            .arg(file);
        let (child, orders, listener) = start_passing(command);
        Self {
            child,
            orders,
            listener: Some(listener),
        }
    }

    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener
            .as_ref()
            .expect("the listener is still ours")
            .as_fd()
    }

    /// Closes the test's own copy of the listener.
    pub(crate) fn give_up_listener(&mut self) {
        self.listener = None;
    }

    /// Has the target chown its file to 42:43; the owner that it then sees, or the error.
    pub(crate) fn chown(&mut self) -> String {
        self.orders.write_all(b"!").expect("ordering a chown");
        let mut line = String::new();
        BufReader::new(&self.orders)
            .read_line(&mut line)
            .expect("the target's answer");
        line.trim_end().to_owned()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
