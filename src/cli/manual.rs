//! `portcullis manual`, which packages use.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use super::Cli;

#[derive(Debug, Args)]
pub(super) struct ManualArgs {
    /// An existing directory
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Writes a manual page for each command.
pub(super) fn run(args: &ManualArgs) -> anyhow::Result<()> {
    let directory = &args.directory;
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("cannot write manual pages to {}", directory.display()))
}
