//! `portcullis explain`.

mod credential;
mod front_proxy;
mod route;

use std::fmt::Write;

use anyhow::bail;
use clap::Args;
use front_proxy::Via;
use http::Version;
use http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use request::{Request, listener_of};

use super::{ConfigArgs, print};
use crate::config::Purpose;
use crate::pipeline;
use crate::pipeline::destination::{self, Destination, NoDestination};
use crate::pipeline::facts::{RequestFacts, RequestHead, RequestHost};
use crate::pipeline::fields::{Field, FieldList, Fields};
use crate::pipeline::upstream_request::is_look_alike;
use crate::rejection::Refusal;
use crate::routing::{self, HostPattern, Match, Path, PathAmbiguities, PathPattern, Route};
use crate::settings::{ListenerId, Settings};

mod request;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Method of the request
    method: String,
    /// URL of the request, or only its path
    url: String,
    /// A header of the request; can be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Explain what a front proxy receives that queries about the request
    #[arg(long, value_name = "DIALECT")]
    via: Option<Via>,
}

/// Prints what would happen to the request.
pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let settings = args.config.load(Purpose::Explain)?;
    let request = Request::from_args(args)?;
    if request.via.is_some() && settings.reloadable.forward_auth.is_none() {
        bail!("there are no front proxies: \"forward_auth\" is null");
    }
    print(&explain(&settings, &request))
}

fn explain(settings: &Settings, request: &Request) -> String {
    let mut output = String::new();
    if let Err(refusal) = explain_steps(settings, request, &mut output) {
        write_line(&mut output, "refused", &refusal);
    }
    output
}

/// Writes the decision step by step, or returns the refusal.
fn explain_steps(
    settings: &Settings,
    request: &Request,
    output: &mut String,
) -> Result<(), String> {
    let host = routing::host_of(&request.authority);
    let listener = listener_of(settings, request);
    let client = request.client(settings, listener);
    let list: FieldList<'_> = request.headers.iter().map(Field::from).collect();
    let facts = RequestFacts {
        head: RequestHead {
            method: &request.method,
            version: Version::HTTP_11,
            path: &request.path,
            query: request.query.as_deref(),
            fields: Fields::new(&list),
        },
        scheme: None,
        host: host.as_deref().ok().map(|name| RequestHost {
            field: request.authority.as_bytes(),
            name,
        }),
        client: &client,
        certificate: None,
        listener: match request.via {
            Some(_) => ListenerId::ForwardAuth,
            None => ListenerId::Public(listener),
        },
        now: 0,
    };
    let found = destination::find(&facts, &settings.boot, &settings.reloadable);
    if matches!(found, Err(NoDestination::NoRoute)) {
        explain_precedence(settings, &facts, output);
    }
    let destination = found.map_err(|reason| {
        let detail = match (reason, &host) {
            (NoDestination::Host, Err(error)) => error.to_string(),
            _ => reason.to_string(),
        };
        (reason.refusal(), detail)
    });
    let explained = destination.and_then(|destination| {
        check_names(settings, request, &list)?;
        explain_destination(settings, request, &facts, destination, output)
    });
    explained.map_err(|(refusal, detail)| {
        let refused = describe_refusal(refusal, &detail);
        match request.via {
            Some(via) => refused + &describe_received(settings, &facts, via, refusal),
            None => refused,
        }
    })
}

/// The line about what a front proxy receives in place of a refused request.
fn describe_received(
    settings: &Settings,
    facts: &RequestFacts<'_>,
    via: Via,
    refusal: Refusal,
) -> String {
    let received = front_proxy::describe_refusal(settings, facts, via, refusal);
    format!("\n{:<9} {received}", "received")
}

