//! `subuidless bundle DIR`: the profile into a bundle's config.json.

use std::path::PathBuf;

use clap::Args;

use super::Weaving;
use crate::bundle;
use crate::error::Error;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The bundle: a directory with a config.json
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    #[command(flatten)]
    weaving: Weaving,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    bundle::install(&arguments.directory, arguments.weaving.wish()).map(drop)
}
