//! Servers' names, looked up off the requests' path.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::server::{ServerState, strip_brackets};
use super::state::UpstreamState;
use crate::settings::ServerAddress;

/// Between two look-ups of a name.
const INTERVAL: Duration = Duration::from_secs(10);
/// While a name has never been resolved.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Share of the interval that is left to chance, so that a fleet does not ask at once.
const JITTER: f64 = 0.2;

/// Finds a server's addresses once. Tells whether they changed; a failure keeps the known ones.
pub(super) async fn resolve_once(server: &ServerState) -> bool {
    match addresses(server).await {
        Some(found) if !found.is_empty() => server.set_addresses(found),
        Some(_) | None => false,
    }
}

async fn addresses(server: &ServerState) -> Option<Vec<Address>> {
    let template = server.template.as_ref()?;
    let addresses = match &server.settings.address {
        ServerAddress::Unix(path) => {
            return template
                .to_socket(path)
                .inspect_err(|fault| tracing::error!(server = %server.settings.url, "{fault}"))
                .ok()
                .map(|peer| vec![Address::new(peer)]);
        }
        ServerAddress::Tcp { host, port } => match strip_brackets(host).parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, *port)],
            Err(_) => look_up(server, host, *port).await?,
        },
    };
    Some(
        addresses
            .into_iter()
            .map(|address| Address::new(template.to(address)))
            .collect(),
    )
}

/// In a fixed order, so that the same set of addresses looks the same.
async fn look_up(server: &ServerState, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => {
            let mut addresses: Vec<SocketAddr> = found.collect();
            addresses.sort_unstable();
            addresses.dedup();
            Some(addresses)
        }
        Err(error) => {
            tracing::warn!(server = %server.settings.url, %error, "the server's name is not resolved");
            None
        }
    }
}

/// Keeps a server's addresses fresh, for ever.
pub(super) async fn run_resolver(shared: Arc<UpstreamState>, index: usize) {
    let Some(server) = shared.servers.get(index) else {
        return;
    };
    loop {
        let interval = if server.addresses().is_empty() {
            RETRY_INTERVAL
        } else {
            INTERVAL
        };
        let luck: f64 = rand::random();
        tokio::time::sleep(interval.mul_f64(1.0 + JITTER * (luck - 0.5))).await;
        if resolve_once(server).await {
            shared.refresh();
        }
    }
}
