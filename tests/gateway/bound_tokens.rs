//! Tokens that are bound to a client certificate (RFC 8705): accepted on the connection of that
//! certificate only.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::{ClientConfig, HandshakeKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::ports;
use crate::support::provider::Provider;
use crate::support::tls::{self, Certificate};
use crate::support::tokens::{hs256, modified_claims, now};
use crate::support::upstream::Upstream;

/// A gateway with a listener that requires client certificates and another one in clear.
struct BoundTokenFixture {
    gateway: Gateway,
    upstream: Upstream,
    server: Certificate,
    own: Certificate,
    other: Certificate,
    /// A token without `cnf`.
    token: String,
}

impl BoundTokenFixture {
    fn start() -> BoundTokenFixture {
        BoundTokenFixture::start_with(|config| config)
    }

    fn start_with(vary: impl FnOnce(Config) -> Config) -> BoundTokenFixture {
        let upstream = Upstream::start();
        let (authority, own) = tls::issue("client.example");
        let (other_authority, other) = tls::issue("other.example");
        let server = tls::certificate("localhost");
        let config = Config::new(upstream.address);
        let authorities = [authority.cert, other_authority.cert].concat();
        let secure = json!({
            "certificates": [{
                "cert": config.write_beside("site.pem", &server.cert),
                "key": config.write_beside("site.key", &server.key),
            }],
            "client_ca": config.write_beside("clients.pem", authorities),
        });
        let listeners = json!([
            { "bind": config.listener(0).to_string() },
            { "bind": ports::free().to_string(), "tls": secure },
        ]);
        let gateway = Gateway::start(vary(config.set("/listeners", listeners)));
        let token = gateway.register("alice@example.com").access_token;
        BoundTokenFixture {
            gateway,
            upstream,
            server,
            own,
            other,
            token,
        }
    }

    fn bound_token(&self, cnf: &Value) -> String {
        let mut claims = modified_claims(&self.token, &json!({}));
        claims["cnf"] = cnf.clone();
        hs256(&claims)
    }

    /// A client with a certificate; connections of one client resume each other's TLS sessions.
    fn client(&self, certificate: &Certificate, alpn: &str) -> Arc<ClientConfig> {
        let mut config =
            Arc::unwrap_or_clone(tls::client_with_certificate(&self.server, certificate));
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Arc::new(config)
    }

    /// The statuses of a request on two connections of this client, HTTP/1.1. The second resumes the
    /// TLS session of the first.
    fn status_full_and_resumed(
        &self,
        certificate: &Certificate,
        path: &str,
        token: &str,
    ) -> [u16; 2] {
        let config = self.client(certificate, "http/1.1");
        let request = Request::get(path).bearer(token);
        [HandshakeKind::Full, HandshakeKind::Resumed].map(|kind| {
            let address = self.gateway.config.listener(1);
            let stream = tls::connect(address, "localhost", &config).unwrap();
            assert_eq!(stream.conn.handshake_kind(), Some(kind));
            Client::from_stream(stream).request(&request).status
        })
    }

    /// As [`Site::twice`], over HTTP/2.
    fn status_full_and_resumed_http2(
        &self,
        certificate: &Certificate,
        path: &str,
        token: &str,
    ) -> [u16; 2] {
        let config = self.client(certificate, "h2");
        let bearer = format!("Bearer {token}");
        [(); 2].map(|()| {
            let address = self.gateway.config.listener(1);
            let client = Http2::connect_tls(address, "localhost", &config);
            let (status, _) = client.request("GET", path, &[("authorization", &bearer)]);
            status
        })
    }
}

pub(crate) fn hash_of(certificate: &Certificate) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate.der))
}

