//! Drain of a listener and of connections without a request.

use std::time::Duration;

use tokio::sync::watch;

/// How long a connection may be idle before a drain closes it. A client that sends a request within
/// this time gets its response, which announces the close; an immediate close would lose requests
/// in flight.
pub(in crate::proxy) const IDLE: Duration = Duration::from_secs(2);
/// How long TCP handshakes that began before a drain may take: their clients consider themselves
/// connected, and would be reset. New ones do not begin
/// ([`ListeningSocket::ignore_new_connections`](super::ListeningSocket::ignore_new_connections)).
pub(in crate::proxy) const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// Resolves when the gateway drains and this much time has passed since then, or since the call.
pub(in crate::proxy) async fn wait_for_grace(time: Duration, shutdown: &mut watch::Receiver<bool>) {
    // Its sender outlives the listeners.
    let _ = shutdown.wait_for(|stop| *stop).await;
    // Boxed: every connection reserves room for it, and few need it.
    Box::pin(tokio::time::sleep(time)).await;
}
