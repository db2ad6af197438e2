//! What the provider received.

use std::time::Instant;

use crate::support::upstream::SeenRequest;

/// An endpoint of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Discovery,
    Keys,
    Authorization,
    Token,
    Userinfo,
    Par,
    EndSession,
    Revocation,
    Introspection,
    /// Of the API like GitHub's.
    Emails,
    Organizations,
    Teams,
    Unknown,
}

impl Endpoint {
    pub(super) fn of(path: &str) -> Endpoint {
        match path {
            "/.well-known/openid-configuration" => Endpoint::Discovery,
            "/keys" => Endpoint::Keys,
            "/authorize" | "/login/oauth/authorize" => Endpoint::Authorization,
            "/token" | "/login/oauth/access_token" => Endpoint::Token,
            "/userinfo" | "/user" => Endpoint::Userinfo,
            "/par" => Endpoint::Par,
            "/end-session" => Endpoint::EndSession,
            "/revoke" => Endpoint::Revocation,
            "/introspect" => Endpoint::Introspection,
            "/user/emails" => Endpoint::Emails,
            "/user/orgs" => Endpoint::Organizations,
            "/user/teams" => Endpoint::Teams,
            _ => Endpoint::Unknown,
        }
    }
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub endpoint: Endpoint,
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub at: Instant,
}

impl Received {
    pub(super) fn from_request(seen: SeenRequest) -> Received {
        let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        Received {
            endpoint: Endpoint::of(path),
            method: seen.method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: seen.headers,
            body: String::from_utf8_lossy(&seen.body).into_owned(),
            at: Instant::now(),
        }
    }

    /// The parameters of query and form, decoded.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let form = if self.method == "POST" {
            &*self.body
        } else {
            ""
        };
        let texts = [&*self.query, form].into_iter();
        let pairs = texts.flat_map(|text| url::form_urlencoded::parse(text.as_bytes()));
        pairs
            .map(|(n, v)| (n.into_owned(), v.into_owned()))
            .collect()
    }

    /// A parameter that must not be given twice.
    #[track_caller]
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut found = self.parameters().into_iter().filter(|(n, _)| n == name);
        let first = found.next().map(|(_, value)| value);
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        first
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}
