//! `portcullis run`.

use super::{Logging, RunArgs, error_lines, new_metrics};
use crate::config::{self, Loaded, Purpose};
use crate::gateway::{self, ActivatedSockets, Predecessor, Process, SocketSource, StartOptions};

/// Runs the gateway until a signal or an upgrade ends it.
pub(super) fn run(args: &RunArgs, logging: Logging) -> anyhow::Result<()> {
    let Some(predecessor) = Predecessor::connect()? else {
        // Before there are threads.
        let sockets = ActivatedSockets::take()?;
        return serve(args, logging, SocketSource::ServiceManager(sockets));
    };
    let outcome = serve(args, logging, SocketSource::Predecessor(&predecessor));
    if let Err(error) = &outcome {
        predecessor.report_failure(&error_lines(error));
    }
    outcome
}

fn serve(args: &RunArgs, logging: Logging, sockets: SocketSource<'_>) -> anyhow::Result<()> {
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
            if let Some(listener) = &parts.boot.forward_auth {
                tracing::info!("the listener of front proxies is {}", listener.bind);
            }
            tracing::info!("the admin listener is {}", parts.boot.admin);
        }),
    });
    logs.flush();
    outcome
}
