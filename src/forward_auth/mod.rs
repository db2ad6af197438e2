//! Decisions for front proxies: which request a call is about, and what its response is in each dialect.
//! The request itself is decided by the pipeline, as a direct one. No sockets, no clock.

use std::net::IpAddr;

use crate::settings::forward_auth::ForwardAuth;
use crate::telemetry::metrics::Dialect;

mod call;
mod call_fault;
mod client;
pub mod ext_authz_grpc;
mod original_request;
mod response;

pub use call::read_call;
pub use call_fault::CallFault;
pub use client::read_client;
pub use original_request::{NamedRequest, OriginalRequest};
pub use response::adapt;

/// The path of Envoy's calls, before that of the original request.
const EXT_AUTHZ: &str = "/ext-authz";

/// Whether a peer may query.
pub fn may_query(settings: &ForwardAuth, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    let proxies = &settings.listener.trusted_proxies;
    settings.trusts_every_peer || proxies.iter().any(|net| net.contains(&peer))
}

/// The dialect of a call by its path.
pub fn dialect_of(path: &str) -> Option<Dialect> {
    match path {
        "/auth-request" => Some(Dialect::AuthRequest),
        "/forward-auth" => Some(Dialect::ForwardAuth),
        _ => {
            let rest = path.strip_prefix(EXT_AUTHZ)?;
            rest.starts_with('/').then_some(Dialect::ExtAuthz)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_has_one_path() {
        for (path, expected) in [
            ("/auth-request", Some(Dialect::AuthRequest)),
            ("/forward-auth", Some(Dialect::ForwardAuth)),
            ("/ext-authz/", Some(Dialect::ExtAuthz)),
            ("/ext-authz/a/../b", Some(Dialect::ExtAuthz)),
            ("/ext-authz", None),
            ("/ext-authzz/", None),
            ("/auth-request/", None),
            ("/auth-request/a", None),
            ("/Forward-Auth", None),
            ("/%66orward-auth", None),
            ("//forward-auth", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(dialect_of(path), expected, "{path}");
        }
    }
}
