//! Tokens that are bound to a client certificate (RFC 8705): on the connection of that certificate
//! they are accepted, anywhere else they are nothing.

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
use crate::support::tls::{self, Certificate};
use crate::support::tokens::{hs256, now, varied};
use crate::support::upstream::Upstream;

/// A gateway with a listener that requires client certificates and another one in clear.
struct Site {
    gateway: Gateway,
    upstream: Upstream,
    server: Certificate,
    own: Certificate,
    other: Certificate,
    /// A token without `cnf`.
    token: String,
}

impl Site {
    fn start() -> Site {
        let upstream = Upstream::start();
        let (authority, own) = tls::issued("client.example");
        let (other_authority, other) = tls::issued("other.example");
        let server = tls::certificate("localhost");
        let config = Config::new(upstream.address);
        let authorities = [authority.cert, other_authority.cert].concat();
        let secure = json!({
            "certificates": [{
                "cert": config.beside("site.pem", &server.cert),
                "key": config.beside("site.key", &server.key),
            }],
            "client_ca": config.beside("clients.pem", authorities),
        });
        let listeners = json!([
            { "bind": config.listener(0).to_string() },
            { "bind": ports::free().to_string(), "tls": secure },
        ]);
        let gateway = Gateway::start(config.set("/listeners", listeners));
        let token = gateway.register("alice@example.com").access_token;
        Site {
            gateway,
            upstream,
            server,
            own,
            other,
            token,
        }
    }

    fn bound(&self, cnf: &Value) -> String {
        let mut claims = varied(&self.token, &json!({}));
        claims["cnf"] = cnf.clone();
        hs256(&claims)
    }

    /// A client with a certificate; connections of one client resume each other's TLS sessions.
    fn client(&self, certificate: &Certificate, alpn: &str) -> Arc<ClientConfig> {
        let mut config = Arc::unwrap_or_clone(tls::client_showing(&self.server, certificate));
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Arc::new(config)
    }

    /// The statuses of a request on two connections of this client, HTTP/1.1. The second resumes the
    /// TLS session of the first.
    fn twice(&self, certificate: &Certificate, path: &str, token: &str) -> [u16; 2] {
        let config = self.client(certificate, "http/1.1");
        let request = Request::get(path).bearer(token);
        [HandshakeKind::Full, HandshakeKind::Resumed].map(|kind| {
            let address = self.gateway.config.listener(1);
            let stream = tls::connect(address, "localhost", &config).unwrap();
            assert_eq!(stream.conn.handshake_kind(), Some(kind));
            Client::over(stream).ask(&request).status
        })
    }

    /// As [`Site::twice`], over HTTP/2.
    fn twice_http2(&self, certificate: &Certificate, path: &str, token: &str) -> [u16; 2] {
        let config = self.client(certificate, "h2");
        let bearer = format!("Bearer {token}");
        [(); 2].map(|()| {
            let address = self.gateway.config.listener(1);
            let client = Http2::connect_tls(address, "localhost", &config);
            let (status, _) = client.ask("GET", path, &[("authorization", &bearer)]);
            status
        })
    }
}

fn hash_of(certificate: &Certificate) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate.der))
}

#[test]
fn a_bound_token_is_accepted_with_its_certificate_alone() {
    let site = Site::start();
    let token = site.bound(&json!({ "x5t#S256": hash_of(&site.own) }));
    for path in ["/private/a", "/api/v1/sessions/current"] {
        // The first use caches the token as verified; the others must not profit from it.
        assert_eq!(site.twice(&site.own, path, &token), [200; 2], "{path}");
        assert_eq!(site.twice_http2(&site.own, path, &token), [200; 2]);
        let before = site.upstream.requests();
        assert_eq!(site.twice(&site.other, path, &token), [401; 2], "{path}");
        assert_eq!(site.twice_http2(&site.other, path, &token), [401; 2]);
        let request = Request::get(path).bearer(&token);
        site.gateway.ask(&request).refused(401, "TOKEN_INVALID");
        let bearer = format!("Bearer {token}");
        let clear = Http2::connect(site.gateway.public);
        let (status, text) = clear.ask("GET", path, &[("authorization", &bearer)]);
        assert_eq!(status, 401);
        assert!(text.contains("TOKEN_INVALID"), "{text}");
        assert_eq!(site.upstream.requests(), before);
    }
    let optional = Request::get("/optional/a").bearer(&token);
    site.gateway.ask(&optional).refused(401, "TOKEN_INVALID");
    assert_eq!(site.twice(&site.own, "/private/a", &site.token), [200; 2]);
}

#[test]
fn a_binding_that_is_anything_else_is_no_binding_to_rely_on() {
    let site = Site::start();
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
        let token = site.bound(&cnf);
        assert_eq!(
            site.twice(&site.own, "/private/a", &token),
            [401; 2],
            "{cnf}"
        );
        let request = Request::get("/private/a").bearer(&token);
        site.gateway.ask(&request).refused(401, "TOKEN_INVALID");
    }
    assert_eq!(site.upstream.requests(), 0);
}

#[test]
fn an_expired_bound_token_ends_no_session_without_its_certificate() {
    let site = Site::start();
    let claims = varied(
        &site.token,
        &json!({
            "exp": now() - 60,
            "iat": now() - 120,
            "cnf": { "x5t#S256": hash_of(&site.own) },
        }),
    );
    let expired = hs256(&claims);
    let request = Request::get("/private/a").bearer(&expired);
    site.gateway.ask(&request).refused(401, "TOKEN_INVALID");
    let sign_out = Request::post("/api/v1/auth/logout").bearer(&expired);
    site.gateway.ask(&sign_out);
    let alive = Request::get("/private/a").bearer(&site.token);
    assert_eq!(site.gateway.ask(&alive).status, 200);
}
