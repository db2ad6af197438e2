//! The body of an error response in its three forms: JSON, problem details, HTML.

use std::collections::BTreeMap;

use http::header::HeaderValue;
use maud::html;
use serde::Serialize;

use crate::pipeline::fields::{FieldKind, Fields, text_of};
use crate::pipeline::html_page;
use crate::rejection::{Refusal, Rejection};

/// The format of an error body, selected by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorFormat {
    Json,
    /// RFC 9457.
    Problem,
    Html,
}

impl ErrorFormat {
    /// Returns the first supported format that `Accept` names with a quality above zero; JSON when
    /// it names none.
    pub(super) fn negotiate(fields: Fields<'_>) -> ErrorFormat {
        let mut best = (ErrorFormat::Json, 0_u16);
        for value in fields.all(FieldKind::Accept) {
            for range in text_of(value).unwrap_or_default().split(',') {
                let mut parts = range.split(';');
                let Some(form) = ErrorFormat::of(parts.next().unwrap_or_default().trim()) else {
                    continue;
                };
                let quality = parts
                    .find_map(|part| part.trim().strip_prefix("q="))
                    .and_then(|q| q.parse::<f32>().ok())
                    .map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16);
                if quality > best.1 {
                    best = (form, quality);
                }
            }
        }
        best.0
    }

    /// Returns the format of a media type, whose case does not matter.
    fn of(media_type: &str) -> Option<ErrorFormat> {
        const FORMATS: [(&str, ErrorFormat); 4] = [
            ("application/json", ErrorFormat::Json),
            ("application/problem+json", ErrorFormat::Problem),
            ("text/html", ErrorFormat::Html),
            ("application/xhtml+xml", ErrorFormat::Html),
        ];
        let mut formats = FORMATS.into_iter();
        formats.find_map(|(name, format)| media_type.eq_ignore_ascii_case(name).then_some(format))
    }

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            ErrorFormat::Json => "application/json",
            ErrorFormat::Problem => "application/problem+json",
            ErrorFormat::Html => "text/html; charset=utf-8",
        })
    }

    /// Renders the body for a rejection. `sign_in` is the address of the sign-in page that a page
    /// links to.
    pub(super) fn body(
        self,
        rejection: &Rejection,
        request_id: &str,
        sign_in: Option<&str>,
    ) -> String {
        match self {
            ErrorFormat::Json => to_json(&json(rejection, request_id)),
            ErrorFormat::Problem => to_json(&problem(rejection, request_id)),
            ErrorFormat::Html => page(rejection, request_id, sign_in),
        }
    }
}

/// A page for browsers, with a link to sign in where that helps.
fn page(rejection: &Rejection, request_id: &str, sign_in: Option<&str>) -> String {
    let refusal = rejection.refusal;
    let status = refusal.status();
    let title = status.canonical_reason().unwrap_or_default();
    let message = rejection.message();
    let is_repeated = message.trim_end_matches('.').eq_ignore_ascii_case(title);
    let body = html! {
        h1 { (title) }
        @if !is_repeated {
            p { (message) }
        }
        @match super::retry_after_seconds(rejection) {
            Some(1) => p { "Please try again in 1 second." },
            Some(seconds) => p { "Please try again in " (seconds) " seconds." },
            None => {},
        }
        @if let Some(address) = sign_in {
            p { a href=(address) { "Sign in" } }
        }
        p { small { (refusal.code()) " " (request_id) } }
    };
    html_page::document(&status.to_string(), &body).into_string()
}

/// Members that only some errors have are omitted from the others.
#[derive(Serialize)]
struct ErrorEnvelope<'a> {
    success: bool,
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'static str,
    message: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<&'a str, &'a str>>,
}

/// RFC 9457, with the members of draft-ietf-httpapi-ratelimit-headers-10.
#[derive(Serialize)]
struct ProblemDetails<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'static str,
    code: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<&'a str, &'a str>>,
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    violated_policies: Vec<&'a str>,
}

fn json<'a>(rejection: &'a Rejection, request_id: &'a str) -> ErrorEnvelope<'a> {
    ErrorEnvelope {
        success: false,
        error: ErrorBody {
            code: rejection.refusal.code(),
            message: rejection.message(),
            request_id,
            fields: fields(rejection),
        },
    }
}

fn problem<'a>(rejection: &'a Rejection, request_id: &'a str) -> ProblemDetails<'a> {
    let refusal = rejection.refusal;
    ProblemDetails {
        kind: match refusal {
            Refusal::RateLimited => {
                "https://iana.org/assignments/http-problem-types#quota-exceeded"
            }
            Refusal::StoreUnavailable | Refusal::Overloaded => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            }
            _ => "about:blank",
        },
        title: refusal.status().canonical_reason().unwrap_or_default(),
        status: refusal.status().as_u16(),
        detail: rejection.message(),
        code: refusal.code(),
        request_id,
        fields: fields(rejection),
        violated_policies: rejection.violated_limits().collect(),
    }
}

fn fields(rejection: &Rejection) -> Option<BTreeMap<&str, &str>> {
    let fields = rejection.fields().iter();
    let fields: BTreeMap<&str, &str> = fields.map(|(name, wrong)| (&**name, &**wrong)).collect();
    (!fields.is_empty()).then_some(fields)
}

fn to_json(body: &impl Serialize) -> String {
    // Strings and numbers always fit into JSON.
    serde_json::to_string(body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::limits::{Algorithm, Decision, KeyPart, Limit, LimitDefinition, OnOutage};
    use crate::pipeline::fields::tests::list;

    #[test]
    fn format_follows_accept_quality() {
        for (accept, form) in [
            ("*/*", ErrorFormat::Json),
            ("", ErrorFormat::Json),
            ("application/problem+json", ErrorFormat::Problem),
            (
                "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
                ErrorFormat::Html,
            ),
            ("text/html;q=0.5, application/json", ErrorFormat::Json),
            ("Text/HTML ; q=0.5", ErrorFormat::Html),
            (
                "text/html;q=0, application/problem+json;q=0.1",
                ErrorFormat::Problem,
            ),
        ] {
            let list = list(&[("Accept", accept)]);
            assert_eq!(ErrorFormat::negotiate(Fields::new(&list)), form, "{accept}");
        }
    }

    fn decision(limit: &str, allowed: bool) -> Decision {
        Decision {
            limit: Arc::new(Limit::new(LimitDefinition {
                name: limit.into(),
                algorithm: Algorithm::SlidingWindow,
                limit: 5,
                window: Duration::from_secs(60),
                key: vec![KeyPart::Ip],
                roles: vec![],
                except_roles: vec![],
                on_outage: OnOutage::Local,
                shadow: false,
                leased: false,
            })),
            allowed,
            remaining: 0,
            reset_after: Duration::from_secs(60),
            retry_after: Duration::ZERO,
            degraded: false,
        }
    }

    #[test]
    fn rate_limited_problem_names_the_violated_policies() {
        let decisions = vec![decision("per-address", true), decision("per-user", false)];
        let rejection = Rejection::from(Refusal::RateLimited).with_decisions(decisions);
        let body = ErrorFormat::Problem.body(&rejection, "id", None);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let kind = body["type"].as_str().unwrap();
        assert!(kind.ends_with("#quota-exceeded"), "{kind}");
        assert_eq!(body["violated-policies"], serde_json::json!(["per-user"]));
    }

    #[test]
    fn problem_without_violated_policies_has_no_such_member() {
        let rejection = Refusal::RateLimited.into();
        let body = ErrorFormat::Problem.body(&rejection, "id", None);
        assert!(!body.contains("violated-policies"), "{body}");
    }
}
