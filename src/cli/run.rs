//! `portcullis run`.

use super::{Logging, RunArgs, metrics};
use crate::gateway::{self, Process, Start};

/// Serves until a signal ends it.
pub(super) fn run(args: &RunArgs, logging: Logging) -> anyhow::Result<()> {
    let process = Process::start()?;
    let settings = crate::config::load(&args.config)?;
    let metrics = metrics()?;
    let logs = logging.start(&metrics)?;
    let outcome = gateway::run(Start {
        process,
        settings,
        file: Some(args.config.clone()),
        metrics,
        logs: logs.clone(),
        seed: Vec::new(),
        announce: Box::new(|parts| {
            for listener in &parts.boot.listeners {
                tracing::info!("listening on {}", listener.bind);
            }
            tracing::info!("the admin listener is {}", parts.boot.admin);
        }),
    });
    logs.flush();
    outcome
}
