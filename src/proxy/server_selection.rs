//! Selection of the server for an admitted request.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderName;

use super::connection_auth::Owner;
use crate::pipeline::admission::{Identity, Permit};
use crate::pipeline::snapshot::Snapshot;
use crate::settings::{Balance, HashKey};
use crate::upstream::ChosenServer;

/// Selects a server that is not among those `tried`. A client connection that has upstream connections
/// of its own keeps their server on the first attempt. `header` looks up the first value of a field of
/// the request. `None`: no server is in rotation.
pub(super) fn select<'a>(
    permit: &Permit,
    snapshot: &Snapshot,
    header: impl FnOnce(&HeaderName) -> Option<&'a [u8]>,
    client: IpAddr,
    owner: Option<&Arc<Owner>>,
    tried: &[usize],
) -> Option<ChosenServer> {
    let upstream = snapshot.upstreams.get(permit.route.upstream?)?;
    let pinned = owner.filter(|_| tried.is_empty());
    let pinned = pinned.and_then(|owner| owner.server(upstream));
    pinned.or_else(|| {
        let hash = match &upstream.settings().balance {
            Balance::ConsistentHash(key) => Some(hash_input(key, permit, header, client)),
            Balance::RoundRobin | Balance::Random | Balance::LeastRequests => None,
        };
        upstream.choose(hash.as_deref(), tried)
    })
}

/// Returns the input of a consistent hash. A request that lacks it is hashed by its address, as it
/// is counted by its address for limits.
fn hash_input<'a>(
    key: &HashKey,
    permit: &Permit,
    header: impl FnOnce(&HeaderName) -> Option<&'a [u8]>,
    client: IpAddr,
) -> Vec<u8> {
    let identity = permit.identity.as_ref();
    let found = match key {
        HashKey::Ip => None,
        HashKey::User => identity.map(|identity| identity.user().as_bytes().to_vec()),
        HashKey::Session => identity
            .and_then(Identity::session)
            .map(|session| session.id.0.to_vec()),
        HashKey::Header(name) => header(name).map(<[u8]>::to_vec),
    };
    found.unwrap_or_else(|| client.to_string().into_bytes())
}
