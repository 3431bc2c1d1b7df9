//! `subuidless dockerd`: Docker's daemon below `run`, with namespaces and settings that RootlessKit
//! and dockerd-rootless.sh would give it.

use std::ffi::OsString;

use clap::Args;

use super::run;
use crate::error::Error;
use crate::linux::{programs, tun};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Network of the daemon: none, pasta or slirp4netns [default: one of the latter two, if it is
    /// installed and /dev/net/tun is open to you]
    #[arg(long, value_name = "KIND")]
    net: Option<String>,

    /// Forward a port of the host to the daemon's network. Repeatable
    #[arg(long, value_name = "[IP:]PORT:PORT[/udp]")]
    publish: Vec<String>,

    /// dockerd's own options
    #[arg(
        value_name = "OPTIONS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    options: Vec<OsString>,
}

/// Without RootlessKit's variable, dockerd refuses --rootless, and does not use the user's
/// directories.
const ROOTLESSKIT: &str = "ROOTLESSKIT_STATE_DIR=/run/rootlesskit";

/// In a copy of /run: what a daemon of root has there is not this one's. The numbers of processes
/// that a killed daemon left are now those of others. dockerd wants a program by which RootlessKit
/// would forward ports; in its network, its own does. Debian 12's pasta sends TCP segments without
/// a flag, which are not translated back for containers: the network's own stack would answer them,
/// and end the connection.
const SCRIPT: &str = "\
rm -f /run/docker /run/containerd /run/xtables.lock
rm -f \"$XDG_RUNTIME_DIR/docker.pid\" \"$XDG_RUNTIME_DIR/docker/containerd/containerd.pid\"
mkdir /run/subuidless-docker
ln -s \"$(command -v docker-proxy)\" /run/subuidless-docker/rootlesskit-docker-proxy
iptables -I INPUT -m conntrack --ctstate INVALID -j DROP
PATH=/run/subuidless-docker:$PATH exec \"$0\" --rootless \"$@\"";

/// Returns only on failure: on success this process becomes dockerd.
pub(super) fn run(arguments: Arguments) -> Error {
    let Some(program) = programs::find("dockerd") else {
        return Error::NoDocker;
    };
    let net = arguments.net.unwrap_or_else(|| network().to_owned());
    let mut words: Vec<OsString> = [
        "run",
        "--name",
        "docker",
        "--pid",
        "--copy-up",
        "/run",
        "--env",
        ROOTLESSKIT,
        "--net",
    ]
    .map(OsString::from)
    .into();
    words.push(net.into());
    for port in arguments.publish {
        words.extend(["--publish".into(), port.into()]);
    }
    words.extend(["--", "sh", "-c", SCRIPT].map(OsString::from));
    words.push(program.into());
    words.extend(arguments.options);
    run::run(&run::parse(words))
}

fn network() -> &'static str {
    let has_tun = tun::open().is_ok();
    let installed = tun::PROGRAMS
        .into_iter()
        .filter(|_| has_tun)
        .find(|name| programs::find(name).is_some());
    installed.unwrap_or_else(|| {
        super::tell(
            "containers have a network among themselves only: for more, install pasta, and let \
             this user open /dev/net/tun",
        );
        "none"
    })
}
