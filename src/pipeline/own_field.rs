//! Fields of the gateway's own, of which a part or the whole line is rendered once.

use std::borrow::Cow;

use http::header::{self, HeaderName, HeaderValue};

use crate::telemetry::request_id;

/// A name, with the start of its line in HTTP/1.1.
#[derive(Debug)]
pub struct OwnName {
    pub name: HeaderName,
    pub(super) start: &'static str,
    /// No two messages have the same value.
    is_unique: bool,
}

impl OwnName {
    const fn new(name: HeaderName, start: &'static str) -> OwnName {
        OwnName {
            name,
            start,
            is_unique: false,
        }
    }

    const fn unique(name: HeaderName, start: &'static str) -> OwnName {
        OwnName {
            name,
            start,
            is_unique: true,
        }
    }

    /// A field of a map. HTTP/2 compresses a unique value without an entry in its table, where it would
    /// displace those that come again (RFC 7541, section 6.2.3).
    pub(super) fn field(&self, value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
        let mut value = HeaderValue::from_bytes(value).ok()?;
        value.set_sensitive(self.is_unique);
        Some((self.name.clone(), value))
    }
}

pub static CONTENT_LENGTH: OwnName = OwnName::new(header::CONTENT_LENGTH, "content-length: ");
pub static PORTCULLIS_CODE: OwnName = OwnName::new(
    HeaderName::from_static("x-portcullis-code"),
    "x-portcullis-code: ",
);
pub static PORTCULLIS_STATUS: OwnName = OwnName::new(
    HeaderName::from_static("x-portcullis-status"),
    "x-portcullis-status: ",
);
pub static RETRY_AFTER: OwnName = OwnName::new(header::RETRY_AFTER, "retry-after: ");
pub static TRACEPARENT: OwnName =
    OwnName::unique(HeaderName::from_static("traceparent"), "traceparent: ");
pub static X_FORWARDED_HOST: OwnName = OwnName::new(
    HeaderName::from_static("x-forwarded-host"),
    "x-forwarded-host: ",
);
pub static X_REQUEST_ID: OwnName = OwnName::unique(request_id::X_REQUEST_ID, "x-request-id: ");

/// A field, with its line in HTTP/1.1.
#[derive(Debug)]
pub struct OwnField {
    pub name: HeaderName,
    pub value: HeaderValue,
    pub(super) line: Cow<'static, [u8]>,
}

/// `X-Content-Type-Options: nosniff`
pub static NOSNIFF: OwnField = OwnField {
    name: header::X_CONTENT_TYPE_OPTIONS,
    value: HeaderValue::from_static("nosniff"),
    line: Cow::Borrowed(b"x-content-type-options: nosniff\r\n"),
};

/// `X-Portcullis-Code: OK`
pub static PORTCULLIS_CODE_OK: OwnField = OwnField {
    name: HeaderName::from_static("x-portcullis-code"),
    value: HeaderValue::from_static("OK"),
    line: Cow::Borrowed(b"x-portcullis-code: OK\r\n"),
};

/// `Cache-Control: no-store`
pub static CACHE_CONTROL_NO_STORE: OwnField = OwnField {
    name: header::CACHE_CONTROL,
    value: HeaderValue::from_static("no-store"),
    line: Cow::Borrowed(b"cache-control: no-store\r\n"),
};

impl OwnField {
    pub fn new(name: HeaderName, value: HeaderValue) -> OwnField {
        let start = [name.as_str().as_bytes(), b": "].concat();
        OwnField {
            line: [&start, value.as_bytes(), b"\r\n"].concat().into(),
            name,
            value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_with_their_names() {
        for own in [
            &CONTENT_LENGTH,
            &PORTCULLIS_CODE,
            &PORTCULLIS_STATUS,
            &RETRY_AFTER,
            &TRACEPARENT,
            &X_FORWARDED_HOST,
            &X_REQUEST_ID,
        ] {
            assert_eq!(own.start, format!("{}: ", own.name));
        }
        for own in [&NOSNIFF, &PORTCULLIS_CODE_OK, &CACHE_CONTROL_NO_STORE] {
            let made = OwnField::new(own.name.clone(), own.value.clone());
            assert_eq!(made.line, own.line);
        }
    }
}
