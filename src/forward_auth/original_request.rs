//! The request that a front proxy names, checked.

use std::net::IpAddr;

use http::Method;

use super::CallFault;
use super::call_fault::FieldFaults;
use crate::pipeline::facts::ClientOrigin;
use crate::routing::{HostName, path_length};
use crate::telemetry::metrics::Dialect;

/// The parts of a request as a front proxy names them, each with the faults that it may have.
#[derive(Debug)]
pub struct NamedRequest<'a> {
    pub dialect: Dialect,
    pub method: NamedPart<'a>,
    pub scheme: NamedPart<'a>,
    pub host: NamedPart<'a>,
    /// The path and the query.
    pub target: NamedPart<'a>,
}

/// One part, and the faults of the field that names it.
#[derive(Debug)]
pub struct NamedPart<'a> {
    pub(super) text: &'a [u8],
    pub(super) faults: &'static FieldFaults,
}

/// The request that a call is about.
#[derive(Debug)]
pub struct OriginalRequest<'a> {
    pub dialect: Dialect,
    pub method: Method,
    /// With its port.
    pub host: &'a str,
    host_name: HostName,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub client: ClientOrigin,
}

impl<'a> NamedRequest<'a> {
    /// Checks every part.
    ///
    /// # Errors
    /// One of them is malformed. It is not replaced by a default.
    pub fn check(self, client: IpAddr) -> Result<OriginalRequest<'a>, CallFault> {
        let malformed = self.method.faults.malformed;
        let method = Method::from_bytes(self.method.text).map_err(|_| malformed)?;
        let https =
            read_scheme(self.scheme.text, self.dialect).ok_or(self.scheme.faults.malformed)?;
        let malformed = self.host.faults.malformed;
        let host_name = HostName::read(self.host.text).map_err(|_| malformed)?;
        let host = str::from_utf8(self.host.text).map_err(|_| malformed)?;
        let (path, query) = read_target(self.target.text).ok_or(self.target.faults.malformed)?;
        Ok(OriginalRequest {
            dialect: self.dialect,
            method,
            host,
            host_name,
            path,
            query,
            client: ClientOrigin {
                ip: client,
                chain: Vec::new(),
                https,
                host: None,
                peer_trusted: true,
            },
        })
    }
}

impl OriginalRequest<'_> {
    /// The host and its name without port, in lower case.
    pub fn host_and_name(&self) -> (&str, &str) {
        let name = match &self.host_name {
            HostName::Start(length) => self.host.get(..*length).unwrap_or_default(),
            HostName::Normalized(name) => name,
        };
        (self.host, name)
    }
}

/// Whether the scheme is that of TLS.
fn read_scheme(scheme: &[u8], dialect: Dialect) -> Option<bool> {
    let is = |name: &[u8]| scheme.eq_ignore_ascii_case(name);
    let names_upgrades = dialect == Dialect::ForwardAuth;
    match () {
        () if is(b"https") || names_upgrades && is(b"wss") => Some(true),
        () if is(b"http") || names_upgrades && is(b"ws") => Some(false),
        () => None,
    }
}

/// Splits a target in origin form. Its path is read as that of a direct request.
fn read_target(target: &[u8]) -> Option<(&str, Option<&str>)> {
    let length = path_length(target)?;
    // Every byte is ASCII.
    let target = str::from_utf8(target).ok()?;
    let (path, query) = target.split_at_checked(length)?;
    path.starts_with('/')
        .then(|| (path, query.strip_prefix('?')))
}
