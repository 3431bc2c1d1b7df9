//! The host, for its user: `check` tests whether it can run containers, `install` sets it up, and
//! `look` (`status`, `trace`) shows what runs on it. `engine` finds podman and buildah, `exposed`
//! set-user-ID programs that others can execute.

pub(crate) mod check;
pub(crate) mod engine;
pub(crate) mod exposed;
pub(crate) mod install;
pub(crate) mod look;
