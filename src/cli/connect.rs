//! Trying what a configuration names, for `portcullis check --connect`.

use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{ErrorLines, print, print_error_line};
use crate::database::Database;
use crate::settings::{Server, ServerAddress, Settings, Upstream};
use crate::store::{self, Severity};

/// What is fine goes to standard output, a line each. A warning fails nothing; what would keep the
/// gateway from its work does.
pub(super) fn run(settings: &Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime could not be started")?;
    let mut complaints = Vec::new();
    runtime.block_on(async {
        for finding in store::inspect(&settings.boot.store).await {
            report(
                finding.severity,
                &format!("store: {finding}"),
                &mut complaints,
            )?;
        }
        let (grade, what) = probe_database(settings).await;
        report(grade, &what, &mut complaints)?;
        for upstream in &settings.reloadable.upstreams {
            for server in &upstream.servers {
                let (grade, what) = probe_server(upstream, server).await;
                report(grade, &what, &mut complaints)?;
            }
        }
        anyhow::Ok(())
    })?;
    ErrorLines::fail_if_any(complaints)
}

fn report(grade: Severity, what: &str, complaints: &mut Vec<String>) -> anyhow::Result<()> {
    match grade {
        Severity::Ok => return print(&format!("{what}\n")),
        Severity::Warning => print_error_line(&format!("warning: {what}")),
        Severity::Error => complaints.push(what.to_owned()),
    }
    Ok(())
}

async fn probe_database(settings: &Settings) -> (Severity, String) {
    let database = &settings.boot.database;
    match Database::check(database).await {
        Ok(()) => (Severity::Ok, format!("database: {database}: reachable")),
        Err(error) => {
            let error = anyhow::Error::from(error);
            (Severity::Error, format!("database: {error:#}"))
        }
    }
}

/// A server that is down now may be up when it is needed: that is a warning.
async fn probe_server(upstream: &Upstream, server: &Server) -> (Severity, String) {
    let name = format!("upstream {}: {}", upstream.name, server.url);
    match connect(&server.address, upstream.timeouts.connect).await {
        Ok(()) => (Severity::Ok, format!("{name}: reachable")),
        Err(error) => (
            Severity::Warning,
            format!("{name}: cannot be reached: {error}"),
        ),
    }
}

async fn connect(address: &ServerAddress, patience: Duration) -> std::io::Result<()> {
    let connecting = async {
        match address {
            ServerAddress::Tcp { host, port } => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                TcpStream::connect((host, *port)).await.map(drop)
            }
            ServerAddress::Unix(path) => UnixStream::connect(path).await.map(drop),
        }
    };
    timeout(patience, connecting)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
