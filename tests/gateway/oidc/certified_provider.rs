//! The example: npm `oidc-provider`, whose conformance is certified, and the configuration beside it.

use serde_json::{Value, json};
use url::Url;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::npm_provider::NpmProvider;
use crate::support::ports;
use crate::support::visitor::{Visit, Visitor};
use crate::support::wait::{PROPAGATION_DEADLINE, eventually, within};

/// The example with a visitor.
struct Example {
    provider: NpmProvider,
    gateway: Gateway,
    visitor: Visitor,
}

impl Example {
    fn start() -> Option<Example> {
        let (provider, gateway) = NpmProvider::start_with_gateway()?;
        Some(Example {
            provider,
            gateway,
            visitor: Visitor::new(),
        })
    }

    fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.public)
    }

    fn open(&mut self, path: &str) -> Visit {
        let address = self.at(path);
        self.visitor.open(&address)
    }

    /// Opens a page that needs a session and returns the provider's sign-in page.
    fn open_form(&mut self, path: &str) -> Visit {
        let form = self.open(path);
        assert!(form.url.path().starts_with("/interaction/"), "{form:?}");
        assert_eq!(form.url.host_str(), Some("localhost"));
        form
    }

    fn enter(&mut self, form: &Visit, user: &str) -> Visit {
        let password = format!("{user}-password");
        let fields = [("login", user), ("password", &password), ("code", "123456")];
        self.visitor.submit(&form.url, &fields)
    }

    fn sign_in(&mut self, user: &str, path: &str) -> Visit {
        let form = self.open_form(path);
        let page = self.enter(&form, user);
        page.response.assert_ok();
        page
    }

    fn session(&self) -> Value {
        let cookie = self.visitor.session_cookie().unwrap();
        let request = Request::get("/api/v1/sessions/current").cookie(&cookie);
        self.gateway.request(&request).data()
    }

    /// Ends the session of the provider on the page that asks whether to.
    fn confirm_sign_out(&mut self, page: &Visit) -> Visit {
        let (action, mut fields) = page.form();
        fields.push(("logout".to_owned(), "yes".to_owned()));
        let fields: Vec<_> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
        self.visitor.submit(&action, &fields)
    }

    fn await_ended(&self, cookie: &str) {
        within(PROPAGATION_DEADLINE, "the session has ended", || {
            let response = self
                .gateway
                .request(&Request::get("/private").cookie(cookie));
            (response.status == 401).then_some(())
        });
    }
}

/// A page of a sign-in that failed, reached without going round.
#[track_caller]
fn assert_failed(page: &Visit, status: u16, code: &str) -> Url {
    let text = page.response.text();
    assert_eq!(page.response.status, status, "{text}");
    assert!(
        text.contains("Sign-in failed") && text.contains(code),
        "{text}"
    );
    page.link("/auth/start/example")
        .expect("a link that starts again")
}

#[test]
fn sign_in_returns_to_the_page() {
    let Some(mut example) = Example::start() else {
        return;
    };
    let page = example.sign_in("ann", "/private/orders?from=1&to=%2F2");
    assert_eq!(
        page.url.as_str(),
        example.at("/private/orders?from=1&to=%2F2")
    );
    assert_eq!(page.visits("/api/v1/auth/callback/example"), 1);
    let text = page.response.text();
    assert!(text.contains("Signed in as example:ann"), "{text}");
    assert!(
        text.contains("ann@example.com") && text.contains("employee,admin"),
        "{text}"
    );
    example.open("/admin").response.assert_ok();
    let session = example.session();
    assert_eq!(session["provider"], "example", "{session}");
    assert_eq!(session["acr"], "urn:example:password", "{session}");
    assert_eq!(session["amr"], json!(["pwd"]), "{session}");
    assert!(session["authenticated_at"].is_string(), "{session}");
    // Guests have no role that this configuration knows.
    example.visitor = Visitor::new();
    example.sign_in("bob", "/private");
    assert_eq!(example.open("/admin").response.status, 403);
}

#[test]
fn refusal_of_the_user_ends_on_a_page() {
    let Some(mut example) = Example::start() else {
        return;
    };
    let form = example.open_form("/private/a");
    let refused = example.visitor.submit(&form.url, &[("cancel", "1")]);
    let again = assert_failed(&refused, 403, "SIGN_IN_REFUSED");
    assert_eq!(refused.visits("/api/v1/auth/callback/example"), 1);
    assert_eq!(example.visitor.session_cookie(), None);
    let form = example.visitor.open(again.as_str());
    let page = example.enter(&form, "ann");
    assert_eq!(page.url.path(), "/private/a");
    page.response.assert_ok();
}

#[test]
fn sign_out_ends_the_session_of_the_provider_too() {
    let Some(mut example) = Example::start() else {
        return;
    };
    example.sign_in("ann", "/private");
    let cookie = example.visitor.session_cookie().unwrap();
    let page = example.open("/api/v1/sign-out");
    let (action, fields) = page.form();
    let fields: Vec<_> = fields.iter().map(|(n, v)| (&**n, &**v)).collect();
    let asked = example.visitor.submit(&action, &fields);
    assert_eq!(asked.url.path(), "/session/end", "{asked:?}");
    let private = Request::get("/private").cookie(&cookie);
    example
        .gateway
        .request(&private)
        .assert_refused(401, "SESSION_REVOKED");
    let page = example.confirm_sign_out(&asked);
    assert_eq!(page.url.path(), "/api/v1/sign-out");
    let text = page.response.text();
    assert!(text.contains("You are signed out"), "{text}");
    // The provider does not remember its user any more.
    example.open_form("/private");
}

