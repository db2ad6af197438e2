//! `portcullis explain`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::print;
use crate::config;
use crate::limits::{Algorithm, KeyPart, Limit};
use crate::routing::{
    self, Auth, ExplainedRoute, HostPattern, Match, Path, PathAmbiguities, PathPattern, Route,
    endpoints,
};
use crate::settings::{Settings, Upstream};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// The request's method
    method: String,
    /// The request's URL, or only its path
    url: String,
    /// A header of the request; may be given several times
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
}

/// Tells what would become of the request.
pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let settings = config::load(&args.config)?;
    let request = Request::from_args(args)?;
    print(&explain(&settings, &request))
}

/// A request as far as routing sees it.
struct Request {
    method: Method,
    /// When the URL says so.
    https: Option<bool>,
    authority: String,
    /// The bytes before the query, not normalised: oddities are what this is about.
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Request {
    fn from_args(args: &ExplainArgs) -> anyhow::Result<Request> {
        let method = Method::from_bytes(args.method.as_bytes()).context("this is not a method")?;
        let mut headers = HeaderMap::new();
        for line in &args.headers {
            let (name, value) = line
                .split_once(':')
                .context("a header is written NAME: VALUE")?;
            let name = HeaderName::from_bytes(name.trim().as_bytes());
            let value = HeaderValue::from_str(value.trim());
            headers.append(
                name.context("this is not the name of a header")?,
                value.context("this is not the value of a header")?,
            );
        }
        let (https, rest) = match args.url.split_once("://") {
            _ if args.url.starts_with('/') => (None, args.url.as_str()),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Some(false), rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some(true), rest),
            _ => bail!("the URL begins with http://, https:// or a slash"),
        };
        let (authority, target) = match rest.find(['/', '?']) {
            Some(end) => rest.split_at(end),
            None => (rest, "/"),
        };
        let named = headers.get("host").and_then(|host| host.to_str().ok());
        let authority = match authority {
            "" => named.unwrap_or("localhost"),
            authority => named.unwrap_or(authority),
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Ok(Request {
            method,
            https,
            authority: authority.to_owned(),
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            query,
            headers,
        })
    }

    fn port(&self) -> Option<u16> {
        let (_, port) = self.authority.rsplit_once(':')?;
        port.parse().ok()
    }
}

fn explain(settings: &Settings, request: &Request) -> String {
    let mut answer = String::new();
    if let Err(refusal) = explain_steps(settings, request, &mut answer) {
        write_line(&mut answer, "refused", &refusal);
    }
    answer
}

/// Writes what is found on the way, and ends with a refusal where there is one.
fn explain_steps(
    settings: &Settings,
    request: &Request,
    answer: &mut String,
) -> Result<(), String> {
    if matches!(request.method, Method::CONNECT | Method::TRACE) {
        return Err("405 METHOD_NOT_ALLOWED: the gateway never takes this method".to_owned());
    }
    let host = routing::host_of(&request.authority)
        .map_err(|fault| format!("400 BAD_REQUEST: {fault}"))?;
    let path =
        Path::read(request.path.as_bytes()).map_err(|fault| format!("400 BAD_REQUEST: {fault}"))?;
    if redirects_to_https(settings, request) {
        let query = request
            .query
            .as_ref()
            .map_or_else(String::new, |query| format!("?{query}"));
        write_line(
            answer,
            "redirect",
            &format!("to https://{host}{}{query}", request.path),
        );
        return Ok(());
    }
    if let Some(api) = &settings.reloadable.api
        && let Some(below) = endpoints::find_below(&path, &api.prefix, api.users)
    {
        let text = format!("the gateway answers itself: its endpoint {below}");
        write_line(answer, "api", &text);
        return Ok(());
    }
    explain_route(settings, request, &host, &path, answer)
}

/// Writes which route wins over which others, and what it does.
fn explain_route(
    settings: &Settings,
    request: &Request,
    host: &str,
    path: &Path<'_>,
    answer: &mut String,
) -> Result<(), String> {
    let considered =
        settings
            .reloadable
            .routes
            .explain(host, path, &request.method, &request.headers);
    let winner = considered.iter().find(|one| one.is_match);
    if let Some(winner) = winner {
        write_line(
            answer,
            "route",
            &format!("{}: {}", winner.route.name, winner.reason),
        );
    }
    for other in considered.iter().filter(|one| !one.is_match) {
        let mut text = format!("{}: {}", other.route.name, other.reason);
        // Only of a route that matches in every respect is it said who comes first.
        if let Some(winner) = winner
            && other.reason.ends_with("comes first")
        {
            let rule = deciding_rule(&winner.route.matches, &other.route.matches);
            let _ = write!(text, ", for {rule}");
        }
        write_line(answer, "not", &text);
    }
    let Some(ExplainedRoute { route, .. }) = winner else {
        return Err("404 ROUTE_NOT_FOUND: no route matches".to_owned());
    };
    let oddities = forbidden_ambiguities(path.ambiguities(), route.allow_in_path);
    if !oddities.is_empty() {
        return Err(format!(
            "400 BAD_REQUEST: the path has {}, which the route does not allow in its allow_in_path",
            oddities.join(", ")
        ));
    }
    describe_route(settings, request, path, route, answer);
    Ok(())
}

/// Which of the rules of precedence told two routes apart that both match.
fn deciding_rule(winner: &Match, other: &Match) -> &'static str {
    let host = |one: &Match| match &one.host {
        Some(HostPattern::Exact(_)) => (2, 0),
        Some(HostPattern::Wildcard(suffix)) => (1, suffix.len()),
        None => (0, 0),
    };
    let exact = |one: &Match| matches!(one.path, PathPattern::Exact(_));
    let segments = |one: &Match| match &one.path {
        PathPattern::Exact(segments) | PathPattern::Prefix(segments) => segments.len(),
    };
    if host(winner) != host(other) {
        "its host is more specific"
    } else if exact(winner) != exact(other) {
        "its path is exact"
    } else if segments(winner) != segments(other) {
        "its prefix is longer"
    } else if winner.methods.is_empty() != other.methods.is_empty() {
        "it names a method"
    } else if winner.headers.len() != other.headers.len() {
        "it names more headers"
    } else {
        "it stands first in the file"
    }
}

