//! The header fields of a message as a single map. Pingora keeps each name's spelling in a second
//! map and validates a name again at every change; names compare without regard to case (RFC 9110,
//! section 5.1), so the second map is dropped at the first change and fields are edited in place
//! from then on.

use http::request::Parts as RequestParts;
use http::response::Parts as ResponseParts;
use http::{HeaderMap, header};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::{Field, FieldList, Fields};

/// Lists the fields for the rules that read them.
pub(in crate::proxy) fn list(fields: &HeaderMap) -> FieldList<'_> {
    fields.iter().map(Field::from).collect()
}

/// The head of a request with these fields.
pub(in crate::proxy) fn head<'a>(parts: &'a RequestParts, fields: Fields<'a>) -> RequestHead<'a> {
    RequestHead {
        method: &parts.method,
        version: parts.version,
        path: parts.uri.path(),
        query: parts.uri.query(),
        fields,
    }
}

/// The `Content-Length` of a request; `None`: missing or not a number.
pub(super) fn declared_length(fields: &HeaderMap) -> Option<u64> {
    let length = fields.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Changes the fields of a request's head.
///
/// # Errors
/// A request target that cannot be restored; Pingora has parsed it before.
pub(in crate::proxy) fn edit_request<T>(
    head: &mut RequestHeader,
    change: impl FnOnce(&mut HeaderMap) -> T,
) -> pingora::Result<T> {
    let by_uri = head.uri.path_and_query().map(|target| target.as_str());
    // An absolute target, or one that is not UTF-8, is not in the parts.
    let apart =
        (by_uri.map(str::as_bytes) != Some(head.raw_path())).then(|| head.raw_path().to_vec());
    let ends = head.send_end_stream();
    let empty = http::Request::new(()).into_parts().0;
    let mut parts: RequestParts = std::mem::replace(head, RequestHeader::from(empty)).into();
    let outcome = change(&mut parts.headers);
    *head = RequestHeader::from(parts);
    if let Some(ends) = ends {
        head.set_send_end_stream(ends);
    }
    if let Some(target) = apart {
        head.set_raw_path(&target)?;
    }
    Ok(outcome)
}

/// Changes the fields of a response's head.
///
/// # Errors
/// A reason phrase that cannot be restored; Pingora has parsed it before.
pub(in crate::proxy) fn edit_response<T>(
    head: &mut ResponseHeader,
    change: impl FnOnce(&mut HeaderMap) -> T,
) -> pingora::Result<T> {
    let phrase = head.get_reason_phrase();
    let apart = (phrase != head.status.canonical_reason())
        .then(|| phrase.map(str::to_owned))
        .flatten();
    let empty = http::Response::new(()).into_parts().0;
    let mut parts: ResponseParts = std::mem::replace(head, ResponseHeader::from(empty)).into();
    let outcome = change(&mut parts.headers);
    *head = ResponseHeader::from(parts);
    if let Some(phrase) = apart {
        head.set_reason_phrase(Some(&phrase))?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn edit_preserves_the_rest_of_the_head() {
        for target in ["/a?b", "*", "http://example.com/a?b", "/a?\u{e9}"] {
            let mut head = RequestHeader::build("POST", target.as_bytes(), None).unwrap();
            head.append_header("X-Two", "1").unwrap();
            head.append_header("X-Two", "2").unwrap();
            let (raw, uri) = (head.raw_path().to_vec(), head.uri.clone());
            edit_request(&mut head, |fields| {
                fields.insert("x-more", http::HeaderValue::from_static("3"));
            })
            .unwrap();
            assert_eq!(head.raw_path(), raw, "{target}");
            assert_eq!(head.uri, uri, "{target}");
            assert_eq!(head.method, "POST");
            assert_eq!(head.headers.get_all("x-two").iter().count(), 2);
            assert_eq!(head.headers.get("x-more").unwrap(), "3");
        }
        for phrase in [None, Some("Very Well")] {
            let mut head = ResponseHeader::build(200, None).unwrap();
            head.set_reason_phrase(phrase).unwrap();
            edit_response(&mut head, |_| ()).unwrap();
            assert_eq!(head.get_reason_phrase(), phrase.or(Some("OK")));
            assert_eq!(head.status, 200);
        }
    }
}
