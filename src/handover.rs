//! What a daemon and a worker say to each other: a command line, and one message, the same in both directions. Pure.
//!
//! The daemon hands a container over to a new worker with it. A worker keeps the bytes, and when its daemon has gone it hands
//! the container to the next daemon that listens on the same socket. With it come three fds, in the order of [`FDS`].

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The listener, the board, the memory that the container's workers share. A fourth one is the feed of a worker that
/// does not receive by itself.
pub(crate) const FDS: usize = 3;

/// Changes when an older worker could not be understood any more.
const VERSION: u32 = 2;

/// The first argument of a worker.
const WORKER: &str = "worker";

/// What a worker finds on its command line.
///
/// Words in fixed places: a worker with a parser for options in it would be a tenth larger in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) log_level: String,
    pub(crate) log_format: String,
    /// Directory of the side store in memory; none: owners of special inodes are not kept.
    pub(crate) recent: Option<PathBuf>,
    /// Its directory on disk; none: they are kept until the next boot.
    pub(crate) lasting: Option<PathBuf>,
    /// The daemon's socket, on which the next daemon will listen, too.
    pub(crate) socket: Option<PathBuf>,
}

impl Setup {
    pub(crate) fn to_arguments(&self) -> [OsString; 6] {
        let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default().into_os_string();
        [
            WORKER.into(),
            self.log_level.clone().into(),
            self.log_format.clone().into(),
            path(&self.recent),
            path(&self.lasting),
            path(&self.socket),
        ]
    }

    /// `None` for the command line of anything but a worker.
    pub(crate) fn from_arguments(arguments: &[OsString]) -> Option<Self> {
        let [worker, log_level, log_format, recent, lasting, socket] = arguments else {
            return None;
        };
        let text = |word: &OsStr| word.to_str().map(str::to_owned);
        let path = |word: &OsStr| (!word.is_empty()).then(|| PathBuf::from(word));
        (worker == WORKER).then_some(())?;
        Some(Self {
            log_level: text(log_level)?,
            log_format: text(log_format)?,
            recent: path(recent),
            lasting: path(lasting),
            socket: path(socket),
        })
    }
}

/// A container, as its runtime called it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// Tells the message from a runtime's.
    #[serde(rename = "subuidlessHandover")]
    version: u32,
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) bundle: String,
}

impl Handover {
    pub(crate) fn new(id: String, status: String, bundle: String) -> Self {
        Self {
            version: VERSION,
            id,
            status,
            bundle,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings and a number: there is nothing that JSON could not hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None` for anything else, an unfinished message among them.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes)
            .ok()
            .filter(|handover: &Self| handover.version == VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_says_the_other_one_understands() {
        let said = Handover::new("a\"b".into(), "running".into(), "/ü".into());
        assert_eq!(Handover::parse(&said.encode()), Some(said));
    }

    #[test]
    fn a_command_line_is_understood_whatever_its_paths_are_made_of() {
        use std::os::unix::ffi::OsStrExt;
        let setup = Setup {
            log_level: "info".into(),
            log_format: "json".into(),
            recent: None,
            lasting: Some("/state".into()),
            socket: Some(OsStr::from_bytes(b"/a \xff/s").into()),
        };
        assert_eq!(Setup::from_arguments(&setup.to_arguments()), Some(setup));
        assert_eq!(Setup::from_arguments(&["worker".into()]), None);
        assert_eq!(
            Setup::from_arguments(&["serve", "", "", "", "", ""].map(OsString::from)),
            None
        );
    }

    #[test]
    fn a_runtimes_message_and_half_a_message_are_none() {
        let bytes = Handover::new("a".into(), "b".into(), "c".into()).encode();
        assert_eq!(Handover::parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(
            Handover::parse(br#"{"fds":["seccompFd"],"state":{"id":"a"}}"#),
            None
        );
        assert_eq!(
            Handover::parse(br#"{"subuidlessHandover":1,"id":"a","status":"","bundle":""}"#),
            None
        );
    }
}
