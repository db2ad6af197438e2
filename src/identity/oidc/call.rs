//! Calls of a provider: each has a deadline, a slot, a size limit, metrics and a classified outcome.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::health::{Health, ProviderStatus};
pub(super) use crate::http_client::ContentKind;
use crate::http_client::{HttpClient, HttpClientConfig, HttpError};
use crate::issuers::KeyFetchOutcome;
use crate::rejection::{CallbackFault, Refusal};
use crate::settings::provider::Provider;
use crate::telemetry::metrics::{ProviderEndpoint, ProviderOutcome, ProviderSeries};

/// Maximum size of a response, in bytes.
pub(super) const MAX_RESPONSE: usize = 1 << 20;
/// Maximum number of concurrent calls of one provider.
const MAX_CALLS: usize = 64;
const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

/// The client of one provider's endpoints.
pub(super) struct Caller {
    provider: Arc<str>,
    /// `None` if it could not be created, so that every call fails.
    client: Option<HttpClient>,
    timeout: Duration,
    slots: Semaphore,
    series: ProviderSeries,
    pub(super) health: Health,
}

/// A request to a provider.
pub(super) struct ProviderRequest {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A response that has not come before the deadline, and may still come.
pub(super) struct LateResponse(JoinHandle<Result<ProviderResponse, CallbackFault>>);

impl LateResponse {
    /// Waits for the response; `None`: there is none.
    pub(super) async fn wait(self) -> Option<ProviderResponse> {
        self.0.await.ok()?.ok()
    }
}

/// A response of a provider that is neither 429 nor 5xx.
pub(super) struct ProviderResponse {
    pub(super) status: StatusCode,
    pub(super) content: ContentKind,
    pub(super) body: Bytes,
}

impl Caller {
    pub(super) fn new(settings: &Provider, series: ProviderSeries) -> Caller {
        let client = build_client(settings).map_err(|error| {
            let provider = &*settings.name;
            let error = anyhow::Error::from(error);
            tracing::error!(
                provider,
                "the client of a provider cannot be built: {error:#}"
            );
        });
        Caller {
            provider: Arc::clone(&settings.name),
            client: client.ok(),
            timeout: settings.timeout,
            slots: Semaphore::new(MAX_CALLS),
            health: Health::new(series.clone()),
            series,
        }
    }

    /// The HTTP client, for keys.
    pub(super) fn client(&self) -> Option<HttpClient> {
        self.client.clone()
    }

    pub(super) fn series(&self) -> &ProviderSeries {
        &self.series
    }

    /// For one call.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request once and reads the response, within the deadline. It is never repeated.
    pub(super) async fn call<T>(
        &self,
        endpoint: ProviderEndpoint,
        request: ProviderRequest,
        read: impl FnOnce(&ProviderResponse) -> Result<T, CallbackFault>,
    ) -> Result<T, CallbackFault> {
        let started = Instant::now();
        let response = self
            .exchange(endpoint, request, started + self.timeout)
            .await;
        let result = response.and_then(|response| read(&response));
        self.observe(endpoint, result.as_ref().err().copied(), started.elapsed());
        result
    }

    /// Sends a request once, as [`Caller::call`] does, but does not give up at the deadline: the response
    /// may come for as long as `grace` afterward.
    pub(super) async fn call_patiently<T>(
        self: &Arc<Self>,
        endpoint: ProviderEndpoint,
        request: ProviderRequest,
        grace: Duration,
        read: impl FnOnce(Result<ProviderResponse, CallbackFault>) -> (T, Option<CallbackFault>),
    ) -> Result<T, LateResponse> {
        let (caller, started) = (Arc::clone(self), Instant::now());
        let deadline = started + self.timeout;
        let mut task = tokio::spawn(async move {
            let exchange = caller.exchange(endpoint, request, deadline + grace);
            exchange.await
        });
        let Ok(joined) = timeout_at(deadline, &mut task).await else {
            self.observe(endpoint, Some(CallbackFault::TimedOut), started.elapsed());
            return Err(LateResponse(task));
        };
        let response = joined.unwrap_or(Err(CallbackFault::ConnectionLost));
        let (result, fault) = read(response);
        self.observe(endpoint, fault, started.elapsed());
        Ok(result)
    }

    async fn exchange(
        &self,
        endpoint: ProviderEndpoint,
        request: ProviderRequest,
        deadline: Instant,
    ) -> Result<ProviderResponse, CallbackFault> {
        let Ok(Ok(_slot)) = timeout_at(deadline, self.slots.acquire()).await else {
            return Err(CallbackFault::TooManyCalls);
        };
        // What would be cut off at once is not sent.
        if Instant::now() >= deadline {
            return Err(CallbackFault::TooManyCalls);
        }
        match timeout_at(deadline, self.send(endpoint, request)).await {
            Ok(response) => response,
            Err(_) => Err(CallbackFault::TimedOut),
        }
    }

