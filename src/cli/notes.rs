//! What the manual pages say besides the options; examples are in `--help`, too.

use clap_mangen::roff::{Roff, roman};

/// The sections of a page, headings and texts. In a text, paragraphs are separated by empty lines;
/// the lines of one that begins with a blank stay as they are.
type Sections = &'static [(&'static str, &'static str)];

const FAILURE: (&str, &str) = (
    "EXIT STATUS",
    "0 on success, 1 on failure, 2 if the options are wrong.",
);

const OF_A_COMMAND: (&str, &str) = (
    "EXIT STATUS",
    "That of the command; if a signal ends it, the same one ends the process that was called. \
     127: there is no such command. 126: it cannot be executed. 125: something else has failed \
     before it was started. 2: the options are wrong.",
);

const ENVIRONMENT: (&str, &str) = (
    "ENVIRONMENT",
    "XDG_RUNTIME_DIR: has the sockets and locks [/run/user/UID, or /tmp/subuidless-UID].\n\n\
     XDG_STATE_HOME: has the directory subuidless with owners that files cannot carry \
     [~/.local/state].\n\n\
     SUBUIDLESS_FAST: 0 leaves out the preloaded library of the fast path.\n\n\
     RUN_OCI_SECCOMP_RECEIVER: read by crun: the socket of the daemon.",
);

const FILES: (&str, &str) = (
    "FILES",
    "$XDG_RUNTIME_DIR/subuidless.sock: the socket of the daemon.\n\n\
     $XDG_RUNTIME_DIR/subuidless: sockets, locks and bundles of what `run` has started.\n\n\
     $XDG_STATE_HOME/subuidless: owners that files cannot carry: of symbolic links, fifos, sockets \
     and devices.\n\n\
     user.rootlesscontainers: the extended attribute that has the owner of a file or directory.",
);

