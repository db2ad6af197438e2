//! Identity source that delegates credential checks to a backend.

mod user;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use user::BackendUser;

use super::{AccountError, ClientInfo};
use crate::auth::session::Session;
use crate::database::User;
use crate::http_client::{HttpClient, HttpClientConfig, HttpError};
use crate::rejection::{Refusal, Rejection};
use crate::settings::backend::BackendSettings;

/// Maximum size of a backend's response, in bytes.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;
/// Wait reported to clients when the backend limits requests without `Retry-After`.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest wait that is passed on.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The configured backend client; clones share it. A reload that keeps the backend keeps its
/// client.
#[derive(Clone, Default)]
pub(super) struct CurrentBackendClient {
    client: Arc<Mutex<Option<Arc<BackendClient>>>>,
}

/// A backend, and its concurrency limits.
pub(super) struct BackendClient {
    backend: Arc<BackendSettings>,
    client: HttpClient,
    slots: CallSlots,
}

/// Concurrent call slots. A quarter is reserved for addresses from which the account has signed in
/// before, so that an attack from many addresses cannot use up all of them.
struct CallSlots {
    general: Semaphore,
    reserve: Semaphore,
}

impl CallSlots {
    fn new(concurrency: usize) -> CallSlots {
        let reserve = concurrency / 4;
        CallSlots {
            general: Semaphore::new(concurrency - reserve),
            reserve: Semaphore::new(reserve),
        }
    }

    async fn acquire(&self, known_here: bool) -> Result<SemaphorePermit<'_>, AcquireError> {
        if !known_here {
            return self.general.acquire().await;
        }
        tokio::select! {
            biased;
            permit = self.general.acquire() => permit,
            permit = self.reserve.acquire() => permit,
        }
    }
}

/// A login request to the backend.
pub(super) struct BackendRequest<'a> {
    pub(super) body: Bytes,
    pub(super) content_type: Option<&'a HeaderValue>,
    pub(super) request_id: &'a str,
    pub(super) client_info: &'a ClientInfo,
}

/// A successful login: the user, and the backend's response.
pub(super) struct BackendLogin {
    pub(super) user: User,
    pub(super) response: BackendResponse,
}

/// A backend's response.
#[derive(Debug)]
pub struct BackendResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl CurrentBackendClient {
    /// Returns the client for this backend, building it when the backend changed.
    pub(super) fn client_for(
        &self,
        backend: &Arc<BackendSettings>,
    ) -> Result<Arc<BackendClient>, AccountError> {
        let mut ready = self.client.lock();
        if let Some(ready) = ready.as_ref().filter(|ready| ready.backend == *backend) {
            return Ok(Arc::clone(ready));
        }
        let client = build_client(backend).map_err(|error| {
            let error = anyhow::Error::from(error);
            tracing::error!("the client of the identity backend cannot be built: {error:#}");
            AccountError::from(Refusal::Internal)
        })?;
        let shared = Arc::new(BackendClient {
            backend: Arc::clone(backend),
            client,
            slots: CallSlots::new(backend.concurrency),
        });
        *ready = Some(Arc::clone(&shared));
        Ok(shared)
    }
}

fn build_client(backend: &BackendSettings) -> Result<HttpClient, HttpError> {
    HttpClient::new(&HttpClientConfig {
        // A reused connection may have been closed, which would leave unknown whether the login was
        // received; checking a password costs more than a connection.
        single_use_connections: true,
        ca: backend.tls.ca.as_deref(),
        identity: match &backend.tls.client {
            Some((certificate, key)) => Some((certificate, key.as_slice())),
            None => None,
        },
        ..HttpClientConfig::default()
    })
}

/// Permission to call the backend, and its deadline.
pub(super) struct CallSlot<'a> {
    _permit: SemaphorePermit<'a>,
    deadline: Instant,
}

impl BackendClient {
    /// Waits for a slot, up to the call timeout.
    pub(super) async fn acquire_slot(
        &self,
        known_here: bool,
    ) -> Result<CallSlot<'_>, AccountError> {
        let until = Instant::now() + self.backend.timeout;
        match tokio::time::timeout_at(until, self.slots.acquire(known_here)).await {
            Ok(Ok(permit)) => Ok(CallSlot {
                _permit: permit,
                deadline: until,
            }),
            Ok(Err(_)) => Err(Refusal::Internal.into()),
            Err(_) => Err(Rejection {
                retry_after: Some(DEFAULT_RETRY_AFTER),
                ..Refusal::Overloaded.into()
            }
            .into()),
        }
    }

    /// Checks the credentials with the backend.
    ///
    /// # Errors
    /// `INVALID_CREDENTIALS` when they are wrong, `RATE_LIMITED` when the backend limits requests,
    /// or an upstream refusal when the outcome is unknown.
    pub(super) async fn check_credentials(
        &self,
        slot: &CallSlot<'_>,
        request: BackendRequest<'_>,
    ) -> Result<BackendLogin, AccountError> {
        let result = tokio::time::timeout_at(slot.deadline, self.call(request)).await;
        let response = result.map_err(|_| {
            tracing::warn!("the identity backend did not respond in time");
            Refusal::UpstreamTimeout
        })??;
        check_status(response.status, &response.headers)?;
        match BackendUser::parse(&self.backend, &response.headers, &response.body) {
            Ok(user) => Ok(BackendLogin {
                user: user.into_user(),
                response,
            }),
            Err(reason) => {
                tracing::error!("the identity backend's response is invalid: {reason}");
                Err(Refusal::UpstreamProtocolError.into())
            }
        }
    }

    async fn call(&self, request: BackendRequest<'_>) -> Result<BackendResponse, Refusal> {
        let (method, url) = (self.backend.method.clone(), self.backend.login.clone());
        let headers = request_headers(&request);
        let sent = self.client.send(method, url, headers, request.body);
        let mut response = sent.await.map_err(refusal_for_error)?;
        let (status, headers) = (response.status(), response.take_headers());
        let body = response.read_body(MAX_RESPONSE_BYTES).await;
        let body = body.map_err(refusal_for_error)?;
        Ok(BackendResponse {
            status,
            headers,
            body,
        })
    }
}

