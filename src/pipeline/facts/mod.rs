//! The facts about a request on which the decision depends.

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Version};

use super::admission::{AuthRequest, Client};
use crate::auth::session::Millis;
use crate::auth::token::CertificateHash;

pub mod client_origin;
pub mod host;
pub mod trace_context;

pub use client_origin::ClientOrigin;

/// One request as the decision reads it. An engine builds it after the headers about the connection
/// are processed, the command line from its arguments.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    pub method: &'a Method,
    pub version: Version,
    /// The scheme of a target in absolute form.
    pub scheme: Option<&'a str>,
    /// The path of the target, as the client sent it.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// `None`: the request names no host, or no valid one.
    pub host: Option<RequestHost<'a>>,
    /// The `Origin` that a browser sent.
    pub origin_header: Option<&'a HeaderValue>,
    pub client: &'a ClientOrigin,
    /// The client certificate of the connection.
    pub certificate: Option<&'a CertificateHash>,
    /// Index of the listener.
    pub listener: usize,
    /// This gateway's clock, by which tokens are judged.
    pub now: Millis,
}

/// The host that a request names.
#[derive(Debug, Clone, Copy)]
pub struct RequestHost<'a> {
    /// The `Host` or the authority.
    pub field: &'a HeaderValue,
    /// Without port, in lower case.
    pub name: &'a str,
}

impl<'a> RequestFacts<'a> {
    /// Whether the request asks for an upgrade; an upgrade to another protocol than WebSocket is
    /// removed before.
    pub fn is_upgrade(&self) -> bool {
        self.version == Version::HTTP_11 && self.headers.contains_key(header::UPGRADE)
    }

    /// The number of header fields that an HTTP/1.1 client would have sent: HTTP/2 splits cookies
    /// (RFC 9113, section 8.2.3).
    pub fn field_count(&self) -> usize {
        let cookies = self.headers.get_all(header::COOKIE).iter().count();
        self.headers.len() - cookies.saturating_sub(1)
    }

    /// The input of authentication.
    pub fn auth_request(&self) -> AuthRequest<'a> {
        AuthRequest {
            headers: self.headers,
            ip: self.client.ip,
            now: self.now,
            certificate: self.certificate,
        }
    }

    /// The client, for the same-origin checks.
    pub fn client(&self) -> Client {
        self.client.as_client(self.host.map(|host| host.field))
    }
}

/// The `Content-Length` of a message; `None`: missing or not a number.
pub fn declared_length(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}
