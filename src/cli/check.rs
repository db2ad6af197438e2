//! `portcullis check`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::{connect, print};
use crate::config;

/// `portcullis check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Also connect to the store, the database, the upstreams and the providers, and print the
    /// addresses to register at the providers
    #[arg(long)]
    pub(super) connect: bool,
}

/// Loads the file as `run` would, and reports whether it is valid.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let (settings, warnings) = config::load_with_warnings(&args.config)?;
    // A failure to print warnings does not make the file invalid.
    let _ = write!(std::io::stderr().lock(), "{warnings}");
    print(&format!("{}: valid\n", args.config.display()))?;
    if args.connect {
        connect::run(&settings)?;
    }
    Ok(())
}
