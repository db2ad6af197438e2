//! Resolution of server names, off the request path.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::address::{Address, SocketAddress};
use super::server::{ServerState, strip_brackets};
use super::state::UpstreamState;
use crate::settings::ServerAddress;

/// Time between two look-ups of a name.
const INTERVAL: Duration = Duration::from_secs(10);
/// Time between look-ups while a name has never been resolved.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Random fraction of the interval, so that the look-ups of a fleet are spread out.
const JITTER: f64 = 0.2;

/// Resolves a server once and returns whether its addresses changed. A failure keeps them.
pub(super) async fn resolve_once(server: &ServerState) -> bool {
    match addresses(server).await {
        Some(addresses) if !addresses.is_empty() => server.set_addresses(addresses),
        Some(_) | None => false,
    }
}

async fn addresses(server: &ServerState) -> Option<Vec<Address>> {
    let connection = server.connection.as_ref()?;
    let sockets = match &server.settings.address {
        ServerAddress::Unix(path) => {
            let socket = SocketAddress::unix(path).inspect_err(|error| {
                tracing::error!(server = %server.settings.url, %error, "cannot connect to the unix socket");
            });
            vec![socket.ok()?]
        }
        ServerAddress::Tcp { host, port } => {
            let addresses = match strip_brackets(host).parse::<IpAddr>() {
                Ok(address) => vec![SocketAddr::new(address, *port)],
                Err(_) => look_up(server, host, *port).await?,
            };
            addresses.into_iter().map(SocketAddress::Tcp).collect()
        }
    };
    let addresses = sockets.into_iter();
    Some(
        addresses
            .map(|socket| Address::new(socket, connection))
            .collect(),
    )
}

/// Looks up a name. The addresses are sorted, so that equal sets compare equal.
async fn look_up(server: &ServerState, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    match tokio::net::lookup_host((host, port)).await {
        Ok(resolved) => {
            let mut addresses: Vec<SocketAddr> = resolved.collect();
            addresses.sort_unstable();
            addresses.dedup();
            Some(addresses)
        }
        Err(error) => {
            tracing::warn!(server = %server.settings.url, %error, "cannot resolve the name of an upstream server");
            None
        }
    }
}

/// Resolves a server's name at every interval until the task is aborted.
pub(super) async fn run_resolver(state: Arc<UpstreamState>, index: usize) {
    let Some(server) = state.servers.get(index) else {
        return;
    };
    loop {
        let interval = if server.addresses().is_empty() {
            RETRY_INTERVAL
        } else {
            INTERVAL
        };
        let random: f64 = rand::random();
        tokio::time::sleep(interval.mul_f64(1.0 + JITTER * (random - 0.5))).await;
        if resolve_once(server).await {
            state.refresh();
        }
    }
}
