//! `portcullis upgrade`.

use anyhow::Context as _;
use clap::Args;

use super::{ConfigArgs, ErrorLines};
use crate::config::Purpose;
use crate::gateway;

/// `portcullis upgrade`.
#[derive(Debug, Args)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Upgrade even if sessions and limits in memory are lost
    #[arg(long)]
    force: bool,
}

/// Requests an upgrade from the running gateway, and prints its outcome.
pub(super) fn run(args: &UpgradeArgs) -> anyhow::Result<()> {
    // Only the path of the control socket is needed.
    let settings = args.config.load(Purpose::Show)?;
    let path = settings.boot.control_socket.context(
        "admin.control_socket is not configured; SIGUSR2 to the gateway also starts an upgrade",
    )?;
    match gateway::request_upgrade(&path, args.force)? {
        Ok(process) => super::print(&format!("upgraded: process {process} serves\n")),
        Err(errors) => Err(ErrorLines(errors).into()),
    }
}
