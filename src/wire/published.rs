//! A port of the host that is forwarded into a network: `[IP:]PORT:PORT[/udp]`. Pure.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    /// The host's address; `None`: all of them.
    pub(crate) address: Option<IpAddr>,
    pub(crate) outside: u16,
    pub(crate) inside: u16,
    pub(crate) protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl FromStr for Published {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "two ports are wanted, as in 8080:80 or 127.0.0.1:8080:80/udp".to_owned();
        let (rest, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some((_, other)) => return Err(format!("{other:?} is neither tcp nor udp")),
        };
        let port = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(format!("{text:?} is not a port: 1 to 65535")),
            Ok(port) => Ok(port),
        };
        let (rest, inside) = rest.rsplit_once(':').ok_or_else(wanted)?;
        let (address, outside) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, outside)) => (Some(address), outside),
        };
        let address = address.map(|text| {
            let bare = text
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'));
            let parsed = match bare {
                Some(bare) => bare.parse().map(IpAddr::V6),
                None => text.parse().map(IpAddr::V4),
            };
            parsed.map_err(|_| format!("{text:?} is not an address, as 127.0.0.1 or [::1]"))
        });
        Ok(Self {
            address: address.transpose()?,
            outside: port(outside)?,
            inside: port(inside)?,
            protocol,
        })
    }
}

impl Display for Published {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self.address {
            None => {}
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}:{}/{protocol}", self.outside, self.inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_nothing_else() {
        for (text, whole) in [
            ("8080:80", "8080:80/tcp"),
            ("127.0.0.1:8080:80/udp", "127.0.0.1:8080:80/udp"),
            ("[::1]:1:65535/tcp", "[::1]:1:65535/tcp"),
        ] {
            let read: Published = text.parse().unwrap();
            assert_eq!(read.to_string(), whole);
            assert_eq!(whole.parse(), Ok(read));
        }
        for wrong in [
            "",
            "80",
            "0:80",
            "80:65536",
            ":80:80",
            "::1:80:80",
            "host:80:80",
            "80:80/sctp",
            "8080:80:",
            "80-81:80",
        ] {
            assert!(wrong.parse::<Published>().is_err(), "{wrong}");
        }
    }
}
