//! The address of an endpoint: configured, or discovered when it is needed.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use url::Url;

use super::call::CallError;
use crate::http_client::HttpClient;
use crate::issuers::issuer_metadata::{IssuerAddress, discover};
use crate::settings::introspection::{IntrospectionEndpoint, IntrospectionEntry};

/// How long a discovered address is used before the metadata is fetched again.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long an earlier address is used after a fetch that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// The address of an entry's endpoint.
pub(super) struct Endpoint {
    discovered: Mutex<Option<Discovered>>,
}

#[derive(Clone)]
struct Discovered {
    url: Url,
    refresh_at: Instant,
}

impl Endpoint {
    pub(super) fn new() -> Endpoint {
        Endpoint {
            discovered: Mutex::new(None),
        }
    }

    /// Returns the address, within the deadline of the call. Calls at the same time may each fetch the
    /// metadata; their number is bounded.
    pub(super) async fn url(
        &self,
        settings: &IntrospectionEntry,
        client: &HttpClient,
    ) -> Result<Url, CallError> {
        if let IntrospectionEndpoint::Url(url) = &settings.endpoint {
            return Ok(url.clone());
        }
        let known = self.discovered.lock().clone();
        let now = Instant::now();
        if let Some(known) = known.as_ref().filter(|known| now < known.refresh_at) {
            return Ok(known.url.clone());
        }
        let issuer = settings.rules.issuer.as_deref().unwrap_or_default();
        let discovering = discover(client, issuer, IssuerAddress::Introspection);
        let Some(known) = known else {
            let url = discovering.await.map_err(CallError::Discovery)?;
            return Ok(self.keep(url, now + REFRESH_INTERVAL));
        };
        // The call itself needs time, too.
        match timeout(settings.timeout / 2, discovering).await {
            Ok(Ok(url)) => Ok(self.keep(url, now + REFRESH_INTERVAL)),
            _ => Ok(self.keep(known.url, now + RETRY_INTERVAL)),
        }
    }

    fn keep(&self, url: Url, refresh_at: Instant) -> Url {
        let discovered = Discovered {
            url: url.clone(),
            refresh_at,
        };
        *self.discovered.lock() = Some(discovered);
        url
    }
}
