//! The structures of 32-bit programs: i386 (arch/x86/include/asm/compat.h,
//! arch/x86/kernel/sys_ia32.c) and 32-bit ARM (arch/arm64/include/asm/compat.h and stat.h). Pure.

use nix::errno::Errno;
use nix::sys::stat::FileStat;

/// DEFAULT_OVERFLOWUID (linux/highuid.h): stands for an id of more than 16 bits.
const OVERFLOW_ID: u16 = 65534;

/// The bytes of `struct compat_stat`, for stat, lstat and fstat; EOVERFLOW for a size, an inode
/// number or a link count that does not fit (fs/stat.c, cp_compat_stat).
pub(super) fn stat(stat: &FileStat) -> Result<Vec<u8>, Errno> {
    const MAX_SIZE: i64 = i32::MAX as i64;
    if stat.st_size > MAX_SIZE {
        return Err(Errno::EOVERFLOW);
    }
    let inode = u32::try_from(stat.st_ino).map_err(|_| Errno::EOVERFLOW)?;
    let links = u16::try_from(stat.st_nlink).map_err(|_| Errno::EOVERFLOW)?;
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(low(stat.st_dev));
    bytes.extend(inode.to_le_bytes());
    let [a, b, ..] = stat.st_mode.to_le_bytes();
    bytes.extend([a, b]);
    bytes.extend(links.to_le_bytes());
    for id in [stat.st_uid, stat.st_gid] {
        bytes.extend(u16::try_from(id).unwrap_or(OVERFLOW_ID).to_le_bytes());
    }
    bytes.extend(low(stat.st_rdev));
    bytes.extend(low(stat.st_size.cast_unsigned()));
    bytes.extend(low(stat.st_blksize.cast_unsigned()));
    bytes.extend(low(stat.st_blocks.cast_unsigned()));
    bytes.extend(times(stat));
    bytes.extend([0; 8]);
    Ok(bytes)
}

/// Whether members of 64 bits stand at multiples of eight bytes, as on ARM.
const IS_ALIGNED: bool = cfg!(target_arch = "aarch64");

/// The bytes of `struct stat64`, for stat64, lstat64, fstat64 and fstatat64.
pub(super) fn stat64(stat: &FileStat) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(104);
    bytes.extend(stat.st_dev.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(low(stat.st_ino));
    bytes.extend(stat.st_mode.to_le_bytes());
    bytes.extend(low(stat.st_nlink));
    bytes.extend(stat.st_uid.to_le_bytes());
    bytes.extend(stat.st_gid.to_le_bytes());
    bytes.extend(stat.st_rdev.to_le_bytes());
    bytes.extend([0; 4]);
    align(&mut bytes);
    bytes.extend(stat.st_size.to_le_bytes());
    bytes.extend(low(stat.st_blksize.cast_unsigned()));
    align(&mut bytes);
    bytes.extend(stat.st_blocks.to_le_bytes());
    bytes.extend(times(stat));
    bytes.extend(stat.st_ino.to_le_bytes());
    bytes
}

fn align(bytes: &mut Vec<u8>) {
    if IS_ALIGNED {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
}

/// The lower 32 bits.
fn low(value: impl Into<u64>) -> [u8; 4] {
    let value = value.into();
    let [a, b, c, d, ..] = value.to_le_bytes();
    [a, b, c, d]
}

/// The times of access, modification and change: seconds and nanoseconds of each.
fn times(stat: &FileStat) -> impl Iterator<Item = u8> {
    [
        stat.st_atime,
        stat.st_atime_nsec,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec,
    ]
    .into_iter()
    .flat_map(|time| low(time.cast_unsigned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_and_places_that_32_bit_programs_expect() {
        let mut of = nix::sys::stat::stat("/").unwrap();
        (of.st_ino, of.st_uid, of.st_gid, of.st_size) = (0x1234, 70_000, 7, 4096);
        let old = stat(&of).unwrap();
        assert_eq!(old.len(), 64);
        assert_eq!(old[12..16], [0xfe, 0xff, 7, 0]);
        let new = stat64(&of);
        let (length, size) = if IS_ALIGNED { (104, 48) } else { (96, 44) };
        assert_eq!(new.len(), length);
        assert_eq!(new[24..28], 70_000u32.to_le_bytes());
        assert_eq!(new[size..size + 8], 4096u64.to_le_bytes());
        assert_eq!(new[length - 8..], 0x1234u64.to_le_bytes());
        of.st_ino = 1 << 32;
        assert_eq!(stat(&of), Err(Errno::EOVERFLOW));
        assert_eq!(stat64(&of)[12..16], [0; 4]);
    }
}
