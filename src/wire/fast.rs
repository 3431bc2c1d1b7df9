//! Whether a container has the fast path (the crate `subuidless_fast`), and why not. Pure.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use subuidless_fast::facts::LIBRARY_NAME;

/// The name under which programs load the library, in a directory of its own: a symbolic link.
///
/// The runtime of AddressSanitizer ends a program if a library precedes it, unless that library was
/// loaded by a path with `libasan.so`. If the runtime is a part of the program, it ends that if a
/// file of such a path is mapped (asan_linux.cpp: AsanCheckDynamicRTPrereqs,
/// AsanCheckIncompatibleRT).
pub(crate) const LOADED_AS: &str = "libasan.so";

/// Whether dynamic programs of a container load the library.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FastPath {
    On,
    /// By the user: `--no-fast`, or SUBUIDLESS_FAST=0.
    TurnedOff,
    NotBuilt,
    /// The library has no place from which programs could load it.
    NoPlace,
    /// `--keep-id`: other workers answer in the namespaces that the command creates.
    KeepId,
    /// podman and buildah: what they start is in containers, where the library is not.
    Engine,
    NoDev,
    Labelled,
    OtherProgram,
    Forbidden,
    #[default]
    NotInConfig,
}

impl FastPath {
    pub(crate) fn is_on(self) -> bool {
        self == Self::On
    }

    /// For people.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::TurnedOff => "off: turned off by --no-fast or SUBUIDLESS_FAST=0",
            Self::NotBuilt => "off: this program was built without the library",
            Self::NoPlace => {
                "off: the library has no place that programs can load it from: the bundle of a \
                 container, or the runtime directory for a command, must be writable and without \
                 noexec"
            }
            Self::KeepId => "off: run --keep-id has none",
            Self::Engine => "off: podman and buildah have none",
            Self::NoDev => "off: the container has no /dev of its own (a tmpfs) for the library",
            Self::Labelled => "off: programs with an SELinux label cannot read the library",
            Self::OtherProgram => {
                "off: the first program is missing, or of another architecture or word size"
            }
            Self::Forbidden => "off: the seccomp profile forbids a call that the library makes",
            Self::NotInConfig => {
                "off: config.json does not mount the library (subuidless-crun and `subuidless \
                 bundle` do)"
            }
        }
    }
}

/// Whether a path is that of the library's directory: in a container its name begins with a dot.
pub(crate) fn is_directory(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let name = name.strip_prefix(b".").unwrap_or(name);
    name.starts_with(LIBRARY_NAME.as_bytes())
}

/// Whether a path is one by which programs load the library.
pub(crate) fn is_library(path: &Path) -> bool {
    path.ends_with(LOADED_AS) && path.parent().is_some_and(is_directory)
}

/// The library's path in a container, according to the `mounts` of config.json or of the runtime's
/// state.
pub(crate) fn noted(mounts: Option<&Value>) -> Option<String> {
    let mounts = mounts.and_then(Value::as_array)?;
    let mut destinations = mounts
        .iter()
        .filter_map(|mount| mount.get("destination")?.as_str());
    let directory = destinations.find(|destination| is_directory(Path::new(destination)))?;
    Some(format!("{directory}/{LOADED_AS}"))
}

/// The fast path of a container that the front has not announced.
pub(crate) fn of_config(config: &Map<String, Value>) -> FastPath {
    match noted(config.get("mounts")) {
        Some(_) => FastPath::On,
        None => FastPath::NotInConfig,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_known_by_its_name() {
        for (path, is_it) in [
            ("/dev/.subuidless-fast-0123/libasan.so", true),
            (
                "/run/user/7/subuidless/subuidless-fast-0123/libasan.so",
                true,
            ),
            ("/dev/.subuidless-fast-0123/x", false),
            ("/usr/lib/libasan.so", false),
            ("/usr/lib/libfakeroot.so", false),
            ("", false),
        ] {
            assert_eq!(is_library(Path::new(path)), is_it, "{path}");
        }
    }
}
