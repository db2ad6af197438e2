//! Trying what a configuration names, for `portcullis check --connect`.

use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{Complaints, print, remark};
use crate::directory::Directory;
use crate::settings::{Server, ServerAddress, Settings, Upstream};
use crate::store::{self, Grade};

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
            tell(finding.grade, &format!("store: {finding}"), &mut complaints)?;
        }
        let (grade, what) = database(settings).await;
        tell(grade, &what, &mut complaints)?;
        for upstream in &settings.live.upstreams {
            for server in &upstream.servers {
                let (grade, what) = reach(upstream, server).await;
                tell(grade, &what, &mut complaints)?;
            }
        }
        anyhow::Ok(())
    })?;
    Complaints::none(complaints)
}

fn tell(grade: Grade, what: &str, complaints: &mut Vec<String>) -> anyhow::Result<()> {
    match grade {
        Grade::Fine => return print(&format!("{what}\n")),
        Grade::Warning => remark(&format!("warning: {what}")),
        Grade::Error => complaints.push(what.to_owned()),
    }
    Ok(())
}

async fn database(settings: &Settings) -> (Grade, String) {
    let database = &settings.boot.database;
    match Directory::try_out(database).await {
        Ok(()) => (Grade::Fine, format!("database: {database}: reachable")),
        Err(error) => {
            let error = anyhow::Error::from(error);
            (Grade::Error, format!("database: {error:#}"))
        }
    }
}

/// A server that is down now may be up when it is needed: that is a warning.
async fn reach(upstream: &Upstream, server: &Server) -> (Grade, String) {
    let name = format!("upstream {}: {}", upstream.name, server.url);
    match connect(&server.address, upstream.timeouts.connect).await {
        Ok(()) => (Grade::Fine, format!("{name}: reachable")),
        Err(error) => (
            Grade::Warning,
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
