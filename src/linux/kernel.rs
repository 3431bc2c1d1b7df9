//! The version of the running kernel.

use std::fs;

use nix::sys::utsname::uname;

use crate::error::Error;

/// The oldest one with all that is needed: SECCOMP_ADDFD_FLAG_SEND is the latest addition.
const LEAST: (u32, u32) = (5, 14);

/// Its name, such as `6.1.0-47-cloud-amd64`.
pub(crate) fn release() -> String {
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => release.trim_end().to_owned(),
        // A procfs with subset=pid does not have it. uname(2) makes others up with UNAME26.
        Err(_) => uname().map_or_else(
            |_| String::new(),
            |names| names.release().to_string_lossy().into_owned(),
        ),
    }
}

/// Refuses a kernel that is too old; one whose version cannot be read is tried.
pub(crate) fn require() -> Result<(), Error> {
    let release = release();
    match is_enough(&release) {
        Some(false) => Err(Error::KernelTooOld { release }),
        Some(true) | None => Ok(()),
    }
}

/// Whether a kernel of that version has all that is needed. `None`: it does not begin as versions
/// do.
pub(crate) fn is_enough(release: &str) -> Option<bool> {
    Some(version(release)? >= LEAST)
}

/// The major and minor number of a version.
pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.9"), Some((5, 9)));
        assert_eq!(is_enough("5.9.1"), Some(false));
        assert_eq!(is_enough("5.14.0-427.el9"), Some(true));
        assert_eq!(is_enough("Linux"), None);
    }
}
