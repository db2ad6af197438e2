//! A backend that checks credentials and says who somebody is.

use std::time::Duration;

use http::{HeaderName, Method};
use url::Url;

use super::UpstreamTls;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSettings {
    pub method: Method,
    /// http or https, without user and password.
    pub login: Url,
    /// Without a name to verify: it is the address' own.
    pub tls: UpstreamTls,
    pub user_id: ResponseField,
    pub email: Option<ResponseField>,
    pub name: Option<ResponseField>,
    pub roles: Option<ResponseField>,
    pub scopes: Option<ResponseField>,
    /// The members of a login's body that name the account.
    pub account: Vec<String>,
    pub response: SignInResponse,
    pub pass_set_cookie: bool,
    /// For the whole call, waiting for its turn included.
    pub timeout: Duration,
    /// Calls at a time.
    pub concurrency: usize,
}

/// Where an answer has something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseField {
    /// A JSON pointer (RFC 6901) into the body.
    Pointer(String),
    Header(HeaderName),
}

/// What a client gets for a successful sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInResponse {
    /// The gateway's own answer.
    Replace,
    /// The backend's answer, with the gateway's cookie.
    Pass,
}