fn request_headers(request: &BackendRequest<'_>) -> HeaderMap {
    let client_info = request.client_info;
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(header::ACCEPT, "application/json");
    put(FORWARDED_FOR, &client_info.ip.to_canonical().to_string());
    put(REQUEST_ID, request.request_id);
    put(header::USER_AGENT, &client_info.user_agent);
    if let Some(content_type) = request.content_type {
        headers.insert(header::CONTENT_TYPE, content_type.clone());
    }
    headers
}

fn refusal_for_error(error: HttpError) -> Refusal {
    let refusal = match error {
        HttpError::Connect(_) => Refusal::UpstreamUnreachable,
        HttpError::Exchange(_) | HttpError::TooLarge(_) => Refusal::UpstreamProtocolError,
    };
    let error = anyhow::Error::from(error);
    tracing::error!("the request to the identity backend failed: {error:#}");
    refusal
}

/// Classifies a status: accepted, rejected, or unrelated to the credentials.
fn check_status(status: StatusCode, headers: &HeaderMap) -> Result<(), AccountError> {
    match status.as_u16() {
        200..=299 => Ok(()),
        400 | 401 | 403 | 422 => Err(Refusal::InvalidCredentials.into()),
        429 => Err(Rejection {
            retry_after: Some(retry_after(headers)),
            ..Refusal::RateLimited.into()
        }
        .into()),
        unexpected => {
            tracing::error!("the identity backend responded with status {unexpected}");
            Err(match unexpected {
                503 => Refusal::UpstreamUnavailable,
                504 => Refusal::UpstreamTimeout,
                _ => Refusal::UpstreamProtocolError,
            }
            .into())
        }
    }
}

/// Parses `Retry-After` in seconds; dates are not supported.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds
        .map_or(DEFAULT_RETRY_AFTER, Duration::from_secs)
        .clamp(DEFAULT_RETRY_AFTER, MAX_RETRY_AFTER)
}

/// Rebuilds a user who is not in the database from their session record.
pub fn user_from_session(session: &Session) -> User {
    User {
        id: session.user.clone(),
        email: session.email.clone(),
        username: session.username.as_deref().map(str::to_owned),
        name: session.name.clone(),
        password_hash: None,
        roles: session.roles.to_vec(),
        scopes: session.scopes.to_vec(),
        disabled: false,
        created_at: session.created_at,
        updated_at: session.created_at,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn response_status_maps_to_refusal() {
        let refusal = |status: u16| match check_status(
            StatusCode::from_u16(status).unwrap(),
            &HeaderMap::new(),
        ) {
            Ok(()) => "yes",
            Err(AccountError::Rejected(rejection)) => rejection.refusal.code(),
            Err(_) => "another",
        };
        for (status, expected) in [
            (200, "yes"),
            (201, "yes"),
            (204, "yes"),
            (302, "UPSTREAM_PROTOCOL_ERROR"),
            (400, "INVALID_CREDENTIALS"),
            (401, "INVALID_CREDENTIALS"),
            (403, "INVALID_CREDENTIALS"),
            (404, "UPSTREAM_PROTOCOL_ERROR"),
            (422, "INVALID_CREDENTIALS"),
            (429, "RATE_LIMITED"),
            (500, "UPSTREAM_PROTOCOL_ERROR"),
            (502, "UPSTREAM_PROTOCOL_ERROR"),
            (503, "UPSTREAM_UNAVAILABLE"),
            (504, "UPSTREAM_TIMEOUT"),
        ] {
            assert_eq!(refusal(status), expected, "{status}");
        }
    }

    #[tokio::test]
    async fn unknown_addresses_cannot_exhaust_the_reserve() {
        let slots = CallSlots::new(4);
        let mut permits = Vec::new();
        for _ in 0..3 {
            permits.push(slots.acquire(false).await.unwrap());
        }
        let mut unknown = Box::pin(slots.acquire(false));
        assert!(futures_util::poll!(&mut unknown).is_pending());
        let known = slots.acquire(true).await.unwrap();
        let mut another = Box::pin(slots.acquire(true));
        assert!(futures_util::poll!(&mut another).is_pending());
        drop(known);
        drop(another.await.unwrap());
        permits.pop();
        drop(unknown.await.unwrap());
        // A backend with few slots shares them without a reserve.
        let few = CallSlots::new(1);
        let permit = few.acquire(true).await.unwrap();
        let mut next = Box::pin(few.acquire(true));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(permit);
        drop(next.await.unwrap());
    }

    #[test]
    fn retry_after_is_clamped() {
        let wait = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(value));
            retry_after(&headers).as_secs()
        };
        assert_eq!(wait("30"), 30);
        assert_eq!(wait("0"), 1);
        assert_eq!(wait("99999999999"), 86_400);
        assert_eq!(wait("Fri, 31 Dec 1999 23:59:59 GMT"), 1);
        assert_eq!(retry_after(&HeaderMap::new()).as_secs(), 1);
    }
}
