//! Hashes without resistance to attacks: an attacker can find collisions.

/// FNV-1a.
pub(crate) fn of_bytes(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Maps the inodes of all devices evenly to all numbers.
pub(crate) fn of_inode(device: u64, inode: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = (inode.wrapping_mul(ODD) ^ device.rotate_left(32)).wrapping_mul(ODD);
    mixed ^ mixed >> 32
}

/// The hash of an inode, as an index for a table after a modulo.
pub(crate) fn spread(device: u64, inode: u64) -> usize {
    (of_inode(device, inode) >> 32) as usize
}
