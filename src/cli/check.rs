//! `portcullis check`.

use super::{ConfigArgs, print};
use crate::config;

/// Loads the file as `run` would, and says so when nothing is wrong with it.
pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    config::load(&args.config)?;
    print(&format!("{}: valid\n", args.config.display()))
}
