//! `portcullis run`.

use super::{Logging, RunArgs};
use crate::gateway::{self, Start};

/// Serves until a signal says otherwise.
pub(super) fn run(args: &RunArgs, logging: Logging) -> anyhow::Result<()> {
    let settings = crate::config::load(&args.config)?;
    let format = logging.start()?;
    gateway::run(Start {
        settings,
        file: Some(args.config.clone()),
        log_format: format,
        seed: Vec::new(),
        announce: Box::new(|parts| {
            for listener in &parts.boot.listeners {
                tracing::info!("listening on {}", listener.bind);
            }
            tracing::info!("the admin listener is {}", parts.boot.admin);
        }),
    })
}
