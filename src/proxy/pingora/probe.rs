//! Health checks, over the connector that requests use.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{StatusCode, Uri, Version};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use pingora::{BError, Error, ErrorType, OrErr};

use super::peer;
use crate::routing::TimeoutOverrides;
use crate::upstream::{Address, Probe, SendProbe};

/// Returns the function that sends health checks. Its connector, which reads the system's CA
/// certificates, is created for the first one.
pub fn probe_sender() -> SendProbe {
    let connector = Arc::new(LazyLock::new(|| Connector::<()>::new(None)));
    Arc::new(move |probe| {
        let connector = Arc::clone(&connector);
        Box::pin(async move { Ok(send(&connector, probe).await?) })
    })
}

async fn send(connector: &Connector, probe: Probe<'_>) -> Result<StatusCode, BError> {
    let peer = isolated_peer(probe.address, probe.timeout);
    let (mut session, _) = connector.get_http_session(&*peer).await?;
    let mut head = RequestHeader::build("GET", probe.path.as_bytes(), None)?;
    head.insert_header("user-agent", "portcullis-health-check")?;
    if session.as_http2().is_some() {
        let uri = Uri::builder()
            .scheme(if peer.is_tls() { "https" } else { "http" })
            .authority(probe.authority)
            .path_and_query(probe.path)
            .build();
        head.set_uri(uri.or_err(ErrorType::InternalError, "the health check's URI")?);
        head.set_version(Version::HTTP_2);
    } else {
        head.insert_header("host", probe.authority)?;
        head.insert_header("connection", "close")?;
    }
    session.write_request_header(Box::new(head)).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let status = session.response_header().map(|head| head.status);
    session.shutdown().await;
    status.ok_or_else(|| Error::new(ErrorType::InvalidHTTPHeader))
}

/// Returns the peer for a connection that is not pooled and has the timeouts of the check.
fn isolated_peer(address: &Address, timeout: Duration) -> Box<HttpPeer> {
    let mut peer = peer::of(address, &TimeoutOverrides::default());
    peer.group_key = rand::random();
    peer.options.max_h2_streams = 1;
    peer.options.connection_timeout = Some(timeout);
    peer.options.total_connection_timeout = Some(timeout);
    peer.options.read_timeout = Some(timeout);
    peer.options.write_timeout = Some(timeout);
    peer
}
