#![expect(clippy::unwrap_used, reason = "tests")]

mod connections;
mod health_checks;
mod rotation;

use super::*;
use crate::settings::{Balance, Protocol, Server, UpstreamTls};
use crate::upstream::fixtures::{checked, no_probe, tcp, unix, upstream, wait_until_available};

/// Servers to which no test connects.
fn unreachable_servers(weights: &[usize]) -> Vec<Server> {
    let server = |(n, weight): (usize, &usize)| Server {
        weight: *weight,
        ..tcp(&format!("10.0.0.{n}"), 80)
    };
    weights.iter().enumerate().map(server).collect()
}

/// Builds upstreams whose servers are not probed.
async fn build(settings: &[settings::Upstream], previous: Option<&Upstreams>) -> Upstreams {
    fixtures::build(settings, previous, &no_probe()).await
}

async fn start(settings: settings::Upstream) -> Arc<Upstream> {
    fixtures::start(settings, &no_probe()).await
}
