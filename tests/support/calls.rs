//! Calls by which front proxies query about a request.

use std::net::SocketAddr;

use serde_json::json;

use super::client::{Request, Response};
use super::config::Config;
use super::gateway::Gateway;
use super::ports;

/// How a front proxy queries by HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    AuthRequest,
    ForwardAuth,
    ExtAuthz,
}

/// The address of the client in all calls.
pub const CLIENT: &str = "192.0.2.7";

impl Dialect {
    pub const ALL: [Dialect; 3] = [
        Dialect::AuthRequest,
        Dialect::ForwardAuth,
        Dialect::ExtAuthz,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Dialect::AuthRequest => "auth-request",
            Dialect::ForwardAuth => "forward-auth",
            Dialect::ExtAuthz => "ext-authz",
        }
    }

    /// The call about a request to `https://shop.example`, of a client of its own address.
    pub fn call(self, method: &str, target: &str) -> Request {
        self.call_without_client(method, target)
            .header("X-Forwarded-For", CLIENT)
    }

    /// The same without `X-Forwarded-For`.
    pub fn call_without_client(self, method: &str, target: &str) -> Request {
        match self {
            Dialect::AuthRequest => Request::get("/auth-request")
                .header("X-Original-Method", method)
                .header("X-Original-URL", &format!("https://shop.example{target}")),
            Dialect::ForwardAuth => Request::get("/forward-auth")
                .header("X-Forwarded-Method", method)
                .header("X-Forwarded-Proto", "https")
                .header("X-Forwarded-Host", "shop.example")
                .header("X-Forwarded-Uri", target),
            Dialect::ExtAuthz => Request::new(method, &format!("/ext-authz{target}"))
                .header("Host", "shop.example")
                .header("X-Forwarded-Proto", "https"),
        }
    }

    pub fn get(self, target: &str) -> Request {
        self.call("GET", target)
    }

    /// The status that the front proxy receives in place of this one.
    pub fn status(self, real: u16) -> u16 {
        match (self, real) {
            (Dialect::AuthRequest, 200 | 401) => real,
            (Dialect::AuthRequest, 303) => 401,
            (Dialect::AuthRequest, _) => 403,
            _ => real,
        }
    }
}

impl Config {
    /// With a listener for front proxies on this machine.
    pub fn forward_auth(self) -> Config {
        let bind = ports::free().to_string();
        let forward_auth = json!({ "bind": bind, "trusted_proxies": ["127.0.0.1"] });
        self.set("/forward_auth", forward_auth)
    }

    /// Its address.
    pub fn authorizer(&self) -> SocketAddr {
        let bind = self.file["forward_auth"]["bind"].as_str().unwrap();
        bind.parse().unwrap()
    }
}

impl Gateway {
    /// Queries as a front proxy.
    pub fn query(&self, call: &Request) -> Response {
        call.send(self.config.authorizer())
    }
}

impl Response {
    /// Checks a decision against a request: its real status in this dialect, and what each has to carry.
    #[track_caller]
    pub fn assert_denied(&self, dialect: Dialect, status: u16, code: &str) -> &Response {
        let sent = dialect.status(status);
        assert_eq!(
            (self.status, self.header("x-portcullis-code")),
            (sent, Some(code)),
            "{dialect:?}: {self:?}"
        );
        if dialect == Dialect::AuthRequest {
            let real = status.to_string();
            assert_eq!(self.header("x-portcullis-status"), Some(&*real), "{self:?}");
        }
        self.assert_is_for_front_proxy(dialect)
    }

    /// Checks that the request may pass.
    #[track_caller]
    pub fn assert_allowed(&self, dialect: Dialect) -> &Response {
        assert_eq!(
            (self.status, self.header("x-portcullis-code")),
            (200, Some("OK")),
            "{dialect:?}: {self:?}"
        );
        self.assert_is_for_front_proxy(dialect)
    }

    fn assert_is_for_front_proxy(&self, dialect: Dialect) -> &Response {
        assert_eq!(self.all("cache-control"), ["no-store"], "{dialect:?}");
        assert_eq!(self.all("x-request-id").len(), 1, "{dialect:?}");
        // That is the front proxy's.
        assert_eq!(self.header("strict-transport-security"), None);
        self
    }
}
