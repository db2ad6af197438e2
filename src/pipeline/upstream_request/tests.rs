#![expect(clippy::unwrap_used, reason = "tests")]
use std::path::Path;
use std::sync::Arc;

use http::Version;

use super::identity::encode_visible;
use super::{PeerOrigin, UpstreamHead, UpstreamRequest};
use crate::auth::token::{Claims, TokenSource};
use crate::config;
use crate::pipeline::admission::{CredentialKind, Identity, Permit, Principal};
use crate::pipeline::assertions::Assertions;
use crate::pipeline::facts::ClientOrigin;
use crate::pipeline::fields::Fields;
use crate::pipeline::fields::tests::list;
use crate::pipeline::header_fields::tests::added;
use crate::pipeline::via::Via;
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_id::RequestId;

const REQUEST_ID: &str = "0af7651916cd43dd8448eb211c80319c";

#[test]
fn identity_values_are_percent_encoded() {
    assert_eq!(encode_visible("a,b"), "a,b");
    assert_eq!(encode_visible("é x\r\n"), "%C3%A9%20x%0D%0A");
}

/// A configuration with one route of this YAML.
fn settings(route: &str) -> Settings {
    let text = format!(
        "listeners: [{{bind: '127.0.0.1:1'}}]
database: {{url: 'sqlite:users.db'}}
tokens: {{signing: {{algorithm: HS256, secret: '0123456789abcdef0123456789abcdef'}}}}
upstreams: {{echo: {{servers: ['http://127.0.0.1:2']}}}}
routes: [{{name: one, match: {{prefix: /one}}, upstream: echo, {route}}}]
"
    );
    config::parse(&text, Path::new("portcullis.yaml")).unwrap()
}

fn identity() -> Identity {
    let claims = Claims {
        source: TokenSource::Trusted(0),
        issuer: "https://idp.example".to_owned(),
        user: "ann".to_owned(),
        session: None,
        blacklist_key: "t".to_owned(),
        issued_at: None,
        expires_at: 0,
        email: Some("ann@example.com".to_owned()),
        roles: vec!["a,b".to_owned(), "c".to_owned()],
        scopes: Vec::new(),
        certificate: None,
    };
    Identity::new(
        Principal::Token(Arc::new(claims)),
        None,
        CredentialKind::Bearer,
        0,
    )
}

/// One request, and what the upstream receives of it: the names that pass, and the added fields as
/// lines.
struct Forwarded<'a> {
    route: &'a str,
    fields: &'a [(&'a str, &'a str)],
    identity: Option<Identity>,
    chain: &'a [&'a str],
    version: Version,
    server_host: Option<&'a str>,
}

impl Default for Forwarded<'_> {
    fn default() -> Self {
        Forwarded {
            route: "auth: none",
            fields: &[],
            identity: None,
            chain: &[],
            version: Version::HTTP_11,
            server_host: None,
        }
    }
}

impl Forwarded<'_> {
    fn head(&self) -> (Vec<&str>, Vec<String>) {
        let settings = settings(self.route).reloadable;
        let permit = Permit {
            route: Arc::clone(settings.routes.routes().first().unwrap()),
            identity: self.identity.clone(),
            decisions: Vec::new(),
            clear_cookie: false,
            provider_token: None,
        };
        let chain: Vec<_> = self.chain.iter().map(|ip| ip.parse().unwrap()).collect();
        let input = UpstreamRequest {
            settings: &settings,
            assertions: &Assertions::new(Arc::clone(&settings.tokens), &Metrics::new().unwrap()),
            via: &Via::new("us").unwrap(),
            version: self.version,
            origin: &ClientOrigin {
                ip: [203, 0, 113, 5].into(),
                peer_trusted: !chain.is_empty(),
                chain,
                https: true,
                host: None,
            },
            peer: &PeerOrigin::new([203, 0, 113, 5].into(), true),
            host: "shop.example",
            path: "/one/two",
            request_id: &RequestId::keep_or_generate(Some(REQUEST_ID.as_bytes())),
            server_host: self.server_host,
            carries_trailers: self.version == Version::HTTP_2,
        };
        let fields = list(self.fields);
        let head = UpstreamHead::new(&input, &permit, Fields::new(&fields)).unwrap();
        let passing = fields.iter().filter(|field| head.passes(field));
        let passing = passing.map(|field| str::from_utf8(field.name).unwrap());
        let added = added(|sink| head.write(sink)).into_iter();
        let added = added.filter(|(name, _)| name != "traceparent");
        (
            passing.collect(),
            added
                .map(|(name, value)| format!("{name}: {value}"))
                .collect(),
        )
    }
}

const ORIGIN: [&str; 3] = [
    "x-forwarded-for: 203.0.113.5",
    "x-forwarded-proto: https",
    "x-forwarded-host: shop.example",
];

