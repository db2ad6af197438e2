use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::headers::{
    EditDirection, header_edits, header_name, provider_token_field, route_identity_headers,
};
use super::origins;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::routing::route as file;
use crate::config::file::storage::Algorithm;
use crate::config::units::Time;
use crate::limits::{KeyPart, Limit};
use crate::routing::{
    Auth, Cors, HeaderEdits, IdentityHeaders, PathAmbiguities, ProviderTokenField, Route,
    TimeoutOverrides,
};

mod accept;
mod combinations;
mod matches;
mod on_unauthenticated;
mod requirements;

/// Definitions that routes refer to.
struct References<'a> {
    limits: &'a BTreeMap<String, Arc<Limit>>,
    upstreams: Vec<&'a str>,
    providers: Vec<&'a str>,
    /// `None` without a signing key.
    signing: Option<Algorithm>,
    /// Whether there is a sign-in page: the gateway's own, or that of front proxies.
    has_sign_in_page: bool,
    /// Whether front proxies query the gateway.
    has_front_proxies: bool,
    identity_headers: &'a Arc<IdentityHeaders>,
    /// Whether provider tokens can be sealed.
    seals_tokens: bool,
    /// Whether a provider's tokens are kept.
    keeps_tokens: bool,
}

/// Resolves the routes, in file order.
pub(super) fn routes(
    file: &File,
    limits: &BTreeMap<String, Arc<Limit>>,
    identity_headers: &Arc<IdentityHeaders>,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<Route>> {
    let forward_auth = file.forward_auth.as_ref();
    let own_page = forward_auth.and_then(|forward_auth| forward_auth.sign_in_url.as_ref());
    let references = References {
        limits,
        upstreams: file.upstreams.keys().map(String::as_str).collect(),
        providers: file.identity.providers.keys().map(String::as_str).collect(),
        signing: file.tokens.signing.as_ref().map(|key| key.algorithm),
        has_sign_in_page: file.api.is_some() || own_page.is_some(),
        has_front_proxies: file.forward_auth.is_some(),
        identity_headers,
        seals_tokens: file.encryption.key.is_some() || file.encryption.key_file.is_some(),
        keeps_tokens: file.identity.providers.values().any(|one| one.tokens.keep),
    };
    let all = ConfigPath::root().key("routes");
    let mut complete = Some(Vec::new());
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut matches: HashMap<String, &str> = HashMap::new();
    for (index, one) in file.routes.iter().enumerate() {
        let location = all.item(index);
        let first = *names.entry(&one.name).or_insert(index);
        let first = (first != index).then(|| all.item(first).key("name"));
        check_name(&one.name, first.as_ref(), &location.key("name"), context);
        let route = route(one, &references, &location, context);
        if let Some(route) = &route {
            let first = matches
                .entry(matches::match_key(&route.matches))
                .or_insert(&one.name);
            if *first != one.name {
                let message = format!(
                    "the routes \"{first}\" and \"{}\" match exactly the same requests",
                    one.name
                );
                context.error(&location, message);
            }
        }
        complete = complete.zip(route).map(|(mut all, route)| {
            all.push(route);
            all
        });
    }
    complete
}

fn check_name(
    name: &str,
    first: Option<&ConfigPath>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if name.chars().any(char::is_control) {
        context.error(location, "a route name must not contain control characters");
    }
    if let Some(first) = first {
        let quoted = context.quoted(location, name);
        let first = context.first_position(first, location);
        let message = format!("another route already has the name {quoted}, at {first}");
        context.error(location, message);
    }
}

fn route(
    raw: &file::Route,
    references: &References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Route> {
    let matches = matches::route_match(&raw.matches, &location.key("match"), context);
    combinations::check(raw, references, location, context);
    let limits = route_limits(&raw.limits, references, &location.key("limits"), context);
    let (limits_after, limits_before) =
        limits.into_iter().partition(|limit| limit.needs_identity());
    let upstream = upstream(raw.upstream.as_deref(), references, location, context);
    let require =
        requirements::requirements(&raw.require, references, &location.key("require"), context);
    let cors = raw
        .cors
        .as_ref()
        .map(|cors| cors_rules(cors, &location.key("cors"), context));
    let identity_headers = identity_headers(raw, references, location, context);
    let provider_token = provider_token(raw, &identity_headers, location, context);
    let (request_headers, response_headers) = route_header_edits(
        raw,
        &identity_headers,
        provider_token.as_ref(),
        location,
        context,
    );
    let route = Route {
        index: 0,
        name: raw.name.as_str().into(),
        matches: matches?,
        auth: auth(raw.auth),
        accept: accept::accept(raw.accept.as_ref(), &location.key("accept"), context),
        on_unauthenticated: on_unauthenticated::resolve(
            &raw.on_unauthenticated,
            &location.key("on_unauthenticated"),
            context,
        ),
        require,
        limits_before,
        limits_after,
        upstream: upstream.flatten(),
        strip_prefix: raw.strip_prefix,
        max_body: raw.max_body.map_or(u64::MAX, |size| size.0),
        timeouts: timeouts(&raw.timeouts, &location.key("timeouts"), context),
        forward_credentials: raw.forward_credentials,
        assertion: raw.assertion,
        provider_token,
        oauth_resource: raw.oauth_resource,
        allow_in_path: path_ambiguities(&raw.allow_in_path),
        cors,
        request_headers,
        response_headers,
        identity_headers,
    };
    upstream.map(|_| route)
}

fn provider_token(
    raw: &file::Route,
    identity_headers: &IdentityHeaders,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<ProviderTokenField> {
    provider_token_field(
        raw.provider_token.as_ref()?,
        &raw.request_headers,
        identity_headers,
        &location.key("provider_token"),
        context,
    )
}

fn auth(raw: file::Auth) -> Auth {
    match raw {
        file::Auth::Required => Auth::Required,
        file::Auth::Optional => Auth::Optional,
        file::Auth::None => Auth::None,
    }
}

/// Resolves the edits of requests and of responses.
fn route_header_edits(
    raw: &file::Route,
    identity_headers: &IdentityHeaders,
    provider_token: Option<&ProviderTokenField>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> (HeaderEdits, HeaderEdits) {
    let upstream = EditDirection::Upstream(identity_headers);
    let client = EditDirection::Client;
    let requests = location.key("request_headers");
    let responses = location.key("response_headers");
    (
        header_edits(
            &raw.request_headers,
            provider_token,
            upstream,
            &requests,
            context,
        ),
        header_edits(&raw.response_headers, None, client, &responses, context),
    )
}

fn identity_headers(
    raw: &file::Route,
    references: &References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Arc<IdentityHeaders> {
    let global = references.identity_headers;
    match &raw.identity_headers {
        None => Arc::clone(global),
        Some(overrides) => {
            let location = location.key("identity_headers");
            Arc::new(route_identity_headers(
                overrides, global, &location, context,
            ))
        }
    }
}

/// Returns the index of the route's upstream, if it has one; `None` on an error.
#[expect(clippy::option_option, reason = "an error, or validly no upstream")]
fn upstream(
    name: Option<&str>,
    references: &References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Option<usize>> {
    let Some(name) = name else {
        if !references.has_front_proxies {
            context.error_at_key(location, "\"upstream\" is missing");
            return None;
        }
        return Some(None);
    };
    upstream_index(name, references, &location.key("upstream"), context).map(Some)
}

/// Returns the index of an upstream by name.
fn upstream_index(
    name: &str,
    references: &References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<usize> {
    let index = references.upstreams.iter().position(|known| *known == name);
    if index.is_none() {
        let names = references.upstreams.iter().copied();
        context.unknown_reference(location, "upstream", name, names);
    }
    index
}

fn route_limits(
    raw: &[String],
    references: &References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<Arc<Limit>> {
    let mut limits: Vec<Arc<Limit>> = Vec::new();
    let mut forgeable = Vec::new();
    for (index, name) in raw.iter().enumerate() {
        let location = location.item(index);
        let Some(limit) = references.limits.get(name) else {
            let names = references.limits.keys().map(String::as_str);
            context.unknown_reference(&location, "limit", name, names);
            continue;
        };
        if limits.iter().any(|other| other.name == limit.name) {
            context.error(&location, format!("duplicate limit \"{name}\""));
        }
        if limit
            .key
            .iter()
            .all(|part| matches!(part, KeyPart::Header(_)))
        {
            forgeable.push(location);
        }
        limits.push(Arc::clone(limit));
    }
    let by_address = |limit: &Arc<Limit>| {
        let only_address = |part: &KeyPart| matches!(part, KeyPart::Ip | KeyPart::Route);
        limit.key.contains(&KeyPart::Ip)
            && limit.key.iter().all(only_address)
            && !limit.needs_identity()
            && !limit.shadow
    };
    if !limits.iter().any(by_address) {
        for location in forgeable {
            let message = "this limit counts by a header, which clients can change at will; the \
                           route also needs a limit with the key \"ip\"";
            context.error(&location, message);
        }
    }
    limits
}

fn path_ambiguities(raw: &[file::PathAmbiguity]) -> PathAmbiguities {
    raw.iter().fold(PathAmbiguities::NONE, |set, one| {
        set.with(match one {
            file::PathAmbiguity::DoubleSlash => PathAmbiguities::DOUBLE_SLASH,
            file::PathAmbiguity::EncodedSlash => PathAmbiguities::ENCODED_SLASH,
            file::PathAmbiguity::EncodedBackslash => PathAmbiguities::ENCODED_BACKSLASH,
            file::PathAmbiguity::EncodedSemicolon => PathAmbiguities::ENCODED_SEMICOLON,
            file::PathAmbiguity::EncodedPercent => PathAmbiguities::ENCODED_PERCENT,
            file::PathAmbiguity::EncodedQuestionMark => PathAmbiguities::ENCODED_QUESTION_MARK,
            file::PathAmbiguity::EncodedHash => PathAmbiguities::ENCODED_HASH,
        })
    })
}

fn timeouts(
    raw: &file::TimeoutOverrides,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> TimeoutOverrides {
    let mut time = |key: &str, time: Option<Time>| {
        time.map(|time| context.require_positive(&location.key(key), time))
    };
    TimeoutOverrides {
        connect: time("connect", raw.connect),
        read: time("read", raw.read),
        write: time("write", raw.write),
        idle: time("idle", raw.idle),
        stream_idle: time("stream_idle", raw.stream_idle),
    }
}

fn cors_rules(raw: &file::Cors, location: &ConfigPath, context: &mut ResolveContext<'_>) -> Cors {
    let mut origins = Vec::new();
    for (index, text) in raw.origins.iter().enumerate() {
        let location = location.key("origins").item(index);
        if text != "*" {
            origins.extend(origins::parse_origin(text, &location, context));
            continue;
        }
        if raw.credentials {
            let message = "\"credentials: true\" requires a list of origins; with \"*\", every \
                           site could act as the user";
            context.error(&location, message);
        }
        origins.push(text.clone());
    }
    let mut names = |list: &[String], key: &str| {
        let location = location.key(key);
        let all = list.iter().enumerate();
        all.filter_map(|(index, text)| header_name(text, &location.item(index), context))
            .collect()
    };
    Cors {
        headers: names(&raw.headers, "headers"),
        expose: names(&raw.expose, "expose"),
        origins,
        methods: matches::methods(&raw.methods, &location.key("methods"), context),
        credentials: raw.credentials,
        max_age: raw.max_age.map(|time| time.0),
    }
}
