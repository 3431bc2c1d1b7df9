//! The device with which pasta(1) and slirp4netns(1) connect a network.
//!
//! Each creates its interface with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Its path.
pub(crate) const PATH: &str = "/dev/net/tun";

/// The names of the programs, the better one first.
pub(crate) const PROGRAMS: [&str; 2] = [PASTA, SLIRP4NETNS];
pub(crate) const PASTA: &str = "pasta";
pub(crate) const SLIRP4NETNS: &str = "slirp4netns";

/// Opens it as they do. The error says why this user cannot.
pub(crate) fn open() -> io::Result<()> {
    let file = File::options().read(true).write(true).open(PATH)?;
    match file.metadata()?.rdev() == libc::makedev(10, 200) {
        true => Ok(()),
        false => Err(io::Error::other("it is not that device")),
    }
}
