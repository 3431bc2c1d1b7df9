//! getsockopt(2): SO_PEERCRED and SO_PEERGROUPS of unix(7); who has sent a message.
//!
//! The kernel says which process the peer is. The ids are those that the peer has *now*; in the
//! kernel they are those at the time of connect(2) or listen(2).

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt as get_option, sockopt::PeerCredentials};

use crate::credentials::{Credentials, Id};
use crate::linux::seccomp::Reply;
use crate::target::Call;

/// asm-generic/socket.h
const SO_PEERCRED: i32 = 17;
const SO_PEERGROUPS: i32 = 59;

pub(super) fn getsockopt(call: &mut Call) -> Result<Reply, Errno> {
    let option = call.int(2);
    if call.int(1) != libc::SOL_SOCKET || !matches!(option, SO_PEERCRED | SO_PEERGROUPS) {
        // CONTINUE: an option that does not concern ids.
        return Ok(Reply::Continue);
    }
    if option == SO_PEERCRED && !call.container.identities.anyone_changed() {
        // CONTINUE: no process has changed ids.
        return Ok(Reply::Continue);
    }
    let Some((pid, credentials)) = peer(call) else {
        // CONTINUE: the peer does not exist, has ended, or is outside of this container.
        return Ok(Reply::Continue);
    };
    let mut length = [0; 4];
    call.read(4, &mut length)?;
    let room = usize::try_from(i32::from_ne_bytes(length)).map_err(|_| Errno::EINVAL)?;
    if option == SO_PEERGROUPS {
        return write_groups(
            call,
            &call.id_bytes(credentials.groups.iter().map(|gid| gid.as_raw())),
            room,
        );
    }
    let ids = [
        pid,
        credentials.uid.effective.as_raw(),
        credentials.gid.effective.as_raw(),
    ];
    let bytes: Vec<u8> = ids.into_iter().flat_map(u32::to_ne_bytes).collect();
    let bytes = &bytes[..room.min(bytes.len())];
    call.write(3, bytes)?;
    write_length(call, bytes.len())
}

/// Writes the groups, and their length in bytes. If there is not enough room, this length tells how
/// much is needed (net/core/sock.c, SO_PEERGROUPS: ERANGE).
fn write_groups(call: &Call, groups: &[u8], room: usize) -> Result<Reply, Errno> {
    if room < groups.len() {
        write_length(call, groups.len())?;
        return Err(Errno::ERANGE);
    }
    call.write(3, groups)?;
    write_length(call, groups.len())
}

fn write_length(call: &Call, length: usize) -> Result<Reply, Errno> {
    let length = i32::try_from(length).map_err(|_| Errno::EINVAL)?;
    call.write(4, &length.to_ne_bytes())?;
    Ok(Reply::Value(0))
}

/// The peer's pid in the target's pid namespace (0 if the target cannot see it), and its
/// credentials.
fn peer(call: &Call) -> Option<(u32, Credentials)> {
    let socket = call.duplicate(call.int(0)).ok()?;
    // The pid is that of this process's pid namespace; 0 if the peer is not in it.
    let peer = get_option(&socket.as_fd(), PeerCredentials).ok()?;
    let pid = u32::try_from(peer.pid()).ok().filter(|pid| *pid != 0)?;
    let credentials = call.credentials_at(pid).filter(|_| !call.is_nested())?;
    Some((call.number_of(pid).unwrap_or(0), credentials))
}