/// Whether every listener in clear that may be meant redirects.
fn redirects_to_https(settings: &Settings, request: &Request) -> bool {
    if request.https == Some(true) {
        return false;
    }
    let all = settings
        .boot
        .listeners
        .iter()
        .zip(&settings.reloadable.listeners);
    let plain: Vec<_> = all.filter(|(listener, _)| !listener.tls).collect();
    let with_port = |port| {
        plain
            .iter()
            .filter(move |(listener, _)| listener.bind.port() == port)
    };
    let mut meant: Vec<_> = request.port().into_iter().flat_map(with_port).collect();
    if meant.is_empty() {
        meant = plain.iter().collect();
    }
    !meant.is_empty() && meant.iter().all(|(_, live)| live.redirect_to_https)
}

fn forbidden_ambiguities(found: PathAmbiguities, allowed: PathAmbiguities) -> Vec<&'static str> {
    [
        (PathAmbiguities::DOUBLE_SLASH, "double_slash"),
        (PathAmbiguities::ENCODED_SLASH, "encoded_slash"),
        (PathAmbiguities::ENCODED_BACKSLASH, "encoded_backslash"),
        (PathAmbiguities::ENCODED_SEMICOLON, "encoded_semicolon"),
        (PathAmbiguities::ENCODED_PERCENT, "encoded_percent"),
        (
            PathAmbiguities::ENCODED_QUESTION_MARK,
            "encoded_question_mark",
        ),
        (PathAmbiguities::ENCODED_HASH, "encoded_hash"),
    ]
    .into_iter()
    .filter(|(one, _)| found.allows(*one) && !allowed.allows(*one))
    .map(|(_, name)| name)
    .collect()
}

fn describe_route(
    settings: &Settings,
    request: &Request,
    path: &Path<'_>,
    route: &Route,
    answer: &mut String,
) {
    let auth = match route.auth {
        Auth::Required => "required",
        Auth::Optional => "optional: anonymous without a credential",
        Auth::None => "none: credentials are ignored",
    };
    write_line(answer, "auth", auth);
    if route.on_unauthenticated == routing::OnUnauthenticated::Redirect {
        write_line(answer, "sign-in", "browsers are sent to the sign-in page");
    }
    if !route.require.roles.is_empty() {
        write_line(
            answer,
            "require",
            &format!("any role of {}", route.require.roles.join(", ")),
        );
    }
    if !route.require.scopes.is_empty() {
        write_line(
            answer,
            "require",
            &format!("all scopes of {}", route.require.scopes.join(", ")),
        );
    }
    for limit in &route.limits_before {
        write_line(
            answer,
            "limit",
            &format!("{}, before authentication", describe_limit(limit)),
        );
    }
    for limit in &route.limits_after {
        write_line(
            answer,
            "limit",
            &format!("{}, after authentication", describe_limit(limit)),
        );
    }
    if let Some(upstream) = settings.reloadable.upstreams.get(route.upstream) {
        write_line(answer, "upstream", &describe_servers(upstream));
        if route.assertion {
            write_line(answer, "assertion", &format!("for {}", upstream.name));
        }
    }
    let sent = if route.strip_prefix {
        routing::strip_prefix(path.raw(), &route.matches.path)
    } else {
        path.raw()
    };
    let query = request
        .query
        .as_ref()
        .map_or_else(String::new, |query| format!("?{query}"));
    write_line(answer, "sent", &format!("{} {sent}{query}", request.method));
}

fn describe_limit(limit: &Limit) -> String {
    let key: Vec<String> = limit.key.iter().map(describe_key_part).collect();
    let algorithm = match limit.algorithm {
        Algorithm::SlidingWindow => "sliding_window".to_owned(),
        Algorithm::SlidingLog => "sliding_log".to_owned(),
        Algorithm::TokenBucket { burst } => format!("token_bucket with burst {burst}"),
    };
    let window = humantime::format_duration(limit.window);
    let mut words = format!(
        "{}: {} in {window} by {} ({algorithm})",
        limit.name,
        limit.limit,
        key.join(" and "),
    );
    if !limit.roles.is_empty() {
        let _ = write!(words, ", for {}", limit.roles.join(", "));
    }
    if !limit.except_roles.is_empty() {
        let _ = write!(words, ", not for {}", limit.except_roles.join(", "));
    }
    if limit.leased {
        words.push_str(", leased");
    }
    if limit.shadow {
        words.push_str(", only counted");
    }
    words
}

fn describe_key_part(part: &KeyPart) -> String {
    match part {
        KeyPart::Ip => "ip".to_owned(),
        KeyPart::User => "user".to_owned(),
        KeyPart::Session => "session".to_owned(),
        KeyPart::Token => "token".to_owned(),
        KeyPart::Route => "route".to_owned(),
        KeyPart::Header(name) => format!("header:{name}"),
    }
}

fn describe_servers(upstream: &Upstream) -> String {
    let urls: Vec<&str> = upstream.servers.iter().map(|server| &*server.url).collect();
    format!("{}: {}", upstream.name, urls.join(", "))
}

fn write_line(answer: &mut String, name: &str, text: &str) {
    let _ = writeln!(answer, "{name:<9} {text}");
}