/// The fields that every request gets, with `before` in front of them.
fn with_origin<'a>(before: &[&'a str], via: &'a str, after: &[&'a str]) -> Vec<&'a str> {
    let id = "x-request-id: 0af7651916cd43dd8448eb211c80319c";
    [before, &ORIGIN, &[id, via], after].concat()
}

#[test]
fn upstream_receives_the_clients_fields_and_the_gateways() {
    let request = Forwarded {
        fields: &[
            ("Host", "shop.example"),
            ("Accept", "*/*"),
            ("X-Two", "1"),
            ("x-two", "2"),
            ("Via", "1.0 fred"),
            ("Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic YTpi"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil.example"),
            ("Forwarded", "for=10.0.0.1"),
            ("X-Request-ID", "theirs"),
            ("X-User-Id", "root"),
            ("x.user.id", "root"),
            ("Cookie", "a=1"),
            ("Authorization", "Bearer x"),
            ("Traceparent", "00-0-0-0"),
            ("Tracestate", "a=1"),
        ],
        ..Forwarded::default()
    };
    let (passing, added) = request.head();
    let expected = [
        "Host",
        "Accept",
        "X-Two",
        "x-two",
        "Via",
        "Cookie",
        "Authorization",
    ];
    assert_eq!(passing, expected);
    assert_eq!(added, with_origin(&[], "via: 1.1 us", &[]));
}

#[test]
fn identity_is_written_last() {
    let request = Forwarded {
        route: "auth: required",
        fields: &[
            ("host", "shop.example"),
            ("Authorization", "Bearer x"),
            ("Cookie", "a=1; __Host-portcullis=2; b=3"),
            ("X-User-Email", "root@example.com"),
        ],
        identity: Some(identity()),
        ..Forwarded::default()
    };
    let (passing, added) = request.head();
    assert_eq!(passing, ["host"]);
    let identity = [
        "x-user-id: ann",
        "x-user-email: ann@example.com",
        "x-user-roles: a%2Cb,c",
    ];
    let cookie = ["cookie: a=1; b=3"];
    assert_eq!(added, with_origin(&cookie, "via: 1.1 us", &identity));
}

#[test]
fn route_replaces_fields_of_the_client() {
    let edits = "{set: {X-Api-Key: ours, Authorization: Basic YTpi}, remove: [Cookie, Via]}";
    let route = format!("auth: none, strip_prefix: true, request_headers: {edits}");
    let request = Forwarded {
        route: &route,
        fields: &[
            ("Host", "shop.example"),
            ("x-api-key", "theirs"),
            ("X.Api.Key", "theirs"),
            ("Authorization", "Basic other"),
            ("Cookie", "portcullis=1; a=1"),
            ("Via", "1.0 fred"),
            ("X-Forwarded-Prefix", "/theirs"),
        ],
        server_host: Some("server:8080"),
        ..Forwarded::default()
    };
    let (passing, added) = request.head();
    assert!(passing.is_empty(), "{passing:?}");
    let mut added: Vec<&str> = added.iter().map(String::as_str).collect();
    let prefix = added
        .iter()
        .position(|it| *it == "x-forwarded-prefix: /one");
    added.remove(prefix.unwrap());
    let mut own = [
        "x-api-key: ours",
        "authorization: Basic YTpi",
        "host: server:8080",
    ];
    own.sort_unstable();
    let mut first = added.drain(..3).collect::<Vec<_>>();
    first.sort_unstable();
    assert_eq!(first, own);
    assert_eq!(added, with_origin(&[], "via: 1.1 us", &[]));
}

#[test]
fn trusted_peer_extends_the_chain_and_the_prefix() {
    let request = Forwarded {
        route: "auth: none, strip_prefix: true",
        fields: &[
            ("Host", "shop.example"),
            ("X-Forwarded-Prefix", "/before/"),
            ("X-Forwarded-Port", "8443"),
            ("X-Forwarded-For", "198.51.100.7"),
        ],
        chain: &["198.51.100.7", "203.0.113.5"],
        ..Forwarded::default()
    };
    let (passing, added) = request.head();
    assert_eq!(passing, ["Host", "X-Forwarded-Port"]);
    let both = [
        "x-forwarded-for: 198.51.100.7, 203.0.113.5",
        "x-forwarded-prefix: /before/one",
    ];
    for line in both {
        assert!(added.iter().any(|it| it == line), "{line}: {added:?}");
    }
}

#[test]
fn http2_request_gets_a_host_and_keeps_te() {
    let request = Forwarded {
        fields: &[
            ("te", "trailers"),
            ("content-length", "5"),
            ("content-length", "5"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ],
        version: Version::HTTP_2,
        ..Forwarded::default()
    };
    let (passing, added) = request.head();
    assert_eq!(passing, ["te"]);
    let before = [
        "cookie: a=1; b=2",
        "content-length: 5",
        "host: shop.example",
    ];
    assert_eq!(added, with_origin(&before, "via: 2 us", &[]));
}
