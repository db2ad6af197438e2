//! CORS (Fetch standard) of a route.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderName, HeaderValue, Method};

use super::Cors;

/// Request headers that a preflight response depends on.
const PREFLIGHT_VARY: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);

impl Cors {
    /// Returns the headers of a preflight response. If anything requested is not allowed, it grants
    /// nothing and has only `Vary`.
    pub fn preflight_headers(
        &self,
        origin: &[u8],
        requested_method: &str,
        requested_headers: Option<&str>,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = vec![(VARY, PREFLIGHT_VARY)];
        let Some(allowed_origin) = self.allowed_origin(origin) else {
            return headers;
        };
        if !self.allows_method(requested_method) || !self.allows_headers(requested_headers) {
            return headers;
        }
        headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, allowed_origin));
        self.push_credentials(&mut headers);
        push_list(
            &mut headers,
            ACCESS_CONTROL_ALLOW_METHODS,
            self.methods.iter().map(Method::as_str),
        );
        if self.allows_any_header() {
            // With credentials, `*` means a header of that name. Echoing the requested headers is
            // correct in both cases.
            push_list(
                &mut headers,
                ACCESS_CONTROL_ALLOW_HEADERS,
                requested_headers.into_iter(),
            );
        } else {
            push_list(
                &mut headers,
                ACCESS_CONTROL_ALLOW_HEADERS,
                self.headers.iter().map(HeaderName::as_str),
            );
        }
        if let Some(max_age) = self.max_age {
            headers.push((ACCESS_CONTROL_MAX_AGE, HeaderValue::from(max_age.as_secs())));
        }
        headers
    }

    /// Returns the headers of any other response, whether or not the request had an `Origin`.
    pub fn response_headers(&self, origin: Option<&[u8]>) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::with_capacity(4);
        if !self.allows_any_origin() {
            // Also without an origin, because a shared cache must not reuse that response for a
            // request with one.
            headers.push((VARY, HeaderValue::from_static("Origin")));
        }
        let Some(allowed_origin) = origin.and_then(|origin| self.allowed_origin(origin)) else {
            return headers;
        };
        headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, allowed_origin));
        self.push_credentials(&mut headers);
        push_list(
            &mut headers,
            ACCESS_CONTROL_EXPOSE_HEADERS,
            self.expose.iter().map(HeaderName::as_str),
        );
        headers
    }

    /// Whether an origin is listed by name; `*` does not count. `null` is an ordinary origin.
    pub fn lists_origin(&self, origin: &[u8]) -> bool {
        let mut origins = self.origins.iter();
        origin != b"*" && origins.any(|listed| listed.as_bytes() == origin)
    }

    fn allowed_origin(&self, origin: &[u8]) -> Option<HeaderValue> {
        if self.lists_origin(origin) {
            HeaderValue::from_bytes(origin).ok()
        } else if self.allows_any_origin() && origin != b"null" {
            Some(HeaderValue::from_static("*"))
        } else {
            None
        }
    }

    fn allows_any_origin(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }

    /// Allows credentials, but never with `*`, which would let every site act as the user.
    fn push_credentials(&self, headers: &mut Vec<(HeaderName, HeaderValue)>) {
        if self.credentials && !self.allows_any_origin() {
            headers.push((
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            ));
        }
    }

    /// Whether a method is allowed. `GET`, `HEAD` and `POST` always are.
    fn allows_method(&self, requested: &str) -> bool {
        matches!(requested, "GET" | "HEAD" | "POST")
            || self.methods.iter().any(|method| method == requested)
    }

    fn allows_headers(&self, requested: Option<&str>) -> bool {
        if self.allows_any_header() {
            return true;
        }
        requested
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .all(|name| {
                let mut allowed = self.headers.iter();
                allowed.any(|header| header.as_str().eq_ignore_ascii_case(name))
            })
    }

    fn allows_any_header(&self) -> bool {
        self.headers.iter().any(|name| name.as_str() == "*")
    }
}

/// Adds a comma-separated list, unless it is empty or not a valid header value.
fn push_list<'a>(
    headers: &mut Vec<(HeaderName, HeaderValue)>,
    name: HeaderName,
    items: impl Iterator<Item = &'a str>,
) {
    let list = items.collect::<Vec<_>>().join(", ");
    if let (false, Ok(value)) = (list.is_empty(), HeaderValue::from_str(&list)) {
        headers.push((name, value));
    }
}

#[cfg(test)]
mod tests;
