//! What a schema cannot say: that names exist, files can be used, addresses are addresses and
//! settings go together. Every check reports what it finds and goes on; settings are made only of
//! a file without mistakes.

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

use std::sync::Arc;

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::identity::Api;
use crate::config::file::routing::route::{OnUnauthenticated, Route};
use crate::routing;
use crate::settings::{Boot, Reloadable, Settings, Shutdown};

/// Checks everything, and makes the settings if nothing was wrong.
pub(super) fn resolve(file: &File, review: &mut ResolveContext<'_>) -> Option<Settings> {
    let root = ConfigPath::root();
    let listeners = listeners::listeners(&file.listeners, &root.key("listeners"), review);
    let admin = listeners::admin(&file.admin, &file.listeners, &root.key("admin"), review);
    let admin_names = listeners::admin_names(&file.admin, &root.key("admin"), review);
    let store = storage::store(&file.store, &root.key("store"), review);
    let database = database::database(&file.database, &root.key("database"), review);
    let redirects = |route: &Route| route.on_unauthenticated == OnUnauthenticated::Redirect;
    let pages = file.routes.iter().any(redirects);
    let endpoints = enabled_api(file, pages);
    let tokens = tokens::tokens(&file.tokens, endpoints.is_some(), review);
    let sessions = identity::sessions(&file.sessions, &root.key("sessions"), review);
    let identity = identity::identity(&file.identity, &root.key("identity"), review);
    let users = file.identity.upstream.is_none();
    let api = identity::api(endpoints, users, &root.key("api"), review);
    let identity_place = root.key("identity_headers");
    let identity_headers = Arc::new(headers::identity_headers(
        &file.identity_headers,
        &identity_place,
        review,
    ));
    let outage = file.store.on_outage.limits;
    let limits = limits::limits(&file.limits, outage, &root.key("limits"), review);
    let upstreams = upstreams::upstreams(&file.upstreams, &root.key("upstreams"), review);
    let routes = routes::routes(file, &limits, &identity_headers, review)?;
    let identity_names = headers::reserved_identity_headers(
        &file.identity_headers,
        &identity_headers,
        routes.iter().map(|route| &*route.identity_headers),
    );
    let (listeners, listeners_live) = listeners?.into_iter().unzip();
    let (admin, admin_token) = admin?;
    Some(Settings {
        boot: Boot {
            listeners,
            admin,
            store: store?,
            database: database?,
        },
        reloadable: Reloadable {
            listeners: listeners_live,
            admin_token,
            admin_names,
            tokens: tokens?,
            sessions: sessions?,
            identity: identity?,
            api: api?,
            hsts: headers::hsts(file.hsts.as_ref()),
            identity_header_names: identity_names,
            limits: limits.into_values().collect(),
            upstreams: upstreams?,
            routes: routing::RouteTable::new(routes),
            shutdown: Shutdown {
                delay: file.shutdown.delay.0,
                grace: file.shutdown.grace.0,
            },
        },
        watched: review.watched.clone(),
        // What is not read from a file does not change.
        fingerprint: 0,
    })
}

/// What is written of the gateway's own endpoints. Where nobody signs in here there is nothing for them
/// to do, unless they were asked for.
fn enabled_api(file: &File, pages: bool) -> Option<&Api> {
    let foreign_only = file.tokens.signing.is_none()
        && !file.tokens.trusted_issuers.is_empty()
        && file.identity.upstream.is_none()
        && !pages;
    let written = file.api.as_ref();
    written.filter(|api| !foreign_only || !api.is_default())
}
