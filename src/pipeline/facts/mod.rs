//! The facts about a request on which the decision depends.

use std::borrow::Cow;

use http::{Method, Version};

use super::fields::{FieldKind, Fields};
use crate::auth::session::Millis;
use crate::auth::token::CertificateHash;
use crate::settings::ListenerId;

pub mod client_origin;
pub mod host;
pub mod trace_context;

pub use client_origin::{Client, ClientOrigin};

/// The head of a request, without the authority of its target.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    pub method: &'a Method,
    pub version: Version,
    /// As the client sent it.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub fields: Fields<'a>,
}

impl<'a> RequestHead<'a> {
    /// The path and the query.
    pub fn target(&self) -> Cow<'a, str> {
        match self.query {
            Some(query) => format!("{}?{query}", self.path).into(),
            None => self.path.into(),
        }
    }

    /// Whether the request asks for an upgrade; an upgrade to another protocol than WebSocket is
    /// removed before.
    pub fn is_upgrade(&self) -> bool {
        self.version == Version::HTTP_11 && self.fields.has(FieldKind::Upgrade)
    }

    /// The number of header fields that an HTTP/1.1 client would have sent: HTTP/2 splits cookies
    /// (RFC 9113, section 8.2.3).
    pub fn field_count(&self) -> usize {
        let cookies = self.fields.all(FieldKind::Cookie).count();
        self.fields.count() - cookies.saturating_sub(1)
    }
}

/// One request as the decision reads it. An engine builds it after the headers about the connection
/// are processed, the command line from its arguments.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    pub head: RequestHead<'a>,
    /// The scheme of a target in absolute form.
    pub scheme: Option<&'a str>,
    /// `None`: the request names no host, or no valid one.
    pub host: Option<RequestHost<'a>>,
    pub client: &'a ClientOrigin,
    /// The client certificate of the connection.
    pub certificate: Option<&'a CertificateHash>,
    pub listener: ListenerId,
    /// This gateway's clock, by which tokens are judged.
    pub now: Millis,
}

/// The host that a request names.
#[derive(Debug, Clone, Copy)]
pub struct RequestHost<'a> {
    /// The `Host` or the authority.
    pub field: &'a [u8],
    /// Without port, in lower case.
    pub name: &'a str,
}

impl RequestFacts<'_> {
    /// Whether a front proxy queries about the request, and forwards it itself.
    pub fn is_query(&self) -> bool {
        self.listener == ListenerId::ForwardAuth
    }

    /// Whether the request asks for an upgrade. Front proxies do not pass on `Upgrade`, which is about
    /// a connection.
    pub fn is_upgrade(&self) -> bool {
        match self.listener {
            ListenerId::Public(_) => self.head.is_upgrade(),
            ListenerId::ForwardAuth => {
                let fields = self.head.fields;
                // On HTTP/2 there is no key (RFC 8441, section 5.1).
                fields.has(FieldKind::SecWebsocketKey) || fields.has(FieldKind::SecWebsocketVersion)
            }
        }
    }

    /// The client, for the same-origin checks.
    pub fn client(&self) -> Client {
        self.client.as_client(self.host.map(|host| host.field))
    }
}
