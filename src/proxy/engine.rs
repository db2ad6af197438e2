//! Selection of the engine for a request.

use std::str::FromStr;

/// The engine for HTTP/1.x clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engine {
    /// The gateway's own.
    #[default]
    Http1,
    Pingora,
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
