//! `subuidless profile`: a seccomp profile on standard output.

use clap::Args;

use super::Weaving;
use crate::bundle;
use crate::error::Error;
use crate::profile::Format;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    weaving: Weaving,

    /// For a bundle's config.json, or for podman and buildah
    #[arg(long, value_enum, default_value_t = Format::Oci)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let profile = bundle::standalone(arguments.weaving.wish(), arguments.format)?;
    let mut output = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut output, &profile)
        .map_err(std::io::Error::from)
        .and_then(|()| std::io::Write::write_all(&mut output, b"\n"))
        .map_err(|source| Error::Io {
            what: "writing to standard output",
            source,
        })
}
