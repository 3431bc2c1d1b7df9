//! `subuidless podman` and `subuidless buildah`, also called as `podman` and `buildah`: the engine
//! with all ids, and all that it starts.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Args;

use crate::error::Error;
use crate::front;
use crate::host::engine::{self, storage};
use crate::linux::limits::{self, Loss};
use crate::run::{Engine, EngineKind, executed};

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct Arguments {
    /// Its own arguments
    #[arg(
        value_name = "ARGUMENTS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(super) arguments: Vec<OsString>,
}

/// The command line with the engine's name in its usual place, and a `--`, so that all that follows
/// is the engine's.
pub(super) fn spelled_out(mut line: Vec<OsString>) -> Vec<OsString> {
    let name = |word: &OsString| {
        let file_name = Path::new(word).file_name().and_then(OsStr::to_str);
        engine::NAMES
            .into_iter()
            .find(|name| file_name == Some(name))
    };
    if let Some(name) = line.first().and_then(name) {
        line.insert(1, name.into());
    }
    if line
        .get(1)
        .is_some_and(|word| engine::NAMES.iter().any(|name| word == name))
    {
        line.insert(2, "--".into());
    }
    line
}

/// Returns only on failure: on success this process becomes the engine.
pub(super) fn run(kind: EngineKind, arguments: Vec<OsString>) -> Error {
    let name = kind.name();
    let Some(program) = engine::find(name) else {
        return Error::NoEngine { name };
    };
    let Some(calls) = engine::count_call() else {
        return Error::EngineCallsBack { name, program };
    };
    let driver = storage::wants_overlay();
    let driver = driver.then_some((storage::VARIABLE, storage::OVERLAY.to_owned()));
    let calls = (engine::CALLS, calls.to_string());
    let engine = Engine {
        kind,
        program,
        arguments,
        settings: driver.into_iter().chain([calls]).collect(),
    };
    match front::emulates_namespaces() {
        Ok(false) => serve(&engine),
        // As in a shell below `run`, or of `podman unshare`.
        Ok(true) => executed(engine.command()),
        Err(error) => error,
    }
}

fn serve(engine: &Engine) -> Error {
    if let Err(error) = limits::require(&[Loss::All, Loss::Ids], &mut super::tell) {
        return error;
    }
    match engine.run() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        spelled_out(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn what_follows_the_name_is_the_engines_alone() {
        for (typed, meant) in [
            ("subuidless podman --help", "subuidless podman -- --help"),
            ("subuidless buildah -- -v", "subuidless buildah -- -- -v"),
            ("/home/x/podman run -it", "/home/x/podman podman -- run -it"),
            ("podman podman", "podman podman -- podman"),
            ("subuidless run podman", "subuidless run podman"),
        ] {
            let meant: Vec<OsString> = meant.split(' ').map(OsString::from).collect();
            assert_eq!(words(typed), meant);
        }
    }
}
