//! Decisions for front proxies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::listeners::ListenerTls;

/// Decisions on the requests of other proxies, which forward them themselves: nginx, Traefik, Caddy,
/// HAProxy, Envoy. The listener is not for the public.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ForwardAuth {
    /// Address and port of a listener of its own, or `unix:` and the absolute path of a socket, such as
    /// `unix:/run/portcullis/authz.sock`.
    pub(in crate::config) bind: String,
    /// Networks (CIDR) or addresses of the peers that may query, and of further proxies in
    /// `X-Forwarded-For`. Any other peer receives 403, and nothing is evaluated. Required, except with
    /// `unix:`.
    pub(in crate::config) trusted_proxies: Vec<String>,
    /// TLS, as of `listeners`; with `client_ca`, a client certificate is required as well. `null`:
    /// cleartext.
    pub(in crate::config) tls: Option<ListenerTls>,
    /// Address of the sign-in page: a URL, or a path of the requested host. `null`: that of the gateway's
    /// own page at `api.public_url`, or at the requested host.
    pub(in crate::config) sign_in_url: Option<String>,
    /// Whether allowed responses also carry `Cookie` and `Authorization` as an upstream of the gateway
    /// would receive them, empty where nothing is left.
    pub(in crate::config) return_credentials: bool,
}

impl Default for ForwardAuth {
    fn default() -> ForwardAuth {
        ForwardAuth {
            bind: "127.0.0.1:9191".to_owned(),
            trusted_proxies: Vec::new(),
            tls: None,
            sign_in_url: None,
            return_credentials: false,
        }
    }
}
