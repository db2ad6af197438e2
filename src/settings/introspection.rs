//! Introspection endpoints (RFC 7662), which verify tokens that only their issuer can read.
//!
//! Every type can be compared, so that a reload keeps the client and the cache of an entry that is
//! unchanged.

use std::time::Duration;

use url::Url;

use super::UpstreamTls;
use super::provider::ClientAuthentication;
use crate::auth::token::IntrospectionRules;

/// One endpoint, and the tokens that are sent to it.
#[derive(Debug, Clone, PartialEq)]
pub struct IntrospectionEntry {
    /// With the name of the entry, by which routes, metrics and logs refer to it.
    pub rules: IntrospectionRules,
    pub endpoint: IntrospectionEndpoint,
    pub client_id: String,
    /// Never [`ClientAuthentication::None`].
    pub client_auth: ClientAuthentication,
    /// Beginning of its tokens; `None`: those that begin with no other entry's.
    pub prefix: Option<String>,
    /// How long a response counts.
    pub cached_for: Duration,
    /// For one call, with the discovery where it is needed.
    pub timeout: Duration,
    /// Maximum number of concurrent calls of one gateway.
    pub concurrency: usize,
    pub on_outage: IntrospectionOutage,
    pub tls: UpstreamTls,
}

/// Where tokens are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntrospectionEndpoint {
    Url(Url),
    /// The address in the metadata of the entry's issuer.
    Discovered,
}

/// What becomes of a token while its endpoint does not respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntrospectionOutage {
    /// 503.
    Deny,
    /// A yes of the last five minutes counts.
    Cached,
}
