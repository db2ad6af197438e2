#![expect(clippy::unwrap_used, reason = "tests")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config;
use crate::limits::Algorithm;
use crate::limits::tests::{decision, limit};
use crate::pipeline::fields::tests::list;
use crate::pipeline::header_fields::tests::added;

/// One response on a route of this YAML.
struct Returned<'a> {
    route: &'a str,
    length: LengthAction,
    has_limits: bool,
    clear_cookie: bool,
}

impl Default for Returned<'_> {
    fn default() -> Self {
        Returned {
            route: "auth: none",
            length: LengthAction::Keep,
            has_limits: false,
            clear_cookie: false,
        }
    }
}

const RECEIVED: [(&str, &str); 11] = [
    ("Content-Length", "5"),
    ("Via", "1.1 cache"),
    ("X-Request-ID", "theirs"),
    ("Set-Cookie", "a=1"),
    ("Set-Cookie", "__Host-Portcullis=stolen"),
    ("RateLimit", "theirs"),
    ("X-RateLimit-Limit", "1"),
    ("X-RateLimit-Resource", "core"),
    ("Access-Control-Allow-Origin", "*"),
    ("Vary", "Accept"),
    ("X-Secret", "1"),
];

impl Returned<'_> {
    /// The received names that pass, and the added fields as lines.
    fn head(&self) -> (String, Vec<String>) {
        let text = format!(
            "listeners: [{{bind: '127.0.0.1:1'}}]
database: {{url: 'sqlite:users.db'}}
tokens: {{signing: {{algorithm: HS256, secret: '0123456789abcdef0123456789abcdef'}}}}
upstreams: {{echo: {{servers: ['http://127.0.0.1:2']}}}}
routes: [{{name: one, match: {{prefix: /one}}, upstream: echo, {}}}]
",
            self.route
        );
        let settings = config::parse(&text, Path::new("portcullis.yaml")).unwrap();
        let settings = settings.reloadable;
        let permit = Permit {
            route: Arc::clone(settings.routes.routes().first().unwrap()),
            identity: None,
            decisions: Vec::new(),
            clear_cookie: self.clear_cookie,
            provider_token: None,
        };
        let decisions = [decision(
            limit(Algorithm::SlidingLog, 5, 1000),
            true,
            4,
            0,
            0,
        )];
        let limits = LimitHeaders::of(&decisions, || Duration::ZERO);
        let head = ClientHead {
            permit: &permit,
            request_id: &RequestId::keep_or_generate(Some(b"id")),
            via: &Via::new("us").unwrap(),
            cookie: &settings.sessions.cookie,
            origin_header: Some(b"https://app.example"),
            version: Version::HTTP_11,
            length: self.length,
            limits: limits.filter(|_| self.has_limits),
        };
        let received = list(&RECEIVED);
        let any = head.passing_kinds();
        let passing = received.iter().filter(|field| {
            let passes = head.passes(field);
            assert!(passes || !any.has(field.kind), "{field:?}");
            passes
        });
        let passing = passing.map(|field| str::from_utf8(field.name).unwrap());
        let added = added(|sink| {
            head.write(sink);
            Ok(())
        });
        let added = added.into_iter();
        (
            passing.collect::<Vec<_>>().join(" "),
            added
                .map(|(name, value)| format!("{name}: {value}"))
                .collect(),
        )
    }
}

#[test]
fn client_receives_the_upstreams_fields_and_the_gateways() {
    let (passing, added) = Returned::default().head();
    assert_eq!(
        passing,
        "Content-Length Via Set-Cookie RateLimit X-RateLimit-Limit X-RateLimit-Resource \
         Access-Control-Allow-Origin Vary X-Secret"
    );
    assert_eq!(added, ["via: 1.1 us", "x-request-id: id"]);
}

#[test]
fn limit_headers_of_the_gateway_replace_the_upstreams() {
    let response = Returned {
        has_limits: true,
        length: LengthAction::Collapse(5),
        ..Returned::default()
    };
    let (passing, added) = response.head();
    assert_eq!(
        passing,
        "Via Set-Cookie X-RateLimit-Resource Access-Control-Allow-Origin Vary X-Secret"
    );
    assert_eq!(
        added,
        [
            "content-length: 5",
            "via: 1.1 us",
            "x-request-id: id",
            "x-ratelimit-limit: 5",
            "x-ratelimit-remaining: 4",
            "x-ratelimit-reset: 0",
            "ratelimit-policy: \"per-user\";q=5;w=1",
            "ratelimit: \"per-user\";r=4;t=0"
        ]
    );
}

#[test]
fn policy_of_the_route_replaces_the_upstreams() {
    let response = Returned {
        route: "auth: none, cors: {origins: ['https://app.example']}, response_headers: \
                {set: {Access-Control-Allow-Origin: '*', Vary: Cookie, RateLimit: none}, \
                remove: [X-Secret, Via, X-RateLimit-Limit]}",
        length: LengthAction::Remove,
        has_limits: true,
        clear_cookie: true,
    };
    let (passing, added) = response.head();
    assert_eq!(passing, "Set-Cookie X-RateLimit-Resource");
    let (cookies, added): (Vec<_>, Vec<_>) = added
        .into_iter()
        .partition(|line| line.starts_with("set-cookie: "));
    assert!(!cookies.is_empty() && cookies.iter().all(|line| line.contains("Max-Age=0")));
    let mut expected = [
        "x-request-id: id",
        "x-ratelimit-remaining: 4",
        "x-ratelimit-reset: 0",
        "ratelimit-policy: \"per-user\";q=5;w=1",
        "vary: Cookie",
        "ratelimit: none",
        "vary: Origin",
        "access-control-allow-origin: https://app.example",
    ];
    let mut added: Vec<&str> = added.iter().map(String::as_str).collect();
    expected.sort_unstable();
    added.sort_unstable();
    assert_eq!(added, expected);
}
