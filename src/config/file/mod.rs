//! Structure of the YAML file, with its defaults. The doc comments of this module are the
//! descriptions in the JSON Schema and in `docs/configuration.md`.

pub(super) mod acme;
pub(super) mod api_keys;
pub(super) mod backend;
pub(super) mod encryption;
pub(super) mod forward_auth;
pub(super) mod identity;
pub(super) mod introspection;
pub(super) mod listeners;
pub(super) mod pages;
pub(super) mod provider;
pub(super) mod routing;
pub(super) mod storage;

use std::collections::BTreeMap;

use api_keys::ApiKeys;
use encryption::Encryption;
use forward_auth::ForwardAuth;
use identity::{Api, Identity, IdentityHeaders, Sessions};
use listeners::{Admin, Listener};
use pages::Pages;
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
    /// Files whose sections are added to those of this file, and folders, of which all files
    /// `*.yaml` are included in the order of their names. Relative to the including file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) include: Option<Included>,
    /// The public listeners.
    #[schemars(length(min = 1))]
    pub(super) listeners: Vec<Listener>,
    /// The admin listener: health, readiness, metrics and administration. Keep it off public
    /// networks.
    #[serde(default)]
    pub(super) admin: Admin,
    /// The store of sessions, revocations and limit counters.
    #[serde(default)]
    pub(super) store: Store,
    /// The database of users.
    #[serde(default)]
    pub(super) database: Database,
    /// Access tokens and refresh tokens.
    #[serde(default)]
    pub(super) tokens: Tokens,
    /// Sessions and their cookie.
    #[serde(default)]
    pub(super) sessions: Sessions,
    /// Users and sign-in.
    #[serde(default)]
    pub(super) identity: Identity,
    /// Keys that seal the tokens of providers and the keys of certificates. Required where a provider
    /// has `tokens.keep`, or a listener `acme`.
    #[serde(default)]
    pub(super) encryption: Encryption,
    /// The gateway's own endpoints. `null`: none.
    #[serde(default = "default_api")]
    pub(super) api: Option<Api>,
    /// API keys of users and services, for programs. `null`: none are accepted.
    #[serde(default)]
    pub(super) api_keys: Option<ApiKeys>,
    /// Brand, language and texts of the sign-in pages and of the error pages.
    #[serde(default)]
    pub(super) pages: Pages,
    /// `Strict-Transport-Security` on responses that the gateway itself sends over TLS: pages, API
    /// responses, errors. `null`: not sent.
    #[serde(default = "default_hsts")]
    pub(super) hsts: Option<Hsts>,
    /// Headers that identify the user to upstreams. They are removed from client requests.
    #[serde(default)]
    pub(super) identity_headers: IdentityHeaders,
    /// Rate limits, by name.
    #[serde(default)]
    pub(super) limits: BTreeMap<String, Limit>,
    /// Groups of backend servers, by name.
    pub(super) upstreams: BTreeMap<String, Upstream>,
    /// Routes. The most specific matching route wins: host first, then path, method and headers;
    /// among equals, the first in the file.
    #[schemars(length(min = 1))]
    pub(super) routes: Vec<Route>,
    /// Decisions on the requests of other proxies. `null`: none.
    #[serde(default)]
    pub(super) forward_auth: Option<ForwardAuth>,
    /// Shutdown on SIGTERM.
    #[serde(default)]
    pub(super) shutdown: Shutdown,
}

/// A file or folder, or a list of them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Included {
    One(String),
    Several(Vec<String>),
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

/// HTTP Strict Transport Security (RFC 6797).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Hsts {
    /// How long browsers use https only. `0s` makes browsers discard the policy.
    pub(super) max_age: Time,
    /// Whether the policy includes all subdomains of the host.
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

/// Sequence of a shutdown: report not ready, then drain.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Shutdown {
    /// How long the gateway reports not ready before it stops accepting connections.
    pub(super) delay: Time,
    /// Maximum time for requests in flight to finish.
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