    async fn send(
        &self,
        endpoint: ProviderEndpoint,
        request: ProviderRequest,
    ) -> Result<ProviderResponse, CallbackFault> {
        let client = self.client.as_ref().ok_or(CallbackFault::Unreachable)?;
        let ProviderRequest {
            method,
            url,
            mut headers,
            body,
        } = request;
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers
            .entry(header::ACCEPT)
            .or_insert(HeaderValue::from_static("application/json"));
        let sent = client.send(method, url, headers, body).await;
        let mut response = sent.map_err(|error| self.fault_of(endpoint, &error))?;
        let status = response.status();
        check_availability(status)?;
        let content = ContentKind::of(&response.take_headers());
        let body = response.read_body(MAX_RESPONSE).await;
        let body = body.map_err(|error| self.fault_of(endpoint, &error))?;
        Ok(ProviderResponse {
            status,
            content,
            body,
        })
    }

    fn fault_of(&self, endpoint: ProviderEndpoint, error: &HttpError) -> CallbackFault {
        let fault = match error {
            HttpError::Connect(_) => CallbackFault::Unreachable,
            HttpError::Exchange(_) => CallbackFault::ConnectionLost,
            HttpError::TooLarge(_) => CallbackFault::ResponseTooLarge,
        };
        tracing::warn!(
            provider = &*self.provider,
            endpoint = endpoint.as_str(),
            error = error as &dyn Error,
            "a call of a provider failed"
        );
        fault
    }

    /// Records the outcome of a call.
    fn observe(&self, endpoint: ProviderEndpoint, fault: Option<CallbackFault>, took: Duration) {
        self.series.observe(endpoint, outcome_of(fault), took);
        let is_down = match fault {
            // The bound is the gateway's own.
            Some(CallbackFault::TooManyCalls) => return,
            // Without metadata there is no provider, whatever is wrong with it.
            Some(_) if endpoint == ProviderEndpoint::Discovery => true,
            Some(fault) => fault.refusal() == Refusal::ProviderUnavailable,
            None => false,
        };
        self.health.set(match is_down {
            true => ProviderStatus::Down,
            false => ProviderStatus::Up,
        });
    }

    /// Records the outcome of a fetch of keys.
    pub(super) fn observe_key_fetch(&self, outcome: KeyFetchOutcome, took: Duration) {
        let fault = match outcome {
            KeyFetchOutcome::Ok => None,
            KeyFetchOutcome::Failed => Some(CallbackFault::KeysUnavailable),
            KeyFetchOutcome::TimedOut => Some(CallbackFault::TimedOut),
        };
        self.observe(ProviderEndpoint::Jwks, fault, took);
    }
}

impl ProviderRequest {
    /// A GET without credentials.
    pub(super) fn get(url: Url) -> ProviderRequest {
        ProviderRequest {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }
}

pub(super) fn build_client(settings: &Provider) -> Result<HttpClient, HttpError> {
    let is_plain = [&settings.endpoints.token, &settings.endpoints.discovery]
        .into_iter()
        .flatten()
        .any(|url| url.scheme() == "http")
        || settings
            .issuer
            .as_ref()
            .is_some_and(|issuer| issuer.text().starts_with("http:"));
    HttpClient::new(&HttpClientConfig {
        // Before the deadline of the call, so that a request that was never sent is told from one whose
        // response is lost.
        connect_timeout: Some(settings.timeout * 9 / 10),
        // A proxy would read a client secret that is not encrypted.
        environment_proxies: !is_plain,
        // A reused connection may have been closed, which would leave unknown whether a code was
        // redeemed.
        single_use_connections: true,
        ca: settings.tls.ca.as_deref(),
        identity: match &settings.tls.client {
            Some((certificate, key)) => Some((certificate, key.as_slice())),
            None => None,
        },
        ..HttpClientConfig::default()
    })
}

/// Rejects the statuses by which a provider says that it cannot respond now.
fn check_availability(status: StatusCode) -> Result<(), CallbackFault> {
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(CallbackFault::TooManyRequests);
    }
    if matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
    ) {
        return Err(CallbackFault::ProxyFailed);
    }
    if status.is_server_error() {
        return Err(CallbackFault::ServerFailed);
    }
    Ok(())
}

fn outcome_of(fault: Option<CallbackFault>) -> ProviderOutcome {
    match fault {
        None => ProviderOutcome::Ok,
        Some(CallbackFault::TimedOut | CallbackFault::TooManyCalls) => ProviderOutcome::Timeout,
        Some(
            CallbackFault::GrantRejected
            | CallbackFault::ClientRejected
            | CallbackFault::RequestRejected
            | CallbackFault::UserinfoRejected,
        ) => ProviderOutcome::Refused,
        Some(_) => ProviderOutcome::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_an_outage_are_unavailability() {
        for (status, fault) in [
            (200, None),
            (302, None),
            (400, None),
            (408, None),
            (429, Some(CallbackFault::TooManyRequests)),
            (500, Some(CallbackFault::ServerFailed)),
            (502, Some(CallbackFault::ProxyFailed)),
            (503, Some(CallbackFault::ServerFailed)),
            (504, Some(CallbackFault::ProxyFailed)),
            (599, Some(CallbackFault::ServerFailed)),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            assert_eq!(check_availability(status).err(), fault, "{status}");
        }
    }
}
