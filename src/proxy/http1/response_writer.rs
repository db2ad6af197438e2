//! The head of an upstream's response, as its client reads it.

use http::HeaderValue;

use super::date;
use super::field_runs::copy_fields;
use crate::limits::LimitHeaders;
use crate::pipeline::admission::Permit;
use crate::pipeline::client_response::ClientHead;
use crate::pipeline::client_response::framing::LengthAction;
use crate::pipeline::fields::FieldKind;
use crate::pipeline::hop_by_hop::ResponseConnection;
use crate::proxy::connection::head::response::ResponseHead;
use crate::proxy::request_context::RequestContext;

/// What a head says about its connection and its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing: another head follows.
    Interim,
    /// The connection is a tunnel from now on.
    Upgrade,
    Final {
        is_http_10: bool,
        is_chunked: bool,
        keep: bool,
    },
}

/// Writes a head to the client: the upstream's fields that pass, then the gateway's own.
pub(super) fn write(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    ctx: &RequestContext,
    permit: &Permit,
    framing: Framing,
) {
    let fields = head.lines.fields();
    let keep_upgrade = match framing {
        Framing::Interim => false,
        Framing::Upgrade => true,
        // Only a client of HTTP/1.1 can upgrade.
        Framing::Final { is_http_10, .. } => head.status == 426 && !is_http_10,
    };
    let connection = match head.lines.nominates() {
        true => ResponseConnection::of(fields, keep_upgrade, false),
        false => ResponseConnection::without_nominations(keep_upgrade, false),
    };
    let client = ClientHead {
        permit,
        request_id: &ctx.request_id,
        via: &ctx.worker.via,
        cookie: &ctx.snapshot.settings.sessions.cookie,
        origin_header: ctx.origin_header.as_ref().map(HeaderValue::as_bytes),
        version: head.version(),
        // The reader of heads has left at most one.
        length: LengthAction::Keep,
        limits: LimitHeaders::of(&permit.decisions, || ctx.worker.store_clock()),
    };
    write_status_line(out, head.lines.first_line());
    let passing = connection.passing_kinds().and(client.passing_kinds());
    copy_fields(out, &head.lines, passing, |field| {
        connection.passes(field) && client.passes(field)
    });
    match framing {
        Framing::Interim => {}
        Framing::Upgrade => out.extend_from_slice(b"connection: upgrade\r\n"),
        Framing::Final {
            is_chunked, keep, ..
        } => {
            if !fields.has(FieldKind::Date) {
                date::write(out);
            }
            if is_chunked {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            out.extend_from_slice(match keep {
                true => b"connection: keep-alive\r\n",
                false => b"connection: close\r\n",
            });
        }
    }
    client.write(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the status line that was received, in the gateway's own version: that of the upstream ends
/// here (RFC 9110, section 2.5).
fn write_status_line(out: &mut Vec<u8>, received: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1");
    match received.get(8..).unwrap_or_default() {
        // The space is required even without a reason (RFC 9112, section 4).
        [b' ', a, b, c, b'\r', b'\n'] => {
            out.extend_from_slice(&[b' ', *a, *b, *c, b' ', b'\r', b'\n']);
        }
        rest => out.extend_from_slice(rest),
    }
}
