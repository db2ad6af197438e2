//! The header fields of a message as a single map. Pingora keeps each name's spelling in a second
//! map and validates a name again at every change; names compare without regard to case (RFC 9110,
//! section 5.1), so the second map is dropped at the first change and fields are edited in place
//! from then on.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts as RequestParts;
use http::response::Parts as ResponseParts;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::{Field, FieldKind, FieldList, Fields};
use crate::pipeline::hop_by_hop::ConnectionEdit;

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

/// The names of the fields that do not pass; `list` is that of `headers`.
pub(in crate::proxy) fn failing<'h>(
    headers: &'h HeaderMap,
    list: &[Field<'_>],
    passes: impl Fn(&Field<'_>) -> bool,
) -> impl Iterator<Item = &'h HeaderName> {
    let fields = headers.iter().zip(list);
    fields.filter_map(move |((name, _), field)| (!passes(field)).then_some(name))
}

/// The fields that are removed from a message, independent of it.
pub(in crate::proxy) struct Removal {
    names: Vec<HeaderName>,
    /// The values of `Set-Cookie` that stay: no other field passes by its value.
    cookies: Vec<HeaderValue>,
    connection: ConnectionEdit,
}

impl Removal {
    /// Removes the fields that do not pass and edits `Connection`, which Pingora reads and writes.
    pub(in crate::proxy) fn of(
        headers: &HeaderMap,
        list: &[Field<'_>],
        connection: ConnectionEdit,
        passes: impl Fn(&Field<'_>) -> bool,
    ) -> Removal {
        let names: Vec<HeaderName> = failing(headers, list, &passes).cloned().collect();
        let mut cookies = Vec::new();
        if names.contains(&header::SET_COOKIE) {
            let fields = headers.values().zip(list);
            let kept = fields.filter(|(_, it)| it.kind == FieldKind::SetCookie && passes(it));
            cookies.extend(kept.map(|(value, _)| value.clone()));
        }
        Removal {
            names,
            cookies,
            connection,
        }
    }

    pub(in crate::proxy) fn apply(self, headers: &mut HeaderMap) {
        for name in self.names {
            headers.remove(name);
        }
        for cookie in self.cookies {
            headers.append(header::SET_COOKIE, cookie);
        }
        match self.connection {
            ConnectionEdit::Keep => {}
            ConnectionEdit::Remove => {
                headers.remove(header::CONNECTION);
            }
            ConnectionEdit::Replace(options) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static(options));
            }
        }
    }
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
    fn removal_keeps_the_cookies_that_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::SET_COOKIE, "a=1"),
            (header::SET_COOKIE, "own=1"),
            (header::CONNECTION, "close, x-hop"),
            (header::AGE, "1"),
            (header::SET_COOKIE, "b=2"),
            (header::AGE, "2"),
            (header::ETAG, "3"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let edit = ConnectionEdit::Replace("close");
        let removal = Removal::of(&headers, &list(&headers), edit, |field| {
            field.name != b"age" && field.value != b"own=1"
        });
        removal.apply(&mut headers);
        let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(headers.get(header::CONNECTION).unwrap(), "close");
        assert!(headers.contains_key(header::ETAG) && !headers.contains_key(header::AGE));
    }

    #[test]
    fn edit_preserves_the_rest_of_the_head() {
        for target in ["/a?b", "*", "http://example.com/a?b", "/a?\u{e9}"] {
            let mut head = RequestHeader::build("POST", target.as_bytes(), None).unwrap();
            head.append_header("X-Two", "1").unwrap();
            head.append_header("X-Two", "2").unwrap();
            let (raw, uri) = (head.raw_path().to_vec(), head.uri.clone());
            edit_request(&mut head, |fields| {
                fields.insert("x-more", HeaderValue::from_static("3"));
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
