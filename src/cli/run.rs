//! `subuidless run`.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, Command, FromArgMatches};

use crate::error::Error;
use crate::host::exposed;
use crate::linux::limits::{self, Loss};
use crate::run::{self, Options};

/// Parses a command line of `run` without those of all other commands, which would take as long as
/// the kernel takes to start a program. Returns `None` for another command, and for what has to be
/// reported with the whole command line at hand: errors and help.
pub(super) fn parse_alone(words: &[OsString]) -> Option<Options> {
    words.first().filter(|name| *name == "run")?;
    let line = Options::augment_args(Command::new("run"));
    let matches = line.try_get_matches_from(words).ok()?;
    Options::from_arg_matches(&matches).ok()
}

/// Parses the command line of `run` that another command stands for. What is wrong in it is
/// reported, and ends this process.
pub(super) fn parse(words: Vec<OsString>) -> Options {
    let line = Options::augment_args(Command::new("run"));
    let matches = line.get_matches_from(words);
    Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Returns only on failure: on success this process becomes the command or the runtime.
pub(super) fn run(options: &Options) -> Error {
    if options.logs_to_nobody() {
        let reason = "--log-level has no effect, because standard error is not a terminal: \
                      add --log-file FILE";
        super::wrong_usage("run", ErrorKind::MissingRequiredArgument, reason);
    }
    if let Some(reason) = options.refusal() {
        super::wrong_usage("run", ErrorKind::ArgumentConflict, &reason);
    }
    if let Some(complaint) = options.console.complaint(options.is_detached()) {
        super::tell(complaint);
    }
    let vital: &[Loss] = match options.root().is_some() || options.changes_ids() {
        true => &[Loss::All, Loss::Ids],
        false => &[Loss::All],
    };
    if let Err(error) = limits::require(vital, &mut super::tell) {
        return error;
    }
    if let Some(exposed) = options
        .root()
        .and_then(|root| exposed::find_new(root.path()))
    {
        super::tell(&format!("{}: {}", exposed.reason(), exposed.change()));
    }
    match run::run(options) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, CommandFactory, Parser};

    use super::*;
    use crate::cli::{CommandLine, Subcommands};

    /// The error for a command line, if it is wrong.
    fn complaint(words: &[&str]) -> Option<clap::Error> {
        let line = [&["subuidless", "run"], words, &["--", "true"]].concat();
        let alone: Vec<OsString> = line.iter().skip(1).map(OsString::from).collect();
        let alone = parse_alone(&alone).map(|options| format!("{options:?}"));
        match CommandLine::try_parse_from(line) {
            Ok(CommandLine {
                command: Some(Subcommands::Run(options)),
                ..
            }) => {
                assert_eq!(alone, Some(format!("{options:?}")));
                None
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(alone, None);
                Some(error)
            }
        }
    }

    fn value(option: &Arg) -> &'static str {
        match option.get_id().as_str() {
            "cap_add" => "CAP_CHOWN",
            _ => "x",
        }
    }

    #[test]
    fn options_for_containers_are_errors_without_one_and_no_other_option_is_left_out() {
        /// Options that also apply without a container.
        const OF_ALL: [&str; 26] = [
            "name",
            "net",
            "publish",
            "bind",
            "read_only",
            "copy_up",
            "pid",
            "uts",
            "hostname",
            "ipc",
            "cgroup",
            "propagation",
            "user",
            "keep_id",
            "env",
            "env_file",
            "interactive",
            "tty",
            "cwd",
            "store",
            "no_fast",
            "permissions",
            "others",
            "file",
            "level",
            "help",
        ];
        let mut line = CommandLine::command();
        line.build();
        let run = line.find_subcommand("run").unwrap();
        let mut tried = 0;
        for option in run.get_arguments().filter(|option| !option.is_positional()) {
            let id = option.get_id().as_str();
            if OF_ALL.contains(&id) || ["rootfs", "bundle"].contains(&id) {
                continue;
            }
            let name = format!("--{}", option.get_long().unwrap());
            let takes_value = option.get_action().takes_values();
            let mut words = vec![name.as_str()];
            words.extend(takes_value.then(|| value(option)));
            let error = complaint(&words).unwrap_or_else(|| panic!("{name} is ignored"));
            assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument, "{error}");
            assert_eq!(error.exit_code(), 2);
            let said = error.to_string();
            assert!(
                said.contains("--rootfs") && said.contains("--bundle"),
                "{said}"
            );
            words.extend(["--rootfs", "/"]);
            assert!(complaint(&words).is_none(), "{name}");
            tried += 1;
        }
        assert!(tried >= 4);
    }

    #[test]
    fn namespaces_are_not_for_a_command_that_keeps_its_ids_and_ports_need_a_network() {
        for words in [
            &["--net", "none"][..],
            &["--pid"],
            &["--name", "x"],
            &["--bind", "/:/mnt"],
        ] {
            assert!(complaint(words).is_none(), "{words:?}");
            let error = complaint(&[&["--keep-id"], words].concat()).unwrap();
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{error}");
        }
        let refusal = |words: &[&str]| {
            let words = [&["run", "-p", "[::1]:80:80"], words, &["true"]].concat();
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            parse_alone(&words).unwrap().refusal()
        };
        for net in ["host", "none", "slirp4netns"] {
            let said = refusal(&["--network", net]).unwrap();
            assert!(
                said.contains("[::1]:80:80/tcp") && said.contains("pasta"),
                "{said}"
            );
        }
        assert!(refusal(&[]).is_some() && refusal(&["--net", "pasta"]).is_none());
    }
}
