//! What the operator writes: the shape of the YAML file, with its defaults. The doc comments here
//! are the descriptions in the JSON Schema and in `docs/configuration.md`.

pub(super) mod backend;
pub(super) mod identity;
pub(super) mod listeners;
pub(super) mod routing;
pub(super) mod storage;

use std::collections::BTreeMap;

use identity::{Api, Identity, IdentityHeaders, Sessions};
use listeners::{Admin, Listener};
use routing::limit::Limit;
use routing::route::Route;
use routing::upstream::Upstream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use storage::{Database, Store, Tokens};

use super::units::Time;

/// The configuration of a Portcullis gateway.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The public sockets.
    #[schemars(length(min = 1))]
    pub(super) listeners: Vec<Listener>,
    /// The admin listener: health, readiness, metrics and administration. Keep it off public networks.
    #[serde(default)]
    pub(super) admin: Admin,
    /// Where sessions, revocations and limit counters live.
    #[serde(default)]
    pub(super) store: Store,
    /// Where users live.
    #[serde(default)]
    pub(super) database: Database,
    /// Access tokens and refresh tokens.
    #[serde(default)]
    pub(super) tokens: Tokens,
    /// Sessions and their cookie.
    #[serde(default)]
    pub(super) sessions: Sessions,
    /// Who the users are.
    #[serde(default)]
    pub(super) identity: Identity,
    /// The gateway's own endpoints. `null`: none.
    #[serde(default = "default_api")]
    pub(super) api: Option<Api>,
    /// `Strict-Transport-Security` on the responses that the gateway itself makes over TLS: pages, API
    /// responses, errors. `null`: not sent.
    #[serde(default = "default_hsts")]
    pub(super) hsts: Option<Hsts>,
    /// The headers that tell an upstream who is asking. Clients cannot send them.
    #[serde(default)]
    pub(super) identity_headers: IdentityHeaders,
    /// Rate limits, by name.
    #[serde(default)]
    pub(super) limits: BTreeMap<String, Limit>,
    /// The backends, by name.
    #[schemars(extend("minProperties" = 1))]
    pub(super) upstreams: BTreeMap<String, Upstream>,
    /// Which requests go where. Of those that match, the most specific wins: the host first, then
    /// the path, the method, the headers; in the end the order here.
    #[schemars(length(min = 1))]
    pub(super) routes: Vec<Route>,
    /// What happens on SIGTERM.
    #[serde(default)]
    pub(super) shutdown: Shutdown,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the type of the field that it is the default of"
)]
fn default_api() -> Option<Api> {
    Some(Api::default())
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the type of the field that it is the default of"
)]
fn default_hsts() -> Option<Hsts> {
    Some(Hsts::default())
}

/// For how long browsers use https only (RFC 6797).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Hsts {
    /// How long a browser remembers it. `0s` makes browsers forget it.
    pub(super) max_age: Time,
    /// Whether it holds for all subdomains of the host too.
    pub(super) include_subdomains: bool,
}

impl Default for Hsts {
    fn default() -> Hsts {
        Hsts {
            max_age: Time::seconds(365 * 86_400),
            include_subdomains: false,
        }
    }
}

/// The order of leaving: not ready, then drain.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Shutdown {
    /// How long the gateway reports itself not ready before it stops accepting.
    pub(super) delay: Time,
    /// How long requests in flight may take to finish, at most.
    pub(super) grace: Time,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown {
            delay: Time::seconds(0),
            grace: Time::seconds(25),
        }
    }
}
