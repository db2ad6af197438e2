//! Selection of the transport: the running gateway, or this process on the same store.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;

use super::{Needs, STORE_TIMEOUT};
use crate::http_client::{HttpClient, HttpClientConfig};
use crate::settings::{Boot, Engine, RedisAddress};
use crate::store::Store;

/// For one response of a running gateway; hashing a password may have to wait for others.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const NO_TOKEN: &str = "the store is in the memory of the running gateway; set \
                                   admin.token in the configuration to access it";

/// Connects to the running gateway if the data is only in its memory.
pub(super) async fn find_gateway(
    boot: &Boot,
    needs: Needs,
) -> anyhow::Result<Option<(HttpClient, SocketAddr)>> {
    if needs == Needs::Users || !matches!(boot.store.engine, Engine::Memory) {
        return Ok(None);
    }
    let admin = connect_address(boot.admin);
    match tokio::net::TcpStream::connect(admin).await {
        Ok(_) => {}
        Err(error)
            if error.kind() == std::io::ErrorKind::ConnectionRefused
                && needs == Needs::UsersAndSessions =>
        {
            return Ok(None);
        }
        Err(error) => {
            let problem = "the store is in the memory of the gateway, and its admin listener";
            return Err(error).context(format!("{problem} {admin} cannot be reached"));
        }
    }
    // No proxy of the environment must receive the token.
    let client = HttpClient::new(&HttpClientConfig {
        timeout: Some(RESPONSE_TIMEOUT),
        ..HttpClientConfig::default()
    })
    .context("cannot create an HTTP client")?;
    Ok(Some((client, admin)))
}

/// Replaces an unspecified address by the loopback address.
fn connect_address(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

/// Waits until the store responds.
pub(super) async fn wait_for_store(store: &Store, address: &RedisAddress) -> anyhow::Result<()> {
    anyhow::ensure!(
        store.wait_until_up(STORE_TIMEOUT).await,
        "the store {} cannot be reached",
        address.topology
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn unspecified_address_is_reached_over_loopback() {
        for (bind, expected) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("10.1.2.3:9090", "10.1.2.3:9090"),
        ] {
            assert_eq!(
                connect_address(bind.parse().unwrap()),
                expected.parse().unwrap()
            );
        }
    }
}
