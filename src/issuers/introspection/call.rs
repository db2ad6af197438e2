//! One call of an introspection endpoint.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use crate::http_client::{ContentKind, HttpClient, HttpError};
use crate::issuers::client_authentication::{Form, NoAuthentication, authenticate};
use crate::issuers::issuer_metadata::DiscoveryError;
use crate::settings::introspection::IntrospectionEntry;

/// Maximum size of a response, in bytes.
const MAX_RESPONSE: usize = 256 * 1024;
const USER_AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

/// Why a call says nothing of the token.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the HTTP client could not be created")]
    NoClient,
    #[error("the address of the endpoint is not known")]
    Discovery(#[source] DiscoveryError),
    #[error(transparent)]
    Authentication(#[from] NoAuthentication),
    #[error("the endpoint cannot be reached")]
    Unreachable(#[source] HttpError),
    #[error("the endpoint did not respond in time")]
    TimedOut,
    #[error("the endpoint does not accept the client's authentication (status {0})")]
    ClientRefused(u16),
    #[error("the endpoint responded with status {0}")]
    Status(u16),
    #[error("the response is not JSON")]
    NotJson,
    #[error("the response cannot be used: {0}")]
    Unusable(&'static str),
}

/// Sends a token to an endpoint once, and returns the body of a response that may say something of it.
pub(super) async fn send(
    settings: &IntrospectionEntry,
    client: &HttpClient,
    url: Url,
    token: &str,
) -> Result<Bytes, CallError> {
    let mut form = Form::new()
        .with("token", token)
        .with("token_type_hint", "access_token");
    let audience = settings.rules.issuer.as_deref().unwrap_or(url.as_str());
    let mut headers = authenticate(
        &settings.client_id,
        &settings.client_auth,
        audience,
        &mut form,
    )?;
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let body = Bytes::from(form.into_text());
    match exchange(client, url.clone(), headers.clone(), body.clone()).await {
        // An idle connection that the server has closed meanwhile. A token may be sent again.
        Err(CallError::Unreachable(HttpError::Exchange(_))) => {
            exchange(client, url, headers, body).await
        }
        result => result,
    }
}

async fn exchange(
    client: &HttpClient,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Bytes, CallError> {
    let sent = client.send(Method::POST, url, headers, body).await;
    let mut response = sent.map_err(CallError::Unreachable)?;
    match response.status() {
        StatusCode::OK => {}
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            return Err(CallError::ClientRefused(status.as_u16()));
        }
        status => return Err(CallError::Status(status.as_u16())),
    }
    if ContentKind::of(&response.take_headers()) != ContentKind::Json {
        return Err(CallError::NotJson);
    }
    let body = response.read_body(MAX_RESPONSE).await;
    body.map_err(CallError::Unreachable)
}
