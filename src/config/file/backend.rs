//! A backend that says who somebody is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::identity::SignInLimits;
use crate::config::units::Time;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct BackendIdentity {
    /// Method and address of the backend's login, like `POST http://127.0.0.1:3000/login`. It gets
    /// the body of `auth/login` as it came.
    pub(in crate::config) login: String,
    /// Where its answer has the user's id: a JSON pointer (`/user/id`), or `header:NAME`.
    pub(in crate::config) user_id: String,
    /// Where it has the email address. `null`: it is not read.
    #[serde(default)]
    pub(in crate::config) email: Option<String>,
    /// Where it has the name to show.
    #[serde(default)]
    pub(in crate::config) name: Option<String>,
    /// Where it has the roles: a list, or a text with commas or spaces between them.
    #[serde(default)]
    pub(in crate::config) roles: Option<String>,
    /// Where it has the scopes: a list, or a text with spaces between them.
    #[serde(default)]
    pub(in crate::config) scopes: Option<String>,
    /// The members of a login's body that name the account. Failures are counted by each of them,
    /// and one has to be there.
    #[serde(default = "email_and_username")]
    #[schemars(length(min = 1))]
    pub(in crate::config) account: Vec<String>,
    /// What a client gets for a successful sign-in: the gateway's answer, or the backend's with the
    /// gateway's cookie.
    #[serde(default)]
    pub(in crate::config) answer: SignInResponse,
    /// Whether the backend's `Set-Cookie` goes on to the client.
    #[serde(default)]
    pub(in crate::config) pass_set_cookie: bool,
    /// For the whole call, waiting for its turn included.
    #[serde(default = "five_seconds")]
    pub(in crate::config) timeout: Time,
    /// Calls at a time. Further ones wait.
    #[serde(default = "thirty_two")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) concurrency: u32,
    /// For an https address; the certificate is always verified.
    #[serde(default)]
    pub(in crate::config) tls: BackendTls,
    /// What bounds guessing.
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
    /// A PEM file of the authorities to trust. `null`: the system's.
    pub(in crate::config) ca: Option<String>,
    /// A PEM file of the gateway's own certificate.
    pub(in crate::config) cert: Option<String>,
    /// A PEM file of its key.
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
