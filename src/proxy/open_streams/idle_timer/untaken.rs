//! Pieces of a response that an HTTP/2 client has not taken.

use std::sync::Arc;

use bytes::Bytes;

use crate::proxy::open_streams::stream_control::StreamControl;

/// A piece of a response on its way to an HTTP/2 client. Pingora and h2 keep it until it is written
/// to the socket; until then the upstream is not idle.
pub struct PendingChunk {
    piece: Bytes,
    control: Arc<StreamControl>,
}

impl PendingChunk {
    /// Wraps a piece.
    pub fn wrap(piece: Bytes, control: &Arc<StreamControl>) -> Bytes {
        control.idle_timer.add_pending_chunk();
        Bytes::from_owner(PendingChunk {
            piece,
            control: Arc::clone(control),
        })
    }
}

impl AsRef<[u8]> for PendingChunk {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for PendingChunk {
    fn drop(&mut self) {
        self.control.idle_timer.remove_pending_chunk();
    }
}
