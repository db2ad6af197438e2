//! The call that Envoy makes: which request it is about.

use std::net::IpAddr;

use ipnet::IpNet;

use super::framing::read_message;
use super::messages::{CheckRequest, HttpRequest, Peer};
use crate::forward_auth::call_fault::{FORWARDED_FOR, FieldFaults, HOST, METHOD, PATH, SCHEME};
use crate::forward_auth::original_request::NamedPart;
use crate::forward_auth::{CallFault, NamedRequest, OriginalRequest, read_client};
use crate::pipeline::fields::{Field, FieldKind, FieldList, Fields};
use crate::telemetry::metrics::Dialect;

const NO_MESSAGE: CallFault = CallFault("The call is not one CheckRequest without compression.");
const NO_REQUEST: CallFault = CallFault("attributes.request.http is missing.");
const TWO_LISTS: CallFault = CallFault("headers and header_map are both present.");
const HEADER: CallFault = CallFault("A header has a malformed name or value.");
const FRAGMENT: CallFault = CallFault("A request has no fragment.");
const SOURCE: CallFault =
    CallFault("X-Forwarded-For is missing, and source.address is not an IP address.");

/// A call.
#[derive(Debug)]
pub struct Call(CheckRequest);

impl Call {
    /// Reads the body of a call.
    ///
    /// # Errors
    /// It is not one message.
    pub fn read(body: &[u8]) -> Result<Call, CallFault> {
        read_message(body).map(Call).ok_or(NO_MESSAGE)
    }

    /// The header fields of the original request. The pseudo headers among them are left out, because
    /// attributes name the request.
    ///
    /// # Errors
    /// They are missing or malformed.
    pub fn fields(&self) -> Result<FieldList<'_>, CallFault> {
        let request = self.request()?;
        // Envoy sends them joined by name, or with `encode_raw_headers` one by one.
        let raw = request
            .header_map
            .as_ref()
            .map_or(&[][..], |it| &it.headers);
        if !raw.is_empty() && !request.headers.is_empty() {
            return Err(TWO_LISTS);
        }
        let raw = raw.iter().map(|header| {
            let value = match header.raw_value.as_slice() {
                [] => header.value.as_bytes(),
                value => value,
            };
            (&header.key, value)
        });
        let joined = request.headers.iter();
        let joined = joined.map(|(name, value)| (name, value.as_bytes()));
        let fields = raw.chain(joined).filter(|(name, _)| !name.starts_with(':'));
        fields
            .map(|(name, value)| read_field(name, value))
            .collect()
    }

    /// Reads which request the call is about. `fields` are its header fields.
    ///
    /// # Errors
    /// An attribute that names the request is missing or malformed.
    pub fn original_request(
        &self,
        fields: Fields<'_>,
        trusted: &[IpNet],
    ) -> Result<OriginalRequest<'_>, CallFault> {
        let request = self.request()?;
        if !request.fragment.is_empty() {
            return Err(FRAGMENT);
        }
        let mut hosts = fields.all(FieldKind::Host);
        if hosts.any(|host| host != request.host.as_bytes()) {
            return Err(HOST.repeated);
        }
        let named = NamedRequest {
            dialect: Dialect::ExtAuthzGrpc,
            method: part(&request.method, &METHOD)?,
            scheme: part(&request.scheme, &SCHEME)?,
            host: part(&request.host, &HOST)?,
            target: part(&request.path, &PATH)?,
        };
        named.check(self.client(fields, trusted)?)
    }

    fn request(&self) -> Result<&HttpRequest, CallFault> {
        let attributes = self.0.attributes.as_ref().ok_or(NO_REQUEST)?;
        let request = attributes.request.as_ref().ok_or(NO_REQUEST)?;
        request.http.as_ref().ok_or(NO_REQUEST)
    }

    /// The client by `X-Forwarded-For`; without it, the peer of Envoy's connection.
    fn client(&self, fields: Fields<'_>, trusted: &[IpNet]) -> Result<IpAddr, CallFault> {
        match read_client(fields.all(FieldKind::XForwardedFor), trusted) {
            Err(fault) if fault == FORWARDED_FOR.missing => {
                let attributes = self.0.attributes.as_ref();
                let source = attributes.and_then(|it| it.source.as_ref());
                source.and_then(address_of).ok_or(SOURCE)
            }
            read => read,
        }
    }
}

/// A part of the original request. One that is not present is empty.
fn part<'m>(text: &'m str, faults: &'static FieldFaults) -> Result<NamedPart<'m>, CallFault> {
    match text.as_bytes() {
        [] => Err(faults.missing),
        text => Ok(NamedPart { text, faults }),
    }
}

fn read_field<'m>(name: &'m str, value: &'m [u8]) -> Result<Field<'m>, CallFault> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    if name.is_empty() || !name.bytes().all(is_token) || !value.iter().copied().all(is_text) {
        return Err(HEADER);
    }
    Ok(Field::new(name.as_bytes(), value))
}

fn address_of(peer: &Peer) -> Option<IpAddr> {
    let socket = peer.address.as_ref()?.socket_address.as_ref()?;
    let ip: IpAddr = socket.address.parse().ok()?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests;
