//! A certificate authority as a remote: bounded requests to one origin.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Problem};
use parking_lot::Mutex;
use url::Url;

use super::failure::OrderFailure;
use crate::clock;
use crate::http_client::{HttpClient, HttpClientConfig, HttpError};
use crate::settings::acme::AcmeSettings;

/// For one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response, in bytes.
const MAX_BODY: usize = 256 << 10;

/// Sends the requests of the protocol.
#[derive(Clone)]
pub(super) struct Authority {
    client: HttpClient,
    directory: Url,
    /// The pause that the latest error response requested.
    retry_after: Arc<Mutex<Option<Duration>>>,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("the authority names an address that is not of its directory's origin")]
    OtherOrigin,
    #[error("the authority redirects to another address, which is not followed")]
    Redirect,
    #[error("the authority responds with status {0}")]
    Status(StatusCode),
    #[error("the authority does not respond")]
    Http(#[from] HttpError),
    #[error("the response is not the directory of an ACME server")]
    NotADirectory,
    #[error("the request cannot be built")]
    Request(#[from] http::Error),
}

impl AuthorityError {
    /// Whether the authority may respond later.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            AuthorityError::Http(HttpError::Connect(_) | HttpError::Exchange(_)) => true,
            AuthorityError::Status(StatusCode::TOO_MANY_REQUESTS) => true,
            AuthorityError::Status(status) => status.is_server_error(),
            _ => false,
        }
    }
}

impl Authority {
    pub(super) fn new(settings: &AcmeSettings) -> Result<Authority, HttpError> {
        let client = HttpClient::new(&HttpClientConfig {
            timeout: Some(REQUEST_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            environment_proxies: settings.directory.scheme() == "https",
            ca: settings.ca.as_deref(),
            ..HttpClientConfig::default()
        })?;
        Ok(Authority {
            client,
            directory: settings.directory.clone(),
            retry_after: Arc::default(),
        })
    }

    /// Adds to a failure the pause that the authority has requested.
    pub(super) fn add_pause(&self, failure: OrderFailure) -> OrderFailure {
        OrderFailure {
            retry_after: failure.retry_after.or(self.retry_after.lock().take()),
            ..failure
        }
    }

    /// Fetches the directory, for a connection test.
    ///
    /// # Errors
    /// The authority does not respond as RFC 8555 says.
    pub(super) async fn directory(&self) -> Result<Bytes, AuthorityError> {
        let request = Request::get(self.directory.as_str()).body(Bytes::new())?;
        let response = self.exchange(request).await?;
        match response.status().is_success() {
            true => Ok(response.into_body()),
            false => Err(AuthorityError::Status(response.status())),
        }
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, AuthorityError> {
        let (head, body) = request.into_parts();
        let url = Url::parse(&head.uri.to_string()).ok();
        let is_own = |url: &Url| url.origin() == self.directory.origin();
        let url = url.filter(is_own).ok_or(AuthorityError::OtherOrigin)?;
        let sent = self.client.send(head.method, url, head.headers, body);
        let mut received = sent.await?;
        let status = received.status();
        if status.is_redirection() {
            return Err(AuthorityError::Redirect);
        }
        let headers = received.take_headers();
        if !status.is_success() {
            *self.retry_after.lock() = requested_pause(&headers);
        }
        let body = received.read_body(MAX_BODY).await?;
        if !status.is_success() && !is_problem(&body) {
            return Err(AuthorityError::Status(status));
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

impl instant_acme::HttpClient for Authority {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let authority = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let request = Request::from_parts(head, body.to_bytes());
            match authority.exchange(request).await {
                Ok(response) => Ok(response.map(Full::new).into()),
                Err(error) => Err(instant_acme::Error::Other(Box::new(error))),
            }
        })
    }
}

/// Whether a body describes an error (RFC 8555, section 6.7). That of a proxy in front of the authority
/// does not.
fn is_problem(body: &[u8]) -> bool {
    let problem = serde_json::from_slice::<Problem>(body);
    problem.is_ok_and(|problem| problem.r#type.is_some() || problem.detail.is_some())
}

/// The pause that a response requests, in seconds or until a date (RFC 9110, section 10.2.3).
fn requested_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    at.duration_since(clock::system_time()).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn pause_is_in_seconds_or_until_a_date() {
        let pause = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            requested_pause(&headers)
        };
        assert_eq!(pause("120"), Some(Duration::from_secs(120)));
        assert_eq!(pause(" 7 "), Some(Duration::from_secs(7)));
        let later = clock::system_time() + Duration::from_secs(3_600);
        let until = pause(&httpdate::fmt_http_date(later)).unwrap();
        assert!((3_500..=3_600).contains(&until.as_secs()), "{until:?}");
        assert_eq!(pause("Mon, 01 Jan 2001 00:00:00 GMT"), None);
        assert_eq!(pause("-1"), None);
        assert_eq!(pause("soon"), None);
        assert_eq!(requested_pause(&HeaderMap::new()), None);
    }
}
