use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::{HeaderValue, Method};

use super::headers::{
    EditDirection, header_edits, header_name, header_name_at_key, route_identity_headers,
};
use super::origins;
use crate::config::context::ResolveContext;
use crate::config::diagnostics::did_you_mean;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::routing::route as file;
use crate::config::file::storage::Algorithm;
use crate::config::units::Time;
use crate::limits::{KeyPart, Limit};
use crate::routing::{
    Auth, Cors, HostPattern, IdentityHeaders, Match, OnUnauthenticated, PathAmbiguities,
    PathPattern, Requirements, Route, TimeoutOverrides,
};

mod combinations;

/// What routes refer to.
struct References<'a> {
    limits: &'a BTreeMap<String, Arc<Limit>>,
    upstreams: Vec<&'a str>,
    /// `None`: no key signs.
    signing: Option<Algorithm>,
    /// Whether the gateway has endpoints of its own.
    endpoints: bool,
    identity_headers: &'a Arc<IdentityHeaders>,
}

/// The routes, in the file's order.
pub(super) fn routes(
    file: &File,
    limits: &BTreeMap<String, Arc<Limit>>,
    identity_headers: &Arc<IdentityHeaders>,
    review: &mut ResolveContext<'_>,
) -> Option<Vec<Route>> {
    let known = References {
        limits,
        upstreams: file.upstreams.keys().map(String::as_str).collect(),
        signing: file.tokens.signing.as_ref().map(|key| key.algorithm),
        endpoints: file.api.is_some(),
        identity_headers,
    };
    let all = ConfigPath::root().key("routes");
    let mut complete = Some(Vec::new());
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut matches: HashMap<String, &str> = HashMap::new();
    for (index, one) in file.routes.iter().enumerate() {
        let place = all.item(index);
        check_name(
            &one.name,
            names.insert(&one.name, index),
            &place.key("name"),
            review,
        );
        let route = route(one, &known, &place, review);
        if let Some(route) = &route {
            let first = matches
                .entry(match_key(&route.matches))
                .or_insert(&one.name);
            if *first != one.name {
                let message = format!(
                    "the routes \"{first}\" and \"{}\" match exactly the same requests",
                    one.name
                );
                review.error(&place, message);
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
    before: Option<usize>,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) {
    if name.chars().any(char::is_control) {
        review.error(place, "a route's name cannot have control characters");
    }
    if before.is_some() {
        let shown = review.quoted(place, name);
        review.error(place, format!("another route is named {shown} already"));
    }
}

/// A text that is equal for matches that are.
fn match_key(matches: &Match) -> String {
    let mut methods: Vec<&str> = matches.methods.iter().map(Method::as_str).collect();
    methods.sort_unstable();
    let mut headers = matches.headers.clone();
    headers.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    format!(
        "{:?} {:?} {methods:?} {headers:?}",
        matches.host, matches.path
    )
}

fn route(
    written: &file::Route,
    known: &References<'_>,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Route> {
    let matches = route_match(&written.matches, &place.key("match"), review);
    combinations::check(written, known, place, review);
    let limits = route_limits(&written.limits, known, &place.key("limits"), review);
    let (limits_after, limits_before) =
        limits.into_iter().partition(|limit| limit.needs_identity());
    let upstream = upstream_index(&written.upstream, known, &place.key("upstream"), review);
    let cors = written
        .cors
        .as_ref()
        .map(|cors| cors_rules(cors, &place.key("cors"), review));
    let identity_headers = match &written.identity_headers {
        None => Arc::clone(known.identity_headers),
        Some(differing) => {
            let place = place.key("identity_headers");
            let global = known.identity_headers;
            Arc::new(route_identity_headers(differing, global, &place, review))
        }
    };
    let upstream_edits = EditDirection::Upstream(&identity_headers);
    let requests = place.key("request_headers");
    let answers = place.key("response_headers");
    let route = Route {
        name: written.name.as_str().into(),
        matches: matches?,
        auth: match written.auth {
            file::Auth::Required => Auth::Required,
            file::Auth::Optional => Auth::Optional,
            file::Auth::None => Auth::None,
        },
        on_unauthenticated: match written.on_unauthenticated {
            file::OnUnauthenticated::Redirect => OnUnauthenticated::Redirect,
            file::OnUnauthenticated::Refuse => OnUnauthenticated::Refuse,
        },
        require: Requirements {
            roles: written.require.roles.clone(),
            scopes: written.require.scopes.clone(),
        },
        limits_before,
        limits_after,
        upstream: upstream.unwrap_or_default(),
        strip_prefix: written.strip_prefix,
        max_body: written.max_body.map_or(u64::MAX, |size| size.0),
        timeouts: timeouts(&written.timeouts, &place.key("timeouts"), review),
        forward_credentials: written.forward_credentials,
        assertion: written.assertion,
        allow_in_path: path_ambiguities(&written.allow_in_path),
        cors,
        request_headers: header_edits(&written.request_headers, upstream_edits, &requests, review),
        response_headers: header_edits(
            &written.response_headers,
            EditDirection::Client,
            &answers,
            review,
        ),
        identity_headers,
    };
    upstream.map(|_| route)
}

/// The index of the upstream of that name.
fn upstream_index(
    name: &str,
    known: &References<'_>,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<usize> {
    let found = known.upstreams.iter().position(|known| *known == name);
    if found.is_none() {
        let names = known.upstreams.iter().copied();
        review.unknown_reference(place, "upstream", name, names);
    }
    found
}

fn route_match(
    written: &file::Match,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Match> {
    let mut fault = |key: &str, message: String| review.error(&place.key(key), message);
    let host = match written.host.as_deref().map(HostPattern::parse) {
        Some(Err(wrong)) => {
            fault("host", wrong.to_string());
            None
        }
        Some(Ok(host)) => Some(Some(host)),
        None => Some(None),
    };
    let path = match (&written.path, &written.prefix) {
        (Some(_), Some(_)) => {
            fault("prefix", "give \"path\" or \"prefix\", not both".to_owned());
            None
        }
        (Some(path), None) => PathPattern::exact(path)
            .map_err(|wrong| fault("path", wrong.to_string()))
            .ok(),
        (None, Some(prefix)) => PathPattern::prefix(prefix)
            .map_err(|wrong| fault("prefix", wrong.to_string()))
            .ok(),
        (None, None) => Some(PathPattern::default()),
    };
    let methods = methods(&written.methods, &place.key("methods"), review);
    let mut headers = Vec::new();
    for (text, value) in &written.headers {
        let place = place.key("headers").key(text);
        let Some(name) = header_name_at_key(text, &place, review) else {
            continue;
        };
        if headers.iter().any(|(other, _)| *other == name) {
            review.error_at_key(&place, format!("\"{name}\" is matched on already"));
        }
        match HeaderValue::from_str(value) {
            Ok(value) => headers.push((name, value)),
            Err(_) => review.error(&place, "a header's value cannot have control characters"),
        }
    }
    Some(Match {
        host: host?,
        path: path?,
        methods,
        headers,
    })
}

fn methods(written: &[String], place: &ConfigPath, review: &mut ResolveContext<'_>) -> Vec<Method> {
    let standard = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    let mut methods = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let place = place.item(index);
        let upper = text.to_ascii_uppercase();
        match Method::from_bytes(text.as_bytes()) {
            Ok(Method::CONNECT | Method::TRACE) => {
                review.error(
                    &place,
                    "the gateway answers CONNECT and TRACE itself, with 405",
                );
            }
            Ok(method) if *text == upper => {
                if methods.contains(&method) {
                    review.error(&place, "this method is in the list already");
                }
                methods.push(method);
            }
            _ => {
                let hint = did_you_mean(&upper, standard);
                let message = format!("this is not a method; methods are upper case{hint}");
                review.error(&place, message);
            }
        }
    }
    methods
}

fn route_limits(
    written: &[String],
    known: &References<'_>,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Vec<Arc<Limit>> {
    let mut limits: Vec<Arc<Limit>> = Vec::new();
    let mut forgeable = Vec::new();
    for (index, name) in written.iter().enumerate() {
        let place = place.item(index);
        let Some(limit) = known.limits.get(name) else {
            let names = known.limits.keys().map(String::as_str);
            review.unknown_reference(&place, "limit", name, names);
            continue;
        };
        if limits.iter().any(|other| other.name == limit.name) {
            review.error(
                &place,
                format!("the limit \"{name}\" is in the list already"),
            );
        }
        if limit
            .key
            .iter()
            .all(|part| matches!(part, KeyPart::Header(_)))
        {
            forgeable.push(place);
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
        for place in forgeable {
            let message = "this limit counts by a header, which a client can change at will: the \
                           route needs a limit with the key \"ip\" too";
            review.error(&place, message);
        }
    }
    limits
}

fn path_ambiguities(written: &[file::PathAmbiguity]) -> PathAmbiguities {
    written.iter().fold(PathAmbiguities::NONE, |set, one| {
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
    written: &file::TimeoutOverrides,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> TimeoutOverrides {
    let mut time = |key: &str, time: Option<Time>| {
        time.map(|time| review.require_positive(&place.key(key), time))
    };
    TimeoutOverrides {
        connect: time("connect", written.connect),
        read: time("read", written.read),
        write: time("write", written.write),
        idle: time("idle", written.idle),
        stream_idle: time("stream_idle", written.stream_idle),
    }
}

fn cors_rules(written: &file::Cors, place: &ConfigPath, review: &mut ResolveContext<'_>) -> Cors {
    let mut origins = Vec::new();
    for (index, text) in written.origins.iter().enumerate() {
        let place = place.key("origins").item(index);
        if text != "*" {
            origins.extend(origins::parse_origin(text, &place, review));
            continue;
        }
        if written.credentials {
            let message = "\"credentials: true\" needs the origins by name: with \"*\" every site \
                           could act as the user";
            review.error(&place, message);
        }
        origins.push(text.clone());
    }
    let mut names = |list: &[String], key: &str| {
        let place = place.key(key);
        let all = list.iter().enumerate();
        all.filter_map(|(index, text)| header_name(text, &place.item(index), review))
            .collect()
    };
    Cors {
        headers: names(&written.headers, "headers"),
        expose: names(&written.expose, "expose"),
        origins,
        methods: methods(&written.methods, &place.key("methods"), review),
        credentials: written.credentials,
        max_age: written.max_age.map(|time| time.0),
    }
}
