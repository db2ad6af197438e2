//! A look at a provider before it is used: what it offers, and what would fail.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;
use url::Url;

use super::call::{MAX_RESPONSE, build_client};
use super::metadata::{ProviderMetadata, discovery_url};
use crate::auth::token::{KeyError, parse_jwks};
use crate::http_client::{HttpClient, HttpError};
use crate::issuers::MetadataError;
use crate::settings::provider::{Provider, ProviderKind};

/// What a provider offers.
#[derive(Debug)]
pub struct ProviderProbe {
    pub metadata: ProviderMetadata,
    /// Number of usable keys; `None` for a provider without ID tokens.
    pub keys: Option<usize>,
}

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("its client cannot be built")]
    Client(#[source] HttpError),
    #[error("its {0} cannot be fetched")]
    Fetch(&'static str, #[source] HttpError),
    #[error("its {0} cannot be fetched: no response within {1:?}")]
    TimedOut(&'static str, Duration),
    #[error("its {0} cannot be fetched: status {1}")]
    Status(&'static str, StatusCode),
    #[error("its metadata cannot be used")]
    Metadata(#[source] MetadataError),
    #[error("its keys cannot be used")]
    Keys(#[source] KeyError),
}

impl ProbeError {
    /// Whether the same may succeed later, without a change of the configuration.
    pub fn is_temporary(&self) -> bool {
        match self {
            ProbeError::Fetch(..) | ProbeError::TimedOut(..) => true,
            ProbeError::Status(_, status) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            ProbeError::Client(_) | ProbeError::Metadata(_) | ProbeError::Keys(_) => false,
        }
    }
}

/// Fetches the metadata and the keys of a provider once.
///
/// # Errors
///
/// A fetch fails, or its result cannot be used.
pub async fn probe(provider: &Provider) -> Result<ProviderProbe, ProbeError> {
    if provider.kind != ProviderKind::Oidc {
        let metadata = ProviderMetadata::configured(provider).map_err(ProbeError::Metadata)?;
        return Ok(ProviderProbe {
            metadata,
            keys: None,
        });
    }
    let client = build_client(provider).map_err(ProbeError::Client)?;
    let url = discovery_url(provider).map_err(ProbeError::Metadata)?;
    let document = fetch(&client, provider, "metadata", url).await?;
    let metadata = ProviderMetadata::parse(&document, provider).map_err(ProbeError::Metadata)?;
    let missing = ProbeError::Metadata(MetadataError::Missing("jwks_uri"));
    let jwks = metadata.jwks.clone().ok_or(missing)?;
    let document = fetch(&client, provider, "key set", jwks).await?;
    let keys = parse_jwks(&document, &provider.algorithms).map_err(ProbeError::Keys)?;
    Ok(ProviderProbe {
        metadata,
        keys: Some(keys.keys.len()),
    })
}

async fn fetch(
    client: &HttpClient,
    provider: &Provider,
    what: &'static str,
    url: Url,
) -> Result<Bytes, ProbeError> {
    let fetching = async {
        let response = client.send(Method::GET, url, HeaderMap::new(), Bytes::new());
        let response = response
            .await
            .map_err(|error| ProbeError::Fetch(what, error))?;
        if response.status() != StatusCode::OK {
            return Err(ProbeError::Status(what, response.status()));
        }
        let body = response.read_body(MAX_RESPONSE).await;
        body.map_err(|error| ProbeError::Fetch(what, error))
    };
    timeout(provider.timeout, fetching)
        .await
        .unwrap_or(Err(ProbeError::TimedOut(what, provider.timeout)))
}
