//! The decision: whether a request may pass, read top-down in order of cost.

use std::net::IpAddr;
use std::sync::Arc;

use crate::session::Session;
use crate::token::Claims;

/// Who a request was found to be from.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user's id; for a foreign token with its issuer's prefix.
    pub user: String,
    pub email: Option<String>,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    pub session: Option<Arc<Session>>,
    pub token: Option<Arc<Claims>>,
    pub presented: PresentedBy,
}

/// How the credential came. Only a cookie is sent by a browser of its own accord, so only a cookie
/// calls for the same-origin check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresentedBy {
    Cookie,
    SessionHeader,
    Bearer,
}

/// Where a request comes from, as far as the gateway can vouch for it.
#[derive(Debug, Clone)]
pub struct Client {
    pub ip: IpAddr,
    /// The scheme, host and port that the client used, trusted proxies' word included.
    pub https: bool,
    pub host: String,
}
