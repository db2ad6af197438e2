//! Calls by HTTP: the fields that name the original request.

use ipnet::IpNet;

use super::call_fault::{
    FORWARDED_HOST, FORWARDED_METHOD, FORWARDED_PROTO, FORWARDED_URI, FieldFaults, HOST, METHOD,
    ORIGINAL_METHOD, ORIGINAL_URL, PATH, RESERVED_NAME,
};
use super::original_request::NamedPart;
use super::{CallFault, EXT_AUTHZ, NamedRequest, OriginalRequest, read_client};
use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::{FieldKind, Fields};
use crate::pipeline::upstream_request::is_look_alike;
use crate::routing::NameSet;
use crate::telemetry::metrics::Dialect;

/// The fields that name the original request in some dialect.
#[derive(Debug, Default)]
struct NamingFields<'a> {
    original_method: Naming<'a>,
    original_url: Naming<'a>,
    method: Naming<'a>,
    proto: Naming<'a>,
    host: Naming<'a>,
    uri: Naming<'a>,
    call_host: Naming<'a>,
}

/// The values of one field.
#[derive(Debug, Default, Clone, Copy)]
enum Naming<'a> {
    #[default]
    Missing,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Naming<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Naming::Missing => Naming::Once(value),
            Naming::Once(_) | Naming::Repeated => Naming::Repeated,
        };
    }

    fn part(self, faults: &'static FieldFaults) -> Result<NamedPart<'a>, CallFault> {
        match self {
            Naming::Missing => Err(faults.missing),
            Naming::Once(text) => Ok(NamedPart { text, faults }),
            Naming::Repeated => Err(faults.repeated),
        }
    }
}

/// Reads which request a call is about. `identity` are the names of all identity headers. The query of
/// the call is not read, except where it is that of the original request.
///
/// # Errors
/// A field that names the request is missing, repeated or malformed, or the client has sent a field
/// that could be mistaken for one of the gateway's.
pub fn read_call<'a>(
    dialect: Dialect,
    call: &RequestHead<'a>,
    identity: &NameSet,
    trusted: &[IpNet],
) -> Result<OriginalRequest<'a>, CallFault> {
    let naming = find_naming_fields(call.fields, identity)?;
    let client = read_client(call.fields.all(FieldKind::XForwardedFor), trusted)?;
    let named = match dialect {
        Dialect::AuthRequest => name_by_url(&naming)?,
        Dialect::ForwardAuth => NamedRequest {
            dialect,
            method: naming.method.part(&FORWARDED_METHOD)?,
            scheme: naming.proto.part(&FORWARDED_PROTO)?,
            host: naming.host.part(&FORWARDED_HOST)?,
            target: naming.uri.part(&FORWARDED_URI)?,
        },
        Dialect::ExtAuthz | Dialect::ExtAuthzGrpc => {
            let path = call.path.strip_prefix(EXT_AUTHZ);
            let path = path.ok_or(PATH.malformed)?;
            let named = NamedRequest {
                dialect,
                method: part(call.method.as_str().as_bytes(), &METHOD),
                scheme: naming.proto.part(&FORWARDED_PROTO)?,
                host: naming.call_host.part(&HOST)?,
                target: part(path.as_bytes(), &PATH),
            };
            let mut request = named.check(client)?;
            request.query = call.query;
            return Ok(request);
        }
    };
    named.check(client)
}

fn part<'a>(text: &'a [u8], faults: &'static FieldFaults) -> NamedPart<'a> {
    NamedPart { text, faults }
}

/// Goes over the fields once.
fn find_naming_fields<'a>(
    fields: Fields<'a>,
    identity: &NameSet,
) -> Result<NamingFields<'a>, CallFault> {
    let mut naming = NamingFields::default();
    for field in fields.iter() {
        let found = match field.kind {
            FieldKind::XOriginalMethod => &mut naming.original_method,
            FieldKind::XOriginalUrl => &mut naming.original_url,
            FieldKind::XForwardedMethod => &mut naming.method,
            FieldKind::XForwardedProto => &mut naming.proto,
            FieldKind::XForwardedHost => &mut naming.host,
            FieldKind::XForwardedUri => &mut naming.uri,
            FieldKind::Host => &mut naming.call_host,
            FieldKind::Other | FieldKind::Irregular if is_look_alike(&field, identity) => {
                return Err(RESERVED_NAME);
            }
            _ => continue,
        };
        found.add(field.value);
    }
    Ok(naming)
}

/// Splits the URL by which nginx names a request.
fn name_by_url<'a>(naming: &NamingFields<'a>) -> Result<NamedRequest<'a>, CallFault> {
    let faults = &ORIGINAL_URL;
    let method = naming.original_method.part(&ORIGINAL_METHOD)?;
    let url = naming.original_url.part(faults)?.text;
    let scheme_end = memchr::memmem::find(url, b"://").ok_or(faults.malformed)?;
    let (scheme, rest) = url.split_at(scheme_end);
    let rest = rest.get(b"://".len()..).unwrap_or_default();
    // Without a path there is none to split off, which is malformed.
    let host_end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let (host, target) = rest.split_at(host_end.unwrap_or(rest.len()));
    Ok(NamedRequest {
        dialect: Dialect::AuthRequest,
        method,
        scheme: part(scheme, faults),
        host: part(host, faults),
        target: part(target, faults),
    })
}

#[cfg(test)]
mod tests;
