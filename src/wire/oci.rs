//! The seccomp receiver protocol: `ContainerProcessState` of the OCI runtime spec
//! (config-linux.md). Pure.
//!
//! Runtimes differ: crun sends pretty-printed JSON and, for exec, pids of 0; runc sends compact
//! JSON; youki sends further keys and nulls. pids are those of the runtime's pid namespace, so they
//! are not used: the kernel translates those in notifications.

use serde::Deserialize;

/// The name of the listener among the fds.
const SECCOMP_FD: &str = "seccompFd";

/// A runtime's description of the process whose listener it sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerProcessState {
    /// Container id.
    pub(crate) id: String,
    /// "creating" for run and create, "running" for exec.
    pub(crate) status: String,
    pub(crate) bundle: String,
    /// The index of the listener among the file descriptors sent with the message.
    pub(crate) listener: usize,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    fds: Option<Vec<String>>,
    #[serde(default)]
    state: Option<State>,
}

#[derive(Debug, Default, Deserialize)]
struct State {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    bundle: Option<String>,
}

/// The reason why a message is not a `ContainerProcessState`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("not the JSON of a ContainerProcessState: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its `fds` names no \"{SECCOMP_FD}\"")]
    NoSeccompFd,
    #[error(
        "its `fds` names {named} file descriptors, but {received} came with it (has the daemon \
         reached its limit of open files?)"
    )]
    FdCount { named: usize, received: usize },
}

/// Parses a complete message that came with `received` file descriptors.
pub(crate) fn parse(
    payload: &[u8],
    received: usize,
) -> Result<ContainerProcessState, ProtocolError> {
    let message: Message = serde_json::from_slice(payload)?;
    let fds = message.fds.unwrap_or_default();
    let listener = fds
        .iter()
        .position(|name| name == SECCOMP_FD)
        .ok_or(ProtocolError::NoSeccompFd)?;
    if fds.len() != received {
        return Err(ProtocolError::FdCount {
            named: fds.len(),
            received,
        });
    }
    let state = message.state.unwrap_or_default();
    Ok(ContainerProcessState {
        id: known(state.id),
        status: known(state.status),
        bundle: known(state.bundle),
        listener,
    })
}

/// The value of fields that a runtime leaves out.
pub(crate) const UNKNOWN: &str = "unknown";

/// Cuts a field to the length of a path: it is used in logs and command lines.
fn known(text: Option<String>) -> String {
    const MAX_CHARS: usize = 4096;
    text.map_or_else(
        || UNKNOWN.to_owned(),
        |text| text.chars().take(MAX_CHARS).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(payload: &str) -> String {
        parse(payload.as_bytes(), 1).unwrap().id
    }

    #[test]
    fn the_messages_of_crun_runc_and_youki_are_understood() {
        assert_eq!(
            id(
                r#"{ "ociVersion": "0.2.0", "fds": [ "seccompFd" ], "pid": 0, "metadata": "",
                "state": { "ociVersion": "0.2.0", "id": "c1", "status": "running", "pid": 0,
                    "bundle": "." } }"#
            ),
            "c1"
        );
        assert_eq!(
            id(concat!(
                r#"{"ociVersion":"1.0.2-dev","fds":["seccompFd"],"pid":7,"#,
                r#""state":{"ociVersion":"1.0.2-dev","id":"r1","status":"creating","pid":7,"#,
                r#""bundle":"/b","annotations":{}}}"#
            )),
            "r1"
        );
        assert_eq!(
            id(concat!(
                r#"{"ociVersion":"v1.0.2","fds":["seccompFd"],"pid":5,"metadata":null,"#,
                r#""extra":[1],"state":{"ociVersion":"v1.0.2","id":"y1","status":"creating","#,
                r#""pid":null,"bundle":null,"created":null}}"#
            )),
            "y1"
        );
    }

    #[test]
    fn the_listener_is_the_fd_of_that_name_and_all_named_fds_must_be_there() {
        let two = br#"{"fds":["other","seccompFd"],"state":{"id":"x"}}"#;
        assert_eq!(parse(two, 2).unwrap().listener, 1);
        assert!(matches!(
            parse(two, 1),
            Err(ProtocolError::FdCount {
                named: 2,
                received: 1
            })
        ));
        assert!(matches!(
            parse(br#"{"fds":[],"state":{}}"#, 0),
            Err(ProtocolError::NoSeccompFd)
        ));
        assert!(matches!(
            parse(br#"{"state":{}}"#, 1),
            Err(ProtocolError::NoSeccompFd)
        ));
    }

    #[test]
    fn hostile_bytes_are_an_error_and_never_a_panic() {
        let deep = "[".repeat(200_000);
        for payload in [
            &b"{"[..],
            b"[]",
            b"null",
            b"{\"fds\":3}",
            b"\xff\xfe",
            deep.as_bytes(),
        ] {
            assert!(parse(payload, 1).is_err());
        }
    }
}
