//! Upstream connections that belong to one client connection.

use std::sync::Arc;

use pingora::upstreams::peer::{HttpPeer, Tracer, Tracing};

use crate::proxy::connection_auth::{Owner, Slot};

/// Keeps the connection to `peer` apart from those of other client connections. Returns the slot of
/// the connection, in case a new one is made.
pub(super) fn isolate(peer: &mut HttpPeer, owner: &Owner) -> Arc<Slot> {
    let slot = Arc::new(Slot::default());
    peer.group_key = owner.pool_key();
    peer.options.tracer = Some(Tracer(Box::new(SlotTracer(Arc::clone(&slot)))));
    slot
}

/// Empties the slot of a connection before its descriptor is closed.
#[derive(Debug)]
struct SlotTracer(Arc<Slot>);

impl Tracing for SlotTracer {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.0.clear();
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(SlotTracer(Arc::clone(&self.0)))
    }
}
