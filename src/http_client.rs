//! Outbound HTTP: no redirects, no retries, bounded responses, and errors without the URL, which
//! may hold a password.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::redirect;
use url::Url;

/// How a client connects.
#[derive(Debug, Default)]
pub struct HttpClientConfig<'a> {
    /// For a whole request. `None`: the caller sets a deadline.
    pub timeout: Option<Duration>,
    /// For making a connection. `None`: as long as the deadline of the request permits.
    pub connect_timeout: Option<Duration>,
    /// Whether the proxies that the environment names are used.
    pub environment_proxies: bool,
    /// Whether a connection is closed after its request.
    pub single_use_connections: bool,
    /// PEM certificates that are trusted in place of the system's.
    pub ca: Option<&'a [u8]>,
    /// A client certificate and its key, both PEM.
    pub identity: Option<(&'a [u8], &'a [u8])>,
}

/// A client; clones share its connections.
#[derive(Debug, Clone)]
pub struct HttpClient(reqwest::Client);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection was made, so the request was not sent.
    #[error(transparent)]
    Connect(reqwest::Error),
    #[error(transparent)]
    Exchange(reqwest::Error),
    #[error("the response has more than {0} bytes")]
    TooLarge(usize),
}

/// The head of a response, whose body has not been read.
#[derive(Debug)]
pub struct HttpResponse(reqwest::Response);

/// The media type of a response, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentKind {
    Json,
    /// A signed or encrypted response.
    Jwt,
    Other,
}

impl HttpClient {
    /// Makes a client.
    ///
    /// # Errors
    /// Certificates or a key that cannot be used.
    pub fn new(config: &HttpClientConfig<'_>) -> Result<HttpClient, HttpError> {
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never());
        if let Some(timeout) = config.timeout {
            builder = builder.timeout(timeout);
        }
        if let Some(timeout) = config.connect_timeout {
            builder = builder.connect_timeout(timeout);
        }
        if !config.environment_proxies {
            builder = builder.no_proxy();
        }
        if config.single_use_connections {
            builder = builder.pool_max_idle_per_host(0);
        }
        if let Some(ca) = config.ca {
            let certificates = reqwest::Certificate::from_pem_bundle(ca).map_err(without_url)?;
            builder = builder.tls_certs_only(certificates);
        }
        if let Some((certificate, key)) = config.identity {
            let both = [key, b"\n", certificate].concat();
            let identity = reqwest::Identity::from_pem(&both).map_err(without_url)?;
            builder = builder.identity(identity);
        }
        builder.build().map(HttpClient).map_err(without_url)
    }

    /// Sends a request and waits for the head of the response.
    ///
    /// # Errors
    /// A failure to connect, or one of the exchange.
    pub async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpResponse, HttpError> {
        let request = self.0.request(method, url).headers(headers).body(body);
        request.send().await.map(HttpResponse).map_err(without_url)
    }
}

impl HttpResponse {
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    /// Takes the header fields.
    pub fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(self.0.headers_mut())
    }

    /// Reads the body, of at most `limit` bytes.
    ///
    /// # Errors
    /// A failure of the exchange, or a larger body.
    pub async fn read_body(mut self, limit: usize) -> Result<Bytes, HttpError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.0.chunk().await.map_err(without_url)? {
            if body.len() + chunk.len() > limit {
                return Err(HttpError::TooLarge(limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }
}

fn without_url(error: reqwest::Error) -> HttpError {
    let error = error.without_url();
    if error.is_connect() {
        HttpError::Connect(error)
    } else {
        HttpError::Exchange(error)
    }
}

impl ContentKind {
    pub fn of(headers: &HeaderMap) -> ContentKind {
        let mut values = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return ContentKind::Other;
        };
        let media_type = value.to_str().unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" => ContentKind::Json,
            "application/jwt" | "application/jose" => ContentKind::Jwt,
            other if other.starts_with("application/") && other.ends_with("+json") => {
                ContentKind::Json
            }
            _ => ContentKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn media_types_are_compared_without_parameters_and_case() {
        for (value, expected) in [
            ("application/json", ContentKind::Json),
            ("Application/JSON; charset=utf-8", ContentKind::Json),
            ("application/vnd.github+json", ContentKind::Json),
            ("application/jwt", ContentKind::Jwt),
            ("application/jose", ContentKind::Jwt),
            ("text/html", ContentKind::Other),
            ("text/json", ContentKind::Other),
            ("application/jsonp", ContentKind::Other),
            ("text/x+json", ContentKind::Other),
            ("", ContentKind::Other),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(ContentKind::of(&headers), expected, "{value}");
            headers.append(header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(
                ContentKind::of(&headers),
                ContentKind::Other,
                "{value} twice"
            );
        }
        assert_eq!(ContentKind::of(&HeaderMap::new()), ContentKind::Other);
    }
}
