//! Address of a listening socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Address of a listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BindAddress {
    Tcp(SocketAddr),
    /// An absolute path.
    Unix(PathBuf),
}

impl BindAddress {
    /// The address and the port of a TCP socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            BindAddress::Tcp(address) => Some(*address),
            BindAddress::Unix(_) => None,
        }
    }
}

/// In the form of the configuration file.
impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindAddress::Tcp(address) => address.fmt(f),
            BindAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
