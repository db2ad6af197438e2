//! Connection-bound authentication. NTLM and Negotiate authenticate the connection that carries a
//! request, so an upstream connection that has seen them serves only one client connection, and is
//! closed with it.

use std::os::fd::RawFd;
use std::sync::{Arc, OnceLock};

use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;

use super::http1::dial::UpstreamStream;
use super::http1::http2_pool::Http2Pool;
use crate::upstream::{AddressId, ChosenServer, PinnedServer, Upstream};

/// Maximum number of upstreams with a pinned server per client connection.
const MAX_PINNED: usize = 16;

/// The upstream connections that belong to one client connection; usually none.
#[derive(Debug, Default)]
pub struct OwnConnections(OnceLock<Arc<Owner>>);

/// A client connection that has upstream connections of its own.
#[derive(Debug)]
pub(super) struct Owner {
    key: u64,
    open: Mutex<Vec<Arc<Slot>>>,
    /// The server of each upstream: another one would not know the handshake.
    pinned: Mutex<Vec<PinnedServer>>,
    /// Idle connections, which end with the client's.
    idle: Mutex<Vec<(AddressId, UpstreamStream)>>,
    /// Those of HTTP/2, busy or idle.
    pub(super) http2: Http2Pool,
}

/// One upstream connection: its descriptor while it is open.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<RawFd>>);

impl OwnConnections {
    /// The owner, for a request with such credentials and for all later ones on its connection.
    /// `credentials` are the values of `Authorization`.
    pub(super) fn of_request<'a>(
        &self,
        mut credentials: impl Iterator<Item = &'a [u8]>,
    ) -> Option<&Arc<Owner>> {
        match self.0.get() {
            None if credentials.any(is_connection_scheme) => Some(self.claim()),
            owner => owner,
        }
    }

    /// Makes the client connection an owner.
    pub(super) fn claim(&self) -> &Arc<Owner> {
        self.0.get_or_init(|| {
            Arc::new(Owner {
                key: rand::random(),
                open: Mutex::default(),
                pinned: Mutex::default(),
                idle: Mutex::default(),
                http2: Http2Pool::default(),
            })
        })
    }
}

impl Drop for OwnConnections {
    fn drop(&mut self) {
        let Some(owner) = self.0.get() else { return };
        for slot in owner.open.lock().drain(..) {
            slot.close();
        }
    }
}

impl Owner {
    /// The key of its connections in the pool.
    pub(super) fn pool_key(&self) -> u64 {
        self.key
    }

    /// Records a new connection.
    pub(super) fn record_opened(&self, slot: &Arc<Slot>, descriptor: RawFd) {
        *slot.0.lock() = Some(descriptor);
        let mut open = self.open.lock();
        open.retain(|slot| slot.0.lock().is_some());
        open.push(Arc::clone(slot));
    }

    /// Takes an idle connection to this address.
    pub(super) fn take_connection(&self, address: AddressId) -> Option<UpstreamStream> {
        let mut idle = self.idle.lock();
        let at = idle.iter().position(|(other, _)| *other == address)?;
        let (_, mut stream) = idle.swap_remove(at);
        stream.is_quiet().then_some(stream)
    }

    /// Keeps a connection for later requests of the client connection.
    pub(super) fn keep_connection(&self, address: AddressId, stream: UpstreamStream) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_PINNED {
            idle.push((address, stream));
        }
    }

    /// The pinned server of an upstream, if it is still in rotation.
    pub(super) fn server(&self, upstream: &Upstream) -> Option<ChosenServer> {
        let pinned = self.pinned.lock();
        pinned
            .iter()
            .find_map(|pinned| upstream.choose_again(pinned))
    }

    /// Pins the server of an upstream.
    pub(super) fn pin(&self, chosen: &ChosenServer) {
        let mut pinned = self.pinned.lock();
        pinned.retain(|other| !other.is_of_same_upstream(chosen));
        if pinned.len() < MAX_PINNED {
            pinned.push(chosen.pinned());
        }
    }
}

impl Slot {
    /// Empties the slot; called before the descriptor is closed.
    pub(super) fn clear(&self) {
        self.0.lock().take();
    }

    fn close(&self) {
        if let Some(descriptor) = *self.0.lock() {
            // The upstream may just have closed it, which has the same effect.
            let _ = shutdown(descriptor, Shutdown::Both);
        }
    }
}

/// Whether a challenge names a scheme that authenticates the connection. `challenges` are the values
/// of `WWW-Authenticate`.
pub(super) fn challenges_connection<'a>(challenges: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut parts = challenges.flat_map(|value| value.split(|byte| *byte == b','));
    parts.any(is_connection_scheme)
}

/// Whether credentials or a part of a challenge begin with such a scheme. On HTTP/2 the value of a
/// field may begin with whitespace, which an HTTP/1.1 upstream does not read.
fn is_connection_scheme(value: &[u8]) -> bool {
    let value = value.trim_ascii_start();
    let end = value.iter().position(|byte| !byte.is_ascii_alphanumeric());
    let scheme = value.get(..end.unwrap_or(value.len())).unwrap_or_default();
    [&b"ntlm"[..], b"negotiate"]
        .iter()
        .any(|name| scheme.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_that_authenticate_a_connection_are_recognized() {
        for (challenges, expected) in [
            (&["NTLM"][..], true),
            (&["Negotiate"], true),
            (&["negotiate YII="], true),
            (&["Basic realm=\"a\"", "NTLM"], true),
            (&["Basic realm=\"a\", Negotiate"], true),
            (&["Basic realm=\"a\""], false),
            (&["Bearer", "Digest qop=auth"], false),
            (&["NTLMv3"], false),
            (&[], false),
        ] {
            let values = challenges.iter().map(|challenge| challenge.as_bytes());
            assert_eq!(challenges_connection(values), expected, "{challenges:?}");
        }
    }
}
