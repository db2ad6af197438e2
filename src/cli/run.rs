//! `portcullis run`.

use super::{Logging, RunArgs, new_metrics};
use crate::config::{self, Loaded, Purpose};
use crate::gateway::{self, ActivatedSockets, Process, StartOptions};

/// Runs the gateway until a signal ends it.
pub(super) fn run(args: &RunArgs, logging: Logging) -> anyhow::Result<()> {
    let sockets = ActivatedSockets::take()?;
    let process = Process::start()?;
    let source = args.config.open();
    let Loaded { outcome, files } = config::load_watched(&source, Purpose::Serve);
    let (settings, _) = outcome?;
    let metrics = new_metrics()?;
    let logs = logging.start(&metrics)?;
    let outcome = gateway::run(StartOptions {
        process,
        sockets,
        settings,
        source: Some(source),
        files,
        metrics,
        logs: logs.clone(),
        seed_users: Vec::new(),
        on_ready: Box::new(|parts| {
            for listener in &parts.boot.listeners {
                tracing::info!("listening on {}", listener.bind);
            }
            tracing::info!("the admin listener is {}", parts.boot.admin);
        }),
    });
    logs.flush();
    outcome
}
