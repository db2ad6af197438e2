//! One client connection, from its first request to its last.

use std::sync::Arc;

use tokio::sync::watch;

use super::client::Client;
use super::request::{self, After};
use crate::proxy::connection::head::HeadRejection;
use crate::proxy::connection::{HeadError, HeadLimits};
use crate::proxy::{WorkerProxy, local_response};
use crate::settings::ConnectionLimits;

/// What follows the last request of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The end of the connection.
    Nothing,
    /// The client speaks HTTP/2; its bytes are unread.
    Http2,
}

/// Serves requests until the connection ends.
pub(in crate::proxy) async fn serve(
    client: &mut Client,
    limits: &ConnectionLimits,
    proxy: &WorkerProxy,
    stop: &watch::Receiver<bool>,
) -> Next {
    let limits = HeadLimits::new(limits);
    // The first head has its deadline from the start: the keep-alive timeout applies only after a
    // request.
    let mut idle = limits.timeout;
    loop {
        if client.flush_coalesced().await.is_err() {
            return Next::Nothing;
        }
        let head = match client.read_head(&limits, idle, stop).await {
            Ok(head) => head,
            Err(HeadError::Closed) => return Next::Nothing,
            Err(HeadError::Http2) => return Next::Http2,
            Err(HeadError::Rejected(fault)) => {
                reject_head(client, fault, proxy).await;
                return Next::Nothing;
            }
        };
        idle = limits.idle;
        // Boxed: otherwise an idle connection would hold the room of a request.
        match Box::pin(request::handle(client, &head, proxy, stop)).await {
            After::Keep => {}
            After::Close { sends } => {
                client.close(sends).await;
                return Next::Nothing;
            }
            After::Gone => return Next::Nothing,
        }
    }
}

/// Responds to a head that never became a request, and closes.
async fn reject_head(client: &mut Client, fault: HeadRejection, proxy: &WorkerProxy) {
    let early = local_response::render_early_response(fault.refusal);
    let outline = client.outline();
    client.out().extend_from_slice(&early.bytes);
    // The client may have closed the connection.
    let sent = client.flush_coalesced().await;
    let body = sent.map_or(0, |()| early.body_length as u64);
    let peer = Arc::clone(&client.peer);
    let worker = &proxy.worker;
    worker.log_rejected_head(&peer, fault, &early.request_id, &outline, body);
    client.close(true).await;
}
