//! One client connection, from its first request to its last.

use std::sync::Arc;

use tokio::sync::watch;

use super::client::Client;
use super::future_pool;
use super::request::After;
use crate::forward_auth;
use crate::proxy::WorkerProxy;
use crate::proxy::connection::head::{Head, HeadRejection};
use crate::proxy::connection::{HeadError, HeadLimits};
use crate::proxy::local_response::{self, RejectedHead};
use crate::settings::{ConnectionLimits, ListenerId};
use crate::telemetry::request_id::RequestId;

/// A client connection, and what serves it.
pub(in crate::proxy) struct Connection {
    pub client: Client,
    /// The head of the present request.
    pub head: Option<Head>,
    pub proxy: Arc<WorkerProxy>,
    /// The gateway drains.
    pub stop: watch::Receiver<bool>,
}

/// Serves requests until the connection ends. `Some`: the client speaks HTTP/2; its bytes are unread.
pub(in crate::proxy) async fn serve(
    mut connection: Box<Connection>,
    limits: &ConnectionLimits,
) -> Option<Box<Connection>> {
    let limits = HeadLimits::new(limits);
    // The first head has its deadline from the start: the keep-alive timeout applies only after a
    // request.
    let mut idle = limits.timeout;
    loop {
        let client = &mut connection.client;
        if client.flush_coalesced().await.is_err() {
            return None;
        }
        match client.read_head(&limits, idle, &connection.stop).await {
            Ok(head) => connection.head = Some(head),
            Err(HeadError::Closed) => return None,
            Err(HeadError::Http2) => return Some(connection),
            Err(HeadError::Rejected(fault)) => {
                Box::pin(reject_head(client, fault, &connection.proxy)).await;
                return None;
            }
        }
        idle = limits.idle;
        let mut request = future_pool::place(connection);
        let after;
        (connection, after) = (&mut request).await;
        future_pool::give(request);
        match after {
            // An idle connection holds no buffer.
            After::Keep => connection.head = None,
            After::Close { sends } => {
                Box::pin(connection.client.close(sends)).await;
                return None;
            }
            After::Gone => return None,
        }
    }
}

/// Responds to a head that never became a request, and closes.
async fn reject_head(client: &mut Client, fault: HeadRejection, proxy: &WorkerProxy) {
    let (worker, peer) = (&proxy.worker, Arc::clone(&client.peer));
    let (snapshot, outline) = (worker.snapshot(), client.outline());
    let front_proxy = snapshot.settings.forward_auth.as_ref();
    let front_proxy = front_proxy.filter(|_| peer.listener == ListenerId::ForwardAuth);
    let head = RejectedHead {
        fault,
        request_id: &RequestId::generate(),
        front_proxy,
        dialect: front_proxy.and_then(|_| forward_auth::dialect_of(&outline.path)),
    };
    let body = local_response::write_early_response(client.out(), &head);
    // The client may have closed the connection.
    let sent = client.flush_coalesced().await;
    let body = sent.map_or(0, |()| body as u64);
    worker.log_rejected_head(&peer, &head, &outline, body);
    client.close(true).await;
}
