//! One client connection, from its first request to its last.

use std::sync::Arc;

use tokio::sync::watch;

use super::client::Client;
use super::future_pool;
use super::request::After;
use crate::proxy::connection::head::{Head, HeadRejection};
use crate::proxy::connection::{HeadError, HeadLimits};
use crate::proxy::{WorkerProxy, local_response};
use crate::settings::ConnectionLimits;
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
    let request_id = RequestId::generate();
    let outline = client.outline();
    let body = local_response::write_early_response(client.out(), fault.refusal, &request_id);
    // The client may have closed the connection.
    let sent = client.flush_coalesced().await;
    let body = sent.map_or(0, |()| body as u64);
    let peer = Arc::clone(&client.peer);
    let worker = &proxy.worker;
    worker.log_rejected_head(&peer, fault, &request_id, &outline, body);
    client.close(true).await;
}
