//! Decisions for front proxies.

use super::ReloadableListener;

/// What a reload replaces of the decisions for front proxies.
#[derive(Debug, Clone)]
pub struct ForwardAuth {
    /// Its trusted proxies are the peers that may query.
    pub listener: ReloadableListener,
    /// Whether every peer may query, because file permissions decide who connects.
    pub trusts_every_peer: bool,
    /// Address of the sign-in page: a URL or a path. `None`: the gateway's own.
    pub sign_in_url: Option<String>,
    /// Whether allowed responses carry `Cookie` and `Authorization` as an upstream would receive them.
    pub return_credentials: bool,
}