#[test]
fn introspected_token_requires_its_certificate() {
    let provider = Provider::start();
    let site = BoundTokenFixture::start_with(|config| {
        let entry = provider.introspection_settings("corp");
        config.set("/tokens/introspection", json!([entry]))
    });
    let cnf = json!({ "x5t#S256": hash_of(&site.own) });
    provider.set_token("opaque-1", json!({ "sub": "ann", "cnf": cnf }));
    // Also once the response is cached.
    for _ in 0..2 {
        for (certificate, status) in [(&site.own, 200), (&site.other, 401)] {
            let statuses = site.status_full_and_resumed(certificate, "/private/a", "opaque-1");
            assert_eq!(statuses, [status; 2]);
        }
        let in_clear = Request::get("/private/a").bearer("opaque-1");
        let response = site.gateway.request(&in_clear);
        response.assert_refused(401, "TOKEN_INVALID");
    }
}

#[test]
fn bound_token_requires_its_certificate() {
    let site = BoundTokenFixture::start();
    let token = site.bound_token(&json!({ "x5t#S256": hash_of(&site.own) }));
    for path in ["/private/a", "/api/v1/sessions/current"] {
        // The first use caches the token as verified; the others must not profit from it.
        assert_eq!(
            site.status_full_and_resumed(&site.own, path, &token),
            [200; 2],
            "{path}"
        );
        assert_eq!(
            site.status_full_and_resumed_http2(&site.own, path, &token),
            [200; 2]
        );
        let before = site.upstream.requests();
        assert_eq!(
            site.status_full_and_resumed(&site.other, path, &token),
            [401; 2],
            "{path}"
        );
        assert_eq!(
            site.status_full_and_resumed_http2(&site.other, path, &token),
            [401; 2]
        );
        let request = Request::get(path).bearer(&token);
        site.gateway
            .request(&request)
            .assert_refused(401, "TOKEN_INVALID");
        let bearer = format!("Bearer {token}");
        let clear = Http2::connect(site.gateway.public);
        let (status, text) = clear.request("GET", path, &[("authorization", &bearer)]);
        assert_eq!(status, 401);
        assert!(text.contains("TOKEN_INVALID"), "{text}");
        assert_eq!(site.upstream.requests(), before);
    }
    let optional = Request::get("/optional/a").bearer(&token);
    site.gateway
        .request(&optional)
        .assert_refused(401, "TOKEN_INVALID");
    assert_eq!(
        site.status_full_and_resumed(&site.own, "/private/a", &site.token),
        [200; 2]
    );
}

#[test]
fn unsupported_binding_is_refused() {
    let site = BoundTokenFixture::start();
    let hash = hash_of(&site.own);
    for cnf in [
        Value::Null,
        json!({}),
        json!([]),
        json!(hash),
        json!({ "x5t#S256": null }),
        json!({ "x5t#S256": [hash] }),
        json!({ "x5t#S256": format!("{hash}=") }),
        json!({ "x5t#S256": &hash[1..] }),
        json!({ "x5t#s256": hash }),
        json!({ "jkt": hash }),
        json!({ "jwk": {} }),
        json!({ "x5t#S256": hash, "jkt": hash }),
        json!({ "x5t#S256": hash, "kid": "1" }),
    ] {
        let token = site.bound_token(&cnf);
        assert_eq!(
            site.status_full_and_resumed(&site.own, "/private/a", &token),
            [401; 2],
            "{cnf}"
        );
        let request = Request::get("/private/a").bearer(&token);
        site.gateway
            .request(&request)
            .assert_refused(401, "TOKEN_INVALID");
    }
    assert_eq!(site.upstream.requests(), 0);
}

#[test]
fn expired_bound_token_without_certificate_ends_no_session() {
    let site = BoundTokenFixture::start();
    let claims = modified_claims(
        &site.token,
        &json!({
            "exp": now() - 60,
            "iat": now() - 120,
            "cnf": { "x5t#S256": hash_of(&site.own) },
        }),
    );
    let expired = hs256(&claims);
    let request = Request::get("/private/a").bearer(&expired);
    site.gateway
        .request(&request)
        .assert_refused(401, "TOKEN_INVALID");
    let sign_out = Request::post("/api/v1/auth/logout").bearer(&expired);
    site.gateway.request(&sign_out);
    let alive = Request::get("/private/a").bearer(&site.token);
    assert_eq!(site.gateway.request(&alive).status, 200);
}
