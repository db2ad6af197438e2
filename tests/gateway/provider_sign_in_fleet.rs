//! Sign-in at a provider in a fleet, over HTTP/2, and while the store is down.

use serde_json::json;

use super::provider_sign_in::{CALLBACK, Site, site_config};
use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::postgres::Postgres;
use crate::support::provider::{Endpoint, Provider, User};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;

/// Two gateways over Redis and PostgreSQL.
struct Fleet {
    // Fields go in this order: the gateways before what they use.
    one: Gateway,
    two: Gateway,
    redis: Redis,
    provider: Provider,
    _upstream: Upstream,
}

impl Fleet {
    fn start(is_durable: bool) -> Fleet {
        let (redis, provider, upstream) = (Redis::start(), Provider::start(), Upstream::start());
        let server = Postgres::server();
        let database = server.database();
        let config = || {
            let config = site_config(&upstream)
                .store(&redis.url())
                .postgres(server.address, &database)
                .set("/sessions/durable", json!(is_durable));
            provider.configure(config)
        };
        Fleet {
            one: Gateway::start(config()),
            two: Gateway::start(config()),
            redis,
            provider,
            _upstream: upstream,
        }
    }
}

#[test]
fn flow_of_one_gateway_ends_at_another() {
    let fleet = Fleet::start(false);
    let keys = || {
        let mut keys = fleet.redis.keys();
        keys.retain(|key| !key.contains("fleet"));
        keys
    };
    let before = keys();
    let mut visitor = Visitor::new();
    let start = fleet.provider.start_url(&fleet.one, "/private/a");
    let callback = visitor.follow(&start, |url| url.path() == CALLBACK);
    let callback = callback.hops.last().unwrap().clone();
    // Nothing but the counter of attempts.
    let written: Vec<String> = keys()
        .into_iter()
        .filter(|key| !before.contains(key))
        .collect();
    assert!(written.len() <= 1, "{written:?}");
    // Before the store knows of a flow, a dump of it has none of its secrets.
    let dump = fleet.redis.dump();
    for secret in fleet.provider.secrets() {
        assert!(!dump.contains(&secret));
    }
    let target = format!("{}?{}", callback.path(), callback.query().unwrap());
    let flow = visitor.cookie_header(&callback);
    let host = callback.authority().to_owned();
    let request = Request::get(&target).header("Host", &host).cookie(&flow);
    let back = fleet.two.request(&request);
    assert_eq!(
        (back.status, back.header("location")),
        (303, Some("/private/a"))
    );
    let cookies = back.all("set-cookie");
    let session = cookies
        .iter()
        .find(|it| it.starts_with("portcullis="))
        .unwrap();
    let pair = session.split(';').next().unwrap();
    for gateway in [&fleet.one, &fleet.two] {
        let echo = gateway
            .request(&Request::get("/private").cookie(pair))
            .echo();
        assert!(echo.header("x-user-id").unwrap().starts_with("corp:"));
    }
    // The flow is over on every gateway.
    let again = fleet.one.request(&request);
    assert_ne!(again.header("location"), Some("/private/a"));
    assert_eq!(again.status, 400, "{again:?}");
    assert_eq!(fleet.provider.exchanges("authorization_code"), 1);
}

#[test]
fn code_is_not_redeemed_while_the_store_is_down() {
    for is_durable in [false, true] {
        let mut fleet = Fleet::start(is_durable);
        let mut visitor = Visitor::new();
        let start = fleet.provider.start_url(&fleet.one, "/private/a");
        let callback = visitor.follow(&start, |url| url.path() == CALLBACK);
        let callback = callback.hops.last().unwrap().clone();
        fleet.redis.kill();
        let back = visitor.get(&callback);
        if is_durable {
            assert_eq!(back.header("location"), Some("/private/a"), "{back:?}");
            assert!(visitor.session_cookie().is_some());
        } else {
            assert_eq!(back.status, 503);
            assert!(back.text().contains("STORE_UNAVAILABLE"), "{}", back.text());
            assert!(back.header("retry-after").is_some());
            assert!(fleet.provider.received(Endpoint::Token).is_empty());
            assert!(visitor.cookies("flow").is_empty());
        }
    }
}

#[test]
fn sign_in_works_over_http2() {
    let site = Site::start();
    site.provider.set_user(User::new("ann"));
    let client = Http2::connect(site.gateway.public);
    let browser = [
        ("accept", "text/html"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    let start = client.open("GET", "/private/a?b=c", &browser, b"").unwrap();
    assert_eq!(start.status, 303);
    let text = |name: &str| start.headers.get(name).unwrap().to_str().unwrap();
    let flow = text("set-cookie").split(';').next().unwrap();
    let location = url::Url::parse(text("location")).unwrap();
    let back = Visitor::new().get(&location);
    let callback = url::Url::parse(back.header("location").unwrap()).unwrap();
    let target = format!("{}?{}", callback.path(), callback.query().unwrap());
    let fields = [("accept", "text/html"), ("cookie", flow)];
    let signed_in = client.open("GET", &target, &fields, b"").unwrap();
    assert_eq!(signed_in.status, 303, "{:?}", signed_in.headers);
    assert_eq!(signed_in.headers["location"], "/private/a?b=c");
    let cookies = signed_in.headers.get_all("set-cookie").iter();
    let mut cookies = cookies.map(|it| it.to_str().unwrap());
    let session = cookies.find(|it| it.starts_with("portcullis=")).unwrap();
    let pair = session.split(';').next().unwrap();
    let (status, body) = client.request("GET", "/private", &[("cookie", pair)]);
    assert_eq!(status, 200);
    assert!(body.contains("corp:ann"), "{body}");
    // A program is not redirected.
    let (status, _) = client.request("GET", "/private", &[]);
    assert_eq!(status, 401);
}
