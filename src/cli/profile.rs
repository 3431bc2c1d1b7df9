//! `subuidless profile`: a seccomp profile on standard output.

use clap::Args;

use super::{Weaving, print};
use crate::error::Error;
use crate::front::bundle;
use crate::syscalls::profile::Format;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    weaving: Weaving,

    /// For a bundle's config.json, or for podman and buildah
    #[arg(long, value_enum, default_value_t = Format::Oci)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let profile = bundle::standalone(arguments.weaving.options(), arguments.format)?;
    let text = serde_json::to_string_pretty(&profile).unwrap_or_default() + "\n";
    print(text.as_bytes())
}
