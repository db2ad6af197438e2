//! Description of a route.

use std::fmt::Write;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Request, credential, write_line};
use crate::limits::{Algorithm, KeyPart, Limit};
use crate::routing::endpoints::SIGN_IN_PAGE;
use crate::routing::{self, Auth, OnUnauthenticated, Route, SignInPageForm, SignInRequirements};
use crate::settings::{Settings, Upstream};

/// Writes what applies to the request on its route, and what is sent upstream.
pub(super) fn describe_route(
    settings: &Settings,
    request: &Request,
    route: &Route,
    output: &mut String,
) {
    let auth = match route.auth {
        Auth::Required => "required",
        Auth::Optional => "optional: anonymous without a credential",
        Auth::None => "none: credentials are ignored",
    };
    write_line(output, "auth", auth);
    let credential = credential::describe(settings, request, route);
    write_line(output, "decides", &credential);
    if route.auth != Auth::None && request.via.is_none() {
        let browsers = describe_sign_in(settings, request, route);
        write_line(output, "sign-in", &browsers);
    }
    describe_requirements(route, output);
    for (limits, stage) in [
        (&route.limits_before, "before"),
        (&route.limits_after, "after"),
    ] {
        for limit in limits {
            let limit = describe_limit(limit);
            write_line(output, "limit", &format!("{limit}, {stage} authentication"));
        }
    }
    if request.via.is_some() {
        return;
    }
    let upstreams = &settings.reloadable.upstreams;
    if let Some(upstream) = route.upstream.and_then(|index| upstreams.get(index)) {
        write_line(output, "upstream", &describe_servers(upstream));
        if route.assertion {
            write_line(output, "assertion", &format!("for {}", upstream.name));
        }
        if let Some(field) = &route.provider_token {
            let text = format!("of the provider, in {}", field.header);
            write_line(output, "token", &text);
        }
    }
    let sent = if route.strip_prefix {
        routing::strip_prefix(&request.path, &route.matches.path)
    } else {
        &request.path
    };
    let query = request
        .query
        .as_ref()
        .map_or_else(String::new, |query| format!("?{query}"));
    write_line(output, "sent", &format!("{} {sent}{query}", request.method));
}

/// Writes what the caller must have.
fn describe_requirements(route: &Route, output: &mut String) {
    if !route.require.roles.is_empty() {
        let roles = route.require.roles.join(", ");
        write_line(output, "require", &format!("any role of {roles}"));
    }
    if !route.require.scopes.is_empty() {
        let scopes = route.require.scopes.join(", ");
        write_line(output, "require", &format!("all scopes of {scopes}"));
    }
    if let Some(sign_in) = &route.require.sign_in {
        explain_sign_in(sign_in, output);
    }
}

/// Describes where a browser goes that opens a page without being signed in.
fn describe_sign_in(settings: &Settings, request: &Request, route: &Route) -> String {
    let settings = &settings.reloadable;
    let prefix = settings.api.as_ref().map_or("", |api| api.prefix.as_str());
    let back = utf8_percent_encode(&request.path, NON_ALPHANUMERIC);
    match (&route.on_unauthenticated, settings.identity.only_provider()) {
        (OnUnauthenticated::Refuse, _) => "browsers receive 401".to_owned(),
        (OnUnauthenticated::Redirect, Some(only)) => format!(
            "browsers are sent to provider {}, the only way to sign in",
            only.name
        ),
        (OnUnauthenticated::Redirect, None) => {
            format!("browsers are sent to the sign-in page {prefix}{SIGN_IN_PAGE}?return_to={back}")
        }
        (OnUnauthenticated::Page(page), _) => {
            let back = match page.form() {
                SignInPageForm::Path => back.to_string(),
                SignInPageForm::Url => format!("ORIGIN{back}"),
            };
            format!("browsers are sent to {}", page.address(&back))
        }
    }
}

fn explain_sign_in(require: &SignInRequirements, output: &mut String) {
    let mut line = |text: String| write_line(output, "require", &text);
    if !require.providers.is_empty() {
        line(format!(
            "sign-in at any of {}",
            require.providers.join(", ")
        ));
    }
    if !require.acr.is_empty() {
        line(format!(
            "sign-in with any acr of {}",
            require.acr.join(", ")
        ));
    }
    if let Some(age) = require.max_age {
        let age = humantime::format_duration(age);
        line(format!("sign-in at most {age} ago"));
    }
}

fn describe_limit(limit: &Limit) -> String {
    let key: Vec<String> = limit.key.iter().map(describe_key_part).collect();
    let algorithm = match limit.algorithm {
        Algorithm::SlidingWindow => "sliding_window".to_owned(),
        Algorithm::SlidingLog => "sliding_log".to_owned(),
        Algorithm::TokenBucket { burst } => format!("token_bucket with burst {burst}"),
    };
    let window = humantime::format_duration(limit.window);
    let mut text = format!(
        "{}: {} in {window} by {} ({algorithm})",
        limit.name,
        limit.limit,
        key.join(" and "),
    );
    if !limit.roles.is_empty() {
        let _ = write!(text, ", for {}", limit.roles.join(", "));
    }
    if !limit.except_roles.is_empty() {
        let _ = write!(text, ", not for {}", limit.except_roles.join(", "));
    }
    if limit.leased {
        text.push_str(", leased");
    }
    if limit.shadow {
        text.push_str(", only counted");
    }
    text
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