/// Writes what happens to the request at its destination, or returns the refusal.
fn explain_destination(
    settings: &Settings,
    request: &Request,
    facts: &RequestFacts<'_>,
    destination: Destination<'_>,
    output: &mut String,
) -> Result<(), (Refusal, String)> {
    match destination {
        Destination::Server => {
            let text = "the gateway responds with the methods that it accepts";
            write_line(output, "api", text);
        }
        Destination::Https(target) => {
            let target = String::from_utf8_lossy(target.as_bytes());
            write_line(output, "redirect", &format!("to {target}"));
        }
        Destination::ResourceMetadata(route) => {
            let text = format!("the metadata of route {} for OAuth clients", route.name);
            write_line(output, "api", &text);
        }
        Destination::OwnEndpoint(path) => {
            let text = format!("the gateway's own endpoint {path}");
            write_line(output, "api", &text);
        }
        Destination::Route(route, ambiguities) => {
            explain_precedence(settings, facts, output);
            check_path(ambiguities, route)?;
            if let Some(via) = request.via {
                route::describe_route(settings, request, route, output);
                front_proxy::describe(settings, request, facts, route, via, output);
            } else if let Some(text) = describe_preflight(route, facts) {
                write_line(output, "cors", text);
            } else {
                route::describe_route(settings, request, route, output);
            }
        }
    }
    Ok(())
}

/// Checks that the client of a front proxy sends no header whose name is reserved.
fn check_names(
    settings: &Settings,
    request: &Request,
    fields: &FieldList<'_>,
) -> Result<(), (Refusal, String)> {
    let names = &settings.reloadable.identity_header_names;
    let reserved = fields.iter().find(|field| is_look_alike(field, names));
    match reserved.filter(|_| request.via.is_some()) {
        None => Ok(()),
        Some(field) => {
            let name = String::from_utf8_lossy(field.name);
            let detail = format!("the name {name} is reserved for the gateway");
            Err((Refusal::BadRequest, detail))
        }
    }
}

/// Describes the response to a CORS preflight, which does not reach the upstream.
fn describe_preflight(route: &Route, facts: &RequestFacts<'_>) -> Option<&'static str> {
    let cors = route.cors.as_ref()?;
    let permissions = pipeline::preflight(cors, facts.head.method, facts.head.fields)?;
    let mut names = permissions.iter().map(|(name, _)| name);
    Some(if names.any(|it| it == ACCESS_CONTROL_ALLOW_ORIGIN) {
        "the gateway responds to this preflight, and allows the request"
    } else {
        "the gateway responds to this preflight, and does not allow the request"
    })
}

fn describe_refusal(refusal: Refusal, detail: &str) -> String {
    let (status, code) = (refusal.status().as_u16(), refusal.code());
    format!("{status} {code}: {detail}")
}

/// Writes the selected route and the other candidates.
fn explain_precedence(settings: &Settings, facts: &RequestFacts<'_>, output: &mut String) {
    let (Some(host), Ok(path)) = (facts.host, Path::read(facts.head.path.as_bytes())) else {
        return;
    };
    let routes = &settings.reloadable.routes;
    let (method, fields) = (facts.head.method, facts.head.fields);
    let considered = routes.explain(host.name, &path, method, &fields.pairs());
    let winner = considered.iter().find(|one| one.is_match);
    if let Some(winner) = winner {
        let text = format!("{}: {}", winner.route.name, winner.reason);
        write_line(output, "route", &text);
    }
    for other in considered.iter().filter(|one| !one.is_match) {
        let mut text = format!("{}: {}", other.route.name, other.reason);
        // The rule is named only for a route that matches in every respect.
        if let Some(winner) = winner
            && other.reason.ends_with("comes first")
        {
            let rule = deciding_rule(&winner.route.matches, &other.route.matches);
            let _ = write!(text, ", for {rule}");
        }
        write_line(output, "not", &text);
    }
}

fn check_path(found: PathAmbiguities, route: &Route) -> Result<(), (Refusal, String)> {
    let forbidden = forbidden_ambiguities(found, route.allow_in_path);
    if forbidden.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "the path has {}, which the route does not allow in its allow_in_path",
        forbidden.join(", ")
    );
    Err((Refusal::BadRequest, detail))
}

/// Returns the rule of precedence that decides between two matching routes.
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

fn write_line(output: &mut String, name: &str, text: &str) {
    let _ = writeln!(output, "{name:<9} {text}");
}
