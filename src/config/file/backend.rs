//! Sign-in by a backend that checks credentials.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identity::SignInLimits;
use crate::config::units::Time;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct BackendIdentity {
    /// Method and URL of the backend's login, such as `POST http://127.0.0.1:3000/login`. It
    /// receives the body of `auth/login` unchanged.
    pub(in crate::config) login: String,
    /// Location of the user's ID in the response: a JSON pointer (`/user/id`) or `header:NAME`.
    pub(in crate::config) user_id: String,
    /// Location of the email address. `null`: not read.
    #[serde(default)]
    pub(in crate::config) email: Option<String>,
    /// Location of the display name. `null`: not read.
    #[serde(default)]
    pub(in crate::config) name: Option<String>,
    /// Location of the roles: a list, or a string separated by commas or spaces. `null`: not read.
    #[serde(default)]
    pub(in crate::config) roles: Option<String>,
    /// Location of the scopes: a list, or a string separated by spaces. `null`: not read.
    #[serde(default)]
    pub(in crate::config) scopes: Option<String>,
    /// Members of the login body that identify the account. At least one must be present. Failures
    /// are counted by each of them.
    #[serde(default = "email_and_username")]
    #[schemars(length(min = 1))]
    pub(in crate::config) account: Vec<String>,
    /// Response to a successful sign-in. `replace`: the gateway's. `pass`: the backend's, with the
    /// gateway's cookie.
    #[serde(default)]
    pub(in crate::config) answer: SignInResponse,
    /// Whether the backend's `Set-Cookie` is passed to the client.
    #[serde(default)]
    pub(in crate::config) pass_set_cookie: bool,
    /// Time limit for the whole call, including the wait for a free slot.
    #[serde(default = "five_seconds")]
    pub(in crate::config) timeout: Time,
    /// Maximum number of concurrent calls. Further calls wait.
    #[serde(default = "thirty_two")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) concurrency: u32,
    /// TLS settings for an https URL. The certificate is always verified.
    #[serde(default)]
    pub(in crate::config) tls: BackendTls,
    /// Limits on sign-in attempts.
    #[serde(default)]
    pub(in crate::config) sign_in_limits: SignInLimits,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum SignInResponse {
    #[default]
    Replace,
    Pass,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct BackendTls {
    /// PEM file with the trusted CA certificates. `null`: those of the system.
    pub(in crate::config) ca: Option<String>,
    /// PEM file with the gateway's client certificate.
    pub(in crate::config) cert: Option<String>,
    /// PEM file with the key of that certificate.
    pub(in crate::config) key: Option<String>,
}

fn email_and_username() -> Vec<String> {
    ["email", "username"].map(str::to_owned).to_vec()
}

fn five_seconds() -> Time {
    Time::seconds(5)
}

fn thirty_two() -> u32 {
    32
}
