//! Checks that a schema cannot express: references, files, addresses, combinations of settings.
//!
//! All checks report their errors and continue. Settings are built only from a file without errors.

mod acme;
mod api;
mod api_keys;
mod backend;
mod client_authentication;
mod database;
mod encryption;
mod forward_auth;
mod headers;
mod identity;
mod introspection;
mod limits;
mod listeners;
mod origins;
mod pages;
mod providers;
mod routes;
mod storage;
mod tokens;
mod topology;
mod upstreams;
mod user_prefixes;

use tokens::Signing;

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::identity::Api;
use crate::config::file::provider::{Provider, Users};
use crate::config::file::routing::route::{OnUnauthenticated, OnUnauthenticatedWord, Route};
use crate::config::file::{self, File};
use crate::routing::endpoints::OfferedEndpoints;
use crate::routing::{self, IdentityHeaders, NameSet};
use crate::settings::{Boot, Reloadable, Settings, Shutdown};

/// Checks the whole file, and builds the settings if it has no errors.
pub(super) fn resolve(file: &File, context: &mut ResolveContext<'_>) -> Option<Settings> {
    let root = ConfigPath::root();
    let listeners = listeners::listeners(file, &root.key("listeners"), context);
    let admin = listeners::admin(&file.admin, &file.listeners, &root.key("admin"), context);
    let admin_names = listeners::admin_names(&file.admin, &root.key("admin"), context);
    let control_socket = listeners::control_socket(&file.admin, &root.key("admin"), context);
    let forward_auth = forward_auth::forward_auth(file, &root.key("forward_auth"), context);
    let store = storage::store(&file.store, &root.key("store"), context);
    let database = database::database(&file.database, &root.key("database"), context);
    let endpoints = enabled_api(file);
    let tokens = tokens::tokens(file, signing(file, endpoints), context);
    let introspection = introspection::introspection(file, endpoints.is_some(), context);
    let sessions = identity::sessions(&file.sessions, &root.key("sessions"), context);
    let encryption = encryption::encryption(&file.encryption, &root.key("encryption"), context);
    let providers = providers::providers(file, file.api.is_some(), context);
    let identity = identity::identity(file, providers, context);
    let offered = offered_endpoints(file, context);
    let cookie = &file.sessions.cookie;
    let api = api::api(endpoints, offered, cookie, &root.key("api"), context);
    let pages = pages::pages(&file.pages, &root.key("pages"), context);
    let identity_headers = headers::identity_headers(&file.identity_headers, context);
    let limits = limits::limits(file, &root.key("limits"), context);
    let upstreams = upstreams::upstreams(&file.upstreams, &root.key("upstreams"), context);
    let routes = routes::routes(file, &limits, &identity_headers, context)?;
    let identity_header_names = identity_header_names(file, &identity_headers, &routes);
    let api_keys = api_keys::api_keys(file, &limits, &identity_header_names, context);
    let (listeners, reloadable_listeners) = listeners?.into_iter().unzip();
    let (admin, admin_token) = admin?;
    let (forward_auth, reloadable_forward_auth) = forward_auth?.unzip();
    Some(Settings {
        boot: Boot {
            listeners,
            forward_auth,
            admin,
            control_socket: control_socket?,
            store: store?,
            database: database?,
        },
        reloadable: Reloadable {
            listeners: reloadable_listeners,
            forward_auth: reloadable_forward_auth,
            admin_token,
            admin_names,
            tokens: tokens?,
            introspection: introspection?,
            sessions: sessions?,
            identity: identity?,
            encryption: encryption?,
            api: api?,
            identity_header_names: api_keys::reserve_header(identity_header_names, &api_keys),
            api_keys,
            pages,
            hsts: headers::hsts(file.hsts.as_ref()),
            limits: limits.into_values().collect(),
            upstreams: upstreams?,
            oauth_resources: routing::oauth_resources(&routes),
            routes: routing::RouteTable::new(routes),
            shutdown: shutdown(&file.shutdown),
        },
    })
}

/// Returns the names of the identity headers of all routes.
fn identity_header_names(
    file: &File,
    identity_headers: &IdentityHeaders,
    routes: &[routing::Route],
) -> NameSet {
    let of_routes = routes.iter().map(|route| &*route.identity_headers);
    headers::reserved_identity_headers(&file.identity_headers, identity_headers, of_routes)
}

/// Returns the section of the gateway's own endpoints. They are off by default if all tokens come
/// from other issuers, because no user signs in at the gateway.
fn enabled_api(file: &File) -> Option<&Api> {
    let redirect = OnUnauthenticated::Word(OnUnauthenticatedWord::Redirect);
    let redirects = |route: &Route| route.on_unauthenticated == redirect;
    let pages = file.routes.iter().any(redirects);
    let tokens = &file.tokens;
    let foreign_only = tokens.signing.is_none()
        && !(tokens.trusted_issuers.is_empty() && tokens.introspection.is_empty())
        && file.identity.upstream.is_none()
        && file.identity.providers.is_empty()
        && !pages;
    let api = file.api.as_ref();
    api.filter(|api| !foreign_only || !api.is_default())
}

/// Returns what the gateway signs tokens for.
fn signing(file: &File, endpoints: Option<&Api>) -> Signing {
    match endpoints {
        _ if !file.identity.providers.is_empty() => Signing::Providers,
        Some(_) => Signing::Endpoints,
        None => Signing::Nothing,
    }
}

/// Returns which endpoints the sources of users need.
fn offered_endpoints(file: &File, context: &ResolveContext<'_>) -> OfferedEndpoints {
    let identity = &file.identity;
    let passwords = identity::has_passwords(file, context);
    let has_rows = |provider: &Provider| provider.users == Users::Database;
    let identities = identity.providers.values().any(has_rows);
    let users = identity.upstream.is_none() && passwords || identities;
    let self_service = file.api_keys.as_ref().is_some_and(|keys| keys.self_service);
    OfferedEndpoints {
        passwords,
        users,
        identities,
        api_keys: self_service && users,
        introspection: file.api_keys.is_some(),
        providers: !identity.providers.is_empty(),
    }
}

fn shutdown(raw: &file::Shutdown) -> Shutdown {
    Shutdown {
        delay: raw.delay.0,
        grace: raw.grace.0,
    }
}
