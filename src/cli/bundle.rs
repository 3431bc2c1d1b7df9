//! `subuidless bundle DIR`: puts the seccomp profile into a bundle's config.json.

use std::path::PathBuf;

use clap::Args;
use tracing::warn;

use super::Weaving;
use crate::error::Error;
use crate::front::bundle;
use crate::wire::fast::FastPath;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The bundle: a directory with a config.json
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    #[command(flatten)]
    weaving: Weaving,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    super::warn_plainly();
    let (is_whole, fast) = bundle::install(
        &arguments.directory,
        arguments.weaving.options(),
        arguments.weaving.permissions,
    )?;
    if !matches!(fast, FastPath::On | FastPath::TurnedOff) {
        warn!("fast path {}", fast.sentence());
    }
    if !is_whole {
        warn!(
            "the profile allows calls by default and compares arguments, so calls without a name \
             in libseccomp, such as setxattrat, bypass subuidless: use a default of \
             SCMP_ACT_ERRNO, or the runtime front"
        );
    }
    Ok(())
}
