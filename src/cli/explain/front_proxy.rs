//! What a front proxy receives for the request.

use std::fmt::Write as _;

use clap::ValueEnum;
use http::header::{ACCEPT, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{Request, write_line};
use crate::forward_auth;
use crate::pipeline::facts::{RequestFacts, RequestHead};
use crate::pipeline::fields::{Field, FieldList, Fields};
use crate::pipeline::local_response::{self, RejectedRequest, ResponseContext};
use crate::pipeline::own_field::{PORTCULLIS_CODE, PORTCULLIS_STATUS};
use crate::rejection::Refusal;
use crate::routing::{Auth, Route};
use crate::settings::Settings;
use crate::telemetry::metrics::Dialect;
use crate::telemetry::request_id::RequestId;

/// The dialect by which a front proxy queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Via {
    AuthRequest,
    ForwardAuth,
    ExtAuthz,
}

impl Via {
    fn dialect(self) -> Dialect {
        match self {
            Via::AuthRequest => Dialect::AuthRequest,
            Via::ForwardAuth => Dialect::ForwardAuth,
            Via::ExtAuthz => Dialect::ExtAuthz,
        }
    }
}

/// Writes what the front proxy receives, by the decision on the request.
pub(super) fn describe(
    settings: &Settings,
    request: &Request,
    facts: &RequestFacts<'_>,
    route: &Route,
    via: Via,
    output: &mut String,
) {
    write_line(output, "allowed", &describe_allowed(settings, route));
    let mut headers = request.headers.clone();
    headers.insert(ACCEPT, HeaderValue::from_static("text/html"));
    let list: FieldList<'_> = headers.iter().map(Field::from).collect();
    let received = |fields, refusal| receive(settings, facts, fields, Some(route), via, refusal);
    let fields = facts.head.fields;
    if route.auth != Auth::None {
        let anonymous = received(fields, Refusal::Unauthenticated);
        write_line(output, "rejected", &anonymous);
        let browser = received(Fields::new(&list), Refusal::Unauthenticated);
        write_line(output, "browser", &browser);
    }
    if !route.limits_before.is_empty() || !route.limits_after.is_empty() {
        write_line(output, "limited", &received(fields, Refusal::RateLimited));
    }
    let unknown = received(fields, Refusal::StoreUnavailable);
    write_line(output, "unknown", &unknown);
}

/// Describes what the front proxy receives in place of a refused request.
pub(super) fn describe_refusal(
    settings: &Settings,
    facts: &RequestFacts<'_>,
    via: Via,
    refusal: Refusal,
) -> String {
    receive(settings, facts, facts.head.fields, None, via, refusal)
}

fn describe_allowed(settings: &Settings, route: &Route) -> String {
    let settings = &settings.reloadable;
    let names = settings.identity_header_names.iter();
    let mut names: Vec<&str> = names.map(|name| name.as_str()).collect();
    if route.assertion {
        names.push("x-portcullis-assertion");
    }
    let forward_auth = settings.forward_auth.as_ref();
    if forward_auth.is_some_and(|it| it.return_credentials) {
        names.extend(["cookie", "authorization"]);
    }
    let code = PORTCULLIS_CODE.name.as_str();
    format!("200, {code}: OK, with {}", names.join(", "))
}

/// Renders the response as the gateway does, and describes it.
fn receive(
    settings: &Settings,
    facts: &RequestFacts<'_>,
    fields: Fields<'_>,
    route: Option<&Route>,
    via: Via,
    refusal: Refusal,
) -> String {
    let context = ResponseContext {
        request_id: &RequestId::EMPTY,
        method: facts.head.method,
        is_http2: false,
        settings: Some(&settings.reloadable),
        services: None,
        hsts: None,
    };
    let request = RejectedRequest {
        head: RequestHead {
            fields,
            ..facts.head
        },
        context,
        is_grpc: false,
        is_api_call: false,
        route,
        client: Some(facts.client),
        host: facts.host.and_then(|host| str::from_utf8(host.field).ok()),
        front_proxy: settings.reloadable.forward_auth.as_ref(),
    };
    let mut response = local_response::respond(refusal.into(), &request, None);
    forward_auth::adapt(&mut response, via.dialect());
    let mut headers = HeaderMap::new();
    response.write_fields(&context, 0, &mut headers);
    describe_response(response.status, &headers)
}

fn describe_response(status: StatusCode, headers: &HeaderMap) -> String {
    let mut text = status.as_str().to_owned();
    for name in [
        &PORTCULLIS_CODE.name,
        &PORTCULLIS_STATUS.name,
        &WWW_AUTHENTICATE,
        &LOCATION,
    ] {
        for value in headers.get_all(name) {
            let value = String::from_utf8_lossy(value.as_bytes());
            let _ = write!(text, ", {name}: {value}");
        }
    }
    text
}