/// The sections for a command, given by its words without the program's.
fn sections(command: &str) -> Sections {
    match command {
        "" => &[
            (
                "EXAMPLES",
                "  subuidless run -- sh -c 'touch f; chown 42:42 f; ls -ln f'\n  \
                          subuidless podman run --rm -it debian\n  \
                          subuidless check",
            ),
            FAILURE,
            ENVIRONMENT,
            FILES,
        ],
        "run" => &[
            (
                "EXAMPLES",
                "  subuidless run -- tar xpf layer.tar -C rootfs\n  \
                          subuidless run --rootfs rootfs -- apt-get install nginx\n  \
                          subuidless run --rootfs rootfs --name db --user 999 -d -- postgres\n  \
                          subuidless run --net none --pid -- make test",
            ),
            OF_A_COMMAND,
            ENVIRONMENT,
            FILES,
        ],
        "exec" => &[
            (
                "EXAMPLES",
                "  subuidless exec db -- psql\n  subuidless exec --user root db -- bash",
            ),
            OF_A_COMMAND,
        ],
        "fakeroot" => &[
            (
                "EXAMPLES",
                "  subuidless fakeroot -- make install DESTDIR=tree\n  \
                          dpkg-buildpackage -r'subuidless fakeroot'",
            ),
            (
                "EXIT STATUS",
                "As that of fakeroot(1): that of the command, 127 if there is none, and 1 \
                             if fakeroot itself fails.",
            ),
            ENVIRONMENT,
        ],
        "dockerd" => &[
            (
                "EXAMPLES",
                "  subuidless dockerd &\n  \
                          docker -H \"unix://$XDG_RUNTIME_DIR/docker.sock\" run --rm debian id",
            ),
            OF_A_COMMAND,
        ],
        "podman" => &[
            (
                "EXAMPLES",
                "  subuidless podman run --rm --user 999 debian id\n  \
                          subuidless podman build -t mine .",
            ),
            OF_A_COMMAND,
        ],
        "buildah" => &[
            ("EXAMPLES", "  subuidless buildah bud -t mine ."),
            OF_A_COMMAND,
        ],
        "serve" => &[
            (
                "EXAMPLES",
                "  subuidless serve\n  subuidless ~/.subuidless.sock",
            ),
            FAILURE,
            ENVIRONMENT,
            FILES,
        ],
        "ps" => &[
            ("EXAMPLES", "  subuidless ps --json | jq -r '.[].name'"),
            FAILURE,
        ],
        "logs" => &[("EXAMPLES", "  subuidless logs --follow db"), FAILURE],
        "kill" => &[
            (
                "EXAMPLES",
                "  subuidless kill db\n  subuidless kill db KILL",
            ),
            FAILURE,
        ],
        "profile" => &[
            (
                "EXAMPLES",
                "  subuidless profile --base docker >profile.json",
            ),
            FAILURE,
        ],
        "bundle" => &[("EXAMPLES", "  subuidless bundle ./bundle"), FAILURE],
        "check" => &[
            (
                "EXAMPLES",
                "  subuidless check\n  subuidless check ~/trees\n  subuidless check --for run",
            ),
            (
                "EXIT STATUS",
                "0, or 1 if a line says FAIL (with --for: if that use does not work), or 2 if the \
                 options are wrong.",
            ),
        ],
        "status" => &[("EXAMPLES", "  subuidless status --json"), FAILURE],
        "trace" => &[("EXAMPLES", "  subuidless trace db"), FAILURE],
        "runtime" => &[
            (
                "EXAMPLES",
                "  podman --runtime \"$(command -v subuidless-crun)\" run --rm debian id",
            ),
            ("EXIT STATUS", "That of the runtime."),
            ENVIRONMENT,
        ],
        "install" => &[
            ("EXAMPLES", "  subuidless install --user --podman --dry-run"),
            FAILURE,
        ],
        "uninstall" => &[("EXAMPLES", "  subuidless uninstall --user"), FAILURE],
        "completions" => &[
            (
                "EXAMPLES",
                "  subuidless completions bash >/etc/bash_completion.d/subuidless",
            ),
            FAILURE,
        ],
        "man" => &[
            ("EXAMPLES", "  subuidless man ~/.local/share/man/man1"),
            FAILURE,
        ],
        "owners" => &[FAILURE, FILES],
        "owners ls" => &[("EXAMPLES", "  subuidless owners ls rootfs/etc"), FAILURE],
        "owners set" => &[
            ("EXAMPLES", "  subuidless owners set -R 33:33 rootfs/srv"),
            FAILURE,
        ],
        "owners export" => &[
            (
                "EXAMPLES",
                "  subuidless owners export rootfs -o owners.json",
            ),
            FAILURE,
        ],
        "owners import" => &[
            (
                "EXAMPLES",
                "  subuidless owners import rootfs -i owners.json",
            ),
            FAILURE,
        ],
        "owners gc" => &[
            ("EXAMPLES", "  subuidless owners gc --dry-run rootfs"),
            FAILURE,
        ],
        _ => &[],
    }
}

/// What follows the options in `--help`.
pub(super) fn help(command: &str) -> String {
    let shown = |heading| ["EXAMPLES", "EXIT STATUS"].contains(&heading);
    let mut text = String::new();
    for (heading, body) in sections(command)
        .iter()
        .filter(|(heading, _)| shown(heading))
    {
        let (first, rest) = heading.split_at(1);
        text += &format!("{first}{}:\n", rest.to_lowercase());
        for line in body.lines() {
            text += &format!("  {}\n", line.trim_start());
        }
        text += "\n";
    }
    text.trim_end().to_owned()
}

/// The end of a manual page.
pub(super) fn page(command: &str) -> Roff {
    let mut page = Roff::new();
    for (heading, body) in sections(command) {
        page.control("SH", [*heading]);
        for paragraph in body.split("\n\n") {
            if !paragraph.starts_with(' ') {
                page.control("PP", []);
                page.text([roman(paragraph)]);
                continue;
            }
            page.control("nf", []);
            for line in paragraph.lines() {
                page.text([roman(line)]);
            }
            page.control("fi", []);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::CommandLine;

    #[test]
    fn every_command_has_an_exit_status() {
        fn check(command: &clap::Command, words: &str) {
            let has = |wanted| {
                sections(words)
                    .iter()
                    .any(|(heading, _)| *heading == wanted)
            };
            assert!(has("EXIT STATUS"), "{words}");
            let below = command.get_subcommands().filter(|it| !it.is_hide_set());
            for subcommand in below.filter(|it| it.get_name() != "help") {
                check(
                    subcommand,
                    format!("{words} {}", subcommand.get_name()).trim(),
                );
            }
        }
        check(&CommandLine::command(), "");
    }
}
