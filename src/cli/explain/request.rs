//! The request to explain, from the arguments of the command.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{ExplainArgs, Via};
use crate::pipeline::facts::ClientOrigin;
use crate::settings::Settings;

/// The parts of a request that routing uses.
pub(super) struct Request {
    pub(super) method: Method,
    /// `None` if the URL has no scheme.
    https: Option<bool>,
    pub(super) authority: String,
    /// The part before the query, not normalized, because ambiguities are reported.
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) via: Option<Via>,
}

impl Request {
    pub(super) fn from_args(args: &ExplainArgs) -> anyhow::Result<Request> {
        let method = Method::from_bytes(args.method.as_bytes()).context("not a valid method")?;
        let mut headers = HeaderMap::new();
        for line in &args.headers {
            let (name, value) = line
                .split_once(':')
                .context("a header must have the form NAME: VALUE")?;
            let name = HeaderName::from_bytes(name.trim().as_bytes());
            let value = HeaderValue::from_str(value.trim());
            headers.append(
                name.context("not a valid header name")?,
                value.context("not a valid header value")?,
            );
        }
        let (https, rest) = match args.url.split_once("://") {
            _ if args.url.starts_with('/') => (None, args.url.as_str()),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Some(false), rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some(true), rest),
            _ => bail!("the URL must start with http://, https:// or a slash"),
        };
        let (authority, target) = match rest.find(['/', '?']) {
            Some(end) => rest.split_at(end),
            None => (rest, "/"),
        };
        let host_header = headers.get("host").and_then(|host| host.to_str().ok());
        let authority = match authority {
            "" => host_header.unwrap_or("localhost"),
            authority => host_header.unwrap_or(authority),
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Ok(Request {
            method,
            https,
            authority: authority.to_owned(),
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            query,
            headers,
            via: args.via,
        })
    }

    /// Returns the client as this listener would see it.
    pub(super) fn client(&self, settings: &Settings, listener: usize) -> ClientOrigin {
        let listener = settings.boot.listeners.get(listener);
        ClientOrigin {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            chain: Vec::new(),
            https: self
                .https
                .unwrap_or(listener.is_some_and(|listener| listener.tls)),
            host: None,
            peer_trusted: false,
        }
    }

    fn port(&self) -> Option<u16> {
        let (_, port) = self.authority.rsplit_once(':')?;
        port.parse().ok()
    }
}

/// Returns the listener that the request is assumed to reach: a plain one, by the port of the URL.
///
/// One that does not redirect is preferred, because the URL does not distinguish them.
pub(super) fn listener_of(settings: &Settings, request: &Request) -> usize {
    let all = settings.boot.listeners.iter().enumerate();
    let plain: Vec<(usize, u16)> = all
        .filter(|(_, listener)| !listener.tls)
        .filter_map(|(index, listener)| Some((index, listener.bind.tcp()?.port())))
        .collect();
    let at_port = |port| plain.iter().filter(move |(_, own)| Some(*own) == port);
    let port = request.port();
    let by_port = at_port(port).next().is_some();
    let mut candidates = plain
        .iter()
        .filter(|(_, own)| !by_port || Some(*own) == port);
    let redirects = |index: usize| {
        let listener = settings.reloadable.listeners.get(index);
        listener.is_some_and(|listener| listener.redirect_to_https)
    };
    let first = candidates.clone().next();
    let chosen = candidates.find(|(index, _)| !redirects(*index)).or(first);
    chosen.map_or(0, |(index, _)| *index)
}
