//! Connection tests of `portcullis check --connect`.

mod acme;
mod introspection;
mod providers;

use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{ErrorLines, print, print_error_line};
use crate::database::Database;
use crate::settings::{Server, ServerAddress, Settings, Upstream};
use crate::store::{self, Severity};
use crate::telemetry::printable::sanitize_line;

/// Tests the store, the database, the upstreams, the certificate authorities, the introspection endpoints
/// and the providers. Successes are printed to standard output. Warnings do not fail the command; problems that would stop the gateway do.
pub(super) fn run(settings: &Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let mut errors = Vec::new();
    runtime.block_on(async {
        for check in store::inspect(&settings.boot.store).await {
            report(check.severity, &format!("store: {check}"), &mut errors)?;
        }
        let (severity, message) = probe_database(settings).await;
        report(severity, &message, &mut errors)?;
        for upstream in &settings.reloadable.upstreams {
            for server in &upstream.servers {
                let (severity, message) = probe_server(upstream, server).await;
                report(severity, &message, &mut errors)?;
            }
        }
        for listener in settings.reloadable.served_listeners() {
            if let Some(certificates) = &listener.acme {
                let (severity, message) = acme::inspect(&certificates.settings).await;
                report(severity, &message, &mut errors)?;
            }
        }
        for entry in &settings.reloadable.introspection {
            let (severity, message) = introspection::inspect(entry).await;
            report(severity, &message, &mut errors)?;
        }
        for provider in &settings.reloadable.identity.providers {
            for (severity, message) in providers::inspect(provider).await {
                report(severity, &message, &mut errors)?;
            }
            for line in providers::addresses(settings, provider) {
                print(&format!("{line}\n"))?;
            }
        }
        anyhow::Ok(())
    })?;
    ErrorLines::fail_if_any(errors)
}

fn report(severity: Severity, message: &str, errors: &mut Vec<String>) -> anyhow::Result<()> {
    match severity {
        // May contain text of another server.
        Severity::Ok => return print(&format!("{}\n", sanitize_line(message))),
        Severity::Warning => print_error_line(&format!("warning: {message}")),
        Severity::Error => errors.push(message.to_owned()),
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

/// Probes a server. One that is down now may be up later, so this is only a warning.
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

async fn connect(address: &ServerAddress, limit: Duration) -> std::io::Result<()> {
    let connecting = async {
        match address {
            ServerAddress::Tcp { host, port } => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                TcpStream::connect((host, *port)).await.map(drop)
            }
            ServerAddress::Unix(path) => UnixStream::connect(path).await.map(drop),
        }
    };
    timeout(limit, connecting)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