#[test]
fn logout_at_the_provider_ends_the_session() {
    let Some(mut example) = Example::start() else {
        return;
    };
    example.sign_in("ann", "/private");
    let cookie = example.visitor.session_cookie().unwrap();
    let end = format!("{}/session/end", example.provider.issuer());
    let asked = example.visitor.open(&end);
    example.confirm_sign_out(&asked);
    example.await_ended(&cookie);
}

#[test]
fn step_up_asks_for_the_second_factor() {
    let Some(mut example) = Example::start() else {
        return;
    };
    example.sign_in("ann", "/private");
    let form = example.open_form("/secure/report");
    assert!(form.response.text().contains("Code"), "{form:?}");
    let page = example.enter(&form, "ann");
    page.response.assert_ok();
    assert_eq!(page.url.path(), "/secure/report");
    assert_eq!(example.session()["acr"], "urn:example:mfa");
}

#[test]
fn strictest_settings_of_a_client_sign_in() {
    let config = Config::new(ports::free());
    let port = config.listener(0).port();
    let client = json!({
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks_uri": format!("http://127.0.0.1:{port}/api/v1/auth/jwks/example"),
        "require_pushed_authorization_requests": true,
        "authorization_signed_response_alg": "PS256",
        "id_token_signed_response_alg": "ES384",
    });
    let Some(provider) = NpmProvider::start_for(&[port], client) else {
        return;
    };
    let key = include_str!("../../../src/auth/token/testdata/ec.pem");
    let key = config.write_beside("client.pem", key);
    let settings = format!(
        "client_auth: private_key_jwt\n      client_key: {{ algorithm: ES256, key_file: {key:?} }}\n      \
         algorithms: [ES384, PS256]\n      response_mode: jwt\n      par: true\n      scopes:"
    );
    let gateway = provider.start_gateway_with(config, |text| {
        let lines = text.lines();
        let lines = lines.filter(|line| !line.trim_start().starts_with("client_secret:"));
        let text: Vec<&str> = lines.collect();
        text.join("\n").replacen("scopes:", &settings, 1)
    });
    let mut example = Example {
        provider,
        gateway,
        visitor: Visitor::new(),
    };
    let form = example.open_form("/private/a");
    let request = form.hop("/auth").unwrap().query().unwrap();
    assert!(request.contains("request_uri="), "{request}");
    assert!(!request.contains("nonce="), "{request}");
    let page = example.enter(&form, "ann");
    page.response.assert_ok();
    assert_eq!(page.url.path(), "/private/a");
    let callback = page.hop("/api/v1/auth/callback/").unwrap();
    let names: Vec<_> = callback.query_pairs().map(|(name, _)| name).collect();
    assert_eq!(names, ["response"]);
    assert_eq!(example.session()["provider"], "example");
}

#[test]
fn provider_may_be_down_between_any_two_steps() {
    let config = Config::new(ports::free());
    let Some(mut provider) = NpmProvider::start(&[config.listener(0).port()]) else {
        return;
    };
    // Before its metadata was ever available.
    provider.kill();
    let gateway = provider.start_gateway(config);
    let mut example = Example {
        provider,
        gateway,
        visitor: Visitor::new(),
    };
    let refused = example.open("/private/a");
    let again = assert_failed(&refused, 503, "PROVIDER_UNAVAILABLE");
    refused.response.numeric_header("retry-after");
    let ready = Request::get("/ready").send(example.gateway.admin);
    assert_eq!(ready.status, 200, "{}", ready.text());
    example.provider.restart();
    // Metadata is fetched at most once per second.
    let form = eventually("the provider's page opens", || {
        let form = example.visitor.open(again.as_str());
        form.url.path().starts_with("/interaction/").then_some(form)
    });
    // While the user reads its page.
    example.provider.kill();
    example.provider.restart();
    // Between its response and the callback.
    let fields = [("login", "ann"), ("password", "ann-password")];
    let is_callback = |url: &Url| url.path().contains("/auth/callback/");
    let resumed = example
        .visitor
        .submit_until(&form.url, &fields, is_callback);
    let callback = resumed.hops.last().unwrap().clone();
    assert!(is_callback(&callback), "{resumed:?}");
    example.provider.kill();
    let refused = example.visitor.open(callback.as_str());
    assert_eq!(refused.hops.len(), 1, "{refused:?}");
    let again = assert_failed(&refused, 503, "PROVIDER_UNAVAILABLE");
    assert_eq!(example.visitor.session_cookie(), None);
    example.provider.restart();
    // The provider knows the user by now.
    let page = example.visitor.open(again.as_str());
    page.response.assert_ok();
    assert_eq!(page.url.path(), "/private/a");
    // Afterwards.
    example.provider.kill();
    let cookie = example.visitor.session_cookie().unwrap();
    let current = Request::get("/api/v1/sessions/current").cookie(&cookie);
    example.gateway.request(&current).assert_ok();
    example.provider.restart();
    example.open("/private").response.assert_ok();
}
