//! Pieces of a response that an HTTP/2 client has not taken.

use std::sync::Arc;

use bytes::Bytes;

use crate::proxy::live::control::Control;

/// A piece of a response on its way to an HTTP/2 client. Pingora and h2 keep it until it has been
/// written to the socket; until then it is not the upstream that is silent.
pub struct Untaken {
    piece: Bytes,
    control: Arc<Control>,
}

impl Untaken {
    /// Wraps a piece.
    pub fn wrap(piece: Bytes, control: &Arc<Control>) -> Bytes {
        control.silence.hand_over();
        Bytes::from_owner(Untaken {
            piece,
            control: Arc::clone(control),
        })
    }
}

impl AsRef<[u8]> for Untaken {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.control.silence.take_over();
    }
}
