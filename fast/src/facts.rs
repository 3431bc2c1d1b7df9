//! The page of facts, in which a worker informs the library in its targets, and the marks of the
//! library's calls.
//!
//! The page is memory that the worker writes and targets map read-only. Its first word only tells the
//! library when to leave calls to the worker. A wrong word deceives the processes of the container
//! that it belongs to, and no others.

/// In argument 5, which none of these calls uses: the library has made the call, and the filter
/// allows it. Below 2^53, because some tools read JSON numbers as doubles.
pub const MAGIC: u64 = 0x0015_b1da_cce1_e470;

/// In argument 5: the library asks whether it may answer calls. Argument 1 is the address of two
/// words. The first one is zero, the second one says whether the library has the page already. The
/// worker writes the number of filters so far ([`filters`]) to the first one, and `HELLO` to the
/// second one, and replies with a descriptor of the page, or with 0 if the library has it. Anything
/// else is a no, for good.
pub const HELLO: u64 = MAGIC + 1;

/// In argument 5 of an openat(2) with O_CREAT and an empty path: the library asks for the file
/// `/proc/PID/status` that is open at the descriptor in argument 0, as it is with emulated
/// credentials. The worker replies with another descriptor, or with an error.
pub const STATUS: u64 = MAGIC + 2;

/// In argument 5 of a getresuid(2): the library asks who has sent a message. Argument 0 is the
/// address of four words of 32 bits, of which the first one is the sender's pid. The worker writes
/// the uid and the gid to the next two, and 1 to the last one; it leaves them alone if it does not
/// know the process.
pub const SENDER: u64 = MAGIC + 3;

/// In argument 5 of a stat(2) or statx(2): the kernel shows that another host user owns the file.
/// The library asks for the owner that it shows, which is another one if it is of procfs or sysfs.
pub const FOREIGN: u64 = MAGIC + 4;
/// The worker's reply to that for a file of another file system: the library need not ask again
/// about this device.
pub const ORDINARY: i64 = 1;

/// In argument 5 of an openat(2) with O_CREAT, which is not meant: the kernel has said ENXIO to the
/// same call. The worker opens the device, if the file is the placeholder of one that it can open.
pub const DEVICE: u64 = MAGIC + 5;

/// Above an `int` that is the first argument of a call that uses all six: the kernel cuts it off.
pub const MAGIC_ABOVE_INT: u64 = 0x5b1d_acce << 32;

/// The beginning of the library's file name; a version follows.
pub const LIBRARY_NAME: &str = "subuidless-fast-";

/// The words of the page that the library reads: the facts; the uid that the container's user
/// namespace maps, plus 1, if it is the only one; the number of the first supplementary groups, plus
/// 1; how often a process has changed its credentials. A word that is 0 was not written.
pub const FACTS: usize = 0;
pub const MAPPED: usize = 1;
pub const GROUPS: usize = 2;
pub const CHANGES: usize = 3;
pub const READ: usize = 4;

/// Marks the library's state in a process: behind it is the address of the page. The worker writes
/// [`OFF`] there before the process loads a filter.
pub const STATE: [u64; 2] = [0x0c4a_93d1_7be5_20f6, 0x51c7_0e8d_a46b_9f32];
/// No address of a page: all calls are left to the worker, for good.
pub const OFF: usize = 8;

/// The version of the page's format. A worker that knows another one sets it to 0.
pub const VERSION: u64 = 3;
pub const VERSION_BITS: u64 = 0xff;

/// A process may be in a user namespace of its own: all calls are left to the worker.
pub const NESTED: u64 = 1 << 8;
/// The side store has owners, so inodes that cannot carry attributes may have one.
pub const SIDE_STORE: u64 = 1 << 9;
/// The side store may have owners of files and directories whose inodes had no room.
pub const FULL_ONES: u64 = 1 << 10;
/// A process may have other credentials than the container's first ones.
pub const CHANGED: u64 = 1 << 11;
/// Calls are traced: all are left to the worker.
pub const TRACED: u64 = 1 << 12;
/// There may be an overlay among the mounts, in which a change copies the file up.
pub const OVERLAYS: u64 = 1 << 13;
/// A process may lack some of the capabilities over files with which a container's root starts.
pub const LIMITED: u64 = 1 << 14;
/// Permissions are checked: of a process without those capabilities, all calls that look up a path
/// are left to the worker.
pub const PERMISSIONS: u64 = 1 << 15;
/// A terminal may have an emulated owner.
pub const TERMINALS: u64 = 1 << 16;
/// A set of semaphores (System V) may have an emulated owner.
pub const SEMAPHORES: u64 = 1 << 17;
/// Files of other host users show root: an id that no record sets is root's.
pub const OTHERS_ARE_ROOT: u64 = 1 << 18;
/// The unit of the number of seccomp filters that processes of the container have loaded: such a
/// filter may kill a program for a call that only the library makes.
pub const FILTER: u64 = 1 << 32;

/// The number of filters that processes have loaded.
#[must_use]
pub fn filters(facts: u64) -> u64 {
    facts / FILTER
}

/// Whether the library may answer at all.
#[must_use]
pub fn may_answer(facts: u64) -> bool {
    facts & (VERSION_BITS | NESTED | TRACED) == VERSION
}
