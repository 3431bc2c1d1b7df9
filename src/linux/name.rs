//! [`Name`]: a path as system calls take it, bytes and a NUL. Pure.
//!
//! Unlike `CString`, which reallocates, it is cheap enough to create for every call.

use std::ffi::CStr;
use std::fmt::Arguments;
use std::io::Write;

use nix::NixPath;

/// A path in bytes, which ends at its first NUL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Name(Vec<u8>);

impl Name {
    /// Formats a name from numbers and literals.
    pub(crate) fn format(arguments: Arguments) -> Self {
        let mut bytes = Vec::with_capacity(48);
        // Writing to a vector cannot fail.
        let _ = bytes.write_fmt(arguments);
        Self::new(bytes)
    }

    /// The name ends before the first NUL of `bytes`, if there is one.
    pub(crate) fn new(mut bytes: Vec<u8>) -> Self {
        bytes.push(0);
        Self(bytes)
    }

    /// `self/rest`
    pub(crate) fn join(&self, rest: &CStr) -> Self {
        let start = self.as_c_str().to_bytes();
        let rest = rest.to_bytes();
        let mut bytes = Vec::with_capacity(start.len() + rest.len() + 2);
        bytes.extend_from_slice(start);
        bytes.push(b'/');
        bytes.extend_from_slice(rest);
        Self::new(bytes)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

impl NixPath for Name {
    fn is_empty(&self) -> bool {
        self.as_c_str().is_empty()
    }

    fn len(&self) -> usize {
        self.as_c_str().count_bytes()
    }

    fn with_nix_path<T, F: FnOnce(&CStr) -> T>(&self, f: F) -> nix::Result<T> {
        Ok(f(self.as_c_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_its_first_nul_and_always_has_one() {
        assert_eq!(
            Name::new(b"a/\xff".to_vec()).as_c_str().to_bytes(),
            b"a/\xff"
        );
        assert_eq!(Name::new(b"a\0b".to_vec()).as_c_str(), c"a");
        assert_eq!(Name::default().as_c_str(), c"");
        assert_eq!(
            Name::format(format_args!("{}/fd", 7))
                .join(c"3/x")
                .as_c_str(),
            c"7/fd/3/x"
        );
    }
}
