//! Providers that post their response (`response_mode: form_post`): a browser sends only the cookie of the
//! flow with it.

use serde_json::json;
use url::Url;

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::provider::{Provider, User};
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;

struct Site {
    gateway: Gateway,
    provider: Provider,
    _upstream: Upstream,
}

impl Site {
    fn start() -> Site {
        let (provider, upstream) = (Provider::start(), Upstream::start());
        let mut config = provider.configure(Config::new(upstream.address));
        for (key, value) in [
            ("/identity/providers/corp/response_mode", json!("form_post")),
            ("/identity/providers/corp/users", json!("database")),
            ("/identity/builtin/registration", json!("closed")),
            ("/sessions/cookie/secure", json!(true)),
        ] {
            config.put(key, value);
        }
        Site {
            gateway: Gateway::start(config),
            provider,
            _upstream: upstream,
        }
    }

    /// Goes from the start of a flow to the provider, and posts its response with the flow's cookie alone.
    fn finish(&self, start: &Response) -> Response {
        assert_eq!(start.status, 303, "{}", start.text());
        let flow = cookie(start, "flow");
        let is_callback = |url: &Url| url.path().contains("/auth/callback/");
        let visit = Visitor::new().follow(start.header("location").unwrap(), is_callback);
        let (callback, fields) = visit.form();
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        let body = body.extend_pairs(fields).finish();
        let posted = Request::post(callback.path())
            .header("Host", callback.authority())
            .header("Origin", &self.provider.issuer)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .cookie(&flow)
            .body(body);
        self.gateway.request(&posted)
    }
}

/// Name and value of a cookie that a response sets.
#[track_caller]
fn cookie(response: &Response, name: &str) -> String {
    let lines = response.all("set-cookie");
    let line = lines.iter().find(|line| line.contains(name)).unwrap();
    line.split(';').next().unwrap().to_owned()
}

#[test]
fn posted_response_signs_in() {
    let site = Site::start();
    let start = Request::get("/api/v1/auth/start/corp?return_to=/private/a");
    let back = site.finish(&site.gateway.request(&start));
    let target = (back.status, back.header("location"));
    assert_eq!(target, (303, Some("/private/a")), "{}", back.text());
    let session = cookie(&back, "portcullis=");
    let page = site
        .gateway
        .request(&Request::get("/private/a").cookie(&session));
    assert_eq!(page.status, 200);
}

#[test]
fn posted_response_links_an_identity() {
    let site = Site::start();
    let body = json!({ "email": "bob@example.com", "password": PASSWORD });
    let created = site
        .gateway
        .admin(Request::post("/admin/users").json(&body));
    let user = created.data()["id"].as_str().unwrap().to_owned();
    let login = Request::post("/api/v1/auth/login").json(&body);
    let session = cookie(&site.gateway.request(&login), "portcullis=");
    let link = || {
        let link = Request::post("/api/v1/auth/link/corp?return_to=/private/linked");
        site.gateway.request(&link.cookie(&session).same_origin())
    };
    site.provider.set_user(User::new("b"));
    let back = site.finish(&link());
    let target = (back.status, back.header("location"));
    assert_eq!(target, (303, Some("/private/linked")), "{}", back.text());
    let path = format!("/admin/users/{user}/identities");
    let linked = site.gateway.admin(Request::get(&path)).data();
    assert_eq!(linked["identities"][0]["subject"], "b");
    // Not after the session has ended.
    let start = link();
    let sign_out = Request::post("/api/v1/auth/logout").cookie(&session);
    let sign_out = site.gateway.request(&sign_out.same_origin());
    assert_eq!(sign_out.status, 204);
    site.provider.set_user(User::new("c"));
    assert_eq!(site.finish(&start).status, 400);
}
