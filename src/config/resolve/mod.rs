//! Checks that a schema cannot express: references, files, addresses, combinations of settings.
//!
//! All checks report their errors and continue. Settings are built only from a file without errors.

mod backend;
mod database;
mod headers;
mod identity;
mod limits;
mod listeners;
mod origins;
mod routes;
mod storage;
mod tokens;
mod topology;
mod upstreams;

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::identity::Api;
use crate::config::file::routing::route::{OnUnauthenticated, Route};
use crate::config::file::{self, File};
use crate::routing;
use crate::routing::endpoints::OfferedEndpoints;
use crate::settings::{Boot, Reloadable, Settings, Shutdown};

/// Checks the whole file, and builds the settings if it has no errors.
pub(super) fn resolve(file: &File, context: &mut ResolveContext<'_>) -> Option<Settings> {
    let root = ConfigPath::root();
    let listeners = listeners::listeners(&file.listeners, &root.key("listeners"), context);
    let admin = listeners::admin(&file.admin, &file.listeners, &root.key("admin"), context);
    let admin_names = listeners::admin_names(&file.admin, &root.key("admin"), context);
    let store = storage::store(&file.store, &root.key("store"), context);
    let database = database::database(&file.database, &root.key("database"), context);
    let endpoints = enabled_api(file);
    let tokens = tokens::tokens(&file.tokens, endpoints.is_some(), context);
    let sessions = identity::sessions(&file.sessions, &root.key("sessions"), context);
    let identity = identity::identity(&file.identity, &root.key("identity"), context);
    let offered = OfferedEndpoints {
        passwords: true,
        users: file.identity.upstream.is_none(),
    };
    let api = identity::api(endpoints, offered, &root.key("api"), context);
    let identity_headers = headers::identity_headers(&file.identity_headers, context);
    let outage = file.store.on_outage.limits;
    let limits = limits::limits(&file.limits, outage, &root.key("limits"), context);
    let upstreams = upstreams::upstreams(&file.upstreams, &root.key("upstreams"), context);
    let routes = routes::routes(file, &limits, &identity_headers, context)?;
    let of_routes = routes.iter().map(|route| &*route.identity_headers);
    let identity_header_names =
        headers::reserved_identity_headers(&file.identity_headers, &identity_headers, of_routes);
    let (listeners, reloadable_listeners) = listeners?.into_iter().unzip();
    let (admin, admin_token) = admin?;
    Some(Settings {
        boot: Boot {
            listeners,
            admin,
            store: store?,
            database: database?,
        },
        reloadable: Reloadable {
            listeners: reloadable_listeners,
            admin_token,
            admin_names,
            tokens: tokens?,
            sessions: sessions?,
            identity: identity?,
            encryption: None,
            api: api?,
            hsts: headers::hsts(file.hsts.as_ref()),
            identity_header_names,
            limits: limits.into_values().collect(),
            upstreams: upstreams?,
            routes: routing::RouteTable::new(routes),
            shutdown: shutdown(&file.shutdown),
        },
        watched: context.watched.clone(),
        // Settings that were not read from a file never change.
        fingerprint: 0,
    })
}

/// Returns the section of the gateway's own endpoints. They are off by default if all tokens come
/// from other issuers, because no user signs in at the gateway.
fn enabled_api(file: &File) -> Option<&Api> {
    let redirects = |route: &Route| route.on_unauthenticated == OnUnauthenticated::Redirect;
    let pages = file.routes.iter().any(redirects);
    let foreign_only = file.tokens.signing.is_none()
        && !file.tokens.trusted_issuers.is_empty()
        && file.identity.upstream.is_none()
        && !pages;
    let api = file.api.as_ref();
    api.filter(|api| !foreign_only || !api.is_default())
}

fn shutdown(raw: &file::Shutdown) -> Shutdown {
    Shutdown {
        delay: raw.delay.0,
        grace: raw.grace.0,
    }
}
