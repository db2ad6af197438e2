//! An error response in its three formats: JSON, problem details, HTML.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use http::header::{self, HeaderValue};
use maud::html;

use super::refusal_texts::{RefusalTexts, json, problem, quote};
use super::{NO_STORE, ResponseContext, VARY_ACCEPT, write_rejection};
use crate::pipeline::fields::{FieldKind, Fields, text_of};
use crate::pipeline::header_fields::{FieldBuffer, FieldSink};
use crate::pipeline::html_page;
use crate::rejection::{Refusal, Rejection};
use crate::settings::pages::{Logo, Pages};
use crate::telemetry::request_id::RequestId;

/// The format of an error body, selected by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorFormat {
    Json,
    /// RFC 9457.
    Problem,
    Html,
    /// No body, for a front proxy that would drop it.
    Bodiless,
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

    /// The headers of every error in this format; of pages, with this logo.
    fn head(self, logo: Option<&Logo>) -> &'static RenderedFields {
        static JSON: LazyLock<RenderedFields> = LazyLock::new(|| head("application/json"));
        static PROBLEM: LazyLock<RenderedFields> =
            LazyLock::new(|| head("application/problem+json"));
        static BODILESS: LazyLock<RenderedFields> =
            LazyLock::new(|| rendered(vec![(header::CACHE_CONTROL, NO_STORE.clone())]));
        static PLAIN_PAGE: LazyLock<RenderedFields> = LazyLock::new(|| page_head(None));
        static INLINE_LOGO: LazyLock<RenderedFields> =
            LazyLock::new(|| page_head(Some(&Logo::Inline(String::new()))));
        static LINKED_LOGO: LazyLock<RenderedFields> =
            LazyLock::new(|| page_head(Some(&Logo::Path(String::new()))));
        match (self, logo) {
            (ErrorFormat::Json, _) => &JSON,
            (ErrorFormat::Problem, _) => &PROBLEM,
            (ErrorFormat::Bodiless, _) => &BODILESS,
            (ErrorFormat::Html, None) => &PLAIN_PAGE,
            (ErrorFormat::Html, Some(Logo::Inline(_))) => &INLINE_LOGO,
            (ErrorFormat::Html, Some(Logo::Path(_))) => &LINKED_LOGO,
        }
    }
}

/// Fields, and the same as lines.
struct RenderedFields {
    fields: FieldBuffer,
    lines: Vec<u8>,
}

fn head(content_type: &'static str) -> RenderedFields {
    rendered(vec![
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, NO_STORE.clone()),
        (header::VARY, VARY_ACCEPT.clone()),
    ])
}

