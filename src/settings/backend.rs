//! Sign-in by a backend that checks credentials.

use std::time::Duration;

use http::{HeaderName, Method};
use url::Url;

use super::UpstreamTls;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSettings {
    pub method: Method,
    /// http or https, without user and password.
    pub login: Url,
    /// Without a name to verify, which is the host of `login`.
    pub tls: UpstreamTls,
    pub user_id: ResponseField,
    pub email: Option<ResponseField>,
    pub name: Option<ResponseField>,
    pub roles: Option<ResponseField>,
    pub scopes: Option<ResponseField>,
    /// Members of a login body that identify the account.
    pub account: Vec<String>,
    pub response: SignInResponse,
    pub pass_set_cookie: bool,
    /// For the whole call, including the wait for a free slot.
    pub timeout: Duration,
    /// Maximum number of concurrent calls.
    pub concurrency: usize,
}

/// Location of a value in a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseField {
    /// A JSON pointer (RFC 6901) into the body.
    Pointer(String),
    Header(HeaderName),
}

/// Response to a successful sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInResponse {
    /// The gateway's own response.
    Replace,
    /// The backend's response, with the gateway's cookie.
    Pass,
}
