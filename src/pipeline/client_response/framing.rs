//! Framing of upstream responses: a response that RFC 9112, section 6, or RFC 9110, sections 8.6
//! and 15.2, call invalid is not forwarded, because a client could delimit it differently.

use crate::pipeline::fields::{FieldKind, Fields};
use crate::pipeline::hop_by_hop::WEBSOCKET;

/// How the body of a response is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFraming {
    None,
    Length(u64),
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// The change that the `Content-Length` of a valid response needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LengthAction {
    /// No change.
    Keep,
    /// It was repeated with one value, which is written once.
    Collapse(u64),
    /// The response cannot have content: the field is removed.
    Remove,
}

/// Checks the framing fields of a response as the upstream sent them.
///
/// # Errors
/// Why the response cannot be forwarded, for the log.
pub(crate) fn check(
    status: u16,
    is_http_10: bool,
    fields: Fields<'_>,
) -> Result<(ResponseFraming, LengthAction), &'static str> {
    // A 304 may have the length of what it stands for.
    let has_no_content = status < 200 || status == 204;
    let is_coded = fields.has(FieldKind::TransferEncoding);
    if is_coded {
        check_coding(is_http_10, has_no_content, fields)?;
    }
    let length = if fields.has(FieldKind::ContentLength) {
        Some(length(fields)?)
    } else {
        None
    };
    let action = match length {
        Some(_) if is_coded => {
            return Err("the response has both Content-Length and Transfer-Encoding");
        }
        // Several frameworks send it; no client can misread it.
        Some((0, _)) if has_no_content => LengthAction::Remove,
        Some(_) if has_no_content => {
            return Err("the response has a Content-Length although it has no content");
        }
        Some((length, true)) => LengthAction::Collapse(length),
        Some((_, false)) | None => LengthAction::Keep,
    };
    let framing = match length {
        _ if has_no_content || status == 304 => ResponseFraming::None,
        _ if is_coded => ResponseFraming::Chunked,
        Some((length, _)) => ResponseFraming::Length(length),
        None => ResponseFraming::UntilClose,
    };
    Ok((framing, action))
}

/// The only supported coding is `chunked`, once, in HTTP/1.1.
fn check_coding(
    is_http_10: bool,
    has_no_content: bool,
    fields: Fields<'_>,
) -> Result<(), &'static str> {
    let mut codings = fields.all(FieldKind::TransferEncoding);
    let chunked = |value: &[u8]| value.eq_ignore_ascii_case(b"chunked");
    if !(codings.next().is_some_and(chunked) && codings.next().is_none()) {
        return Err("the response has a transfer coding other than one chunked");
    }
    if is_http_10 {
        return Err("the response has a transfer coding in HTTP/1.0");
    }
    if has_no_content {
        return Err("the response has a transfer coding although it has no content");
    }
    Ok(())
}

/// The length, and whether it is repeated.
fn length(fields: Fields<'_>) -> Result<(u64, bool), &'static str> {
    let mut values = fields.all(FieldKind::ContentLength);
    if let (Some(length), None) = (values.next().and_then(number), values.next()) {
        return Ok((length, false));
    }
    let mut found: Option<u64> = None;
    let mut repeated = false;
    for value in fields.all(FieldKind::ContentLength) {
        for part in value.split(|byte| *byte == b',') {
            let length = number(part.trim_ascii()).ok_or("the Content-Length is not a number")?;
            repeated |= found.is_some();
            if found.is_some_and(|other| other != length) {
                return Err("the response has several values of Content-Length");
            }
            found = Some(length);
        }
    }
    Ok((found.unwrap_or_default(), repeated))
}

/// `1*DIGIT`
fn number(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    };
    match digits {
        [] => None,
        digits => digits.iter().try_fold(0, add),
    }
}

/// Whether a 101 completes the requested upgrade; WebSocket is the only one.
///
/// # Errors
/// Why not, for the log.
pub(crate) fn check_upgrade(requested: bool, fields: Fields<'_>) -> Result<(), &'static str> {
    let protocol = fields.first(FieldKind::Upgrade);
    let websocket = protocol.is_some_and(|it| it.eq_ignore_ascii_case(WEBSOCKET.as_bytes()));
    match (requested, websocket) {
        (true, true) => Ok(()),
        (true, false) => Err("the upstream switched to a protocol that was not asked for"),
        (false, _) => Err("the upstream switched protocols without an upgrade request"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::fields::tests::list;

    fn checked(
        status: u16,
        fields: &[(&str, &str)],
    ) -> Result<(ResponseFraming, LengthAction), ()> {
        check(status, false, Fields::new(&list(fields))).map_err(|_| ())
    }

    const CL: &str = "content-length";
    const TE: &str = "transfer-encoding";

    #[test]
    fn valid_framing_is_kept_and_repeated_lengths_become_one() {
        use LengthAction::*;
        use ResponseFraming::*;
        for (status, fields, framing, action) in [
            (200, &[][..], UntilClose, Keep),
            (200, &[(CL, "5")], Length(5), Keep),
            (200, &[(TE, "Chunked")], Chunked, Keep),
            (304, &[(CL, "5")], None, Keep),
            (304, &[(TE, "chunked")], None, Keep),
            (200, &[(CL, "5, 5")], Length(5), Collapse(5)),
            (200, &[(CL, "5"), (CL, "05")], Length(5), Collapse(5)),
            (204, &[], None, Keep),
            (204, &[(CL, "0")], None, Remove),
            (103, &[(CL, "0")], None, Remove),
        ] {
            let found = checked(status, fields);
            assert_eq!(found, Ok((framing, action)), "{status} {fields:?}");
        }
    }

    #[test]
    fn invalid_framing_is_an_error() {
        for (status, fields) in [
            (200, &[(CL, "5, 6")][..]),
            (200, &[(CL, "5"), (CL, "6")]),
            (200, &[(CL, "")]),
            (200, &[(CL, "5,")]),
            (200, &[(CL, "+5")]),
            (200, &[(CL, "99999999999999999999")]),
            (200, &[(CL, "5"), (TE, "chunked")]),
            (200, &[(TE, "gzip")]),
            (200, &[(TE, "gzip, chunked")]),
            (200, &[(TE, "chunked"), (TE, "chunked")]),
            (200, &[(TE, "")]),
            (204, &[(CL, "5")]),
            (100, &[(CL, "5")]),
            (204, &[(TE, "chunked")]),
        ] {
            let found = checked(status, fields);
            assert_eq!(found, Err(()), "{status} {fields:?}");
        }
        let fields = list(&[(TE, "chunked")]);
        assert!(check(200, true, Fields::new(&fields)).is_err());
    }

    #[test]
    fn only_a_requested_websocket_switches_protocols() {
        for (requested, upgrade, valid) in [
            (true, Some("WebSocket"), true),
            (true, Some("other"), false),
            (true, None, false),
            (false, Some("websocket"), false),
            (false, None, false),
        ] {
            let fields: Vec<_> = upgrade.iter().map(|it| ("Upgrade", *it)).collect();
            let fields = list(&fields);
            let checked = check_upgrade(requested, Fields::new(&fields));
            assert_eq!(checked.is_ok(), valid, "{requested} {upgrade:?}");
        }
    }
}