fn page_head(logo: Option<&Logo>) -> RenderedFields {
    let mut fields = head("text/html; charset=utf-8").fields;
    let policy = HeaderValue::try_from(html_page::content_security_policy("'none'", logo));
    fields.extend(policy.map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
    rendered(fields)
}

fn rendered(fields: FieldBuffer) -> RenderedFields {
    let mut lines: Vec<u8> = Vec::new();
    for (name, value) in &fields {
        lines.add(name, value);
    }
    RenderedFields { fields, lines }
}

/// An error in a format that a client reads.
#[derive(Debug)]
pub(super) struct ErrorResponse {
    pub(super) rejection: Rejection,
    pub(super) format: ErrorFormat,
    /// Whether the challenge names what is wrong with a bearer token.
    pub(super) names_token_error: bool,
    /// For a page.
    pub(super) page: Option<Box<PageContext>>,
}

/// What a page shows beside the rejection.
#[derive(Debug, Default)]
pub(super) struct PageContext {
    /// Absent where no request was read.
    pub(super) pages: Option<Arc<Pages>>,
    /// The address of the sign-in page that it links to.
    pub(super) sign_in: Option<String>,
    /// The address of the sign-in page, beside that of the start of a sign-in that failed.
    pub(super) other_ways: Option<String>,
}

impl ErrorResponse {
    /// Writes the headers that describe the body, and those of the rejection.
    pub(super) fn write_fields(&self, context: &ResponseContext<'_>, sink: &mut dyn FieldSink) {
        let pages = self.page.as_ref().and_then(|page| page.pages.as_ref());
        let logo = pages.and_then(|pages| pages.logo.as_ref());
        let RenderedFields { fields, lines } = self.format.head(logo);
        sink.add_rendered(lines, &mut fields.iter().map(|(name, value)| (name, value)));
        write_rejection(&self.rejection, self.names_token_error, context, sink);
    }

    /// Renders the body.
    pub(super) fn write_body(&self, request_id: &RequestId, out: &mut Vec<u8>) {
        let (rejection, refusal) = (&self.rejection, self.rejection.refusal);
        let texts = RefusalTexts::of(refusal).filter(|_| rejection.own_message().is_none());
        match self.format {
            ErrorFormat::Html => {
                let (default, none) = (PageContext::default(), Pages::default());
                let context = self.page.as_deref().unwrap_or(&default);
                let pages = context.pages.as_deref().unwrap_or(&none);
                let page = page(pages, rejection, request_id.as_str(), context);
                out.extend_from_slice(page.as_bytes());
            }
            ErrorFormat::Json => {
                let made = || json(refusal, rejection.message()).into();
                let start = texts.map_or_else(made, |texts| Cow::Borrowed(&*texts.json));
                write_object(out, &start, request_id.as_bytes(), rejection);
                out.extend_from_slice(b"}}");
            }
            ErrorFormat::Problem => {
                let made = || problem(refusal, rejection.message()).into();
                let start = texts.map_or_else(made, |texts| Cow::Borrowed(&*texts.problem));
                write_object(out, &start, request_id.as_bytes(), rejection);
                write_violated_policies(out, rejection);
                out.push(b'}');
            }
            ErrorFormat::Bodiless => {}
        }
    }
}

/// Writes the members that both forms of JSON have in common. An identifier needs no escaping.
fn write_object(out: &mut Vec<u8>, start: &str, request_id: &[u8], rejection: &Rejection) {
    out.extend_from_slice(start.as_bytes());
    out.extend_from_slice(request_id);
    out.push(b'"');
    if let Some(path) = rejection.start() {
        out.extend_from_slice(b",\"start\":");
        out.extend_from_slice(quote(path).as_bytes());
    }
    if rejection.fields().is_empty() {
        return;
    }
    let fields = rejection.fields().iter();
    let fields: BTreeMap<&str, &str> = fields.map(|(name, wrong)| (&**name, &**wrong)).collect();
    // Texts always fit into JSON.
    let fields = serde_json::to_string(&fields).unwrap_or_default();
    out.extend_from_slice(b",\"fields\":");
    out.extend_from_slice(fields.as_bytes());
}

/// Writes the member of draft-ietf-httpapi-ratelimit-headers-10, where a limit was exceeded.
fn write_violated_policies(out: &mut Vec<u8>, rejection: &Rejection) {
    let mut before = ",\"violated-policies\":[";
    for name in rejection.violated_limits() {
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(quote(name).as_bytes());
        before = ",";
    }
    if before == "," {
        out.push(b']');
    }
}

/// A page for browsers, with a link to sign in where that helps.
fn page(pages: &Pages, rejection: &Rejection, request_id: &str, context: &PageContext) -> String {
    let (texts, refusal) = (&pages.texts, rejection.refusal);
    let status = refusal.status();
    let concerns_sign_in = concerns_sign_in(refusal);
    let title = match concerns_sign_in {
        true => &*texts.sign_in_failed,
        false => status.canonical_reason().unwrap_or_default(),
    };
    let own = pages.message(refusal);
    let message = own.unwrap_or(rejection.message());
    let is_repeated = message.trim_end_matches('.').eq_ignore_ascii_case(title);
    // Texts that the configuration does not replace are in English.
    let foreign = (pages.language != "en").then_some("en");
    let of_message = foreign.filter(|_| own.is_none());
    let body = html! {
        h1 lang=[foreign.filter(|_| !concerns_sign_in)] { (title) }
        @if !is_repeated {
            p lang=[of_message] dir=[of_message.map(|_| "ltr")] { (message) }
        }
        @match super::retry_after_seconds(rejection) {
            Some(1) => p { (texts.retry_soon) },
            Some(seconds) => p { (texts.retry_after.replace("{seconds}", &seconds.to_string())) },
            None => {},
        }
        @if let Some(address) = &context.sign_in {
            p {
                a .button href=(address) {
                    @if concerns_sign_in { (texts.try_again) } @else { (texts.sign_in) }
                }
            }
        }
        @if let Some(address) = &context.other_ways {
            p { a .button.plain href=(address) { (texts.other_ways) } }
        }
        p { small lang=[foreign] dir="ltr" { (refusal.code()) " " (request_id) } }
    };
    html_page::document(pages, title, &body).into_string()
}

/// Whether a rejection is the outcome of a sign-in at a provider.
fn concerns_sign_in(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::FlowInvalid
            | Refusal::SignInRefused
            | Refusal::ProviderError
            | Refusal::ProviderUnavailable
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::limits::{Algorithm, Decision, KeyPart, Limit, LimitDefinition, OnOutage};
    use crate::pipeline::fields::tests::list;
    use crate::rejection::Refusal;

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

    /// The problem details of a rejection.
    fn body(rejection: Rejection) -> String {
        body_in(ErrorFormat::Problem, rejection)
    }

    fn body_in(format: ErrorFormat, rejection: Rejection) -> String {
        let response = ErrorResponse {
            rejection,
            format,
            names_token_error: false,
            page: None,
        };
        let mut body = Vec::new();
        response.write_body(&RequestId::keep_or_generate(Some(b"id")), &mut body);
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn texts_are_escaped_in_json() {
        for own in [None, Some("a \"quoted\" \\ text\n")] {
            for format in [ErrorFormat::Json, ErrorFormat::Problem] {
                let mut rejection = Rejection::invalid_field("na\"me", "is\\wrong");
                if let Some(disclosed) = &mut rejection.disclosed {
                    disclosed.message = own;
                }
                let message = rejection.message();
                let body = body_in(format, rejection);
                let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                let (error, text) = match format {
                    ErrorFormat::Json => (&body["error"], &body["error"]["message"]),
                    _ => (&body, &body["detail"]),
                };
                assert_eq!(text, message);
                assert_eq!(error["request_id"], "id");
                assert_eq!(error["fields"]["na\"me"], "is\\wrong");
            }
        }
    }

    #[test]
    fn rate_limited_problem_names_the_violated_policies() {
        let decisions = vec![decision("per-address", true), decision("per-user", false)];
        let rejection = Rejection::from(Refusal::RateLimited).with_decisions(decisions);
        let body: serde_json::Value = serde_json::from_str(&body(rejection)).unwrap();
        let kind = body["type"].as_str().unwrap();
        assert!(kind.ends_with("#quota-exceeded"), "{kind}");
        assert_eq!(body["violated-policies"], serde_json::json!(["per-user"]));
    }

    #[test]
    fn problem_without_violated_policies_has_no_such_member() {
        let body = body(Refusal::RateLimited.into());
        assert!(!body.contains("violated-policies"), "{body}");
    }
}
