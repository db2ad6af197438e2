//! Selection of the engine for a request.

use std::str::FromStr;

use crate::settings::{Protocol, Upstream};

/// The engine for HTTP/1.x clients of HTTP/1.1 upstreams. Every other request is Pingora's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engine {
    /// The gateway's own.
    #[default]
    Http1,
    Pingora,
}

impl Engine {
    /// Whether the gateway's own engine forwards the requests of HTTP/1.x clients to an upstream.
    pub(super) fn forwards_to(self, upstream: &Upstream) -> bool {
        self == Engine::Http1 && matches!(upstream.protocol, Protocol::Http1)
    }
}

impl FromStr for Engine {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Engine, &'static str> {
        match name {
            "http1" => Ok(Engine::Http1),
            "pingora" => Ok(Engine::Pingora),
            _ => Err("the engines are http1 and pingora"),
        }
    }
}
