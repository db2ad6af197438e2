//! What a drain means for a listener and for connections without a request.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::proxy::connection::head::Head;
use crate::proxy::connection::{DownstreamConnection, HeadError, HeadLimits};

/// How long a connection may be idle before a drain closes it. A client that goes on within this time
/// gets its response, and learns from it that the connection closes; a close at once would cross with
/// requests that are on their way, and lose them.
pub(in crate::proxy) const IDLE: Duration = Duration::from_secs(2);
/// How long TCP handshakes that had begun before a drain may take: the client of one is connected
/// already, and would be reset. No new ones begin ([`super::ignore_new_connections`]).
pub(in crate::proxy) const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// Resolves when the gateway drains and this much time has passed since, or since the call.
pub(in crate::proxy) async fn wait_for_grace(time: Duration, shutdown: &mut watch::Receiver<bool>) {
    // Its sender outlives the listeners.
    let _ = shutdown.wait_for(|stop| *stop).await;
    // Boxed: every connection has room for it, and few need it.
    Box::pin(tokio::time::sleep(time)).await;
}

/// Reads the next request head. `None`: the gateway drains, and the client sent nothing for [`IDLE`].
pub(in crate::proxy) async fn next_head(
    connection: &mut DownstreamConnection,
    limits: HeadLimits,
    shutdown: &mut watch::Receiver<bool>,
) -> Option<Result<(Head, BytesMut), HeadError>> {
    tokio::select! {
        biased;
        read = connection.read_head(limits) => return Some(read),
        () = wait_for_grace(IDLE, shutdown) => {}
    }
    if connection.is_idle() {
        return None;
    }
    Some(connection.read_head(limits).await)
}

/// Takes the connections that the kernel has accepted, and closes the socket.
pub(in crate::proxy) fn take_backlog(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let mut streams = Vec::new();
    let Ok(listener) = listener.into_std() else {
        return streams;
    };
    while let Ok((stream, address)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            streams.push((stream, address));
        }
    }
    streams
}
