//! [`Packages`]: a signed repository of Debian packages, served on the loopback to containers with the host's network.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::bundle::Bundle;
use super::program::tool;

/// Names the directory of the repository; `scripts/test` makes it and sets this.
const PACKAGES: &str = "SUBUIDLESS_TEST_PACKAGES";
/// That of what a container boots with.
const BOOTED: &str = "SUBUIDLESS_TEST_BOOTED";

/// Where a container finds the key that the repository is signed with.
const KEY: &str = "/packages.gpg";

#[derive(Debug, Clone, Copy)]
pub(crate) struct Packages {
    port: u16,
    variable: &'static str,
}

impl Packages {
    /// Serves them, until this test program ends.
    #[track_caller]
    pub(crate) fn serve() -> Self {
        static PORT: OnceLock<u16> = OnceLock::new();
        Self::served(PACKAGES, &PORT)
    }

    /// As [`Packages::serve`]: systemd and dbus.
    #[track_caller]
    pub(crate) fn serve_booted() -> Self {
        static PORT: OnceLock<u16> = OnceLock::new();
        Self::served(BOOTED, &PORT)
    }

    #[track_caller]
    fn served(variable: &'static str, port: &OnceLock<u16>) -> Self {
        let directory = directory(variable);
        let port = *port.get_or_init(|| {
            let listener = listen();
            let port = port_of(&listener);
            std::thread::spawn(move || serve(&listener, &directory));
            port
        });
        Self { port, variable }
    }

    /// The key that they are signed with, which is to be at /packages.gpg.
    pub(crate) fn key(self) -> PathBuf {
        directory(self.variable).join("key.gpg")
    }

    /// With the host's network and the repository's key.
    pub(crate) fn reached_by<'a>(&self, bundle: Bundle<'a>) -> Bundle<'a> {
        bundle
            .with_host_network()
            .with_mount(&self.key(), KEY, &["bind", "ro"])
    }

    /// Where apt and debootstrap find them.
    pub(crate) fn url(self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A script that installs `names` as anybody would in a container, where no init runs and
    /// nothing outlives it.
    pub(crate) fn install(&self, names: &str) -> String {
        format!(
            r#"printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
            chmod 755 /usr/sbin/policy-rc.d
            echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/unsafe-io
            echo 'deb [signed-by={KEY}] {} ./' >/etc/apt/sources.list
            # Whatever proxy the host's apt, and so this one, goes through.
            echo 'Acquire::http::Proxy::127.0.0.1 "DIRECT";' >/etc/apt/apt.conf.d/99direct
            export DEBIAN_FRONTEND=noninteractive
            if ! {{ apt-get update && apt-get install -y --no-install-recommends {names}; }} \
                >/install.log 2>&1; then
                cat /install.log >&2; exit 1
            fi
            # apt tells when it could not drop to _apt.
            if grep -E '^[WE]:' /install.log >&2; then exit 1; fi
            rm /install.log
            "#,
            self.url()
        )
    }
}

#[track_caller]
fn directory(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable)
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            panic!(
                "{variable} is not set: `scripts/test` makes a repository of packages and sets it"
            )
        });
    assert!(
        path.join("InRelease").is_file(),
        "{variable}={} is no repository: `scripts/test` makes it",
        path.display()
    );
    path
}

fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port")
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("a bound address").port()
}

/// A port of the loopback that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    port_of(&listen())
}

/// busybox answers one request for each connection.
fn serve(listener: &TcpListener, directory: &Path) {
    for connection in listener.incoming().flatten() {
        let connection = OwnedFd::from(connection);
        let answer = connection.try_clone().expect("a second descriptor");
        let child = Command::new(tool("busybox"))
            .args(["httpd", "-i", "-h"])
            .arg(directory)
            .stdin(connection)
            .stdout(answer)
            .stderr(Stdio::null())
            .spawn();
        if let Ok(mut child) = child {
            std::thread::spawn(move || child.wait());
        }
    }
}
